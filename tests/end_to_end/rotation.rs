//! When a value that changed at its source is let in, and what is said while it waits.

use anyhow::ensure;
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use lockstep_api::{ConditionType, RotationPhase, SyncedSecret};
use serde_json::{Value, json};

use crate::stage::{Room, eventually, message, stage, text};

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

fn spec(room: &Room, rotation: &Value) -> Value {
    json!({
        "refreshInterval": "1s",
        "data": [{ "secretKey": "password", "remoteRef": { "key": room.key("database"), "property": "password" } }],
        "rotation": rotation,
    })
}

async fn put(room: &Room, value: &str) {
    room.put("database", json!({ "password": value })).await;
}

async fn holds(room: &Room, value: &str) {
    room.wait_for_secret("database", value, |secret| {
        text(secret, "password").as_deref() == Some(value)
    })
    .await;
}

fn pending(object: &SyncedSecret) -> Option<&lockstep_api::Condition> {
    object.status.as_ref()?.condition(ConditionType::RotationPending)
}

/// A room with a SyncedSecret whose only window is closed.
async fn closed_room(name: &str) -> Room {
    let room = stage().await.room(name).await;
    put(&room, "one").await;
    room.declare("database", spec(&room, &json!({ "windows": [closed()] })))
        .await;
    // what was never written does not wait
    holds(&room, "one").await;
    room
}

async fn waits(room: &Room) -> SyncedSecret {
    room.wait_for("database", "a value that waits", |object| {
        pending(object).is_some()
    })
    .await
}

async fn waits_no_longer(room: &Room) -> SyncedSecret {
    room.wait_for("database", "nothing waits", |object| {
        let phase = object.status.as_ref().and_then(|status| status.rotation.as_ref());
        pending(object).is_none() && phase.is_some_and(|rotation| rotation.phase == RotationPhase::Complete)
    })
    .await
}

async fn annotate(room: &Room, value: &str) {
    let patch = json!({ "metadata": { "annotations": { "lockstep.dev/rotate-now": value } } });
    room.synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// The metric of the room's SyncedSecret.
async fn metric(room: &Room, name: &str) -> f64 {
    let namespace = format!("namespace=\"{}\"", room.namespace);
    room.stage.operator.metric(name, &[&namespace]).await.unwrap()
}

#[tokio::test]
async fn a_changed_value_waits_for_its_window_and_somebody_may_let_it_in() {
    let room = closed_room("windows").await;
    waits_no_longer(&room).await;
    let since = "lockstep_synced_secret_rotation_pending_since_timestamp_seconds";
    assert!(metric(&room, since).await.abs() < f64::EPSILON);

    put(&room, "two").await;
    let object = waits(&room).await;
    let status = object.status.as_ref().unwrap();
    let rotation = status.rotation.as_ref().unwrap();
    assert_eq!(rotation.phase, RotationPhase::Pending);
    assert!(rotation.next_window.is_some() && rotation.pending_since.is_some());
    assert!(
        message(&object).ends_with("; what changed since then waits"),
        "{}",
        message(&object)
    );
    assert_eq!(
        status.sources[0].version.as_deref(),
        Some("1"),
        "what the Secret was made from"
    );
    holds(&room, "one").await;
    assert!(metric(&room, since).await > 1.7e9);
    let next = "lockstep_synced_secret_rotation_next_window_timestamp_seconds";
    assert!(metric(&room, next).await > metric(&room, since).await);

    // another change is part of the same rotation
    let first = rotation.clone();
    put(&room, "three").await;
    let object = room
        .wait_for("database", "another revision", |object| {
            let rotation = object.status.as_ref().and_then(|status| status.rotation.as_ref());
            rotation.is_some_and(|rotation| rotation.pending_revision != first.pending_revision)
        })
        .await;
    let rotation = object.status.unwrap().rotation.unwrap();
    assert_eq!(rotation.pending_since, first.pending_since);
    holds(&room, "one").await;

    annotate(&room, "now").await;
    holds(&room, "three").await;
    waits_no_longer(&room).await;
    // and only once
    put(&room, "four").await;
    waits(&room).await;
    holds(&room, "three").await;
}

#[tokio::test]
async fn a_secret_that_is_deleted_while_a_value_waits_comes_back_with_the_newest() {
    let room = closed_room("windows-drift").await;
    put(&room, "two").await;
    waits(&room).await;
    room.secrets()
        .delete("database", &DeleteParams::default())
        .await
        .unwrap();
    holds(&room, "two").await;
    waits_no_longer(&room).await;
}

#[tokio::test]
async fn a_value_that_changes_back_waits_for_nothing() {
    let room = closed_room("windows-back").await;
    put(&room, "two").await;
    waits(&room).await;
    put(&room, "one").await;
    waits_no_longer(&room).await;
    holds(&room, "one").await;
}

#[tokio::test]
async fn while_a_window_is_open_a_value_is_followed_and_a_wrong_window_changes_nothing() {
    let room = stage().await.room("windows-open").await;
    put(&room, "one").await;
    let object = room
        .declare("database", spec(&room, &json!({ "windows": [closed(), open()] })))
        .await;
    holds(&room, "one").await;
    put(&room, "two").await;
    holds(&room, "two").await;

    let mut wrong = open();
    wrong["timeZone"] = json!("Europe/Berlim");
    let patch = json!({ "spec": { "rotation": { "windows": [wrong] } } });
    room.synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    let failed = room.wait_for_reason("database", "InvalidSpec").await;
    assert!(
        message(&failed).starts_with(
            "rotation.windows[0].timeZone: \"Europe/Berlim\" is not a time zone of the IANA database"
        ),
        "{}",
        message(&failed)
    );
    holds(&room, "two").await;
    let patch = json!({ "spec": { "rotation": object.spec.rotation } });
    room.synced_secrets()
        .patch("database", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    room.wait_for_reason("database", "Synced").await;
}

#[tokio::test]
async fn a_source_that_gets_too_old_is_told_though_nothing_else_happens() {
    let room = stage().await.room("max-age").await;
    put(&room, "one").await;
    let mut spec = spec(&room, &json!({ "maxAge": "4s" }));
    spec["refreshInterval"] = json!("1h");
    room.declare("database", spec).await;
    room.wait_for_reason("database", "Synced").await;
    let object = room
        .wait_for("database", "overdue", |object| {
            let status = object.status.as_ref();
            status.is_some_and(|status| status.condition(ConditionType::RotationOverdue).is_some())
        })
        .await;
    let status = object.status.unwrap();
    let said = &status.condition(ConditionType::RotationOverdue).unwrap().message;
    let expected = format!(
        "the version of \"{}\" in SecretStore/vault is from ",
        room.key("database")
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
        let overdue = metric(&room, "lockstep_synced_secret_rotation_overdue").await;
        ensure!((overdue - 1.0).abs() < f64::EPSILON, "{overdue}");
        Ok(())
    })
    .await
    .unwrap();
}
