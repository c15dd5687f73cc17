//! Proves that the admission policies are enforced: sends requests that they must deny, as dry
//! runs.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use lockstep_api::SyncedSecret;
use lockstep_core::time::later;
use parking_lot::Mutex;
use serde_json::json;

use crate::kube::tokens;

/// The name in the forbidden requests. No object with this name is ever created.
pub const SELF_TEST_NAME: &str = "lockstep-admission-self-test";

const TIMEOUT: Duration = Duration::from_secs(15);

/// The result of a self-test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The policy denied the request.
    Enforced,
    /// The API server would have allowed the request: the policy is missing or not bound to this
    /// account.
    Open,
    /// The self-test was inconclusive, for this reason. The text of the server is not included.
    Unknown(&'static str),
}

/// The reason why a policy is not proven.
#[derive(Debug)]
pub(crate) enum Unproven {
    /// The API server would have allowed the request.
    Open,
    /// The API server returned another error.
    Failed(kube::Error),
    /// The API server did not respond in time.
    TimedOut,
}

/// Sends a dry run of a request that a policy must deny.
async fn attempted(policy: &str, attempt: impl Future<Output = kube::Result<()>>) -> Result<(), Unproven> {
    match tokio::time::timeout(TIMEOUT, attempt).await {
        Ok(Ok(())) => Err(Unproven::Open),
        Ok(Err(kube::Error::Api(status)))
            if status.message.contains("ValidatingAdmissionPolicy") && status.message.contains(policy) =>
        {
            Ok(())
        }
        Ok(Err(error)) => Err(Unproven::Failed(error)),
        Err(_) => Err(Unproven::TimedOut),
    }
}

impl From<Result<(), Unproven>> for Verdict {
    fn from(result: Result<(), Unproven>) -> Self {
        match result {
            Ok(()) => Self::Enforced,
            Err(Unproven::Open) => Self::Open,
            Err(Unproven::Failed(kube::Error::Api(status))) if status.code == 403 => Self::Unknown(
                "the API server forbids the attempt itself: lockstep's role lacks a right that it needs",
            ),
            Err(Unproven::Failed(kube::Error::Api(status))) if status.code == 404 => {
                Self::Unknown("the operator's namespace or ServiceAccount does not exist")
            }
            Err(Unproven::Failed(_)) => Self::Unknown("the API server could not be asked"),
            Err(Unproven::TimedOut) => Self::Unknown("the API server did not answer in time"),
        }
    }
}

/// How long a proof of a policy is valid.
const PROOF_LASTS: Duration = Duration::from_secs(600);

/// The proofs of a policy, by location. The policy is tested before the right that it restricts is
/// used.
#[derive(Debug)]
pub(crate) struct Proofs<K> {
    policy: &'static str,
    unguarded: bool,
    proven: Mutex<BTreeMap<K, Timestamp>>,
}

impl<K: Ord> Proofs<K> {
    /// Creates an empty set of proofs. With `unguarded`, nothing has to be proven.
    pub(crate) const fn new(policy: &'static str, unguarded: bool) -> Self {
        Self {
            policy,
            unguarded,
            proven: Mutex::new(BTreeMap::new()),
        }
    }

    /// Makes the attempt, a dry run that the policy must deny, if the last proof for this location
    /// has expired.
    ///
    /// # Errors
    /// The reason why the policy is not proven.
    pub(crate) async fn prove(
        &self,
        place: K,
        now: Timestamp,
        attempt: impl Future<Output = kube::Result<()>>,
    ) -> Result<(), Unproven> {
        if self.unguarded {
            return Ok(());
        }
        let holds = |at: Timestamp| now < later(at, PROOF_LASTS);
        let lock = || self.proven.lock();
        let known = lock().get(&place).copied();
        if known.is_some_and(holds) {
            return Ok(());
        }
        attempted(self.policy, attempt).await?;
        let mut proven = lock();
        // Drop expired proofs, including those of deleted locations.
        proven.retain(|_, at| holds(*at));
        proven.insert(place, now);
        Ok(())
    }
}

/// Proves that the operator can change only the finalizer of a SyncedSecret. The test uses an
/// existing SyncedSecret and runs before a credential is issued, because nothing else needs the
/// right.
#[derive(Debug)]
pub struct LeaseProof(Proofs<()>);

impl LeaseProof {
    /// Creates an empty proof. With `unguarded`, credentials are issued even if no policy restricts
    /// the operator.
    pub const fn new(unguarded: bool) -> Self {
        Self(Proofs::new("lockstep-leases", unguarded))
    }

    /// Tries to add a label to a SyncedSecret, as a dry run.
    ///
    /// # Errors
    /// The reason why the policy is not proven.
    pub async fn prove(
        &self,
        client: &Client,
        (namespace, name, uid): (&str, &str, &str),
        now: Timestamp,
    ) -> Result<(), Verdict> {
        let api: Api<SyncedSecret> = Api::namespaced(client.clone(), namespace);
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let label = json!({ "lockstep.dev/self-test": "refuse-this" });
        let patch = Patch::Merge(json!({ "metadata": { "uid": uid, "labels": label } }));
        let attempt = async { api.patch_metadata(name, &params, &patch).await.map(drop) };
        let proven = self.0.prove((), now, attempt).await;
        proven.map_err(|unproven| Verdict::from(Err(unproven)))
    }
}

/// Tries to write a Secret without an owner, as a dry run.
pub async fn secrets(client: &Client, namespace: &str) -> Verdict {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SELF_TEST_NAME.to_owned()),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    let attempt = async { api.create(&params, &secret).await.map(drop) };
    attempted("lockstep-secrets", attempt).await.into()
}

/// Requests a token of the operator's own account for an audience that is on no list, as a dry run.
pub async fn token_requests(client: &Client, namespace: &str, service_account: &str) -> Verdict {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = tokens::request(SELF_TEST_NAME);
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let attempt = async {
        api.create_token_request(service_account, &params, &request)
            .await
            .map(drop)
    };
    attempted("lockstep-token-requests", attempt).await.into()
}
