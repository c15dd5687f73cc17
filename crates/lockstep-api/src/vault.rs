//! The `vault` provider: HashiCorp Vault and OpenBao, key/value engine versions 1 and 2.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ciphertext::VaultTransit,
    credential::{CredentialRef, SecretKeyRef, ServiceAccountRef},
};

/// HashiCorp Vault or OpenBao.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("!(has(self.caBundle) && has(self.caProvider))", "caBundle and caProvider exclude each other")
)]
pub struct VaultProvider {
    /// Address of the server, such as `https://vault.internal:8200`. A SecretStore requires `https`, and cannot use loopback or
    /// link-local addresses. A ClusterSecretStore can.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "server must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[schemars(length(min = 1, max = 2048))]
    pub server: String,
    /// Mount path of the key/value engine, such as `secret`. When it is not set, a key starts with the mount path. `auth`, `sys`,
    /// `identity` and `cubbyhole` are never read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Version of the key/value engine. Default: `v2`.
    #[serde(default)]
    pub version: KvVersion,
    /// The key of the transit engine that decrypts `data[].ciphertext`. The policy needs `update` on its decrypt path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transit: Option<VaultTransit>,
    /// Vault namespace (Vault Enterprise, OpenBao), such as `team/shop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub namespace: Option<String>,
    /// Certificate authorities that sign the server's certificate: PEM, base64-encoded. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub ca_bundle: Option<String>,
    /// Certificate authorities from a Secret or ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_provider: Option<CaProvider>,
    /// How lockstep logs in: exactly one method.
    pub auth: VaultAuth,
}

/// Version of Vault's key/value engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KvVersion {
    /// Without versions.
    #[serde(rename = "v1")]
    V1,
    /// With versions.
    #[default]
    #[serde(rename = "v2")]
    V2,
}

/// Where certificate authorities come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaProvider {
    /// Kind of the object: `Secret` or `ConfigMap`.
    #[serde(rename = "type")]
    pub kind: CaProviderKind,
    /// Name of the object, in the store's credential namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// Key in its data; the value is PEM.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::DATA_KEY))]
    pub key: String,
}

/// Kind of the object that holds certificate authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaProviderKind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

/// How lockstep logs in to Vault: exactly one method.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.tokenSecretRef), has(self.appRole), has(self.kubernetes), has(self.jwt), has(self.cert), has(self.userPass)].filter(x, x).size() == 1",
        "auth must hold exactly one of tokenSecretRef, appRole, kubernetes, jwt, cert, userPass"
    )
)]
pub struct VaultAuth {
    /// A token from a Secret. It is not renewed: prefer a method that logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// AppRole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_role: Option<AppRoleAuth>,
    /// Kubernetes: a ServiceAccount's token, reviewed by Vault at the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesAuth>,
    /// JWT: a ServiceAccount's token checked by its signature, or a JWT from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtAuth>,
    /// TLS client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<CertAuth>,
    /// User name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_pass: Option<UserPassAuth>,
}

/// AppRole login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.roleId) != has(self.roleRef)", "appRole needs exactly one of roleId, roleRef")
)]
pub struct AppRoleAuth {
    /// Mount path of the auth method. Default: `approle`.
    #[serde(default = "approle")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// The role id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub role_id: Option<String>,
    /// The role id, from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_ref: Option<SecretKeyRef>,
    /// The secret id, from a Secret.
    pub secret_ref: SecretKeyRef,
}

/// Kubernetes login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesAuth {
    /// Mount path of the auth method. Default: `kubernetes`.
    #[serde(default = "kubernetes")]
    #[schemars(length(min = 1, max = 1024))]
    pub mount_path: String,
    /// The role to log in as.
    #[schemars(length(min = 1, max = 1024))]
    pub role: String,
    /// The ServiceAccount whose token is sent.
    pub service_account_ref: ServiceAccountRef,
}

/// JWT login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.secretRef) != has(self.serviceAccountRef)", "jwt needs exactly one of secretRef, serviceAccountRef")
)]
pub struct JwtAuth {
    /// Mount path of the auth method. Default: `jwt`.
    #[serde(default = "jwt")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// The role to log in as. Default: the auth method's default role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub role: Option<String>,
    /// A JWT from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// A ServiceAccount's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountRef>,
}

/// TLS certificate login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertAuth {
    /// Mount path of the auth method. Default: `cert`.
    #[serde(default = "cert")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// The certificate role to log in as. Default: Vault tries all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub role: Option<String>,
    /// The client certificate: PEM, from a Secret.
    pub client_cert: SecretKeyRef,
    /// The private key of the client certificate: PEM, from a Secret.
    pub secret_ref: SecretKeyRef,
}

/// User name and password login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPassAuth {
    /// Mount path of the auth method. Default: `userpass`.
    #[serde(default = "userpass")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// The user name.
    #[schemars(length(min = 1, max = 1024))]
    pub username: String,
    /// The password, from a Secret.
    pub secret_ref: SecretKeyRef,
}

fn approle() -> String {
    "approle".to_owned()
}
fn kubernetes() -> String {
    "kubernetes".to_owned()
}
fn jwt() -> String {
    "jwt".to_owned()
}
fn cert() -> String {
    "cert".to_owned()
}
fn userpass() -> String {
    "userpass".to_owned()
}

impl VaultProvider {
    /// Every Secret and ConfigMap that this configuration reads.
    pub fn credential_refs(&self) -> Vec<CredentialRef> {
        let auth = &self.auth;
        let secrets = [
            auth.token_secret_ref.as_ref(),
            auth.app_role.as_ref().and_then(|a| a.role_ref.as_ref()),
            auth.app_role.as_ref().map(|a| &a.secret_ref),
            auth.jwt.as_ref().and_then(|a| a.secret_ref.as_ref()),
            auth.cert.as_ref().map(|a| &a.client_cert),
            auth.cert.as_ref().map(|a| &a.secret_ref),
            auth.user_pass.as_ref().map(|a| &a.secret_ref),
        ];
        let ca = self.ca_provider.as_ref().map(|ca| match ca.kind {
            CaProviderKind::Secret => CredentialRef::secret(&ca.name),
            CaProviderKind::ConfigMap => CredentialRef::config_map(&ca.name),
        });
        let mut refs: Vec<_> = secrets
            .into_iter()
            .flatten()
            .map(|s| CredentialRef::secret(&s.name))
            .chain(ca)
            .collect();
        refs.sort();
        refs.dedup();
        refs
    }
}
