//! Writing Secrets without being able to read them: every request asks for metadata only in the answer.

use std::time::Duration;

use http::{Request, header};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Client, Resource,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::request::Request as UrlBuilder,
};
use lockstep_api::{CreationPolicy, Reason, SyncedSecret, annotation};
use lockstep_core::{Failure, assemble::DesiredSecret, remote::Requeue};
use serde_json::{Value, json};

use crate::manifest::{Base64Data, Manifest};

/// How long one request to the API server may take.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The metadata that the API server answers with.
pub(crate) const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// What identifies a Secret as it stands in the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
}

/// What a look at a Secret found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// It is there, and ours.
    There(Written),
    /// It is not there.
    Gone,
}

/// Who writes, and what.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The SyncedSecret.
    pub object: &'a SyncedSecret,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The name of the Secret.
    pub target: &'a str,
}

/// A failed request to the API server, told apart as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteError {
    /// The admission policy says that the Secret is not this SyncedSecret's.
    Foreign,
    /// The Secret does not exist, and should.
    Missing,
    /// A field cannot be changed: the Secret has to be replaced.
    Immutable,
    /// The namespace is being deleted, or is gone.
    NamespaceTerminating,
    /// The Secret, or the request, is too large.
    TooLarge,
    /// Anything else: the status code and a word for it, without the server's text.
    Other {
        /// What happened.
        what: String,
        /// Whether waiting can help.
        transient: bool,
    },
}

/// Writes Secrets.
#[derive(Clone)]
pub struct SecretWriter {
    client: Client,
}

impl std::fmt::Debug for SecretWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretWriter")
    }
}

fn requests(namespace: &str) -> UrlBuilder {
    UrlBuilder::new(Secret::url_path(&(), Some(namespace)))
}

fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(annotation::MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

impl SecretWriter {
    /// Writes through that client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Applies the Secret; `uid` makes the apply fail where the Secret is another one or does not exist.
    pub async fn apply(
        &self,
        owner: &Owner<'_>,
        secret: &DesiredSecret,
        uid: Option<&str>,
    ) -> Result<Written, WriteError> {
        let body = Patch::Apply(Manifest::new(owner, secret, uid, Base64Data(&secret.data)));
        let request = requests(owner.namespace).patch(&secret.name, &patch_params().force(), &body);
        self.send(request).await
    }

    /// Looks whether the Secret is there and ours: a patch that changes nothing, whose answer tells the version.
    pub async fn probe(&self, owner: &Owner<'_>) -> Result<Probed, WriteError> {
        let body = Patch::Merge(json!({ "metadata": { "annotations": { annotation::OWNER: owner.name } } }));
        let request = requests(owner.namespace).patch(owner.target, &patch_params(), &body);
        match self.send(request).await {
            Ok(written) => Ok(Probed::There(written)),
            Err(WriteError::Missing) => Ok(Probed::Gone),
            Err(error) => Err(error),
        }
    }

    /// Deletes the Secret, when it is ours: the probe proves it, and its uid binds the deletion to what was probed.
    pub async fn delete(&self, owner: &Owner<'_>) -> Result<(), WriteError> {
        let Probed::There(written) = self.probe(owner).await? else {
            return Ok(());
        };
        let preconditions = Preconditions {
            uid: Some(written.uid),
            resource_version: Some(written.resource_version),
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let request = requests(owner.namespace).delete(owner.target, &params);
        match self.request(request).await {
            Ok(_) | Err(WriteError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Applies the Secret, and replaces it where a field of it cannot be changed. Nothing is deleted before the API
    /// server has said that it would take the new one.
    pub async fn apply_or_replace(
        &self,
        owner: &Owner<'_>,
        secret: &DesiredSecret,
    ) -> Result<(Written, bool), WriteError> {
        if secret.creation_policy == CreationPolicy::Merge {
            let Probed::There(there) = self.probe(owner).await? else {
                return Err(WriteError::Missing);
            };
            return Ok((self.apply(owner, secret, Some(&there.uid)).await?, false));
        }
        match self.apply(owner, secret, None).await {
            Err(WriteError::Immutable) => {
                self.rehearse(owner, secret).await?;
                self.delete(owner).await?;
                Ok((self.apply(owner, secret, None).await?, true))
            }
            result => Ok((result?, false)),
        }
    }

    /// Has the API server check the Secret as a new one, under a name that nobody uses, without keeping it.
    async fn rehearse(&self, owner: &Owner<'_>, secret: &DesiredSecret) -> Result<(), WriteError> {
        let uid = owner.object.metadata.uid.as_deref().unwrap_or_default();
        let name = format!("lockstep-rehearsal-{uid}");
        let body = Patch::Apply(Manifest::new(owner, secret, None, Base64Data(&secret.data)).named(&name));
        let params = PatchParams {
            dry_run: true,
            ..patch_params().force()
        };
        let request = requests(owner.namespace).patch(&name, &params, &body);
        self.request(request).await.map(drop)
    }

    async fn send(
        &self,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Written, WriteError> {
        let answer = self.request(request).await?;
        let text = |field: &str| {
            answer
                .pointer(field)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| WriteError::Other {
                    what: "the API server answered without uid and resourceVersion".to_owned(),
                    transient: true,
                })
        };
        Ok(Written {
            uid: text("/metadata/uid")?,
            resource_version: text("/metadata/resourceVersion")?,
        })
    }

    async fn request(
        &self,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Value, WriteError> {
        let mut request = request.map_err(|_| WriteError::Other {
            what: "the request could not be built".to_owned(),
            transient: false,
        })?;
        request
            .headers_mut()
            .insert(header::ACCEPT, header::HeaderValue::from_static(METADATA_ONLY));
        match tokio::time::timeout(WRITE_TIMEOUT, self.client.request::<Value>(request)).await {
            Ok(result) => result.map_err(|error| classify(&error)),
            Err(_) => Err(WriteError::Other {
                what: format!(
                    "the API server did not answer within {} s",
                    WRITE_TIMEOUT.as_secs()
                ),
                transient: true,
            }),
        }
    }
}

/// Tells an error of the API server apart, without its text.
pub fn classify(error: &kube::Error) -> WriteError {
    let kube::Error::Api(status) = error else {
        return WriteError::Other {
            what: "the API server could not be reached".to_owned(),
            transient: true,
        };
    };
    let terminating = status.details.as_ref().is_some_and(|details| {
        details
            .causes
            .iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
    });
    match status.code {
        _ if terminating => WriteError::NamespaceTerminating,
        403 if is_policy_denial(&status.message) => WriteError::Foreign,
        404 if status.details.as_ref().is_some_and(|details| details.kind == "namespaces") => {
            WriteError::NamespaceTerminating
        }
        404 => WriteError::Missing,
        413 => WriteError::TooLarge,
        422 if is_immutability(status.details.as_ref()) => WriteError::Immutable,
        422 if status.message.contains("Too long") || status.message.contains("must have at most") => {
            WriteError::TooLarge
        }
        403 => WriteError::Other {
            what: "the API server forbids it: lockstep's role lacks a right, or a quota or another policy refuses"
                .to_owned(),
            transient: false,
        },
        code => WriteError::Other {
            what: format!("the API server answered {code} {}", word(&status.reason)),
            transient: code == 409 || code == 429 || code >= 500,
        },
    }
}

/// Whether an object is refused for nothing but fields of a Secret that cannot be changed. The message does not decide: it
/// holds names that people chose.
fn is_immutability(details: Option<&kube::core::response::StatusDetails>) -> bool {
    let causes = details
        .map(|details| details.causes.as_slice())
        .unwrap_or_default();
    let immutable = |cause: &kube::core::response::StatusCause| {
        matches!(cause.field.as_str(), "data" | "immutable" | "type")
            && cause.message.contains("field is immutable")
    };
    !causes.is_empty() && causes.iter().all(immutable)
}

/// Whether a refusal comes from lockstep's own admission policy for Secrets.
pub fn is_policy_denial(message: &str) -> bool {
    message.contains("ValidatingAdmissionPolicy") && message.contains("lockstep-secrets")
}

/// A reason of the API server: one word of letters, or nothing.
fn word(reason: &str) -> &str {
    if reason.len() <= 64 && reason.chars().all(|c| c.is_ascii_alphabetic()) {
        reason
    } else {
        ""
    }
}

impl WriteError {
    /// The label in metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Missing => "missing",
            Self::Immutable => "immutable",
            Self::NamespaceTerminating => "namespace_terminating",
            Self::TooLarge => "too_large",
            Self::Other { .. } => "error",
        }
    }

    /// Whether waiting can help.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Other { transient: true, .. })
    }

    /// What the user is told.
    pub fn failure(&self, owner: &Owner<'_>) -> Failure {
        let Owner {
            target,
            name,
            namespace,
            object,
        } = owner;
        match self {
            Self::Foreign => Failure::new(
                Reason::TargetForeign,
                format!(
                    "Secret \"{target}\" exists and is not lockstep's. To hand it over: kubectl annotate secret {target} -n {namespace} {}={name}",
                    annotation::ADOPT
                ),
            ),
            Self::Missing if object.spec.target.creation_policy == CreationPolicy::Merge => Failure::new(
                Reason::TargetNotFound,
                format!("creationPolicy: Merge writes to a Secret that exists, and \"{target}\" does not"),
            ),
            Self::Missing => Failure::new(
                Reason::WriteFailed,
                format!("Secret \"{target}\" went away while it was written"),
            )
            .requeued(Requeue::Backoff),
            Self::Immutable => Failure::new(
                Reason::WriteFailed,
                format!("Secret \"{target}\" has a field that cannot be changed, and could not be replaced"),
            )
            .requeued(Requeue::Backoff),
            Self::NamespaceTerminating => Failure::new(
                Reason::NamespaceTerminating,
                format!("namespace \"{namespace}\" is being deleted"),
            ),
            Self::TooLarge => Failure::new(
                Reason::TooLarge,
                format!("the API server refuses Secret \"{target}\" because of its size"),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, reason: &str, message: &str) -> kube::Error {
        let status = kube::core::Status {
            code,
            reason: reason.into(),
            message: message.into(),
            ..kube::core::Status::default()
        };
        kube::Error::Api(Box::new(status))
    }

    fn invalid(causes: &[(&str, &str)]) -> kube::Error {
        let cause = |(field, message): &(&str, &str)| json!({ "reason": "FieldValueInvalid", "message": message, "field": field });
        let status = json!({
            "status": "Failure", "code": 422, "reason": "Invalid", "message": "Secret \"immutable\" is invalid",
            "details": { "name": "immutable", "kind": "Secret", "causes": causes.iter().map(cause).collect::<Vec<_>>() },
        });
        kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
    }

    #[test]
    fn errors_of_the_api_server_are_told_apart() {
        let policy = "secrets \"x\" is forbidden: ValidatingAdmissionPolicy 'lockstep-secrets' with binding 'b' denied request: no";
        let rows = [
            (api(403, "Forbidden", policy), "foreign"),
            (api(403, "Forbidden", "User cannot patch"), "error"),
            (api(404, "NotFound", ""), "missing"),
            (api(413, "RequestEntityTooLarge", ""), "too_large"),
            (
                invalid(&[("data", "Forbidden: field is immutable when `immutable` is set")]),
                "immutable",
            ),
            (
                invalid(&[
                    ("type", "Invalid value: \"a\": field is immutable"),
                    ("data[tls.crt]", "Required value"),
                ]),
                "error",
            ),
            (
                invalid(&[(
                    "data[.dockerconfigjson]",
                    "Invalid value: of Secret immutable: field is immutable",
                )]),
                "error",
            ),
            (api(422, "Invalid", "Secret \"immutable\" is invalid"), "error"),
            (
                api(422, "Invalid", "data: Too long: must have at most 1048576 bytes"),
                "too_large",
            ),
            (api(503, "ServiceUnavailable", "etcd"), "error"),
        ];
        for (error, label) in rows {
            assert_eq!(classify(&error).label(), label);
        }
    }

    #[test]
    fn no_text_of_the_api_server_reaches_a_message() {
        let object = SyncedSecret::new("a", lockstep_api::SyncedSecretSpec::default());
        let owner = Owner {
            object: &object,
            namespace: "shop",
            name: "a",
            target: "a",
        };
        for code in [400, 403, 404, 409, 413, 422, 429, 500] {
            let failure = classify(&api(code, "canary canary", "canary Too long canary")).failure(&owner);
            assert!(!failure.message.contains("canary"), "{}", failure.message);
        }
    }
}
