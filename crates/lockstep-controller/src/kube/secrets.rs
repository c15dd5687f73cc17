//! Writes Secrets without permission to read them. Every response contains only metadata.
//!
//! [`lockstep_core::reconcile`] decides which requests a write needs; this module sends them.

mod api_error;
mod merge;

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use http::{Request as HttpRequest, header};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Client, Resource,
    api::{DeleteParams, PostParams},
    core::request::Request as UrlBuilder,
};
use lockstep_api::{CreationPolicy, annotation};
use lockstep_core::{
    assemble::DesiredSecret,
    owner::Owner,
    remote::SecretValue,
    secret_write::{Answer, Request, SecretIdentity, WriteError},
};
use serde_json::Value;

use self::api_error::{ApiError, Rule, classify};
use super::{
    account::Account,
    request::{METADATA_ONLY, WRITE_TIMEOUT, bounded},
};
use crate::manifest::{Base64Data, Manifest};

/// Writes Secrets with the permissions of one account.
#[derive(Clone)]
pub struct SecretWriter {
    client: Client,
    account: Arc<Account>,
}

impl std::fmt::Debug for SecretWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretWriter")
    }
}

type SecretManifest<'a> = Manifest<'a, Base64Data<'a>>;
type Built = Result<HttpRequest<Vec<u8>>, kube::core::request::Error>;

fn request_builder(namespace: &str) -> UrlBuilder {
    UrlBuilder::new(Secret::url_path(&(), Some(namespace)))
}

fn post_params(dry_run: bool) -> PostParams {
    PostParams {
        dry_run,
        field_manager: Some(annotation::MANAGER.to_owned()),
    }
}

fn build_error(_: impl std::error::Error) -> ApiError {
    ApiError::Other {
        what: "the request could not be built".to_owned(),
        transient: false,
    }
}

impl SecretWriter {
    /// Creates a writer that uses `client` as `account`.
    pub const fn new(client: Client, account: Arc<Account>) -> Self {
        Self { client, account }
    }

    /// Sends a request about a Secret. `desired` is the content for requests that write it.
    pub async fn send(
        &self,
        owner: &Owner<'_>,
        desired: Option<&DesiredSecret>,
        request: &Request,
    ) -> Answer<WriteError> {
        answer(request, self.perform(owner, desired, request).await)
    }

    async fn perform(
        &self,
        owner: &Owner<'_>,
        desired: Option<&DesiredSecret>,
        request: &Request,
    ) -> Result<Option<SecretIdentity>, ApiError> {
        let manifest = |uid, sealed| {
            let secret = desired.ok_or_else(|| ApiError::Other {
                what: "a fault in lockstep: the request needs the content of the Secret".to_owned(),
                transient: false,
            })?;
            let manifest = Manifest::new(owner, secret, uid, Base64Data(&secret.data));
            Ok::<_, ApiError>(manifest.sealed(sealed))
        };
        match request {
            Request::Create => self.create(owner, &manifest(None, false)?, false).await.map(Some),
            Request::Replace { uid, sealed } => {
                let manifest = manifest(uid.as_deref(), *sealed)?;
                self.replace(owner, &manifest, false).await.map(Some)
            }
            Request::Claim => self.claim(owner).await.map(Some),
            Request::Prove => self.prove(owner).await.map(Some),
            Request::ProveCreate => {
                let name = unused_name();
                let nobodys = bare(&name, &[]);
                let manifest = Manifest::new(owner, &nobodys, None, Base64Data(&nobodys.data));
                self.create(owner, &manifest, true).await.map(Some)
            }
            Request::Rehearse => {
                let name = unused_name();
                let immutable = desired.is_some_and(|secret| secret.immutable);
                let rehearsal = manifest(None, immutable)?.named(&name);
                self.create(owner, &rehearsal, true).await.map(Some)
            }
            Request::Delete(expected) => self
                .send_deletion(owner, expected.clone(), false)
                .await
                .map(|()| None),
            Request::Probe(expected) => self
                .send_deletion(owner, expected.clone(), true)
                .await
                .map(|()| None),
        }
    }

    /// A dry-run replacement that the admission policy allows only on a Secret of this
    /// SyncedSecret. It sends no type, so that the stored one is kept, and no value.
    async fn claim(&self, owner: &Owner<'_>) -> Result<SecretIdentity, ApiError> {
        let claim = [(annotation::OWNER, owner.name), (annotation::CLAIM, owner.name)];
        self.rehearse_replacement(owner, &claim).await
    }

    /// A dry-run replacement in the name of an owner that cannot exist. The policy denies it if it
    /// is enforced for this Secret.
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
        let body = serde_json::to_vec(manifest).map_err(build_error)?;
        let request = request_builder(owner.namespace).create(&post_params(dry_run), body);
        self.send_and_parse_identity(request).await
    }

    async fn replace(
        &self,
        owner: &Owner<'_>,
        manifest: &SecretManifest<'_>,
        dry_run: bool,
    ) -> Result<SecretIdentity, ApiError> {
        let body = serde_json::to_vec(manifest).map_err(build_error)?;
        let request = request_builder(owner.namespace).replace(owner.target, &post_params(dry_run), body);
        self.send_and_parse_identity(request).await
    }

    /// Deletes a Secret in the background. The policy denies every other form, because its response
    /// would contain the object.
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
        let request = request_builder(owner.namespace).delete(owner.target, &params);
        self.request(request).await.map(drop)
    }

    async fn send_and_parse_identity(&self, request: Built) -> Result<SecretIdentity, ApiError> {
        identity_of(&self.request(request).await?)
    }

    async fn request(&self, request: Built) -> Result<Value, ApiError> {
        let mut request = request.map_err(build_error)?;
        request
            .headers_mut()
            .insert(header::ACCEPT, header::HeaderValue::from_static(METADATA_ONLY));
        let answer = bounded(WRITE_TIMEOUT, self.client.request::<Value>(request)).await;
        answer.map_err(|error| classify(&error))
    }
}

/// Returns the identity in the metadata of a Secret.
fn identity_of(answer: &Value) -> Result<SecretIdentity, ApiError> {
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
        // A dry-run object has no resource version.
        resource_version: text("/metadata/resourceVersion").unwrap_or_default(),
    })
}

/// A name that no SyncedSecret can have.
const NOBODY: &str = "lockstep.dev/nobody";

/// Returns a name that no Secret has. It is random, so that nobody can take it in advance.
fn unused_name() -> String {
    let random = RandomState::new().hash_one(());
    format!("lockstep-rehearsal-{random:016x}")
}

/// Creates a Secret without type and values, for dry runs.
fn bare(name: &str, annotations: &[(&str, &str)]) -> DesiredSecret {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    DesiredSecret {
        annotations: annotations.iter().map(text).collect(),
        data: CLAIM_DATA
            .map(|(key, value)| (key.to_owned(), SecretValue::from(value)))
            .into(),
        creation_policy: CreationPolicy::Orphan,
        ..DesiredSecret::nothing(name)
    }
}

/// Keys that satisfy the rules of every type of Secret, so that a claim does not fail because of
/// the stored type.
const CLAIM_DATA: [(&str, &str); 7] = [
    ("tls.crt", ""),
    ("tls.key", ""),
    (".dockercfg", "{}"),
    (".dockerconfigjson", "{}"),
    ("username", ""),
    ("password", ""),
    ("ssh-privatekey", ""),
];

/// Converts the response to a request into an answer for the reconcile machine.
fn answer(request: &Request, result: Result<Option<SecretIdentity>, ApiError>) -> Answer<WriteError> {
    match result {
        Ok(Some(identity)) => Answer::Written(identity),
        Ok(None) => Answer::Deleted,
        Err(ApiError::AlreadyExists) => Answer::AlreadyExists,
        // A create returns this only if the namespace does not exist.
        Err(ApiError::NotFound) if *request == Request::Create => {
            Answer::Failed(WriteError::NamespaceTerminating)
        }
        Err(ApiError::NotFound) => Answer::NotFound,
        Err(ApiError::Conflict) => Answer::Conflict,
        Err(ApiError::Immutable) => Answer::Immutable,
        Err(ApiError::Denied(rule)) => match (request, rule) {
            (Request::Prove, Rule::Ownership) | (Request::ProveCreate, Rule::Creation) => Answer::Denied,
            // Another rule may have denied the request first, which proves nothing about this one.
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
    fn error_text_of_the_api_server_is_not_in_messages() {
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
