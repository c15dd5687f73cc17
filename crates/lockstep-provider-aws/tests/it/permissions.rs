//! Tests the minimal policy of `docs/reference/permissions.md`: the actions that it lists for a
//! feature are sufficient and all necessary.

use std::collections::BTreeMap;

use lockstep_api::{CiphertextScope, StoreKind};
use lockstep_provider::{Binding, Ciphertext, Context, ErrorKind, FindQuery, ProviderError, RemoteRef};
use lockstep_provider_testkit::at;
use lockstep_testkit::aws::{ACCESS_KEY_ID, Aws};
use serde_json::json;

use crate::{
    bench::{Store, and, objects, spec},
    kms,
};

/// Returns the rows of the page's table for AWS: each feature, and the actions that it needs.
fn rows() -> Vec<(String, Vec<String>)> {
    let page = include_str!("../../../../docs/reference/permissions.md");
    let (_, section) = page.split_once("## At AWS").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let table = section.lines().filter(|line| line.starts_with("| "));
    table
        .skip(1)
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let actions = cells.get(1)?.split('`').skip(1).step_by(2);
            let actions: Vec<String> = actions
                .filter(|code| code.contains(':'))
                .map(str::to_owned)
                .collect();
            Some(((*cells.first()?).to_owned(), actions))
        })
        .collect()
}

/// Returns the actions that a feature needs, each without its service.
fn needed(feature: &str) -> Vec<String> {
    let rows = rows();
    let row = rows.iter().find(|(name, _)| name == feature);
    let (_, actions) = row.unwrap_or_else(|| panic!("the page has no row \"{feature}\""));
    assert!(!actions.is_empty(), "\"{feature}\" needs something");
    let bare = |action: &String| action.rsplit(':').next().unwrap().to_owned();
    actions.iter().map(bare).collect()
}

/// Creates a stand-in with objects for every feature.
async fn world() -> Aws {
    let aws = Aws::start().await.unwrap();
    for name in ["a", "b"] {
        aws.put_secret(&format!("shop/{name}"), "CANARY");
        aws.tag(&format!("shop/{name}"), "team", "shop");
        aws.put_parameter(&format!("/shop/{name}"), "CANARY");
        aws.tag(&format!("/shop/{name}"), "team", "shop");
    }
    aws
}

async fn store(aws: &Aws, service: &str) -> Store {
    let spec = spec(service, &aws.address());
    let spec = if service == "ParameterStore" {
        and(spec, "prefix", "/")
    } else {
        spec
    };
    Store::new(spec, &objects()).await
}

async fn read(aws: &Aws, service: &str) -> Result<(), ProviderError> {
    let store = store(aws, service).await;
    let results = store.fetch_all(&["shop/a", "shop/b"]).await;
    results.into_iter().try_for_each(|result| result.map(drop))
}

async fn metadata(aws: &Aws, service: &str) -> Result<(), ProviderError> {
    let store = store(aws, service).await;
    let results = store.fetch(&[RemoteRef::current(at("shop/a")).metadata()]).await;
    results.into_iter().try_for_each(|result| result.map(drop))
}

async fn find(aws: &Aws, service: &str, tags: bool) -> Result<(), ProviderError> {
    let tags = if tags {
        vec![("team".to_owned(), "shop".to_owned())]
    } else {
        vec![]
    };
    let query = FindQuery {
        path: tags.is_empty().then(|| at("shop")),
        tags: tags.into_iter().collect(),
        ..FindQuery::default()
    };
    let found = store(aws, service).await.find(query).await?;
    assert_eq!(found, ["shop/a", "shop/b"]);
    Ok(())
}

async fn hear(aws: &Aws) -> Result<(), ProviderError> {
    aws.tell("shop/a").unwrap();
    let events = json!({ "sqs": { "queueUrl": aws.queue_url() } });
    let spec = spec("SecretsManager", &aws.address());
    let store = Store::build_hearing(spec, Some(events), &objects(), StoreKind::SecretStore).await?;
    let source = store.0.events().unwrap();
    let received = source.receive().await?.remove(0);
    source.acknowledge(&[received.receipt.unwrap()]).await
}

async fn decrypt(aws: &Aws, ciphertext: &Ciphertext, key: &str) -> Result<(), ProviderError> {
    let store = Store::new(kms::spec(&aws.address(), key), &objects()).await;
    let answer = store.0.decrypt(&Context::default(), ciphertext).await;
    answer.map(drop)
}

/// Uses a feature with exactly these actions, and once more without each of them.
async fn needs_just(feature: &str, also: &[String], used: impl AsyncFn(&Aws) -> Result<(), ProviderError>) {
    let own = needed(feature);
    let all: Vec<&str> = also.iter().chain(&own).map(String::as_str).collect();
    let aws = world().await;
    aws.allow_only(&all);
    used(&aws)
        .await
        .unwrap_or_else(|error| panic!("\"{feature}\" needs more than {all:?}: {error}"));
    for action in &own {
        let aws = world().await;
        let rest: Vec<&str> = all.iter().copied().filter(|other| other != action).collect();
        aws.allow_only(&rest);
        let Err(error) = used(&aws).await else {
            panic!("\"{feature}\" does not need {action}")
        };
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains(action), "{error}");
    }
}

#[tokio::test]
async fn page_lists_exactly_the_actions_of_each_feature() {
    let none = Vec::new();
    let read_secrets = "`data`, `dataFrom.extract` in Secrets Manager";
    let secrets = needed(read_secrets);
    let read_parameters = "`data`, `dataFrom.extract` in Parameter Store";
    let parameters = needed(read_parameters);
    needs_just(read_secrets, &none, async |aws| read(aws, "SecretsManager").await).await;
    needs_just("`dataFrom.find` in Secrets Manager", &secrets, async |aws| {
        find(aws, "SecretsManager", false).await
    })
    .await;
    for (service, name) in [
        ("SecretsManager", "Secrets Manager"),
        ("ParameterStore", "Parameter Store"),
    ] {
        let feature = format!("`metadataPolicy: Fetch` in {name}");
        needs_just(&feature, &none, async |aws| metadata(aws, service).await).await;
    }
    needs_just(read_parameters, &none, async |aws| {
        read(aws, "ParameterStore").await
    })
    .await;
    needs_just(
        "`dataFrom.find` by path or name in Parameter Store",
        &parameters,
        async |aws| find(aws, "ParameterStore", false).await,
    )
    .await;
    needs_just(
        "`dataFrom.find` by tags in Parameter Store",
        &parameters,
        async |aws| find(aws, "ParameterStore", true).await,
    )
    .await;
}

#[tokio::test]
async fn events_need_exactly_the_listed_actions() {
    needs_just("`events.sqs`", &[], hear).await;
}

/// Without the action nothing fails, but reads need more calls, which is reported.
#[tokio::test]
async fn batch_needs_the_listed_action() {
    let feature = "the same, 20 with one call";
    let (own, read_one) = (
        needed(feature),
        needed("`data`, `dataFrom.extract` in Secrets Manager"),
    );
    for granted in [true, false] {
        let aws = world().await;
        let all = read_one.iter().chain(own.iter().filter(|_| granted));
        aws.allow_only(&all.map(String::as_str).collect::<Vec<_>>());
        let store = store(&aws, "SecretsManager").await;
        let results = store.fetch_all(&["shop/a", "shop/b"]).await;
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(store.0.notice().is_none(), granted);
        assert_eq!(aws.count("GetSecretValue") == 0, granted);
    }
}

#[tokio::test]
async fn decryption_needs_only_the_listed_action() {
    let aws = Aws::start().await.unwrap();
    let key = aws.add_kms_key("shop");
    let binding = Binding::new(CiphertextScope::Strict, "shop", "database", "password");
    let encryptor = kms::encryptor(kms::spec(&aws.address(), &key), ACCESS_KEY_ID).await;
    let bytes = encryptor.encrypt(&"CANARY".into(), &binding).await.unwrap();
    let ciphertext = Ciphertext { bytes, binding };
    let needed = needed("`data[].ciphertext`");
    assert_eq!(needed, ["Decrypt"]);
    aws.allow_only(&["Decrypt"]);
    decrypt(&aws, &ciphertext, &key).await.unwrap();
    aws.allow_only(&[]);
    let error = decrypt(&aws, &ciphertext, &key).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("kms:Decrypt"), "{error}");
}

#[tokio::test]
async fn store_check_needs_no_action() {
    for service in ["SecretsManager", "ParameterStore"] {
        let aws = world().await;
        aws.allow_only(&[]);
        let store = store(&aws, service).await;
        store.check().await.unwrap();
    }
}

#[test]
fn every_row_of_the_page_is_tested_or_excluded() {
    let tried: BTreeMap<&str, &str> = [
        ("`data`, `dataFrom.extract` in Secrets Manager", "tried"),
        ("the same, 20 with one call", "tried"),
        ("`dataFrom.find` in Secrets Manager", "tried"),
        ("`data`, `dataFrom.extract` in Parameter Store", "tried"),
        ("`dataFrom.find` by path or name in Parameter Store", "tried"),
        ("`dataFrom.find` by tags in Parameter Store", "tried"),
        ("`metadataPolicy: Fetch` in Secrets Manager", "tried"),
        ("`metadataPolicy: Fetch` in Parameter Store", "tried"),
        ("`data[].ciphertext`", "tried"),
        ("`events.sqs`", "tried"),
        ("the check of a store", "tried"),
        (
            "values with a KMS key of their own",
            "the stand-in's values have none",
        ),
        (
            "`role` with `externalID` or session tags",
            "a trust policy is tried in auth.rs",
        ),
    ]
    .into();
    for (feature, _) in rows() {
        assert!(tried.contains_key(feature.as_str()), "nobody tries \"{feature}\"");
    }
}
