//! Tests the minimal policy of `docs/reference/permissions.md`: the permissions that it lists for a
//! feature are sufficient and all necessary.

use lockstep_api::{CiphertextScope, StoreKind};
use lockstep_provider::{Binding, Ciphertext, Context, ErrorKind, FindQuery, ProviderError, RemoteRef};
use lockstep_provider_testkit::at;
use lockstep_testkit::gcp::{Gcp, SERVICE_ACCOUNT, SUBSCRIPTION, VersionState};
use serde_json::json;

use crate::{
    bench::{Store, and, objects, spec},
    kms,
};

/// Returns the rows of the page's table for Google: each feature, and the permissions that it
/// needs.
fn rows() -> Vec<(String, Vec<String>)> {
    let page = include_str!("../../../../docs/reference/permissions.md");
    let (_, section) = page.split_once("## At Google").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let table = section.lines().filter(|line| line.starts_with("| "));
    table
        .skip(1)
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let permissions = cells.get(1)?.split('`').skip(1).step_by(2);
            let permissions: Vec<String> = permissions
                .filter(|code| code.contains('.') && !code.contains('/'))
                .map(str::to_owned)
                .collect();
            Some(((*cells.first()?).to_owned(), permissions))
        })
        .collect()
}

/// Returns the permissions that a feature needs.
fn needed(feature: &str) -> Vec<String> {
    let rows = rows();
    let row = rows.iter().find(|(name, _)| name == feature);
    let (_, permissions) = row.unwrap_or_else(|| panic!("the page has no row \"{feature}\""));
    assert!(!permissions.is_empty(), "\"{feature}\" needs something");
    permissions.clone()
}

const READ: &str = "`data`, `dataFrom.extract`";
const FETCH: &str = "`secretVersionSelectionPolicy: LatestOrFetch`, where the latest version is disabled";
const FIND: &str = "`dataFrom.find`";
const METADATA: &str = "`metadataPolicy: Fetch`";
const DECRYPT: &str = "`data[].ciphertext`";
const EVENTS: &str = "`events.pubsub`";
const CHECK: &str = "the check of a store";
const IMPERSONATION: &str = "impersonating a service account";

/// Creates a stand-in with objects for every feature.
async fn world() -> Gcp {
    let gcp = Gcp::start().await.unwrap();
    gcp.put_secret("shop-a", "CANARY");
    gcp.put_secret("shop-b", "CANARY");
    gcp.put_secret("shop-b", "CANARY");
    gcp.set_state("shop-b", 2, VersionState::Disabled);
    gcp
}

async fn read(gcp: &Gcp) -> Result<(), ProviderError> {
    let results = Store::of(gcp).await.fetch_all(&["shop-a"]).await;
    results.into_iter().try_for_each(|result| result.map(drop))
}

async fn read_newest_enabled(gcp: &Gcp) -> Result<(), ProviderError> {
    let spec = and(
        spec(&gcp.address()),
        "secretVersionSelectionPolicy",
        "LatestOrFetch",
    );
    let results = Store::new(spec, &objects(gcp)).await.fetch_all(&["shop-b"]).await;
    results.into_iter().try_for_each(|result| result.map(drop))
}

async fn read_metadata(gcp: &Gcp) -> Result<(), ProviderError> {
    let refs = [RemoteRef::current(at("shop-a")).metadata()];
    let results = Store::of(gcp).await.fetch(&refs).await;
    results.into_iter().try_for_each(|result| result.map(drop))
}

async fn find(gcp: &Gcp) -> Result<(), ProviderError> {
    let query = FindQuery {
        path: Some(at("shop-")),
        ..FindQuery::default()
    };
    let found = Store::of(gcp).await.find(query).await?;
    assert_eq!(found, ["shop-a", "shop-b"]);
    Ok(())
}

async fn decrypt(gcp: &Gcp) -> Result<(), ProviderError> {
    let key = gcp.add_kms_key("shop");
    let binding = Binding::new(CiphertextScope::Strict, "shop", "database", "password");
    let ciphertext = Ciphertext {
        bytes: b"CANARY".to_vec(),
        binding,
    };
    let store = Store::new(kms::spec(&gcp.address(), &key), &objects(gcp)).await;
    match store.0.decrypt(&Context::default(), &ciphertext).await {
        // The permission is checked before the ciphertext.
        Err(error) if error.kind == ErrorKind::Undecryptable => Ok(()),
        other => other.map(drop),
    }
}

async fn hear(gcp: &Gcp) -> Result<(), ProviderError> {
    gcp.tell("SECRET_UPDATE", "shop-a", None);
    let events = json!({ "pubsub": { "subscription": SUBSCRIPTION, "endpoint": gcp.address() } });
    let spec = spec(&gcp.address());
    let store = Store::build_hearing(spec, Some(events), &objects(gcp), StoreKind::SecretStore).await?;
    let source = store.0.events().unwrap();
    let received = source.receive().await?.remove(0);
    source.acknowledge(&[received.receipt.unwrap()]).await
}

/// Uses a feature with exactly these permissions, and once more without each of them.
async fn needs_just(feature: &str, also: &[String], used: impl AsyncFn(&Gcp) -> Result<(), ProviderError>) {
    let own = needed(feature);
    let all: Vec<&str> = also.iter().chain(&own).map(String::as_str).collect();
    let gcp = world().await;
    gcp.allow_only(&all);
    used(&gcp)
        .await
        .unwrap_or_else(|error| panic!("\"{feature}\" needs more than {all:?}: {error}"));
    for permission in &own {
        let gcp = world().await;
        let rest: Vec<&str> = all.iter().copied().filter(|other| other != permission).collect();
        gcp.allow_only(&rest);
        let Err(error) = used(&gcp).await else {
            panic!("\"{feature}\" does not need {permission}")
        };
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains(permission), "{error}");
    }
}

#[tokio::test]
async fn page_lists_exactly_the_permissions_of_each_feature() {
    let access = needed(READ);
    needs_just(READ, &[], read).await;
    needs_just(FETCH, &access, read_newest_enabled).await;
    needs_just(METADATA, &[], read_metadata).await;
    needs_just(FIND, &[], find).await;
    needs_just(DECRYPT, &[], decrypt).await;
    needs_just(EVENTS, &[], hear).await;
}

#[tokio::test]
async fn store_check_needs_no_permission() {
    let gcp = world().await;
    gcp.allow_only(&[]);
    Store::of(&gcp).await.check().await.unwrap();
    assert_eq!(gcp.count_of(SERVICE_ACCOUNT, "ExchangeJwt"), 1);
}

#[test]
fn every_row_of_the_page_is_tested() {
    // Impersonation is tested in auth.rs: the stand-in checks the identity there, not a permission.
    let tried = [READ, FETCH, FIND, METADATA, DECRYPT, EVENTS, CHECK, IMPERSONATION];
    let rows: Vec<String> = rows().into_iter().map(|(feature, _)| feature).collect();
    assert_eq!(rows, tried);
}
