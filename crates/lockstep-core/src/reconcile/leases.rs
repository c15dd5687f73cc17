//! Issues, renews and revokes the credentials of the object, and manages the finalizer that keeps
//! it until they are revoked. [`crate::lease`] decides what is due and how failures are handled.

use std::time::Duration;

use lockstep_api::{Lease, LeaseStatus, Reason, StoreRef, annotation};

use super::{
    effect::{LeasePolicy, Notice, Record, Severity},
    run::Run,
    status::StatusWrite,
};
use crate::{
    Failure,
    collect::Generated,
    lease::{self, Action, Generation},
    plan,
    remote::{ErrorKind, LeaseHandle, Location, Operation, ProviderError, Requeue},
    report::{self, Outcome},
};

/// Maximum size of a credential, which stays in memory until its lease ends.
const MAX_CREDENTIAL_BYTES: usize = 32 * 1024;

/// The outcome of a lease action.
const LEASE: &str = "lease";

impl Run {
    /// Issues a credential, records its lease in the status, and keeps its fields in memory.
    ///
    /// # Errors
    /// When the store or the write of the status fails. A credential issued by then is recorded and
    /// will be revoked.
    pub(super) async fn issue(&mut self, generation: &Generation) -> Result<Generated, Failure> {
        self.check_may_write()?;
        lease::check_room(self.leases())?;
        let Generation {
            entry,
            store,
            request,
        } = generation;
        let failed = |error: ProviderError| Failure::provider(&format!("{entry}: {store}"), &error);
        let support = self.effects.lease_support(store.clone()).await.map_err(failed)?;
        if !support.leases {
            let message = format!("a store of provider {} makes no credentials", support.provider);
            let unsupported = ProviderError::new(ErrorKind::Unsupported, Operation::Mint, message);
            return Err(failed(unsupported));
        }
        self.prove_policy().await?;
        self.add_finalizer().await?;
        let token = self.effects.issue_token((store.clone(), request.clone())).await;
        if let Err(error) = &token {
            self.count("mint", Some(error.kind)).await;
        }
        let token = token.map_err(failed)?;
        // a token with an invalid accessor is not used and expires
        lease::check_accessor(&token.accessor)?;
        let issuer = self.facts.issuer();
        let intent = lease::intend(self.leases(), generation, &token, &issuer, self.moment().steady);
        if let Err(failure) = self.record_leases(Some(intent.clone())).await {
            // it issued nothing; if this fails too, it expires
            let unused = LeaseHandle {
                server: token.server,
                accessor: token.accessor,
                id: None,
            };
            let _ = self.effects.revoke_lease((store.clone(), unused)).await;
            return Err(failure);
        }
        let (asked, accessor) = (self.moment().steady, token.accessor.clone());
        let issued = self
            .effects
            .issue_credential((store.clone(), token, request.clone()))
            .await;
        self.count("mint", issued.as_ref().err().map(|error| error.kind))
            .await;
        // Without an answer of the server itself, it may still issue the credential. Other errors can
        // come from a gateway in front of it.
        let error = issued.as_ref().err().map(|error| error.kind);
        let is_answered = error.is_none_or(|kind| kind == ErrorKind::ConfigInvalid);
        if is_answered {
            self.memory.lease_retries.answered(&accessor);
        }
        let issued = issued.map_err(failed)?;
        // the intent stays, so the credential is revoked
        if issued.value.len() > MAX_CREDENTIAL_BYTES {
            let message = format!(
                "{entry}: {store} issued a credential of {} bytes. At most {MAX_CREDENTIAL_BYTES} are allowed",
                issued.value.len()
            );
            return Err(Failure::new(Reason::TooLarge, message));
        }
        if let Some(id) = &issued.id {
            lease::check_id(id, request.path.as_str())?;
        }
        let name = lease::request_name(generation);
        let recorded = lease::minted(&intent, name, &issued, &self.facts.issuer(), asked);
        self.record_leases(Some(recorded.clone())).await?;
        let Some(lease) = recorded.minted else {
            let message = "the status lost the intent of a credential";
            return Err(Failure::new(Reason::Internal, message));
        };
        self.memory.credential = Some((lease.id.clone(), issued.value.clone()));
        self.record(Record::CredentialIssued(lease.id.clone())).await;
        Ok(Generated {
            lease: lease.id,
            issued: lease.issued_time,
            value: Some(issued.value),
        })
    }

    /// Writes the leases to the status, so that the next step survives a restart.
    async fn record_leases(&mut self, leases: Option<LeaseStatus>) -> Result<(), Failure> {
        if self.report(Outcome::Leased(leases)).await == StatusWrite::Persisted {
            return Ok(());
        }
        let message = "the lease could not be recorded in the status, so no credential is used";
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }

    /// Runs the lease action that is due.
    pub(super) async fn run_lease_action(&mut self, action: Action) -> &'static str {
        let Some(leases) = self.leases().cloned() else {
            return self.release().await;
        };
        let next = match &action {
            Action::Release => return self.release().await,
            Action::Disown => Ok(Some(self.disowned(&leases).await)),
            Action::Forget(accessor) => Ok(lease::revoked(&leases, accessor)),
            Action::Renew(accessor) => self.renew(&leases, accessor).await,
            Action::Revoke(accessor) => self.revoke(&leases, accessor).await,
        };
        let gone = match next {
            Ok(next) => {
                if self.report(Outcome::Leased(next)).await == StatusWrite::Persisted {
                    self.memory.lease_retries.done(&action);
                    return LEASE;
                }
                // the result is not recorded, so the action is repeated, but not at once
                false
            }
            Err(kind) => matches!(
                kind,
                ErrorKind::ConfigInvalid | ErrorKind::CredentialsUnavailable | ErrorKind::Unauthenticated
            ),
        };
        self.retry_later(&action, gone);
        LEASE
    }

    fn retry_later(&mut self, action: &Action, gone: bool) {
        let now = self.moment().steady;
        self.memory
            .lease_retries
            .failed(action, gone, &self.facts.uid, now);
    }

    /// Returns the leases, with those without a valid MAC marked as left to expire.
    async fn disowned(&self, leases: &LeaseStatus) -> LeaseStatus {
        let message = "status.lease contains a lease without a valid MAC: it is neither renewed nor revoked";
        self.record(Record::Warning(message.to_owned())).await;
        lease::disowned(leases, &self.facts.issuer(), self.moment().steady)
    }

    async fn renew(&self, leases: &LeaseStatus, accessor: &str) -> Result<Option<LeaseStatus>, ErrorKind> {
        let Some(held) = lease::find(leases, accessor) else {
            return Ok(Some(leases.clone()));
        };
        if !self.facts.issuer().is_own(held) {
            return Ok(Some(self.disowned(leases).await));
        }
        let wanted = Duration::from_secs(u64::try_from(held.duration_seconds).unwrap_or(0));
        let asked = self.moment().steady;
        let renewed = match self.granted_store(held, Operation::RenewLease) {
            Ok(store) => self.effects.renew_lease((store, handle(held), wanted)).await,
            Err(error) => Err(error),
        };
        self.count("renew", renewed.as_ref().err().map(|error| error.kind))
            .await;
        match renewed {
            Ok(given) => Ok(Some(lease::renewed(leases, accessor, given, asked))),
            Err(error) => {
                let message = report::bounded(error.to_string());
                self.record(Record::LeaseFailed("renew", message.clone())).await;
                lease::renewal_failed(leases, accessor, error.kind, &message)
                    .map(Some)
                    .ok_or(error.kind)
            }
        }
    }

    async fn revoke(&self, leases: &LeaseStatus, accessor: &str) -> Result<Option<LeaseStatus>, ErrorKind> {
        let Some(held) = lease::lease_to_revoke(leases, accessor) else {
            return Ok(lease::revoked(leases, accessor));
        };
        if !self.facts.issuer().is_own(&held) {
            return Ok(Some(self.disowned(leases).await));
        }
        let revoked = match self.granted_store(&held, Operation::Revoke) {
            Ok(store) => self.effects.revoke_lease((store, handle(&held))).await,
            Err(error) => Err(error),
        };
        self.count("revoke", revoked.as_ref().err().map(|error| error.kind))
            .await;
        match revoked {
            Ok(()) => Ok(lease::revoked(leases, accessor)),
            Err(error) => {
                let message = report::bounded(error.to_string());
                self.record(Record::LeaseFailed("revoke", message.clone())).await;
                let now = self.moment().steady;
                lease::revocation_failed(leases, accessor, error.kind, &message, now)
                    .map(Some)
                    .ok_or(error.kind)
            }
        }
    }

    /// Returns the store of a lease if it still grants the path to the namespace. Without the
    /// grant, no request is sent to the store for this namespace, and the credential ends with its
    /// lease. A missing store is reported by the request itself.
    fn granted_store(&self, lease: &Lease, operation: Operation) -> Result<StoreRef, ProviderError> {
        let store = &lease.store;
        let denied = |message| ProviderError::new(ErrorKind::PermissionDenied, operation, message);
        let grant = match self.facts.lease_grants.get(store) {
            Some(Some(grant)) => grant,
            Some(None) => return Ok(store.clone()),
            None => return Err(denied(format!("{store} was not looked up"))),
        };
        let path = &lease.path;
        let location = Location::new(path)
            .map_err(|error| denied(format!("the path \"{}\" {error}", path.escape_debug())))?;
        plan::check_generation(grant, store, &location, &self.facts.namespace)
            .map_err(|failure| denied(failure.message))?;
        Ok(store.clone())
    }

    async fn count(&self, operation: &'static str, error: Option<ErrorKind>) {
        self.record(Record::Lease { operation, error }).await;
    }

    /// Removes the finalizer, so the object is deleted. Reports credentials that are left to
    /// expire.
    async fn release(&mut self) -> &'static str {
        if let Some((paths, last)) = lease::unrevoked_paths(self.leases()) {
            let note = format!(
                "the credentials of {} could not be revoked in time and are left to expire. The last one expires at {last}",
                paths.join(", ")
            );
            let notice = Notice::new(Severity::Warning, Reason::LeaseLeft.as_str(), "Revoke", &note);
            self.record(Record::Warning(note)).await;
            self.publish(notice).await;
        }
        if !self.facts.is_guarded() {
            return LEASE;
        }
        if self.effects.set_finalizer(false).await.is_err() {
            self.record(Record::Debug("could not remove the finalizer")).await;
        }
        // the watch delivers the object without it soon
        self.retry_later(&Action::Release, false);
        LEASE
    }

    /// Proves that the admission policy denies the other changes that the right to add a finalizer
    /// allows.
    async fn prove_policy(&self) -> Result<(), Failure> {
        let message = match self.effects.prove_lease_policy(()).await {
            Ok(()) => return Ok(()),
            Err(LeasePolicy::Unknown(why)) => format!(
                "Not issuing a credential: the admission policy lockstep-leases could not be tested ({why})"
            ),
            Err(LeasePolicy::Open) => "Not issuing a credential: the admission policy lockstep-leases is not enforced, so lockstep could change the labels of this SyncedSecret. Apply deploy/kustomize/base/admission-leases.yaml with the account that lockstep runs as".to_owned(),
        };
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }

    /// Adds the finalizer, so that credentials are revoked before the object is deleted.
    async fn add_finalizer(&self) -> Result<(), Failure> {
        if self.facts.is_guarded() {
            return Ok(());
        }
        let Err(why) = self.effects.set_finalizer(true).await else {
            return Ok(());
        };
        let message = format!(
            "Not issuing a credential: the finalizer {} could not be added ({why})",
            annotation::REVOKE_LEASE
        );
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }
}

fn handle(lease: &Lease) -> LeaseHandle {
    LeaseHandle {
        server: lease.server.clone(),
        accessor: lease.accessor.clone(),
        // without a lease, the id is the accessor
        id: (lease.id != lease.accessor).then(|| lease.id.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_without_a_lease_is_revoked_by_its_accessor() {
        let lease = Lease {
            id: "database/creds/shop/a".to_owned(),
            accessor: "a".to_owned(),
            ..Lease::default()
        };
        assert_eq!(handle(&lease).id.unwrap(), "database/creds/shop/a");
        let certificate = Lease {
            id: "a".to_owned(),
            ..lease
        };
        assert_eq!(handle(&certificate).id, None);
    }
}
