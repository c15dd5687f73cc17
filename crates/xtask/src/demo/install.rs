//! Installs lockstep as `kubectl apply -k deploy/kustomize/base` does, except for the pods: the
//! demo runs the binary on this machine, under the ServiceAccount that is installed here.

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
/// Kinds that run the operator as a pod or belong to the pod.
const LEFT_OUT: [&str; 3] = ["Deployment", "Service", "NetworkPolicy"];
const DEFINITIONS_SERVED: Duration = Duration::from_secs(30);

/// Returns the objects of lockstep itself, from a folder of `deploy/kustomize`, ready for `kubectl
/// apply -f -`.
///
/// # Errors
/// Fails if kubectl cannot build them.
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

/// Installs the result of [`manifests`] and waits until the CRDs are served.
///
/// # Errors
/// Fails if the API server rejects an object.
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

/// Fails if the cluster already has an object that the demo creates. The demo removes its objects
/// at the end and must not remove anyone else's.
///
/// # Errors
/// Names the existing object and what to do.
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
                "the cluster already has the CustomResourceDefinition {name}. The demo installs and removes lockstep, \
                 so it needs a cluster without it. If an interrupted demo left it behind, run \
                 `kubectl delete -k {BASE}` and delete the namespaces {}",
                namespaces.join(", ")
            );
        }
    }
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    for name in namespaces.iter().chain(&[NAMESPACE]) {
        if api.get_opt(name).await.context("ask the API server")?.is_some() {
            bail!(
                "the cluster already has a namespace \"{name}\". The demo would create and remove it. \
                 Delete the namespace or use another cluster"
            );
        }
    }
    Ok(())
}

/// Removes everything that was installed or applied, last first.
///
/// # Errors
/// Fails if an object still exists after a minute.
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
    fn only_objects_that_run_pods_are_left_out() {
        let kept = without_pods(
            "kind: Namespace\n---\nkind: Deployment\n---\nkind: ClusterRole\n---\nkind: Service\n---\nkind: NetworkPolicy\n",
        )
        .unwrap();
        assert_eq!(kept, "---\nkind: Namespace\n---\nkind: ClusterRole\n");
    }
}
