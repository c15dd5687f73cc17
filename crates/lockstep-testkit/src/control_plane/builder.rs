//! Settings of a control plane, and its start.

use std::sync::atomic::AtomicU64;

use anyhow::Result;
use parking_lot::Mutex;

use super::{ControlPlane, servers::Servers};
use crate::{
    certificates::{CertificateAuthority, signing_key},
    ports,
    scratch::Scratch,
    tools::{Tool, ensure_async},
};

/// The default controllers, which lockstep's own tests rely on.
const CONTROLLERS: [&str; 8] = [
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
    "deployment-controller",
    "replicaset-controller",
    "validatingadmissionpolicy-status-controller",
];

/// Settings of a control plane to start.
#[derive(Debug, Default)]
#[must_use]
pub struct ControlPlaneBuilder {
    controller_manager: bool,
    more_controllers: Vec<String>,
    api_server_flags: Vec<String>,
    name: Option<String>,
}

impl ControlPlaneBuilder {
    /// Also runs the controller manager: namespaces are deleted, owned objects are collected,
    /// ServiceAccounts and ReplicaSets are created.
    pub fn with_controller_manager(mut self) -> Self {
        self.controller_manager = true;
        self
    }

    /// Adds a controller of the controller manager, such as `statefulset-controller`.
    pub fn controller(mut self, name: impl Into<String>) -> Self {
        self.more_controllers.push(name.into());
        self
    }

    /// Adds a flag of the API server, such as `--max-requests-inflight=4`.
    pub fn api_server_flag(mut self, flag: impl Into<String>) -> Self {
        self.api_server_flags.push(flag.into());
        self
    }

    /// Sets the name of the cluster in kubeconfigs. Defaults to `lockstep-test`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Starts it and waits until it is ready, about three seconds on two cores.
    ///
    /// # Errors
    /// When a program is missing and cannot be installed, or a server does not start; its last log
    /// lines are in the message.
    pub async fn start(self) -> Result<ControlPlane> {
        crate::init();
        let etcd = ensure_async(Tool::Etcd).await?;
        let api_server = ensure_async(Tool::ApiServer).await?;
        let controller_manager = if self.controller_manager {
            Some(ensure_async(Tool::ControllerManager).await?)
        } else {
            None
        };
        let servers = Servers {
            etcd,
            api_server,
            controller_manager,
            etcd_port: ports::free()?,
            etcd_peer_port: ports::free()?,
            api_server_port: ports::free()?,
            api_server_flags: self.api_server_flags,
            controllers: CONTROLLERS
                .into_iter()
                .map(str::to_owned)
                .chain(self.more_controllers)
                .collect(),
        };
        let folder = Scratch::new("control-plane")?;
        let authority = CertificateAuthority::new("lockstep test cluster")?;
        let admin = authority.client("lockstep-test-admin", Some("system:masters"))?;
        write_certificates(&folder, &authority)?;
        let plane = ControlPlane {
            controller_manager: Mutex::new(None),
            api_server: Mutex::new(None),
            etcd: Mutex::new(Some(servers.etcd(folder.path()).spawn()?)),
            url: format!("https://127.0.0.1:{}", servers.api_server_port),
            ca: authority.pem(),
            servers,
            admin,
            name: self.name.unwrap_or_else(|| "lockstep-test".to_owned()),
            namespaces: AtomicU64::new(0),
            folder,
        };
        plane.write_admin_kubeconfig()?;
        plane.start_api_server().await?;
        if self.controller_manager {
            plane.start_controller_manager()?;
        }
        Ok(plane)
    }
}

fn write_certificates(folder: &Scratch, authority: &CertificateAuthority) -> Result<()> {
    let server = authority.server(&[
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default.svc",
        "10.0.0.1",
    ])?;
    let (private, public) = signing_key()?;
    folder.write("ca.crt", authority.pem())?;
    folder.write("apiserver.crt", server.certificate)?;
    folder.write("apiserver.key", server.key)?;
    folder.write("tokens.key", private)?;
    folder.write("tokens.pub", public)?;
    Ok(())
}
