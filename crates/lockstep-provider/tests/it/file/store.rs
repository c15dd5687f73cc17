//! Which stores there are.

use lockstep_api::StoreKind;
use lockstep_provider::{Context, ErrorKind, FileFactory, FindQuery};

use super::setup::{Files, build, config};

#[tokio::test]
async fn a_namespaced_store_may_read_no_file() {
    let files = Files::new();
    let mut config = config("");
    config.key.kind = StoreKind::SecretStore;
    config.key.namespace = Some("shop".into());
    let error = build(&FileFactory::new(files.root()), &config).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert_eq!(error.message, "provider.file exists only in a ClusterSecretStore");
}

#[tokio::test]
async fn an_operator_without_a_root_says_so() {
    let error = build(&FileFactory::without_root(), &config("shop"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert_eq!(error.message, "the operator was started without --file-root");
}

#[tokio::test]
async fn a_path_that_leads_out_is_refused_with_the_path() {
    let files = Files::new();
    for path in ["..", "../root", "a/../..", "/etc", "/", "a\0b"] {
        let error = build(&FileFactory::new(files.root()), &config(path))
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
        assert!(error.message.starts_with("spec.provider.file.path "), "{error}");
    }
}

#[tokio::test]
async fn a_link_that_leads_out_of_the_root_is_no_store() {
    let files = Files::new();
    std::fs::write(files.outside().join("CANARY"), "CANARY").unwrap();
    files.link("out", "..");
    files.link("absolute", files.outside());
    files.link("circle", "circle");
    for path in ["out", "absolute", "circle", "out/root"] {
        let store = files.store(path).await;
        let error = store.check().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
        assert!(error.message.contains(path), "{error}");
        let error = store.get("CANARY").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    }
}

#[tokio::test]
async fn store_path_through_a_link_is_refused() {
    let files = Files::new();
    files.write("ta/password", "CANARY");
    files.write("ta/values.yaml", "password: CANARY");
    files.write("tb/..data/shop/password", "CANARY");
    files.link("tb/app", "../ta");
    files.link("tb/shop", "..data/shop");
    files.link("tb/values.yaml", "../ta/values.yaml");
    for path in [
        "tb/app",
        "tb/app/",
        "tb/app/values.yaml",
        "tb/values.yaml",
        "tb/shop",
    ] {
        let store = files.store(path).await;
        let error = store.get("password").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{path}: {error}");
        assert!(error.message.contains("is a symbolic link"), "{error}");
        let found = store.0.find(&Context::default(), &FindQuery::default()).await;
        assert_eq!(found.unwrap_err().kind, ErrorKind::ConfigInvalid, "{path}");
    }
}

#[tokio::test]
async fn the_root_itself_is_a_store() {
    let files = Files::new();
    files.write("shop/password", "secret");
    let store = files.store("").await;
    store.check().await.unwrap();
    assert_eq!(store.text("shop/password").await, "secret");
}

#[tokio::test]
async fn a_volume_that_is_not_there_yet_is_unavailable_and_heals() {
    let files = Files::new();
    let store = files.store("volume/shop").await;
    for error in [
        store.check().await.unwrap_err(),
        store.get("password").await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Unavailable, "never NotFound: {error}");
        assert_eq!(
            error.message,
            "\"volume/shop\" below the operator's --file-root is not there"
        );
    }
    files.write("volume/shop/password", "secret");
    store.check().await.unwrap();
    assert_eq!(store.text("password").await, "secret");
}

#[tokio::test]
async fn a_file_that_is_no_document_is_no_store() {
    let files = Files::new();
    files.write("values.txt", "CANARY");
    let error = files.store("values.txt").await.check().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert!(
        error.message.ends_with("does not end in .yaml, .yml or .json"),
        "{error}"
    );
}

#[tokio::test]
async fn the_example_is_answered_as_it_says() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sources/file-store");
    let factory = FileFactory::new(examples);
    let store = super::setup::Store(build(&factory, &config("values")).await.unwrap());
    store.check().await.unwrap();
    assert_eq!(store.text("license.txt").await, "test license\n");
    let database = store.get("shop/database.json").await.unwrap();
    let password = lockstep_core::property::extract(&database.value, "password").unwrap();
    assert_eq!(password.expose_str(), Some("test-password"));
    assert_eq!(store.all_keys().await, ["license.txt", "shop/database.json"]);
}
