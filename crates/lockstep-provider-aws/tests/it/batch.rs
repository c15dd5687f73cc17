//! Tests how many calls reads need, and which keys a failure affects.

use std::time::Duration;

use lockstep_provider::{ErrorKind, RemoteRef};
use lockstep_provider_testkit::at;
use lockstep_testkit::aws::{Aws, Trouble};

use crate::bench::{Store, text};

async fn secrets(count: usize) -> (Aws, Vec<String>) {
    let aws = Aws::start().await.unwrap();
    let names: Vec<String> = (0..count).map(|number| format!("shop/{number:03}")).collect();
    for name in &names {
        aws.put_secret(name, &format!("CANARY-{name}"));
    }
    (aws, names)
}

async fn parameters(count: usize) -> (Aws, Vec<String>) {
    let aws = Aws::start().await.unwrap();
    let names: Vec<String> = (0..count).map(|number| format!("/shop/{number:03}")).collect();
    for name in &names {
        aws.put_parameter(name, &format!("CANARY-{name}"));
    }
    (aws, names)
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

async fn assert_all(store: &Store, names: &[String]) {
    let results = store.fetch_all(&strs(names)).await;
    for (name, result) in names.iter().zip(&results) {
        assert!(
            text(result) == format!("CANARY-{name}"),
            "{name} has its own value"
        );
    }
}

#[tokio::test]
async fn hundred_secrets_need_five_calls() {
    let (aws, names) = secrets(100).await;
    let store = Store::of("SecretsManager", &aws).await;
    assert_all(&store, &names).await;
    assert_eq!((aws.count("BatchGetSecretValue"), aws.calls().len()), (5, 5));
}

#[tokio::test]
async fn hundred_parameters_need_ten_calls() {
    let (aws, names) = parameters(100).await;
    let store = Store::of("ParameterStore", &aws).await;
    assert_all(&store, &names).await;
    assert_eq!((aws.count("GetParameters"), aws.calls().len()), (10, 10));
}

#[tokio::test]
async fn names_and_arns_of_secrets_are_not_in_one_call() {
    let (aws, names) = secrets(4).await;
    let store = Store::of("SecretsManager", &aws).await;
    let arns: Vec<String> = (0..2)
        .map(|number| {
            format!("arn:aws:secretsmanager:eu-central-1:999999999999:secret:shop/{number:03}-AbCdEf")
        })
        .collect();
    let keys = [&*names[0], &*names[1], &*names[2], &*arns[0], &*arns[1]];
    let results = store.fetch_all(&keys).await;
    for (name, result) in names.iter().zip(&results[..3]) {
        assert_eq!(text(result), format!("CANARY-{name}"));
    }
    assert_eq!(aws.count("BatchGetSecretValue"), 2);
}

#[tokio::test]
async fn names_and_arns_of_parameters_are_in_separate_calls() {
    let (aws, names) = parameters(2).await;
    let arn = format!("arn:aws:ssm:eu-central-1:123456789012:parameter{}", names[0]);
    let store = Store::of("ParameterStore", &aws).await;
    let results = store.fetch_all(&[&names[0], &names[1], &arn]).await;
    let values: Vec<_> = results.iter().map(text).collect();
    assert_eq!(
        values,
        ["CANARY-/shop/000", "CANARY-/shop/001", "CANARY-/shop/000"]
    );
    assert_eq!(aws.count("GetParameters"), 2);
}

#[tokio::test]
async fn key_that_is_requested_twice_is_sent_once() {
    let (aws, _) = secrets(2).await;
    let store = Store::of("SecretsManager", &aws).await;
    let arn = aws.secret_arn("shop/001").unwrap();
    let results = store
        .fetch_all(&["shop/000", "shop/001", "shop/000", arn.as_str()])
        .await;
    let values: Vec<_> = results.iter().map(text).collect();
    assert_eq!(
        values,
        [
            "CANARY-shop/000",
            "CANARY-shop/001",
            "CANARY-shop/000",
            "CANARY-shop/001"
        ]
    );
    assert_eq!(
        aws.count("BatchGetSecretValue"),
        2,
        "one for names and one for ARNs"
    );
}

#[tokio::test]
async fn name_that_looks_like_an_arn_of_another_secret_is_not_mixed_up() {
    let aws = Aws::start().await.unwrap();
    let arn = aws.put_secret_with_suffix("prod/db", "xwMINM", "CANARY-victim");
    aws.put_secret_with_suffix("prod/db-xwMINM", "ubSvUU", "CANARY-attacker");
    let store = Store::of("SecretsManager", &aws).await;
    for keys in [[arn.as_str(), "prod/db-xwMINM"], ["prod/db-xwMINM", arn.as_str()]] {
        let results = store.fetch_all(&keys).await;
        for (key, result) in keys.iter().zip(&results) {
            let expected = if *key == arn {
                "CANARY-victim"
            } else {
                "CANARY-attacker"
            };
            assert_eq!(text(result), expected, "{key}");
        }
    }
    let calls = (aws.count("BatchGetSecretValue"), aws.count("GetSecretValue"));
    assert_eq!(calls, (4, 0));

    // The stand-in completes an ARN whose secret is gone.
    aws.delete("prod/db");
    for keys in [&[arn.as_str(), "prod/db-xwMINM"][..], &[&arn]] {
        let results = store.fetch_all(keys).await;
        assert_eq!(results[0].as_ref().unwrap_err().kind, ErrorKind::Malformed);
        assert!(
            results
                .get(1)
                .is_none_or(|result| text(result) == "CANARY-attacker")
        );
    }
}

#[tokio::test]
async fn all_pages_of_a_batch_are_read() {
    let (aws, names) = secrets(20).await;
    aws.page(7);
    let store = Store::of("SecretsManager", &aws).await;
    assert_all(&store, &names).await;
    assert_eq!((aws.count("BatchGetSecretValue"), aws.calls().len()), (3, 3));
}

#[tokio::test]
async fn error_in_a_batch_affects_only_its_key() {
    let (aws, _) = secrets(4).await;
    aws.deny_name("shop/001");
    aws.schedule_deletion("shop/002");
    let store = Store::of("SecretsManager", &aws).await;
    let results = store
        .fetch_all(&[
            "shop/000",
            "shop/001",
            "shop/002",
            "shop/missing",
            "shop/bad:name",
            "shop/003",
        ])
        .await;
    let kinds: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().err().map(|error| error.kind))
        .collect();
    let missing = Some(ErrorKind::NotFound);
    let denied = Some(ErrorKind::PermissionDenied);
    let invalid = Some(ErrorKind::ConfigInvalid);
    assert_eq!(kinds, [None, denied, missing, missing, invalid, None]);
    let deleted = results[2].as_ref().unwrap_err().to_string();
    assert!(deleted.contains("marked for deletion"), "{deleted}");
    assert_eq!(aws.calls().len(), 1, "a name that no secret has is not sent");
}

#[tokio::test]
async fn ids_that_a_batch_does_not_answer_are_read_alone() {
    let (aws, names) = secrets(10).await;
    aws.trouble(Some(Trouble::Partial));
    let store = Store::of("SecretsManager", &aws).await;
    assert_all(&store, &names).await;
    assert_eq!(
        (aws.count("BatchGetSecretValue"), aws.count("GetSecretValue")),
        (1, 5)
    );
}

#[tokio::test]
async fn versions_are_read_by_stage_and_id_outside_of_the_batch() {
    let (aws, _) = secrets(2).await;
    let store = Store::of("SecretsManager", &aws).await;
    let old = store
        .fetch_all(&["shop/000"])
        .await
        .remove(0)
        .unwrap()
        .version
        .unwrap();
    aws.put_secret("shop/000", "CANARY-new");
    let results = store
        .fetch(&[
            RemoteRef::current(at("shop/000")),
            RemoteRef::version(at("shop/000"), "AWSPREVIOUS"),
            RemoteRef::version(at("shop/000"), &old),
            RemoteRef::version(at("shop/000"), "nosuchstage"),
            RemoteRef::version(at("shop/000"), "uuid/"),
            RemoteRef::current(at("shop/001")),
        ])
        .await;
    assert!(old.starts_with("uuid/"), "{old}");
    let values: Vec<_> = [0, 1, 2, 5].map(|index| text(&results[index])).into();
    assert_eq!(
        values,
        [
            "CANARY-new",
            "CANARY-shop/000",
            "CANARY-shop/000",
            "CANARY-shop/001"
        ]
    );
    assert_eq!(results[3].as_ref().unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(results[4].as_ref().unwrap_err().kind, ErrorKind::ConfigInvalid);
}

#[tokio::test]
async fn parameters_are_read_by_version_label_arn_and_type() {
    let aws = Aws::start().await.unwrap();
    aws.put_parameter("/shop/database", "CANARY-old");
    aws.put_parameter("/shop/database", "CANARY-new");
    aws.label_parameter("/shop/database", 1, "stable");
    aws.put_parameter_as("/shop/hosts", "StringList", "one,two");
    let store = Store::of("ParameterStore", &aws).await;
    let arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/shop/database";
    let results = store
        .fetch(&[
            RemoteRef::current(at("/shop/database")),
            RemoteRef::version(at("/shop/database"), "1"),
            RemoteRef::version(at("/shop/database"), "stable"),
            RemoteRef::current(at(arn)),
            RemoteRef::version(at(arn), "1"),
            RemoteRef::current(at("/shop/hosts")),
            RemoteRef::version(at("/shop/database"), "3"),
            RemoteRef::version(at("/shop/database"), "1:2"),
            RemoteRef::current(at("shop/database")),
        ])
        .await;
    let values: Vec<_> = results[..6].iter().map(text).collect();
    assert_eq!(
        values,
        [
            "CANARY-new",
            "CANARY-old",
            "CANARY-old",
            "CANARY-new",
            "CANARY-old",
            "one,two"
        ]
    );
    assert_eq!(results[1].as_ref().unwrap().version.as_deref(), Some("1"));
    assert_eq!(results[6].as_ref().unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(results[7].as_ref().unwrap_err().kind, ErrorKind::ConfigInvalid);
    let no_slash = results[8].as_ref().unwrap_err();
    assert_eq!(no_slash.kind, ErrorKind::ConfigInvalid);
    assert!(no_slash.to_string().contains("slash"), "{no_slash}");
    assert_eq!(aws.calls().len(), 2, "one with names and one with ARNs");
}

#[tokio::test]
async fn denied_parameter_costs_extra_calls_only_once() {
    let (aws, names) = parameters(10).await;
    aws.deny_name("/shop/004");
    let store = Store::of("ParameterStore", &aws).await;
    for round in 0..3 {
        let results = store.fetch_all(&strs(&names)).await;
        for (name, result) in names.iter().zip(&results) {
            match result {
                Ok(_) => assert_ne!(name, "/shop/004"),
                Err(error) => {
                    assert_eq!(
                        (name.as_str(), error.kind),
                        ("/shop/004", ErrorKind::PermissionDenied)
                    );
                }
            }
        }
        // The first round finds the cause: one call, then each name alone.
        let expected = if round == 0 { 11 } else { 2 };
        assert_eq!(aws.calls().len(), expected, "round {round}");
        aws.forget_calls();
    }
    // The layers also know that it is read alone.
    assert!(!store.0.batches(&RemoteRef::current(at("/shop/004"))));
    assert!(store.0.batches(&RemoteRef::current(at("/shop/005"))));
}

#[tokio::test]
async fn rejected_id_costs_extra_calls_only_once() {
    let (aws, names) = secrets(20).await;
    aws.refuse_id("shop/004");
    let store = Store::of("SecretsManager", &aws).await;
    for round in 0..3 {
        let results = store.fetch_all(&strs(&names)).await;
        for (name, result) in names.iter().zip(&results) {
            let kind = result.as_ref().err().map(|error| error.kind);
            let expected = (name == "shop/004").then_some(ErrorKind::ConfigInvalid);
            assert_eq!(kind, expected, "{name}");
        }
        let calls = (aws.count("BatchGetSecretValue"), aws.count("GetSecretValue"));
        assert_eq!(calls, if round == 0 { (1, 20) } else { (1, 1) }, "round {round}");
        aws.forget_calls();
    }
    // The layers also know that it is read alone.
    assert!(!store.0.batches(&RemoteRef::current(at("shop/004"))));
    assert!(store.0.batches(&RemoteRef::current(at("shop/005"))));
}

#[tokio::test]
async fn rejected_batches_are_not_retried_at_every_refresh() {
    let (aws, names) = secrets(20).await;
    aws.trouble(Some(Trouble::NoBatches));
    let store = Store::of("SecretsManager", &aws).await;
    for batches in [1, 0, 0] {
        assert_all(&store, &names).await;
        let calls = (aws.count("BatchGetSecretValue"), aws.count("GetSecretValue"));
        assert_eq!(calls, (batches, 20));
        aws.forget_calls();
    }
    aws.trouble(None);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(601)).await;
    tokio::time::resume();
    assert_all(&store, &names).await;
    assert_eq!(aws.calls().len(), 1, "after ten minutes they are");
}

#[tokio::test]
async fn throttled_parameter_is_not_blamed_for_a_denied_batch() {
    let (aws, names) = parameters(10).await;
    aws.deny_name("/shop/004");
    let store = Store::of("ParameterStore", &aws).await;
    aws.trouble(Some(Trouble::EverySecond));
    // The first call is denied as a whole, and half of the single reads are throttled.
    store.fetch_all(&strs(&names)).await;
    aws.trouble(None);
    store.fetch_all(&strs(&names)).await;
    let alone: Vec<_> = names
        .iter()
        .filter(|name| !store.0.batches(&RemoteRef::current(at(name.as_str()))))
        .collect();
    assert_eq!(alone, ["/shop/004"]);
}

#[tokio::test]
async fn prefix_is_added_to_every_name_and_excludes_arns() {
    let (aws, _) = secrets(1).await;
    let spec = crate::bench::and(
        crate::bench::spec("SecretsManager", &aws.address()),
        "prefix",
        "shop/",
    );
    let store = Store::new(spec, &crate::bench::objects()).await;
    let arn = aws.secret_arn("shop/000").unwrap();
    assert_eq!(store.read("000").await, "CANARY-shop/000");
    assert_eq!(store.refuse(&arn).await.kind, ErrorKind::ConfigInvalid);
    assert_eq!(store.refuse("shop/000").await.kind, ErrorKind::NotFound);
    let found = store.find(lockstep_provider::FindQuery::default()).await.unwrap();
    assert_eq!(found, ["000"], "what is found can be read");
}
