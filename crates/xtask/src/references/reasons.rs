//! The reference of reasons: the meaning of each, and what to do.

use std::fmt::Write as _;

use lockstep_api::Reason;

const INTRODUCTION: &str = "\
# Reasons

[Documentation index](../index.md)

Conditions, events and the metric `lockstep_reconcile_duration_seconds` use these reasons. The message of the condition
names the entry, the key and the store. While `Ready` is false, `Reconciling` means that lockstep retries by itself, and
`Stalled` that someone must change something. lockstep then retries at once after a change, and from time to time without one.

A failed sync leaves the Secret unchanged.

| reason | meaning | what to do |
|---|---|---|
";

/// Returns the page `docs/reference/reasons.md`.
pub(super) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for reason in Reason::ALL {
        // writing to a String cannot fail
        let _ = writeln!(
            page,
            "| `{reason}` | {} | {} |",
            reason.meaning(),
            remedy(*reason)
        );
    }
    page
}

/// Returns what to do about the reason.
const fn remedy(reason: Reason) -> &'static str {
    match reason {
        Reason::Synced | Reason::StoreReady => "Nothing.",
        Reason::Suspended => "Remove `suspend` to sync again.",
        Reason::InvalidSpec => "Correct the field in the message.",
        Reason::StoreNotFound => {
            "Create the store, or correct `secretStoreRef`. A SecretStore must be in the namespace of the SyncedSecret."
        }
        Reason::AccessDenied => {
            "Ask the owner of the ClusterSecretStore to add an entry to `access` for this namespace and key."
        }
        Reason::ConfigInvalid => "Correct the field of the store in the message.",
        Reason::CredentialsUnavailable => {
            "Create the credentials, or run the command in the message to grant lockstep access."
        }
        Reason::Unauthenticated => {
            "Check the role, its bound ServiceAccount and audience, and whether the token was revoked. lockstep logs in again by itself."
        }
        Reason::PermissionDenied => "Grant the store's role the path or permission in the message.",
        Reason::SourceNotFound => {
            "Create the value in the store, correct `remoteRef`, or set `optional` if the key may be missing."
        }
        Reason::SourceDeleted => "Create the value in the store again, or delete the SyncedSecret.",
        Reason::RateLimited => {
            "Wait: lockstep retries. If it persists, increase `refreshInterval`, or adjust the store's `limits`."
        }
        Reason::Unavailable => {
            "Check that the store runs, is unsealed and is reachable through network policies. lockstep retries."
        }
        Reason::Timeout => {
            "Check the store and the network, or increase the store's `limits.timeout`. lockstep retries."
        }
        Reason::Malformed => {
            "Check the remote value in the message: `property` requires JSON. Check that the store's address is a server of the provider."
        }
        Reason::Unsupported => "Remove the unsupported part in the message from the spec.",
        Reason::DecryptFailed => {
            "Seal the value again with `lockstep seal`, for this namespace, SyncedSecret, `secretKey` and `ciphertextScope`, with the store's key."
        }
        Reason::KeyUnavailable => {
            "Enable the KMS key, cancel its deletion, or seal the value with another key. For a remote value, enable the version or add a new one."
        }
        Reason::WindowClosed => {
            "Wait for the next window. To write it now, set the annotation `lockstep.dev/rotate-now` of the SyncedSecret to a new value."
        }
        Reason::RolloutUnderWay => {
            "Wait for the end of the rollout. `lockstep status NAME` shows its progress."
        }
        Reason::TooSoon => {
            "Wait until `rotation.rollout.minimumInterval` has passed. If it happens often, check what changes the value at its source."
        }
        Reason::RolledOut | Reason::Progressing => "Nothing. `lockstep status NAME` shows each wave.",
        Reason::TargetMissing => {
            "Correct the name in `rotation.rollout.targets`, or remove the target. A workload that is created later starts with the new value."
        }
        Reason::TargetNotReady => {
            "Check the pods of the target with `kubectl describe` and `kubectl logs`. The rollout continues when the target is ready, or with the next value."
        }
        Reason::TargetPaused => {
            "Run `kubectl rollout resume`, or delete the pods of a target with `OnDelete`."
        }
        Reason::TargetFailing => {
            "Fix the workload; the new value is probably not the cause. The rollout continues when the target is ready."
        }
        Reason::TargetOverwritten => {
            "Configure the tool that writes the pod template to keep the annotation `lockstep.dev/revision.<secret>`. Then set `lockstep.dev/rotate-now` to a new value."
        }
        Reason::RolloutForbidden => {
            "Run the command in the message to bind the ClusterRole `lockstep-rollouts`, or remove `rotation.rollout`. If RBAC allows it, correct the admission webhook, policy or quota that rejects it."
        }
        Reason::VerificationFailed => {
            "Check the Job (`kubectl logs job/NAME`) or the pods of the Service. Then set `lockstep.dev/rotate-now` to a new value to verify again, or write a working value to the source."
        }
        Reason::VerificationBlocked => {
            "Create the object in the message, or correct `rotation.rollout.verify`. The rollout then continues. If the Job was deleted, set `lockstep.dev/rotate-now` to a new value."
        }
        Reason::VerificationForbidden => {
            "Run the command in the message to bind the ClusterRole, or remove `rotation.rollout.verify`."
        }
        Reason::RollingBack => {
            "Wait for the rollback. Check why the target in the message did not become ready, or why its verification failed."
        }
        Reason::RolledBack => {
            "Write a working value to the source. To try the same value again, set `lockstep.dev/rotate-now` to a new value."
        }
        Reason::LeaseIssued => "Nothing. The Secret contains the credential.",
        Reason::LeaseEnds => {
            "Nothing, if the maximum of the lease is near. If a renewal was refused, grant the permission in the message."
        }
        Reason::LeaseRevoked => "Nothing. The credential no longer works.",
        Reason::LeaseLeft => {
            "Revoke the lease with `vault lease revoke`, or let it expire. Grant the permission in the message so that lockstep can revoke the next one."
        }
        Reason::LeaseUnproven => {
            "Nothing, if the fingerprint key was replaced: a new credential is issued before the lease expires. Otherwise find out who writes the status of SyncedSecrets, and revoke the lease with `vault lease revoke`."
        }
        Reason::SourceTooOld => "Rotate the value at its source, or increase `rotation.maxAge`.",
        Reason::DuplicateKey => "Remove one of the two entries, or rename a key with `rewrite`.",
        Reason::InvalidKey => {
            "Rename the key, or use `rewrite`: letters, digits, `-`, `_` and `.`, at most 253 characters."
        }
        Reason::TooLarge => "Split the values into several SyncedSecrets, or make `find` match fewer.",
        Reason::DecodeFailed => "Correct `decodingStrategy` or the value at its source.",
        Reason::RewriteFailed => "Correct the step of `rewrite` in the message.",
        Reason::TemplateFailed => {
            "Correct the template at the position in the message. Test it with `lockstep render`."
        }
        Reason::TargetForeign => {
            "Run the command in the message to hand the Secret over, or use another `target.name`."
        }
        Reason::MergeForbidden => {
            "Run the command in the message. It also lets lockstep read this one Secret. Or use `creationPolicy: Owner` with another Secret."
        }
        Reason::TargetNotDeletable => "Remove the finalizers from the Secret, or delete the Secret yourself.",
        Reason::TargetNotFound => "Create the Secret, or use `creationPolicy: Owner`.",
        Reason::Conflict => {
            "Change `target.name`, delete one of the two SyncedSecrets, or merge different keys. The one that wrote the Secret keeps it; otherwise the older one writes it."
        }
        Reason::WriteFailed => {
            "Check the message for a quota, an admission policy or missing permissions. lockstep retries."
        }
        Reason::NamespaceTerminating => "Nothing. The Secret is deleted with the namespace.",
        Reason::Internal => "Report it with the operator's log. lockstep retries.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_meaning_and_a_remedy() {
        let page = page();
        for reason in Reason::ALL {
            let line = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{reason}` |")));
            let line = line.unwrap_or_else(|| panic!("{reason} is missing"));
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            assert!(cells[2].ends_with('.') && cells[3].ends_with('.'), "{line}");
            assert_eq!(cells.len(), 5, "{line}");
        }
    }
}
