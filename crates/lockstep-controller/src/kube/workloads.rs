//! Observes and restarts the workloads of rollouts. Workloads are read one by one while a rollout
//! needs them, and never watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use http::header;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind, Selector},
};
use lockstep_api::{RolloutTarget, WorkloadKind};
use lockstep_core::{
    reconcile::Restart,
    rotation::{
        versions,
        workload::{self, Observation, Refusal, RolloutSecret, Target},
    },
    text::{is_subdomain, path_segment},
};
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{
    access,
    admission::{Proofs, Unproven},
    request::{self, ErrorKind, METADATA_ONLY, READ_TIMEOUT},
};

/// Maximum number of workloads of one rollout that are read at the same time.
const LOOKS_AT_ONCE: usize = 8;
/// Maximum number of remembered restarts. The oldest are dropped first.
const MAX_RESTARTS: usize = 10_000;
/// Maximum backoff after unexpected restart failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The annotation that the self-test writes and the policy must deny.
const SELF_TEST_ANNOTATION: &str = "lockstep.dev/self-test";

/// Reads workloads and restarts them.
#[derive(Debug)]
pub struct Workloads {
    restarts: Mutex<BTreeMap<(String, Target), Timestamp>>,
    /// The number of consecutive unexpected restart failures.
    failures: Mutex<BTreeMap<(String, Target), u32>>,
    proofs: Proofs<(String, WorkloadKind)>,
}

fn resource(kind: WorkloadKind) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(
        kind.group(),
        kind.version(),
        kind.as_str(),
    ))
}

fn api(client: &Client, namespace: &str, kind: WorkloadKind) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(kind))
}

/// Sends a JSON patch. Of the response, only success or failure is used.
async fn move_references(
    client: &Client,
    namespace: &str,
    target: &Target,
    steps: &Value,
) -> kube::Result<()> {
    let base = DynamicObject::url_path(&resource(target.kind), Some(namespace));
    let (name, manager) = (path_segment(&target.name), workload::MOVER);
    let request = http::Request::patch(format!("{base}/{name}?fieldManager={manager}"))
        .header(header::CONTENT_TYPE, "application/json-patch+json")
        .header(header::ACCEPT, METADATA_ONLY)
        .body(serde_json::to_vec(steps).map_err(kube::Error::SerdeError)?)
        .map_err(kube::Error::HttpError)?;
    client.request::<IgnoredAny>(request).await.map(drop)
}

async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    request::bounded(READ_TIMEOUT, request).await
}

fn refusal(error: &kube::Error) -> Refusal {
    match ErrorKind::of(error) {
        ErrorKind::NotFound => Refusal::Missing,
        // RBAC, or a policy, a quota or a webhook: see `blame`
        ErrorKind::Forbidden => Refusal::Forbidden,
        // an immediate retry does not help
        ErrorKind::Invalid => Refusal::Refused,
        ErrorKind::Conflict | ErrorKind::Unavailable => Refusal::Unknown,
    }
}

/// Finds out what rejected a change of a workload with status 403: RBAC, or a later check.
async fn classify_forbidden(client: &Client, namespace: &str, target: &Target) -> Refusal {
    let attributes = ResourceAttributes {
        group: Some(target.kind.group().to_owned()),
        resource: Some(resource(target.kind).plural),
        verb: Some("patch".to_owned()),
        name: Some(target.name.clone()),
        ..ResourceAttributes::default()
    };
    match access::may(client, namespace, attributes).await {
        Some(true) => Refusal::Refused,
        Some(false) => Refusal::Forbidden,
        None => Refusal::Unknown,
    }
}

/// Returns the backoff after this many consecutive unexpected restart failures.
fn pause(failures: u32) -> Duration {
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
    Duration::from_secs(if failures == 0 { 0 } else { doubled }).min(LONGEST_PAUSE)
}

impl Workloads {
    /// With `unguarded`, workloads are restarted even if no admission policy restricts the operator
    /// to its own annotation.
    pub fn new(unguarded: bool) -> Self {
        Self {
            restarts: Mutex::default(),
            failures: Mutex::default(),
            proofs: Proofs::new("lockstep-workloads", unguarded),
        }
    }

    /// Returns the workloads that the targets select, in order.
    ///
    /// # Errors
    /// When a list fails. A kind that the cluster does not have is an empty list.
    pub async fn find(
        &self,
        client: &Client,
        namespace: &str,
        targets: &[RolloutTarget],
    ) -> Result<Vec<Target>, Refusal> {
        let mut all = Vec::new();
        for target in targets {
            let kind = target.kind;
            match (&target.name, &target.selector) {
                (Some(name), _) => all.push(Target {
                    kind,
                    name: name.clone(),
                }),
                (None, selector) => {
                    let selector = serde_json::to_value(selector)
                        .and_then(serde_json::from_value::<LabelSelector>)
                        .ok()
                        .and_then(|selector| Selector::try_from(selector).ok())
                        .ok_or(Refusal::Missing)?;
                    let parameters = ListParams::default().labels_from(&selector);
                    let list = bounded(api(client, namespace, kind).list_metadata(&parameters)).await;
                    let list = match list.map_err(|error| refusal(&error)) {
                        Err(Refusal::Missing) => continue,
                        list => list?,
                    };
                    let names = list.items.into_iter().filter_map(|item| item.metadata.name);
                    // sorted by name, so that the order is stable
                    let names: BTreeSet<String> = names.collect();
                    all.extend(names.into_iter().map(|name| Target { kind, name }));
                }
            }
        }
        Ok(all)
    }

    /// Reads workloads.
    pub async fn observe(
        &self,
        client: &Client,
        namespace: &str,
        secret: &RolloutSecret,
        targets: Vec<Target>,
    ) -> BTreeMap<Target, Observation> {
        stream::iter(targets)
            .map(|target| async move {
                // an invalid name must not be used in a URL
                if !is_subdomain(&target.name) {
                    return (target, Observation::Missing);
                }
                let object = bounded(api(client, namespace, target.kind).get(&target.name)).await;
                let observation = match object {
                    Ok(object) => serde_json::to_value(&object).map_or(Observation::Unknown, |object| {
                        workload::read(target.kind, &object, &secret.name, secret.versioned)
                    }),
                    Err(error) => match refusal(&error) {
                        Refusal::Forbidden | Refusal::Refused | Refusal::Unguarded => Observation::Forbidden,
                        Refusal::Missing => Observation::Missing,
                        Refusal::Unknown => Observation::Unknown,
                    },
                };
                (target, observation)
            })
            .buffer_unordered(LOOKS_AT_ONCE)
            .collect()
            .await
    }

    /// Restarts a workload by writing the revision to its pod template.
    ///
    /// # Errors
    /// When the restart is rejected or fails.
    pub async fn restart(
        &self,
        client: &Client,
        namespace: &str,
        restart: &Restart,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let target = &restart.target;
        let outcome = match self.try_to_restart(client, namespace, restart, now).await {
            Err(Refusal::Forbidden) => Err(classify_forbidden(client, namespace, target).await),
            outcome => outcome,
        };
        self.note(namespace, target, outcome, now);
        outcome
    }

    /// Records the result of a restart.
    fn note(&self, namespace: &str, target: &Target, outcome: Result<(), Refusal>, now: Timestamp) {
        let key = (namespace.to_owned(), target.clone());
        {
            let mut failures = self.failures.lock();
            if outcome == Err(Refusal::Unknown) {
                if failures.len() >= MAX_RESTARTS {
                    failures.clear();
                }
                let count = failures.entry(key.clone()).or_default();
                *count = count.saturating_add(1);
            } else {
                failures.remove(&key);
            }
        }
        if outcome.is_err() {
            return;
        }
        let mut restarts = self.restarts.lock();
        restarts.insert(key, now);
        if restarts.len() > MAX_RESTARTS {
            let oldest = restarts.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                restarts.remove(&oldest);
            }
        }
    }

    /// Returns the backoff before the next restart of these workloads after unexpected failures:
    /// from 1 to 15 seconds.
    pub fn pause(&self, namespace: &str, targets: &[Target]) -> Duration {
        let failures = self.failures.lock();
        let counts = targets
            .iter()
            .filter_map(|target| failures.get(&(namespace.to_owned(), target.clone())));
        pause(counts.copied().max().unwrap_or_default())
    }

    async fn try_to_restart(
        &self,
        client: &Client,
        namespace: &str,
        restart: &Restart,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Restart {
            target,
            seen,
            secret,
            revision,
        } = restart;
        let uid = &seen.uid;
        self.prove(client, namespace, target, uid, now).await?;
        if secret.versioned {
            let steps = versions::reference_patch(seen, &secret.name, revision);
            bounded(move_references(client, namespace, target, &steps))
                .await
                .map_err(|error| match &error {
                    // a test in the patch failed: the workload changed since it was read
                    kube::Error::Api(status) if status.code == 422 => Refusal::Unknown,
                    error => refusal(error),
                })?;
        } else {
            let parameters = PatchParams::apply(&workload::field_manager(&secret.name)).force();
            let patch = Patch::Apply(workload::restart(target, uid, &secret.name, revision));
            let api = api(client, namespace, target.kind);
            bounded(api.patch_metadata(&target.name, &parameters, &patch))
                .await
                .map_err(|error| refusal(&error))?;
        }
        Ok(())
    }

    /// Returns when this process last restarted each of these workloads.
    pub fn restarted(&self, namespace: &str, targets: &[Target]) -> BTreeMap<Target, Timestamp> {
        let restarts = self.restarts.lock();
        targets
            .iter()
            .filter_map(|target| {
                let at = restarts.get(&(namespace.to_owned(), target.clone()))?;
                Some((target.clone(), *at))
            })
            .collect()
    }

    /// Sends a dry run that writes an annotation of someone else, which the policy must deny.
    /// Without the policy, the right to change pod templates would let the operator run anything in
    /// the namespace.
    async fn prove(
        &self,
        client: &Client,
        namespace: &str,
        target: &Target,
        uid: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let kind = target.kind;
        let body = json!({
            "apiVersion": format!("{}/{}", kind.group(), kind.version()),
            "kind": kind.as_str(),
            "metadata": { "name": target.name, "uid": uid },
            "spec": { "template": { "metadata": { "annotations": { SELF_TEST_ANNOTATION: "refuse this" } } } },
        });
        let parameters = PatchParams::apply("lockstep.self-test").dry_run();
        let (api, patch) = (api(client, namespace, kind), Patch::Apply(body));
        let attempt = async {
            api.patch_metadata(&target.name, &parameters, &patch)
                .await
                .map(drop)
        };
        let proven = self
            .proofs
            .prove((namespace.to_owned(), kind), now, attempt)
            .await;
        proven.map_err(|unproven| match unproven {
            Unproven::Open => Refusal::Unguarded,
            Unproven::Failed(error) => refusal(&error),
            Unproven::TimedOut => Refusal::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> Target {
        Target {
            kind: WorkloadKind::Deployment,
            name: name.to_owned(),
        }
    }

    #[test]
    fn failing_restarts_back_off_until_one_gets_a_response() {
        let workloads = Workloads::new(false);
        let both = [target("api"), target("worker")];
        let now = Timestamp::from_second(0).unwrap();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            pauses.push(workloads.pause("shop", &both).as_secs());
            workloads.note("shop", &both[1], Err(Refusal::Unknown), now);
        }
        assert_eq!(pauses[..7], [0, 1, 2, 4, 8, 15, 15]);
        assert_eq!(pauses[39], 15);
        assert_eq!(workloads.pause("other", &both), Duration::ZERO);
        assert_eq!(workloads.pause("shop", &both[..1]), Duration::ZERO);
        for answer in [Ok(()), Err(Refusal::Refused), Err(Refusal::Missing)] {
            workloads.note("shop", &both[1], Err(Refusal::Unknown), now);
            workloads.note("shop", &both[1], answer, now);
            assert_eq!(workloads.pause("shop", &both), Duration::ZERO, "{answer:?}");
        }
        assert_eq!(
            workloads.restarted("shop", &both).len(),
            1,
            "only one was restarted"
        );
    }

    #[test]
    fn only_missing_permission_is_reported_as_such() {
        let error = |code: u16| {
            let status = kube::core::Status::failure("x", "X").with_code(code);
            kube::Error::Api(Box::new(status))
        };
        for (code, expected) in [
            (400, Refusal::Refused),
            (401, Refusal::Unknown),
            (403, Refusal::Forbidden),
            (404, Refusal::Missing),
            (409, Refusal::Unknown),
            (422, Refusal::Refused),
            (429, Refusal::Unknown),
            (500, Refusal::Unknown),
        ] {
            assert_eq!(refusal(&error(code)), expected, "{code}");
        }
    }
}
