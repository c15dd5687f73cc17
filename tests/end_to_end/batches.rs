//! Many SyncedSecrets of one store: full batches, one login, and what is said where batches are not granted.

use anyhow::ensure;
use lockstep_testkit::aws::{ACCESS_KEY_ID, Aws, REGION, SECRET_ACCESS_KEY};
use serde_json::{Value, json};

use crate::{
    bad_store::store_says,
    shared_cluster::{TestNamespace, eventually, shared_cluster},
};

const ROLE: &str = "arn:aws:iam::123456789012:role/shop";

async fn add_store(test: &TestNamespace, aws: &Aws) {
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
        "spec": { "provider": { "aws": {
            "service": "SecretsManager", "region": REGION, "role": ROLE,
            "endpoint": aws.address(), "stsEndpoint": aws.address(),
            "auth": { "secretRef": {
                "accessKeyIDSecretRef": secret("id"), "secretAccessKeySecretRef": secret("secret"),
            } },
        } } },
    }))
    .await
    .unwrap();
}

fn spec(number: usize) -> Value {
    json!({
        "secretStoreRef": { "name": "aws" }, "refreshInterval": "2s",
        "data": [{ "secretKey": "value", "remoteRef": { "key": format!("shop/{number}") } }],
    })
}

/// A metric of the provider, of the namespace's store.
async fn metric(test: &TestNamespace, name: &str, labels: &[&str]) -> f64 {
    let store = format!("store=\"{}/aws\"", test.namespace);
    let labels = [&[store.as_str()], labels].concat();
    test.cluster.operator.metric(name, &labels).await.unwrap()
}

#[tokio::test]
async fn many_objects_are_read_in_full_batches_after_one_login() {
    const COUNT: usize = 200;
    let test = shared_cluster().await.test_namespace("batches").await;
    let aws = Aws::start().await.unwrap();
    for number in 0..COUNT {
        aws.put_secret(&format!("shop/{number}"), "value");
    }
    add_store(&test, &aws).await;
    let declare = |number| {
        let test = &test;
        async move { test.declare(&format!("object-{number}"), spec(number)).await }
    };
    futures::future::join_all((0..COUNT).map(declare)).await;
    let namespace = format!("namespace=\"{}\"", test.namespace);
    eventually("all are Ready", || async {
        let ready = "lockstep_synced_secret_ready";
        let ready = test.cluster.operator.metric(ready, &[&namespace]).await?;
        ensure!(ready >= 200.0, "{ready} are Ready");
        Ok(())
    })
    .await
    .unwrap();

    // some rounds of refreshes: how many values one call reads is what matters, not how long they take
    let values = || metric(&test, "lockstep_provider_batch_size_sum", &[]);
    let calls = || metric(&test, "lockstep_provider_batch_size_count", &[]);
    let before = (values().await, calls().await);
    eventually("four rounds of refreshes", || async {
        let read = values().await - before.0;
        ensure!(read >= 800.0, "{read} values were read");
        Ok(())
    })
    .await
    .unwrap();
    let each = (values().await - before.0) / (calls().await - before.1);
    // how full batches are depends on the machine and is held by `cargo xtask bench first-sync`
    assert!(
        each >= 4.0,
        "{each} values with one call, of 20 that are possible"
    );
    assert_eq!(aws.count("AssumeRole"), 1, "one login serves them all");
}

#[tokio::test]
async fn store_without_batch_permission_works_and_reports_it() {
    let test = shared_cluster().await.test_namespace("no-batches").await;
    let aws = Aws::start().await.unwrap();
    aws.put_secret("shop/0", "value");
    aws.put_secret("shop/1", "value");
    aws.deny_action("BatchGetSecretValue");
    add_store(&test, &aws).await;
    let both = json!({
        "secretStoreRef": { "name": "aws" }, "refreshInterval": "1s",
        "data": [
            { "secretKey": "a", "remoteRef": { "key": "shop/0" } },
            { "secretKey": "b", "remoteRef": { "key": "shop/1" } },
        ],
    });
    test.declare("s", both).await;
    test.wait_for_reason("s", "Synced").await;
    let said = store_says(&test, "aws", "StoreReady").await;
    assert!(
        said.contains("secretsmanager:BatchGetSecretValue"),
        "it says: {said}"
    );
    assert!(said.starts_with("connected and authenticated; "), "{said}");
    let notice = metric(&test, "lockstep_provider_notice", &["reason=\"batch_denied\""]).await;
    assert!((notice - 1.0).abs() < f64::EPSILON, "{notice}");
}
