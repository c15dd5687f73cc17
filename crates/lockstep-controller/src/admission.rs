//! The proof that the admission policies work: what they must refuse is tried, as a dry run, and must be refused.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use lockstep_api::SyncedSecret;
use lockstep_core::decide::later;
use serde_json::json;

/// The name that is tried; it never comes to exist.
pub const SELF_TEST_NAME: &str = "lockstep-admission-self-test";

const TIMEOUT: Duration = Duration::from_secs(15);

/// What a self-test found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The policy refused, as it must.
    Enforced,
    /// The API server would have let it through: the policy is missing or not bound to this account.
    Open,
    /// It could not be found out: why, without the server's text.
    Unknown(&'static str),
}

fn verdict(result: Result<kube::Result<()>, tokio::time::error::Elapsed>, policy: &str) -> Verdict {
    match result {
        Ok(Ok(())) => Verdict::Open,
        Ok(Err(kube::Error::Api(status)))
            if status.message.contains("ValidatingAdmissionPolicy") && status.message.contains(policy) =>
        {
            Verdict::Enforced
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Verdict::Unknown(
            "the API server forbids the attempt itself: lockstep's role lacks a right that it needs",
        ),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            Verdict::Unknown("the operator's namespace or ServiceAccount does not exist")
        }
        Ok(Err(_)) => Verdict::Unknown("the API server could not be asked"),
        Err(_) => Verdict::Unknown("the API server did not answer in time"),
    }
}

/// How long the proof of the policy for leases holds.
const PROOF_LASTS: Duration = Duration::from_secs(600);

/// The proof that the operator changes nothing of a SyncedSecret but its finalizer. It is tried on a SyncedSecret that is there, and
/// before a credential is made: nothing else needs the right.
#[derive(Debug, Default)]
pub struct LeaseProof {
    unguarded: bool,
    proven: Mutex<Option<Timestamp>>,
}

impl LeaseProof {
    /// `unguarded`: make credentials also where no policy holds the operator.
    pub fn new(unguarded: bool) -> Self {
        Self {
            unguarded,
            ..Self::default()
        }
    }

    /// Tries, as a dry run, to give a SyncedSecret a label.
    ///
    /// # Errors
    /// Why nothing is proven.
    pub async fn prove(
        &self,
        client: &Client,
        (namespace, name, uid): (&str, &str, &str),
        now: Timestamp,
    ) -> Result<(), Verdict> {
        let known = *self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if self.unguarded || known.is_some_and(|at| now < later(at, PROOF_LASTS)) {
            return Ok(());
        }
        let api: Api<SyncedSecret> = Api::namespaced(client.clone(), namespace);
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let label = json!({ "lockstep.dev/self-test": "refuse-this" });
        let patch = Patch::Merge(json!({ "metadata": { "uid": uid, "labels": label } }));
        let attempt = async { api.patch_metadata(name, &params, &patch).await.map(drop) };
        match verdict(tokio::time::timeout(TIMEOUT, attempt).await, "lockstep-leases") {
            Verdict::Enforced => {
                *self.proven.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                Ok(())
            }
            other => Err(other),
        }
    }
}

/// Tries to write a Secret without an owner, as a dry run.
pub async fn secrets(client: &Client, namespace: &str) -> Verdict {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::apply("lockstep").force().dry_run();
    let body = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": SELF_TEST_NAME } });
    let attempt = async {
        api.patch_metadata(SELF_TEST_NAME, &params, &Patch::Apply(body))
            .await
            .map(drop)
    };
    verdict(tokio::time::timeout(TIMEOUT, attempt).await, "lockstep-secrets")
}

/// Asks for a token of the operator's own account, for an audience that is on no list, as a dry run.
pub async fn token_requests(client: &Client, namespace: &str, service_account: &str) -> Verdict {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![SELF_TEST_NAME.to_owned()],
            expiration_seconds: Some(600),
            bound_object_ref: None,
        },
        ..TokenRequest::default()
    };
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let attempt = async {
        api.create_token_request(service_account, &params, &request)
            .await
            .map(drop)
    };
    verdict(
        tokio::time::timeout(TIMEOUT, attempt).await,
        "lockstep-token-requests",
    )
}
