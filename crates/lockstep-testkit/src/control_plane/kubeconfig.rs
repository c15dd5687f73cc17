//! Kubeconfigs for the administrator and for ServiceAccounts.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};

use super::{ControlPlane, client_from};

/// Lifetime of tokens, longer than any test.
const TOKEN_SECONDS: i64 = 12 * 3600;

impl ControlPlane {
    /// Returns the path of a kubeconfig with all permissions.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder().join("admin.kubeconfig")
    }

    /// Returns the path of a kubeconfig with the permissions of a ServiceAccount, which is created
    /// if it does not exist. Its token is valid for twelve hours.
    ///
    /// # Errors
    /// When the API server rejects the ServiceAccount or the token.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let text = serde_yaml_ng::to_string(&self.service_account_kubeconfig(namespace, name).await?)?;
        self.folder.write(&format!("{namespace}.{name}.kubeconfig"), text)
    }

    /// Creates a client with the permissions of a ServiceAccount, which is created if it does not
    /// exist.
    ///
    /// # Errors
    /// When the API server rejects the ServiceAccount or the token.
    pub async fn client_for_service_account(&self, namespace: &str, name: &str) -> Result<Client> {
        client_from(parse(self.service_account_kubeconfig(namespace, name).await?)?).await
    }

    async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<Value> {
        let client = self.client().await?;
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}});
        api.patch(
            name,
            &PatchParams::apply("lockstep-testkit"),
            &Patch::Apply(account),
        )
        .await
        .with_context(|| format!("apply ServiceAccount {namespace}/{name}"))?;
        let token = service_account_token(&client, namespace, name).await?;
        Ok(self.kubeconfig_of(&format!("{namespace}:{name}"), &json!({ "token": token })))
    }

    pub(super) fn write_admin_kubeconfig(&self) -> Result<()> {
        self.folder
            .write("admin.kubeconfig", serde_yaml_ng::to_string(&self.admin_value())?)
            .map(drop)
    }

    pub(super) fn admin_kubeconfig(&self) -> Result<Kubeconfig> {
        parse(self.admin_value())
    }

    fn admin_value(&self) -> Value {
        self.kubeconfig_of(
            "admin",
            &json!({
                "client-certificate-data": STANDARD.encode(&self.admin.certificate),
                "client-key-data": STANDARD.encode(&self.admin.key),
            }),
        )
    }

    fn kubeconfig_of(&self, user: &str, credentials: &Value) -> Value {
        let name = &self.name;
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": name,
                "cluster": { "server": self.url, "certificate-authority-data": STANDARD.encode(&self.ca) },
            }],
            "users": [{ "name": user, "user": credentials }],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": user } }],
            "current-context": name,
        })
    }
}

/// Requests a token of a ServiceAccount for the API server. It is valid for twelve hours, or less if
/// the cluster grants less.
///
/// # Errors
/// When the API server rejects the request.
pub async fn service_account_token(client: &Client, namespace: &str, name: &str) -> Result<String> {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let answer = Api::<ServiceAccount>::namespaced(client.clone(), namespace)
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .with_context(|| format!("request a token of ServiceAccount {namespace}/{name}"))?;
    let status = answer
        .status
        .context("the response to the TokenRequest has no token")?;
    Ok(status.token)
}

fn parse(value: Value) -> Result<Kubeconfig> {
    serde_json::from_value(value).context("read a kubeconfig of the test's own")
}
