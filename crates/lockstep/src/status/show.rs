//! Output of `lockstep status`: text or JSON. It contains no secret values, because the status has
//! none.

use std::fmt::Write as _;

use jiff::{Timestamp, Zoned};
use lockstep_api::{
    Condition, ConditionStatus, ConditionType, LeaseEnd, LeaseStatus, RolloutPhase, RolloutStatus,
    RotationPhase, RotationStatus, SyncedSecret, SyncedSecretStatus, TargetState, WaitsFor, annotation,
};
use lockstep_core::{
    lease,
    rotation::{self, Opening},
    text,
};
use serde_json::{Value, json};

use crate::{
    span::{age, between, human},
    table::table,
};

const HEAD: [&str; 8] = [
    "NAMESPACE",
    "NAME",
    "READY",
    "REASON",
    "REVISION",
    "CHANGED",
    "SOURCE AGE",
    "ROTATION",
];
/// Placeholder for an empty cell.
const NOTHING: &str = "-";

/// Whether the condition `Ready` is true.
pub(super) fn is_ready(object: &SyncedSecret) -> bool {
    ready(object).is_some_and(|ready| ready.status == ConditionStatus::True)
}

fn ready(object: &SyncedSecret) -> Option<&Condition> {
    object.status.as_ref()?.condition(ConditionType::Ready)
}

/// Returns a table of the SyncedSecrets.
pub(super) fn all(objects: &[&SyncedSecret], now: Timestamp) -> String {
    if objects.is_empty() {
        return "No SyncedSecrets found.\n".to_owned();
    }
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(objects.iter().map(|object| row(object, now)));
    table(&rows, HEAD.len())
}

fn row(object: &SyncedSecret, now: Timestamp) -> [String; 8] {
    let status = object.status.as_ref();
    let target = status.and_then(|status| status.target.as_ref());
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
    [
        or_nothing(object.metadata.namespace.clone()),
        or_nothing(object.metadata.name.clone()),
        ready(object)
            .map_or("Unknown", |ready| condition_status(ready.status))
            .to_owned(),
        or_nothing(ready(object).map(|ready| ready.reason.clone())),
        or_nothing(
            target
                .map(|target| target.revision.clone())
                .filter(|revision| !revision.is_empty()),
        ),
        or_nothing(target.and_then(|target| age(target.last_change_time, now))),
        or_nothing(
            status
                .and_then(|status| rotation::oldest(&status.sources))
                .map(|(_, created)| human(now.duration_since(created).as_secs())),
        ),
        status.map_or_else(|| NOTHING.to_owned(), |status| rotation_of(status, now)),
    ]
}

const fn condition_status(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}

fn rotation_of(status: &SyncedSecretStatus, now: Timestamp) -> String {
    let overdue = status.condition(ConditionType::RotationOverdue).is_some();
    let mut text = match &status.rotation {
        None => NOTHING.to_owned(),
        Some(rotation) => match rotation.phase {
            RotationPhase::Complete => "complete".to_owned(),
            RotationPhase::Pending => format!("pending, {}", until(rotation, now)),
            RotationPhase::Progressing => wave(rotation),
            RotationPhase::Soaking => format!("{}, soaking", wave(rotation)),
            RotationPhase::Verifying => format!("{}, verifying", wave(rotation)),
            RotationPhase::Held => format!("held in {}", wave(rotation)),
            RotationPhase::RollingBack => "rolling back".to_owned(),
            RotationPhase::RolledBack => "rolled back".to_owned(),
        },
    };
    if overdue {
        text.push_str(", overdue");
    }
    text
}

fn wave(rotation: &RotationStatus) -> String {
    let rollout = rotation.rollout.as_ref();
    let (wave, waves) = rollout.map_or((0, 0), |rollout| (rollout.wave, rollout.waves()));
    format!("wave {wave} of {waves}")
}

/// Describes what a pending value is waiting for.
fn until(rotation: &RotationStatus, now: Timestamp) -> String {
    let left = || {
        let at = rotation.next_window_time;
        at.map_or_else(String::new, |at| {
            format!(" for another {}", human(at.duration_since(now).as_secs()))
        })
    };
    match rotation.waits_for {
        Some(WaitsFor::Rollout) => "waiting for the current rollout".to_owned(),
        Some(WaitsFor::Interval) => format!("held by minimumInterval{}", left()),
        Some(WaitsFor::Window) | None => window(rotation, now),
    }
}

fn window(rotation: &RotationStatus, now: Timestamp) -> String {
    match rotation.next_window_time {
        Some(opens) if opens > now => {
            format!("window opens in {}", human(opens.duration_since(now).as_secs()))
        }
        Some(_) => "window is open".to_owned(),
        None => "no window will open".to_owned(),
    }
}

/// Describes one SyncedSecret.
pub(super) fn one(object: &SyncedSecret, now: Timestamp) -> String {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let mut lines = format!(
        "SyncedSecret {}/{}\n",
        text::escape(namespace),
        text::escape(name)
    );
    let mut say = |what: &str, words: String| {
        // writing to a String cannot fail
        let _ = writeln!(lines, "  {what:<10}{}", text::escape(&words));
    };
    let Some(status) = &object.status else {
        say(
            "ready",
            "not reconciled yet. Check that the operator is running and watches this namespace".to_owned(),
        );
        return lines;
    };
    match ready(object) {
        Some(ready) => {
            let since = between(ready.last_transition_time, now);
            let so = if ready.status == ConditionStatus::True {
                "yes"
            } else {
                "no"
            };
            say(
                "ready",
                format!("{so}, for {since}: {}. {}", ready.reason, ready.message),
            );
        }
        None => say("ready", "unknown".to_owned()),
    }
    match &status.target {
        Some(target) => {
            let changed = age(target.last_change_time, now);
            let changed = changed.map_or_else(String::new, |age| format!(", changed {age} ago"));
            say(
                "secret",
                format!("{} at revision {}{changed}", target.name, target.revision),
            );
        }
        None => say("secret", "not written yet".to_owned()),
    }
    let max_age = object
        .spec
        .rotation
        .as_ref()
        .and_then(|rotation| rotation.max_age);
    for source in &status.sources {
        let version = source
            .version
            .as_ref()
            .map_or_else(String::new, |version| format!("  version {version}"));
        let old = age(source.created_time, now).map_or_else(String::new, |age| format!("  {age} old"));
        let may = max_age
            .filter(|_| !old.is_empty())
            .map_or_else(String::new, |max_age| format!(" (maxAge {max_age})"));
        say(
            "source",
            format!("{} {}{version}{old}{may}", source.store, source.key),
        );
    }
    let listed = i64::try_from(status.sources.len()).unwrap_or(i64::MAX);
    if let Some(more) = status
        .source_count
        .map(|count| count - listed)
        .filter(|more| *more > 0)
    {
        say("source", format!("and {more} more"));
    }
    for (what, words) in status.lease.iter().flat_map(|leases| lease_lines(leases, now)) {
        say(what, words);
    }
    if let Some(condition) = status.condition(ConditionType::RotationOverdue) {
        say("overdue", condition.message.clone());
    }
    if let Some(words) = windows_of(object, now) {
        say("windows", words);
    }
    if let Some(rotation) = &status.rotation {
        for (what, words) in rotation_lines(rotation, name, namespace, now) {
            say(&what, words);
        }
    }
    lines
}

/// Describes the lease of the credential in the Secret, and those to be revoked.
fn lease_lines(leases: &LeaseStatus, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for lease in leases.current.iter().chain(&leases.minted) {
        let issued = between(lease.issued_time, now);
        let goes_on = match lease.end_reason {
            None => "will be renewed before then".to_owned(),
            Some(end) => {
                let why = match end {
                    LeaseEnd::NotRenewable => "not renewable",
                    LeaseEnd::RenewalRefused => "renewal rejected by the store",
                    LeaseEnd::MaximumReached => "near its maximum lifetime",
                };
                let refusal = lease.refusal_message.as_ref();
                let refusal = refusal.map_or_else(String::new, |refusal| format!(" ({refusal})"));
                let next =
                    lease::explain_gap(lease).unwrap_or_else(|| "will be replaced before then".to_owned());
                format!("{why}{refusal}, {next}")
            }
        };
        let written = if leases.minted.as_ref() == Some(lease) {
            ", not yet confirmed as written"
        } else {
            ""
        };
        lines.push((
            "lease",
            format!(
                "{} {}, issued {issued} ago, {}; {goes_on}{written}",
                lease.store,
                lease.path,
                left(lease.expiration_time, now)
            ),
        ));
    }
    if let Some(intent) = &leases.intent {
        let path = &intent.path;
        lines.push(("", format!("issuing another credential at {path}")));
    }
    for lease in &leases.old {
        let fate = match (&lease.revocation_message, lease.replaced_time) {
            (Some(why), _) => format!("could not be revoked, will expire by itself: {why}"),
            (None, _) if lease.unwritten => "never written, will be revoked next".to_owned(),
            (None, Some(replaced)) => {
                let since = between(replaced, now);
                format!("replaced {since} ago, pending revocation")
            }
            (None, None) => "pending until its replacement is written".to_owned(),
        };
        lines.push((
            "old lease",
            format!(
                "{} {}, {}; {fate}",
                lease.store,
                lease.path,
                left(lease.expiration_time, now)
            ),
        ));
    }
    lines
}

/// Describes when a lease expires.
fn left(expires: Timestamp, now: Timestamp) -> String {
    match expires.duration_since(now).as_secs() {
        seconds @ 1.. => format!("expires in {} ({expires})", human(seconds)),
        _ => format!("expired ({expires})"),
    }
}

/// Describes whether a rotation window is open. `None` if the spec has no windows or invalid ones,
/// which `ready` reports.
fn windows_of(object: &SyncedSecret, now: Timestamp) -> Option<String> {
    let windows = rotation::windows(object.spec.rotation.as_ref()).ok()?;
    if windows.is_empty() {
        return None;
    }
    let clock = |at: &Zoned| at.strftime("%Y-%m-%d %H:%M %Q").to_string();
    Some(match (windows.open_until(now), windows.at(now)) {
        (Some(until), _) => format!("open until {}", clock(&until)),
        (None, Opening::Closed { next: Some(next) }) => {
            format!(
                "closed, next opens in {}",
                human(next.duration_since(now).as_secs())
            )
        }
        (None, _) => "closed, no further window".to_owned(),
    })
}

/// Describes the rollout wave by wave, and the pending revision.
fn rotation_lines(
    rotation: &RotationStatus,
    name: &str,
    namespace: &str,
    now: Timestamp,
) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    if let Some((phase, _, message)) = rotation::progress(Some(rotation)) {
        lines.push(("rollout".to_owned(), format!("{}: {message}", phase.as_str())));
    }
    if let Some(rollout) = &rotation.rollout {
        lines.extend(target_lines(rollout, now));
        if let Some(previous) = &rollout.previous {
            let versions: Vec<&str> = previous
                .sources
                .iter()
                .filter_map(|source| source.version.as_deref())
                .collect();
            let of = match versions.as_slice() {
                [version] => format!(" (source version {version})"),
                _ => String::new(),
            };
            lines.push((
                String::new(),
                format!("replaces revision {}{of}", previous.revision),
            ));
        }
    }
    if let Some(refused) = &rotation.refused {
        let since = between(refused.rolled_back_time, now);
        lines.push((
            "refused".to_owned(),
            format!(
                "revision {}, {since} ago: {}. Change the value at the source or set lockstep.dev/rotate-now to try again",
                refused.revision, refused.message
            ),
        ));
    }
    if rotation.pending_revision.is_none() {
        if lines.is_empty() {
            lines.push(("rotation".to_owned(), "complete, nothing pending".to_owned()));
        }
        return lines;
    }
    let since = age(rotation.noticed_time, now).unwrap_or_default();
    let revision = rotation.pending_revision.as_deref().unwrap_or_default();
    let at = rotation
        .next_window_time
        .map_or_else(String::new, |at| format!(" ({at})"));
    lines.push((
        "rotation".to_owned(),
        format!(
            "revision {revision} pending for {since}: {}{at}",
            until(rotation, now)
        ),
    ));
    lines.push((
        String::new(),
        format!(
            "to apply it now: kubectl annotate syncedsecret {} -n {} --overwrite {}=\"$(date +%s)\"",
            text::shell_quote(name),
            text::shell_quote(namespace),
            annotation::ROTATE_NOW
        ),
    ));
    lines
}

/// Describes the targets of a rollout, wave by wave.
fn target_lines(rollout: &RolloutStatus, now: Timestamp) -> Vec<(String, String)> {
    let width = rollout
        .targets
        .iter()
        .map(|target| target.to_string().len())
        .max()
        .unwrap_or_default();
    let mut last = 0;
    let lines = rollout.targets.iter().map(|target| {
        let head = if target.wave == last {
            String::new()
        } else {
            format!("wave {}", target.wave)
        };
        last = target.wave;
        let since = age(target.updated_time, now)
            .filter(|_| rollout.phase != RolloutPhase::Complete)
            .map_or_else(String::new, |age| format!(", restarted {age} ago"));
        let soaks = rollout
            .soak_end_time
            .filter(|until| target.wave == rollout.wave && *until > now)
            .map_or_else(String::new, |until| {
                format!(
                    ", soaking for another {}",
                    human(until.duration_since(now).as_secs())
                )
            });
        let state = words(target.state);
        let target = target.to_string();
        (head, format!("{target:<width$}  {state}{since}{soaks}"))
    });
    lines.collect()
}

const fn words(state: TargetState) -> &'static str {
    match state {
        TargetState::Waiting => "waiting for its wave",
        TargetState::Updating => "pods are being replaced",
        TargetState::Ready => "ready",
        TargetState::Partial => "ready, except for pods held back by partition",
        TargetState::ScaledToZero => "has no pods",
        TargetState::Missing => "does not exist",
        TargetState::Paused => "paused",
        TargetState::OnDelete => "waiting for its pods to be deleted (OnDelete)",
        TargetState::NotReady => "did not become ready",
        TargetState::Failing => "was not ready before the restart and still is not",
        TargetState::Overwritten => "the revision was removed from its pod template",
        TargetState::Forbidden => "lockstep is not allowed to restart it",
        TargetState::NoTemplate => "has no pod template of its own",
        TargetState::NoReference => {
            "does not reference the versioned Secret, or its annotation lockstep.dev/versioned does not list it"
        }
    }
}

/// Returns the status as a JSON array, with times as stored.
pub(super) fn json(objects: &[&SyncedSecret]) -> serde_json::Result<String> {
    let all: Vec<Value> = objects
        .iter()
        .map(|object| {
            let status = object.status.as_ref();
            json!({
                "namespace": object.metadata.namespace,
                "name": object.metadata.name,
                "ready": is_ready(object),
                "reason": ready(object).map(|ready| &ready.reason),
                "message": ready(object).map(|ready| &ready.message),
                "overdue": status.is_some_and(|status| status.condition(ConditionType::RotationOverdue).is_some()),
                "secret": status.and_then(|status| status.target.as_ref()).map(|target| json!({
                    "name": target.name,
                    "revision": target.revision,
                    "lastChangeTime": target.last_change_time,
                })),
                "sources": status.map(|status| &status.sources),
                "sourceCount": status.and_then(|status| status.source_count),
                "rotation": status.and_then(|status| status.rotation.as_ref()),
                "lease": status.and_then(|status| status.lease.as_ref()),
            })
        })
        .collect();
    serde_json::to_string_pretty(&all).map(|text| format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-03-10T12:00:00Z".parse().unwrap()
    }

    fn object(status: &Value) -> SyncedSecret {
        serde_json::from_value(json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": { "name": "database", "namespace": "shop" },
            "spec": {
                "secretStoreRef": { "name": "vault" },
                "data": [{ "secretKey": "password", "remoteRef": { "key": "shop/database" } }],
                "rotation": { "maxAge": "30d", "windows": [{ "schedule": "0 2 * * *", "duration": "3h" }] },
            },
            "status": status,
        }))
        .unwrap()
    }

    fn synced() -> Value {
        json!({
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Synced",
                "message": "Secret \"database\" is in sync with 1 remote value, at revision 7f3a",
                "lastTransitionTime": "2026-03-01T12:00:00Z",
            }],
            "target": {
                "name": "database", "uid": "u", "resourceVersion": "7", "revision": "7f3a", "fingerprint": "f",
                "lastChangeTime": "2026-03-07T12:00:00Z",
            },
            "sources": [{
                "store": { "kind": "SecretStore", "name": "vault" }, "key": "shop/database", "version": "13",
                "createdTime": "2026-03-07T11:56:00Z",
            }],
            "sourceCount": 1,
            "rotation": { "phase": "Complete" },
        })
    }

    fn waiting() -> Value {
        let mut status = synced();
        status["rotation"] = json!({
            "phase": "Pending", "noticedTime": "2026-03-10T10:00:00Z", "pendingRevision": "9c41",
            "nextWindowTime": "2026-03-11T02:00:00Z",
        });
        status
    }

    #[test]
    fn names_are_escaped_for_shell_and_terminal() {
        for hostile in ["a; rm -rf ~", "$(id)", "a\u{1b}[2J", "abc\u{202e}cba", "a\nREADY"] {
            let mut status = waiting();
            status["conditions"][0]["message"] = hostile.into();
            status["conditions"][0]["reason"] = hostile.into();
            status["target"]["name"] = hostile.into();
            status["sources"][0]["key"] = hostile.into();
            status["sources"][0]["version"] = hostile.into();
            let mut object = object(&status);
            object.metadata.name = Some(hostile.to_owned());
            object.metadata.namespace = Some(hostile.to_owned());
            let shown = one(&object, now());
            for line in shown.lines().chain(all(&[&object], now()).lines()) {
                assert!(!line.chars().any(text::is_hidden), "{line:?}");
                assert!(!line.starts_with("READY"), "a name begins no line: {line}");
            }
            let command = shown
                .lines()
                .find(|line| line.contains("kubectl annotate"))
                .unwrap();
            let quoted = text::shell_quote(hostile);
            let wanted = format!("syncedsecret {quoted} -n {quoted} --overwrite");
            assert!(command.contains(&wanted), "{command}");
            assert!(quoted == hostile || quoted.starts_with(['\'', '"']), "{quoted}");
        }
    }

    #[test]
    fn list_shows_pending_rotations() {
        let mut fresh = object(&Value::Null);
        fresh.metadata.name = Some("smtp".to_owned());
        let (synced, waiting) = (object(&synced()), object(&waiting()));
        insta::assert_snapshot!(all(&[&synced, &waiting, &fresh], now()), @r"
        NAMESPACE  NAME      READY    REASON  REVISION  CHANGED  SOURCE AGE  ROTATION
        shop       database  True     Synced  7f3a      3d       3d          complete
        shop       database  True     Synced  7f3a      3d       3d          pending, window opens in 14h
        shop       smtp      Unknown  -       -         -        -           -
        ");
        assert_eq!(all(&[], now()), "No SyncedSecrets found.\n");
    }

    #[test]
    fn pending_revision_shows_how_to_apply_it() {
        insta::assert_snapshot!(one(&object(&waiting()), now()), @r#"
        SyncedSecret shop/database
          ready     yes, for 9d: Synced. Secret "database" is in sync with 1 remote value, at revision 7f3a
          secret    database at revision 7f3a, changed 3d ago
          source    SecretStore/vault shop/database  version 13  3d old (maxAge 30d)
          windows   closed, next opens in 14h
          rotation  revision 9c41 pending for 2h: window opens in 14h (2026-03-11T02:00:00Z)
                    to apply it now: kubectl annotate syncedsecret database -n shop --overwrite lockstep.dev/rotate-now="$(date +%s)"
        "#);
    }

    fn held() -> Value {
        let mut status = synced();
        let target = |name: &str, wave: i64, state: &str| {
            let mut target = json!({ "kind": "Deployment", "name": name, "wave": wave, "state": state });
            if state != "Waiting" {
                target["updatedTime"] = json!("2026-03-10T11:40:00Z");
            }
            target
        };
        status["rotation"] = json!({
            "phase": "Held",
            "noticedTime": "2026-03-10T11:50:00Z", "pendingRevision": "9c41", "waitsFor": "Interval",
            "nextWindowTime": "2026-03-10T12:05:00Z",
            "rollout": {
                "phase": "Held", "revision": "7f3a", "startTime": "2026-03-10T11:40:00Z", "wave": 2,
                "message": "Deployment/worker: paused. The rollout goes on when it is resumed (kubectl rollout resume)",
                "targets": [
                    target("api", 1, "Ready"), target("worker", 2, "Paused"), target("web", 2, "Ready"),
                    target("batch", 3, "Waiting"),
                ],
                "previous": {
                    "revision": "11ee", "sources": [{ "store": { "kind": "SecretStore", "name": "vault" }, "key": "shop/database", "version": "12" }],
                },
            },
        });
        status
    }

    #[test]
    fn rollout_is_shown_wave_by_wave() {
        insta::assert_snapshot!(one(&object(&held()), now()), @r#"
        SyncedSecret shop/database
          ready     yes, for 9d: Synced. Secret "database" is in sync with 1 remote value, at revision 7f3a
          secret    database at revision 7f3a, changed 3d ago
          source    SecretStore/vault shop/database  version 13  3d old (maxAge 30d)
          windows   closed, next opens in 14h
          rollout   Held: revision 7f3a is held in wave 2 of 3. Deployment/worker: paused. The rollout goes on when it is resumed (kubectl rollout resume). 1 target of a later wave is unchanged
          wave 1    Deployment/api     ready, restarted 20m ago
          wave 2    Deployment/worker  paused, restarted 20m ago
                    Deployment/web     ready, restarted 20m ago
          wave 3    Deployment/batch   waiting for its wave
                    replaces revision 11ee (source version 12)
          rotation  revision 9c41 pending for 10m: held by minimumInterval for another 5m (2026-03-10T12:05:00Z)
                    to apply it now: kubectl annotate syncedsecret database -n shop --overwrite lockstep.dev/rotate-now="$(date +%s)"
        "#);
        insta::assert_snapshot!(all(&[&object(&held())], now()), @r#"
        NAMESPACE  NAME      READY  REASON  REVISION  CHANGED  SOURCE AGE  ROTATION
        shop       database  True   Synced  7f3a      3d       3d          held in wave 2 of 3
        "#);
        let mut soaking = held();
        soaking["rotation"] = json!({
            "phase": "Soaking",
            "rollout": {
                "phase": "Soaking", "revision": "7f3a", "startTime": "2026-03-10T11:40:00Z", "wave": 1,
                "soakEndTime": "2026-03-10T12:03:00Z",
                "targets": [
                    { "kind": "StatefulSet", "name": "queue", "wave": 1, "state": "Ready", "updatedTime": "2026-03-10T11:50:00Z" },
                    { "kind": "DaemonSet", "name": "agent", "wave": 2, "state": "Waiting" },
                ],
            },
        });
        insta::assert_snapshot!(one(&object(&soaking), now()), @r#"
        SyncedSecret shop/database
          ready     yes, for 9d: Synced. Secret "database" is in sync with 1 remote value, at revision 7f3a
          secret    database at revision 7f3a, changed 3d ago
          source    SecretStore/vault shop/database  version 13  3d old (maxAge 30d)
          windows   closed, next opens in 14h
          rollout   Soaking: revision 7f3a: wave 1 of 2 is ready and soaks until 2026-03-10T12:03:00Z
          wave 1    StatefulSet/queue  ready, restarted 10m ago, soaking for another 3m
          wave 2    DaemonSet/agent    waiting for its wave
        "#);
    }

    #[test]
    fn rollback_shows_the_refused_revision() {
        let mut status = synced();
        status["rotation"] = json!({
            "phase": "RolledBack",
            "rollout": {
                "phase": "RolledBack", "revision": "7f3a", "rollback": true, "startTime": "2026-03-10T11:40:00Z", "wave": 1,
                "targets": [{ "kind": "Deployment", "name": "api", "wave": 1, "state": "Ready", "updatedTime": "2026-03-10T11:50:00Z" }],
            },
            "refused": {
                "revision": "55aa", "fingerprint": "f", "rolledBackTime": "2026-03-10T11:48:00Z",
                "pinned": { "revision": "7f3a" },
                "message": "Deployment/api: not ready within progressDeadline 10m of the restart",
            },
        });
        insta::assert_snapshot!(one(&object(&status), now()), @r#"
        SyncedSecret shop/database
          ready     yes, for 9d: Synced. Secret "database" is in sync with 1 remote value, at revision 7f3a
          secret    database at revision 7f3a, changed 3d ago
          source    SecretStore/vault shop/database  version 13  3d old (maxAge 30d)
          windows   closed, next opens in 14h
          rollout   RolledBack: rolled back to revision 7f3a on 1 target. lockstep waits for a newer value at the source
          wave 1    Deployment/api  ready, restarted 10m ago
          refused   revision 55aa, 12m ago: Deployment/api: not ready within progressDeadline 10m of the restart. Change the value at the source or set lockstep.dev/rotate-now to try again
        "#);
    }

    #[test]
    fn lease_shows_expiry_and_pending_revocations() {
        let lease = |accessor: &str, expires: &str| {
            json!({
                "id": format!("database/creds/shop/{accessor}"), "accessor": accessor, "store": { "kind": "SecretStore", "name": "vault" },
                "path": "database/creds/shop", "request": "r", "issuedTime": "2026-03-10T11:00:00Z", "expirationTime": expires,
                "durationSeconds": 7200, "renewable": true,
            })
        };
        let mut status = synced();
        let mut replaced = lease("b", "2026-03-10T12:30:00Z");
        replaced["replacedTime"] = json!("2026-03-10T11:58:00Z");
        let mut kept = lease("c", "2026-03-10T11:59:00Z");
        kept["revocationMessage"] = json!("the policy needs more");
        let mut unwritten = lease("d", "2026-03-11T12:00:00Z");
        unwritten["unwritten"] = json!(true);
        status["lease"] = json!({
            "current": lease("a", "2026-03-10T13:00:00Z"), "old": [replaced, kept, unwritten],
        });
        insta::assert_snapshot!(one(&object(&status), now()), @r#"
        SyncedSecret shop/database
          ready     yes, for 9d: Synced. Secret "database" is in sync with 1 remote value, at revision 7f3a
          secret    database at revision 7f3a, changed 3d ago
          source    SecretStore/vault shop/database  version 13  3d old (maxAge 30d)
          lease     SecretStore/vault database/creds/shop, issued 60m ago, expires in 60m (2026-03-10T13:00:00Z); will be renewed before then
          old lease SecretStore/vault database/creds/shop, expires in 30m (2026-03-10T12:30:00Z); replaced 2m ago, pending revocation
          old lease SecretStore/vault database/creds/shop, expired (2026-03-10T11:59:00Z); could not be revoked, will expire by itself: the policy needs more
          old lease SecretStore/vault database/creds/shop, expires in 24h (2026-03-11T12:00:00Z); never written, will be revoked next
          windows   closed, next opens in 14h
          rotation  complete, nothing pending
        "#);
        status["lease"]["current"]["endReason"] = json!("RenewalRefused");
        status["lease"]["current"]["refusalMessage"] = json!("the lease has ended");
        let text = one(&object(&status), now());
        assert!(
            text.contains(
                "renewal rejected by the store (the lease has ended), will be replaced before then"
            ),
            "{text}"
        );
    }

    #[test]
    fn object_without_status_is_not_reconciled_yet() {
        insta::assert_snapshot!(one(&object(&Value::Null), now()), @r"
        SyncedSecret shop/database
          ready     not reconciled yet. Check that the operator is running and watches this namespace
        ");
    }

    #[test]
    fn json_contains_times_as_stored() {
        let all: Value = serde_json::from_str(&json(&[&object(&waiting())]).unwrap()).unwrap();
        assert_eq!(all[0]["rotation"]["pendingRevision"], "9c41");
        assert_eq!(all[0]["secret"]["revision"], "7f3a");
        assert_eq!(all[0]["ready"], true);
    }
}
