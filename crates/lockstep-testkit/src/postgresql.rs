//! A real PostgreSQL, in which OpenBao's database engine creates, changes and drops accounts.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tokio::process::Command;

use crate::{
    openbao::OpenBao,
    ports,
    process::{Process, ProcessSpec},
    scratch::Scratch,
    tools::{Tool, ensure_async},
};

/// How long it may take to respond on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The administrator account and its password. They are used only in tests.
const ADMINISTRATOR: (&str, &str) = ("postgres", "administrator");

/// A running PostgreSQL. It stops when this value is dropped or its process ends.
#[derive(Debug)]
pub struct PostgreSql {
    port: u16,
    _process: Process,
    _folder: Scratch,
}

impl PostgreSql {
    /// Starts a server with only the administrator account.
    ///
    /// # Errors
    /// When it cannot be installed, or does not start; its last log lines are in the message.
    pub async fn start() -> Result<Self> {
        let program = ensure_async(Tool::PostgreSql).await?;
        let folder = Scratch::new("postgresql")?;
        let password = folder.path().join("administrator");
        std::fs::write(&password, ADMINISTRATOR.1).context("write the administrator's password")?;
        let port = ports::free()?;
        let mut process = ProcessSpec::new("postgresql", program, folder.path())
            .arg("serve")
            .arg(folder.path())
            .arg(port.to_string())
            .arg(password)
            .spawn()?;
        let began = Instant::now();
        loop {
            process.ensure_running()?;
            match run(port, ADMINISTRATOR, "select 1").await {
                Ok(_) => break,
                Err(error) if began.elapsed() > READY_LIMIT => {
                    bail!(
                        "PostgreSQL does not answer: {error}; the end of its log:\n{}",
                        process.log_tail()
                    )
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        Ok(Self {
            port,
            _process: process,
            _folder: folder,
        })
    }

    /// Runs a statement as the administrator and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub async fn administer(&self, statement: &str) -> Result<String> {
        run(self.port, ADMINISTRATOR, statement).await
    }

    /// Whether an account can log in with this password.
    pub async fn takes(&self, user: &str, password: &str) -> bool {
        run(self.port, (user, password), "select 1").await.is_ok()
    }

    /// Enables OpenBao's database engine at this mount path, with this server as the connection
    /// `postgresql`.
    ///
    /// # Errors
    /// When OpenBao returns an error.
    pub async fn enable_engine(&self, bao: &OpenBao, mount: &str) -> Result<()> {
        bao.post(&format!("sys/mounts/{mount}"), json!({ "type": "database" }))
            .await?;
        let connection = json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": format!(
                "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable", self.port
            ),
            "username": ADMINISTRATOR.0,
            "password": ADMINISTRATOR.1,
        });
        bao.post(&format!("{mount}/config/postgresql"), connection)
            .await
            .map(drop)
    }

    /// Adds a role of the engine with this lifetime and maximum lifetime of its accounts.
    ///
    /// # Errors
    /// When OpenBao returns an error.
    pub async fn add_role(
        &self,
        bao: &OpenBao,
        mount: &str,
        role: &str,
        ttl: &str,
        max_ttl: &str,
    ) -> Result<()> {
        let settings = json!({
            "db_name": "postgresql",
            "creation_statements": [
                "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';",
            ],
            "default_ttl": ttl,
            "max_ttl": max_ttl,
        });
        bao.post(&format!("{mount}/roles/{role}"), settings)
            .await
            .map(drop)
    }

    /// Returns the accounts that the engine created and that still exist.
    ///
    /// # Errors
    /// When the server does not respond.
    pub async fn accounts(&self) -> Result<Vec<String>> {
        let listed = self
            .administer("select rolname from pg_roles where rolname like 'v-%' order by 1")
            .await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }
}

/// Runs a statement with the command-line client. The password is passed in the environment, which
/// other users cannot read.
async fn run(port: u16, (user, password): (&str, &str), statement: &str) -> Result<String> {
    let program = ensure_async(Tool::PostgreSql).await?;
    let output = Command::new(program)
        .args(["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
        .args(["--host", "127.0.0.1", "--dbname", "postgres", "--username", user])
        .args(["--port", &port.to_string(), "--command", statement])
        .env("PGPASSWORD", password)
        .env("PGCONNECT_TIMEOUT", "5")
        .stdin(Stdio::null())
        .output()
        .await
        .context("run psql")?;
    ensure!(
        output.status.success(),
        "psql: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
