//! Audiences of tokens: an API server that accepts one of them, and the components that add those of clouds.

use std::path::Path;

use kube::{Api, api::PostParams};
use lockstep_api::SecretStore;
use lockstep_testkit::{
    ControlPlane, Operator, Scratch,
    aws::Aws,
    operator::{self, kubectl, repository},
};
use serde_json::{Value, json};

use crate::{
    deploy::{build, find},
    shared_cluster::eventually,
};

/// A folder whose kustomization has the base and those components.
fn overlay(components: &[&str]) -> Scratch {
    let folder = Scratch::new("overlay").unwrap();
    let here = folder.path().canonicalize().unwrap();
    // kustomize takes no absolute path of a folder
    let up = "../".repeat(here.ancestors().count() - 1);
    let deploy = repository().canonicalize().unwrap().join("deploy/kustomize");
    let path = |part: &str| format!("{up}{}", deploy.join(part).strip_prefix("/").unwrap().display());
    let components: Vec<_> = components
        .iter()
        .map(|cloud| path(&format!("components/cloud-audiences/{cloud}")))
        .collect();
    let kustomization = json!({ "resources": [path("base")], "components": components });
    folder
        .write("kustomization.yaml", kustomization.to_string())
        .unwrap();
    folder
}

/// The audiences that the operator is started with, and those of the policy, in order.
async fn allowed(folder: &Path) -> (Vec<String>, Vec<String>) {
    let objects = build(folder.to_str().unwrap()).await;
    let deployment: Value = find(&objects, "Deployment", "lockstep");
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    let mut of_operator: Vec<String> = arguments
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|argument| argument.as_str()?.strip_prefix("--token-audiences="))
        .flat_map(|list| list.split(',').map(str::to_owned))
        .collect();
    let policy: Value = find(&objects, "ValidatingAdmissionPolicy", "lockstep-token-requests");
    let mut of_policy: Vec<String> = policy["spec"]["variables"]
        .as_array()
        .unwrap()
        .iter()
        // what stands between quotes
        .flat_map(|variable| variable["expression"].as_str().unwrap().split('\'').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    of_operator.sort();
    of_policy.sort();
    (of_operator, of_policy)
}

#[tokio::test]
async fn cloud_components_add_audiences_to_operator_and_policy() {
    let base = ["openbao", "vault"];
    for (components, more) in [
        (&[][..], &[][..]),
        (&["aws"], &["sts.amazonaws.com"]),
        (
            &["azure", "aws", "google"],
            &[
                "PROJECT_ID.svc.id.goog",
                "api://AzureADTokenExchange",
                "sts.amazonaws.com",
            ],
        ),
    ] {
        let (of_operator, of_policy) = allowed(overlay(components).path()).await;
        let mut want = [more, &base[..]].concat();
        want.sort_unstable();
        assert_eq!(of_operator, want, "{components:?}");
        assert_eq!(of_policy, want, "{components:?}");
    }
}

#[tokio::test]
async fn audience_that_the_api_server_accepts_is_disabled() {
    // a cluster with an IRSA webhook of its own
    let plane = ControlPlane::builder()
        .api_server_flag("--api-audiences=sts.amazonaws.com")
        .start()
        .await
        .unwrap();
    plane.install_crds().await.unwrap();
    operator::apply_folder(&plane.kubeconfig(), overlay(&["aws"]).path())
        .await
        .unwrap();
    let aws = Aws::start().await.unwrap();
    let namespace = plane.namespace("irsa").await.unwrap();
    let account = ["create", "serviceaccount", "reader", "-n", &namespace];
    kubectl(&plane.kubeconfig(), &account, None).await.unwrap();
    let arguments = [
        "--token-audiences=vault,openbao",
        "--token-audiences=sts.amazonaws.com",
    ];
    let operator = Operator::start(&plane, &arguments).await.unwrap();
    let store: SecretStore = serde_json::from_value(json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
        "metadata": { "name": "aws", "namespace": namespace },
        "spec": { "provider": { "aws": {
            "service": "SecretsManager", "region": "eu-central-1",
            "endpoint": aws.address(), "stsEndpoint": aws.address(),
            "role": "arn:aws:iam::123456789012:role/shop",
            "auth": { "jwt": { "serviceAccountRef": { "name": "reader" } } },
        } } },
    }))
    .unwrap();
    let api: Api<SecretStore> = Api::namespaced(plane.client().await.unwrap(), &namespace);
    api.create(&PostParams::default(), &store).await.unwrap();
    let message = eventually("the store's condition", || async {
        let store = api.get("aws").await?;
        let ready = store
            .status
            .and_then(|status| status.conditions.into_iter().next());
        let ready = ready.ok_or_else(|| anyhow::anyhow!("no condition"))?;
        anyhow::ensure!(ready.reason == "CredentialsUnavailable", "{ready:?}");
        Ok(ready.message)
    });
    let message = match message.await {
        Ok(message) => message,
        Err(error) => panic!("{error:#}\n{}", operator.log()),
    };
    let wanted =
        "no token is minted with the audience \"sts.amazonaws.com\": the API server accepts tokens with it";
    assert!(message.contains(wanted), "{message}");
    assert_eq!(
        aws.count("AssumeRoleWithWebIdentity"),
        0,
        "no token left the cluster"
    );
    for (audience, usable) in [("sts.amazonaws.com", 0.0), ("vault", 1.0), ("openbao", 1.0)] {
        let label = format!("audience=\"{audience}\"");
        let value = operator
            .metric("lockstep_token_audience_usable", &[&label])
            .await
            .unwrap();
        assert!((value - usable).abs() < f64::EPSILON, "{audience}: {value}");
    }
    let (status, text) = operator.get("readyz").await.unwrap();
    assert_eq!(status, 200, "one audience does not stop the operator: {text}");
    for line in [
        "[!] token audience sts.amazonaws.com: disabled: the API server accepts tokens with it\n",
        "[+] token audience vault: ok\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
