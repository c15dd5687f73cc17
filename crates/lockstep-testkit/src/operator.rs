//! The real binary as it runs in a cluster: installed from `deploy/kustomize/base`, with its own
//! ServiceAccount.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tokio::{io::AsyncWriteExt as _, process::Command, time::Instant};

use crate::{
    binaries,
    control_plane::ControlPlane,
    ports,
    process::{Process, ProcessSpec},
    scratch::Scratch,
    tools::{Tool, ensure_async},
};

/// The namespace that the operator is installed in.
pub const NAMESPACE: &str = "lockstep-system";
/// The ServiceAccount of the operator.
pub const SERVICE_ACCOUNT: &str = "lockstep";

/// Returns the folder of the repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Runs `kubectl apply -k deploy/kustomize/base`. There is no kubelet here, so its Deployment
/// starts nothing, and [`Operator`] takes the place of its pod.
///
/// # Errors
/// When kubectl fails; the message ends with its output.
pub async fn install(kubeconfig: &Path) -> Result<()> {
    apply_folder(kubeconfig, &repository().join("deploy/kustomize/base")).await
}

/// Runs `kubectl apply --server-side -k FOLDER`.
///
/// # Errors
/// When kubectl fails; the message ends with its output.
pub async fn apply_folder(kubeconfig: &Path, folder: &Path) -> Result<()> {
    let folder = folder.to_string_lossy().into_owned();
    let apply = ["apply", "--server-side", "--force-conflicts", "-k", &folder];
    // A folder can contain custom resources with their definitions, which are served only after a
    // moment.
    for _ in 0..20 {
        if kubectl(kubeconfig, &apply, None).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    kubectl(kubeconfig, &apply, None).await.map(drop)
}

/// Runs kubectl and returns its output.
///
/// # Errors
/// When it fails; the message ends with its output.
pub async fn kubectl(kubeconfig: &Path, arguments: &[&str], input: Option<&str>) -> Result<String> {
    let program = ensure_async(Tool::Kubectl).await?;
    let mut child = Command::new(program)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start kubectl")?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin
            .write_all(input.as_bytes())
            .await
            .context("write to kubectl")?;
    }
    let output = child.wait_with_output().await.context("wait for kubectl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "kubectl {}: {}",
        arguments.join(" "),
        said.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An operator process, which may be stopped.
#[derive(Debug)]
pub struct Operator {
    process: Option<Process>,
    spec: ProcessSpec,
    port: u16,
    folder: Scratch,
}

impl Operator {
    /// Starts the real binary with its own ServiceAccount and waits until it is ready.
    ///
    /// # Errors
    /// When it is not built, does not start or is not ready within a minute; the message ends with
    /// its log.
    pub async fn start(plane: &ControlPlane, arguments: &[&str]) -> Result<Self> {
        let mut operator = Self::prepare(plane, arguments).await?;
        operator.run().await?;
        Ok(operator)
    }

    /// Prepares the operator without starting it.
    ///
    /// # Errors
    /// When the binary is not built, or no token can be requested for the ServiceAccount.
    pub async fn prepare(plane: &ControlPlane, arguments: &[&str]) -> Result<Self> {
        let talkative = [&["--log-level", "info,lockstep=trace"], arguments].concat();
        Self::prepare_binary(plane, &binaries::lockstep()?, &talkative).await
    }

    /// Prepares the operator without starting it, as it runs in production: SecretStores cannot use
    /// loopback addresses.
    ///
    /// # Errors
    /// When the binary is not built, or no token can be requested for the ServiceAccount.
    pub async fn prepare_strict(plane: &ControlPlane, arguments: &[&str]) -> Result<Self> {
        let kubeconfig = plane
            .kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
            .await?;
        let folder = Scratch::new("lockstep")?;
        Self::prepare_production(folder, &kubeconfig, &binaries::lockstep()?, arguments)
    }

    /// Prepares the operator with this binary without starting it.
    ///
    /// # Errors
    /// When no token can be requested for the ServiceAccount.
    pub async fn prepare_binary(plane: &ControlPlane, binary: &Path, arguments: &[&str]) -> Result<Self> {
        let kubeconfig = plane
            .kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
            .await?;
        Self::prepare_with(Scratch::new("lockstep")?, &kubeconfig, binary, arguments)
    }

    /// Prepares the operator without starting it. It reaches the API server at `url`, for example
    /// through a proxy.
    ///
    /// # Errors
    /// When the binary is not built, or no token can be requested for the ServiceAccount.
    pub async fn prepare_through(plane: &ControlPlane, url: &str, arguments: &[&str]) -> Result<Self> {
        let kubeconfig = plane
            .kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
            .await?;
        let text = std::fs::read_to_string(&kubeconfig).context("read the kubeconfig")?;
        let folder = Scratch::new("lockstep")?;
        let kubeconfig = folder.write("through.kubeconfig", text.replace(plane.url(), url))?;
        Self::prepare_with(folder, &kubeconfig, &binaries::lockstep()?, arguments)
    }

    fn prepare_with(folder: Scratch, kubeconfig: &Path, binary: &Path, arguments: &[&str]) -> Result<Self> {
        // The servers of tests listen on loopback addresses, do not lag behind, and answer at once.
        let own = [
            "--unsafe-allow-local-store-endpoints",
            "--deletion-delay=1s",
            "--issue-timeout=1s",
        ];
        let arguments = [&own, arguments].concat();
        Self::prepare_production(folder, kubeconfig, binary, &arguments)
    }

    fn prepare_production(
        folder: Scratch,
        kubeconfig: &Path,
        binary: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        let port = ports::free()?;
        let spec = ProcessSpec::new("lockstep", binary, folder.path())
            .arg("run")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--listen")
            .arg(format!("127.0.0.1:{port}"))
            .args(arguments);
        Ok(Self {
            process: None,
            spec,
            port,
            folder,
        })
    }

    /// Sets an environment variable for the next start.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.spec = self.spec.env(name, value);
        self
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready within a minute.
    pub async fn run(&mut self) -> Result<()> {
        self.process = Some(self.spec.spawn()?);
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(process) = &mut self.process {
                process.ensure_running()?;
            }
            if self.get("readyz").await.is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the operator was not ready within a minute:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the process with SIGKILL, like the loss of its machine.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks the process to end (SIGTERM), as Kubernetes does, and returns its exit status.
    ///
    /// # Errors
    /// When it is not running, or does not end within this time.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        let process = self.process.as_mut().context("the operator does not run")?;
        process.signal(Signal::TERM)?;
        process.wait(limit)
    }

    /// Returns its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Returns the process while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("lockstep.log")).unwrap_or_default()
    }

    /// Returns the address of its admin server.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the status code and text of a path of its admin server.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let answer = reqwest::get(format!("{}/{path}", self.address())).await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Returns the sum of the series of a metric whose labels contain all of these texts.
    ///
    /// # Errors
    /// When the metrics cannot be read.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let (_, text) = self.get("metrics").await?;
        let of_metric = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        Ok(text
            .lines()
            .filter(of_metric)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }
}
