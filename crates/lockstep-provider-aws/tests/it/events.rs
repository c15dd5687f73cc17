//! Receives events from an SQS queue of moto.

use std::sync::Arc;

use lockstep_api::StoreKind;
use lockstep_provider::{ErrorKind, EventKind, EventSource, ProviderError};
use lockstep_testkit::{Moto, aws::REGION};
use serde_json::{Value, json};

use crate::bench::{Store, and, objects, spec};

const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/database-AbCdEf";

async fn queue(moto: &Moto, name: &str) -> String {
    let request = json!({ "QueueName": name, "Attributes": { "VisibilityTimeout": "1" } });
    let made = moto
        .call(REGION, "AmazonSQS.CreateQueue", &request)
        .await
        .unwrap();
    // moto returns a URL with another host than the one that was called.
    let url = made["QueueUrl"].as_str().unwrap();
    let path = url.splitn(4, '/').nth(3).unwrap();
    format!("{}/{path}", moto.address())
}

async fn send(moto: &Moto, queue: &str, body: &str) {
    let request = json!({ "QueueUrl": queue, "MessageBody": body });
    moto.call(REGION, "AmazonSQS.SendMessage", &request)
        .await
        .unwrap();
}

async fn left(moto: &Moto, queue: &str) -> String {
    let names = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
    ];
    let request = json!({ "QueueUrl": queue, "AttributeNames": names });
    let answer = moto
        .call(REGION, "AmazonSQS.GetQueueAttributes", &request)
        .await
        .unwrap();
    let number = |name: &str| -> u32 { answer["Attributes"][name].as_str().unwrap().parse().unwrap() };
    names.map(number).iter().sum::<u32>().to_string()
}

async fn listen(moto: &Moto, url: &str) -> Result<Arc<dyn EventSource>, ProviderError> {
    let aws = and(spec("SecretsManager", moto.address()), "prefix", "shop/");
    let events = json!({ "sqs": { "queueUrl": url } });
    let store = Store::build_hearing(aws, Some(events), &objects(), StoreKind::SecretStore).await?;
    Ok(store.0.events().unwrap())
}

fn updated(name: &str) -> Value {
    json!({
        "version": "0", "id": "1", "source": "aws.secretsmanager", "detail-type": "Secret Label Updated",
        "time": "2026-11-27T07:00:00Z", "region": REGION, "resources": [ARN],
        "detail": { "name": name, "labelUpdated": "AWSCURRENT", "versionId": "1-2-3" },
    })
}

#[tokio::test]
async fn message_is_delivered_until_it_is_acknowledged() {
    let moto = Moto::start().await.unwrap();
    let url = queue(&moto, "changes").await;
    let source = listen(&moto, &url).await.unwrap();
    send(&moto, &url, &updated("shop/database").to_string()).await;
    let first = source.receive().await.unwrap().remove(0);
    assert!(first.kind.keys().contains(&"database".to_owned()), "{first:?}");
    assert!(first.kind.keys().contains(&ARN.to_owned()), "{first:?}");
    assert_eq!(first.at, Some("2026-11-27T07:00:00Z".parse().unwrap()));
    assert_eq!(
        left(&moto, &url).await,
        "1",
        "a message that was received is still there"
    );
    let again = source.receive().await.unwrap().remove(0);
    assert_eq!((&again.id, &again.kind), (&first.id, &first.kind));
    source.acknowledge(&[again.receipt.unwrap()]).await.unwrap();
    assert_eq!(left(&moto, &url).await, "0");
}

#[tokio::test]
async fn malformed_messages_are_received_and_many_acknowledged() {
    let moto = Moto::start().await.unwrap();
    let url = queue(&moto, "forged").await;
    let source = listen(&moto, &url).await.unwrap();
    for number in 0..12 {
        let forged = format!("{{\"source\": \"aws.secretsmanager\", \"forged\": {number}}}");
        send(&moto, &url, &forged).await;
    }
    let mut receipts = std::collections::BTreeMap::new();
    while receipts.len() < 12 {
        for message in source.receive().await.unwrap() {
            assert_eq!(message.kind, EventKind::Malformed);
            let shown = format!("{message:?}");
            let receipt = message.receipt.unwrap();
            assert!(!shown.contains(&receipt), "a receipt is a capability: {shown}");
            receipts.insert(message.id, receipt);
        }
    }
    let receipts: Vec<String> = receipts.into_values().collect();
    source.acknowledge(&receipts).await.unwrap();
    assert_eq!(left(&moto, &url).await, "0");
    source.acknowledge(&receipts).await.unwrap();
}

#[tokio::test]
async fn missing_queue_is_named_and_invalid_url_is_rejected() {
    let moto = Moto::start().await.unwrap();
    let url = format!("{}/123456789012/missing", moto.address());
    let error = listen(&moto, &url).await.unwrap().receive().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(&url), "{error}");
    let error = listen(&moto, "https://sqs.example/1/q?Action=DeleteQueue")
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert!(error.to_string().contains("spec.events.sqs.queueUrl"), "{error}");
}

#[tokio::test]
async fn store_without_events_has_no_source() {
    let moto = Moto::start().await.unwrap();
    let store = Store::new(spec("SecretsManager", moto.address()), &objects()).await;
    assert!(store.0.events().is_none());
}
