//! Validates the configuration of a store before any HTTP code uses it.

use std::fmt;

use lockstep_api::{
    GcpProvider, PubsubEvents, SecretKeyRef, StoreKind,
    ciphertext::GcpKms,
    gcp::{GcpFederationAuth, GcpVersionSelection, GcpWorkloadIdentityAuth},
};
use lockstep_provider::{ErrorKind, Operation, ProviderError, StoreKey};
use url::Url;

/// The annotation of a ServiceAccount that names the Google service account that it may
/// impersonate.
pub(crate) const ANNOTATION: &str = "iam.gke.io/gcp-service-account";

/// The KMS key of a store.
#[derive(Debug, Clone)]
pub(crate) struct KmsKey {
    /// The full name: `projects/P/locations/L/keyRings/R/cryptoKeys/K`.
    pub(crate) name: String,
    pub(crate) endpoint: Url,
}

/// A validated configuration. It contains no credentials, only their locations.
#[derive(Clone)]
pub(crate) struct Config {
    /// The project and location of the secrets. `None` if the store has only a KMS key.
    pub(crate) project_ref: Option<ProjectRef>,
    /// The version to read if the latest one is unavailable.
    pub(crate) selection: GcpVersionSelection,
    /// The key that decrypts.
    pub(crate) kms: Option<KmsKey>,
    pub(crate) login: Login,
}

/// The project and region of the secrets, and the endpoint of the service.
#[derive(Debug, Clone)]
pub(crate) struct ProjectRef {
    /// The project id or number.
    pub(crate) project: String,
    /// The region of regional secrets.
    pub(crate) location: Option<String>,
    pub(crate) endpoint: Url,
}

impl ProjectRef {
    /// Returns the prefix of every secret's full name: `projects/shop-prod`.
    pub(crate) fn parent(&self) -> String {
        let project = &self.project;
        match &self.location {
            Some(location) => format!("projects/{project}/locations/{location}"),
            None => format!("projects/{project}"),
        }
    }
}

/// How to log in.
#[derive(Clone)]
pub(crate) struct Login {
    /// The source of the first credentials.
    pub(crate) source: Source,
    /// The endpoint of the token service.
    pub(crate) sts: Url,
    /// The endpoint for impersonation.
    pub(crate) iam: Url,
}

/// The source of the first credentials.
#[derive(Clone)]
pub(crate) enum Source {
    /// The key of a service account from a Secret.
    Key(SecretKeyRef),
    /// A ServiceAccount's token, exchanged through a workload identity pool.
    Exchange(Exchange),
    /// The operator's own credentials.
    Ambient,
}

/// A ServiceAccount's token, exchanged through a workload identity pool.
#[derive(Clone)]
pub(crate) struct Exchange {
    /// The ServiceAccount.
    pub(crate) account: String,
    /// The audience of its token.
    pub(crate) token_audience: String,
    /// The audience of the exchange, which names the pool.
    pub(crate) audience: String,
    /// The service account to impersonate afterwards.
    pub(crate) acts_as: ActsAs,
}

/// The service account to impersonate.
#[derive(Clone)]
pub(crate) enum ActsAs {
    /// None: the ServiceAccount reads as itself.
    Itself,
    /// This service account.
    Email(String),
    /// The service account in the annotation of the ServiceAccount, if it has one.
    Annotated,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let project_ref = self
            .project_ref
            .as_ref()
            .map_or_else(|| "KMS".to_owned(), ProjectRef::parent);
        write!(f, "Config({project_ref}, {})", self.login)
    }
}

/// Describes the identity for messages: `as ServiceAccount "reader"`.
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Key(secret) => write!(f, "with the service account key from Secret \"{}\"", secret.name),
            Source::Exchange(exchange) => match &exchange.acts_as {
                ActsAs::Email(email) => write!(f, "as service account {email}"),
                ActsAs::Itself => write!(f, "as ServiceAccount \"{}\"", exchange.account),
                ActsAs::Annotated => write!(
                    f,
                    "as ServiceAccount \"{}\", or the service account that its annotation names",
                    exchange.account
                ),
            },
            Source::Ambient => f.write_str("with the operator's own identity"),
        }
    }
}

impl Config {
    /// Validates the user's configuration of this store.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming the field below `spec.provider.gcp`.
    pub(crate) fn new(spec: &GcpProvider, store: &StoreKey) -> Result<Self, ProviderError> {
        Ok(Self {
            project_ref: project_ref(spec)?,
            selection: spec.secret_version_selection_policy,
            kms: spec.kms.as_ref().map(kms).transpose()?,
            login: Login {
                source: source(spec, store)?,
                sts: address(
                    "stsEndpoint",
                    spec.sts_endpoint.as_deref(),
                    "https://sts.googleapis.com",
                )?,
                iam: address(
                    "iamEndpoint",
                    spec.iam_endpoint.as_deref(),
                    "https://iamcredentials.googleapis.com",
                )?,
            },
        })
    }
}

/// Returns the project of a store, or `None` if it has only a KMS key.
///
/// # Errors
/// As [`Config::new`].
pub(crate) fn project_ref(spec: &GcpProvider) -> Result<Option<ProjectRef>, ProviderError> {
    let location = spec.location.clone().filter(|location| !location.is_empty());
    // It becomes a part of the service's host name.
    if location.as_deref().is_some_and(|location| !is_label(location)) {
        return Err(invalid(
            "location",
            "is not the name of a region, such as europe-west3",
        ));
    }
    let Some(project) = spec.project_id.clone() else {
        if spec.kms.is_none() {
            return Err(invalid("projectID", "is not set, and neither is kms"));
        }
        return Ok(None);
    };
    if !is_project(&project) {
        return Err(invalid(
            "projectID",
            "is not the id or the number of a project, such as shop-prod",
        ));
    }
    let default = match &location {
        Some(location) => format!("https://secretmanager.{location}.rep.googleapis.com"),
        None => "https://secretmanager.googleapis.com".to_owned(),
    };
    Ok(Some(ProjectRef {
        project,
        location,
        endpoint: address("endpoint", spec.endpoint.as_deref(), &default)?,
    }))
}

fn kms(spec: &GcpKms) -> Result<KmsKey, ProviderError> {
    let name = spec.key.as_str();
    let parts: Vec<&str> = name.split('/').collect();
    let is_word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let good = matches!(
        parts.as_slice(),
        ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", key]
            if is_project(project) && is_label(location) && is_word(ring) && is_word(key)
    );
    if !good || name.len() > 512 {
        return Err(invalid(
            "kms.key",
            "must be the name of a key: projects/P/locations/L/keyRings/R/cryptoKeys/K",
        ));
    }
    Ok(KmsKey {
        name: name.to_owned(),
        endpoint: address(
            "kms.endpoint",
            spec.endpoint.as_deref(),
            "https://cloudkms.googleapis.com",
        )?,
    })
}

/// Returns the subscription of a store in this project.
///
/// # Errors
/// `ConfigInvalid`, naming the field below `spec.events.pubsub`.
pub(crate) fn subscription(spec: &PubsubEvents, project: &str) -> Result<Subscription, ProviderError> {
    let refused = |field: &str, what: &str| {
        let message = format!("spec.events.pubsub.{field} {what}");
        ProviderError::new(ErrorKind::ConfigInvalid, Operation::Configure, message)
    };
    let parts: Vec<&str> = spec.subscription.split('/').collect();
    let (project, name) = match parts.as_slice() {
        [name] => (project, *name),
        ["projects", project, "subscriptions", name] => (*project, *name),
        _ => ("", ""),
    };
    let is_name = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+%".contains(&byte);
        (3..=255).contains(&text.len()) && text.bytes().all(allowed) && !text.contains("..")
    };
    if !is_project(project) || !is_name(name) {
        return Err(refused(
            "subscription",
            "must be projects/P/subscriptions/S, or the name of a subscription in the store's project",
        ));
    }
    let endpoint = spec.endpoint.as_deref();
    Ok(Subscription {
        name: format!("projects/{project}/subscriptions/{name}"),
        endpoint: address("endpoint", endpoint, "https://pubsub.googleapis.com")
            .map_err(|_| refused("endpoint", "is not an address that can be used"))?,
    })
}

/// A subscription of Pub/Sub.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    /// The full name: `projects/P/subscriptions/S`.
    pub(crate) name: String,
    pub(crate) endpoint: Url,
}

fn source(spec: &GcpProvider, store: &StoreKey) -> Result<Source, ProviderError> {
    let Some(auth) = &spec.auth else {
        if store.kind == StoreKind::SecretStore {
            return Err(invalid(
                "auth",
                "is not set, and the operator's own identity serves ClusterSecretStores only",
            ));
        }
        return Ok(Source::Ambient);
    };
    match (
        &auth.secret_ref,
        &auth.workload_identity_federation,
        &auth.workload_identity,
    ) {
        (Some(key), None, None) => Ok(Source::Key(key.secret_access_key_secret_ref.clone())),
        (None, Some(federation), None) => federated(federation).map(Source::Exchange),
        (None, None, Some(cluster)) => of_cluster(cluster, spec.project_id.as_deref()).map(Source::Exchange),
        _ => Err(invalid(
            "auth",
            "must contain exactly one of secretRef, workloadIdentityFederation, workloadIdentity",
        )),
    }
}

fn federated(spec: &GcpFederationAuth) -> Result<Exchange, ProviderError> {
    if !spec.audience.starts_with("//iam.googleapis.com/projects/") {
        return Err(invalid(
            "auth.workloadIdentityFederation.audience",
            "must name the provider of a pool: //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER",
        ));
    }
    let acts_as = match &spec.service_account_email {
        Some(email) => {
            check_email("auth.workloadIdentityFederation.serviceAccountEmail", email)?;
            ActsAs::Email(email.clone())
        }
        None => ActsAs::Itself,
    };
    let account = &spec.service_account_ref;
    let audience = account.audience.clone();
    Ok(Exchange {
        account: account.name.clone(),
        token_audience: audience.unwrap_or_else(|| format!("https:{}", spec.audience)),
        audience: spec.audience.clone(),
        acts_as,
    })
}

fn of_cluster(spec: &GcpWorkloadIdentityAuth, project: Option<&str>) -> Result<Exchange, ProviderError> {
    let field = |name: &str| format!("auth.workloadIdentity.{name}");
    let project = spec.cluster_project_id.as_deref().or(project);
    let Some(project) = project.filter(|project| is_project(project)) else {
        return Err(invalid(
            &field("clusterProjectID"),
            "must be the id of the cluster's project, such as shop-prod",
        ));
    };
    for (name, text) in [
        ("clusterLocation", &spec.cluster_location),
        ("clusterName", &spec.cluster_name),
    ] {
        if !is_label(text) {
            return Err(invalid(
                &field(name),
                "must have lowercase letters, digits and - alone",
            ));
        }
    }
    let pool = format!("{project}.svc.id.goog");
    Ok(Exchange {
        account: spec.service_account_ref.name.clone(),
        audience: format!(
            "identitynamespace:{pool}:https://container.googleapis.com/v1/projects/{project}/locations/{}/clusters/{}",
            spec.cluster_location, spec.cluster_name
        ),
        token_audience: pool,
        acts_as: ActsAs::Annotated,
    })
}

/// Checks the email of a service account, which becomes a part of a path.
///
/// # Errors
/// `ConfigInvalid`, naming the field.
pub(crate) fn check_email(field: &str, email: &str) -> Result<(), ProviderError> {
    let is_part = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte))
    };
    let good = email
        .split_once('@')
        .is_some_and(|(name, domain)| is_part(name) && is_part(domain));
    if good && email.len() <= 253 {
        return Ok(());
    }
    Err(invalid(
        field,
        "is not the address of a service account, such as shop@shop-prod.iam.gserviceaccount.com",
    ))
}

/// Whether the text is a project id or number. Old ids can have a domain as prefix.
pub(crate) fn is_project(text: &str) -> bool {
    let (domain, name) = text.split_once(':').unwrap_or(("x", text));
    let is_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    text.len() <= 128 && !domain.is_empty() && domain.bytes().all(is_domain) && is_label(name)
}

/// Whether the text is a word of lowercase letters, digits and dashes.
pub(crate) fn is_label(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_good)
}

fn address(field: &str, text: Option<&str>, default: &str) -> Result<Url, ProviderError> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or(default);
    lockstep_http::parse(text, "https://secretmanager.googleapis.com").map_err(|what| invalid(field, what))
}

/// Creates the error for an invalid field. `what` continues the sentence after the field's name.
pub(crate) fn invalid(field: &str, what: impl fmt::Display) -> ProviderError {
    ProviderError::new(
        ErrorKind::ConfigInvalid,
        Operation::Configure,
        format!("spec.provider.gcp.{field} {what}"),
    )
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
