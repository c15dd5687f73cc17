//! The proof that the admission policies work: what they must refuse is tried, as a dry run, and must be refused.

use std::time::Duration;

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
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
