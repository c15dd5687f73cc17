//! `lockstep history`: shows the revisions of a Secret, the reason for each, and the outcome of its
//! rollout.

use std::process::ExitCode;

use jiff::Timestamp;
use kube::Api;
use lockstep_api::{RevisionRecord, RolloutPhase, SyncedSecret};
use lockstep_core::time::{Clock as _, SystemClock};
use serde_json::json;
use tokio::runtime;

use crate::{
    cli::{HistoryArguments, StatusFormat},
    exit,
    span::between,
    status::{answer, in_namespace, missing, print},
    table::table,
};

const HEAD: [&str; 5] = ["REVISION", "WRITTEN", "AGE", "REASON", "ROLLOUT"];
/// Placeholder for an empty cell.
const NOTHING: &str = "-";

/// Reads the SyncedSecret and prints its history.
pub(crate) fn history(arguments: &HistoryArguments) -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(format!("cannot start the async runtime: {error}")),
    };
    match result {
        Ok(text) => exit::printed(print(arguments.output, &text)),
        Err(message) => exit::failed(&message),
    }
}

async fn run(arguments: &HistoryArguments) -> Result<String, String> {
    let (client, namespace) = in_namespace(&arguments.cluster, arguments.namespace.as_deref()).await?;
    let api: Api<SyncedSecret> = Api::namespaced(client, &namespace);
    let object = answer(api.get_opt(&arguments.name))
        .await?
        .ok_or_else(|| missing(&arguments.name, &namespace))?;
    let records = object.status.unwrap_or_default().history;
    match arguments.output {
        StatusFormat::Text => Ok(text(&records, SystemClock.now())),
        StatusFormat::Json => serde_json::to_string_pretty(&json!(records))
            .map(|text| format!("{text}\n"))
            .map_err(|error| format!("cannot format the output: {error}")),
    }
}

fn text(records: &[RevisionRecord], now: Timestamp) -> String {
    if records.is_empty() {
        return "The Secret has not been written yet.\n".to_owned();
    }
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(records.iter().enumerate().map(|(nth, record)| {
        [
            record.revision.clone(),
            record.written_time.to_string(),
            between(record.written_time, now),
            cause(record, nth + 1 == records.len()),
            rollout(record, nth == 0),
        ]
    }));
    table(&rows, HEAD.len())
}

/// Returns why a revision was written. The oldest record without changed sources counts as the
/// first sync, although older revisions may no longer be in the history.
fn cause(record: &RevisionRecord, oldest: bool) -> String {
    if record.rollback {
        return "rollback".to_owned();
    }
    let mut text = match record.changed.as_slice() {
        [] if oldest => return "first sync".to_owned(),
        [] => "spec changed".to_owned(),
        [source, ..] => {
            let version = source
                .version
                .as_ref()
                .map_or_else(String::new, |version| format!(" version {version}"));
            let count = record.changed_count.unwrap_or(1);
            let more = match count {
                0 | 1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            format!("{} {}{version}{more}", source.store, source.key)
        }
    };
    if let Some(noticed) = record.noticed_time {
        text.push_str(", waited ");
        text.push_str(&between(noticed, record.written_time));
    }
    text
}

/// Returns the outcome of the rollout.
fn rollout(record: &RevisionRecord, newest: bool) -> String {
    let Some(phase) = record.rollout else {
        return NOTHING.to_owned();
    };
    let targets = match record.target_count.unwrap_or_default() {
        1 => "1 target".to_owned(),
        count => format!("{count} targets"),
    };
    let took = record.end_time.map_or_else(String::new, |end| {
        format!(" in {}", between(record.written_time, end))
    });
    let why = record
        .message
        .as_ref()
        .map_or_else(String::new, |message| format!(": {message}"));
    match phase {
        RolloutPhase::Complete => format!("complete: {targets}{took}"),
        RolloutPhase::RolledBack => format!("restored on {targets}{took}"),
        RolloutPhase::RollingBack if !record.rollback => format!("failed{why}"),
        RolloutPhase::Held => format!("held{why}"),
        _ if newest => format!("in progress: {targets}"),
        _ => format!("abandoned: {targets}"),
    }
}

#[cfg(test)]
mod tests {
    use lockstep_api::{SourceStatus, StoreKind, StoreRef};

    use super::*;

    fn record(revision: &str, written: &str) -> RevisionRecord {
        RevisionRecord {
            revision: revision.to_owned(),
            written_time: written.parse().unwrap(),
            ..RevisionRecord::default()
        }
    }

    fn source(version: &str) -> SourceStatus {
        SourceStatus {
            store: StoreRef {
                name: "vault".to_owned(),
                kind: StoreKind::SecretStore,
            },
            key: "shop/database".to_owned(),
            version: Some(version.to_owned()),
            created_time: None,
        }
    }

    #[test]
    fn history_shows_reason_and_rollout_of_each_revision() {
        let records = [
            RevisionRecord {
                rollback: true,
                rollout: Some(RolloutPhase::RolledBack),
                target_count: Some(1),
                end_time: Some("2026-03-10T11:45:00Z".parse().unwrap()),
                ..record("9c41", "2026-03-10T11:40:00Z")
            },
            RevisionRecord {
                changed: vec![source("15"), source("2")],
                changed_count: Some(2),
                rollout: Some(RolloutPhase::RollingBack),
                target_count: Some(3),
                message: Some(
                    "Deployment/api: not ready within progressDeadline 10m of the restart".to_owned(),
                ),
                ..record("55aa", "2026-03-10T11:30:00Z")
            },
            RevisionRecord {
                noticed_time: Some("2026-03-09T17:00:00Z".parse().unwrap()),
                changed: vec![source("14")],
                changed_count: Some(1),
                rollout: Some(RolloutPhase::Complete),
                target_count: Some(3),
                end_time: Some("2026-03-10T02:04:00Z".parse().unwrap()),
                ..record("9c41", "2026-03-10T02:00:00Z")
            },
            record("7f3a", "2026-03-01T12:00:00Z"),
        ];
        insta::assert_snapshot!(text(&records, "2026-03-10T12:00:00Z".parse().unwrap()), @r#"
        REVISION  WRITTEN               AGE  REASON                                                 ROLLOUT
        9c41      2026-03-10T11:40:00Z  20m  rollback                                               restored on 1 target in 5m
        55aa      2026-03-10T11:30:00Z  30m  SecretStore/vault shop/database version 15 and 1 more  failed: Deployment/api: not ready within progressDeadline 10m of the restart
        9c41      2026-03-10T02:00:00Z  10h  SecretStore/vault shop/database version 14, waited 9h  complete: 3 targets in 4m
        7f3a      2026-03-01T12:00:00Z  9d   first sync                                             -
        "#);
        assert_eq!(
            text(&[], Timestamp::MIN),
            "The Secret has not been written yet.\n"
        );
    }
}
