//! Plans what to read for a SyncedSecret and checks that it may be read, before the first request.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lockstep_api::{
    DataEntry, Reason, RefreshPolicy, RemoteRef as SpecRef, StoreKind, StoreRef, SyncedSecretSpec,
    synced_secret::Extract,
};

use crate::{
    Failure,
    access::Grant,
    ciphertext::{Binding, CiphertextError, Sealed},
    lease::{self, Generation},
    names,
    remote::{
        Ciphertext, FindQuery, LeaseRequest, Location, LocationError, Locator, Part, RemoteRef, Requeue,
        SecretValue,
    },
    rotation::{self, Windows},
    spec::{self, StoreView, data_from_place, data_place, part, store_ref},
    template,
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
    for (index, entry) in input.spec.data.iter().enumerate() {
        let place = data_place(index, &entry.secret_key);
        let store = store_of(input, entry.secret_store_ref.as_ref(), &place)?;
        match (&entry.remote_ref, &entry.ciphertext) {
            (Some(remote), None) => {
                let reference = remote_ref(input, store, remote, &place)?;
                authorise(input, store, &remote.key, &reference.key, &place)?;
                reads.insert(Read {
                    store: store.clone(),
                    reference,
                });
            }
            (None, Some(text)) => {
                let decryption = decryption(input, index, entry, text, store, &place)?;
                plan.decryptions.push(decryption);
            }
            _ => {
                return Err(invalid(format!(
                    "{place}: set exactly one of remoteRef and ciphertext"
                )));
            }
        }
    }
    for (index, entry) in input.spec.data_from.iter().enumerate() {
        let place = data_from_place(index, entry);
        let store = store_of(input, entry.secret_store_ref.as_ref(), &place)?;
        if let Some(extract) = &entry.extract {
            let reference = extract_ref(input, store, extract, &place)?;
            authorise(input, store, &extract.key, &reference.key, &place)?;
            reads.insert(Read {
                store: store.clone(),
                reference,
            });
        } else if let Some(find) = &entry.find {
            let view = view(input, store, &place)?;
            let grant = view.grant.clone();
            if grant.is_empty() || grant.is_unobserved() {
                return Err(denied(input, store, &grant, None));
            }
            let locator = locator(view, store, &place)?;
            let folder = |path: &String| {
                let located = locator.folder(path);
                located.map_err(|error| misspelled(&format!("{place}.path"), path, &error))
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
                return Err(denied(
                    input,
                    store,
                    &grant,
                    Some(format!("keys below \"{path}\"")),
                ));
            }
            plan.searches.push(Search {
                entry: index,
                store: store.clone(),
                query,
                grant,
            });
        } else if let Some(generate) = &entry.generate {
            let view = view(input, store, &place)?;
            let path = &generate.vault.path;
            let issuer = locator(view, store, &place)?.issuer(path);
            let request = LeaseRequest {
                path: issuer.map_err(|error| misspelled(&format!("{place}.vault.path"), path, &error))?,
                method: generate.vault.method(),
                parameters: generate.vault.parameters.clone(),
            };
            check_generation(&view.grant, store, &request.path, input.namespace)?;
            let generation = Generation {
                entry: index,
                store: store.clone(),
                request,
            };
            if plan.generation.replace(generation).is_some() {
                return Err(invalid(format!(
                    "{place}: one entry of dataFrom at most generates: a second credential needs a SyncedSecret of its own"
                )));
            }
        } else {
            return Err(invalid(format!(
                "{place}: set exactly one of extract, find and generate"
            )));
        }
    }
    plan.reads = reads.into_iter().collect();
    Ok(plan)
}

fn decryption(
    input: &Input<'_>,
    index: usize,
    entry: &DataEntry,
    text: &str,
    store: &StoreRef,
    place: &str,
) -> Result<Decryption, Failure> {
    let scope = entry.ciphertext_scope;
    let grant = &view(input, store, place)?.grant;
    if !grant.decrypts(scope) {
        return Err(Failure::new(
            Reason::AccessDenied,
            format!(
                "{store} does not decrypt ciphertexts of scope {scope} for namespace \"{}\" ({}). Ask its owner, or use another store",
                input.namespace,
                grant.describe_scopes()
            ),
        ));
    }
    let location = Binding::new(scope, input.namespace, input.name, &entry.secret_key);
    let failed = |error: CiphertextError| {
        let hint = match error {
            CiphertextError::OtherPlace => ". Seal it again for this one",
            CiphertextError::OldEnvelope => ". Seal the value again",
            CiphertextError::NotSealed => "",
            _ => ". Restore it from an earlier commit, or seal it again",
        };
        Failure::new(
            Reason::DecryptFailed,
            format!("{place}: the ciphertext {error}{hint}"),
        )
    };
    let sealed = Sealed::parse(text).map_err(failed)?;
    let ciphertext = sealed.ciphertext(location.clone()).map_err(failed)?;
    Ok(Decryption {
        entry: index,
        store: store.clone(),
        ciphertext,
        location,
        sealed,
    })
}

/// Resolves the `remoteRef` of a spec.
///
/// # Errors
/// When the store does not exist, or the key is invalid for it.
pub fn remote_ref(
    input: &Input<'_>,
    store: &StoreRef,
    spec: &SpecRef,
    place: &str,
) -> Result<RemoteRef, Failure> {
    let part = part(spec.metadata_policy);
    reference(input, store, &spec.key, spec.version.as_deref(), part, place)
}

/// Resolves the key of an `extract`.
///
/// # Errors
/// See [`remote_ref`].
pub fn extract_ref(
    input: &Input<'_>,
    store: &StoreRef,
    extract: &Extract,
    place: &str,
) -> Result<RemoteRef, Failure> {
    let part = part(extract.metadata_policy);
    reference(
        input,
        store,
        &extract.key,
        extract.version.as_deref(),
        part,
        place,
    )
}

fn reference(
    input: &Input<'_>,
    store: &StoreRef,
    key: &str,
    version: Option<&str>,
    part: Part,
    place: &str,
) -> Result<RemoteRef, Failure> {
    let located = locator(view(input, store, place)?, store, place)?
        .locate(key, version)
        .map_err(|error| misspelled(&format!("{place}: key"), key, &error))?;
    Ok(RemoteRef {
        key: located.location,
        version: located.version,
        part,
    })
}

fn locator<'a>(view: &'a StoreView, store: &StoreRef, place: &str) -> Result<&'a Arc<dyn Locator>, Failure> {
    let locator = view.locator.as_ref();
    locator.map_err(|error| Failure::provider(&format!("{place}: {store}"), error))
}

fn misspelled(field: &str, text: &str, error: &LocationError) -> Failure {
    invalid(format!("{field} \"{}\" {error}", shown(text)))
}

/// Escapes and shortens text that a user wrote, for a message.
fn shown(text: &str) -> String {
    const MOST: usize = 200;
    let mut shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

fn store_of<'a>(input: &Input<'a>, own: Option<&'a StoreRef>, place: &str) -> Result<&'a StoreRef, Failure> {
    store_ref(input.spec, own).ok_or_else(|| {
        invalid(format!(
            "{place}: secretStoreRef is not set. Set it here or in spec.secretStoreRef"
        ))
    })
}

fn view<'a>(input: &Input<'a>, store: &StoreRef, place: &str) -> Result<&'a StoreView, Failure> {
    input.stores.get(store).ok_or_else(|| {
        let where_ = match store.kind {
            StoreKind::SecretStore => format!(" in namespace \"{}\"", input.namespace),
            StoreKind::ClusterSecretStore => String::new(),
        };
        Failure::new(
            Reason::StoreNotFound,
            format!("{place}: {store} does not exist{where_}"),
        )
    })
}

fn authorise(
    input: &Input<'_>,
    store: &StoreRef,
    written: &str,
    location: &Location,
    place: &str,
) -> Result<(), Failure> {
    let grant = &view(input, store, place)?.grant;
    if grant.allows(location) {
        return Ok(());
    }
    let what = if written == location.as_str() {
        format!("the key \"{location}\"")
    } else {
        format!("the key \"{}\", which resolves to \"{location}\"", shown(written))
    };
    Err(denied(input, store, grant, Some(what)))
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
            "{store} does not issue credentials at \"{path}\" for namespace \"{namespace}\" ({}). Ask its owner for an entry of access with generate, or use another store",
            grant.describe_generation()
        ),
    ))
}

fn denied(input: &Input<'_>, store: &StoreRef, grant: &Grant, key: Option<String>) -> Failure {
    let what = key.unwrap_or_else(|| "any key".to_owned());
    Failure::new(
        Reason::AccessDenied,
        format!(
            "{store} does not grant namespace \"{}\" {what} ({}). Ask its owner, or use another store",
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
        return Err(invalid("at least one entry in data or dataFrom is needed"));
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
            "refreshPolicy: CreatedOnce never writes the credential that follows one whose lease ends: use Periodic or OnChange",
        ));
    }
    let mut keys: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, entry) in spec.data.iter().enumerate() {
        if let Some(first) = keys.insert(&entry.secret_key, index) {
            return Err(Failure::new(
                Reason::DuplicateKey,
                format!(
                    "data[{first}] and data[{index}] both write the key \"{}\"",
                    entry.secret_key
                ),
            ));
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
                if key.split_once('/').is_some_and(|(prefix, _)| is_ours(prefix)) {
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
pub fn is_ours(prefix: &str) -> bool {
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
