//! Responses that need much memory.

use lockstep_provider::{ErrorKind, FindQuery, ProviderError};
use serde_json::{Value, json};

use crate::bench::Scripted;

/// Returns a JSON document whose list has this many bytes of empty elements.
fn crowded(list: &str, bytes: usize) -> String {
    format!("{{\"{list}\":[{{}}{}]}}", ",{}".repeat(bytes / 3))
}

fn assert_crowded(error: &ProviderError) {
    assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
    assert!(error.message.contains("JSON elements"), "{error}");
}

#[tokio::test]
async fn crowded_list_is_malformed() {
    let server = Scripted::start().await;
    server.answer(200, &crowded("secrets", 1 << 20));
    assert_crowded(&server.store.find(FindQuery::default()).await.unwrap_err());
    server.answer(200, &crowded("receivedMessages", 1 << 20));
    let error = server.store.0.events().unwrap().receive().await.unwrap_err();
    assert_crowded(&error);
}

#[tokio::test]
async fn deeply_nested_answer_is_malformed() {
    let server = Scripted::start().await;
    let deep = format!("{{\"new\":{}{}}}", "[".repeat(100), "]".repeat(100));
    server.answer(200, &deep);
    assert_crowded(&server.store.refuse("a").await);
}

/// A page of the largest secrets: 64 labels, 50 aliases, 10 topics, and a replica with its own key
/// in 40 regions.
#[tokio::test]
async fn largest_page_of_secrets_is_read() {
    let server = Scripted::start().await;
    let map = |count: usize, value: Value| -> Value {
        let entries = (0..count).map(|number| (format!("k{number}"), value.clone()));
        Value::Object(entries.collect())
    };
    let replica = json!({ "location": "a", "customerManagedEncryption": { "kmsKeyName": "b" } });
    let entry = |number: usize| {
        json!({
            "name": format!("projects/1/secrets/s{number}"), "etag": "c", "createTime": "2026-01-01T00:00:00Z",
            "labels": map(64, json!("v")), "annotations": map(300, json!("v")),
            "versionAliases": map(50, json!("1")), "topics": vec![json!({ "name": "d" }); 10],
            "replication": { "userManaged": { "replicas": vec![replica.clone(); 40] } },
            "rotation": { "rotationPeriod": "3600s" },
        })
    };
    let page: Vec<Value> = (0..100).map(entry).collect();
    server.answer(200, &json!({ "secrets": page }).to_string());
    assert_eq!(server.store.find(FindQuery::default()).await.unwrap().len(), 100);
}
