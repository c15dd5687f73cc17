//! Demonstrates rotation: a value reaches the pods in waves, one wave fails, the rollout is held
//! and rolled back.
//!
//! The control plane of the demo has no nodes. The Deployments are managed by the real controller.
//! The demo simulates what a kubelet does with their pods.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use lockstep_api::{RolloutPhase, RolloutStatus, SyncedSecret, annotation};
use lockstep_testkit::pods::Pods;
use serde_json::json;
use tokio::process::Command;

use super::{
    cluster::Cluster,
    show::{Show, wait_for},
    story::read,
    vault::Vault,
};

const EXAMPLE: &str = "examples/rotation/rollout";
pub(super) const NAMESPACE: &str = "example-rollout";
const NAME: &str = "database";
const KEY: &str = "rollout/database";
/// The Deployment that the demo breaks.
const BROKEN: &str = "web";
/// Changes to the example that make its rollouts fail sooner.
const DEADLINE: (&str, &str) = (
    "progressDeadline: 5m\n",
    "progressDeadline: 4s\n      minimumInterval: 0s\n",
);
const LIMIT: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(60);

/// State of this part of the demo.
struct Chapter<'a> {
    show: &'a Show,
    cluster: &'a Cluster,
    vault: &'a Vault,
    binary: &'a Path,
    objects: Api<SyncedSecret>,
    pods: Pods,
}

/// Runs this part of the demo. Manifests that it applies are added to `applied`.
///
/// # Errors
/// Fails if a step does not have the expected result.
pub(super) async fn play(
    show: &Show,
    cluster: &Cluster,
    vault: &Vault,
    binary: &Path,
    applied: &mut Vec<String>,
) -> Result<()> {
    show.line(format_args!(""));
    show.line(format_args!(
        "  Rotation: two Deployments use the Secret of {EXAMPLE} and get each new value one after the other."
    ));
    show.line(format_args!(
        "  (This cluster has no nodes: the Deployments are real, their pods are simulated.)"
    ));
    let chapter = Chapter {
        show,
        cluster,
        vault,
        binary,
        objects: Api::namespaced(cluster.client.clone(), NAMESPACE),
        pods: Pods::play(cluster.client.clone(), NAMESPACE),
    };
    chapter.begin(applied).await?;
    chapter.waves().await?;
    chapter.hold().await?;
    chapter.back().await
}

impl Chapter<'_> {
    async fn begin(&self, applied: &mut Vec<String>) -> Result<()> {
        self.put("first").await?;
        let text = read(&format!("{EXAMPLE}/manifests.yaml"))?.replace(DEADLINE.0, DEADLINE.1);
        let (manifests, _) = self.vault.at_its_address(text);
        self.show.does(&format!(
            "kubectl apply -f {EXAMPLE}/manifests.yaml   (with progressDeadline: 4s, minimumInterval: 0s)"
        ));
        applied.push(manifests.clone());
        let step = async {
            self.cluster
                .kubectl(&["apply", "-f", "-"], Some(&manifests))
                .await?;
            let revision = wait_for(PATIENCE, async || {
                let object = self.objects.get(NAME).await?;
                let status = object.status.context("no status yet")?;
                Ok(status.target.context("no Secret yet")?.revision)
            })
            .await?;
            Ok((
                (),
                format!("written at revision {revision}; a first sync restarts nothing"),
            ))
        };
        self.show.step("Secret/database", LIMIT, step).await
    }

    /// A rollout that succeeds.
    async fn waves(&self) -> Result<()> {
        self.rotate("second").await?;
        let soaking = async {
            let seen = self.reaches(RolloutPhase::Soaking).await?;
            Ok((seen.wave, "first wave is ready and soaking".to_owned()))
        };
        self.show.step("rollout", LIMIT, soaking).await?;
        self.status().await?;
        let done = async {
            let seen = self.reaches(RolloutPhase::Complete).await?;
            let words = format!(
                "revision {} runs on all {} targets",
                seen.revision,
                seen.targets.len()
            );
            Ok(((), words))
        };
        self.show.step("rollout", LIMIT, done).await
    }

    /// A rollout that fails and is held.
    async fn hold(&self) -> Result<()> {
        let object = self.objects.get(NAME).await?;
        let good = object
            .status
            .and_then(|status| status.target)
            .context("a Secret")?
            .revision;
        // from now on the application works only with the old password
        let annotation = format!("{}{NAME}", annotation::REVISION);
        self.pods.require(BROKEN, &annotation, &good);
        self.show.line(format_args!(
            "  With the next value, \"{BROKEN}\" does not start."
        ));
        self.rotate("third").await?;
        let held = async {
            let seen = self.reaches(RolloutPhase::Held).await?;
            ensure!(
                seen.targets.iter().any(|target| target.updated_time.is_none()),
                "the second wave was restarted: {seen:?}"
            );
            Ok(((), "held: the other Deployment keeps the old revision".to_owned()))
        };
        self.show.step("rollout", LIMIT, held).await?;
        self.status().await
    }

    /// The rollback.
    async fn back(&self) -> Result<()> {
        let patch = json!({ "spec": { "rotation": { "rollout": { "onFailure": "Rollback" } } } });
        self.show.does(&format!(
            "kubectl patch syncedsecret {NAME} -n {NAMESPACE} --type merge -p '{patch}'"
        ));
        self.objects
            .patch(NAME, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        let back = async {
            let seen = self.reaches(RolloutPhase::RolledBack).await?;
            Ok(((), format!("revision {} is restored", seen.revision)))
        };
        self.show.step("rollback", LIMIT, back).await?;
        self.print(&["history", NAME]).await
    }

    /// Writes a new value to the source and requests a refresh.
    async fn rotate(&self, password: &str) -> Result<()> {
        self.put(password).await?;
        self.annotate(annotation::REFRESH, password).await
    }

    async fn put(&self, password: &str) -> Result<()> {
        self.show.does(&format!(
            "bao kv put secret/{KEY} username=shop password={password}"
        ));
        self.vault.put_at(KEY, password).await
    }

    async fn annotate(&self, annotation: &str, value: &str) -> Result<()> {
        let (_, options) = self.cluster.for_people();
        self.show.does(&format!(
            "kubectl{options} annotate syncedsecret {NAME} -n {NAMESPACE} --overwrite {annotation}=\"$(date +%s%N)\""
        ));
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { annotation: value } } }));
        self.objects.patch(NAME, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn reaches(&self, phase: RolloutPhase) -> Result<RolloutStatus> {
        wait_for(PATIENCE, async || {
            let object = self.objects.get(NAME).await?;
            let status = object.status.unwrap_or_default();
            let rollout = status.rotation.and_then(|rotation| rotation.rollout);
            let rollout = rollout.with_context(|| format!("no rollout; {:?}", status.conditions))?;
            ensure!(
                rollout.phase == phase,
                "the rollout is {}: {}",
                rollout.phase.as_str(),
                rollout.message.as_deref().unwrap_or_default()
            );
            Ok(rollout)
        })
        .await
    }

    async fn status(&self) -> Result<()> {
        self.print(&["status", NAME]).await
    }

    /// Prints the output of a lockstep command.
    async fn print(&self, arguments: &[&str]) -> Result<()> {
        self.show
            .does(&format!("lockstep {} -n {NAMESPACE}", arguments.join(" ")));
        let output = Command::new(self.binary)
            .args(arguments)
            .args(["--namespace", NAMESPACE, "--kubeconfig"])
            .arg(self.cluster.kubeconfig().context("a kubeconfig of its own")?)
            .stdin(Stdio::null())
            .output()
            .await
            .context("run lockstep")?;
        ensure!(
            output.status.success(),
            "lockstep {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            self.show.line(format_args!("      {line}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_matches_the_demo() {
        let manifests = read(&format!("{EXAMPLE}/manifests.yaml")).unwrap();
        for text in [KEY, NAMESPACE, DEADLINE.0, BROKEN, "onFailure: Hold"] {
            assert!(manifests.contains(text), "{text}");
        }
    }
}
