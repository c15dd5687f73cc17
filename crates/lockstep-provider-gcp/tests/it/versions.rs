//! Names and versions, errors for unavailable versions, and metadata of values.

use lockstep_provider::{ErrorKind, RemoteRef};
use lockstep_provider_testkit::at;
use lockstep_testkit::gcp::{Gcp, PROJECT, PROJECT_NUMBER, Trouble, VersionState};
use serde_json::{Value, json};

use crate::bench::{Quiet, Store, and, objects, spec, text};

async fn stocked() -> Gcp {
    let gcp = Gcp::start().await.unwrap();
    gcp.put_secret("database", "CANARY-1");
    gcp.put_secret("database", "CANARY-2");
    gcp
}

async fn choosy(gcp: &Gcp) -> Store {
    let spec = and(
        spec(&gcp.address()),
        "secretVersionSelectionPolicy",
        "LatestOrFetch",
    );
    Store::new(spec, &objects(gcp)).await
}

#[tokio::test]
async fn version_is_a_number_an_alias_or_latest() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    gcp.alias("database", "blue", 1);
    let store = Store::of(&gcp).await;
    for (version, value, number) in [
        (None, "CANARY-2", "2"),
        (Some("latest"), "CANARY-2", "2"),
        (Some("1"), "CANARY-1", "1"),
        (Some("blue"), "CANARY-1", "1"),
    ] {
        let mut reference = RemoteRef::current(at("database"));
        reference.version = version.map(str::to_owned);
        let secret = store.get(reference).await;
        assert_eq!(text(&secret), value, "{version:?}");
        assert_eq!(secret.version.as_deref(), Some(number), "{version:?}");
        assert_eq!(secret.created, None, "it is not told without a second call");
    }
}

#[tokio::test]
async fn full_names_in_the_project_of_the_store_are_read() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let store = Store::of(&gcp).await;
    for (key, value) in [
        (format!("projects/{PROJECT}/secrets/database"), "CANARY-2"),
        (
            format!("projects/{PROJECT}/secrets/database/versions/1"),
            "CANARY-1",
        ),
    ] {
        assert_eq!(store.read(&key).await, value, "{key}");
    }
    for project in [PROJECT_NUMBER, "other"] {
        let error = store
            .1
            .locate(&format!("projects/{project}/secrets/database"), None);
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("is in another project than the store"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn regional_secrets_are_read_with_the_location_of_the_store() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    gcp.put_secret("locations/europe-west3/secrets/regional", "CANARY-west");
    let spec = and(spec(&gcp.address()), "location", "europe-west3");
    let store = Store::new(spec, &objects(&gcp)).await;
    assert_eq!(store.read("regional").await, "CANARY-west");
    let full = format!("projects/{PROJECT}/locations/europe-west3/secrets/regional");
    assert_eq!(store.read(&full).await, "CANARY-west");
    assert_eq!(store.refuse("database").await.kind, ErrorKind::NotFound);
    let elsewhere = Store::of(&gcp).await.1.locate(&full, None).unwrap_err();
    assert!(
        elsewhere.to_string().contains("spec.provider.gcp.location"),
        "{elsewhere}"
    );
}

#[tokio::test]
async fn disabled_version_is_neither_missing_nor_denied() {
    let _quiet = Quiet::listen();
    for (state, word) in [
        (VersionState::Disabled, "disabled"),
        (VersionState::Destroyed, "destroyed"),
    ] {
        let gcp = stocked().await;
        gcp.set_state("database", 2, state);
        let store = Store::of(&gcp).await;
        let error = store.refuse("database").await;
        assert_eq!(error.kind, ErrorKind::KeyUnavailable, "{error}");
        assert!(error.message.contains(word), "{error}");
        assert!(error.message.contains("\"database\""), "{error}");
        assert_eq!(gcp.calls().len(), 2, "a login, and one call");
        assert_eq!(
            text(&store.get(RemoteRef::version(at("database"), "1")).await),
            "CANARY-1"
        );
        gcp.deny_action("AccessSecretVersion");
        let denied = store.refuse("database").await;
        assert_eq!(denied.kind, ErrorKind::PermissionDenied, "{denied}");
    }
}

#[tokio::test]
async fn newest_enabled_version_is_read_if_configured() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    for version in 3..=5 {
        gcp.put_secret("database", "CANARY-later");
        gcp.set_state("database", version, VersionState::Destroyed);
    }
    gcp.set_state("database", 5, VersionState::Disabled);
    gcp.page(1);
    let store = choosy(&gcp).await;
    let secret = store.get(RemoteRef::current(at("database"))).await;
    assert_eq!(
        (text(&secret).as_str(), secret.version.as_deref()),
        ("CANARY-2", Some("2"))
    );
    let pinned = store
        .fetch(&[RemoteRef::version(at("database"), "5")])
        .await
        .remove(0);
    assert_eq!(
        pinned.unwrap_err().kind,
        ErrorKind::KeyUnavailable,
        "who names a version means it"
    );
}

#[tokio::test]
async fn versions_are_not_listed_while_the_latest_is_enabled() {
    let gcp = stocked().await;
    choosy(&gcp).await.read("database").await;
    assert_eq!(gcp.count("ListSecretVersions"), 0);
}

#[tokio::test]
async fn missing_enabled_version_or_list_permission_is_reported() {
    let gcp = stocked().await;
    for version in [1, 2] {
        gcp.set_state("database", version, VersionState::Disabled);
    }
    let store = choosy(&gcp).await;
    let error = store.refuse("database").await;
    assert!(error.message.contains("disabled"), "{error}");
    gcp.deny_action("ListSecretVersions");
    let error = store.refuse("database").await;
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(
        error.to_string().contains("secretmanager.versions.list"),
        "{error}"
    );
}

#[tokio::test]
async fn labels_and_annotations_are_read_as_json() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    gcp.label("database", "team", "shop");
    gcp.annotate("database", "owner", "CANARY@example.com");
    let store = Store::of(&gcp).await;
    let secret = store.get(RemoteRef::current(at("database")).metadata()).await;
    let metadata: Value = serde_json::from_slice(secret.value.expose()).unwrap();
    let expected = json!({ "labels": { "team": "shop" }, "annotations": { "owner": "CANARY@example.com" } });
    assert!(metadata == expected);
    gcp.put_secret("plain", "CANARY");
    let secret = store.get(RemoteRef::current(at("plain")).metadata()).await;
    assert_eq!(text(&secret), r#"{"annotations":{},"labels":{}}"#);
    let missing = store
        .fetch(&[RemoteRef::current(at("nobody")).metadata()])
        .await
        .remove(0);
    assert_eq!(missing.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn value_with_a_wrong_checksum_is_malformed() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let store = Store::of(&gcp).await;
    for trouble in [Trouble::WrongChecksum, Trouble::NoPayload] {
        gcp.trouble(Some(trouble));
        assert_eq!(store.refuse("database").await.kind, ErrorKind::Malformed);
    }
    gcp.trouble(None);
    assert_eq!(store.read("database").await, "CANARY-2");
}

#[tokio::test]
async fn each_value_is_read_with_exactly_one_call() {
    let gcp = stocked().await;
    let store = Store::of(&gcp).await;
    for _ in 0..3 {
        store.fetch_all(&["database", "database", "nobody"]).await;
    }
    store.read("database").await;
    store.check().await.unwrap();
    assert_eq!(gcp.count("AccessSecretVersion"), 10);
    assert_eq!(
        gcp.calls().len(),
        11,
        "one login, no metadata, and no check of a store that is used"
    );
}

#[tokio::test]
async fn check_of_an_idle_store_is_one_call_without_permission() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let store = Store::of(&gcp).await;
    store.check().await.unwrap();
    gcp.allow_only(&[]);
    store.check().await.unwrap();
    assert_eq!(gcp.count("AccessSecretVersion"), 2);
    assert_eq!(gcp.calls().len(), 3, "one login, and no metadata");
    gcp.trouble(Some(Trouble::Broken));
    assert_eq!(store.check().await.unwrap_err().kind, ErrorKind::Unavailable);
}
