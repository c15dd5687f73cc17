//! When a value that changed at its source is let in, and what is said while it waits.

use anyhow::ensure;
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use lockstep_api::{ConditionType, RotationPhase, SyncedSecret};
use serde_json::{Value, json};

use crate::shared_cluster::{TestNamespace, eventually, message, shared_cluster, text};

/// A window of an hour that is half a year away.
#[expect(clippy::disallowed_methods, reason = "a real operator looks at the real time")]
fn closed() -> Value {
    let month = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).month();
    let far = (month + 5) % 12 + 1;
    json!({ "schedule": format!("0 2 15 {far} *"), "duration": "1h", "timeZone": "Europe/Berlin" })
}

/// One that opens every minute, for an hour.
fn open() -> Value {
    json!({ "schedule": "* * * * *", "duration": "1h" })
}

fn spec(test: &TestNamespace, rotation: &Value) -> Value {
    json!({
        "refreshInterval": "1s",
        "data": [{ "secretKey": "password", "remoteRef": { "key": test.key("database"), "property": "password" } }],
        "rotation": rotation,
    })
}

async fn put(test: &TestNamespace, value: &str) {
    test.put("database", json!({ "password": value })).await;
}

async fn holds(test: &TestNamespace, value: &str) {
    test.wait_for_secret("database", value, |secret| {
        text(secret, "password").as_deref() == Some(value)
    })
    .await;
}

fn pending(object: &SyncedSecret) -> Option<&lockstep_api::Condition> {
    object.status.as_ref()?.condition(ConditionType::RotationPending)
}

/// A namespace with a SyncedSecret whose only window is closed.
async fn closed_room(name: &str) -> TestNamespace {
    let test = shared_cluster().await.test_namespace(name).await;
    put(&test, "one").await;
    test.declare("database", spec(&test, &json!({ "windows": [closed()] })))
        .await;
    // what was never written does not wait
    holds(&test, "one").await;
    test
}

async fn waits(test: &TestNamespace) -> SyncedSecret {
    test.wait_for("database", "a value that waits", |object| {
        pending(object).is_some()
    })
    .await
}

async fn waits_no_longer(test: &TestNamespace) -> SyncedSecret {
    test.wait_for("database", "nothing waits", |object| {
        let phase = object.status.as_ref().and_then(|status| status.rotation.as_ref());
        pending(object).is_none() && phase.is_some_and(|rotation| rotation.phase == RotationPhase::Complete)
    })
    .await
}

async fn annotate(test: &TestNamespace, value: &str) {
    let patch = json!({ "metadata": { "annotations": { "lockstep.dev/rotate-now": value } } });
    test.synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// The metric of the namespace's SyncedSecret.
async fn metric(test: &TestNamespace, name: &str) -> f64 {
    let namespace = format!("namespace=\"{}\"", test.namespace);
    test.cluster.operator.metric(name, &[&namespace]).await.unwrap()
}

#[tokio::test]
async fn changed_value_waits_for_its_window_or_rotate_now() {
    let test = closed_room("windows").await;
    waits_no_longer(&test).await;
    let since = "lockstep_synced_secret_rotation_pending_since_timestamp_seconds";
    assert!(metric(&test, since).await.abs() < f64::EPSILON);

    put(&test, "two").await;
    let object = waits(&test).await;
    let status = object.status.as_ref().unwrap();
    let rotation = status.rotation.as_ref().unwrap();
    assert_eq!(rotation.phase, RotationPhase::Pending);
    assert!(rotation.next_window_time.is_some() && rotation.noticed_time.is_some());
    assert!(
        message(&object).ends_with(". A newer value is pending"),
        "{}",
        message(&object)
    );
    assert_eq!(
        status.sources[0].version.as_deref(),
        Some("1"),
        "what the Secret was made from"
    );
    holds(&test, "one").await;
    assert!(metric(&test, since).await > 1.7e9);
    let next = "lockstep_synced_secret_rotation_next_window_timestamp_seconds";
    assert!(metric(&test, next).await > metric(&test, since).await);

    // another change is part of the same rotation
    let first = rotation.clone();
    put(&test, "three").await;
    let object = test
        .wait_for("database", "another revision", |object| {
            let rotation = object.status.as_ref().and_then(|status| status.rotation.as_ref());
            rotation.is_some_and(|rotation| rotation.pending_revision != first.pending_revision)
        })
        .await;
    let rotation = object.status.unwrap().rotation.unwrap();
    assert_eq!(rotation.noticed_time, first.noticed_time);
    holds(&test, "one").await;

    annotate(&test, "now").await;
    holds(&test, "three").await;
    waits_no_longer(&test).await;
    // and only once
    put(&test, "four").await;
    waits(&test).await;
    holds(&test, "three").await;
}

#[tokio::test]
async fn secret_deleted_while_a_value_waits_returns_with_it() {
    let test = closed_room("windows-drift").await;
    put(&test, "two").await;
    waits(&test).await;
    test.secrets()
        .delete("database", &DeleteParams::default())
        .await
        .unwrap();
    holds(&test, "two").await;
    waits_no_longer(&test).await;
}

#[tokio::test]
async fn value_that_changes_back_is_no_longer_pending() {
    let test = closed_room("windows-back").await;
    put(&test, "two").await;
    waits(&test).await;
    put(&test, "one").await;
    waits_no_longer(&test).await;
    holds(&test, "one").await;
}

#[tokio::test]
async fn open_window_lets_changes_in_and_an_invalid_one_does_not() {
    let test = shared_cluster().await.test_namespace("windows-open").await;
    put(&test, "one").await;
    let object = test
        .declare("database", spec(&test, &json!({ "windows": [closed(), open()] })))
        .await;
    holds(&test, "one").await;
    put(&test, "two").await;
    holds(&test, "two").await;

    let mut wrong = open();
    wrong["timeZone"] = json!("Europe/Berlim");
    let patch = json!({ "spec": { "rotation": { "windows": [wrong] } } });
    test.synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    let failed = test.wait_for_reason("database", "InvalidSpec").await;
    assert!(
        message(&failed).starts_with(
            "rotation.windows[0].timeZone: \"Europe/Berlim\" is not a time zone of the IANA database"
        ),
        "{}",
        message(&failed)
    );
    holds(&test, "two").await;
    let patch = json!({ "spec": { "rotation": object.spec.rotation } });
    test.synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    test.wait_for_reason("database", "Synced").await;
}

#[tokio::test]
async fn overdue_source_is_reported_without_another_change() {
    let test = shared_cluster().await.test_namespace("max-age").await;
    put(&test, "one").await;
    let mut spec = spec(&test, &json!({ "maxAge": "4s" }));
    spec["refreshInterval"] = json!("1h");
    test.declare("database", spec).await;
    test.wait_for_reason("database", "Synced").await;
    let object = test
        .wait_for("database", "overdue", |object| {
            let status = object.status.as_ref();
            status.is_some_and(|status| status.condition(ConditionType::RotationOverdue).is_some())
        })
        .await;
    let status = object.status.unwrap();
    let said = &status.condition(ConditionType::RotationOverdue).unwrap().message;
    let expected = format!(
        "key \"{}\" in SecretStore/vault: its version of ",
        test.key("database")
    );
    assert!(
        said.starts_with(&expected) && said.contains("maxAge 4s"),
        "{said}"
    );
    assert!(
        status
            .condition(ConditionType::Ready)
            .is_some_and(|ready| ready.reason == "Synced")
    );
    eventually("the metric says so", || async {
        let overdue = metric(&test, "lockstep_synced_secret_rotation_overdue").await;
        ensure!((overdue - 1.0).abs() < f64::EPSILON, "{overdue}");
        Ok(())
    })
    .await
    .unwrap();
}
