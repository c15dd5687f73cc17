use lockstep_provider::{Context, ErrorKind, FindQuery, RemoteRef};

use crate::{
    Skip, Subject,
    assert::{assert_clean, assert_fields, assert_names, client},
    at,
};

/// This includes references that fail and duplicates.
///
/// # Errors
/// Never skipped.
pub async fn results_are_one_per_reference_in_order(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    for key in ["order/a", "order/b", "order/c"] {
        subject.put(key, &[("key", key), ("canary", "CANARY")]).await;
    }
    let keys = [
        "order/c",
        "order/missing",
        "order/a",
        "order/c",
        "order/b",
        "order/missing",
        "order/a",
    ];
    let results = client.fetch(&keys.map(|key| RemoteRef::current(at(key)))).await;
    for (key, result) in keys.iter().zip(&results) {
        match result {
            Ok(secret) => assert_fields(secret, &[("key", key), ("canary", "CANARY")]),
            Err(error) => {
                assert_eq!(*key, "order/missing", "{error}");
                assert_eq!(error.kind.label(), ErrorKind::NotFound.label(), "{error}");
                assert_names(error, key);
            }
        }
    }
    assert!(client.fetch(&[]).await.is_empty());
    Ok(())
}

/// The number of references exceeds every batch size.
///
/// # Errors
/// Never skipped.
pub async fn many_references_are_answered_at_once(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let keys: Vec<String> = (0..50).map(|index| format!("many/{index}")).collect();
    for key in &keys {
        subject.put(key, &[("key", key), ("canary", "CANARY")]).await;
    }
    let refs: Vec<RemoteRef> = keys.iter().map(|key| RemoteRef::current(at(key))).collect();
    for (key, result) in keys.iter().zip(client.fetch(&refs).await) {
        match result {
            Ok(secret) => assert_fields(&secret, &[("key", key), ("canary", "CANARY")]),
            Err(error) => panic!("\"{key}\" must be readable: {error}"),
        }
    }
    Ok(())
}

/// A provider rejects what its capability excludes, instead of doing something else.
///
/// # Errors
/// Never skipped.
pub async fn what_the_capability_denies_is_unsupported(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let capability = client.0.capability();
    assert!(!capability.name.is_empty() && capability.batch > 0);
    assert!(
        capability.find || !capability.find_by_tags,
        "finding by tags is finding"
    );
    subject.put("shop/database", &[("value", "CANARY")]).await;
    if !capability.versions {
        client
            .refuse(
                &RemoteRef::version(at("shop/database"), "1"),
                ErrorKind::Unsupported,
            )
            .await;
    }
    if !capability.metadata {
        let metadata = RemoteRef::current(at("shop/database")).metadata();
        client.refuse(&metadata, ErrorKind::Unsupported).await;
    }
    if !capability.find {
        client
            .refuse_find(&FindQuery::default(), ErrorKind::Unsupported)
            .await;
    }
    if !capability.find_by_tags {
        let tags = [("team".to_owned(), "shop".to_owned())].into();
        client
            .refuse_find(
                &FindQuery {
                    tags,
                    ..FindQuery::default()
                },
                ErrorKind::Unsupported,
            )
            .await;
    }
    Ok(())
}

/// The check succeeds for a store that works.
///
/// # Errors
/// Never skipped.
pub async fn a_working_store_passes_its_check(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    if let Err(error) = client.0.check(&Context::default()).await {
        assert_clean(&error);
        panic!("the store works: {error}");
    }
    Ok(())
}
