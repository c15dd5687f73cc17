//! Writes Secrets without being able to read them. Every answer is metadata only.
//!
//! [`lockstep_core::secret_write`] decides which requests a write needs; this module sends them.

mod api_error;
mod error;
mod merge;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request as HttpRequest, header};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Client, Resource,
    api::{DeleteParams, PostParams},
    core::request::Request as UrlBuilder,
};
use lockstep_api::{CreationPolicy, TargetStatus, annotation};
use lockstep_core::{
    assemble::DesiredSecret,
    remote::SecretValue,
    secret_write::{Answer, Done, Request, SecretIdentity, SecretWrite, Step},
};
use serde_json::Value;

use self::api_error::{ApiError, Rule, classify};
pub use self::error::WriteError;
use crate::{
    identity::Account,
    manifest::{Base64Data, Manifest},
    owner::Owner,
};

/// How long one request to the API server may take.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes the API server answer with metadata only.
pub(crate) const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Whether the Secret is as the status records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// It was not changed since.
    None,
    /// It was changed, or replaced by another one.
    Edited,
    /// It does not exist.
    Gone,
}

/// Writes Secrets.
#[derive(Clone)]
pub struct SecretWriter {
    client: Client,
    account: Arc<Account>,
    policy_proven: Arc<AtomicBool>,
}

impl std::fmt::Debug for SecretWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretWriter")
    }
}

type SecretManifest<'a> = Manifest<'a, Base64Data<'a>>;
type Built = Result<HttpRequest<Vec<u8>>, kube::core::request::Error>;

fn requests(namespace: &str) -> UrlBuilder {
    UrlBuilder::new(Secret::url_path(&(), Some(namespace)))
}

fn post_params(dry_run: bool) -> PostParams {
    PostParams {
        dry_run,
        field_manager: Some(annotation::MANAGER.to_owned()),
    }
}

fn unbuildable(_: impl std::error::Error) -> ApiError {
    ApiError::Other {
        what: "the request could not be built".to_owned(),
        transient: false,
    }
}

impl SecretWriter {
    /// Writes with `client` as `account`. Requests that only the admission policy guards are sent while `policy_proven` is true.
    pub fn new(client: Client, account: Arc<Account>, policy_proven: Arc<AtomicBool>) -> Self {
        Self {
            client,
            account,
            policy_proven,
        }
    }

    /// Writes the Secret. `recorded` is the Secret of this name in the status.
    ///
    /// If [`Done::sealed`] is false, the Secret is not immutable yet: record its uid and write again.
    ///
    /// # Errors
    /// Why it was not written.
    pub async fn write(
        &self,
        owner: &Owner<'_>,
        secret: &DesiredSecret,
        recorded: Option<SecretIdentity>,
    ) -> Result<Done, WriteError> {
        let proven = self.is_policy_proven();
        let (mut write, mut request) = SecretWrite::start(recorded, secret.immutable, proven);
        loop {
            let answer = answer(&request, self.perform(owner, secret, &request).await);
            match write.resume(answer) {
                Step::Send(next) => request = next,
                Step::Done(done) => return Ok(done),
                Step::Failed(failure) => return Err(failure.into()),
            }
        }
    }

    /// Whether the Secret is as the status records it: a dry-run deletion with the recorded identity as precondition. A Secret that is
    /// merged into is patched with nothing instead, because lockstep may not delete it.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn probe(&self, owner: &Owner<'_>, recorded: &TargetStatus) -> Result<Drift, WriteError> {
        if owner.object.spec.target.creation_policy == CreationPolicy::Merge {
            return self.probe_merged(owner, recorded).await;
        }
        let Some(identity) = SecretIdentity::recorded(recorded) else {
            return Ok(Drift::Gone);
        };
        match self.send_deletion(owner, identity, true).await {
            Ok(()) => Ok(Drift::None),
            Err(ApiError::Conflict) => Ok(Drift::Edited),
            Err(ApiError::NotFound) => Ok(Drift::Gone),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the recorded Secret, if it still belongs to this SyncedSecret. Another Secret of that name is left alone.
    ///
    /// The policy lets a deletion of any Secret of lockstep pass, and someone may have handed the Secret over to another SyncedSecret. A
    /// claim tells them apart. An immutable Secret cannot be claimed, so it is deleted only if it is as recorded.
    ///
    /// # Errors
    /// Why it was not deleted.
    pub async fn delete(&self, owner: &Owner<'_>, recorded: SecretIdentity) -> Result<(), WriteError> {
        if self.is_policy_proven() {
            match self.claim(owner).await {
                Ok(found) if found.uid != recorded.uid => return Ok(()),
                Ok(found) => return self.delete_exactly(owner, found, WriteError::Raced).await,
                Err(ApiError::Immutable) => {}
                Err(ApiError::NotFound | ApiError::Denied(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.delete_exactly(owner, recorded, WriteError::Changed).await
    }

    /// Deletes the Secret as it is known. If someone changed it since, the result is `changed`.
    async fn delete_exactly(
        &self,
        owner: &Owner<'_>,
        known: SecretIdentity,
        changed: WriteError,
    ) -> Result<(), WriteError> {
        match self.send_deletion(owner, known, false).await {
            Ok(()) | Err(ApiError::NotFound) => Ok(()),
            Err(ApiError::Conflict) => Err(changed),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the Secret that the status recorded by name before it was written, if it exists and is this SyncedSecret's: the process
    /// may have ended before its uid was recorded.
    ///
    /// # Errors
    /// Why it was not deleted.
    pub async fn delete_intended(&self, owner: &Owner<'_>) -> Result<(), WriteError> {
        if !self.is_policy_proven() {
            return Ok(());
        }
        // a claim shows something only where the policy is enforced for this very Secret
        match self.prove(owner).await {
            Err(ApiError::Denied(Rule::Ownership)) => {}
            Ok(_) | Err(ApiError::NotFound | ApiError::Immutable | ApiError::Denied(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        match self.claim(owner).await {
            Ok(identity) => self.delete_exactly(owner, identity, WriteError::Raced).await,
            // gone, or someone else's: one of this SyncedSecret's could be claimed, because it is not immutable before its uid is recorded
            Err(ApiError::NotFound | ApiError::Denied(_) | ApiError::Immutable) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn is_policy_proven(&self) -> bool {
        self.policy_proven.load(Ordering::Acquire)
    }

    async fn perform(
        &self,
        owner: &Owner<'_>,
        secret: &DesiredSecret,
        request: &Request,
    ) -> Result<Option<SecretIdentity>, ApiError> {
        let manifest =
            |uid, sealed| Manifest::new(owner, secret, uid, Base64Data(&secret.data)).sealed(sealed);
        match request {
            Request::Create => self.create(owner, &manifest(None, false), false).await.map(Some),
            Request::Replace { uid, sealed } => {
                let manifest = manifest(uid.as_deref(), *sealed);
                self.replace(owner, &manifest, false).await.map(Some)
            }
            Request::Claim => self.claim(owner).await.map(Some),
            Request::Prove => self.prove(owner).await.map(Some),
            Request::ProveCreate => {
                let name = unused_name(owner);
                let nobodys = bare(&name, &[]);
                let manifest = Manifest::new(owner, &nobodys, None, Base64Data(&nobodys.data));
                self.create(owner, &manifest, true).await.map(Some)
            }
            Request::Rehearse => {
                let name = unused_name(owner);
                let rehearsal = manifest(None, secret.immutable).named(&name);
                self.create(owner, &rehearsal, true).await.map(Some)
            }
            Request::Delete(expected) => self
                .send_deletion(owner, expected.clone(), false)
                .await
                .map(|()| None),
        }
    }

    /// A dry-run replacement that the admission policy allows only on a Secret of this SyncedSecret. It sends no type, so that the
    /// stored one is kept, and no value.
    async fn claim(&self, owner: &Owner<'_>) -> Result<SecretIdentity, ApiError> {
        let claim = [(annotation::OWNER, owner.name), (annotation::CLAIM, owner.name)];
        self.rehearse_replacement(owner, &claim).await
    }

    /// A dry-run replacement in the name of an owner that cannot exist: the policy refuses it, if it is enforced for this Secret.
    async fn prove(&self, owner: &Owner<'_>) -> Result<SecretIdentity, ApiError> {
        self.rehearse_replacement(owner, &[(annotation::OWNER, NOBODY)])
            .await
    }

    async fn rehearse_replacement(
        &self,
        owner: &Owner<'_>,
        annotations: &[(&str, &str)],
    ) -> Result<SecretIdentity, ApiError> {
        let secret = bare(owner.target, annotations);
        let manifest = Manifest::new(owner, &secret, None, Base64Data(&secret.data));
        self.replace(owner, &manifest, true).await
    }

    async fn create(
        &self,
        owner: &Owner<'_>,
        manifest: &SecretManifest<'_>,
        dry_run: bool,
    ) -> Result<SecretIdentity, ApiError> {
        let body = serde_json::to_vec(manifest).map_err(unbuildable)?;
        let request = requests(owner.namespace).create(&post_params(dry_run), body);
        self.identity(request).await
    }

    async fn replace(
        &self,
        owner: &Owner<'_>,
        manifest: &SecretManifest<'_>,
        dry_run: bool,
    ) -> Result<SecretIdentity, ApiError> {
        let body = serde_json::to_vec(manifest).map_err(unbuildable)?;
        let request = requests(owner.namespace).replace(owner.target, &post_params(dry_run), body);
        self.identity(request).await
    }

    /// A deletion in the background: the policy refuses every form of it whose answer holds the object.
    async fn send_deletion(
        &self,
        owner: &Owner<'_>,
        expected: SecretIdentity,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        let params = DeleteParams {
            dry_run,
            preconditions: Some(kube::api::Preconditions {
                uid: Some(expected.uid),
                resource_version: Some(expected.resource_version),
            }),
            ..DeleteParams::default()
        };
        let request = requests(owner.namespace).delete(owner.target, &params);
        self.send(request).await.map(drop)
    }

    async fn identity(&self, request: Built) -> Result<SecretIdentity, ApiError> {
        let answer = self.send(request).await?;
        let text = |field: &str| {
            answer
                .pointer(field)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| ApiError::Other {
                    what: "the API server answered without uid and resourceVersion".to_owned(),
                    transient: true,
                })
        };
        Ok(SecretIdentity {
            uid: text("/metadata/uid")?,
            // an object that is only rehearsed has none
            resource_version: text("/metadata/resourceVersion").unwrap_or_default(),
        })
    }

    async fn send(&self, request: Built) -> Result<Value, ApiError> {
        let mut request = request.map_err(unbuildable)?;
        request
            .headers_mut()
            .insert(header::ACCEPT, header::HeaderValue::from_static(METADATA_ONLY));
        match tokio::time::timeout(WRITE_TIMEOUT, self.client.request::<Value>(request)).await {
            Ok(result) => result.map_err(|error| classify(&error)),
            Err(_) => Err(ApiError::Other {
                what: format!(
                    "the API server did not answer within {} s",
                    WRITE_TIMEOUT.as_secs()
                ),
                transient: true,
            }),
        }
    }
}

/// No SyncedSecret can have this name.
const NOBODY: &str = "lockstep.dev/nobody";

/// A name that no Secret has.
fn unused_name(owner: &Owner<'_>) -> String {
    let uid = owner.object.metadata.uid.as_deref().unwrap_or_default();
    format!("lockstep-rehearsal-{uid}")
}

/// A Secret without type and values, for dry runs.
fn bare(name: &str, annotations: &[(&str, &str)]) -> DesiredSecret {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    DesiredSecret {
        name: name.to_owned(),
        secret_type: None,
        labels: BTreeMap::new(),
        annotations: annotations.iter().map(text).collect(),
        data: CLAIM_DATA
            .map(|(key, value)| (key.to_owned(), SecretValue::from(value)))
            .into(),
        immutable: false,
        creation_policy: CreationPolicy::Orphan,
    }
}

/// Keys that satisfy the rules of every type of Secret, so that a claim does not fail by the stored type.
const CLAIM_DATA: [(&str, &str); 7] = [
    ("tls.crt", ""),
    ("tls.key", ""),
    (".dockercfg", "{}"),
    (".dockerconfigjson", "{}"),
    ("username", ""),
    ("password", ""),
    ("ssh-privatekey", ""),
];

/// The answer to a request, in the terms of the machine.
fn answer(request: &Request, result: Result<Option<SecretIdentity>, ApiError>) -> Answer<WriteError> {
    match result {
        Ok(Some(identity)) => Answer::Written(identity),
        Ok(None) => Answer::Deleted,
        Err(ApiError::AlreadyExists) => Answer::AlreadyExists,
        // a create is answered so only for the namespace
        Err(ApiError::NotFound) if *request == Request::Create => {
            Answer::Failed(WriteError::NamespaceTerminating)
        }
        Err(ApiError::NotFound) => Answer::NotFound,
        Err(ApiError::Conflict) => Answer::Conflict,
        Err(ApiError::Immutable) => Answer::Immutable,
        Err(ApiError::Denied(rule)) => match (request, rule) {
            (Request::Prove, Rule::Ownership) | (Request::ProveCreate, Rule::Creation) => Answer::Denied,
            // another rule may have refused first, and says nothing of this one
            (Request::Prove | Request::ProveCreate, _) => Answer::Unguarded,
            (_, Rule::Deletion) => Answer::Failed(WriteError::NotDeletable),
            _ => Answer::Denied,
        },
        Err(error) => Answer::Failed(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_of_the_api_server_reaches_a_message_with_its_text() {
        let object = lockstep_api::SyncedSecret::new("a", lockstep_api::SyncedSecretSpec::default());
        let owner = Owner {
            object: &object,
            namespace: "shop",
            name: "a",
            target: "a",
        };
        for code in [400, 403, 404, 409, 413, 422, 429, 500] {
            let status = kube::core::Status {
                code,
                reason: "canary canary".into(),
                message: "canary Too long canary".into(),
                ..kube::core::Status::default()
            };
            let error = WriteError::from(classify(&kube::Error::Api(Box::new(status))));
            let failure = error.failure(&owner);
            assert!(!failure.message.contains("canary"), "{}", failure.message);
        }
    }
}
