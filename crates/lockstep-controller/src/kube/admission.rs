//! The proof that the admission policies work: what they must refuse is tried, as a dry run, and must be refused.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use lockstep_api::SyncedSecret;
use lockstep_core::time::later;
use serde_json::json;

use crate::kube::tokens;

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

/// Why nothing is proven of a policy.
#[derive(Debug)]
pub(crate) enum Unproven {
    /// The API server would have let it through.
    Open,
    /// It answered something else.
    Failed(kube::Error),
    /// It did not answer in time.
    TimedOut,
}

/// Tries, as a dry run, what a policy must refuse.
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

/// How long a proof of a policy holds.
const PROOF_LASTS: Duration = Duration::from_secs(600);

/// The proofs of a policy that is tried before what it guards is used, place by place.
#[derive(Debug)]
pub(crate) struct Proofs<K> {
    policy: &'static str,
    unguarded: bool,
    proven: Mutex<BTreeMap<K, Timestamp>>,
}

impl<K: Ord> Proofs<K> {
    /// `unguarded`: nothing has to be proven.
    pub(crate) const fn new(policy: &'static str, unguarded: bool) -> Self {
        Self {
            policy,
            unguarded,
            proven: Mutex::new(BTreeMap::new()),
        }
    }

    /// Makes the attempt, a dry run of what the policy must refuse, where the last proof for that place is too old.
    ///
    /// # Errors
    /// Why nothing is proven.
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
        let lock = || self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&place).copied();
        if known.is_some_and(holds) {
            return Ok(());
        }
        attempted(self.policy, attempt).await?;
        let mut proven = lock();
        // those of places that are gone
        proven.retain(|_, at| holds(*at));
        proven.insert(place, now);
        Ok(())
    }
}

/// The proof that the operator changes nothing of a SyncedSecret but its finalizer. It is tried on a SyncedSecret that is there, and
/// before a credential is made: nothing else needs the right.
#[derive(Debug)]
pub struct LeaseProof(Proofs<()>);

impl LeaseProof {
    /// `unguarded`: make credentials also where no policy holds the operator.
    pub const fn new(unguarded: bool) -> Self {
        Self(Proofs::new("lockstep-leases", unguarded))
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

/// Asks for a token of the operator's own account, for an audience that is on no list, as a dry run.
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
