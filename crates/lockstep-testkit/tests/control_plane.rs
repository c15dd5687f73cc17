//! Tests the control plane harness with real servers.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use lockstep_testkit::{ControlPlane, shared};
use serde_json::json;

async fn apply(api: &Api<Secret>, name: &str, value: &str) -> kube::Result<Secret> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"password": value},
    });
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(secret))
        .await
}

fn password(secret: &Secret) -> Option<&[u8]> {
    secret
        .data
        .as_ref()
        .and_then(|data| data.get("password"))
        .map(|value| value.0.as_slice())
}

#[tokio::test]
async fn secret_survives_a_restart_of_the_api_server() -> Result<()> {
    let plane = ControlPlane::start().await?;
    plane.install_crds().await?;
    let namespace = plane.namespace("restart").await?;
    let api: Api<Secret> = Api::namespaced(plane.client().await?, &namespace);
    apply(&api, "database", "first").await?;

    plane.restart_api_server().await?;

    assert_eq!(password(&api.get("database").await?), Some(b"first".as_slice()));
    apply(&api, "database", "second").await?;
    assert_eq!(password(&api.get("database").await?), Some(b"second".as_slice()));
    plane.stop_api_server();
    let refused = reqwest::Client::new().get(plane.url()).send().await.unwrap_err();
    assert!(refused.is_connect());
    Ok(())
}

#[tokio::test]
async fn shared_control_plane_serves_custom_resources_to_kubectl() -> Result<()> {
    let plane = shared().await?;
    let kubectl = lockstep_testkit::tools::ensure_async(lockstep_testkit::tools::Tool::Kubectl).await?;
    let output = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(plane.kubeconfig())
        .args(["api-resources", "--api-group=lockstep.dev", "--output=name"])
        .output()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut names: Vec<_> = std::str::from_utf8(&output.stdout)?.lines().collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "clustersecretstores.lockstep.dev",
            "secretstores.lockstep.dev",
            "syncedsecrets.lockstep.dev"
        ]
    );
    Ok(())
}

#[tokio::test]
async fn service_account_has_only_its_own_permissions() -> Result<()> {
    let plane = shared().await?;
    let namespace = plane.namespace("account").await?;
    let nobody = plane.client_for_service_account(&namespace, "nobody").await?;
    let secrets: Api<Secret> = Api::namespaced(nobody, &namespace);
    let refused = secrets.get("database").await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));

    let kubeconfig = plane.kubeconfig_for_service_account(&namespace, "nobody").await?;
    let kubectl = lockstep_testkit::tools::ensure_async(lockstep_testkit::tools::Tool::Kubectl).await?;
    let output = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["auth", "whoami"])
        .output()?;
    let said = String::from_utf8(output.stdout)?;
    assert!(
        said.contains(&format!("system:serviceaccount:{namespace}:nobody")),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn owned_objects_are_collected() -> Result<()> {
    let plane = shared().await?;
    let namespace = plane.namespace("owned").await?;
    let api: Api<Secret> = Api::namespaced(plane.client().await?, &namespace);
    let owner = apply(&api, "owner", "a").await?;
    let owned = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": "owned",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Secret", "name": "owner", "uid": owner.metadata.uid}],
        },
    });
    api.patch("owned", &PatchParams::apply("test"), &Patch::Apply(owned))
        .await?;
    api.delete("owner", &DeleteParams::default()).await?;
    let began = Instant::now();
    while api.get_opt("owned").await?.is_some() {
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "the garbage collector does not run"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test]
async fn namespaces_are_new_and_have_their_labels() -> Result<()> {
    let plane = shared().await?;
    let first = plane.namespace("same").await?;
    let second = plane.labelled_namespace("same", &[("team", "shop")]).await?;
    assert_ne!(first, second);
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(plane.client().await?);
    let labels: BTreeMap<_, _> = api.get(&second).await?.metadata.labels.unwrap_or_default();
    assert_eq!(labels.get("team").map(String::as_str), Some("shop"));
    Ok(())
}
