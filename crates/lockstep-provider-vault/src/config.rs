//! The store's configuration, validated before any HTTP client gets it.

use lockstep_api::{
    SecretKeyRef, ServiceAccountRef, VaultProvider,
    ciphertext::VaultTransit,
    vault::{CaProvider, VaultAuth},
};
use lockstep_provider::{ErrorKind, Operation, ProviderError};
use reqwest::header::HeaderValue;
use url::Url;

use crate::path::{self, KvLocator};

/// The transit key of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransitKey {
    /// The mount path of the engine, without leading or trailing slash.
    pub(crate) mount: String,
    /// The name of the key.
    pub(crate) name: String,
    /// Whether the binding is the derivation context of the key, instead of associated data.
    pub(crate) derived: bool,
}

/// A validated configuration. It contains no credential, only references to them.
#[derive(Clone)]
pub(crate) struct Config {
    /// The server URL, with a path that ends in `/v1/`.
    pub(crate) base: Url,
    /// Parses the keys of the store.
    pub(crate) locator: KvLocator,
    /// The value of the namespace header.
    pub(crate) namespace: Option<HeaderValue>,
    /// The source of the certificate authorities.
    pub(crate) authorities: Authorities,
    /// The key that decrypts.
    pub(crate) transit: Option<TransitKey>,
    /// The login method.
    pub(crate) method: Method,
}

/// The source of certificate authorities.
#[derive(Clone)]
pub(crate) enum Authorities {
    /// The system's certificate authorities.
    System,
    /// PEM from the spec.
    Bundle(Vec<u8>),
    /// PEM from a Secret or ConfigMap.
    Provider(CaProvider),
}

/// The login method.
#[derive(Clone)]
pub(crate) enum Method {
    /// No login: a token from a Secret.
    Token(SecretKeyRef),
    /// AppRole.
    AppRole {
        mount: String,
        role: RoleId,
        secret: SecretKeyRef,
    },
    /// A ServiceAccount's token, reviewed by the server.
    Kubernetes {
        mount: String,
        role: String,
        account: ServiceAccountRef,
    },
    /// A JWT, verified by its signature.
    Jwt {
        mount: String,
        role: Option<String>,
        source: JwtSource,
    },
    /// A TLS client certificate.
    Cert {
        mount: String,
        role: Option<String>,
        certificate: SecretKeyRef,
        key: SecretKeyRef,
    },
    /// A user name and password.
    UserPass {
        mount: String,
        username: String,
        secret: SecretKeyRef,
    },
}

/// The source of an AppRole's role id.
#[derive(Clone)]
pub(crate) enum RoleId {
    /// The role id itself, from the spec.
    Literal(String),
    /// A key of a Secret.
    Secret(SecretKeyRef),
}

/// The source of a JWT.
#[derive(Clone)]
pub(crate) enum JwtSource {
    /// A key of a Secret.
    Secret(SecretKeyRef),
    /// A token of a ServiceAccount.
    Account(ServiceAccountRef),
}

/// Shows only the server and the identity, because a role id is half of a credential.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config({}, {})", self.base, self.method)
    }
}

/// Formats the identity as messages show it: `as role "shop" (auth/kubernetes)`.
impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(secret) => write!(f, "with the token from Secret \"{}\"", secret.name),
            Self::AppRole { mount, .. } => write!(f, "as AppRole (auth/{mount})"),
            Self::Kubernetes { mount, role, .. }
            | Self::Jwt {
                mount,
                role: Some(role),
                ..
            }
            | Self::Cert {
                mount,
                role: Some(role),
                ..
            } => write!(f, "as role \"{role}\" (auth/{mount})"),
            Self::Jwt {
                mount, role: None, ..
            } => write!(f, "as the default role (auth/{mount})"),
            Self::Cert {
                mount, role: None, ..
            } => write!(f, "with a client certificate (auth/{mount})"),
            Self::UserPass { mount, username, .. } => write!(f, "as user \"{username}\" (auth/{mount})"),
        }
    }
}

impl Config {
    /// Validates the spec.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming the field below `spec.provider.vault`.
    pub(crate) fn new(spec: &VaultProvider) -> Result<Self, ProviderError> {
        let base = server(&spec.server)?;
        let method = method(&spec.auth)?;
        if matches!(method, Method::Cert { .. }) && base.scheme() != "https" {
            return Err(invalid(
                "server",
                "must be https, because auth.cert shows a client certificate",
            ));
        }
        let authorities = match (&spec.ca_bundle, &spec.ca_provider) {
            (None, None) => Authorities::System,
            (Some(bundle), None) => Authorities::Bundle(ca_bundle(bundle)?),
            (None, Some(provider)) => Authorities::Provider(provider.clone()),
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "caBundle",
                    "and caProvider are both set. Set only one of them",
                ));
            }
        };
        let namespace = match spec.namespace.as_deref() {
            None | Some("") => None,
            Some(namespace) => {
                let namespace = mount("namespace", namespace)?;
                let header = HeaderValue::from_str(&namespace)
                    .ok()
                    .filter(|_| namespace.is_ascii());
                Some(header.ok_or_else(|| invalid("namespace", "must be printable ASCII"))?)
            }
        };
        let transit = spec.transit.as_ref().map(transit).transpose()?;
        Ok(Self {
            base,
            locator: locator(spec)?,
            namespace,
            authorities,
            transit,
            method,
        })
    }
}

/// Returns the parser for the keys of a store.
///
/// # Errors
/// `ConfigInvalid` when the mount path is invalid.
pub(crate) fn locator(spec: &VaultProvider) -> Result<KvLocator, ProviderError> {
    let mount = match spec.path.as_deref() {
        None | Some("") => None,
        Some(path) => Some(engine_mount("path", path)?),
    };
    Ok(KvLocator {
        mount,
        version: spec.version,
    })
}

fn transit(spec: &VaultTransit) -> Result<TransitKey, ProviderError> {
    let name = spec.key.as_str();
    // it becomes a segment of the path
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.bytes().all(is_good) || path::check(name).is_err() {
        return Err(invalid(
            "transit.key",
            "must be the name of a key: letters, digits, '-', '_' and '.'",
        ));
    }
    Ok(TransitKey {
        mount: engine_mount("transit.path", &spec.path)?,
        name: name.to_owned(),
        derived: spec.derived,
    })
}

fn server(text: &str) -> Result<Url, ProviderError> {
    let bad = |what: String| invalid("server", what);
    let mut url = lockstep_http::parse(text, "https://vault.internal:8200").map_err(bad)?;
    let prefix = url.path().trim_matches('/').to_owned();
    if !prefix.is_empty() {
        path::check(&prefix).map_err(|error| bad(format!("has a path that {error}")))?;
    }
    url.set_path(&if prefix.is_empty() {
        "v1/".to_owned()
    } else {
        format!("{prefix}/v1/")
    });
    Ok(url)
}

fn method(auth: &VaultAuth) -> Result<Method, ProviderError> {
    let mut methods = Vec::new();
    if let Some(secret) = &auth.token_secret_ref {
        methods.push(Method::Token(secret.clone()));
    }
    if let Some(auth) = &auth.app_role {
        let role = match (&auth.role_id, &auth.role_ref) {
            (Some(id), None) => RoleId::Literal(id.clone()),
            (None, Some(secret)) => RoleId::Secret(secret.clone()),
            _ => return Err(invalid("auth.appRole", "needs exactly one of roleId, roleRef")),
        };
        let mount = mount("auth.appRole.path", &auth.path)?;
        methods.push(Method::AppRole {
            mount,
            role,
            secret: auth.secret_ref.clone(),
        });
    }
    if let Some(auth) = &auth.kubernetes {
        let mount = mount("auth.kubernetes.mountPath", &auth.mount_path)?;
        let role = name("auth.kubernetes.role", &auth.role)?;
        methods.push(Method::Kubernetes {
            mount,
            role,
            account: auth.service_account_ref.clone(),
        });
    }
    if let Some(auth) = &auth.jwt {
        let source = match (&auth.secret_ref, &auth.service_account_ref) {
            (Some(secret), None) => JwtSource::Secret(secret.clone()),
            (None, Some(account)) => JwtSource::Account(account.clone()),
            _ => {
                return Err(invalid(
                    "auth.jwt",
                    "needs exactly one of secretRef, serviceAccountRef",
                ));
            }
        };
        let mount = mount("auth.jwt.path", &auth.path)?;
        let role = auth
            .role
            .as_deref()
            .map(|role| name("auth.jwt.role", role))
            .transpose()?;
        methods.push(Method::Jwt { mount, role, source });
    }
    if let Some(auth) = &auth.cert {
        let mount = mount("auth.cert.path", &auth.path)?;
        let role = auth
            .role
            .as_deref()
            .map(|role| name("auth.cert.role", role))
            .transpose()?;
        let (certificate, key) = (auth.client_cert.clone(), auth.secret_ref.clone());
        methods.push(Method::Cert {
            mount,
            role,
            certificate,
            key,
        });
    }
    if let Some(auth) = &auth.user_pass {
        let mount = mount("auth.userPass.path", &auth.path)?;
        let username = name("auth.userPass.username", &auth.username)?;
        // It becomes a segment of the login path.
        path::check(&username).map_err(|error| invalid("auth.userPass.username", error))?;
        if username.contains('/') {
            return Err(invalid("auth.userPass.username", "must not hold a slash"));
        }
        methods.push(Method::UserPass {
            mount,
            username,
            secret: auth.secret_ref.clone(),
        });
    }
    match (methods.pop(), methods.is_empty()) {
        (Some(method), true) => Ok(method),
        _ => Err(invalid(
            "auth",
            "must contain exactly one of tokenSecretRef, appRole, kubernetes, jwt, cert, userPass",
        )),
    }
}

/// Normalizes a mount path or a namespace. Both are often written with a leading or trailing slash.
fn mount(field: &str, text: &str) -> Result<String, ProviderError> {
    let inner = text.strip_prefix('/').unwrap_or(text);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    path::check(inner).map_err(|error| invalid(field, error))?;
    Ok(inner.to_owned())
}

/// Normalizes the mount path of a secrets engine. The server's own mounts are rejected.
fn engine_mount(field: &str, text: &str) -> Result<String, ProviderError> {
    let mount = mount(field, text)?;
    path::check_mount(&mount).map_err(|error| invalid(field, error))?;
    Ok(mount)
}

fn name(field: &str, text: &str) -> Result<String, ProviderError> {
    if text.is_empty() {
        return Err(invalid(field, "is empty"));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "has a control character"));
    }
    Ok(text.to_owned())
}

fn ca_bundle(text: &str) -> Result<Vec<u8>, ProviderError> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    if text.trim_ascii_start().starts_with("-----BEGIN") {
        return Err(invalid("caBundle", "must be base64-encoded PEM")
            .with_hint("Encode the PEM file, for example with: base64 -w0 ca.pem"));
    }
    let packed: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD
        .decode(packed)
        .map_err(|_| invalid("caBundle", "is not base64"))
}

/// Returns the error of an invalid field. `what` continues the sentence after the field's name.
pub(crate) fn invalid(field: &str, what: impl std::fmt::Display) -> ProviderError {
    ProviderError::new(
        ErrorKind::ConfigInvalid,
        Operation::Configure,
        format!("spec.provider.vault.{field} {what}"),
    )
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
