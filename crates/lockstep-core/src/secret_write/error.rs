//! The error of a failed write of a Secret, and its message for the user.

use lockstep_api::{Reason, annotation};

use super::WriteFailure;
use crate::{
    Failure,
    owner::Owner,
    remote::Requeue,
    text::{self, shell_quote},
};

/// Why a Secret was not written, probed or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteError {
    /// The Secret exists and belongs to someone else.
    Foreign,
    /// The Secret exists, is immutable or has another type, and does not belong to this SyncedSecret.
    NotAdoptable,
    /// The Secret exists, and no proven admission policy decides whether it may be replaced.
    Unproven,
    /// The Secret changed between two requests.
    Raced,
    /// The Secret has finalizers or is being deleted, so it is not deleted.
    NotDeletable,
    /// The Secret is immutable and was changed since lockstep wrote it, so it is not deleted.
    Changed,
    /// The Secret to merge into does not exist.
    Missing,
    /// lockstep may not patch the Secret to merge into. Contains the kubectl option that names the
    /// account of lockstep.
    MergeForbidden(String),
    /// The Secret to merge into does not list this SyncedSecret.
    MergeNotListed,
    /// The Secret to merge into is owned by the SyncedSecret with this name, which may be this one.
    MergeOwned(String),
    /// Someone else writes the same keys, labels or annotations. Contains each of them with its
    /// manager.
    MergeConflict(Vec<(String, String)>),
    /// The name of the SyncedSecret is too long for a field manager. Contains the maximum length.
    MergeNameTooLong(usize),
    /// A field cannot be changed.
    Immutable,
    /// The namespace is being deleted or does not exist.
    NamespaceTerminating,
    /// The Secret or the request is too large.
    TooLarge,
    /// Any other error, without text of the server.
    Other {
        /// What happened.
        what: String,
        /// Whether a retry can help.
        transient: bool,
    },
}

impl From<WriteFailure<Self>> for WriteError {
    fn from(failure: WriteFailure<Self>) -> Self {
        match failure {
            WriteFailure::Foreign => Self::Foreign,
            WriteFailure::NotAdoptable => Self::NotAdoptable,
            WriteFailure::Unproven => Self::Unproven,
            WriteFailure::Raced => Self::Raced,
            WriteFailure::Changed => Self::Changed,
            WriteFailure::Api(error) => error,
        }
    }
}

impl WriteError {
    /// Returns the label in metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Foreign
            | Self::NotAdoptable
            | Self::Unproven
            | Self::MergeNotListed
            | Self::MergeOwned(_) => "foreign",
            Self::Missing => "missing",
            Self::Immutable => "immutable",
            Self::NotDeletable | Self::Changed => "not_deletable",
            Self::MergeForbidden(_) => "forbidden",
            Self::MergeConflict(_) => "conflict",
            Self::NamespaceTerminating => "namespace_terminating",
            Self::TooLarge => "too_large",
            Self::Raced | Self::MergeNameTooLong(_) | Self::Other { .. } => "error",
        }
    }

    /// Whether a retry can help.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Raced | Self::Other { transient: true, .. })
    }

    /// Whether the Secret belongs to someone else.
    pub const fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign | Self::NotAdoptable | Self::Unproven)
    }

    /// Returns the failure with the message for the user.
    pub fn failure(&self, owner: &Owner<'_>) -> Failure {
        let Owner {
            target,
            name,
            namespace,
            ..
        } = owner;
        match self {
            Self::Foreign => Failure::new(
                Reason::TargetForeign,
                format!(
                    "Secret \"{target}\" already exists and was not created by lockstep. To let this SyncedSecret replace its content: {}",
                    annotate(owner, annotation::ADOPT)
                ),
            ),
            Self::NotAdoptable => Failure::new(
                Reason::TargetForeign,
                format!(
                    "Secret \"{target}\" already exists and cannot be adopted: it is immutable or has another type. Delete it, or set target.name to another name"
                ),
            ),
            Self::Unproven => Failure::new(
                Reason::TargetForeign,
                format!(
                    "Secret \"{target}\" already exists, and the admission policy lockstep-secrets, which decides whether lockstep may replace it, is not enforced in namespace \"{namespace}\". Enforce the policy there, or delete the Secret"
                ),
            ),
            Self::Raced => Failure::new(
                Reason::WriteFailed,
                format!("Secret \"{target}\" was changed by someone else at the same time"),
            )
            .requeued(Requeue::Backoff),
            Self::NotDeletable => Failure::new(
                Reason::TargetNotDeletable,
                format!(
                    "Secret \"{target}\" has finalizers or is being deleted, so lockstep does not delete or change it. Remove its finalizers, or delete it yourself"
                ),
            )
            .requeued(Requeue::Backoff),
            Self::Changed => Failure::new(
                Reason::TargetNotDeletable,
                format!(
                    "Secret \"{target}\" is immutable and was changed by someone else, so lockstep cannot tell whether another SyncedSecret owns the Secret, and does not delete it. Delete the Secret yourself"
                ),
            )
            .requeued(Requeue::Backoff),
            Self::Missing => Failure::new(
                Reason::TargetNotFound,
                format!("Secret \"{target}\" does not exist, and creationPolicy: Merge only writes to an existing Secret"),
            ),
            Self::MergeForbidden(account) => Failure::new(
                Reason::MergeForbidden,
                format!(
                    "lockstep may not patch Secret \"{target}\" in namespace \"{namespace}\", which creationPolicy: Merge needs. The grant also lets lockstep read this one Secret. Run: {}",
                    grant(owner, account)
                ),
            ),
            Self::MergeOwned(owned_by) => Failure::new(
                Reason::TargetForeign,
                format!(
                    "Secret \"{target}\" is owned by SyncedSecret \"{}\", which overwrites all its data. Kubernetes deletes the Secret when that owner is deleted. creationPolicy: Merge requires a Secret that no SyncedSecret owns. To remove the owner, run: {}",
                    text::escape(owned_by),
                    disown(owner)
                ),
            ),
            Self::MergeNotListed => Failure::new(
                Reason::TargetForeign,
                format!(
                    "Secret \"{target}\" does not list SyncedSecret \"{name}\" in its annotation {}, which holds names separated by commas. If it is the only one, run: {}",
                    annotation::MERGE,
                    annotate(owner, annotation::MERGE)
                ),
            ),
            Self::MergeConflict(keys) => {
                let keys: Vec<_> = keys
                    .iter()
                    .take(4)
                    .map(|(what, other)| format!("{what} is already written by {other}"))
                    .collect();
                Failure::new(
                    Reason::Conflict,
                    format!(
                        "Secret \"{target}\": {}, and SyncedSecret \"{name}\" writes it too. Remove it from one of the two",
                        keys.join(", ")
                    ),
                )
            }
            Self::MergeNameTooLong(longest) => Failure::new(
                Reason::InvalidSpec,
                format!(
                    "metadata.name: {} characters are too many for creationPolicy: Merge. Use at most {longest}",
                    name.len()
                ),
            ),
            Self::Immutable => Failure::new(
                Reason::WriteFailed,
                format!("Secret \"{target}\" has a field that cannot be changed, and replacing the Secret failed"),
            )
            .requeued(Requeue::Backoff),
            Self::NamespaceTerminating => Failure::new(
                Reason::NamespaceTerminating,
                format!("namespace \"{namespace}\" is being deleted"),
            ),
            Self::TooLarge => Failure::new(
                Reason::TooLarge,
                format!("Secret \"{target}\" is too large for the API server. Write fewer or smaller keys"),
            ),
            Self::Other { what, transient } => {
                let failure = Failure::new(
                    Reason::WriteFailed,
                    format!("Secret \"{target}\" could not be written: {what}"),
                );
                if *transient {
                    failure.requeued(Requeue::Backoff)
                } else {
                    failure
                }
            }
        }
    }
}

/// Returns the command that writes the name of the SyncedSecret to an annotation of the Secret.
fn annotate(owner: &Owner<'_>, annotation: &str) -> String {
    let quoted = [owner.target, owner.namespace, owner.name].map(shell_quote);
    let [target, namespace, name] = quoted;
    format!("kubectl annotate secret {target} -n {namespace} {annotation}={name}")
}

/// Returns the command that removes what makes a SyncedSecret the owner of the Secret.
fn disown(owner: &Owner<'_>) -> String {
    let [target, namespace] = [owner.target, owner.namespace].map(shell_quote);
    format!(
        "kubectl patch secret {target} -n {namespace} --type=merge -p '{{\"metadata\":{{\"annotations\":{{\"{}\":null}},\"ownerReferences\":null}}}}'",
        annotation::OWNER
    )
}

/// Returns the commands that grant `patch` on the Secret to the account in the kubectl option.
fn grant(owner: &Owner<'_>, account: &str) -> String {
    let role = shell_quote(&format!("lockstep-merge-{}", owner.target));
    let [target, namespace] = [owner.target, owner.namespace].map(shell_quote);
    format!(
        "kubectl create role {role} -n {namespace} --verb=patch --resource=secrets --resource-name={target} && kubectl create rolebinding {role} -n {namespace} --role={role} {account}"
    )
}
