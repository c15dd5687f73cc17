//! Requests of an administrator to an OpenBao server.

use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use super::{OpenBao, ROOT_TOKEN};
use crate::http;

impl OpenBao {
    /// Sends a request to `/v1/<path>` with the root token. An empty response is `Value::Null`.
    ///
    /// # Errors
    /// When the server does not respond, or returns an error; its own text is in the message.
    pub async fn request(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        self.send(method, path, body, Some(ROOT_TOKEN)).await
    }

    /// Sends a request with another token than the root token, or with none.
    ///
    /// # Errors
    /// As [`OpenBao::request`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        token: Option<&str>,
    ) -> Result<Value> {
        let what = format!("{method} {path}");
        let mut request = http::client(self.ca())?.request(method, format!("{}/v1/{path}", self.address()));
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.with_context(|| format!("OpenBao: {what}"))?;
        let status = response.status();
        let text = response
            .text()
            .await
            .with_context(|| format!("OpenBao: {what}: read the answer"))?;
        if !status.is_success() {
            bail!("OpenBao: {what}: {status}: {text}");
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("OpenBao: {what}: the answer is not JSON"))
    }

    /// Sends `GET /v1/<path>`.
    ///
    /// # Errors
    /// As [`OpenBao::request`].
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.request(Method::GET, path, None).await
    }

    /// Sends `POST /v1/<path>`. After mounting a key/value engine of version 2, it waits until the
    /// engine can be used: the server upgrades a new one in the background and rejects requests
    /// until then.
    ///
    /// # Errors
    /// As [`OpenBao::request`].
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let versioned = body["options"]["version"] == "2";
        let answer = self.request(Method::POST, path, Some(body)).await?;
        if versioned && let Some((namespace, mount)) = path.split_once("sys/mounts/") {
            self.wait_for_engine(&format!("{namespace}{mount}")).await?;
        }
        Ok(answer)
    }

    /// Sends `DELETE /v1/<path>`.
    ///
    /// # Errors
    /// As [`OpenBao::request`].
    pub async fn delete(&self, path: &str) -> Result<Value> {
        self.request(Method::DELETE, path, None).await
    }

    /// Writes a new version of `path` in the key/value engine version 2 at `secret/`, and returns
    /// the version.
    ///
    /// # Errors
    /// As [`OpenBao::request`].
    pub async fn put_kv2(&self, path: &str, data: Value) -> Result<u64> {
        let answer = self
            .post(&format!("secret/data/{path}"), json!({ "data": data }))
            .await?;
        answer
            .pointer("/data/version")
            .and_then(Value::as_u64)
            .context("OpenBao: the answer to a write has no version")
    }

    /// Writes `path` of a key/value engine version 1; `path` starts with the engine's mount path.
    ///
    /// # Errors
    /// As [`OpenBao::request`].
    pub async fn put_kv1(&self, path: &str, data: Value) -> Result<()> {
        self.post(path, data).await.map(drop)
    }

    /// Mounts a key/value engine of version 1 or 2 at `path`.
    ///
    /// # Errors
    /// As [`OpenBao::request`].
    pub async fn enable_kv(&self, path: &str, version: u8) -> Result<()> {
        let engine = json!({ "type": "kv", "options": { "version": version.to_string() } });
        self.post(&format!("sys/mounts/{path}"), engine).await.map(drop)
    }

    /// Mounts an auth method (`approle`, `cert`, `jwt`, `kubernetes`, `userpass`, …) at its own
    /// name.
    ///
    /// # Errors
    /// As [`OpenBao::request`].
    pub async fn enable_auth(&self, kind: &str) -> Result<()> {
        self.post(&format!("sys/auth/{kind}"), json!({ "type": kind }))
            .await
            .map(drop)
    }

    /// Writes a policy in the server's policy language.
    ///
    /// # Errors
    /// As [`OpenBao::request`].
    pub async fn put_policy(&self, name: &str, rules: &str) -> Result<()> {
        self.post(&format!("sys/policies/acl/{name}"), json!({ "policy": rules }))
            .await
            .map(drop)
    }

    /// Creates a token with only these policies, valid for an hour.
    ///
    /// # Errors
    /// As [`OpenBao::request`].
    pub async fn create_token(&self, policies: &[&str]) -> Result<String> {
        let wanted = json!({ "policies": policies, "ttl": "1h", "no_default_policy": true });
        let answer = self.post("auth/token/create", wanted).await?;
        let token = answer.pointer("/auth/client_token").and_then(Value::as_str);
        token
            .map(str::to_owned)
            .context("OpenBao: the answer to a token request has no token")
    }

    async fn wait_for_engine(&self, path: &str) -> Result<()> {
        let mut last = Ok(Value::Null);
        for _ in 0..200 {
            last = self.get(&format!("{path}/config")).await;
            if last.is_ok() {
                break;
            }
            tokio::time::sleep(super::POLL).await;
        }
        last.map(drop)
            .with_context(|| format!("OpenBao: the key/value engine at {path} does not come up"))
    }
}
