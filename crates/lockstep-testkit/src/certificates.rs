//! A certificate authority for servers and clients of tests.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A certificate with its private key, both in PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate in PEM.
    pub certificate: String,
    /// The private key (PKCS#8). It is useless outside the test.
    pub key: String,
}

/// A certificate authority that lives as long as the test.
pub struct CertificateAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// Creates an authority with its own key.
    ///
    /// # Errors
    /// When the key cannot be generated.
    pub fn new(common_name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().context("make the key of a certificate authority")?;
        let issuer = CertifiedIssuer::self_signed(params, key).context("sign a certificate authority")?;
        Ok(Self { issuer })
    }

    /// Returns its certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for a server with these host names and addresses.
    ///
    /// # Errors
    /// When a name is malformed.
    pub fn server(&self, names: &[&str]) -> Result<Identity> {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())
            .context("names of a server certificate")?;
        params
            .distinguished_name
            .push(DnType::CommonName, *names.first().unwrap_or(&"server"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// Issues a certificate for a client. In Kubernetes the common name is the user and the
    /// organization the group.
    ///
    /// # Errors
    /// When the certificate cannot be signed.
    pub fn client(&self, common_name: &str, organization: Option<&str>) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("make the key of a certificate")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("sign a certificate")?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// Creates a key pair that signs service account tokens.
///
/// # Errors
/// When the key cannot be generated.
pub(crate) fn signing_key() -> Result<(String, String)> {
    let key = KeyPair::generate().context("make the key of service account tokens")?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}
