//! Workloads whose pods read the Secret when they start, and the checks between waves.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use lockstep_api::{TargetState, WorkloadKind};
use lockstep_core::{
    reconcile::{Restart, RunCheck},
    rotation::{
        Check,
        references::{self, References},
        verify::{self, Attempt},
        workload::{Observation, Readiness, Refusal, RolloutSecret, Target, Workload},
    },
};

use super::{FakeCluster, FakeSecrets, NAME, UID};

/// How long a pod takes to become ready, and a Job to complete, in seconds.
const STARTS: i64 = 5;

/// A workload.
#[derive(Debug, Clone)]
pub struct FakeWorkload {
    /// The revision in its pod template.
    pub revision: Option<String>,
    /// The content that its pods read from the Secret.
    pub content: Option<String>,
    /// Whether it exists.
    pub exists: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// The number of restarts.
    pub restarts: usize,
    since: Timestamp,
}

/// The behaviour of the checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Checks {
    /// They pass, except for unfit contents.
    #[default]
    Work,
    /// They never end.
    Hang,
    /// Their CronJob does not exist.
    Missing,
    /// lockstep lacks the permission to run them.
    Forbidden,
}

/// The workloads of the namespace.
#[derive(Debug, Default)]
pub struct FakeWorkloads {
    /// The workloads.
    pub all: BTreeMap<Target, FakeWorkload>,
    /// Contents that prevent pods from becoming ready.
    pub bad: BTreeSet<String>,
    /// Contents that fail every check.
    pub unfit: BTreeSet<String>,
    /// The behaviour of the checks.
    pub checks: Checks,
    /// Whether requests about workloads fail.
    pub down: bool,
    /// The contents of the revisions that a restart brought to pods.
    contents: BTreeMap<String, String>,
    jobs: BTreeMap<String, Timestamp>,
    /// The waves that a check passed: start time, revision and wave of the rollout.
    passed: BTreeSet<(Timestamp, String, i64)>,
}

impl FakeWorkloads {
    /// Creates Deployments.
    pub fn deployments(count: usize) -> Self {
        let workload = FakeWorkload {
            revision: None,
            content: None,
            exists: true,
            paused: false,
            restarts: 0,
            since: Timestamp::MIN,
        };
        let name = |number| Target {
            kind: WorkloadKind::Deployment,
            name: format!("t{number}"),
        };
        Self {
            all: (0..count)
                .map(|number| (name(number), workload.clone()))
                .collect(),
            ..Self::default()
        }
    }

    /// Returns a workload. The number wraps around.
    pub fn nth(&mut self, number: usize) -> Option<&mut FakeWorkload> {
        let count = self.all.len().max(1);
        self.all.values_mut().nth(number % count)
    }

    /// Returns the workloads whose pods have this content.
    pub(super) fn users(&self, content: &str) -> Vec<String> {
        let uses = |workload: &FakeWorkload| workload.exists && workload.content.as_deref() == Some(content);
        let all = self.all.iter().filter(|(_, workload)| uses(workload));
        all.map(|(target, _)| target.to_string()).collect()
    }

    pub(super) fn find(&self) -> Result<Vec<Target>, Refusal> {
        if self.down {
            return Err(Refusal::Unknown);
        }
        Ok(self.all.keys().cloned().collect())
    }

    pub(super) fn observe(
        &self,
        secret: &RolloutSecret,
        targets: &[Target],
        now: Timestamp,
    ) -> BTreeMap<Target, Observation> {
        let observe = |target: &Target| match self.all.get(target) {
            _ if self.down => Observation::Unknown,
            Some(workload) if workload.exists => Observation::There(Workload {
                uid: "uid".to_owned(),
                revision: workload.revision.clone(),
                references: secret.versioned.then(References::default),
                readiness: self.readiness(workload, now),
            }),
            Some(_) | None => Observation::Missing,
        };
        let observed = targets.iter().map(|target| (target.clone(), observe(target)));
        observed.collect()
    }

    fn readiness(&self, workload: &FakeWorkload, now: Timestamp) -> Readiness {
        let is_bad = workload
            .content
            .as_ref()
            .is_some_and(|content| self.bad.contains(content));
        let is_young = workload.revision.is_some() && now < after(workload.since);
        if workload.paused {
            Readiness::Paused
        } else if is_bad || is_young {
            Readiness::Progressing
        } else {
            Readiness::Ready
        }
    }

    pub(super) fn restart(
        &mut self,
        restart: &Restart,
        secrets: &FakeSecrets,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if self.down {
            return Err(Refusal::Unknown);
        }
        let workload = self
            .all
            .get_mut(&restart.target)
            .filter(|workload| workload.exists);
        let workload = workload.ok_or(Refusal::Missing)?;
        let name = if restart.secret.versioned {
            references::name(&restart.secret.name, &restart.revision)
        } else {
            restart.secret.name.clone()
        };
        let content = secrets
            .all
            .get(&name)
            .and_then(|secret| secret.data.get("username"));
        workload.content = content.cloned();
        workload.revision = Some(restart.revision.clone());
        workload.since = now;
        workload.restarts += 1;
        if let Some(content) = content {
            self.contents.insert(restart.revision.clone(), content.clone());
        }
        Ok(())
    }

    fn job_name(check: &RunCheck) -> String {
        verify::job_name(&Attempt {
            synced_secret: NAME,
            uid: UID,
            rollout: &check.rollout,
            verification: &check.verification,
        })
    }

    pub(super) fn check(&mut self, check: &RunCheck, now: Timestamp) -> Check {
        if self.down {
            return Check::Unknown;
        }
        match self.checks {
            Checks::Missing => return Check::Blocked("missing".to_owned()),
            Checks::Forbidden => return Check::Forbidden("forbidden".to_owned()),
            Checks::Work | Checks::Hang => {}
        }
        let made = *self.jobs.entry(Self::job_name(check)).or_insert(now);
        if self.checks == Checks::Hang || now < after(made) {
            return Check::NotYet("not yet".to_owned());
        }
        let revision = &check.rollout.revision;
        let content = self.contents.get(revision);
        if content.is_some_and(|content| self.unfit.contains(content)) {
            return Check::Failed("unfit".to_owned());
        }
        let wave = check.verification.wave;
        self.passed
            .insert((check.rollout.start_time, revision.clone(), wave));
        Check::Passed
    }

    /// Whether a check passed for a wave of a rollout.
    pub fn has_passed(&self, start_time: Timestamp, revision: &str, wave: i64) -> bool {
        self.passed.contains(&(start_time, revision.to_owned(), wave))
    }
}

fn after(since: Timestamp) -> Timestamp {
    since
        .saturating_add(SignedDuration::from_secs(STARTS))
        .unwrap_or(since)
}

impl FakeCluster {
    /// A workload is restarted only for another revision, the one of the Secret, and in its wave.
    pub(super) fn check_restart(&mut self, restart: &Restart) {
        let Restart { target, revision, .. } = restart;
        let status = self.status();
        let mut violations = Vec::new();
        if self
            .workloads
            .all
            .get(target)
            .and_then(|workload| workload.revision.as_ref())
            == Some(revision)
        {
            violations.push(format!("{target} was restarted without cause"));
        }
        if status.target.as_ref().map(|target| &target.revision) != Some(revision) {
            violations.push(format!(
                "{target} gets {revision}, which the Secret does not have"
            ));
        }
        let rollout = status.rotation.and_then(|rotation| rotation.rollout);
        let rollout = rollout.filter(|rollout| rollout.revision == *revision);
        let wave = rollout.as_ref().and_then(|rollout| {
            let progress = rollout.targets.iter().find(|one| one.name == target.name)?;
            Some(progress.wave)
        });
        // the first step has not recorded its targets yet, and begins with the first wave
        if let (Some(rollout), Some(wave)) = (rollout, wave) {
            for before in rollout.targets.iter().filter(|before| before.wave < wave) {
                let carried = self.workloads.all.get(&Target::from(before));
                let carried = carried.and_then(|workload| workload.revision.as_ref());
                if carried != Some(revision) && before.state != TargetState::Missing {
                    violations.push(format!("wave {wave} begins, and {before} was left out"));
                }
            }
            let spec = self.object.spec.rotation.as_ref();
            let verifies = spec.and_then(|rotation| rotation.rollout.as_ref()?.verify.as_ref());
            if verifies.is_some() && !rollout.rollback {
                for before in 1..wave {
                    if !self.workloads.has_passed(rollout.start_time, revision, before) {
                        violations.push(format!("wave {wave} begins, and wave {before} is not verified"));
                    }
                }
            }
        }
        self.violations.extend(violations);
    }

    /// A check is recorded in the status before its Job is created.
    pub(super) fn check_recorded(&mut self, check: &RunCheck) {
        if self.workloads.jobs.contains_key(&FakeWorkloads::job_name(check)) {
            return;
        }
        let rollout = self.status().rotation.and_then(|rotation| rotation.rollout);
        let recorded = rollout.and_then(|rollout| rollout.verification);
        let recorded = recorded.map(|recorded| (recorded.wave, recorded.attempt));
        if recorded != Some((check.verification.wave, check.verification.attempt)) {
            let wave = check.verification.wave;
            self.violations.push(format!(
                "the check of wave {wave} runs, and the status has {recorded:?}"
            ));
        }
    }
}
