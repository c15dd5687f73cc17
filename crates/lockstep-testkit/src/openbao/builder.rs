//! Settings of an OpenBao server, and its start.

use std::fs;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use serde_json::json;

use super::OpenBao;
use crate::{
    certificates::CertificateAuthority,
    ports,
    process::ProcessSpec,
    scratch::Scratch,
    tools::{Tool, ensure_async},
};

/// Settings of an OpenBao server to start.
#[derive(Debug, Default)]
#[must_use]
pub struct OpenBaoBuilder {
    tls: bool,
    port: Option<u16>,
}

impl OpenBaoBuilder {
    /// Serves HTTPS with a certificate of its own authority, and requests client certificates
    /// without requiring them.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Sets the loopback port. Defaults to a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Starts it and waits until it serves, about two seconds.
    ///
    /// # Errors
    /// When the program cannot be installed, or does not start; its last log lines are in the
    /// message.
    pub async fn start(self) -> Result<OpenBao> {
        crate::init();
        let program = ensure_async(Tool::OpenBao).await?;
        let folder = Scratch::new("openbao")?;
        let port = self.port.map_or_else(ports::free, Ok)?;
        let authority = self
            .tls
            .then(|| CertificateAuthority::new("lockstep test OpenBao"))
            .transpose()?;
        let cluster = format!("127.0.0.1:{}", ports::free()?);
        let mut listener = json!({ "address": format!("127.0.0.1:{port}"), "cluster_address": cluster });
        if let Some(authority) = &authority {
            let server = authority.server(&["127.0.0.1", "localhost"])?;
            listener["tls_cert_file"] = json!(folder.write("server.crt", server.certificate)?);
            listener["tls_key_file"] = json!(folder.write("server.key", server.key)?);
            listener["tls_client_ca_file"] = json!(folder.write("ca.crt", authority.pem())?);
        } else {
            listener["tls_disable"] = json!(true);
        }
        let scheme = if self.tls { "https" } else { "http" };
        let address = format!("{scheme}://127.0.0.1:{port}");
        let data = folder.path().join("data");
        fs::create_dir(&data).context("create the data folder of OpenBao")?;
        // An entry can contain a value of the maximum size of a Kubernetes Secret (1 MiB) with its
        // metadata.
        let raft = json!({
            "path": data,
            "node_id": "one",
            "performance_multiplier": 1,
            "max_entry_size": "4194304",
        });
        let config = json!({
            "api_addr": address,
            "cluster_addr": format!("https://{cluster}"),
            "storage": { "raft": raft },
            "listener": [{ "tcp": listener }],
            "log_level": "warn",
        });
        let config = folder.write("openbao.json", serde_json::to_vec_pretty(&config)?)?;
        let spec = ProcessSpec::new("openbao", program, folder.path())
            .arg("server")
            .arg("-config")
            .arg(config);
        let mut server = OpenBao {
            process: Mutex::new(None),
            spec,
            address,
            ca: authority.as_ref().map(CertificateAuthority::pem),
            authority,
            unseal_key: String::new(),
            _folder: folder,
        };
        server.initialise().await?;
        Ok(server)
    }
}
