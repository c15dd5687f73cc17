//! One step of a rollout: observe the targets, restart those that are due, and report it.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use lockstep_api::{Rollout, RolloutStatus, RotationStatus, SyncedSecretStatus, TargetState, TargetStatus};

use super::{
    effect::{CurrentStatus, Record, Restart, RunCheck},
    run::Run,
};
use crate::{
    report::Outcome,
    rotation::{
        self, Check, RolloutInput, rollout, verify,
        workload::{Observation, Refusal, RolloutSecret, Target},
    },
    secret_write::Drift,
    text::shell_quote,
    time::later,
};

/// The ClusterRole to bind in namespaces whose workloads lockstep may restart.
const ROLE: &str = "lockstep-rollouts";
/// Maximum number of targets that a message names.
const NAMED: usize = 5;
/// What installs the admission policy without which lockstep restarts nothing.
const INSTALL_POLICY: &str = "kubectl apply --server-side -k deploy/kustomize/base (installs the admission policy lockstep-workloads, without which lockstep restarts nothing)";

/// What a rollout step works on.
struct Step {
    spec: Rollout,
    rotation: RotationStatus,
    target: TargetStatus,
    secret: RolloutSecret,
    /// The command that lets lockstep restart workloads in the namespace.
    grant: String,
    /// The time at which the step began.
    now: Timestamp,
}

/// The targets of a rollout at the beginning of a step.
enum Targets {
    /// They are known, and observed if that needed no request.
    Known(Box<RolloutStatus>, BTreeMap<Target, Observation>),
    /// The step ends without observing any.
    Ended(Box<(RolloutStatus, RotationStatus)>),
}

impl Run {
    pub(super) async fn roll_out(&mut self) -> &'static str {
        let Some((step, rollout)) = self.rollout_step() else {
            return "unchanged";
        };
        let (rollout, rotation) = match self.find_targets(&step, rollout).await {
            Targets::Ended(ended) => *ended,
            Targets::Known(rollout, seen) => {
                let next = self.advance(&step, *rollout, seen).await;
                let sources = self.status.as_ref().map(|status| status.sources.as_slice());
                let written = Some((&step.target, sources.unwrap_or_default()));
                let rotation = rotation::stepped(&step.rotation, next.clone(), written, step.now);
                (next, rotation)
            }
        };
        self.plan_next_observation(&step.spec, &rollout).await;
        self.report(Outcome::Stepped(rotation)).await;
        "rollout"
    }

    fn rollout_step(&self) -> Option<(Step, RolloutStatus)> {
        let spec = self.facts.object.spec.rotation.as_ref()?.rollout.clone()?;
        let status: &SyncedSecretStatus = self.status.as_deref()?;
        let (rotation, target) = (status.rotation.clone()?, status.target.clone()?);
        let rollout = rotation.rollout.clone()?;
        let name = if target.versioned {
            self.facts.target_name()
        } else {
            &target.name
        };
        let secret = RolloutSecret {
            name: name.to_owned(),
            versioned: target.versioned,
        };
        let step = Step {
            spec,
            rotation,
            target,
            secret,
            grant: grant(&self.facts.account, &self.facts.namespace),
            now: self.moment().steady,
        };
        Some((step, rollout))
    }

    /// Finds the targets if that is due.
    async fn find_targets(&self, step: &Step, rollout: RolloutStatus) -> Targets {
        let generation = self.facts.generation();
        if !rollout::wants_targets(&rollout, generation) {
            return Targets::Known(Box::new(rollout), BTreeMap::new());
        }
        let resolve = |found: &[Target]| rollout::resolve(&rollout, found, &step.spec, generation, step.now);
        match self.effects.find_targets(step.spec.targets.clone()).await {
            Ok(found) => {
                let next = resolve(&found);
                if next.generation.is_some() {
                    return Targets::Known(Box::new(next), BTreeMap::new());
                }
                // they are too many, so the rollout stays as it is
                let rotation = rotation::stepped(&step.rotation, next.clone(), None, step.now);
                Targets::Ended(Box::new((next, rotation)))
            }
            // without the right to list, no named target can be read either
            Err(Refusal::Forbidden | Refusal::Refused) => {
                let named = step.spec.targets.iter().map(|target| Target {
                    kind: target.kind,
                    name: target.name.clone().unwrap_or_else(|| "*".to_owned()),
                });
                let named: Vec<Target> = named.collect();
                let mut next = resolve(&named);
                next.generation = None;
                let forbidden = |target| (target, Observation::Forbidden);
                Targets::Known(Box::new(next), named.into_iter().map(forbidden).collect())
            }
            Err(_) => Targets::Ended(Box::new((rollout, step.rotation.clone()))),
        }
    }

    /// Observes the targets and restarts those that are due.
    async fn advance(
        &mut self,
        step: &Step,
        rollout: RolloutStatus,
        mut seen: BTreeMap<Target, Observation>,
    ) -> RolloutStatus {
        let names = rollout::targets_to_observe(&rollout);
        if seen.is_empty() {
            seen = self
                .effects
                .observe_targets((step.secret.clone(), names.clone()))
                .await;
        }
        let restarts = self.effects.recall_restarts(names).await;
        let check = self.verify(&rollout, &step.spec).await;
        let input = RolloutInput {
            spec: &step.spec,
            seen: &seen,
            restarted: &restarts.at,
            check: &check,
            grant: &step.grant,
            now: step.now,
        };
        let rollout::Step {
            rollout: mut next,
            restart,
        } = rollout::step(&rollout, &input);
        if !restart.is_empty() && !self.is_recorded(&step.target).await {
            return next;
        }
        let mut refused: Vec<String> = Vec::new();
        for (target, _) in restart {
            let Some(Observation::There(workload)) = seen.get(&target) else {
                continue;
            };
            let request = Restart {
                target: target.clone(),
                seen: workload.clone(),
                secret: step.secret.clone(),
                revision: next.revision.clone(),
            };
            let label = match self.effects.restart(request).await {
                Ok(()) => {
                    rollout::restarted(&mut next, &target, step.now);
                    "restarted"
                }
                Err(Refusal::Forbidden) => {
                    rollout::refused(&mut next, &target, &input);
                    "forbidden"
                }
                Err(Refusal::Refused) => {
                    rollout::refused(&mut next, &target, &input);
                    refused.push(target.to_string());
                    "refused"
                }
                Err(Refusal::Unguarded) => {
                    let grant = INSTALL_POLICY;
                    rollout::refused(&mut next, &target, &RolloutInput { grant, ..input });
                    "unguarded"
                }
                // the next observation shows the result
                Err(Refusal::Missing) => "missing",
                Err(Refusal::Unknown) => "error",
            };
            self.record(Record::Restart(target, label)).await;
        }
        let forbidden = next
            .targets
            .iter()
            .filter(|target| target.state == TargetState::Forbidden);
        // a missing permission has priority
        if !refused.is_empty() && forbidden.count() == refused.len() {
            next.message = Some(describe_rejections(&refused));
        }
        next
    }

    /// Whether the Secret of the known status is the current one. Otherwise pods that restart would
    /// get another value than the one that is rolled out: someone edited the Secret, an operator
    /// ended before it recorded what it wrote, or this one was paused while another continued.
    async fn is_recorded(&mut self, target: &TargetStatus) -> bool {
        if target.versioned {
            // the Secret of an earlier revision can still exist
            return self.is_current().await;
        }
        match self.find_drift(&target.name, target).await {
            Ok(Drift::None) => true,
            Ok(Drift::Edited | Drift::Gone) => {
                self.memory.drifted();
                // the probe syncs the Secret
                self.memory.next_probe = Some(self.moment().wall);
                false
            }
            // the next step probes again
            Err(_) => false,
        }
    }

    /// Whether the API server still has the known status.
    async fn is_current(&self) -> bool {
        let current = self.effects.read_status(()).await;
        matches!(current, CurrentStatus::Found { status, .. } if status.as_deref() == self.status.as_deref())
    }

    /// Starts the check in progress, or observes it.
    async fn verify(&self, rollout: &RolloutStatus, spec: &Rollout) -> Check {
        let (Some(verification), Some(verify)) = (verify::wanted(rollout, spec), &spec.verify) else {
            return Check::Unknown;
        };
        // an operator that was paused while another continued starts nothing
        if !verification.job_created && !self.is_current().await {
            return Check::Unknown;
        }
        let check = RunCheck {
            verify: verify.clone(),
            rollout: rollout.clone(),
            verification: verification.clone(),
        };
        self.effects.run_check(Box::new(check)).await
    }

    /// Plans the next observation of the targets.
    async fn plan_next_observation(&mut self, spec: &Rollout, rollout: &RolloutStatus) {
        let restarts = self
            .effects
            .recall_restarts(rollout::targets_to_observe(rollout))
            .await;
        let moment = self.moment();
        let next = rollout::next_observation(rollout, spec, &restarts.at, moment.steady);
        let wait = next.map(|next| {
            let wait = Duration::try_from(next.duration_since(moment.steady)).unwrap_or_default();
            wait.max(restarts.pause)
        });
        self.memory.next_observation = wait.map(|wait| later(moment.wall, wait));
    }
}

/// Returns the message about restarts that RBAC allows but the API server rejects.
fn describe_rejections(targets: &[String]) -> String {
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
fn grant(account: &str, namespace: &str) -> String {
    format!(
        "kubectl create rolebinding {ROLE} -n {} --clusterrole={ROLE} {account}",
        shell_quote(namespace),
    )
}
