//! Issues, renews and revokes the credentials of one SyncedSecret, and manages the finalizer that
//! keeps the object until they are revoked. [`lockstep_core::lease`] decides what is due and how
//! failures are handled.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, header};
use kube::{
    Resource,
    api::{Patch, PatchParams},
    core::{PartialObjectMeta, request::Request},
    runtime::events::EventType,
};
use lockstep_api::{
    Lease, LeaseEnd, LeaseStatus, Reason, StoreRef, SyncedSecret, SyncedSecretStatus, annotation,
};
use lockstep_core::{
    Failure,
    collect::Generated,
    lease::{self, Action, Generation},
    plan,
    remote::Requeue,
    report::{self, Outcome},
    spec,
};
use lockstep_provider::{ErrorKind, LeaseHandle, Location, Operation, Provider, ProviderError};
use serde_json::json;

use super::{
    item::Reconcile,
    report::{METADATA_ONLY, StatusWrite},
};
use crate::{admission::Verdict, fetch::Stores as _, secret::WRITE_TIMEOUT};

/// The field manager of the finalizer.
const MANAGER: &str = "lockstep-lease";

/// A list of operations that can contain tests.
const JSON_PATCH: HeaderValue = HeaderValue::from_static("application/json-patch+json");

fn leases(status: Option<&SyncedSecretStatus>) -> Option<&LeaseStatus> {
    status?.lease.as_ref()
}

/// Maximum size of a credential, which stays in memory until its lease ends.
const MAX_CREDENTIAL_BYTES: usize = 128 * 1024;

impl Reconcile {
    /// Returns the credential that belongs in the Secret, with its fields if this process holds
    /// them.
    pub(super) fn generated(&self, status: Option<&SyncedSecretStatus>) -> Option<Generated> {
        let lease = lease::in_use(leases(status))?;
        Some(Generated {
            lease: lease.id.clone(),
            issued: lease.issued.parse().ok(),
            value: self.remember(|tracked, _, _| tracked.credential_of(&lease.id)),
        })
    }

    /// Returns why another credential has to be issued, if the existing one is not sufficient.
    pub(super) fn lease_cause(
        &self,
        status: Option<&SyncedSecretStatus>,
        generation: &Generation,
    ) -> Option<lease::Cause> {
        let request = lease::request_name(generation);
        let remembered = self.remember(|tracked, _, _| tracked.credential_id());
        let now = self.shared.steady.now();
        lease::cause(leases(status), &request, remembered.as_deref(), now)
    }

    /// Issues a credential, records its lease in the status, and keeps its fields in memory.
    ///
    /// # Errors
    /// When the store or the write of the status fails. A credential issued by then is recorded and
    /// will be revoked.
    pub(super) async fn mint(
        &self,
        status: Option<&SyncedSecretStatus>,
        generation: &Generation,
    ) -> Result<Generated, Failure> {
        self.check_may_write()?;
        lease::check_room(leases(status))?;
        let Generation {
            entry,
            store,
            request,
        } = generation;
        let place = spec::data_from_place(*entry, &self.object.spec.data_from[*entry]);
        let failed = |error: ProviderError| Failure::provider(&format!("{place}: {store}"), &error);
        let provider = self.provider(store).await.map_err(failed)?;
        if !provider.capability().leases {
            let message = format!(
                "a store of provider {} makes no credentials",
                provider.capability().name
            );
            return Err(failed(ProviderError::new(
                ErrorKind::Unsupported,
                Operation::Mint,
                message,
            )));
        }
        self.prove().await?;
        self.guard().await?;
        let context = self.context();
        let warrant = provider.warrant(&context, request).await.map_err(|error| {
            self.count("mint", Err(error.kind));
            failed(error)
        })?;
        // a token with an invalid accessor is not used and expires
        lease::check_accessor(&warrant.accessor)?;
        let now = self.shared.steady.now();
        let intent = lease::intend(leases(status), generation, &warrant, &self.issuer(), now);
        if let Err(failure) = self.note(status, Some(intent.clone())).await {
            // it issued nothing; if this fails too, it expires
            let unused = LeaseHandle {
                server: warrant.server.clone(),
                accessor: warrant.accessor.clone(),
                id: None,
            };
            let _ = provider.revoke(&context, &unused).await;
            return Err(failure);
        }
        let asked = self.shared.steady.now();
        let minted = provider.mint(&context, &warrant, request).await;
        self.count("mint", minted.as_ref().map(drop).map_err(|error| error.kind));
        let minted = minted.map_err(failed)?;
        // the intent stays, so the credential is revoked
        if minted.value.len() > MAX_CREDENTIAL_BYTES {
            let message = format!(
                "{place}: {store} issued a credential of {} bytes. At most {MAX_CREDENTIAL_BYTES} are allowed",
                minted.value.len()
            );
            return Err(Failure::new(Reason::TooLarge, message));
        }
        let path = request.path.as_str();
        minted
            .id
            .as_deref()
            .map_or(Ok(()), |id| lease::check_id(id, path))?;
        let name = lease::request_name(generation);
        let noted = lease::minted(&intent, name, &minted, &self.issuer(), asked);
        self.note(status, Some(noted.clone())).await?;
        let Some(lease) = &noted.minted else {
            return Err(Failure::new(
                Reason::Internal,
                "the status lost the intent of a credential",
            ));
        };
        let value = minted.value;
        self.remember(|tracked, _, _| tracked.note_credential(lease.id.clone(), value.clone()));
        tracing::info!(path = %request.path, lease = %lease.id, "issued a credential");
        Ok(Generated {
            lease: lease.id.clone(),
            // in the form that is read from the status
            issued: lease.issued.parse().ok(),
            value: Some(value),
        })
    }

    /// Writes the leases to the status, so that the next step survives a restart.
    async fn note(
        &self,
        status: Option<&SyncedSecretStatus>,
        leases: Option<LeaseStatus>,
    ) -> Result<(), Failure> {
        if self.report_durably(status, Outcome::Leased(leases)).await == StatusWrite::Persisted {
            return Ok(());
        }
        let message = "the lease could not be recorded in the status, so no credential is used";
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }

    /// Runs the lease action that is due.
    pub(super) async fn run_lease_action(
        &self,
        status: Option<&SyncedSecretStatus>,
        action: Action,
    ) -> &'static str {
        let Some(leases) = leases(status) else {
            return self.release(status).await;
        };
        match &action {
            Action::Release => self.release(status).await,
            Action::Disown => {
                let next = self.disowned(leases);
                self.perform_lease_action(status, &action, Ok(Some(next))).await
            }
            Action::Forget(accessor) => {
                let next = Ok(lease::revoked(leases, accessor));
                self.perform_lease_action(status, &action, next).await
            }
            Action::Renew(accessor) => {
                let next = self.renew(leases, accessor).await;
                self.perform_lease_action(status, &action, next).await
            }
            Action::Revoke(accessor) => {
                let next = self.revoke(leases, accessor).await;
                self.perform_lease_action(status, &action, next).await
            }
        }
    }

    /// Reports the result of an action, or plans its retry.
    async fn perform_lease_action(
        &self,
        status: Option<&SyncedSecretStatus>,
        action: &Action,
        next: Result<Option<LeaseStatus>, ErrorKind>,
    ) -> &'static str {
        let gone = match next {
            Ok(next) => {
                if self.report_durably(status, Outcome::Leased(next)).await == StatusWrite::Persisted {
                    self.remember(|tracked, _, _| tracked.memory.lease_retries.done(action));
                    return "lease";
                }
                // the result is not recorded, so the action is repeated, but not at once
                false
            }
            Err(kind) => matches!(
                kind,
                ErrorKind::ConfigInvalid | ErrorKind::CredentialsUnavailable | ErrorKind::Unauthenticated
            ),
        };
        let now = self.shared.steady.now();
        self.remember(|tracked, _, _| {
            tracked.memory.lease_retries.failed(action, gone, &self.uid, now);
        });
        "lease"
    }

    /// Returns the leases, with those without a valid MAC marked as left to expire.
    fn disowned(&self, leases: &LeaseStatus) -> LeaseStatus {
        tracing::warn!(
            "status.lease contains a lease without a valid MAC: it is neither renewed nor revoked"
        );
        lease::disowned(leases, &self.issuer(), self.shared.steady.now())
    }

    async fn renew(&self, leases: &LeaseStatus, accessor: &str) -> Result<Option<LeaseStatus>, ErrorKind> {
        let Some(held) = lease::find(leases, accessor) else {
            return Ok(Some(leases.clone()));
        };
        if !self.issuer().is_own(held) {
            return Ok(Some(self.disowned(leases)));
        }
        let wanted = Duration::from_secs(u64::try_from(held.seconds).unwrap_or(0));
        let asked = self.shared.steady.now();
        let given = async {
            let store = store_of(held, Operation::RenewLease)?;
            self.check_granted(&store, &held.path, Operation::RenewLease)?;
            let provider = self.provider(&store).await?;
            provider.renew_lease(&self.context(), &handle(held), wanted).await
        };
        let given = given.await;
        self.count("renew", given.as_ref().map(drop).map_err(|error| error.kind));
        match given {
            Ok(given) => Ok(Some(lease::renewed(leases, accessor, given, asked))),
            Err(error) => {
                tracing::warn!(lease = %held.id, kind = error.kind.label(), message = %error, "could not renew a lease");
                lease::renewal_failed(leases, accessor, error.kind, &report::bounded(error.to_string()))
                    .map(Some)
                    .ok_or(error.kind)
            }
        }
    }

    async fn provider(&self, store: &StoreRef) -> Result<Arc<dyn Provider>, ProviderError> {
        self.stores().provider(store).await
    }

    /// Checks that the store still grants the path to the namespace. Without the grant, no request
    /// is sent to the store for this namespace, and the credential ends with its lease. A missing
    /// store is reported by the request itself.
    fn check_granted(&self, store: &StoreRef, path: &str, operation: Operation) -> Result<(), ProviderError> {
        let grant = self.shared.index().grant(&self.key.namespace, store);
        let Some(grant) = grant else { return Ok(()) };
        let denied = |message| ProviderError::new(ErrorKind::PermissionDenied, operation, message);
        let location = Location::new(path)
            .map_err(|error| denied(format!("the path \"{}\" {error}", path.escape_debug())))?;
        plan::check_generation(&grant, store, &location, &self.key.namespace)
            .map_err(|failure| denied(failure.message))
    }

    async fn revoke(&self, leases: &LeaseStatus, accessor: &str) -> Result<Option<LeaseStatus>, ErrorKind> {
        let Some(held) = lease::held_as(leases, accessor) else {
            return Ok(lease::revoked(leases, accessor));
        };
        if !self.issuer().is_own(&held) {
            return Ok(Some(self.disowned(leases)));
        }
        let done = async {
            let store = store_of(&held, Operation::Revoke)?;
            self.check_granted(&store, &held.path, Operation::Revoke)?;
            self.provider(&store)
                .await?
                .revoke(&self.context(), &handle(&held))
                .await
        };
        let done = done.await;
        self.count("revoke", done.as_ref().map(drop).map_err(|error| error.kind));
        match done {
            Ok(()) => Ok(lease::revoked(leases, accessor)),
            Err(error) => {
                tracing::warn!(accessor, kind = error.kind.label(), message = %error, "could not revoke a lease");
                let now = self.shared.steady.now();
                let message = report::bounded(error.to_string());
                lease::revocation_failed(leases, accessor, error.kind, &message, now)
                    .map(Some)
                    .ok_or(error.kind)
            }
        }
    }

    fn count(&self, operation: &str, outcome: Result<(), ErrorKind>) {
        let outcome = outcome.map_or_else(ErrorKind::label, |()| "ok");
        self.shared
            .metrics
            .leases
            .with_label_values(&[operation, outcome])
            .inc();
    }

    /// Removes the finalizer, so the object is deleted. Reports credentials that are left to
    /// expire.
    async fn release(&self, status: Option<&SyncedSecretStatus>) -> &'static str {
        if let Some((paths, last)) = lease::left(leases(status)) {
            let note = format!(
                "the credentials of {} could not be revoked in time and are left to expire. The last one expires at {last}",
                paths.join(", ")
            );
            tracing::warn!("{note}");
            self.announce(EventType::Warning, Reason::LeaseLeft, "Revoke", note)
                .await;
        }
        let finalizers = self.object.metadata.finalizers.as_deref().unwrap_or_default();
        let place = finalizers
            .iter()
            .position(|name| name == annotation::REVOKE_LEASE);
        let Some(place) = place else { return "lease" };
        // by its index, which is tested, regardless of the owner of the entry and of other entries
        let path = format!("/metadata/finalizers/{place}");
        let patch = json!([
            { "op": "test", "path": path, "value": annotation::REVOKE_LEASE },
            { "op": "remove", "path": path },
        ]);
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let done = self
            .patch_object(&Patch::Merge(patch), &params, Some(JSON_PATCH))
            .await;
        if done.is_err() {
            tracing::debug!("could not remove the finalizer");
        }
        let now = self.shared.steady.now();
        self.remember(|tracked, _, _| {
            let retries = &mut tracked.memory.lease_retries;
            // the watch delivers the object without it soon
            retries.failed(&Action::Release, false, &self.uid, now);
        });
        "lease"
    }

    /// Proves that the admission policy denies the other changes that the right to add a finalizer
    /// allows.
    async fn prove(&self) -> Result<(), Failure> {
        let shared = &self.shared;
        let object = (&*self.key.namespace, &*self.key.name, &*self.uid);
        let now = shared.steady.now();
        let _slot = shared.writes.acquire(self.priority).await;
        let Err(verdict) = shared.lease_proof.prove(&shared.client, object, now).await else {
            return Ok(());
        };
        let message = match verdict {
            Verdict::Unknown(why) => format!(
                "Not issuing a credential: the admission policy lockstep-leases could not be tested ({why})"
            ),
            Verdict::Open | Verdict::Enforced => "Not issuing a credential: the admission policy lockstep-leases is not enforced, so lockstep could change the labels of this SyncedSecret. Apply deploy/kustomize/base/admission-leases.yaml with the account that lockstep runs as".to_owned(),
        };
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }

    /// Adds the finalizer, so that credentials are revoked before the object is deleted.
    async fn guard(&self) -> Result<(), Failure> {
        let finalizers = self.object.metadata.finalizers.as_deref().unwrap_or_default();
        if finalizers.iter().any(|name| name == annotation::REVOKE_LEASE) {
            return Ok(());
        }
        let body = json!({
            "apiVersion": SyncedSecret::api_version(&()),
            "kind": SyncedSecret::kind(&()),
            "metadata": {
                "name": &*self.key.name, "namespace": &*self.key.namespace, "uid": self.uid,
                "finalizers": [annotation::REVOKE_LEASE],
            },
        });
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let Err(error) = self.patch_object(&Patch::Apply(body), &params, None).await else {
            return Ok(());
        };
        let why = match error {
            kube::Error::Api(error) => format!("status {}", error.code),
            _ => "no response".to_owned(),
        };
        let message = format!(
            "Not issuing a credential: the finalizer {} could not be added ({why})",
            annotation::REVOKE_LEASE
        );
        Err(Failure::new(Reason::WriteFailed, message).requeued(Requeue::Backoff))
    }

    /// Patches the object itself. `kind` is the content type, if the client does not support it.
    async fn patch_object(
        &self,
        patch: &Patch<serde_json::Value>,
        params: &PatchParams,
        kind: Option<HeaderValue>,
    ) -> kube::Result<PartialObjectMeta<SyncedSecret>> {
        let objects = Request::new(SyncedSecret::url_path(&(), Some(&self.key.namespace)));
        let mut request = objects
            .patch(&self.key.name, params, patch)
            .map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(header::ACCEPT, METADATA_ONLY);
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        let _slot = self.shared.writes.acquire(self.priority).await;
        match tokio::time::timeout(WRITE_TIMEOUT, self.shared.client.request(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(kube::Error::Service(
                std::io::Error::from(std::io::ErrorKind::TimedOut).into(),
            )),
        }
    }

    /// Publishes an event for each relevant change of the leases.
    pub(super) async fn publish_leases(&self, old: Option<&SyncedSecretStatus>, status: &SyncedSecretStatus) {
        for (type_, reason, note) in changes(leases(old), status.lease.as_ref()) {
            self.announce(type_, reason, "Lease", note).await;
        }
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

/// Returns the store of a lease.
fn store_of(lease: &Lease, operation: Operation) -> Result<StoreRef, ProviderError> {
    lease::store(&lease.store).ok_or_else(|| {
        ProviderError::new(
            ErrorKind::ConfigInvalid,
            operation,
            "the status does not name a store",
        )
    })
}

fn all(status: Option<&LeaseStatus>) -> impl Iterator<Item = &Lease> {
    status
        .into_iter()
        .flat_map(|status| status.current.iter().chain(&status.minted).chain(&status.old))
}

/// Returns the events for the changes of the leases.
fn changes(old: Option<&LeaseStatus>, new: Option<&LeaseStatus>) -> Vec<(EventType, Reason, String)> {
    let mut events = Vec::new();
    let current = |status: Option<&LeaseStatus>| status.and_then(|status| status.current.clone());
    let before = |accessor: &str| all(old).find(|lease| lease.accessor == accessor);
    if let Some(lease) = current(new)
        && current(old).is_none_or(|old| old.accessor != lease.accessor)
    {
        let note = format!(
            "the Secret contains a new credential of \"{}\" in {}. Its lease {} expires at {}",
            lease.path, lease.store, lease.id, lease.expires
        );
        events.push((EventType::Normal, Reason::LeaseIssued, note));
    }
    for lease in all(new) {
        let Some(earlier) = before(&lease.accessor) else {
            continue;
        };
        if let (None, Some(end)) = (earlier.ends, lease.ends) {
            let (type_, why) = match end {
                LeaseEnd::MaximumReached => (EventType::Normal, "is near its maximum"),
                LeaseEnd::RenewalRefused => (EventType::Warning, "was not renewed by the store"),
                LeaseEnd::NotRenewable => (EventType::Normal, "cannot be renewed"),
            };
            let mut note = format!("the lease {} {why} and expires at {}", lease.id, lease.expires);
            if let Some(refusal) = &lease.refusal {
                note.push_str(": ");
                note.push_str(refusal);
            }
            events.push((type_, Reason::LeaseEnds, note));
        }
        if let (None, Some(why)) = (&earlier.left, &lease.left) {
            let (reason, what) = if lease::is_disowned(lease) {
                (Reason::LeaseUnproven, "is neither renewed nor revoked")
            } else {
                (Reason::LeaseLeft, "is no longer used but could not be revoked")
            };
            let note = format!(
                "the lease {} {what}. It expires at {}: {why}",
                lease.id, lease.expires
            );
            events.push((EventType::Warning, reason, note));
        }
    }
    let gone = |lease: &&Lease| all(new).all(|other| other.accessor != lease.accessor);
    for lease in all(old).filter(gone).filter(|lease| lease.left.is_none()) {
        let note = format!("the lease {} of \"{}\" was revoked", lease.id, lease.path);
        events.push((EventType::Normal, Reason::LeaseRevoked, note));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(accessor: &str) -> Lease {
        Lease {
            id: format!("database/creds/shop/{accessor}"),
            accessor: accessor.to_owned(),
            store: "SecretStore/vault".to_owned(),
            path: "database/creds/shop".to_owned(),
            expires: "2026-05-01T10:00:00Z".to_owned(),
            mac: Some("right".to_owned()),
            ..Lease::default()
        }
    }

    fn reasons(old: Option<&LeaseStatus>, new: Option<&LeaseStatus>) -> Vec<Reason> {
        changes(old, new)
            .into_iter()
            .map(|(_, reason, _)| reason)
            .collect()
    }

    #[test]
    fn each_change_of_a_lease_is_told_once() {
        let first = LeaseStatus {
            current: Some(lease("a")),
            ..LeaseStatus::default()
        };
        assert_eq!(reasons(None, Some(&first)), [Reason::LeaseIssued]);
        assert_eq!(reasons(Some(&first), Some(&first)), []);
        let mut renewed = first.clone();
        renewed.current.as_mut().unwrap().expires = "2026-05-01T11:00:00Z".to_owned();
        assert_eq!(reasons(Some(&first), Some(&renewed)), [], "a renewal is no news");
        let mut ends = renewed.clone();
        ends.current.as_mut().unwrap().ends = Some(LeaseEnd::MaximumReached);
        assert_eq!(reasons(Some(&renewed), Some(&ends)), [Reason::LeaseEnds]);
        let second = LeaseStatus {
            current: Some(lease("b")),
            old: vec![ends.current.clone().unwrap()],
            ..LeaseStatus::default()
        };
        assert_eq!(reasons(Some(&ends), Some(&second)), [Reason::LeaseIssued]);
        let mut left = second.clone();
        left.old[0].left = Some("permission denied".to_owned());
        assert_eq!(reasons(Some(&second), Some(&left)), [Reason::LeaseLeft]);
        let mut unproven = left.clone();
        unproven.old[0].mac = None;
        assert_eq!(reasons(Some(&second), Some(&unproven)), [Reason::LeaseUnproven]);
        let done = LeaseStatus {
            old: Vec::new(),
            ..second.clone()
        };
        assert_eq!(reasons(Some(&second), Some(&done)), [Reason::LeaseRevoked]);
        assert_eq!(reasons(Some(&left), Some(&done)), [], "it expired");
    }

    #[test]
    fn a_credential_without_a_lease_is_revoked_by_its_accessor() {
        let mut certificate = lease("a");
        certificate.id.clone_from(&certificate.accessor);
        assert_eq!(handle(&certificate).id, None);
        assert_eq!(handle(&lease("a")).id.unwrap(), "database/creds/shop/a");
    }
}
