//! Installs lockstep as `kubectl apply -k deploy/kustomize/base` does, but for what runs pods: the demo runs the binary on
//! this machine, under the ServiceAccount that is installed here.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::Api;
use lockstep_testkit::operator::NAMESPACE;
use serde::Deserialize as _;
use serde_yaml_ng::{Deserializer, Value};

use super::{cluster::Cluster, show::wait_for};
use crate::workspace;

pub(crate) const BASE: &str = "deploy/kustomize/base";
/// What runs the operator as a pod, in front of which nothing stands here.
const LEFT_OUT: [&str; 3] = ["Deployment", "Service", "NetworkPolicy"];
const DEFINITIONS_SERVED: Duration = Duration::from_secs(30);

/// The objects of lockstep itself, from a folder of `deploy/kustomize`, ready for `kubectl apply -f -`.
///
/// # Errors
/// When kubectl does not build them.
pub(crate) async fn manifests(cluster: &Cluster, folder: &str) -> Result<String> {
    let folder = workspace::root().join(folder).display().to_string();
    let all = cluster.kubectl(&["kustomize", &folder], None).await?;
    without_pods(&all)
}

fn without_pods(manifests: &str) -> Result<String> {
    let mut kept = String::new();
    for document in Deserializer::from_str(manifests) {
        let object = Value::deserialize(document).context("read what kubectl built")?;
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        if !LEFT_OUT.contains(&kind) {
            kept += "---\n";
            kept += &serde_yaml_ng::to_string(&object)?;
        }
    }
    Ok(kept)
}

/// Installs what [`manifests`] answered, and waits until the definitions are served.
///
/// # Errors
/// When the API server refuses one, with its own message.
pub(crate) async fn install(cluster: &Cluster, manifests: &str) -> Result<()> {
    cluster
        .kubectl(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            Some(manifests),
        )
        .await?;
    wait_for(DEFINITIONS_SERVED, async || {
        let kinds = cluster
            .kubectl(
                &["get", "syncedsecrets,secretstores,clustersecretstores", "-A"],
                None,
            )
            .await;
        kinds.map(drop)
    })
    .await
}

/// Fails when the cluster already has something of what the demo makes: it removes in the end what it made, and must
/// not remove what somebody else did.
///
/// # Errors
/// With what there is, and what to do.
pub(crate) async fn ensure_nothing_is_there(cluster: &Cluster, namespaces: &[&str]) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    for definition in lockstep_api::crd::all() {
        let name = definition.metadata.name.unwrap_or_default();
        if definitions
            .get_opt(&name)
            .await
            .context("ask the API server")?
            .is_some()
        {
            bail!(
                "the cluster has the CustomResourceDefinition {name} already. The demo installs lockstep and removes it again, \
                 so it wants a cluster without it. Is it the rest of a demo that was killed? Then remove it: \
                 `kubectl delete -k {BASE}`, and the namespaces {}",
                namespaces.join(", ")
            );
        }
    }
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    for name in namespaces.iter().chain(&[NAMESPACE]) {
        if api.get_opt(name).await.context("ask the API server")?.is_some() {
            bail!(
                "the cluster has a namespace \"{name}\" already. The demo makes one of that name and removes it in the end, \
                 so it leaves this cluster alone"
            );
        }
    }
    Ok(())
}

/// Removes what was installed or applied, the last first.
///
/// # Errors
/// When an object is still there after a minute.
pub(crate) async fn remove(cluster: &Cluster, applied: &[String]) -> Result<()> {
    for manifests in applied.iter().rev() {
        cluster
            .kubectl(
                &[
                    "delete",
                    "--ignore-not-found",
                    "--wait",
                    "--timeout=60s",
                    "-f",
                    "-",
                ],
                Some(manifests),
            )
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_pods_is_left_out_and_the_rest_is_kept() {
        let kept = without_pods(
            "kind: Namespace\n---\nkind: Deployment\n---\nkind: ClusterRole\n---\nkind: Service\n---\nkind: NetworkPolicy\n",
        )
        .unwrap();
        assert_eq!(kept, "---\nkind: Namespace\n---\nkind: ClusterRole\n");
    }
}
