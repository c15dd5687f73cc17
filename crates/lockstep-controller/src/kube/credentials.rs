//! Reads the credentials of stores from the one namespace that a store may read from.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};
use lockstep_api::CredentialKind;
use lockstep_core::text::{escape, is_subdomain, shell_quote};
use lockstep_provider::{Credentials, ErrorKind, Operation, ProviderError, SecretValue};
use parking_lot::RwLock;

use crate::{
    audiences::Audiences,
    index::{CredentialKey, Index},
    kube::{account::Account, tokens},
};

const TIMEOUT: Duration = Duration::from_secs(15);

/// Reads the credentials of stores in one namespace.
pub struct NamespaceCredentials {
    client: Client,
    namespace: String,
    account: Arc<Account>,
    audiences: Arc<Audiences>,
    index: Arc<RwLock<Index>>,
}

impl std::fmt::Debug for NamespaceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NamespaceCredentials({})", self.namespace)
    }
}

impl NamespaceCredentials {
    /// Creates a reader for a namespace. It requests tokens only with the given audiences.
    pub fn new(
        client: Client,
        namespace: String,
        account: Arc<Account>,
        audiences: Arc<Audiences>,
        index: Arc<RwLock<Index>>,
    ) -> Self {
        Self {
            client,
            namespace,
            account,
            audiences,
            index,
        }
    }

    /// Records the version that was read, so that a later watch can detect a change since then.
    fn note(&self, kind: CredentialKind, name: &str, version: &str) {
        let key = CredentialKey {
            kind,
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        };
        self.index.write().note_credential(&key, version);
    }

    fn unavailable(message: String) -> ProviderError {
        ProviderError::new(ErrorKind::CredentialsUnavailable, Operation::Configure, message)
    }

    fn failed(&self, error: &kube::Error, kind: &str, plural: &str, name: &str) -> ProviderError {
        let namespace = &self.namespace;
        let code = match error {
            kube::Error::Api(status) => status.code,
            _ => 0,
        };
        match code {
            404 => Self::unavailable(format!("{kind} \"{name}\" does not exist in namespace \"{namespace}\"")),
            403 => Self::unavailable(format!("lockstep may not read {kind} \"{name}\" in namespace \"{namespace}\""))
                .with_hint(format!(
                    "Grant it with: kubectl create role {role} -n {quoted} --verb=get,list,watch --resource={plural} --resource-name={} && kubectl create rolebinding {role} -n {quoted} --role={role} {}",
                    shell_quote(name),
                    self.account.kubectl_option(),
                    role = shell_quote(&format!("lockstep-{name}")),
                    quoted = shell_quote(namespace),
                )),
            _ => ProviderError::new(
                ErrorKind::Unavailable,
                Operation::Configure,
                format!("{kind} \"{name}\" in namespace \"{namespace}\" could not be read from the API server"),
            ),
        }
    }

    /// Checks a name before it is used in a URL or a command. Stored objects can be older than the
    /// patterns in the CRDs.
    fn check_name(kind: &str, name: &str) -> Result<(), ProviderError> {
        if is_subdomain(name) {
            return Ok(());
        }
        let shown: String = escape(name).chars().take(64).collect();
        let message = format!(
            "{kind} \"{shown}\" is not a valid Kubernetes name. Use lower-case letters, digits, \"-\" and \".\""
        );
        Err(ProviderError::new(
            ErrorKind::ConfigInvalid,
            Operation::Configure,
            message,
        ))
    }

    fn no_key(&self, kind: &str, name: &str, key: &str) -> ProviderError {
        Self::unavailable(format!(
            "{kind} \"{name}\" in namespace \"{}\" has no key \"{}\"",
            self.namespace,
            escape(key)
        ))
    }
}

async fn bounded<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Result<kube::Result<T>, ProviderError> {
    tokio::time::timeout(TIMEOUT, request).await.map_err(|_| {
        ProviderError::new(
            ErrorKind::Timeout,
            Operation::Configure,
            format!("the API server did not respond within {} s", TIMEOUT.as_secs()),
        )
    })
}

#[async_trait]
impl Credentials for NamespaceCredentials {
    async fn secret(&self, name: &str, key: &str) -> Result<SecretValue, ProviderError> {
        Self::check_name("Secret", name)?;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = bounded(api.get(name)).await?;
        let secret = found.map_err(|error| {
            self.note(CredentialKind::Secret, name, "unreadable");
            self.failed(&error, "Secret", "secrets", name)
        })?;
        self.note(
            CredentialKind::Secret,
            name,
            secret.metadata.resource_version.as_deref().unwrap_or_default(),
        );
        let mut data: BTreeMap<String, ByteString> = secret.data.unwrap_or_default();
        let value = data.remove(key).map(|bytes| SecretValue::new(bytes.0));
        for (_, mut other) in data {
            zeroize::Zeroize::zeroize(&mut other.0);
        }
        value.ok_or_else(|| self.no_key("Secret", name, key))
    }

    async fn config_map(&self, name: &str, key: &str) -> Result<String, ProviderError> {
        Self::check_name("ConfigMap", name)?;
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = bounded(api.get(name)).await?;
        let map = found.map_err(|error| {
            self.note(CredentialKind::ConfigMap, name, "unreadable");
            self.failed(&error, "ConfigMap", "configmaps", name)
        })?;
        self.note(
            CredentialKind::ConfigMap,
            name,
            map.metadata.resource_version.as_deref().unwrap_or_default(),
        );
        map.data
            .unwrap_or_default()
            .remove(key)
            .ok_or_else(|| self.no_key("ConfigMap", name, key))
    }

    async fn service_account_token(&self, name: &str, audience: &str) -> Result<SecretValue, ProviderError> {
        Self::check_name("ServiceAccount", name)?;
        self.audiences.check(audience).map_err(|unusable| {
            let kind = if unusable.is_transient() {
                ErrorKind::Unavailable
            } else {
                ErrorKind::CredentialsUnavailable
            };
            let message = format!("no token is minted with the audience \"{audience}\": {unusable}");
            ProviderError::new(kind, Operation::Configure, message).with_hint(unusable.hint())
        })?;
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let request = tokens::request(audience);
        let answer = bounded(api.create_token_request(name, &PostParams::default(), &request)).await?;
        let namespace = &self.namespace;
        match answer {
            Ok(answer) => {
                let token = answer.status.map(|status| status.token).unwrap_or_default();
                Ok(SecretValue::from(token))
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                Err(Self::unavailable(format!("ServiceAccount \"{name}\" does not exist in namespace \"{namespace}\"")))
            }
            Err(kube::Error::Api(status)) if status.code == 403 => Err(Self::unavailable(format!(
                "lockstep may not request a token of ServiceAccount \"{name}\" in namespace \"{namespace}\" for the audience \"{audience}\""
            ))
            .with_hint("The admission policy lockstep-token-requests lists the allowed audiences")),
            Err(_) => Err(ProviderError::new(
                ErrorKind::Unavailable,
                Operation::Configure,
                format!("a token of ServiceAccount \"{name}\" in namespace \"{namespace}\" could not be requested"),
            )),
        }
    }

    async fn service_account_annotation(
        &self,
        name: &str,
        annotation: &str,
    ) -> Result<Option<String>, ProviderError> {
        Self::check_name("ServiceAccount", name)?;
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        match bounded(api.get_metadata(name)).await? {
            Ok(account) => Ok(account
                .metadata
                .annotations
                .unwrap_or_default()
                .remove(annotation)),
            Err(error) => Err(self.failed(&error, "ServiceAccount", "serviceaccounts", name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_core::text::is_hidden;

    use super::*;

    #[test]
    fn only_valid_names_are_sent_or_shown_in_commands() {
        assert!(NamespaceCredentials::check_name("Secret", "vault-token.v1").is_ok());
        for hostile in [
            "x; rm -rf ~",
            "$(id)",
            "../configmaps/x",
            "x?watch=1",
            "a\u{1b}[2J",
            "a\u{202e}",
            "",
        ] {
            let error = NamespaceCredentials::check_name("Secret", hostile).unwrap_err();
            assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{hostile:?}");
            assert!(!error.to_string().chars().any(is_hidden), "{error}");
        }
    }
}
