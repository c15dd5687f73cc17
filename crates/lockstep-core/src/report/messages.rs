//! The messages of the `Ready` condition.

use lockstep_api::{ConditionType, Reason, RefusedRevision, SyncedSecretStatus, TargetStatus};

use super::input::Subject;

/// Maximum length of a message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 2048;

/// Shortens a message to [`MAX_MESSAGE_BYTES`].
pub fn bounded(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES - 3)
            .rev()
            .find(|at| message.is_char_boundary(*at))
            .unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

/// Returns the message of a Secret that is in sync.
pub(super) fn in_sync(target: &TargetStatus, sources: usize, refused: Option<&RefusedRevision>) -> String {
    let values = if sources == 1 {
        "1 remote value".to_owned()
    } else {
        format!("{sources} remote values")
    };
    let mut message = format!("Secret \"{}\" is in sync with {values}", target.name);
    // without a cluster there is no key to make a revision with
    if !target.revision.is_empty() {
        message.push_str(", at revision ");
        message.push_str(&target.revision);
    }
    if let Some(refused) = refused {
        message.push_str("; revision ");
        message.push_str(&refused.revision);
        message.push_str(" was rolled back. lockstep waits for a newer value at the source");
    }
    message
}

pub(super) fn describe_secret(subject: &Subject<'_>) -> String {
    match subject.old.and_then(|old| old.target.as_ref()) {
        Some(target) if subject.drifted => {
            format!("Secret \"{}\" differs from what lockstep wrote", target.name)
        }
        Some(target) if !target.revision.is_empty() => {
            format!(
                "Secret \"{}\" was left unchanged (revision {})",
                target.name, target.revision
            )
        }
        _ => format!("Secret \"{}\" has not been written yet", subject.target_name),
    }
}

/// Returns the message when all remote values are gone. It stays the same until one exists again.
pub(super) fn gone(subject: &Subject<'_>, old: &SyncedSecretStatus, left_alone: bool) -> String {
    let ready = old.condition(ConditionType::Ready);
    let reported = ready.filter(|ready| ready.reason == Reason::SourceDeleted.as_str());
    match reported {
        Some(reported) if old.target.is_none() => reported.message.clone(),
        _ => {
            let removed = match &old.target {
                Some(target) if target.merged => {
                    format!(
                        "removed the keys of this SyncedSecret from Secret \"{}\"",
                        target.name
                    )
                }
                Some(target) if left_alone => {
                    return format!(
                        "every remote value is gone. Secret \"{}\" belongs to someone else now, so deletionPolicy: Delete left it alone",
                        target.name
                    );
                }
                Some(target) => format!("deleted Secret \"{}\"", target.name),
                None => {
                    return format!(
                        "no remote value exists. This SyncedSecret has not written Secret \"{}\", so deletionPolicy: Delete removed nothing",
                        subject.target_name
                    );
                }
            };
            format!(
                "every remote value is gone, so deletionPolicy: Delete {removed}. lockstep writes it again when the remote values exist"
            )
        }
    }
}
