//! A ciphertext on its way through the pipeline: who may use it, what it costs, and what goes wrong with it.

use std::collections::BTreeMap;

use lockstep_api::{Access, AccessNamespaces, CiphertextScope, Reason, StoreRef, SyncedSecretSpec};
use lockstep_core::{
    Failure,
    access::{Grant, Namespace},
    assemble,
    ciphertext::{Binding, Sealed},
    collect::{self, Collected, Fetched, Outcome},
    fingerprint::FingerprintKey,
    plan::{self, Input},
    remote::{ErrorKind, Operation, ProviderError, Requeue, SecretValue, Verbatim},
    revision::Content,
    spec::StoreView,
};
use serde_json::{Value, json};

use crate::at;

fn store() -> StoreRef {
    serde_json::from_value(json!({ "name": "kms" })).unwrap()
}

fn stores(grant: Grant) -> BTreeMap<StoreRef, StoreView> {
    BTreeMap::from([(
        store(),
        StoreView {
            configuration: "".into(),
            grant,
            locator: Ok(std::sync::Arc::new(Verbatim)),
        },
    )])
}

fn spec(data: &Value) -> SyncedSecretSpec {
    serde_json::from_value(json!({ "secretStoreRef": { "name": "kms" }, "data": data })).unwrap()
}

fn sealed(scope: CiphertextScope, [namespace, name, key]: [&str; 3], bytes: &[u8]) -> String {
    let binding = Binding::new(scope, namespace, name, key);
    Sealed::direct("aws", &binding, bytes.to_vec()).to_string()
}

fn here(bytes: &[u8]) -> String {
    sealed(CiphertextScope::Strict, ["shop", "database", "password"], bytes)
}

fn input<'a>(spec: &'a SyncedSecretSpec, stores: &'a BTreeMap<StoreRef, StoreView>) -> Input<'a> {
    Input {
        name: "database",
        namespace: "shop",
        uid: "uid",
        spec,
        stores,
        rival: None,
    }
}

fn planned(spec: &SyncedSecretSpec, grant: Grant) -> Result<plan::Plan, Failure> {
    plan::plan(&input(spec, &stores(grant)))
}

fn granted(scopes: &[CiphertextScope]) -> Grant {
    let access = Access {
        namespaces: AccessNamespaces {
            names: vec!["shop".into()],
            selector: None,
        },
        keys: vec!["**".into()],
        generate: Vec::new(),
        ciphertext_scopes: scopes.to_vec(),
    };
    let namespace = Namespace {
        name: "shop",
        labels: Some(&BTreeMap::new()),
    };
    Grant::new(&[access], namespace)
}

fn collected(spec: &SyncedSecretSpec, fetched: &Fetched) -> Collected {
    let stores = stores(Grant::Everything);
    match collect::collect(&input(spec, &stores), fetched).unwrap() {
        Outcome::Complete(collected) => collected,
        Outcome::Gone => panic!("a ciphertext is never gone"),
    }
}

fn decrypted(value: &str) -> Fetched {
    Fetched {
        decrypted: Some(BTreeMap::from([(0, Ok(SecretValue::from(value)))])),
        ..Fetched::default()
    }
}

fn identity(spec: &SyncedSecretSpec, collected: &Collected) -> (String, String) {
    let key = FingerprintKey::new(vec![1; 32]).unwrap();
    let stores = stores(Grant::Everything);
    let input = input(spec, &stores);
    let fingerprint = assemble::fingerprint(&input, collected, &key);
    (
        fingerprint,
        Content::of(&input, collected, &key).revision([]).name,
    )
}

#[test]
fn invalid_ciphertext_is_reported_before_any_request() {
    let good = here(b"bytes");
    let cut = &good[..good.len() - 4];
    let elsewhere = sealed(CiphertextScope::Strict, ["shop", "database", "user"], b"bytes");
    let looser = sealed(CiphertextScope::Cluster, ["", "", ""], b"bytes");
    for (text, says) in [
        (
            "hunter2",
            "the ciphertext is none: it must begin with lockstep:v1:",
        ),
        (cut, "the ciphertext is not whole"),
        (&elsewhere, "the ciphertext was sealed for another place"),
        (&looser, "the ciphertext was sealed for another place"),
        (
            "lockstep:v1:AgNhd3MK5WYGoBf9WQAAAAR3cmFwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAOJAid0",
            "is an envelope in an old form, which lockstep no longer opens. Seal the value again",
        ),
        (
            "lockstep:v9:AAAA",
            "has a form that this version of lockstep does not know",
        ),
    ] {
        let spec = spec(&json!([{ "secretKey": "password", "ciphertext": text }]));
        let failure = planned(&spec, Grant::Everything).unwrap_err();
        assert_eq!(failure.reason, Reason::DecryptFailed, "{failure:?}");
        assert!(failure.message.contains(says), "{}", failure.message);
        assert!(
            failure.message.starts_with("data[0] (secretKey \"password\")"),
            "{}",
            failure.message
        );
        assert!(!failure.message.contains("hunter2"), "it may be a plaintext");
        assert!(failure.is_stalled());
    }
}

#[test]
fn cluster_store_decrypts_only_its_listed_scopes() {
    let entry = |scope: CiphertextScope| {
        let text = sealed(scope, ["shop", "database", "password"], b"bytes");
        spec(&json!([{ "secretKey": "password", "ciphertext": text, "ciphertextScope": scope.as_str() }]))
    };
    for scope in CiphertextScope::ALL {
        assert!(planned(&entry(*scope), granted(&[*scope])).is_ok());
        assert!(
            planned(&entry(*scope), Grant::Everything).is_ok(),
            "a store of the namespace's own"
        );
        let others: Vec<_> = CiphertextScope::ALL
            .iter()
            .copied()
            .filter(|other| other != scope)
            .collect();
        for grant in [granted(&others), granted(&[])] {
            let failure = planned(&entry(*scope), grant).unwrap_err();
            assert_eq!(failure.reason, Reason::AccessDenied);
            assert!(failure.message.contains(scope.as_str()), "{}", failure.message);
        }
    }
}

#[test]
fn unchanged_ciphertext_is_not_decrypted_again() {
    let spec = spec(&json!([{ "secretKey": "password", "ciphertext": here(b"bytes") }]));
    let before = collected(&spec, &Fetched::default());
    assert!(before.values.is_empty(), "nothing was decrypted");
    let after = collected(&spec, &decrypted("CANARY"));
    assert_eq!(after.values["password"].expose(), b"CANARY");
    assert_eq!(identity(&spec, &before).0, identity(&spec, &after).0);
}

#[test]
fn resealed_value_keeps_its_revision() {
    let (one, two) = (
        spec(&json!([{ "secretKey": "password", "ciphertext": here(b"one") }])),
        spec(&json!([{ "secretKey": "password", "ciphertext": here(b"two") }])),
    );
    let (first, second) = (
        identity(&one, &collected(&one, &decrypted("CANARY"))),
        identity(&two, &collected(&two, &decrypted("CANARY"))),
    );
    assert_ne!(
        first.0, second.0,
        "another ciphertext has to be decrypted to see what it holds"
    );
    assert_eq!(first.1, second.1, "pods see the same value");
    let changed = identity(&two, &collected(&two, &decrypted("CANARY 2")));
    assert_ne!(second.1, changed.1);
}

#[test]
fn other_decoding_of_the_same_ciphertext_is_a_change() {
    let plain = json!({ "secretKey": "password", "ciphertext": here(b"one") });
    let mut base64 = plain.clone();
    base64["decodingStrategy"] = json!("Base64");
    let (plain, base64) = (spec(&json!([plain])), spec(&json!([base64])));
    let print = |spec: &SyncedSecretSpec| identity(spec, &collected(spec, &Fetched::default())).0;
    assert_ne!(print(&plain), print(&base64));
    let decoded = collected(&base64, &decrypted("Q0FOQVJZ"));
    assert_eq!(decoded.values["password"].expose(), b"CANARY");
}

#[test]
fn nothing_is_written_before_every_ciphertext_is_decrypted() {
    let spec = spec(&json!([{ "secretKey": "password", "ciphertext": here(b"bytes") }]));
    let stores = stores(Grant::Everything);
    let input = input(&spec, &stores);
    let failure = assemble::assemble(&input, &collected(&spec, &Fetched::default())).unwrap_err();
    assert_eq!(failure.reason, Reason::Internal);
    let secret = assemble::assemble(&input, &collected(&spec, &decrypted("CANARY"))).unwrap();
    assert_eq!(secret.data["password"].expose(), b"CANARY");
    assert!(!format!("{secret:?}").contains("CANARY"));
}

#[test]
fn kms_error_is_reported_and_deletes_nothing() {
    let mut spec = spec(&json!([{ "secretKey": "password", "ciphertext": here(b"bytes") }]));
    spec.target.deletion_policy = lockstep_api::DeletionPolicy::Delete;
    let stores = stores(Grant::Everything);
    for (kind, reason, requeue) in [
        (ErrorKind::Undecryptable, Reason::DecryptFailed, Requeue::OnChange),
        (
            ErrorKind::KeyUnavailable,
            Reason::KeyUnavailable,
            Requeue::OnChange,
        ),
        (ErrorKind::Unavailable, Reason::Unavailable, Requeue::Backoff),
        // whatever a provider says: a ciphertext is in the spec, and never gone
        (
            ErrorKind::NotFound,
            Reason::SourceNotFound,
            Requeue::RefreshInterval,
        ),
    ] {
        let error = ProviderError::new(kind, Operation::Decrypt, "the reason");
        let fetched = Fetched {
            decrypted: Some(BTreeMap::from([(0, Err(error))])),
            ..Fetched::default()
        };
        let failure = collect::collect(&input(&spec, &stores), &fetched).unwrap_err();
        assert_eq!((failure.reason, failure.requeue), (reason, requeue));
        assert_eq!(
            failure.message,
            "data[0] (secretKey \"password\"): SecretStore/kms: the reason"
        );
    }
}

#[test]
fn ciphertext_and_value_with_the_same_key_are_an_error() {
    let spec: SyncedSecretSpec = serde_json::from_value(json!({
        "secretStoreRef": { "name": "kms" },
        "data": [{ "secretKey": "password", "ciphertext": here(b"bytes") }],
        "dataFrom": [{ "extract": { "key": "a" } }],
    }))
    .unwrap();
    let read = plan::Read {
        store: store(),
        reference: lockstep_core::remote::RemoteRef::current(at("a")),
    };
    let answer = lockstep_core::remote::RemoteSecret {
        value: SecretValue::from("{\"password\":\"CANARY\"}"),
        version: None,
        created: None,
        fresh_for: None,
    };
    let fetched = Fetched {
        reads: [(read, Ok(answer))].into(),
        ..Fetched::default()
    };
    let stores = stores(Grant::Everything);
    let failure = collect::collect(&input(&spec, &stores), &fetched).unwrap_err();
    assert_eq!(failure.reason, Reason::DuplicateKey);
}
