//! Starts each server of the control plane.

use std::path::{Path, PathBuf};

use crate::process::ProcessSpec;

/// The programs and ports of the servers.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) etcd: PathBuf,
    pub(super) api_server: PathBuf,
    pub(super) controller_manager: Option<PathBuf>,
    pub(super) etcd_port: u16,
    pub(super) etcd_peer_port: u16,
    pub(super) api_server_port: u16,
    pub(super) api_server_flags: Vec<String>,
    pub(super) controllers: Vec<String>,
}

impl Servers {
    pub(super) fn etcd(&self, folder: &Path) -> ProcessSpec {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer_port);
        ProcessSpec::new("etcd", &self.etcd, folder)
            .arg("--data-dir")
            .arg(folder.join("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            // A test does not survive a power cut anyway.
            .args(["--unsafe-no-fsync=true", "--log-level=warn"])
    }

    pub(super) fn api_server(&self, folder: &Path) -> ProcessSpec {
        let file = |name: &str| folder.join(name).display().to_string();
        ProcessSpec::new("kube-apiserver", &self.api_server, folder)
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg(format!("--secure-port={}", self.api_server_port))
            .arg(format!("--cert-dir={}", file("generated")))
            .arg(format!("--tls-cert-file={}", file("apiserver.crt")))
            .arg(format!("--tls-private-key-file={}", file("apiserver.key")))
            .arg(format!("--client-ca-file={}", file("ca.crt")))
            .arg(format!("--service-account-key-file={}", file("tokens.pub")))
            .arg(format!(
                "--service-account-signing-key-file={}",
                file("tokens.key")
            ))
            .args([
                "--bind-address=127.0.0.1",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--api-audiences=https://kubernetes.default.svc",
                "--disable-admission-plugins=ServiceAccount",
                "--allow-privileged=true",
                "--endpoint-reconciler-type=none",
            ])
            .args(&self.api_server_flags)
    }

    pub(super) fn controller_manager(&self, folder: &Path) -> Option<ProcessSpec> {
        let file = |name: &str| folder.join(name).display().to_string();
        let kubeconfig = file("admin.kubeconfig");
        let spec = ProcessSpec::new(
            "kube-controller-manager",
            self.controller_manager.as_ref()?,
            folder,
        )
        .arg(format!("--kubeconfig={kubeconfig}"))
        .arg(format!("--authentication-kubeconfig={kubeconfig}"))
        .arg(format!("--authorization-kubeconfig={kubeconfig}"))
        .arg(format!(
            "--service-account-private-key-file={}",
            file("tokens.key")
        ))
        .arg(format!("--root-ca-file={}", file("ca.crt")))
        .arg(format!("--controllers={}", self.controllers.join(",")))
        .args([
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ]);
        Some(spec)
    }
}
