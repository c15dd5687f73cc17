//! Runs the demo as a user does and checks its exit code and output.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot continue fails"
)]

use std::{
    path::Path,
    process::{Command, Output},
};

use kube::{Api, api::ListParams};
use lockstep_testkit::{ControlPlane, binaries};
use parking_lot::Mutex;

/// Runs one demo at a time, because demos prefer the same ports.
static ONE: Mutex<()> = Mutex::new(());

fn demo(arguments: &[&str], kubeconfig: Option<&Path>) -> Output {
    demo_of(&binaries::lockstep().unwrap(), arguments, kubeconfig)
}

fn demo_of(binary: &Path, arguments: &[&str], kubeconfig: Option<&Path>) -> Output {
    let _one = ONE.lock();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .args(["demo", "--once", "--binary"])
        .arg(binary)
        .args(arguments);
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    command.output().unwrap()
}

fn printed(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Checks that the demo succeeded and that its output contains these texts in this order.
fn assert_printed(output: &Output, texts: &[&str]) {
    let printed = printed(output);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    let mut rest = printed.as_str();
    for text in texts {
        let (_, after) = rest
            .split_once(text)
            .unwrap_or_else(|| panic!("{text} is missing, or not in order:\n{printed}"));
        rest = after;
    }
    assert!(!printed.contains('✗'), "{printed}");
    assert!(
        !printed.contains('\u{1b}'),
        "escape codes without a terminal:\n{printed}"
    );
}

#[test]
fn openbao_value_and_its_change_reach_the_secret() {
    assert_printed(
        &demo(&[], None),
        &[
            "✓ control plane",
            "✓ OpenBao",
            "✓ installed",
            "✓ lockstep",
            "system:serviceaccount:lockstep-system:lockstep",
            "not get, list, watch or patch them",
            "kubectl apply -k examples/getting-started/quickstart",
            "✓ Secret/database   appeared ",
            "403",
            "✓ status            Ready, revision ",
            "bao kv put secret/shop/database",
            "✓ Secret/database   follows",
            " → ",
            "✓ metrics",
            "lockstep_synced_secret_ready{namespace=\"shop\",name=\"database\"} 1",
            "lockstep_secret_writes_total{outcome=\"created\"} 1",
            "lockstep_secret_writes_total{outcome=\"updated\"} 1",
            "kubectl apply -f examples/rotation/rollout/manifests.yaml",
            "✓ Secret/database   written at revision ",
            "✓ rollout           first wave is ready and soaking",
            "rollout   Soaking: ",
            "Deployment/web     ready",
            "Deployment/worker  waiting for its wave",
            "✓ rollout           revision ",
            "✓ rollout           held",
            "Deployment/web     did not become ready",
            "Deployment/worker  waiting for its wave",
            "✓ rollback          revision ",
            "failed: Deployment/web: not ready within progressDeadline 4s",
            "Every step succeeded.",
        ],
    );
}

#[test]
fn file_value_and_its_change_reach_the_secret() {
    let output = demo(&["--provider", "file"], None);
    assert_printed(
        &output,
        &[
            "✓ control plane",
            "✓ lockstep",
            "✓ Secret/files      appeared ",
            "✓ Secret/files      follows",
            "✓ metrics",
            "lockstep_synced_secret_ready{namespace=\"example-file-store\",name=\"files\"} 1",
            "Every step succeeded.",
        ],
    );
    assert!(!printed(&output).contains("OpenBao"));
}

#[test]
fn aws_value_and_its_change_reach_the_secret() {
    let output = demo(&["--provider", "aws"], None);
    assert_printed(
        &output,
        &[
            "✓ moto",
            "✓ lockstep",
            "✓ Secret/application  appeared ",
            "✓ Secret/application  follows",
            "lockstep_synced_secret_ready{namespace=\"example-aws-web-identity\",name=\"application\"} 1",
            "Every step succeeded.",
        ],
    );
}

#[test]
fn google_cloud_value_and_its_change_reach_the_secret() {
    let output = demo(&["--provider", "gcp"], None);
    assert_printed(
        &output,
        &[
            "✓ the stand-in for Google Cloud",
            "✓ lockstep",
            "✓ Secret/application  appeared ",
            "✓ Secret/application  follows",
            "lockstep_synced_secret_ready{namespace=\"example-gcp-secret-manager\",name=\"application\"} 1",
            "Every step succeeded.",
        ],
    );
    assert!(!printed(&output).contains("PRIVATE KEY"));
}

#[test]
fn demo_fails_if_the_operator_does_not_start() {
    let output = demo_of(Path::new("false"), &["--provider", "file"], None);
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("✗ lockstep"), "{printed}");
    assert!(
        printed.contains("error: lockstep: lockstep ended with code 1"),
        "{printed}"
    );
    assert!(!printed.contains("Every step succeeded"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_cluster_is_left_unchanged() {
    let plane = ControlPlane::builder()
        .name("theirs")
        .with_controller_manager()
        .start()
        .await
        .unwrap();
    let kubeconfig = plane.kubeconfig();

    let unconfirmed = demo(&["--context", "theirs", "--provider", "file"], Some(&kubeconfig));
    assert_eq!(unconfirmed.status.code(), Some(1));
    assert!(
        printed(&unconfirmed).contains("Use --yes to continue"),
        "{}",
        printed(&unconfirmed)
    );
    assert_eq!(
        remaining_objects(&plane).await,
        [""; 0],
        "nothing is installed without --yes"
    );

    let unknown = demo(&["--context", "mine", "--yes"], Some(&kubeconfig));
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        printed(&unknown).contains("the kubeconfig has no context \"mine\"; it has theirs"),
        "{}",
        printed(&unknown)
    );

    let played = demo(&["--context", "theirs", "--yes"], Some(&kubeconfig));
    assert_printed(
        &played,
        &[
            "✓ cluster           context theirs, https://127.0.0.1:",
            "and removes them at the end",
            "✓ installed",
            "✓ lockstep",
            "✓ Secret/database   appeared ",
            "✓ Secret/database   follows",
            "✓ metrics",
            "Every step succeeded.",
            "✓ cleaning up",
        ],
    );
    assert_eq!(remaining_objects(&plane).await, [""; 0], "everything is removed");

    plane.install_crds().await.unwrap();
    let occupied = demo(
        &["--context", "theirs", "--yes", "--provider", "file"],
        Some(&kubeconfig),
    );
    assert_eq!(occupied.status.code(), Some(1));
    assert!(
        printed(&occupied).contains("the cluster already has the CustomResourceDefinition"),
        "{}",
        printed(&occupied)
    );
    assert_eq!(
        remaining_objects(&plane).await.len(),
        3,
        "definitions of others are not removed"
    );
}

/// Returns the names of cluster-scoped objects that the demo created, including namespaces.
async fn remaining_objects(plane: &ControlPlane) -> Vec<String> {
    use k8s_openapi::{
        api::{
            admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
            core::v1::Namespace,
            rbac::v1::{ClusterRole, ClusterRoleBinding},
        },
        apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    };
    let client = plane.client().await.unwrap();
    let mut names = Vec::new();
    macro_rules! add {
        ($kind:ty) => {
            let api: Api<$kind> = Api::all(client.clone());
            for object in api.list(&ListParams::default()).await.unwrap() {
                names.push(object.metadata.name.unwrap_or_default());
            }
        };
    }
    add!(CustomResourceDefinition);
    add!(Namespace);
    add!(ClusterRole);
    add!(ClusterRoleBinding);
    add!(ValidatingAdmissionPolicy);
    add!(ValidatingAdmissionPolicyBinding);
    names.retain(|name| name.contains("lockstep") || name.starts_with("shop") || name.starts_with("vault"));
    names
}
