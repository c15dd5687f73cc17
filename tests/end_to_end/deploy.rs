//! The manifests in `deploy/`: that they build, that the pod is locked up, and that the narrow overlay is enough.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Secret},
    rbac::v1::PolicyRule,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use lockstep_api::{ClusterSecretStore, SyncedSecret};
use lockstep_testkit::{
    ControlPlane, Operator, Scratch,
    operator::{NAMESPACE, SERVICE_ACCOUNT, apply_folder, kubectl, repository},
    tools::{Tool, ensure_async},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::shared_cluster::{eventually, text};

fn kustomizations(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            kustomizations(&path, found);
        } else if path.ends_with("kustomization.yaml") || path.ends_with("Kustomization") {
            found.push(path);
        }
    }
}

/// What `kubectl kustomize` makes of a folder, without any cluster.
pub(crate) async fn build(folder: &str) -> Vec<Value> {
    let program = ensure_async(Tool::Kubectl).await.expect("kubectl");
    let output = tokio::process::Command::new(program)
        .arg("kustomize")
        .arg(repository().join(folder))
        .output()
        .await
        .expect("kubectl runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{folder}: {said}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| serde::Deserialize::deserialize(document).expect("YAML"))
        .collect()
}

pub(crate) fn find<T: DeserializeOwned>(objects: &[Value], kind: &str, name: &str) -> T {
    let object = objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("{kind}/{name}"));
    serde_json::from_value(object.clone()).expect(kind)
}

#[tokio::test]
async fn every_kustomization_builds() {
    let mut folders = Vec::new();
    for root in ["deploy", "crds", "examples"] {
        kustomizations(&repository().join(root), &mut folders);
    }
    assert!(folders.len() >= 6, "{folders:?}");
    for path in folders {
        let text = std::fs::read_to_string(&path).expect("a file");
        // a component builds as part of an overlay only
        if !text.contains("kind: Component") {
            let folder = path.parent().and_then(Path::to_str).expect("UTF-8");
            assert!(!build(folder).await.is_empty(), "{folder}");
        }
    }
}

#[tokio::test]
async fn pod_runs_with_a_restricted_security_context() {
    let objects = build("deploy/kustomize/base").await;
    let deployment: Deployment = find(&objects, "Deployment", "lockstep");
    let pod = deployment.spec.expect("a spec").template.spec.expect("a pod");
    let security = pod.security_context.expect("a security context");
    assert_eq!(security.run_as_non_root, Some(true));
    assert_eq!(
        security.seccomp_profile.expect("a profile").type_,
        "RuntimeDefault"
    );
    assert_eq!(pod.containers.len(), 1);
    let container = &pod.containers[0];
    let security = container.security_context.as_ref().expect("a security context");
    assert_eq!(security.read_only_root_filesystem, Some(true));
    assert_eq!(security.allow_privilege_escalation, Some(false));
    let dropped = security.capabilities.as_ref().and_then(|all| all.drop.clone());
    assert_eq!(dropped, Some(vec!["ALL".to_owned()]));
    assert!(container.liveness_probe.is_some() && container.readiness_probe.is_some());
    let requests = container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.clone());
    assert!(requests.is_some_and(|requests| requests.contains_key("cpu") && requests.contains_key("memory")));
    assert_eq!(pod.volumes, None, "it needs no volume");
    assert_ne!(pod.host_network, Some(true));

    let namespace: Value = find(&objects, "Namespace", "lockstep-system");
    assert_eq!(
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
    let deny: Value = find(&objects, "NetworkPolicy", "default-deny");
    assert_eq!(deny["spec"]["podSelector"], serde_json::json!({}));
    assert_eq!(
        deny["spec"]["policyTypes"],
        serde_json::json!(["Ingress", "Egress"])
    );
    assert_eq!(deny["spec"].get("egress"), None);
}

#[tokio::test]
async fn role_allows_writing_secrets_but_not_reading_them() {
    for folder in [
        "deploy/kustomize/base",
        "deploy/kustomize/overlays/namespaced",
        "deploy/kustomize/overlays/deny-guesses",
    ] {
        let objects = build(folder).await;
        let mut seen = false;
        for object in &objects {
            let kind = object["kind"].as_str().unwrap_or_default();
            let own_namespace = object["metadata"]["namespace"] == "lockstep-system";
            if !matches!(kind, "ClusterRole" | "Role") || own_namespace {
                continue;
            }
            let rules: Vec<PolicyRule> = serde_json::from_value(object["rules"].clone()).expect("rules");
            for rule in rules {
                let resources = rule.resources.unwrap_or_default();
                assert!(!resources.iter().any(|resource| resource == "*"), "{folder}");
                assert!(!rule.verbs.iter().any(|verb| verb == "*"), "{folder}");
                if resources.iter().any(|resource| resource == "secrets") {
                    seen = true;
                    assert_eq!(rule.verbs, ["create", "update", "delete"], "{folder}");
                }
            }
        }
        assert!(seen, "{folder}");
    }
}

#[tokio::test]
async fn real_api_server_accepts_every_manifest() {
    let cluster = crate::shared_cluster::shared_cluster().await;
    let kubeconfig = cluster.plane.kubeconfig();
    for folder in ["base", "overlays/drift-watch", "overlays/deny-guesses"] {
        let path = repository().join("deploy/kustomize").join(folder);
        let path = path.to_str().expect("UTF-8");
        let arguments = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-k",
            path,
        ];
        kubectl(&kubeconfig, &arguments, None).await.expect(folder);
    }
}

/// A cluster of its own: the rights of one account cannot be those of both manifests at the same time.
#[tokio::test]
async fn namespaced_overlay_has_permissions_only_in_its_namespace() {
    let root = Scratch::new("file-root").unwrap();
    std::fs::write(root.path().join("password"), "correct horse").unwrap();
    let plane = ControlPlane::builder()
        .with_controller_manager()
        .start()
        .await
        .unwrap();
    plane.install_crds().await.unwrap();
    let client = plane.client().await.unwrap();
    for namespace in ["shop", "billing"] {
        let object = serde_json::from_value(json!({ "metadata": { "name": namespace } })).unwrap();
        let api: Api<Namespace> = Api::all(client.clone());
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let overlay = repository().join("deploy/kustomize/overlays/namespaced");
    apply_folder(&plane.kubeconfig(), &overlay).await.unwrap();
    let store = json!({
        "metadata": { "name": "files" },
        "spec": {
            "access": [{ "namespaces": { "names": ["shop", "billing"] }, "keys": ["**"] }],
            "provider": { "file": { "path": "." } },
        },
    });
    let stores: Api<ClusterSecretStore> = Api::all(client.clone());
    stores
        .create(&PostParams::default(), &serde_json::from_value(store).unwrap())
        .await
        .unwrap();
    for namespace in ["billing", "shop"] {
        let object = json!({
            "metadata": { "name": "password" },
            "spec": {
                "secretStoreRef": { "kind": "ClusterSecretStore", "name": "files" },
                "data": [{ "secretKey": "password", "remoteRef": { "key": "password" } }],
            },
        });
        let api: Api<SyncedSecret> = Api::namespaced(client.clone(), namespace);
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap();
    }
    let root = root.path().to_str().unwrap();
    let operator = Operator::start(&plane, &["--namespaces", "shop", "--file-root", root])
        .await
        .unwrap();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "shop");
    let synced = eventually("the Secret of shop", || async {
        let secret = secrets.get("password").await?;
        text(&secret, "password")
            .filter(|text| text == "correct horse")
            .context("another value")
    });
    if let Err(error) = synced.await {
        panic!("{error:#}\n{}", operator.log());
    }
    let others: Api<SyncedSecret> = Api::namespaced(client.clone(), "billing");
    assert_eq!(others.get("password").await.unwrap().status, None);

    let account = plane
        .client_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
        .await
        .unwrap();
    let secrets: Api<Secret> = Api::namespaced(account.clone(), "billing");
    let ours = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "password", "annotations": { "lockstep.dev/owner": "password" } },
    });
    let refused = secrets
        .create(&PostParams::default(), &serde_json::from_value(ours).unwrap())
        .await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 403));
    let others: Api<SyncedSecret> = Api::namespaced(account, "billing");
    let refused = others.list(&ListParams::default()).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 403));
}
