//! Loads certificates: the authorities for the server's certificate, and the client certificate.

use lockstep_api::vault::{CaProvider, CaProviderKind};
use lockstep_provider::{Credentials, ProviderError};
use reqwest::{Certificate, Identity};
use zeroize::Zeroizing;

use crate::{
    config::{Authorities, Config, Method, invalid},
    credential::{describe, unavailable},
};

/// The certificates of one client.
pub(crate) struct Tls {
    /// Certificate authorities; `None` uses those of the system.
    pub(crate) authorities: Option<Vec<Certificate>>,
    /// The client certificate.
    pub(crate) identity: Option<Identity>,
}

impl Tls {
    /// Loads the certificates that the configuration names.
    ///
    /// # Errors
    /// `ConfigInvalid` for certificates in the spec, `CredentialsUnavailable` for those of Secrets
    /// and ConfigMaps.
    pub(crate) async fn load(config: &Config, credentials: &dyn Credentials) -> Result<Self, ProviderError> {
        let authorities = match &config.authorities {
            Authorities::System => None,
            Authorities::Bundle(pem) => {
                Some(certificates(pem).ok_or_else(|| invalid("caBundle", "holds no certificate in PEM"))?)
            }
            Authorities::Provider(provider) => Some(provided(provider, credentials).await?),
        };
        let identity = match &config.method {
            Method::Cert { certificate, key, .. } => {
                let chain = credentials.secret(&certificate.name, &certificate.key).await?;
                if certificates(chain.expose()).is_none() {
                    return Err(unavailable(format!(
                        "{} holds no certificate in PEM",
                        describe(certificate)
                    )));
                }
                let private = credentials.secret(&key.name, &key.key).await?;
                let mut pem = Zeroizing::new(chain.expose().to_vec());
                pem.push(b'\n');
                pem.extend_from_slice(private.expose());
                // The error is dropped because the parser could quote the key.
                let identity = Identity::from_pem(&pem);
                Some(
                    identity
                        .map_err(|_| unavailable(format!("{} holds no private key in PEM", describe(key))))?,
                )
            }
            _ => None,
        };
        Ok(Self {
            authorities,
            identity,
        })
    }
}

async fn provided(
    provider: &CaProvider,
    credentials: &dyn Credentials,
) -> Result<Vec<Certificate>, ProviderError> {
    let (kind, pem) = match provider.kind {
        CaProviderKind::Secret => (
            "Secret",
            credentials
                .secret(&provider.name, &provider.key)
                .await?
                .expose()
                .to_vec(),
        ),
        CaProviderKind::ConfigMap => (
            "ConfigMap",
            credentials
                .config_map(&provider.name, &provider.key)
                .await?
                .into_bytes(),
        ),
    };
    certificates(&pem).ok_or_else(|| {
        unavailable(format!(
            "{kind} \"{}\", key \"{}\" holds no certificate in PEM",
            provider.name, provider.key
        ))
    })
}

/// Parses the certificates of a PEM text. Returns `None` if there are none, or if one is damaged.
fn certificates(pem: &[u8]) -> Option<Vec<Certificate>> {
    Certificate::from_pem_bundle(pem)
        .ok()
        .filter(|certificates| !certificates.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_certificates_is_rejected() {
        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for pem in ["", "canary", broken, key] {
            assert!(certificates(pem.as_bytes()).is_none(), "{pem}");
        }
    }
}
