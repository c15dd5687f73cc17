use lockstep_api::{
    AccessNamespaces, SecretKeyRef, SyncedSecretSpec, VaultProvider, selector::LabelSelector,
    vault::VaultAuth,
};
use lockstep_provider::{Credentials, ErrorKind, Operation, Provider, ProviderFactory, Verbatim};
use serde_json::json;

use super::*;

fn object(name: &str, target: Option<&str>, store: (&str, StoreKind), created: &str) -> SyncedSecret {
    let spec: SyncedSecretSpec = serde_json::from_value(json!({
        "secretStoreRef": { "name": store.0, "kind": store.1 },
        "data": [{ "secretKey": "a", "remoteRef": { "key": "shop/a" } }],
        "target": { "name": target },
    }))
    .unwrap();
    let mut object = SyncedSecret::new(name, spec);
    object.metadata.namespace = Some("shop".into());
    object.metadata.uid = Some(format!("uid-{name}"));
    object.metadata.creation_timestamp = Some(serde_json::from_value(json!(created)).unwrap());
    object
}

fn vault(name: &str) -> StoreProvider {
    let server = "https://vault:8200".into();
    let auth = VaultAuth {
        token_secret_ref: Some(SecretKeyRef {
            name: name.into(),
            key: "token".into(),
        }),
        ..VaultAuth::default()
    };
    let vault: VaultProvider =
        serde_json::from_value(json!({ "server": server_text(&server), "auth": auth })).unwrap();
    StoreProvider {
        vault: Some(vault),
        ..StoreProvider::default()
    }
}

fn server_text(server: &String) -> &str {
    server
}

fn entry(generation: i64, access: Option<Vec<Access>>) -> StoreEntry {
    StoreEntry {
        uid: "store".into(),
        generation,
        provider: vault("vault-token"),
        limits: Limits::default(),
        events: None,
        access,
    }
}

fn own_store() -> StoreKey {
    StoreKey {
        kind: StoreKind::SecretStore,
        namespace: Some("shop".into()),
        name: "vault".into(),
    }
}

fn cluster_store() -> StoreKey {
    StoreKey {
        kind: StoreKind::ClusterSecretStore,
        namespace: None,
        name: "prod".into(),
    }
}

fn at(key: &str) -> lockstep_provider::Location {
    lockstep_provider::Location::new(key).unwrap()
}

fn keys(names: &[&str]) -> BTreeSet<ObjectKey> {
    names.iter().map(|name| ObjectKey::new("shop", name)).collect()
}

const FIRST: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

#[test]
fn changed_store_wakes_only_its_readers() {
    let mut index = Index::new("lockstep-system");
    index.apply_object(&object("a", None, ("vault", StoreKind::SecretStore), FIRST));
    index.apply_object(&object("b", None, ("other", StoreKind::SecretStore), FIRST));
    assert_eq!(
        index.apply_store(&own_store(), entry(1, None)),
        Some(keys(&["a"]))
    );
    assert_eq!(
        index.apply_store(&own_store(), entry(1, None)),
        None,
        "a status write is no change"
    );
    assert_eq!(
        index.apply_store(&own_store(), entry(2, None)),
        Some(keys(&["a"]))
    );
    assert_eq!(index.delete_store(&own_store()), keys(&["a"]));
}

#[test]
fn only_a_changed_credential_causes_a_new_client() {
    let mut index = Index::new("lockstep-system");
    index.apply_store(&own_store(), entry(1, None));
    let credential = CredentialKey {
        kind: CredentialKind::Secret,
        namespace: "shop".into(),
        name: "vault-token".into(),
    };
    assert_eq!(index.credential_keys(), BTreeSet::from([credential.clone()]));
    let before = index.store_config(&own_store()).unwrap().1;
    assert!(index.apply_credential(&credential, "1").is_empty());
    assert_eq!(index.store_config(&own_store()).unwrap().1, before);
    assert_eq!(
        index.apply_credential(&credential, "2"),
        BTreeSet::from([own_store()])
    );
    assert_ne!(index.store_config(&own_store()).unwrap().1, before);
    index.delete_store(&own_store());
    assert!(index.credential_keys().is_empty());
}

#[test]
fn cluster_store_credentials_are_in_the_operator_namespace() {
    let mut index = Index::new("lockstep-system");
    index.apply_store(&cluster_store(), entry(1, Some(vec![])));
    assert_eq!(
        index.credential_keys().first().unwrap().namespace,
        "lockstep-system"
    );
}

#[test]
fn older_object_wins_the_target_and_its_deletion_wakes_the_other() {
    let mut index = Index::new("lockstep-system");
    let old = object("old", Some("shared"), ("vault", StoreKind::SecretStore), FIRST);
    let young = object("young", Some("shared"), ("vault", StoreKind::SecretStore), LATER);
    index.apply_object(&young);
    assert_eq!(index.apply_object(&old), keys(&["young"]));
    let rival = |index: &Index, object: &SyncedSecret| index.view_of(&ObjectKey::of(object), object).rival;
    assert_eq!(rival(&index, &young), Some(Rival { name: "old".into() }));
    assert_eq!(rival(&index, &old), None);
    assert_eq!(index.delete_object(&ObjectKey::of(&old)), keys(&["young"]));
    assert_eq!(rival(&index, &young), None);
}

#[test]
fn writer_keeps_its_secret_when_an_older_object_targets_it() {
    let mut index = Index::new("lockstep-system");
    let store = ("vault", StoreKind::SecretStore);
    let mut holder = object("holder", Some("shared"), store, "2026-02-01T00:00:00Z");
    index.apply_object(&holder);
    let target = json!({
        "name": "shared", "uid": "u", "resourceVersion": "1", "revision": "r", "fingerprint": "f",
    });
    holder.status = Some(lockstep_api::SyncedSecretStatus {
        target: Some(serde_json::from_value(target).unwrap()),
        ..lockstep_api::SyncedSecretStatus::default()
    });
    index.apply_object(&holder);
    let older = object("older", Some("shared"), store, FIRST);
    assert_eq!(index.apply_object(&older), keys(&["holder"]));
    let rival = |index: &Index, object: &SyncedSecret| index.view_of(&ObjectKey::of(object), object).rival;
    assert_eq!(rival(&index, &holder), None);
    assert_eq!(
        rival(&index, &older),
        Some(Rival {
            name: "holder".into()
        })
    );
    // When the holder is deleted or changes its target, the other one is woken.
    holder.spec.target.name = Some("another".into());
    assert_eq!(index.apply_object(&holder), keys(&["older"]));
    assert_eq!(rival(&index, &older), None);
}

/// A reconcile must not read from a store whose grants changed after it started: the new
/// configuration may lead to values of other namespaces.
#[test]
fn authorization_ends_when_the_store_or_the_labels_change() {
    let mut index = Index::new("lockstep-system");
    let stores = [
        StoreRef::new(StoreKind::ClusterSecretStore, "prod"),
        StoreRef::new(StoreKind::SecretStore, "vault"),
    ];
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    index.apply_store(&cluster_store(), entry(1, Some(vec![])));
    index.apply_store(&own_store(), entry(1, None));
    index.apply_namespace("shop", labels("a"), false);
    let authorization = index.authorization("shop", stores.iter());
    let is_authorized = |index: &Index, key: &StoreKey| index.is_authorized(&authorization, "shop", key);
    // What did not change is delivered again by every relist.
    index.apply_store(&cluster_store(), entry(1, Some(vec![])));
    index.apply_namespace("shop", labels("a"), false);
    assert!(is_authorized(&index, &cluster_store()) && is_authorized(&index, &own_store()));

    index.apply_namespace("shop", labels("b"), false);
    assert!(
        !is_authorized(&index, &cluster_store()),
        "a selector may match others now"
    );
    assert!(
        is_authorized(&index, &own_store()),
        "no grant follows from labels"
    );
    index.apply_store(&own_store(), entry(2, None));
    assert!(!is_authorized(&index, &own_store()));

    let authorization = index.authorization("shop", stores.iter());
    index.delete_store(&cluster_store());
    assert!(!index.is_authorized(&authorization, "shop", &cluster_store()));
    index.apply_store(&cluster_store(), entry(1, Some(vec![])));
    assert!(
        !index.is_authorized(&authorization, "shop", &cluster_store()),
        "another store"
    );
    let unknown = StoreKey {
        name: "other".into(),
        ..own_store()
    };
    index.apply_store(&unknown, entry(1, None));
    assert!(
        !index.is_authorized(&authorization, "shop", &unknown),
        "not in the facts"
    );
}

#[test]
fn namespace_labels_affect_only_cluster_stores() {
    let mut index = Index::new("lockstep-system");
    let object_a = object("a", None, ("prod", StoreKind::ClusterSecretStore), FIRST);
    index.apply_object(&object_a);
    index.apply_object(&object("b", None, ("vault", StoreKind::SecretStore), FIRST));
    let selector = LabelSelector {
        match_labels: [("team".into(), "shop".into())].into(),
        match_expressions: vec![],
    };
    let access = Access {
        namespaces: AccessNamespaces {
            names: vec![],
            selector: Some(selector),
        },
        keys: vec!["shop/*".into()],
        generate: vec!["database/creds/*".into()],
        ciphertext_scopes: Vec::new(),
    };
    index.apply_store(&cluster_store(), entry(1, Some(vec![access])));
    let may = |index: &Index| {
        let around = index.view_of(&ObjectKey::of(&object_a), &object_a);
        let reads = around.views.values().next().unwrap().grant.allows(&at("shop/a"));
        // A renewal uses the store that issued the credential, even if the spec has changed since.
        let store = object_a.spec.secret_store_ref.as_ref().unwrap();
        let renews = index
            .grant("shop", store)
            .unwrap()
            .generates(&at("database/creds/a"));
        assert_eq!(reads, renews);
        reads
    };
    assert!(!may(&index));
    let labels: BTreeMap<_, _> = [("team".to_owned(), "shop".to_owned())].into();
    assert_eq!(index.apply_namespace("shop", labels.clone(), false), keys(&["a"]));
    assert!(may(&index));
    assert!(index.apply_namespace("shop", labels, false).is_empty());
    assert_eq!(
        index.apply_namespace("shop", BTreeMap::new(), false),
        keys(&["a"])
    );
    assert!(!may(&index));
}

fn readers(index: &Index, store: &StoreKey, names: &[&str]) -> BTreeSet<ObjectKey> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    index.readers(store, &names)
}

/// A backend whose keys are locations.
#[derive(Debug)]
struct Plain;

#[async_trait::async_trait]
impl ProviderFactory for Plain {
    fn name(&self) -> &'static str {
        "vault"
    }

    fn locator(&self, _: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError> {
        Ok(Arc::new(Verbatim))
    }

    async fn build(
        &self,
        _: &StoreConfig,
        _: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        Err(ProviderError::new(
            ErrorKind::Unsupported,
            Operation::Configure,
            "no client",
        ))
    }
}

#[test]
fn event_wakes_no_search_that_is_not_granted_the_value() {
    let mut index = Index::new("lockstep-system").with_registry(Registry::default().with(Plain));
    for (name, path) in [("all", json!(null)), ("below", json!("shop"))] {
        let mut object = object(name, None, ("prod", StoreKind::ClusterSecretStore), FIRST);
        let store = json!({ "name": "prod", "kind": "ClusterSecretStore" });
        let find = json!({ "find": { "path": path, "tags": { "team": "shop" } } });
        object.spec = serde_json::from_value(json!({ "secretStoreRef": store, "dataFrom": [find] })).unwrap();
        index.apply_object(&object);
    }
    let access: Vec<Access> = serde_json::from_value(json!([
        { "namespaces": { "names": ["other"] }, "keys": ["**"] },
        { "namespaces": { "names": ["shop"] }, "keys": ["shop/pub-*"] },
        { "namespaces": { "selector": { "matchLabels": { "team": "pay" } } }, "keys": ["shop/payments/*"] },
    ]))
    .unwrap();
    index.apply_store(&cluster_store(), entry(1, Some(access)));
    let readers = |index: &Index, names: &[&str]| readers(index, &cluster_store(), names);
    assert_eq!(readers(&index, &["shop/pub-a"]), keys(&["all", "below"]));
    assert_eq!(readers(&index, &["shop/payments/db"]), BTreeSet::new());
    assert_eq!(readers(&index, &["arn:of", "x"]), BTreeSet::new());
    let labels = [("team".to_owned(), "pay".to_owned())].into();
    index.apply_namespace("shop", labels, false);
    assert_eq!(readers(&index, &["shop/payments/db"]), keys(&["all", "below"]));
}

#[test]
fn only_readers_of_a_value_are_found_by_its_names() {
    let mut index = Index::new("lockstep-system");
    let reads = |name: &str, spec: serde_json::Value| {
        let mut object = object(name, None, ("vault", StoreKind::SecretStore), FIRST);
        object.spec = serde_json::from_value(spec).unwrap();
        object
    };
    let store = json!({ "name": "vault" });
    index.apply_object(&object("a", None, ("vault", StoreKind::SecretStore), FIRST));
    index.apply_object(&object("other", None, ("other", StoreKind::SecretStore), FIRST));
    index.apply_object(&reads(
        "extracts",
        json!({ "secretStoreRef": store, "dataFrom": [{ "extract": { "key": "shop/b" } }] }),
    ));
    index.apply_object(&reads(
        "finds",
        json!({ "secretStoreRef": store, "dataFrom": [{ "find": { "path": "team" } }] }),
    ));
    let readers = |index: &Index, names: &[&str]| readers(index, &own_store(), names);
    assert_eq!(
        readers(&index, &["shop/a"]),
        BTreeSet::new(),
        "the store does not exist"
    );
    index.apply_store(&own_store(), entry(1, None));
    assert_eq!(readers(&index, &["arn:of:shop/a", "shop/a"]), keys(&["a"]));
    assert_eq!(readers(&index, &["shop/a", "shop/b"]), keys(&["a", "extracts"]));
    assert_eq!(readers(&index, &["team/x"]), keys(&["finds"]));
    assert_eq!(readers(&index, &["nobody/x"]), BTreeSet::new());
    assert_eq!(readers(&index, &[]), BTreeSet::new());
    index.apply_object(&reads(
        "finds",
        json!({ "secretStoreRef": store, "dataFrom": [{ "extract": { "key": "shop/b" } }] }),
    ));
    assert_eq!(readers(&index, &["team/x"]), BTreeSet::new());
    for name in ["a", "extracts", "finds", "other"] {
        index.delete_object(&ObjectKey::new("shop", name));
    }
    assert!(index.by_value.is_empty() && index.searches.is_empty());
}

#[test]
fn listening_stores_have_their_revision() {
    let mut index = Index::new("lockstep-system");
    let hearing = |generation| StoreEntry {
        events: Some(StoreEvents {
            vault: Some(lockstep_api::VaultEvents {}),
            ..StoreEvents::default()
        }),
        ..entry(generation, None)
    };
    index.apply_store(&own_store(), hearing(1));
    index.apply_store(&cluster_store(), entry(1, None));
    let first = index.listening();
    assert_eq!(first.keys().collect::<Vec<_>>(), [&own_store()]);
    index.apply_store(&own_store(), hearing(2));
    assert_ne!(index.listening(), first, "another spec is listened with anew");
    index.apply_store(&own_store(), entry(3, None));
    assert!(index.listening().is_empty());
}

#[test]
fn unknown_namespace_matches_no_selector() {
    let everyone: Access = serde_json::from_value(serde_json::json!({
        "namespaces": { "selector": { "matchLabels": {} } }, "keys": ["**"],
    }))
    .unwrap();
    let reference = StoreRef {
        name: cluster_store().name,
        kind: StoreKind::ClusterSecretStore,
    };
    let mut index = Index::new("lockstep-system");
    index.apply_store(&cluster_store(), entry(1, Some(vec![everyone])));
    index.apply_object(&object(
        "a",
        None,
        ("shared", StoreKind::ClusterSecretStore),
        FIRST,
    ));
    let granted = |index: &Index| !index.grant("shop", &reference).unwrap().is_empty();
    assert!(!granted(&index), "unknown means no");
    let woken = index.apply_namespace("shop", BTreeMap::new(), false);
    assert_eq!(woken, keys(&["a"]), "known to have no labels is another thing");
    assert!(granted(&index));
    assert!(index.apply_namespace("shop", BTreeMap::new(), false).is_empty());
    index.delete_namespace("shop");
    assert!(!granted(&index));
}
