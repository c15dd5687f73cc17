//! A key is authorized and read in its canonical form, whatever its spelling.

use std::{collections::BTreeMap, sync::Arc};

use lockstep_api::{Access, AccessNamespaces, Reason, SourceStatus, StoreRef, SyncedSecretSpec};
use lockstep_core::{
    Failure,
    access::{Grant, Namespace},
    plan::{self, Input, Plan},
    remote::{ErrorKind, Located, Location, LocationError, Locator, Operation, ProviderError, Verbatim},
    rotation,
    spec::StoreView,
};
use serde_json::{Value, json};

/// As Vault with the mount path `secret`: a key may begin with it.
#[derive(Debug)]
struct Mounted;

impl Locator for Mounted {
    fn locate(&self, key: &str, version: Option<&str>) -> Result<Located, LocationError> {
        Verbatim.locate(key.strip_prefix("secret/").unwrap_or(key), version)
    }

    fn folder(&self, path: &str) -> Result<Option<Location>, LocationError> {
        Verbatim.folder(path.strip_prefix("secret/").unwrap_or(path))
    }
}

fn store() -> StoreRef {
    serde_json::from_value(json!({ "name": "vault", "kind": "ClusterSecretStore" })).unwrap()
}

fn views(keys: &[&str], generate: &[&str]) -> BTreeMap<StoreRef, StoreView> {
    let owned = |globs: &[&str]| globs.iter().map(ToString::to_string).collect();
    let access = Access {
        namespaces: AccessNamespaces {
            names: vec!["shop".to_owned()],
            selector: None,
        },
        keys: owned(keys),
        generate: owned(generate),
        ciphertext_scopes: Vec::new(),
    };
    let namespace = Namespace {
        name: "shop",
        labels: None,
    };
    let view = StoreView {
        configuration: "".into(),
        grant: Grant::new(&[access], namespace),
        locator: Ok(Arc::new(Mounted)),
    };
    BTreeMap::from([(store(), view)])
}

fn spec(entries: &Value) -> SyncedSecretSpec {
    let mut spec = json!({ "secretStoreRef": store() });
    spec.as_object_mut()
        .unwrap()
        .extend(entries.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn planned(entries: &Value, stores: &BTreeMap<StoreRef, StoreView>) -> Result<Plan, Failure> {
    let spec = spec(entries);
    plan::plan(&Input {
        name: "db",
        namespace: "shop",
        uid: "uid",
        spec: &spec,
        stores,
        rival: None,
    })
}

fn data(keys: &[&str]) -> Value {
    let entries = keys
        .iter()
        .enumerate()
        .map(|(index, key)| json!({ "secretKey": format!("k{index}"), "remoteRef": { "key": key } }));
    json!({ "data": entries.collect::<Vec<_>>() })
}

#[test]
fn grant_is_matched_against_the_resolved_location() {
    let stores = views(&["secret/**"], &[]);
    let failure = planned(&data(&["secret/admin/root"]), &stores).unwrap_err();
    assert_eq!(failure.reason, Reason::AccessDenied);
    let named = "the key \"secret/admin/root\", which resolves to \"admin/root\"";
    assert!(failure.message.contains(named), "{}", failure.message);
    let plan = planned(&data(&["secret/secret/db"]), &stores).unwrap();
    assert_eq!(plan.reads[0].reference.key.as_str(), "secret/db");
}

#[test]
fn whitespace_in_a_key_has_its_own_error() {
    let stores = views(&["shop/???", "shop/**", "**"], &[]);
    for key in [
        "shop/db ",
        " shop/db",
        "shop/db\u{a0}",
        "shop/\u{200b}db",
        "shop/\tdb",
    ] {
        let failure = planned(&data(&[key]), &stores).unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidSpec, "{key:?}");
        assert!(
            failure.message.starts_with("data[0] (secretKey \"k0\"): key \"")
                && failure.message.contains("whitespace or an invisible character"),
            "{}",
            failure.message
        );
    }
    for (field, entries) in [
        ("path", json!({ "dataFrom": [{ "find": { "path": "shop " } }] })),
        (
            "vault.path",
            json!({ "dataFrom": [{ "generate": { "vault": { "path": " sys/policies/acl/x" } } }] }),
        ),
        (
            "key",
            json!({ "dataFrom": [{ "extract": { "key": "shop/db " } }] }),
        ),
    ] {
        let failure = planned(&entries, &views(&["**"], &["**"])).unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidSpec, "{field}");
        assert!(failure.message.contains(field), "{}", failure.message);
    }
}

#[test]
fn two_spellings_of_a_key_are_read_once() {
    let plan = planned(&data(&["shop/db", "secret/shop/db"]), &views(&["shop/*"], &[])).unwrap();
    assert_eq!(plan.reads.len(), 1);
    assert_eq!(plan.reads[0].reference.key.as_str(), "shop/db");
}

#[test]
fn search_contains_the_grant() {
    let entries = json!({ "dataFrom": [{ "find": { "path": "secret/shop" } }] });
    let plan = planned(&entries, &views(&["shop/eu/*", "blog/*"], &[])).unwrap();
    let query = &plan.searches[0].query;
    assert_eq!(query.path.as_deref(), Some("shop"));
    assert_eq!(query.scope.folders("shop/"), ["shop/eu"]);
}

#[test]
fn store_that_cannot_parse_keys_reads_nothing() {
    let error = ProviderError::new(
        ErrorKind::ConfigInvalid,
        Operation::Configure,
        "spec.provider.vault.path is empty",
    );
    let mut stores = views(&["**"], &[]);
    for view in stores.values_mut() {
        view.locator = Err(error.clone());
    }
    let failure = planned(&data(&["shop/db"]), &stores).unwrap_err();
    assert_eq!(failure.reason, Reason::ConfigInvalid);
    assert!(
        failure.message.contains("spec.provider.vault.path is empty"),
        "{}",
        failure.message
    );
}

#[test]
fn rollback_pins_every_spelling_of_a_key() {
    let source = SourceStatus {
        store: store(),
        key: "shop/db".to_owned(),
        version: Some("3".to_owned()),
        created_time: None,
    };
    let spec = spec(&data(&["secret/shop/db", "shop/db"]));
    let pinned = rotation::pin(&spec, &views(&["**"], &[]), &[source]);
    for entry in &pinned.data {
        let version = entry.remote_ref.as_ref().unwrap().version.as_deref();
        assert_eq!(version, Some("3"));
    }
}
