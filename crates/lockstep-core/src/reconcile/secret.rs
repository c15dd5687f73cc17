//! Writes, merges, probes and deletes the Secret. The requests return no content.

use std::sync::Arc;

use lockstep_api::{CreationPolicy, DeletionPolicy, TargetStatus};

use super::{
    effect::{MergeSecret, Record, SecretRequest},
    run::Run,
};
use crate::{
    Failure,
    assemble::DesiredSecret,
    revision::Revision,
    secret_write::{self, Answer, Drift, Request, SecretIdentity, SecretWrite, Step, WriteError},
};

/// Maximum number of attempts to write an immutable Secret while someone deletes it in between.
const MAX_SEAL_ATTEMPTS: u32 = 4;

/// Returns the error of an answer that is not a success.
fn refused(answer: Answer<WriteError>) -> WriteError {
    match answer {
        Answer::Failed(error) => error,
        Answer::Denied | Answer::Unguarded => WriteError::Foreign,
        Answer::Immutable => WriteError::Immutable,
        Answer::NotFound => WriteError::Missing,
        Answer::AlreadyExists | Answer::Conflict | Answer::Written(_) | Answer::Deleted => WriteError::Raced,
    }
}

impl Run {
    async fn request(&self, name: &str, request: Request) -> Answer<WriteError> {
        let request = SecretRequest {
            name: name.to_owned(),
            desired: None,
            request,
        };
        self.effects.request_secret(request).await
    }

    /// Writes the Secret. An immutable Secret is written twice, and its uid is recorded in between.
    /// Otherwise, after a crash, it could not be changed, and nothing would show that this
    /// SyncedSecret owns it.
    pub(super) async fn write(
        &mut self,
        secret: DesiredSecret,
        fingerprint: String,
        revision: Revision,
    ) -> Result<TargetStatus, Failure> {
        self.check_may_write()?;
        self.memory.begin_write();
        let secret = Arc::new(secret);
        let versioned = self.facts.object.spec.target.versioned;
        let source_hash = self.source_hash();
        let target = |identity: SecretIdentity| TargetStatus {
            source_hash: source_hash.clone(),
            name: secret.name.clone(),
            uid: identity.uid,
            resource_version: identity.resource_version,
            revision: revision.name.clone(),
            revision_hash: revision.hash.clone(),
            key_id: Some(revision.key_id.clone()),
            fingerprint: fingerprint.clone(),
            versioned,
            merged: secret.creation_policy == CreationPolicy::Merge,
            generation: None,
            last_change_time: None,
        };
        let identity = if secret.creation_policy == CreationPolicy::Merge {
            self.merge(&secret).await?
        } else {
            let mut recorded = secret_write::recorded(self.status.as_deref(), &secret.name);
            let mut attempts = 0;
            loop {
                let done = self.write_owned(&secret, recorded).await?;
                if done.sealed {
                    break done.identity;
                }
                attempts += 1;
                if attempts >= MAX_SEAL_ATTEMPTS {
                    return Err(self.not_written(&secret.name, &WriteError::Raced));
                }
                let unsealed = TargetStatus {
                    fingerprint: String::new(),
                    ..target(done.identity.clone())
                };
                self.record_target(unsealed).await?;
                recorded = Some(done.identity);
            }
        };
        self.note_probed();
        Ok(target(identity))
    }

    async fn write_owned(
        &mut self,
        secret: &Arc<DesiredSecret>,
        recorded: Option<SecretIdentity>,
    ) -> Result<secret_write::Done, Failure> {
        let proven = self.moment().policy_proven;
        let (mut write, mut request) = SecretWrite::start(recorded, secret.immutable, proven);
        let written = loop {
            let next = SecretRequest {
                name: secret.name.clone(),
                desired: Some(secret.clone()),
                request,
            };
            match write.resume(self.effects.request_secret(next).await) {
                Step::Send(next) => request = next,
                Step::Done(done) => break Ok(done),
                Step::Failed(failure) => break Err(WriteError::from(failure)),
            }
        };
        self.count_write(written.as_ref().map(|done| done.how.label()))
            .await;
        written.map_err(|error| self.not_written(&secret.name, &error))
    }

    async fn merge(&mut self, secret: &Arc<DesiredSecret>) -> Result<SecretIdentity, Failure> {
        let merged = self
            .effects
            .merge_secret(MergeSecret {
                secret: secret.clone(),
                merged_before: self.merged_before(&secret.name),
            })
            .await;
        self.count_write(merged.as_ref().map(|_| "merged")).await;
        merged.map_err(|error| self.not_written(&secret.name, &error))
    }

    /// Returns the uid of the Secret that the current spec was merged into before.
    fn merged_before(&self, name: &str) -> Option<String> {
        let known = self.known_target()?;
        let is_same = known.merged && known.name == name && known.generation == Some(self.facts.generation());
        is_same.then_some(known.uid)
    }

    fn not_written(&mut self, name: &str, error: &WriteError) -> Failure {
        if error.is_foreign() {
            self.memory.drifted();
        }
        error.failure(&self.facts.owner_of(name))
    }

    async fn count_write(&self, outcome: Result<&'static str, &WriteError>) {
        let label = outcome.unwrap_or_else(WriteError::label);
        self.record(Record::SecretWrite(label)).await;
    }

    /// Whether the Secret is as it was recorded: a dry-run deletion with the recorded identity as
    /// precondition. A Secret that keys were merged into is patched with nothing instead, because
    /// lockstep may not delete it.
    pub(super) async fn find_drift(&self, name: &str, recorded: &TargetStatus) -> Result<Drift, WriteError> {
        if self.facts.object.spec.target.creation_policy == CreationPolicy::Merge {
            return match self.effects.find_merged(name.to_owned()).await {
                Ok(found)
                    if found.uid == recorded.uid && found.resource_version == recorded.resource_version =>
                {
                    Ok(Drift::None)
                }
                Ok(_) => Ok(Drift::Edited),
                Err(WriteError::Missing) => Ok(Drift::Gone),
                Err(error) => Err(error),
            };
        }
        let Some(identity) = SecretIdentity::recorded(recorded) else {
            return Ok(Drift::Gone);
        };
        match self.request(name, Request::Probe(identity)).await {
            Answer::Deleted => Ok(Drift::None),
            Answer::Conflict => Ok(Drift::Edited),
            Answer::NotFound => Ok(Drift::Gone),
            answer => Err(refused(answer)),
        }
    }

    /// Deletes what this SyncedSecret wrote, because every source is gone. Only a Secret whose uid
    /// is in the status is deleted. Returns whether the Secret belongs to someone else now, and was
    /// left alone.
    pub(super) async fn remove(&mut self) -> Result<bool, Failure> {
        debug_assert_eq!(
            self.facts.object.spec.target.deletion_policy,
            DeletionPolicy::Delete
        );
        self.check_may_write()?;
        let known = self.known_target();
        let merges = self.facts.object.spec.target.creation_policy == CreationPolicy::Merge;
        let merged = known.filter(|known| known.merged || merges);
        let name = match &merged {
            Some(merged) if merged.merged => merged.name.clone(),
            _ => self.facts.target_name().to_owned(),
        };
        let removed = if merged.is_some() {
            // the Secret belongs to someone else, so only this SyncedSecret's keys are removed
            self.remove_merged(&name).await
        } else {
            let Some(recorded) = secret_write::recorded(self.status.as_deref(), &name) else {
                return Ok(false);
            };
            self.delete_secret(&name, recorded).await
        };
        self.count_write(removed.as_ref().map(|()| "deleted")).await;
        match removed {
            Ok(()) => Ok(false),
            Err(WriteError::Foreign) if merged.is_none() => Ok(true),
            Err(error) => Err(error.failure(&self.facts.owner_of(&name))),
        }
    }

    /// Removes the keys of this SyncedSecret from a Secret of someone else.
    async fn remove_merged(&self, name: &str) -> Result<(), WriteError> {
        let nothing = Arc::new(DesiredSecret::nothing(name));
        let nothing = MergeSecret {
            secret: nothing,
            merged_before: None,
        };
        match self.effects.merge_secret(nothing).await {
            Ok(_) | Err(WriteError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what this SyncedSecret wrote under an earlier name: the Secret, or its keys in it.
    pub(super) async fn remove_renamed(&self, old: &TargetStatus) -> Result<(), Failure> {
        let removed = if old.merged {
            self.remove_merged(&old.name).await
        } else if self.facts.object.spec.target.creation_policy == CreationPolicy::Owner {
            self.delete_recorded(old).await
        } else {
            Ok(())
        };
        match removed {
            // it belongs to someone else, so lockstep leaves it alone
            Ok(())
            | Err(WriteError::Foreign | WriteError::MergeNotListed | WriteError::MergeForbidden(_)) => Ok(()),
            Err(error) => Err(error.failure(&self.facts.owner_of(&old.name))),
        }
    }

    /// Deletes a recorded Secret by its uid. The Secret of a revision is recorded before it is
    /// written; it is deleted by its name, which no other SyncedSecret uses.
    pub(super) async fn delete_recorded(&self, recorded: &TargetStatus) -> Result<(), WriteError> {
        if recorded.merged {
            return Ok(());
        }
        match SecretIdentity::recorded(recorded) {
            Some(identity) => self.delete_secret(&recorded.name, identity).await,
            None if recorded.versioned => self.delete_intended(&recorded.name).await,
            // a Secret of this name may be older: one that an earlier SyncedSecret left, for example
            None => Ok(()),
        }
    }

    /// Deletes the recorded Secret if it still belongs to this SyncedSecret. Another Secret of that
    /// name is left alone: the error is `Foreign`.
    ///
    /// The policy lets a deletion of any Secret of lockstep pass, and someone may have handed the
    /// Secret over to another SyncedSecret. A claim tells them apart. An immutable Secret cannot be
    /// claimed, so it is deleted only if it is as recorded.
    async fn delete_secret(&self, name: &str, recorded: SecretIdentity) -> Result<(), WriteError> {
        if self.moment().policy_proven {
            match self.request(name, Request::Claim).await {
                Answer::Written(found) if found.uid != recorded.uid => return Err(WriteError::Foreign),
                Answer::Written(found) => return self.delete_exactly(name, found, WriteError::Raced).await,
                Answer::Immutable => {}
                Answer::Denied => return Err(WriteError::Foreign),
                Answer::NotFound | Answer::Failed(WriteError::NotDeletable) => return Ok(()),
                answer => return Err(refused(answer)),
            }
        }
        self.delete_exactly(name, recorded, WriteError::Changed).await
    }

    /// Deletes the Secret as it is known. If someone changed it since, the error is `changed`.
    async fn delete_exactly(
        &self,
        name: &str,
        known: SecretIdentity,
        changed: WriteError,
    ) -> Result<(), WriteError> {
        match self.request(name, Request::Delete(known)).await {
            Answer::Deleted | Answer::NotFound => Ok(()),
            Answer::Conflict => Err(changed),
            answer => Err(refused(answer)),
        }
    }

    /// Deletes the Secret that the status recorded by name before it was written, if it exists and
    /// is this SyncedSecret's: the process may have ended before its uid was recorded.
    async fn delete_intended(&self, name: &str) -> Result<(), WriteError> {
        if !self.moment().policy_proven {
            return Ok(());
        }
        // a claim shows something only where the policy is enforced for this very Secret
        match self.request(name, Request::Prove).await {
            Answer::Denied => {}
            Answer::Failed(error) => return Err(error),
            _ => return Ok(()),
        }
        match self.request(name, Request::Claim).await {
            Answer::Written(identity) => self.delete_exactly(name, identity, WriteError::Raced).await,
            // gone, or someone else's: one of this SyncedSecret's could be claimed, because it is not
            // immutable before its uid is recorded
            Answer::NotFound
            | Answer::Denied
            | Answer::Immutable
            | Answer::Failed(WriteError::NotDeletable) => Ok(()),
            answer => Err(refused(answer)),
        }
    }
}
