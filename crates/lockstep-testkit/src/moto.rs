//! moto, a widely used emulator of AWS: a provider that passes against it is not tuned to our own
//! stand-in.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    ports,
    process::{Process, ProcessSpec},
    scratch::Scratch,
    tools::{Tool, ensure_async},
};

/// How long it may take to respond on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// A running moto. It stops when this value is dropped or its process ends.
#[derive(Debug)]
pub struct Moto {
    address: String,
    _process: Process,
    _folder: Scratch,
}

impl Moto {
    /// Starts an empty moto, which serves every region.
    ///
    /// # Errors
    /// When it cannot be installed, or does not start; its last log lines are in the message.
    pub async fn start() -> Result<Self> {
        Self::start_on(ports::free()?).await
    }

    /// Starts moto on this loopback port.
    ///
    /// # Errors
    /// As [`Moto::start`].
    pub async fn start_on(port: u16) -> Result<Self> {
        crate::init();
        let program = ensure_async(Tool::Moto).await?;
        let folder = Scratch::new("moto")?;
        let mut process = ProcessSpec::new("moto", program, folder.path())
            .args(["--host", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .env("MOTO_ALLOW_NONEXISTENT_REGION", "true")
            .spawn()?;
        let address = format!("http://127.0.0.1:{port}");
        let began = Instant::now();
        while crate::http::client(None)?
            .get(format!("{address}/moto-api/data.json"))
            .send()
            .await
            .is_err()
        {
            process.ensure_running()?;
            if began.elapsed() > READY_LIMIT {
                bail!(
                    "moto does not answer; the end of its log:\n{}",
                    process.log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self {
            address,
            _process: process,
            _folder: folder,
        })
    }

    /// Returns its address, for `endpoint` and `stsEndpoint`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Calls a service that uses JSON, such as `secretsmanager.CreateSecret`. Regions share
    /// nothing. Under concurrent calls, moto occasionally returns status 500, and the same call
    /// succeeds a moment later. Such a call is repeated.
    ///
    /// # Errors
    /// When moto returns an error.
    pub async fn call(&self, region: &str, target: &str, request: &Value) -> Result<Value> {
        for _ in 0..5 {
            match self.call_once(region, target, request).await {
                Err(error) if error.to_string().contains("500 Internal Server Error") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                outcome => return outcome,
            }
        }
        self.call_once(region, target, request).await
    }

    async fn call_once(&self, region: &str, target: &str, request: &Value) -> Result<Value> {
        let service = match target.split('.').next() {
            Some("AmazonSSM") => "ssm",
            Some("TrentService") => "kms",
            Some("AmazonSQS") => "sqs",
            _ => "secretsmanager",
        };
        let scope = format!("AKIATEST/20260101/{region}/{service}/aws4_request");
        let answer = crate::http::client(None)?
            .post(&self.address)
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.1")
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
            )
            .body(request.to_string())
            .send()
            .await
            .context("call moto")?;
        let status = answer.status();
        let text = answer.text().await.context("read moto's answer")?;
        ensure!(status.is_success(), "moto: {target}: {status}: {text}");
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).context("moto's answer is not JSON")
    }
}
