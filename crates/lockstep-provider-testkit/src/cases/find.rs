use lockstep_provider::{ErrorKind, FindQuery, RemoteRef};

use crate::{
    Skip, Subject,
    assert::{Client, assert_names, client},
    at,
};

const KEYS: [&str; 5] = [
    "other",
    "shop/database",
    "shop/eu/database",
    "shop/smtp",
    "shopping/cart",
];

async fn stocked(subject: &impl Subject) -> Result<Client, Skip> {
    let client = client(subject).await;
    if !client.0.capability().find {
        return Skip::because("the provider cannot search");
    }
    for key in KEYS {
        subject.put(key, &[("CANARY-field", "CANARY")]).await;
    }
    Ok(client)
}

fn below(path: &str) -> FindQuery {
    FindQuery {
        path: Some(at(path)),
        ..FindQuery::default()
    }
}

fn named(pattern: &str) -> FindQuery {
    FindQuery {
        name: Some(pattern.into()),
        ..FindQuery::default()
    }
}

/// A path is a folder, not a prefix. Keys at any depth below it are found.
///
/// # Errors
/// Skipped if the provider cannot search.
pub async fn values_are_found_by_path(subject: &impl Subject) -> Result<(), Skip> {
    let client = stocked(subject).await?;
    assert_eq!(client.find(&FindQuery::default()).await, KEYS);
    assert_eq!(
        client.find(&below("shop")).await,
        ["shop/database", "shop/eu/database", "shop/smtp"]
    );
    assert_eq!(client.find(&below("shop/eu")).await, ["shop/eu/database"]);
    Ok(())
}

/// The pattern matches anywhere in the whole key. If both path and name are set, both must match.
///
/// # Errors
/// Skipped if the provider cannot search.
pub async fn values_are_found_by_name(subject: &impl Subject) -> Result<(), Skip> {
    let client = stocked(subject).await?;
    assert_eq!(
        client.find(&named("database$")).await,
        ["shop/database", "shop/eu/database"]
    );
    assert_eq!(
        client.find(&named("^shop/[a-z]+$")).await,
        ["shop/database", "shop/smtp"]
    );
    let query = FindQuery {
        path: Some(at("shop/eu")),
        ..named("database")
    };
    assert_eq!(client.find(&query).await, ["shop/eu/database"]);
    Ok(())
}

/// A value must carry every requested tag.
///
/// # Errors
/// Skipped if the backend has no tags.
pub async fn values_are_found_by_tags(subject: &impl Subject) -> Result<(), Skip> {
    let client = stocked(subject).await?;
    subject.tag("shop/database", "team", "shop").await?;
    subject.tag("shop/database", "stage", "live").await?;
    subject.tag("shop/smtp", "team", "shop").await?;
    subject.tag("other", "team", "blog").await?;
    let tagged = |tags: &[(&str, &str)]| FindQuery {
        tags: tags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..FindQuery::default()
    };
    assert_eq!(
        client.find(&tagged(&[("team", "shop")])).await,
        ["shop/database", "shop/smtp"]
    );
    assert_eq!(
        client.find(&tagged(&[("team", "shop"), ("stage", "live")])).await,
        ["shop/database"]
    );
    let query = FindQuery {
        path: Some(at("shop")),
        name: Some("smtp".into()),
        ..tagged(&[("team", "shop")])
    };
    assert_eq!(client.find(&query).await, ["shop/smtp"]);
    assert!(client.find(&tagged(&[("team", "nobody")])).await.is_empty());
    assert!(
        client.0.capability().find_by_tags,
        "what finds by tags must say so"
    );
    Ok(())
}

/// Every key that is found is valid in a reference.
///
/// # Errors
/// Skipped if the provider cannot search.
pub async fn what_is_found_can_be_read(subject: &impl Subject) -> Result<(), Skip> {
    let client = stocked(subject).await?;
    let unusual = if subject.takes_key("shop/größe-鍵").is_ok() {
        "shop/größe-鍵"
    } else {
        "shop/a_b.c-d"
    };
    subject.put(unusual, &[("value", "CANARY")]).await;
    let keys = client.find(&below("shop")).await;
    assert!(keys.iter().any(|key| key == unusual));
    for key in keys {
        client.read(&RemoteRef::current(at(key))).await;
    }
    Ok(())
}

/// A path without values and an empty store are not errors. Deleted values are not found.
///
/// # Errors
/// Skipped if the provider cannot search.
pub async fn nothing_found_is_an_empty_list(subject: &impl Subject) -> Result<(), Skip> {
    let client = stocked(subject).await?;
    subject.finds_nothing()?;
    assert!(client.find(&below("nowhere")).await.is_empty());
    assert!(
        client.find(&below("shop/database")).await.is_empty(),
        "nothing is below a value"
    );
    assert!(client.find(&named("^nothing$")).await.is_empty());
    subject.delete("shop/smtp").await;
    assert_eq!(
        client.find(&below("shop")).await,
        ["shop/database", "shop/eu/database"]
    );
    for key in KEYS {
        subject.delete(key).await;
    }
    assert!(client.find(&FindQuery::default()).await.is_empty());
    Ok(())
}

/// The error says that the pattern is invalid and quotes it as the user wrote it.
///
/// # Errors
/// Skipped if the provider cannot search.
pub async fn a_pattern_that_is_none_is_refused(subject: &impl Subject) -> Result<(), Skip> {
    let client = stocked(subject).await?;
    for pattern in ["(shop", "(?=shop)", "((((a{1,100}){1,100}){1,100}){1,100})"] {
        let error = client
            .refuse_find(&named(pattern), ErrorKind::ConfigInvalid)
            .await;
        assert_names(&error, pattern);
    }
    Ok(())
}

/// This is more than any service returns in one page.
///
/// # Errors
/// Skipped if the provider cannot search.
pub async fn a_thousand_and_two_hundred_keys_are_found(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    if !client.0.capability().find {
        return Skip::because("the provider cannot search");
    }
    let keys: Vec<String> = (0..1200).map(|index| format!("paged/key-{index:04}")).collect();
    subject.put_many(&keys).await;
    assert!(
        client.find(&below("paged")).await == keys,
        "every key is found once"
    );
    Ok(())
}
