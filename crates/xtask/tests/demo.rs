//! The demo, as a person runs it: the exit code and what it prints.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::{
    path::Path,
    process::{Command, Output},
};

use kube::{Api, api::ListParams};
use lockstep_testkit::{ControlPlane, binaries};
use parking_lot::Mutex;

/// Demos want the same ports where they are free: one at a time.
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

/// Fails unless the demo ended well and these texts stand in what it printed, in this order.
fn assert_told(output: &Output, texts: &[&str]) {
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
        "codes for terminals where there is none:\n{printed}"
    );
}

#[test]
fn a_value_in_openbao_becomes_a_secret_and_its_change_follows() {
    assert_told(
        &demo(&[], None),
        &[
            "✓ control plane",
            "✓ OpenBao",
            "✓ installed",
            "✓ lockstep",
            "system:serviceaccount:lockstep-system:lockstep",
            "get, list, watch and patch are forbidden",
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
fn a_value_in_a_file_becomes_a_secret_and_its_change_follows() {
    let output = demo(&["--provider", "file"], None);
    assert_told(
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
fn a_value_at_aws_becomes_a_secret_and_its_change_follows() {
    let output = demo(&["--provider", "aws"], None);
    assert_told(
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
fn a_value_at_google_becomes_a_secret_and_its_change_follows() {
    let output = demo(&["--provider", "gcp"], None);
    assert_told(
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
fn an_operator_that_does_not_start_fails_the_demo() {
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
async fn a_cluster_that_is_there_is_left_as_it_was_found() {
    let plane = ControlPlane::builder()
        .name("theirs")
        .with_controller_manager()
        .start()
        .await
        .unwrap();
    let kubeconfig = plane.kubeconfig();

    let unasked = demo(&["--context", "theirs", "--provider", "file"], Some(&kubeconfig));
    assert_eq!(unasked.status.code(), Some(1));
    assert!(
        printed(&unasked).contains("Use --yes to continue"),
        "{}",
        printed(&unasked)
    );
    assert_eq!(left_over(&plane).await, [""; 0], "nothing is installed unasked");

    let wrong = demo(&["--context", "mine", "--yes"], Some(&kubeconfig));
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        printed(&wrong).contains("the kubeconfig has no context \"mine\"; it has theirs"),
        "{}",
        printed(&wrong)
    );

    let played = demo(&["--context", "theirs", "--yes"], Some(&kubeconfig));
    assert_told(
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
    assert_eq!(left_over(&plane).await, [""; 0], "all that was made is removed");

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
        left_over(&plane).await.len(),
        3,
        "definitions of others are not removed"
    );
}

/// Names of what the demo makes and has no namespace, namespaces among them.
async fn left_over(plane: &ControlPlane) -> Vec<String> {
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
