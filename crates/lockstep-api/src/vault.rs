//! The `vault` provider: HashiCorp Vault and OpenBao, key/value engine versions 1 and 2.

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ciphertext::VaultTransit,
    credential::{CredentialRef, SecretKeyRef, ServiceAccountRef},
};

/// VaultProvider configures HashiCorp Vault or OpenBao.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("!(has(self.caBundle) && has(self.caProvider))", "set only one of caBundle and caProvider")
)]
pub struct VaultProvider {
    /// server is the URL of the server, for example `https://vault.internal:8200`.
    /// A SecretStore requires `https` and cannot use loopback or link-local
    /// addresses; a ClusterSecretStore can. At most 2048 characters.
    #[x_kube(validation = (
        "self.matches('^https?://[^/?#@\\\\s]+(/[^?#\\\\s]*)?$')",
        "server must be an http or https URL with a host and without credentials, query or fragment"
    ))]
    #[schemars(length(min = 1, max = 2048))]
    pub server: String,
    /// path is the mount path of the key/value engine, for example `secret`. If
    /// absent, each key begins with its mount path. `auth`, `sys`, `identity` and
    /// `cubbyhole` are never read. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// version is the version of the key/value engine. Defaults to `v2`.
    ///
    /// - `v1`: without versions and metadata.
    /// - `v2`: with versions and custom metadata.
    #[serde(default)]
    pub version: KvVersion,
    /// transit is the key of the transit engine that decrypts `data[].ciphertext`.
    /// The policy must grant `update` on its decrypt path. If absent, the store
    /// decrypts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transit: Option<VaultTransit>,
    /// namespace is the namespace in Vault Enterprise or OpenBao, for example
    /// `team/shop`. If absent, the root namespace is used. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub namespace: Option<String>,
    /// caBundle contains the certificate authorities that sign the certificate of
    /// the server, as base64-encoded PEM. Defaults to the authorities of the
    /// operator's system. At most 262,144 characters. Not allowed with caProvider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub ca_bundle: Option<String>,
    /// caProvider reads the certificate authorities from a Secret or ConfigMap. Not
    /// allowed with caBundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_provider: Option<CaProvider>,
    /// auth is how lockstep logs in. Exactly one method is required.
    pub auth: VaultAuth,
}

/// KvVersion is the version of Vault's key/value engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KvVersion {
    /// Without versions and metadata.
    #[serde(rename = "v1")]
    V1,
    /// With versions and custom metadata.
    #[default]
    #[serde(rename = "v2")]
    V2,
}

/// CaProvider names the object that contains certificate authorities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaProvider {
    /// type is the kind of the object.
    ///
    /// - `Secret`: a Secret.
    /// - `ConfigMap`: a ConfigMap.
    #[serde(rename = "type")]
    pub kind: CaProviderKind,
    /// name is the name of the object, in the namespace of the SecretStore, or of
    /// the operator for a ClusterSecretStore. At most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::SUBDOMAIN))]
    pub name: String,
    /// key is the key in the data of the object. Its value is PEM. At most 253
    /// characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::name::DATA_KEY))]
    pub key: String,
}

/// CaProviderKind is the kind of object that contains certificate authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaProviderKind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

/// VaultAuth configures exactly one login method.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.tokenSecretRef), has(self.appRole), has(self.kubernetes), has(self.jwt), has(self.cert), has(self.userPass)].filter(x, x).size() == 1",
        "auth must contain exactly one of tokenSecretRef, appRole, kubernetes, jwt, cert, userPass"
    )
)]
pub struct VaultAuth {
    /// tokenSecretRef reads a token from a Secret. lockstep does not renew it.
    /// Prefer a method that logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// appRole logs in with the AppRole method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_role: Option<AppRoleAuth>,
    /// kubernetes logs in with the token of a ServiceAccount, which Vault verifies
    /// with the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesAuth>,
    /// jwt logs in with the token of a ServiceAccount or a JWT from a Secret, which
    /// Vault verifies by its signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtAuth>,
    /// cert logs in with a TLS client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<CertAuth>,
    /// userPass logs in with a user name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_pass: Option<UserPassAuth>,
}

/// AppRoleAuth configures the AppRole login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.roleId) != has(self.roleRef)", "appRole requires exactly one of roleId, roleRef")
)]
pub struct AppRoleAuth {
    /// path is the mount path of the auth method. Defaults to `approle`. At most
    /// 1024 characters.
    #[serde(default = "approle")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// roleId is the role ID. Exactly one of roleId and roleRef is required. At
    /// most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub role_id: Option<String>,
    /// roleRef reads the role ID from a Secret. Exactly one of roleId and roleRef
    /// is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_ref: Option<SecretKeyRef>,
    /// secretRef reads the secret ID from a Secret.
    pub secret_ref: SecretKeyRef,
}

/// KubernetesAuth configures the Kubernetes login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesAuth {
    /// mountPath is the mount path of the auth method. Defaults to `kubernetes`. At
    /// most 1024 characters.
    #[serde(default = "kubernetes")]
    #[schemars(length(min = 1, max = 1024))]
    pub mount_path: String,
    /// role is the Vault role to log in as. At most 1024 characters.
    #[schemars(length(min = 1, max = 1024))]
    pub role: String,
    /// serviceAccountRef is the ServiceAccount whose token is sent to Vault.
    /// lockstep requests a token that expires after ten minutes.
    pub service_account_ref: ServiceAccountRef,
}

/// JwtAuth configures the JWT login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = ("has(self.secretRef) != has(self.serviceAccountRef)", "jwt requires exactly one of secretRef, serviceAccountRef")
)]
pub struct JwtAuth {
    /// path is the mount path of the auth method. Defaults to `jwt`. At most 1024
    /// characters.
    #[serde(default = "jwt")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// role is the Vault role to log in as. Defaults to the default role of the
    /// auth method. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub role: Option<String>,
    /// secretRef reads a JWT from a Secret. Exactly one of secretRef and
    /// serviceAccountRef is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// serviceAccountRef is the ServiceAccount whose token is sent to Vault.
    /// lockstep requests a token that expires after ten minutes. Exactly one of
    /// secretRef and serviceAccountRef is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountRef>,
}

/// CertAuth configures the login with a TLS client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertAuth {
    /// path is the mount path of the auth method. Defaults to `cert`. At most 1024
    /// characters.
    #[serde(default = "cert")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// role is the certificate role to log in as. If absent, Vault tries all roles.
    /// At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub role: Option<String>,
    /// clientCert reads the client certificate (PEM) from a Secret.
    pub client_cert: SecretKeyRef,
    /// secretRef reads the private key of the client certificate (PEM) from a
    /// Secret.
    pub secret_ref: SecretKeyRef,
}

/// UserPassAuth configures the login with a user name and password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPassAuth {
    /// path is the mount path of the auth method. Defaults to `userpass`. At most
    /// 1024 characters.
    #[serde(default = "userpass")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// username is the name of the user. At most 1024 characters.
    #[schemars(length(min = 1, max = 1024))]
    pub username: String,
    /// secretRef reads the password from a Secret.
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
    /// Returns every Secret and ConfigMap that this configuration reads.
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
