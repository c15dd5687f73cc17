//! Responses that need much memory, or that never end.

use std::{sync::Arc, time::Duration};

use lockstep_api::StoreKind;
use lockstep_provider::{ErrorKind, FindQuery, ProviderError};
use lockstep_testkit::aws::Aws;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
};

use crate::bench::{Scripted, Store, objects, spec};

const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/db-AbCdEf";

/// Returns a secret with this value as the service returns it.
fn secret(value: &str) -> Value {
    json!({
        "Name": "shop", "ARN": ARN.replace("shop/db", "shop"), "VersionId": "11111111-1111-1111-1111-111111111111",
        "VersionStages": ["AWSCURRENT"], "SecretString": value,
    })
}

/// Returns a JSON document whose list has this many empty elements.
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
    for (service, list) in [("SecretsManager", "SecretList"), ("ParameterStore", "Parameters")] {
        let store = server.store(service).await;
        server.answer(200, &crowded(list, 1 << 20));
        assert_crowded(&store.find(FindQuery::default()).await.unwrap_err());
    }
}

#[tokio::test]
async fn crowded_batch_is_malformed() {
    let server = Scripted::start().await;
    for (service, list) in [
        ("SecretsManager", "SecretValues"),
        ("ParameterStore", "Parameters"),
    ] {
        let store = server.store(service).await;
        server.answer(200, &crowded(list, 1 << 20));
        for result in store.fetch_all(&["a", "b"]).await {
            assert_crowded(&result.unwrap_err());
        }
    }
}

#[tokio::test]
async fn crowded_messages_are_malformed() {
    let server = Scripted::start().await;
    let queue = format!("{}/123456789012/changes", server.address());
    let events = json!({ "sqs": { "queueUrl": queue } });
    let aws = spec("SecretsManager", server.address());
    let store = Store::build_hearing(aws, Some(events), &objects(), StoreKind::SecretStore).await;
    server.answer(200, &crowded("Messages", 1 << 20));
    let error = store.unwrap().0.events().unwrap().receive().await.unwrap_err();
    assert_crowded(&error);
}

#[tokio::test]
async fn deeply_nested_answer_is_malformed() {
    let server = Scripted::start().await;
    let store = server.store("SecretsManager").await;
    let deep = format!("{{\"New\":{}{},", "[".repeat(100), "]".repeat(100));
    let answer = secret("CANARY").to_string();
    server.answer(200, &answer.replacen('{', &deep, 1));
    assert_crowded(&store.refuse("shop").await);
}

#[tokio::test]
async fn value_full_of_structure_is_read() {
    let server = Scripted::start().await;
    let store = server.store("SecretsManager").await;
    let value = r#"{"a\\":[{},[]],"b":"#.repeat(200_000 / 19);
    server.answer(200, &secret(&value).to_string());
    assert_eq!(store.read("shop").await, value);
}

/// The largest page that the service's quotas allow: 50 tags and 20 staging labels for each secret.
#[tokio::test]
async fn largest_page_of_secrets_is_read() {
    let server = Scripted::start().await;
    let tags: Vec<Value> = (0..50)
        .map(|number| json!({ "Key": format!("k{number}"), "Value": "v" }))
        .collect();
    let stages: serde_json::Map<String, Value> = (0..20)
        .map(|number| (format!("id-{number}"), json!([format!("stage-{number}")])))
        .collect();
    let entry = |number: usize| {
        json!({
            "ARN": ARN, "Name": format!("shop/{number}"), "Description": "a", "KmsKeyId": "b",
            "CreatedDate": 1, "LastAccessedDate": 1, "LastChangedDate": 1, "LastRotatedDate": 1,
            "NextRotationDate": 1, "OwningService": "c", "PrimaryRegion": "d", "RotationEnabled": true,
            "RotationLambdaARN": "e", "RotationRules": { "AutomaticallyAfterDays": 1 },
            "SecretVersionsToStages": stages, "Tags": tags,
        })
    };
    let page: Vec<Value> = (0..100).map(entry).collect();
    server.answer(200, &json!({ "SecretList": page }).to_string());
    let store = server.store("SecretsManager").await;
    assert_eq!(store.find(FindQuery::default()).await.unwrap().len(), 100);
}

/// Starts a server that begins a long chunked response, signals that it did, and never continues.
async fn stalling() -> (String, Arc<Semaphore>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let begun = Arc::new(Semaphore::new(0));
    let count = Arc::clone(&begun);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            let body = format!("{{\"SecretString\":\"{}", "x".repeat(20_000));
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let answer = format!("{head}{:x}\r\n{body}\r\n", body.len());
            connection.write_all(answer.as_bytes()).await.unwrap();
            open.push(connection);
            count.add_permits(1);
        }
    });
    (address, begun, tasks)
}

#[tokio::test]
async fn stalled_answers_leave_room_for_other_stores() {
    let (address, begun, _server) = stalling().await;
    let aws = Aws::start().await.unwrap();
    aws.put_oversized_secret("large", &"x".repeat(1 << 20));
    let healthy = Store::of("SecretsManager", &aws).await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        stalled.push(Store::new(spec("SecretsManager", &address), &objects()).await);
    }
    let stalled = futures::future::join_all(stalled.iter().map(|store| store.refuse("a")));
    let healthy = async {
        let _all = begun.acquire_many(4).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        healthy.read("large").await.len()
    };
    tokio::select! {
        _ = stalled => panic!("they never end"),
        length = healthy => assert_eq!(length, 1 << 20),
    }
}
