//! Validates the configuration of a store before any HTTP code uses it.

use std::fmt;

use lockstep_api::{
    AwsProvider, SecretKeyRef, StoreKind,
    aws::{AwsService, is_region},
    ciphertext::AwsKms,
};
use lockstep_provider::{ErrorKind, Operation, ProviderError, StoreKey};

/// Maximum number of characters of a session name.
const SESSION_NAME: usize = 64;

/// The KMS key of a store.
#[derive(Debug, Clone)]
pub(crate) struct KmsKey {
    /// The key id, ARN or alias.
    pub(crate) id: String,
    /// The endpoint of the service, if it is not the one of AWS.
    pub(crate) endpoint: Option<String>,
}

/// A validated configuration. It contains no credentials, only their locations.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) service: Option<AwsService>,
    pub(crate) region: String,
    /// The endpoint of the service, if it is not the one of AWS.
    pub(crate) endpoint: Option<String>,
    /// The prefix of every name.
    pub(crate) prefix: String,
    /// The key that decrypts.
    pub(crate) kms: Option<KmsKey>,
    pub(crate) login: Login,
}

/// How to get credentials.
#[derive(Clone)]
pub(crate) struct Login {
    /// The source of the first credentials.
    pub(crate) source: Source,
    /// The role to assume.
    pub(crate) role: Option<String>,
    /// The external id that the role's trust policy requires.
    pub(crate) external_id: Option<String>,
    /// Tags of the session, as pairs of key and value.
    pub(crate) tags: Vec<(String, String)>,
    /// The name of the session, which CloudTrail records.
    pub(crate) session: String,
    /// The endpoint of the token service, if it is not the one of AWS.
    pub(crate) endpoint: Option<String>,
}

/// The source of the first credentials.
#[derive(Clone)]
pub(crate) enum Source {
    /// An access key from a Secret.
    Key {
        id: SecretKeyRef,
        secret: SecretKeyRef,
        token: Option<SecretKeyRef>,
    },
    /// A ServiceAccount's token.
    WebIdentity { account: String, audience: String },
    /// The operator's own credentials.
    Ambient,
}

/// Shows only the location of the store and the identity. An external id is half of a credential.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Config({}, {}, {})",
            self.service_name(),
            self.region,
            self.login
        )
    }
}

/// Describes the identity for messages: `as role arn:aws:iam::123456789012:role/shop`.
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.role, &self.source) {
            (Some(role), _) => write!(f, "as role {role}"),
            (None, Source::Key { secret, .. }) => {
                write!(f, "with the access key from Secret \"{}\"", secret.name)
            }
            (None, Source::WebIdentity { account, .. }) => {
                write!(f, "as the role of ServiceAccount \"{account}\"")
            }
            (None, Source::Ambient) => f.write_str("with the operator's own identity"),
        }
    }
}

impl Config {
    /// Validates the user's configuration of this store.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming the field below `spec.provider.aws`.
    pub(crate) fn new(spec: &AwsProvider, store: &StoreKey) -> Result<Self, ProviderError> {
        let (region, prefix) = names(spec)?;
        Ok(Self {
            service: spec.service,
            region,
            endpoint: endpoint("endpoint", spec.endpoint.as_deref())?,
            prefix,
            kms: spec.kms.as_ref().map(kms).transpose()?,
            login: Login::new(spec, store)?,
        })
    }

    /// Returns the name of the service for messages.
    pub(crate) fn service_name(&self) -> &'static str {
        match self.service {
            Some(AwsService::SecretsManager) => "Secrets Manager",
            Some(AwsService::ParameterStore) => "Parameter Store",
            None => "KMS",
        }
    }
}

/// Returns the region and the prefix, which determine the meaning of a key.
///
/// # Errors
/// As [`Config::new`].
pub(crate) fn names(spec: &AwsProvider) -> Result<(String, String), ProviderError> {
    let region = spec.region.as_str();
    // It becomes a part of the service's host name.
    if region.len() > 64 || !is_region(region) {
        return Err(invalid(
            "region",
            "is not the name of a region, such as eu-central-1",
        ));
    }
    let prefix = spec.prefix.clone().unwrap_or_default();
    if let Err(error) = lockstep_core::remote::check_visible(&prefix) {
        return Err(invalid("prefix", error));
    }
    Ok((region.to_owned(), prefix))
}

fn kms(spec: &AwsKms) -> Result<KmsKey, ProviderError> {
    let id = spec.key_id.as_str();
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b":/_-".contains(&byte);
    if id.is_empty() || id.len() > 2048 || !id.bytes().all(is_good) {
        return Err(invalid(
            "kms.keyId",
            "must be the ARN or the id of a KMS key, or alias/ and a name",
        ));
    }
    Ok(KmsKey {
        id: id.to_owned(),
        endpoint: endpoint("kms.endpoint", spec.endpoint.as_deref())?,
    })
}

impl Login {
    fn new(spec: &AwsProvider, store: &StoreKey) -> Result<Self, ProviderError> {
        let source = source(spec, store)?;
        let role = spec.role.clone().filter(|role| !role.is_empty());
        if let Some(role) = &role {
            check_role("role", role)?;
        }
        let mut tags: Vec<(String, String)> = Vec::new();
        for tag in &spec.session_tags {
            if tag.key.to_ascii_lowercase().starts_with("lockstep:") {
                return Err(invalid(
                    "sessionTags",
                    "must not hold keys that begin with lockstep:, which storeSessionTags sets",
                ));
            }
            // AWS compares keys case-insensitively, and some non-ASCII letters fold to ASCII.
            if !tag.key.is_ascii() {
                return Err(invalid("sessionTags", "must hold keys of ASCII characters only"));
            }
            if tags.iter().any(|(key, _)| *key == tag.key) {
                return Err(invalid("sessionTags", "holds the same key twice"));
            }
            tags.push((tag.key.clone(), tag.value.clone()));
        }
        if spec.store_session_tags {
            if let Some(namespace) = &store.namespace {
                tags.push(("lockstep:namespace".to_owned(), namespace.clone()));
            }
            tags.push(("lockstep:store".to_owned(), store.name.clone()));
        }
        if role.is_none() && (spec.external_id.is_some() || !tags.is_empty()) {
            return Err(invalid(
                "role",
                "is not set, and externalID and session tags are for assuming it",
            ));
        }
        Ok(Self {
            source,
            role,
            external_id: spec.external_id.clone(),
            tags,
            session: session_name(store),
            endpoint: endpoint("stsEndpoint", spec.sts_endpoint.as_deref())?,
        })
    }
}

fn source(spec: &AwsProvider, store: &StoreKey) -> Result<Source, ProviderError> {
    let Some(auth) = &spec.auth else {
        if store.kind == StoreKind::SecretStore {
            return Err(invalid(
                "auth",
                "is not set, and the operator's own identity serves ClusterSecretStores only",
            ));
        }
        return Ok(Source::Ambient);
    };
    match (&auth.secret_ref, &auth.jwt) {
        (Some(key), None) => Ok(Source::Key {
            id: key.access_key_id_secret_ref.clone(),
            secret: key.secret_access_key_secret_ref.clone(),
            token: key.session_token_secret_ref.clone(),
        }),
        (None, Some(jwt)) => Ok(Source::WebIdentity {
            account: jwt.service_account_ref.name.clone(),
            audience: jwt.service_account_ref.audience.clone(),
        }),
        _ => Err(invalid("auth", "must contain exactly one of secretRef, jwt")),
    }
}

/// Checks the ARN of a role.
///
/// # Errors
/// `ConfigInvalid`, naming the field.
pub(crate) fn check_role(field: &str, role: &str) -> Result<(), ProviderError> {
    let parts: Vec<&str> = role.splitn(6, ':').collect();
    let good = matches!(parts.as_slice(), ["arn", partition, "iam", "", account, resource]
    if !partition.is_empty()
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && resource.strip_prefix("role/").is_some_and(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@/-".contains(&byte))
        }));
    if good && role.len() <= 2048 {
        Ok(())
    } else {
        Err(invalid(
            field,
            "is not the ARN of an IAM role, such as arn:aws:iam::123456789012:role/shop",
        ))
    }
}

fn endpoint(field: &str, text: Option<&str>) -> Result<Option<String>, ProviderError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let example = "https://vpce-1a2b.secretsmanager.eu-central-1.vpce.amazonaws.com";
    let url = lockstep_http::parse(text, example).map_err(|what| invalid(field, what))?;
    Ok(Some(url.as_str().trim_end_matches('/').to_owned()))
}

/// Returns the name of the session, such as `lockstep-shop-aws`, so that the store can be found in
/// CloudTrail.
fn session_name(store: &StoreKey) -> String {
    let place = store.namespace.as_deref().unwrap_or("cluster");
    let name = format!("lockstep-{place}-{}", store.name);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_=,.@-".contains(c);
    name.chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .take(SESSION_NAME)
        .collect()
}

/// Creates the error for an invalid field. `what` continues the sentence after the field's name.
pub(crate) fn invalid(field: &str, what: impl fmt::Display) -> ProviderError {
    ProviderError::new(
        ErrorKind::ConfigInvalid,
        Operation::Configure,
        format!("spec.provider.aws.{field} {what}"),
    )
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
