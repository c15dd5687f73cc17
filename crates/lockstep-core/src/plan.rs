//! Plans what to read for a SyncedSecret and checks that it may be read, before the first request.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_api::{
    CiphertextScope, Generate, Reason, RefreshPolicy, StoreKind, StoreRef, SyncedSecretSpec,
    synced_secret::Find,
};

use crate::{
    Failure,
    access::Grant,
    ciphertext::{Binding, CiphertextError, Sealed},
    lease::{self, Generation},
    names,
    remote::{
        Ciphertext, FindQuery, LeaseRequest, Location, LocationError, Locator, RemoteRef, Requeue,
        SecretValue,
    },
    rotation::{self, Windows},
    spec::{self, Entry, EntryPath, Reference, Source, StoreView},
    template,
    text::excerpt,
};

/// Another SyncedSecret that writes the same Secret and is older.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub name: String,
}

/// The input of [`plan`].
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Name of the SyncedSecret.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// Its spec.
    pub spec: &'a SyncedSecretSpec,
    /// Every existing store that the spec names.
    pub stores: &'a BTreeMap<StoreRef, StoreView>,
    /// The older SyncedSecret that writes the same Secret.
    pub rival: Option<&'a Rival>,
}

impl Input<'_> {
    /// The name of the Secret to write.
    pub fn target_name(&self) -> &str {
        spec::target_name(self.name, &self.spec.target)
    }

    /// Resolves the remote value that an entry names by key.
    ///
    /// # Errors
    /// When the store does not exist, or the key is invalid for it.
    pub(crate) fn read(&self, entry: &Entry<'_>, reference: &Reference<'_>) -> Result<Read, Failure> {
        let located = self.locator(entry)?.locate(reference.key, reference.version);
        let located = located.map_err(|error| invalid_location(entry, ": key", reference.key, &error))?;
        Ok(Read {
            store: entry.store.clone(),
            reference: RemoteRef {
                key: located.location,
                version: located.version,
                part: reference.part,
            },
        })
    }

    fn view(&self, entry: &Entry<'_>) -> Result<&StoreView, Failure> {
        self.stores.get(entry.store).ok_or_else(|| {
            let place = match entry.store.kind {
                StoreKind::SecretStore => format!(" in namespace \"{}\"", self.namespace),
                StoreKind::ClusterSecretStore => String::new(),
            };
            let message = format!("{} does not exist{place}", entry.store);
            entry.failure(Reason::StoreNotFound, message)
        })
    }

    fn locator(&self, entry: &Entry<'_>) -> Result<&dyn Locator, Failure> {
        let locator = self.view(entry)?.locator.as_deref();
        locator.map_err(|error| entry.store_failure(error))
    }
}

/// One read of the plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Read {
    /// The store.
    pub store: StoreRef,
    /// The remote value.
    pub reference: RemoteRef,
}

/// One search of the plan.
#[derive(Debug, Clone)]
pub struct Search {
    /// The index of the entry in `dataFrom`.
    pub entry: usize,
    /// The store.
    pub store: StoreRef,
    /// The query to send to the store.
    pub query: FindQuery,
    /// Limits which results may be read.
    pub grant: Grant,
}

/// One ciphertext of the plan.
#[derive(Debug, Clone)]
pub struct Decryption {
    /// The index of the entry in `data`.
    pub entry: usize,
    /// The key of the Secret that it becomes.
    pub secret_key: String,
    /// The store whose key decrypts it.
    pub store: StoreRef,
    /// The ciphertext to send to the KMS.
    pub ciphertext: Ciphertext,
    location: Binding,
    sealed: Sealed,
}

impl Decryption {
    /// The provider whose KMS encrypted the value.
    pub fn kms(&self) -> &str {
        self.sealed.kms()
    }

    /// Returns the value for the plaintext that the KMS returned.
    ///
    /// # Errors
    /// When the ciphertext is an envelope that the plaintext does not open.
    pub fn open(&self, decrypted: &SecretValue) -> Result<SecretValue, CiphertextError> {
        self.sealed.open(decrypted, &self.location)
    }
}

/// Everything that a sync reads.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The remote values to read by key, without duplicates.
    pub reads: Vec<Read>,
    /// The searches; their results are read too.
    pub searches: Vec<Search>,
    /// The ciphertexts, which are decrypted only if something changed.
    pub decryptions: Vec<Decryption>,
    /// The credential that a store issues.
    pub generation: Option<Generation>,
    /// The windows in which a change may be written.
    pub windows: Windows,
}

/// Makes the plan.
///
/// # Errors
/// When the spec is invalid, a store does not exist, or a store does not grant access.
pub fn plan(input: &Input<'_>) -> Result<Plan, Failure> {
    names::check(input.spec)?;
    check_spec(input.spec)?;
    let windows = rotation::windows(input.spec.rotation.as_ref())?;
    rotation::check(input.spec)?;
    rotation::versions::check(input.target_name(), &input.spec.target)?;
    if let Some(rival) = input.rival {
        return Err(Failure::new(
            Reason::Conflict,
            format!(
                "Secret \"{}\" is already managed by the older SyncedSecret \"{}\". Change target.name, or delete one of the two",
                input.target_name(),
                rival.name
            ),
        ));
    }
    let mut reads = BTreeSet::new();
    let mut plan = Plan {
        windows,
        ..Plan::default()
    };
    for entry in spec::entries(input.spec) {
        let entry = &entry?;
        match entry.source {
            Source::Value(_, reference) | Source::Fields(reference) => {
                let read = input.read(entry, &reference)?;
                authorise(input, entry, reference.key, &read.reference.key)?;
                reads.insert(read);
            }
            Source::Ciphertext {
                secret_key,
                text,
                scope,
            } => plan
                .decryptions
                .push(decryption(input, entry, secret_key, text, scope)?),
            Source::Search(find) => plan.searches.push(search(input, entry, find)?),
            Source::Generated(generate) => {
                if plan
                    .generation
                    .replace(generation(input, entry, generate)?)
                    .is_some()
                {
                    let message = "only one entry of dataFrom can use generate: use another SyncedSecret for a second credential";
                    return Err(entry.failure(Reason::InvalidSpec, message));
                }
            }
        }
    }
    plan.reads = reads.into_iter().collect();
    Ok(plan)
}

fn decryption(
    input: &Input<'_>,
    entry: &Entry<'_>,
    secret_key: &str,
    text: &str,
    scope: CiphertextScope,
) -> Result<Decryption, Failure> {
    let grant = &input.view(entry)?.grant;
    if !grant.decrypts(scope) {
        return Err(Failure::new(
            Reason::AccessDenied,
            format!(
                "{} does not permit ciphertexts of scope {scope} in namespace \"{}\" ({}). Ask the store's owner to add the scope to access[].ciphertextScopes, or use another store",
                entry.store,
                input.namespace,
                grant.describe_scopes()
            ),
        ));
    }
    let failed = |error: CiphertextError| {
        let hint = match error {
            CiphertextError::OtherPlace => ". Seal it again for this one",
            CiphertextError::OldEnvelope => ". Seal the value again",
            CiphertextError::NotSealed => "",
            _ => ". Restore it from an earlier commit, or seal it again",
        };
        entry.failure(
            Reason::DecryptFailed,
            format_args!("the ciphertext {error}{hint}"),
        )
    };
    let location = Binding::new(scope, input.namespace, input.name, secret_key);
    let sealed = Sealed::parse(text).map_err(failed)?;
    let ciphertext = sealed.ciphertext(location.clone()).map_err(failed)?;
    Ok(Decryption {
        entry: entry.path.index(),
        secret_key: secret_key.to_owned(),
        store: entry.store.clone(),
        ciphertext,
        location,
        sealed,
    })
}

fn search(input: &Input<'_>, entry: &Entry<'_>, find: &Find) -> Result<Search, Failure> {
    let grant = &input.view(entry)?.grant;
    if grant.is_empty() || grant.is_unobserved() {
        return Err(denied(input, entry, grant, "any key"));
    }
    let locator = input.locator(entry)?;
    let folder = |path: &String| {
        let located = locator.folder(path);
        located.map_err(|error| invalid_location(entry, ".path", path, &error))
    };
    let query = FindQuery {
        scope: grant.scope(),
        path: find.path.as_ref().map(folder).transpose()?.flatten(),
        name: find.name.as_ref().map(|name| name.regexp.clone()),
        tags: find.tags.clone(),
    };
    // an empty result would look as if the values were gone
    if let Some(path) = &query.path
        && !query.scope.reaches(path)
    {
        return Err(denied(input, entry, grant, &format!("keys below \"{path}\"")));
    }
    Ok(Search {
        entry: entry.path.index(),
        store: entry.store.clone(),
        query,
        grant: grant.clone(),
    })
}

fn generation(input: &Input<'_>, entry: &Entry<'_>, generate: &Generate) -> Result<Generation, Failure> {
    let path = &generate.vault.path;
    let issuer = input.locator(entry)?.issuer(path);
    let request = LeaseRequest {
        path: issuer.map_err(|error| invalid_location(entry, ".vault.path", path, &error))?,
        method: generate.vault.method(),
        parameters: generate.vault.parameters.clone(),
    };
    let grant = &input.view(entry)?.grant;
    check_generation(grant, entry.store, &request.path, input.namespace)?;
    Ok(Generation {
        entry: entry.path.to_string(),
        store: entry.store.clone(),
        request,
    })
}

fn invalid_location(entry: &Entry<'_>, field: &str, text: &str, error: &LocationError) -> Failure {
    invalid(format!("{}{field} \"{}\" {error}", entry.path, excerpt(text)))
}

fn authorise(
    input: &Input<'_>,
    entry: &Entry<'_>,
    written: &str,
    location: &Location,
) -> Result<(), Failure> {
    let grant = &input.view(entry)?.grant;
    if grant.allows(location) {
        return Ok(());
    }
    let what = if written == location.as_str() {
        format!("the key \"{location}\"")
    } else {
        format!(
            "the key \"{}\", which resolves to \"{location}\"",
            excerpt(written)
        )
    };
    Err(denied(input, entry, grant, &what))
}

/// Checks that a store may issue credentials at a path for a namespace.
///
/// # Errors
/// When the store does not grant it.
pub fn check_generation(
    grant: &Grant,
    store: &StoreRef,
    path: &Location,
    namespace: &str,
) -> Result<(), Failure> {
    if grant.generates(path) {
        return Ok(());
    }
    Err(Failure::new(
        Reason::AccessDenied,
        format!(
            "{store} does not permit credentials at \"{path}\" in namespace \"{namespace}\" ({}). Ask the store's owner to add the path to access[].generate, or use another store",
            grant.describe_generation()
        ),
    ))
}

fn denied(input: &Input<'_>, entry: &Entry<'_>, grant: &Grant, what: &str) -> Failure {
    Failure::new(
        Reason::AccessDenied,
        format!(
            "{} does not grant namespace \"{}\" {what} ({}). Ask the store's owner to add an entry to access, or use another store",
            entry.store,
            input.namespace,
            grant.describe()
        ),
    )
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Reason::InvalidSpec, message)
}

/// Types of Secrets that hold Kubernetes' own credentials. Writing one grants an identity.
pub const REFUSED_TYPES: [&str; 2] = [
    "kubernetes.io/service-account-token",
    "bootstrap.kubernetes.io/token",
];

fn check_spec(spec: &SyncedSecretSpec) -> Result<(), Failure> {
    if spec.data.is_empty() && spec.data_from.is_empty() {
        return Err(invalid("data or dataFrom must have at least one entry"));
    }
    if spec
        .refresh_interval
        .is_some_and(|interval| interval.to_std() < std::time::Duration::from_secs(1))
    {
        return Err(invalid(
            "refreshInterval: must be at least 1s. For a single sync, set refreshPolicy: CreatedOnce",
        ));
    }
    if spec.refresh_policy == RefreshPolicy::CreatedOnce && lease::wanted(spec).is_some() {
        return Err(invalid(
            "generate cannot be used with refreshPolicy: CreatedOnce, because credentials end: use Periodic or OnChange",
        ));
    }
    let mut keys: BTreeMap<&str, EntryPath<'_>> = BTreeMap::new();
    for entry in spec::entries(spec).flatten() {
        if let EntryPath::Data { secret_key, .. } = entry.path
            && let Some(first) = keys.insert(secret_key, entry.path)
        {
            return Err(entry.path.duplicate(first, secret_key));
        }
    }
    spec.target.template.as_ref().map_or(Ok(()), check_template)
}

fn check_template(template: &lockstep_api::Template) -> Result<(), Failure> {
    if let Some(refused) = template
        .secret_type
        .as_deref()
        .filter(|kind| REFUSED_TYPES.contains(kind))
    {
        return Err(invalid(format!(
            "target.template.type: lockstep does not write Secrets of type {refused}"
        )));
    }
    for (key, text) in &template.data {
        check_text(&format!("target.template.data[\"{key}\"]"), text)?;
    }
    for (index, from) in template.template_from.iter().enumerate() {
        check_text(
            &format!("target.template.templateFrom[{index}].literal"),
            &from.literal,
        )?;
    }
    if let Some(metadata) = &template.metadata {
        for (field, texts) in [
            ("labels", &metadata.labels),
            ("annotations", &metadata.annotations),
        ] {
            for (key, text) in texts {
                let place = format!("target.template.metadata.{field}[\"{key}\"]");
                if key
                    .split_once('/')
                    .is_some_and(|(prefix, _)| is_reserved_prefix(prefix))
                {
                    return Err(invalid(format!(
                        "{place}: keys under lockstep.dev are reserved for lockstep. Use another key"
                    )));
                }
                check_text(&place, text)?;
            }
        }
    }
    Ok(())
}

/// Whether a label or annotation prefix belongs to lockstep.
pub fn is_reserved_prefix(prefix: &str) -> bool {
    prefix == lockstep_api::GROUP
        || prefix
            .strip_suffix(lockstep_api::GROUP)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn check_text(place: &str, text: &str) -> Result<(), Failure> {
    template::check(text).map_err(|error| {
        Failure::new(Reason::TemplateFailed, format!("{place} {error}")).requeued(Requeue::OnChange)
    })
}
