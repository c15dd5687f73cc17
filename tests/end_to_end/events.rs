//! A change that announces itself: from the source through a queue to the Secret, though the next refresh is an hour away.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use lockstep_testkit::{
    Moto,
    aws::{ACCESS_KEY_ID, Aws, REGION, SECRET_ACCESS_KEY},
    gcp::{Gcp, PROJECT, SUBSCRIPTION},
    operator,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    api_proxy::{Asked, Fault, NAMESPACE, ProxiedCluster},
    bad_store::store_says,
    shared_cluster::{TestNamespace, eventually, shared_cluster, text},
};

/// A store that reads from AWS, or from what stands for it, at that address.
async fn add_store(test: &TestNamespace, address: &str, queue: &str) {
    let secret = |key: &str| json!({ "name": "aws", "key": key });
    test.add_credential("aws", "id", ACCESS_KEY_ID).await.unwrap();
    test.apply_raw(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "aws", "namespace": test.namespace },
        "stringData": { "id": ACCESS_KEY_ID, "secret": SECRET_ACCESS_KEY },
    }))
    .await
    .unwrap();
    test.apply_raw(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
        "metadata": { "name": "aws", "namespace": test.namespace },
        "spec": {
            "provider": { "aws": {
                "service": "SecretsManager", "region": REGION, "endpoint": address,
                "auth": { "secretRef": {
                    "accessKeyIDSecretRef": secret("id"), "secretAccessKeySecretRef": secret("secret"),
                } },
            } },
            "events": { "sqs": { "queueUrl": queue } },
        },
    }))
    .await
    .unwrap();
}

/// A store that reads from the stand-in of Google's services.
async fn add_gcp_store(test: &TestNamespace, gcp: &Gcp) {
    let key = gcp.service_account_key().unwrap();
    test.add_credential("gcp", "key.json", &key).await.unwrap();
    test.apply_raw(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
        "metadata": { "name": "gcp", "namespace": test.namespace },
        "spec": {
            "provider": { "gcp": {
                "projectID": PROJECT, "endpoint": gcp.address(),
                "auth": { "secretRef": { "secretAccessKeySecretRef": { "name": "gcp", "key": "key.json" } } },
            } },
            "events": { "pubsub": { "subscription": SUBSCRIPTION, "endpoint": gcp.address() } },
        },
    }))
    .await
    .unwrap();
}

fn spec(key: &str) -> Value {
    spec_of("aws", key)
}

fn spec_of(store: &str, key: &str) -> Value {
    json!({
        "secretStoreRef": { "name": store }, "refreshInterval": "1h",
        "data": [{ "secretKey": "value", "remoteRef": { "key": key } }],
    })
}

async fn until_queue_is_empty(aws: &Aws) {
    eventually("every message is acknowledged", || async {
        let queued = aws.queued();
        ensure!(queued.is_empty(), "given out so often: {queued:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Messages of that outcome.
async fn received(test: &TestNamespace, outcome: &str) -> f64 {
    received_by(test, "aws", outcome).await
}

async fn received_by(test: &TestNamespace, store: &str, outcome: &str) -> f64 {
    let store = format!("store=\"{}/{store}\"", test.namespace);
    let outcome = format!("outcome=\"{outcome}\"");
    let name = "lockstep_events_received_total";
    test.cluster
        .operator
        .metric(name, &[&store, &outcome])
        .await
        .unwrap()
}

async fn room_with(prefix: &str) -> (TestNamespace, Aws) {
    let test = shared_cluster().await.test_namespace(prefix).await;
    let aws = Aws::start().await.unwrap();
    aws.put_secret("shop/a", "first");
    add_store(&test, &aws.address(), &aws.queue_url()).await;
    test.declare("a", spec("shop/a")).await;
    test.wait_for_reason("a", "Synced").await;
    (test, aws)
}

#[tokio::test]
async fn change_is_written_at_once_and_its_message_deleted() {
    let (test, aws) = room_with("events").await;
    for round in 0..3 {
        let value = format!("value {round}");
        let before = aws.reads().0;
        let version = aws.put_secret("shop/a", &value);
        let began = Instant::now();
        aws.send(&Aws::label_updated("shop/a", &version));
        test.wait_for_secret("a", "changed", |secret| {
            text(secret, "value").as_deref() == Some(&value)
        })
        .await;
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(10),
            "{took:?}: that is no event, on however busy a machine"
        );
        until_queue_is_empty(&aws).await;
        assert_eq!(aws.reads().0 - before, 1, "one message, one read");
    }
    assert!((received(&test, "woken").await - 3.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn irrelevant_message_costs_no_read_and_forged_one_a_sync() {
    let (test, aws) = room_with("events-forged").await;
    let before = aws.reads().0;
    let mut marked = Aws::label_updated("shop/other", "CANARY-in-event-0123456789-0123456789");
    marked["note"] = "CANARY-in-event".into();
    aws.send(&marked);
    for malformed in [
        json!("CANARY-in-event"),
        json!({ "source": "CANARY-in-event" }),
        json!(""),
    ] {
        aws.send(&malformed);
    }
    until_queue_is_empty(&aws).await;
    assert_eq!(aws.reads().0, before, "nobody reads what these name");
    assert!((received(&test, "unknown").await - 1.0).abs() < f64::EPSILON);
    assert!((received(&test, "malformed").await - 3.0).abs() < f64::EPSILON);

    // one that names a value without a version: one read
    let mut forged = Aws::label_updated("shop/a", "x");
    forged["detail"].as_object_mut().unwrap().remove("versionId");
    aws.send(&forged);
    until_queue_is_empty(&aws).await;
    assert_eq!(aws.reads().0 - before, 1);
    // a version that there is not: looked for once
    aws.send(&Aws::label_updated(
        "shop/a",
        "CANARY-in-event-0123456789-0123456789",
    ));
    until_queue_is_empty(&aws).await;
    assert_eq!(aws.reads().0 - before, 3, "the current one, and that one");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(aws.reads().0 - before, 3, "and that was all");
    // one that claims to be of another day: not looked for at all
    let mut old = Aws::label_updated("shop/a", "CANARY-in-event-0123456789-0123456789");
    old["time"] = "2026-01-01T00:00:00Z".into();
    aws.send(&old);
    until_queue_is_empty(&aws).await;
    assert_eq!(aws.reads().0 - before, 4, "only the current one");
    let secret = test.secrets().get("a").await.unwrap();
    assert_eq!(text(&secret, "value").as_deref(), Some("first"));
    let log = test.cluster.operator.log();
    assert!(!log.contains("CANARY-in-event"), "a message is never shown");
}

/// Nobody may write a Secret in the namespace, from when this returns.
async fn refuse_writes(test: &TestNamespace) {
    let name = format!("refuse-{}", test.namespace);
    test.apply_raw(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": name },
        "spec": {
            "matchConstraints": { "resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"],
            }] },
            "validations": [{ "expression": "false", "message": "nothing is written here" }],
        },
    }))
    .await
    .unwrap();
    test.apply_raw(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": name },
        "spec": {
            "policyName": name, "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchLabels": {
                "kubernetes.io/metadata.name": test.namespace,
            } } },
        },
    }))
    .await
    .unwrap();
    eventually("the policy holds", || async {
        let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": "probe" } }))?;
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        ensure!(test.secrets().create(&dry, &secret).await.is_err(), "not yet");
        Ok(())
    })
    .await
    .unwrap();
}

async fn allow_writes(test: &TestNamespace) {
    use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
    let api: Api<ValidatingAdmissionPolicyBinding> = Api::all(test.client.clone());
    api.delete(&format!("refuse-{}", test.namespace), &DeleteParams::default())
        .await
        .context("delete the binding")
        .unwrap();
}

#[tokio::test]
async fn message_stays_in_the_queue_until_its_change_is_written() {
    let (test, aws) = room_with("events-refused").await;
    aws.visibility(Duration::from_secs(1));
    refuse_writes(&test).await;
    let version = aws.put_secret("shop/a", "second");
    aws.send(&Aws::label_updated("shop/a", &version));
    test.wait_for_reason("a", "WriteFailed").await;
    eventually("the message is given out again", || async {
        let queued = aws.queued();
        ensure!(queued.iter().any(|often| *often >= 3), "so often: {queued:?}");
        Ok(())
    })
    .await
    .unwrap();
    let secret = test.secrets().get("a").await.unwrap();
    assert_eq!(text(&secret, "value").as_deref(), Some("first"));
    assert!(received(&test, "repeated").await >= 1.0);
    allow_writes(&test).await;
    test.wait_for_secret("a", "written", |secret| {
        text(secret, "value").as_deref() == Some("second")
    })
    .await;
    until_queue_is_empty(&aws).await;
}

#[tokio::test]
async fn kill_between_message_and_write_loses_neither() {
    let mut cluster = ProxiedCluster::set(&[]).await.unwrap();
    let aws = Aws::start().await.unwrap();
    aws.visibility(Duration::from_secs(1));
    aws.put_secret("a", "0");
    let key = |key: &str| json!({ "name": "aws", "key": key });
    for object in [
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "aws", "namespace": operator::NAMESPACE },
            "stringData": { "id": ACCESS_KEY_ID, "secret": SECRET_ACCESS_KEY },
        }),
        json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "ClusterSecretStore", "metadata": { "name": "aws" },
            "spec": {
                "access": [{ "namespaces": { "names": [NAMESPACE] }, "keys": ["**"] }],
                "provider": { "aws": {
                    "service": "SecretsManager", "region": REGION, "endpoint": aws.address(),
                    "auth": { "secretRef": {
                        "accessKeyIDSecretRef": key("id"), "secretAccessKeySecretRef": key("secret"),
                    } },
                } },
                "events": { "sqs": { "queueUrl": aws.queue_url() } },
            },
        }),
        json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": { "name": "a", "namespace": NAMESPACE },
            "spec": {
                "secretStoreRef": { "name": "aws", "kind": "ClusterSecretStore" }, "refreshInterval": "24h",
                "data": [{ "secretKey": "value", "remoteRef": { "key": "a" } }],
            },
        }),
    ] {
        cluster.apply(&object).await.unwrap();
    }
    cluster.operator.run().await.unwrap();
    cluster.synced("a", "0").await;
    let mut round = 0;
    for fault in [Fault::Hangs, Fault::LosesAnswer] {
        // the write of the Secret, and that of the status
        for nth in 0..2 {
            round += 1;
            cluster.proxy.strike(fault, nth, 1, Asked::is_write);
            let version = aws.put_secret("a", &round.to_string());
            aws.send(&Aws::label_updated("a", &version));
            cluster.proxy.struck().await;
            cluster.operator.kill();
            assert_eq!(
                aws.queued().len(),
                1,
                "{fault:?} at write {nth}: nothing says that it is done"
            );
            cluster.proxy.heal();
            cluster.operator.run().await.unwrap();
            cluster.synced("a", &round.to_string()).await;
            until_queue_is_empty(&aws).await;
        }
    }
}

#[tokio::test]
async fn suspended_object_holds_no_message_and_reads_on_resume() {
    let (test, aws) = room_with("events-suspended").await;
    let suspend = |suspend: bool| {
        let patch = json!({ "spec": { "suspend": suspend } });
        let api = test.synced_secrets();
        async move {
            api.patch("a", &PatchParams::default(), &Patch::Merge(patch))
                .await
                .unwrap();
        }
    };
    suspend(true).await;
    test.wait_for_reason("a", "Suspended").await;
    let before = aws.reads().0;
    let version = aws.put_secret("shop/a", "second");
    aws.send(&Aws::label_updated("shop/a", &version));
    until_queue_is_empty(&aws).await;
    assert_eq!(aws.reads().0, before);
    suspend(false).await;
    test.wait_for_secret("a", "written", |secret| {
        text(secret, "value").as_deref() == Some("second")
    })
    .await;
}

#[tokio::test]
async fn store_that_cannot_receive_events_works_and_reports_it() {
    let test = shared_cluster().await.test_namespace("events-deaf").await;
    let aws = Aws::start().await.unwrap();
    aws.put_secret("shop/a", "first");
    aws.deny_action("ReceiveMessage");
    add_store(&test, &aws.address(), &aws.queue_url()).await;
    test.declare("a", spec("shop/a")).await;
    test.wait_for_reason("a", "Synced").await;
    let said = eventually("the store says so", || async {
        let said = store_says(&test, "aws", "StoreReady").await;
        ensure!(said.contains("events are not heard"), "it says: {said}");
        Ok(said)
    })
    .await
    .unwrap();
    assert!(said.contains("sqs:ReceiveMessage"), "{said}");
    assert!(!said.contains("CANARY"), "{said}");
    let store = format!("store=\"{}/aws\"", test.namespace);
    let name = "lockstep_events_listening";
    let listening = test.cluster.operator.metric(name, &[&store]).await.unwrap();
    assert!(listening.abs() < f64::EPSILON);
}

#[tokio::test]
async fn pubsub_notification_triggers_a_write_and_is_acknowledged() {
    let test = shared_cluster().await.test_namespace("events-pubsub").await;
    let gcp = Gcp::start().await.unwrap();
    gcp.put_secret("database", "first");
    add_gcp_store(&test, &gcp).await;
    test.declare("a", spec_of("gcp", "database")).await;
    test.wait_for_reason("a", "Synced").await;
    let acknowledged = async || {
        eventually("every notification is acknowledged", || async {
            let left = gcp.unacknowledged();
            ensure!(left.is_empty(), "given out so often: {left:?}");
            Ok(())
        })
        .await
        .unwrap();
    };

    for round in 0..3 {
        let value = format!("value {round}");
        let before = gcp.reads().0;
        let version = gcp.put_secret("database", &value);
        let began = Instant::now();
        gcp.tell("SECRET_VERSION_ADD", "database", Some(version));
        test.wait_for_secret("a", "changed", |secret| {
            text(secret, "value").as_deref() == Some(&value)
        })
        .await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}: that is no event");
        acknowledged().await;
        assert_eq!(gcp.reads().0 - before, 1, "one notification, one read");
    }
    assert!((received_by(&test, "gcp", "woken").await - 3.0).abs() < f64::EPSILON);

    // what concerns nobody, or is none, goes without a read
    let before = gcp.reads().0;
    gcp.tell("SECRET_UPDATE", "other", None);
    gcp.publish(&json!({ "eventType": "SECRET_UPDATE" }), "CANARY-in-notification");
    acknowledged().await;
    assert_eq!(gcp.reads().0, before);
    assert!((received_by(&test, "gcp", "unknown").await - 1.0).abs() < f64::EPSILON);
    assert!((received_by(&test, "gcp", "malformed").await - 1.0).abs() < f64::EPSILON);
    let log = test.cluster.operator.log();
    assert!(!log.contains("CANARY-in-notification"), "it is never shown");
}

#[tokio::test]
async fn events_work_with_the_sqs_of_moto() {
    let test = shared_cluster().await.test_namespace("events-moto").await;
    let moto = Moto::start().await.unwrap();
    let call = async |target: &str, request: Value| moto.call(REGION, target, &request).await.unwrap();
    let request = json!({ "QueueName": "changes", "Attributes": { "VisibilityTimeout": "1" } });
    let made = call("AmazonSQS.CreateQueue", request).await;
    // moto names itself by another name than the one it was called by
    let path = made["QueueUrl"].as_str().unwrap().splitn(4, '/').nth(3).unwrap();
    let queue = format!("{}/{path}", moto.address());
    let request = json!({ "Name": "shop/a", "SecretString": "first", "ClientRequestToken": "0".repeat(36) });
    call("secretsmanager.CreateSecret", request).await;
    add_store(&test, moto.address(), &queue).await;
    test.declare("a", spec("shop/a")).await;
    test.wait_for_reason("a", "Synced").await;

    let request = json!({
        "SecretId": "shop/a", "SecretString": "second", "ClientRequestToken": "1".repeat(36),
    });
    let put = call("secretsmanager.PutSecretValue", request).await;
    let told = Aws::label_updated("shop/a", put["VersionId"].as_str().unwrap());
    let request = json!({ "QueueUrl": queue, "MessageBody": told.to_string() });
    call("AmazonSQS.SendMessage", request).await;
    test.wait_for_secret("a", "changed", |secret| {
        text(secret, "value").as_deref() == Some("second")
    })
    .await;
    eventually("the message is deleted", || async {
        let names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
        ];
        let request = json!({ "QueueUrl": queue, "AttributeNames": names });
        let left = moto
            .call(REGION, "AmazonSQS.GetQueueAttributes", &request)
            .await?;
        let left = &left["Attributes"];
        ensure!(names.iter().all(|name| left[*name] == "0"), "{left}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(received(&test, "woken").await >= 1.0);
}
