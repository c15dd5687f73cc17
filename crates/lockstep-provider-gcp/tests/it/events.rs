//! Pulls from a Pub/Sub subscription of the stand-in.

use std::{sync::Arc, time::Duration};

use lockstep_api::StoreKind;
use lockstep_provider::{ErrorKind, EventKind, EventSource, ProviderError};
use lockstep_testkit::gcp::{Gcp, PROJECT, SUBSCRIPTION};
use serde_json::json;

use crate::bench::{CANARY, Store, objects, spec};

async fn listen(gcp: &Gcp, subscription: &str) -> Result<Arc<dyn EventSource>, ProviderError> {
    let events = json!({ "pubsub": { "subscription": subscription, "endpoint": gcp.address() } });
    let spec = spec(&gcp.address());
    let store = Store::build_hearing(spec, Some(events), &objects(gcp), StoreKind::SecretStore).await?;
    Ok(store.0.events().unwrap())
}

#[tokio::test]
async fn notification_is_delivered_until_it_is_acknowledged() {
    let gcp = Gcp::start().await.unwrap();
    gcp.ack_deadline(Duration::from_millis(200));
    let source = listen(&gcp, SUBSCRIPTION).await.unwrap();
    gcp.tell("SECRET_VERSION_ADD", "database", Some(3));
    let first = source.receive().await.unwrap().remove(0);
    let EventKind::VersionChanged(hint) = &first.kind else {
        panic!("{first:?}")
    };
    assert!(hint.keys.contains(&"database".to_owned()) && hint.version == "3");
    assert!(first.at.is_some());
    let again = source.receive().await.unwrap().remove(0);
    assert_eq!((&again.id, &again.kind), (&first.id, &first.kind));
    let receipt = again.receipt.clone().unwrap();
    assert!(
        !format!("{again:?}").contains(&receipt),
        "a receipt is a capability"
    );
    source.acknowledge(&[receipt]).await.unwrap();
    assert!(gcp.unacknowledged().is_empty());
}

#[tokio::test]
async fn text_that_is_no_notification_is_received_as_malformed() {
    let gcp = Gcp::start().await.unwrap();
    let source = listen(&gcp, &format!("projects/{PROJECT}/subscriptions/{SUBSCRIPTION}"))
        .await
        .unwrap();
    gcp.publish(&json!({}), CANARY);
    gcp.publish(&json!({ "eventType": "SECRET_UPDATE", "secretId": CANARY }), "");
    let messages = source.receive().await.unwrap();
    assert_eq!(messages.len(), 2);
    for message in &messages {
        assert_eq!(message.kind, EventKind::Malformed);
        assert!(!format!("{message:?}").contains(CANARY));
    }
    let receipts: Vec<String> = messages
        .into_iter()
        .filter_map(|message| message.receipt)
        .collect();
    source.acknowledge(&receipts).await.unwrap();
    assert!(gcp.unacknowledged().is_empty());
}

#[tokio::test]
async fn missing_subscription_or_permission_is_named() {
    let gcp = Gcp::start().await.unwrap();
    gcp.tell("SECRET_UPDATE", "database", None);
    let missing = listen(&gcp, "missing")
        .await
        .unwrap()
        .receive()
        .await
        .unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound, "{missing}");
    assert!(missing.to_string().contains("subscriptions/missing"), "{missing}");
    gcp.deny_action("pubsub.subscriptions.consume");
    let denied = listen(&gcp, SUBSCRIPTION)
        .await
        .unwrap()
        .receive()
        .await
        .unwrap_err();
    assert_eq!(denied.kind, ErrorKind::PermissionDenied, "{denied}");
    assert!(denied.to_string().contains("roles/pubsub.subscriber"), "{denied}");
    for wrong in [
        "../x",
        "projects/x/topics/y",
        "a",
        "projects/../subscriptions/abc",
    ] {
        let error = listen(&gcp, wrong).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid);
        assert!(
            error.to_string().contains("spec.events.pubsub.subscription"),
            "{error}"
        );
    }
}
