//! The store's configuration, checked before anything that speaks HTTP sees it.

use std::fmt;

use lockstep_api::{AwsProvider, SecretKeyRef, StoreKind, aws::AwsService, ciphertext::AwsKms};
use lockstep_provider::{ErrorKind, Operation, ProviderError, StoreKey};
use url::Url;

/// How many characters the name of a session may have.
const SESSION_NAME: usize = 64;

/// The KMS key of a store.
#[derive(Debug, Clone)]
pub(crate) struct KmsKey {
    /// Its id, its ARN, or an alias.
    pub(crate) id: String,
    /// Address of the service, where it is not AWS' own.
    pub(crate) endpoint: Option<String>,
}

/// A checked configuration. It holds no credential, only where credentials are.
#[derive(Clone)]
pub(crate) struct Config {
    /// The service.
    pub(crate) service: Option<AwsService>,
    /// The region.
    pub(crate) region: String,
    /// Address of the service, where it is not AWS' own.
    pub(crate) endpoint: Option<String>,
    /// What every name begins with.
    pub(crate) prefix: String,
    /// The key that decrypts.
    pub(crate) kms: Option<KmsKey>,
    /// How to get credentials.
    pub(crate) login: Login,
}

/// How to get credentials.
#[derive(Clone)]
pub(crate) struct Login {
    /// Whose credentials come first.
    pub(crate) source: Source,
    /// The role that is assumed.
    pub(crate) role: Option<String>,
    /// The external id that the role's trust policy asks for.
    pub(crate) external_id: Option<String>,
    /// Tags of the session, by key.
    pub(crate) tags: Vec<(String, String)>,
    /// The name of the session, which stands in the service's log of calls.
    pub(crate) session: String,
    /// Address of the token service, where it is not AWS' own.
    pub(crate) endpoint: Option<String>,
}

/// Whose credentials come first.
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
    /// The operator's own.
    Ambient,
}

/// An external id is half of a credential: only where the store is and who reads from it is shown.
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

/// As messages name who reads: `as role arn:aws:iam::123456789012:role/shop`.
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
    /// Checks what the user wrote for that store.
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

    /// The service, as messages name it.
    pub(crate) fn service_name(&self) -> &'static str {
        match self.service {
            Some(AwsService::SecretsManager) => "Secrets Manager",
            Some(AwsService::ParameterStore) => "Parameter Store",
            None => "KMS",
        }
    }
}

/// The region and the prefix, which decide what a key means.
///
/// # Errors
/// As [`Config::new`].
pub(crate) fn names(spec: &AwsProvider) -> Result<(String, String), ProviderError> {
    let region = spec.region.as_str();
    let is_region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    // It becomes a part of the service's host name.
    if region.is_empty() || region.len() > 64 || !region.bytes().all(is_region) {
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
            // AWS compares keys without case, and some other letters fold to those of ASCII
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
/// `ConfigInvalid`, naming where it stands.
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
    let bad = |what: &str| invalid(field, what);
    // The parser would drop these in silence.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(bad("has white space or control characters in it"));
    }
    let url = Url::parse(text).map_err(|_| {
        bad("is not a URL such as https://vpce-1a2b.secretsmanager.eu-central-1.vpce.amazonaws.com")
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("must begin with https:// or http://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("has no host"));
    }
    if text.contains('@') {
        return Err(bad("must not hold credentials"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("must not have a query or a fragment"));
    }
    Ok(Some(url.as_str().trim_end_matches('/').to_owned()))
}

/// The name of the session: `lockstep-shop-aws`, so that whoever reads the service's log finds the store.
fn session_name(store: &StoreKey) -> String {
    let place = store.namespace.as_deref().unwrap_or("cluster");
    let name = format!("lockstep-{place}-{}", store.name);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_=,.@-".contains(c);
    name.chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .take(SESSION_NAME)
        .collect()
}

/// A field that cannot work; the sentence goes on after the field's name.
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
