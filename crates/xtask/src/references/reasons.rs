//! The page of the reasons: what stands in conditions, events and metrics, and what to do.

use std::fmt::Write as _;

use lockstep_api::Reason;

const INTRODUCTION: &str = "\
# Reasons

[Documentation index](../index.md)

The condition `Ready` of a SyncedSecret or store carries one of these reasons. Events and the metric
`lockstep_reconcile_duration_seconds` use the same words. The message of the condition names the entry, the key and the store.

While `Ready` is false, `Reconciling` means that lockstep retries by itself. `Stalled` means that someone must change
something. lockstep then retries immediately after a change, and at long intervals without one.

A sync that fails leaves the Secret as it was: never half a Secret.

| reason | meaning | what to do |
|---|---|---|
";

/// The page `docs/reference/reasons.md`.
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

/// What somebody who reads the reason does next.
const fn remedy(reason: Reason) -> &'static str {
    match reason {
        Reason::Synced | Reason::StoreReady => "Nothing.",
        Reason::Suspended => "Take `suspend` away when values shall be read again.",
        Reason::InvalidSpec => "Change the field that the message names.",
        Reason::StoreNotFound => {
            "Create the store, or correct `secretStoreRef`: a SecretStore is looked for in the namespace of the SyncedSecret."
        }
        Reason::AccessDenied => {
            "Ask whoever administrates the ClusterSecretStore for an entry of `access` with this namespace and key; with no entry nobody may use it."
        }
        Reason::ConfigInvalid => "Change the field of the store that the message names.",
        Reason::CredentialsUnavailable => {
            "Create what the store's `auth` names, or grant lockstep the right; the message holds the command."
        }
        Reason::Unauthenticated => {
            "Check the role, its bound ServiceAccount and audience, or whether the token was revoked. lockstep logs in again by itself."
        }
        Reason::PermissionDenied => "Let the store's role read the key; the message says which path.",
        Reason::SourceNotFound => {
            "Write the value to the store, correct `remoteRef`, or set `optional` if the key may be missing."
        }
        Reason::SourceDeleted => "Write the value to the store again, or delete the SyncedSecret.",
        Reason::RateLimited => {
            "Nothing at once: lockstep waits as long as the store asks. If it stays, lower the store's `limits` or read less often."
        }
        Reason::Unavailable => {
            "Look at the store: is it sealed, away, or behind a network policy? lockstep tries again by itself."
        }
        Reason::Timeout => {
            "Look at the store and at the way to it; `limits.timeout` is the time that it has. lockstep tries again by itself."
        }
        Reason::Malformed => {
            "Look at the remote value that the message names: a `property` needs JSON, and an address needs a server that speaks the provider's API."
        }
        Reason::Unsupported => "Use what the provider can do: the message says what it cannot.",
        Reason::DecryptFailed => {
            "Seal the value again with `lockstep seal`, for this namespace, SyncedSecret, `secretKey` and `ciphertextScope`, and with the key that the store names."
        }
        Reason::KeyUnavailable => {
            "Enable the key of the KMS again, cancel its deletion, or seal the value with another key; enable the version of the remote key, or write a new one."
        }
        Reason::WindowClosed => {
            "Nothing: it is written when the next window opens. To let it in now, give the annotation `lockstep.dev/rotate-now` of the SyncedSecret a new value."
        }
        Reason::RolloutUnderWay => {
            "Nothing: it is written when the rollout is over. `lockstep status NAME` shows how far that is."
        }
        Reason::TooSoon => {
            "Nothing: it is written when `rotation.rollout.minimumInterval` has passed. If that happens often, look at what changes the value at its source."
        }
        Reason::RolledOut | Reason::Progressing => "Nothing. `lockstep status NAME` shows it wave by wave.",
        Reason::TargetMissing => {
            "Correct the name in `rotation.rollout.targets`, or leave the target out; a workload that is created later has the new value from its beginning."
        }
        Reason::TargetNotReady => {
            "Look at the pods of the target: `kubectl describe`, `kubectl logs`. The rollout goes on by itself when it is ready, and with the next value of the source."
        }
        Reason::TargetPaused => "Resume it: `kubectl rollout resume`.",
        Reason::TargetFailing => {
            "It was not ready before its restart either, so the new value is hardly why: mend the workload, and the rollout goes on."
        }
        Reason::TargetOverwritten => {
            "Whatever writes the pod template has to leave the annotation `lockstep.dev/revision.<secret>` alone. Then give `lockstep.dev/rotate-now` a new value."
        }
        Reason::RolloutForbidden => {
            "Bind the ClusterRole `lockstep-rollouts` in the namespace, as the message says, or leave `rotation.rollout` out. If the message says that RBAC lets it pass: have the admission webhook, the policy or the quota let it pass too."
        }
        Reason::VerificationFailed => {
            "Look at what the message names: `kubectl logs job/NAME` for a Job, the pods of the Service for a request. Then give `lockstep.dev/rotate-now` a new value, which has the wave verified again, or give the source a value that works."
        }
        Reason::VerificationBlocked => {
            "Create what the message names, or correct `rotation.rollout.verify`; the rollout goes on by itself."
        }
        Reason::VerificationForbidden => {
            "Bind the ClusterRole that the message names in the namespace, as it says, or leave `rotation.rollout.verify` out."
        }
        Reason::RollingBack => {
            "Nothing: the previous value comes back. Meanwhile look at why the target that the message names did not become ready, or its check failed."
        }
        Reason::RolledBack => {
            "Give the source a value that works: it is rolled out as soon as it is there. To try the same value again, give `lockstep.dev/rotate-now` a new value."
        }
        Reason::LeaseIssued => "Nothing: it says that the Secret holds a credential of its own.",
        Reason::LeaseEnds => {
            "Nothing, if the message says that the maximum of the lease is near. If a renewal was refused, grant what the message names."
        }
        Reason::LeaseRevoked => "Nothing: the credential that it was of no longer works.",
        Reason::LeaseLeft => {
            "Revoke the lease yourself (`vault lease revoke`), or let it expire; grant what the message names, so that the next one can be revoked."
        }
        Reason::LeaseUnproven => {
            "Nothing, if the fingerprint key was replaced: another credential is made before the lease ends. Otherwise find out who writes the status of SyncedSecrets, and revoke the lease yourself if it is yours."
        }
        Reason::SourceTooOld => {
            "Rotate the value at its source, or raise `rotation.maxAge`; lockstep reads and never rotates."
        }
        Reason::DuplicateKey => "Leave one of the two entries out, or rename a key with `rewrite`.",
        Reason::InvalidKey => {
            "Rename the key: letters, digits, `-`, `_` and `.`, at most 253 characters. `rewrite` does so for many."
        }
        Reason::TooLarge => "Spread the values over several SyncedSecrets, or let `find` match fewer.",
        Reason::DecodeFailed => {
            "Correct `decodingStrategy`, or the value at the source; `Auto` takes both forms."
        }
        Reason::RewriteFailed => "Correct the rule of `rewrite` that the message names.",
        Reason::TemplateFailed => {
            "Correct the template at the position that the message names; `lockstep render` shows the result without a cluster."
        }
        Reason::TargetForeign => {
            "Hand the Secret over with the annotation `lockstep.dev/adopt`, or choose another `target.name`; the message holds the command."
        }
        Reason::MergeForbidden => {
            "Run the command in the message. It grants lockstep `patch` on that one Secret, which is also read access to it; or use `creationPolicy: Owner` with a Secret of its own."
        }
        Reason::TargetNotDeletable => "Remove the finalizers from the Secret, or delete it yourself.",
        Reason::TargetNotFound => "Create the Secret that is merged into, or use `creationPolicy: Owner`.",
        Reason::Conflict => {
            "Rename one target, delete one of the two SyncedSecrets, or merge different keys: the one that wrote the Secret keeps it, and before that the older one wins."
        }
        Reason::WriteFailed => {
            "Read the message: a quota, another admission policy or missing rights. lockstep tries again by itself."
        }
        Reason::NamespaceTerminating => "Nothing: the namespace and all in it are going.",
        Reason::Internal => {
            "Please report it, with the log of that time. lockstep tries again after a while."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_says_what_it_means_and_what_to_do() {
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
