//! Tests a store that is one document with a field per value.

use lockstep_provider::{Context, ErrorKind, FindQuery, RemoteRef};
use lockstep_provider_testkit::at;

use super::setup::Files;

#[tokio::test]
async fn top_level_fields_are_values() {
    let files = Files::new();
    files.write(
        "values.yaml",
        "shop/database:\n  username: shop\n  password: secret\npin: 0012\nempty: ''\ngone: null\n",
    );
    let store = files.store("values.yaml").await;
    store.check().await.unwrap();
    assert_eq!(store.all_keys().await, ["empty", "pin", "shop/database"]);
    assert_eq!(store.text("pin").await, "0012");
    assert_eq!(store.text("empty").await, "");
    let database = store.get("shop/database").await.unwrap();
    let password = lockstep_core::property::extract(&database.value, "password").unwrap();
    assert_eq!(password.expose_str(), Some("secret"));
    for key in ["gone", "shop", "password"] {
        store.refuse(key, ErrorKind::NotFound).await;
    }
    for key in ["..", ""] {
        store.refuse(key, ErrorKind::ConfigInvalid).await;
    }
    let query = FindQuery {
        path: Some(at("shop")),
        ..FindQuery::default()
    };
    assert_eq!(store.keys(&query).await, ["shop/database"]);
}

#[tokio::test]
async fn json_document_values_stay_as_written() {
    let files = Files::new();
    files.write("values.json", r#"{"rate": 1.10, "deep": {"rate": 1.10}}"#);
    let store = files.store("values.json").await;
    assert_eq!(store.text("rate").await, "1.10");
    assert_eq!(store.text("deep").await, r#"{"rate":1.10}"#);
}

#[tokio::test]
async fn inexact_number_is_rejected_and_other_fields_are_readable() {
    let files = Files::new();
    files.write("values.yaml", "deep: {CANARY: 1.10}\nfine: value\n");
    let store = files.store("values.yaml").await;
    let error = store.refuse("deep", ErrorKind::Malformed).await;
    assert!(error.message.ends_with("put it in quotes"), "{error}");
    assert_eq!(store.text("fine").await, "value");
}

#[tokio::test]
async fn malformed_document_error_has_position_but_no_content() {
    let files = Files::new();
    files.write("values.yaml", "a: CANARY\nCANARY: [\n");
    let store = files.store("values.yaml").await;
    let refs = ["a", "CANARY-key"].map(|key| RemoteRef::current(at(key)));
    let mut errors: Vec<_> = store
        .0
        .fetch(&Context::default(), &refs)
        .await
        .into_iter()
        .map(Result::unwrap_err)
        .collect();
    errors.push(store.check().await.unwrap_err());
    let found = store.0.find(&Context::default(), &FindQuery::default()).await;
    errors.push(found.unwrap_err());
    for error in errors {
        assert_eq!(error.kind, ErrorKind::Malformed);
        assert!(error.message.contains("(line 3, column 1)"), "{error}");
        assert!(!error.to_string().contains("CANARY"), "{error}");
    }
}

#[tokio::test]
async fn document_is_read_through_the_links_of_a_volume() {
    let files = Files::new();
    files.write("csi/..2026/values.json", r#"{"password": "secret"}"#);
    files.link("csi/..data", "..2026");
    files.link("csi/values.json", "..data/values.json");
    let store = files.store("csi/values.json").await;
    assert_eq!(store.text("password").await, "secret");
}

#[tokio::test]
async fn huge_document_is_rejected() {
    let files = Files::new();
    files.write("values.json", vec![b' '; (4 << 20) + 1]);
    let error = files.store("values.json").await.check().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed);
    assert_eq!(error.message, "\"values.json\" is larger than 4 MiB");
}
