//! The reference of the kinds: fields of specs and statuses, and annotations.

use lockstep_api::annotation;

use super::fields;

/// Explains the entries of the generated sections.
const ENTRIES: &str = "\
Each section below is one object. An entry has the name of the field, its type, whether it is required, its default,
allowed values, and bounds. `[]` stands for each entry of a list, and `.*` for each value of a map.

";

/// The fields of the status of a SyncedSecret, and when each changes.
const CHANGES: &[(&str, &str, &str)] = &[
    (
        "observedGeneration",
        "generation that the status describes",
        "after each change of the spec",
    ),
    (
        "conditions",
        "whether it works, and why not",
        "when a status, reason or message changes",
    ),
    (
        "target",
        "the Secret that was written",
        "when the Secret is written",
    ),
    (
        "versions",
        "earlier Secrets of a versioned target",
        "when a version is added or pruned",
    ),
    (
        "sources",
        "remote values in the Secret, with versions",
        "when the Secret is written, or a version changes",
    ),
    ("sourceCount", "number of remote values", "with `sources`"),
    (
        "handledRefresh",
        "last handled value of `lockstep.dev/refresh`",
        "after the refresh",
    ),
    (
        "rotation",
        "pending change and rollout",
        "at each step of a rotation",
    ),
    (
        "history",
        "the last 10 revisions",
        "when a revision is written or its rollout ends",
    ),
    (
        "lease",
        "leases of issued credentials",
        "before and after each issue, renewal and revocation",
    ),
];

/// Every annotation, label and finalizer: name, object, who sets it, effect.
const ANNOTATIONS: &[(&str, &str, &str, &str)] = &[
    (
        annotation::REFRESH,
        "SyncedSecret",
        "you",
        "each new value forces one refresh",
    ),
    (
        annotation::ROTATE_NOW,
        "SyncedSecret",
        "you",
        "each new value writes a pending change at once, or retries a held rollout",
    ),
    (
        annotation::ADOPT,
        "Secret",
        "you",
        "names the SyncedSecret that may replace its content",
    ),
    (
        annotation::MERGE,
        "Secret",
        "you",
        "names the SyncedSecrets that may merge keys into it",
    ),
    (
        annotation::VERSIONED,
        "workload",
        "you",
        "names the versioned Secrets whose references lockstep may move",
    ),
    (
        annotation::OWNER,
        "Secret",
        "lockstep",
        "names the SyncedSecret that writes it",
    ),
    (
        annotation::CLAIM,
        "Secret",
        "lockstep",
        "on dry runs only: asks whether the Secret belongs to a SyncedSecret",
    ),
    (
        annotation::REVISION,
        "pod template",
        "lockstep",
        "followed by the name of a Secret: the revision that the pods run",
    ),
    (
        annotation::VERIFIES,
        "Job",
        "lockstep",
        "the rollout, wave and attempt that the Job checks",
    ),
    (
        annotation::REVOKE_LEASE,
        "SyncedSecret",
        "lockstep",
        "finalizer: revokes the leases before the object is deleted",
    ),
    (
        annotation::MANAGED_BY_LABEL,
        "Secret, Job",
        "lockstep",
        "label: `--drift-watch` selects Secrets by it",
    ),
];

/// Returns the page `docs/reference/synced-secret.md`.
pub(super) fn synced_secret() -> String {
    format!(
        "# SyncedSecret fields\n\n[Documentation index](../index.md)\n\n\
         Use this page to look up a field of a SyncedSecret. `kubectl explain syncedsecret.spec` prints the same descriptions.\n\
         [Status](status.md) describes the status.\n\n{ENTRIES}{}## Annotations\n\n{}",
        fields::sections("SyncedSecret", "spec"),
        annotations()
    )
}

/// Returns the page `docs/reference/stores.md`.
pub(super) fn stores() -> String {
    format!(
        "# SecretStore and ClusterSecretStore fields\n\n[Documentation index](../index.md)\n\n\
         Use this page to look up a field of a store. Both kinds have these fields. A ClusterSecretStore also has\n\
         `access`, which grants keys to namespaces. `kubectl explain clustersecretstore.spec` prints the same descriptions.\n\
         [Status](status.md#stores) describes the status.\n\n{ENTRIES}{}",
        fields::sections("ClusterSecretStore", "spec")
    )
}

/// Returns the page `docs/reference/status.md`.
pub(super) fn status() -> String {
    let rows = CHANGES
        .iter()
        .map(|(field, meaning, when)| format!("| `{field}` | {meaning} | {when} |\n"));
    format!(
        "# Status\n\n[Documentation index](../index.md)\n\n\
         Use this page to read the status of a SyncedSecret or a store, or to write a check for it:\n\n    \
         kubectl wait syncedsecret/NAME --for=condition=Ready\n    \
         kubectl get syncedsecret NAME -o jsonpath='{{.status.target.revision}}'\n\n\
         lockstep writes the status only when it changes, and only lockstep may write it. It contains no value.\n\
         [Reasons](reasons.md) describes the reasons of conditions.\n\n\
         | field of a SyncedSecret | meaning | changes |\n|---|---|---|\n{}\n{ENTRIES}{}## Stores\n\n\
         A SecretStore and a ClusterSecretStore have these fields in `status`:\n\n{}",
        rows.collect::<String>(),
        fields::sections("SyncedSecret", "status"),
        fields::sections("SecretStore", "status")
            .replace("## `status", "### Store: `status")
            .replace("(#status", "(#store-status")
    )
}

fn annotations() -> String {
    let rows = ANNOTATIONS
        .iter()
        .map(|(name, object, who, effect)| format!("| `{name}` | {object} | {who} | {effect} |\n"));
    format!(
        "| name | on | set by | effect |\n|---|---|---|---|\n{}",
        rows.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_lists_every_field_of_the_status() {
        let listed: Vec<_> = CHANGES.iter().map(|(field, ..)| (*field).to_owned()).collect();
        let mut expected = fields::names("SyncedSecret", "status");
        let mut sorted = listed;
        sorted.sort();
        expected.sort();
        assert_eq!(sorted, expected);
    }

    #[test]
    fn table_lists_every_annotation() {
        let source = include_str!("../../../lockstep-api/src/annotation.rs");
        let names = source.matches("pub const ").count();
        // MANAGER is a value, not a name
        assert_eq!(ANNOTATIONS.len(), names - 1);
    }
}
