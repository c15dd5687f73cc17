//! Simulates the kubelet of a namespace: pods become ready, and those of Jobs succeed, unless a
//! test breaks them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

/// How often it checks the pods.
const PERIOD: Duration = Duration::from_millis(50);

/// The apps whose pods do not become ready, except those with this annotation.
type Broken = BTreeMap<String, Option<(String, String)>>;

/// The kubelet of one namespace. It stops when it is dropped.
#[derive(Debug)]
pub struct Pods {
    broken: Arc<Mutex<Broken>>,
    _task: AbortOnDropHandle<()>,
}

impl Pods {
    /// Starts simulating the kubelet of this namespace.
    pub fn play(client: Client, namespace: &str) -> Self {
        let broken = Arc::new(Mutex::new(Broken::new()));
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let known = broken.clone();
        #[expect(clippy::disallowed_methods, reason = "it ends with this value")]
        let task = tokio::spawn(async move {
            loop {
                // Errors are retried in the next period.
                let _ = settle(&pods, &known).await;
                tokio::time::sleep(PERIOD).await;
            }
        });
        Self {
            broken,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Breaks pods with this value of the label `app`: new ones do not become ready, and those of
    /// Jobs fail.
    pub fn break_app(&self, app: &str) {
        self.broken.lock().insert(app.to_owned(), None);
    }

    /// Lets pods with this value of the label `app` become ready only if an annotation has this
    /// value.
    pub fn require(&self, app: &str, annotation: &str, value: &str) {
        let needs = (annotation.to_owned(), value.to_owned());
        self.broken.lock().insert(app.to_owned(), Some(needs));
    }

    /// Lets pods with this value of the label `app` become ready again.
    pub fn mend_app(&self, app: &str) {
        self.broken.lock().remove(app);
    }
}

async fn settle(pods: &Api<Pod>, broken: &Mutex<Broken>) -> Result<()> {
    for pod in pods.list(&ListParams::default()).await? {
        let app = pod.labels().get("app").cloned().unwrap_or_default();
        let breaks = match broken.lock().get(&app) {
            None => false,
            Some(None) => true,
            Some(Some((annotation, value))) => pod.annotations().get(annotation) != Some(value),
        };
        if pod.labels().contains_key("batch.kubernetes.io/job-name") {
            run_to_its_end(pods, &pod, breaks).await?;
            continue;
        }
        let wanted = if breaks { "False" } else { "True" };
        let status = pod.status.as_ref();
        let mut conditions = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default()
            .iter();
        let is = conditions
            .find(|condition| condition.type_ == "Ready")
            .map(|ready| ready.status.as_str());
        // A ready pod keeps what it read at its start: only new ones break.
        if is == Some(wanted) || is == Some("True") || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the API server compares it with its own clock"
        )]
        let now = Timestamp::now().to_string();
        let patch = json!({ "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": wanted, "lastTransitionTime": now }],
        } });
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await?;
    }
    Ok(())
}

/// Completes a pod of a Job: it succeeds, or fails if its app is broken.
async fn run_to_its_end(pods: &Api<Pod>, pod: &Pod, breaks: bool) -> Result<()> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let phase = if breaks { "Failed" } else { "Succeeded" };
    let patch = json!({ "status": { "phase": phase } });
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// Adds a node for the pods of DaemonSets. Only the first call creates it.
///
/// # Errors
/// When the API server rejects it.
pub async fn add_node(client: &Client) -> Result<()> {
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": "node" } }))?;
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        result => result.map(drop).context("create the node")?,
    }
    // The API server taints a node until its kubelet is ready, and DaemonSets avoid it.
    let ready = Patch::Merge(json!({ "spec": { "taints": null } }));
    let patched = nodes.patch("node", &PatchParams::default(), &ready).await;
    patched.map(drop).context("take the node's taints away")
}
