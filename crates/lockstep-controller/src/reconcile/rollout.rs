//! Runs one step of a rollout: observes the targets, restarts those that are due, and reports it.

use std::{collections::BTreeMap, time::Duration};

use lockstep_api::{Rollout, RolloutStatus, RotationStatus, SyncedSecretStatus, TargetState};
use lockstep_core::{
    report::Outcome,
    rotation::{
        self, Check, RolloutInput, rollout,
        verify::{self, Attempt},
        workload::{Observation, Target},
    },
    text::shell_quote,
    time::later,
};

use super::item::Reconcile;
use crate::{
    identity::Account,
    verifier::Place,
    workloads::{Carried, Refusal},
};

/// The ClusterRole to bind in namespaces whose workloads lockstep may restart.
const ROLE: &str = "lockstep-rollouts";
/// Maximum number of targets that a message names.
const NAMED: usize = 5;

impl Reconcile {
    pub(super) async fn roll_out(&self, status: Option<&SyncedSecretStatus>) -> &'static str {
        let shared = &self.shared;
        let spec = self.object.spec.rotation.as_ref();
        let spec = spec.and_then(|rotation| rotation.rollout.as_ref());
        let rotation = status.and_then(|status| status.rotation.as_ref());
        let target = status.and_then(|status| status.target.as_ref());
        let rollout = rotation.and_then(|rotation| rotation.rollout.as_ref());
        let (Some(spec), Some(rotation), Some(target), Some(rollout)) = (spec, rotation, target, rollout)
        else {
            return "unchanged";
        };
        let namespace = &*self.key.namespace;
        let now = shared.steady.now();
        let grant = grant(&shared.account, namespace);
        let mut next = rollout.clone();
        let generation = self.object.metadata.generation.unwrap_or_default();
        let mut seen = BTreeMap::new();
        if rollout::wants_targets(&next, generation) {
            match shared
                .workloads
                .find(&shared.client, namespace, &spec.targets)
                .await
            {
                Ok(found) => {
                    next = rollout::resolve(&next, &found, spec, generation, now);
                    if next.generation.is_none() {
                        // they are too many: what it came to stays as it is
                        let rotation = rotation::stepped(rotation, next.clone(), None, now);
                        return self.looked(&next, status, rotation).await;
                    }
                }
                // nothing can be looked up, so nothing that is named either
                Err(Refusal::Forbidden | Refusal::Refused) => {
                    let named = spec.targets.iter().map(|target| Target {
                        kind: target.kind,
                        name: target.name.clone().unwrap_or_else(|| "*".to_owned()),
                    });
                    let named: Vec<Target> = named.collect();
                    next = rollout::resolve(&next, &named, spec, generation, now);
                    next.generation = None;
                    seen = named
                        .into_iter()
                        .map(|target| (target, Observation::Forbidden))
                        .collect();
                }
                Err(_) => return self.looked(&next, status, rotation.clone()).await,
            }
        }
        let names = rollout::looks(&next);
        let owner = self.owner();
        let secret = Carried {
            name: if target.versioned {
                owner.target
            } else {
                &target.name
            },
            versioned: target.versioned,
        };
        if seen.is_empty() {
            seen = shared
                .workloads
                .look(&shared.client, namespace, secret, names.clone())
                .await;
        }
        let restarted = shared.workloads.restarted(namespace, &names);
        let check = Box::pin(self.verify(&next, spec)).await;
        let cx = RolloutInput {
            spec,
            seen: &seen,
            restarted: &restarted,
            check: &check,
            grant: &grant,
            now,
        };
        let step = rollout::step(&next, &cx);
        next = step.rollout;
        let mut refused: Vec<String> = Vec::new();
        for (workload, _) in step.restart {
            let revision = next.revision.clone();
            let Some(Observation::There(there)) = seen.get(&workload) else {
                continue;
            };
            let restart = shared.workloads.restart(
                &shared.client,
                namespace,
                (&workload, there),
                secret,
                &revision,
                now,
            );
            let outcome = restart.await;
            let label = match outcome {
                Ok(()) => {
                    tracing::info!(target = %workload, %revision, "restarted");
                    rollout::restarted(&mut next, &workload, now);
                    "restarted"
                }
                Err(Refusal::Forbidden) => {
                    rollout::refused(&mut next, &workload, &cx);
                    "forbidden"
                }
                Err(Refusal::Refused) => {
                    rollout::refused(&mut next, &workload, &cx);
                    refused.push(workload.to_string());
                    "refused"
                }
                Err(Refusal::Unguarded) => {
                    tracing::error!(
                        namespace,
                        "the admission policy lockstep-workloads does not refuse what it must refuse; not restarting workloads"
                    );
                    let grant = "kubectl apply --server-side -k deploy/kustomize/base (installs the admission policy lockstep-workloads, without which lockstep restarts nothing)";
                    rollout::refused(&mut next, &workload, &RolloutInput { grant, ..cx });
                    "unguarded"
                }
                // the next observation shows the result
                Err(Refusal::Missing) => "missing",
                Err(Refusal::Unknown) => "error",
            };
            shared.metrics.restarts.with_label_values(&[label]).inc();
        }
        let forbidden = next
            .targets
            .iter()
            .filter(|target| target.state == TargetState::Forbidden);
        // a missing permission has priority
        if !refused.is_empty() && forbidden.count() == refused.len() {
            next.message = Some(refuses(&refused));
        }
        let sources = status.map(|status| status.sources.as_slice()).unwrap_or_default();
        let rotation = rotation::stepped(rotation, next.clone(), Some((target, sources)), now);
        self.looked(&next, status, rotation).await
    }

    /// Starts the check in progress, or observes it.
    async fn verify(&self, rollout: &RolloutStatus, spec: &Rollout) -> Check {
        let (Some(verification), Some(verify)) = (verify::wanted(rollout, spec), &spec.verify) else {
            return Check::Unknown;
        };
        let place = Place {
            client: &self.shared.client,
            account: &self.shared.account,
            namespace: &self.key.namespace,
        };
        let attempt = Attempt {
            synced_secret: &self.key.name,
            uid: &self.uid,
            rollout,
            verification,
        };
        let now = self.shared.steady.now();
        self.shared.verifier.check(&place, verify, &attempt, now).await
    }

    /// Reports the progress of the rollout and plans the next observation.
    async fn looked(
        &self,
        rollout: &RolloutStatus,
        status: Option<&SyncedSecretStatus>,
        rotation: RotationStatus,
    ) -> &'static str {
        let (now, steady) = (self.shared.clock.now(), self.shared.steady.now());
        let names = rollout::looks(rollout);
        let restarts = self.shared.workloads.restarted(&self.key.namespace, &names);
        let spec = self.object.spec.rotation.as_ref();
        if let Some(spec) = spec.and_then(|rotation| rotation.rollout.as_ref()) {
            let next = rollout::next_look(rollout, spec, &restarts, steady);
            let pause = self.shared.workloads.pause(&self.key.namespace, &names);
            let wait = next.map(|next| Duration::try_from(next.duration_since(steady)).unwrap_or_default());
            let wait = wait.map(|wait| wait.max(pause));
            let next = wait.map(|wait| later(now, wait));
            self.remember(|tracked, _, _| tracked.memory.next_look = next);
        }
        self.report(status, Outcome::Stepped(rotation)).await;
        "rollout"
    }
}

/// Returns the message about restarts that RBAC allows but the API server rejects.
fn refuses(targets: &[String]) -> String {
    let named = targets.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match targets.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{named}{more}: RBAC allows the restart, but an admission webhook, an admission policy or a quota rejects it. The rollout continues when the restart is accepted"
    )
}

/// Returns the command that lets lockstep restart workloads in a namespace.
fn grant(account: &Account, namespace: &str) -> String {
    format!(
        "kubectl create rolebinding {ROLE} -n {} --clusterrole={ROLE} {}",
        shell_quote(namespace),
        account.kubectl_option()
    )
}
