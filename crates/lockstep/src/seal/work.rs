//! Seals the values found by [`super::scan`].

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    sync::Arc,
};

use futures::stream::{self, StreamExt as _};
use lockstep_api::{StoreKind, StoreRef};
use lockstep_controller::index::StoreEntry;
use lockstep_core::ciphertext::Binding;
use lockstep_provider::{Encryptor, Registry, SecretValue, StoreKey};

use super::{
    developer::{self, Developer},
    encrypt,
    finding::Finding,
    report::{Report, Sealed},
    scan::{Entry, Scan},
    write,
};
use crate::{
    manifests::objects::{Position, Problem},
    output,
};

/// Maximum number of concurrent requests to the KMS.
const AT_ONCE: usize = 8;
/// Namespace of stores and SyncedSecrets without one, if it does not affect the value.
pub(super) const NAMESPACE: &str = "default";
/// Minimum number of values for progress messages.
const MANY: usize = 20;

/// Stores that provide the keys.
#[derive(Debug)]
pub(super) struct Stores<'a> {
    /// Stores that were read.
    pub(super) known: &'a BTreeMap<StoreKey, (StoreEntry, Position)>,
    /// Why some stores were rejected.
    pub(super) problems: &'a [Problem],
    pub(super) developer: &'a Developer,
    pub(super) registry: &'a Registry,
}

/// A value to encrypt.
struct Job {
    /// Index of its scan, and of its entry in the scan.
    at: (usize, usize),
    store: StoreKey,
    value: SecretValue,
    binding: Binding,
}

/// Result of encrypting a value: its ciphertext and whether it has an envelope.
type Outcome = Result<(String, bool), String>;

impl Stores<'_> {
    /// Returns the store of an entry.
    fn find(&self, entry: &Entry) -> Result<StoreKey, String> {
        let StoreRef { name, kind } = entry.store.clone();
        let namespace = match kind {
            StoreKind::ClusterSecretStore => None,
            StoreKind::SecretStore => Some(entry.namespace.clone().unwrap_or_else(|| NAMESPACE.to_owned())),
        };
        let key = StoreKey {
            kind,
            namespace,
            name,
        };
        match self.known.get(&key) {
            Some((store, _)) => self.developer.config(&key, store).map(|_| key),
            None => Err(self.missing(&key)),
        }
    }

    fn missing(&self, key: &StoreKey) -> String {
        let named = format!("{} \"{}\"", key.kind, key.name);
        let refused = self
            .problems
            .iter()
            .find(|problem| problem.object.as_deref() == Some(named.as_str()));
        if let Some(problem) = refused {
            return format!(
                "{key} cannot be used: {}:{}: {}",
                problem.position.file, problem.position.line, problem.message
            );
        }
        let namespace = key
            .namespace
            .as_ref()
            .map(|namespace| format!(" in namespace \"{namespace}\""))
            .unwrap_or_default();
        format!("{key}{namespace} not found in the files. Add its file with --store")
    }

    async fn encryptor(&self, key: &StoreKey) -> Result<Arc<dyn Encryptor>, String> {
        let (store, _) = self.known.get(key).ok_or_else(|| self.missing(key))?;
        let config = self.developer.config(key, store)?;
        let credentials = Arc::new(self.developer.clone());
        self.registry
            .encryptor(&config, credentials)
            .await
            .map_err(|error| format!("{key}: {error}"))
    }

    fn provider_and_key_name(&self, key: &StoreKey) -> (&'static str, String) {
        let Some((store, _)) = self.known.get(key) else {
            return ("", String::new());
        };
        // what is used, such as the server of --vault-address
        let used = self.developer.config(key, store).map(|config| config.provider);
        let provider = used.as_ref().unwrap_or(&store.provider);
        (provider.name().unwrap_or_default(), developer::key_name(provider))
    }
}

/// Seals the values in all scans. A file is written only if all its values were sealed. Other files
/// do not affect it.
pub(super) async fn work(scans: &mut [Scan<'_>], stores: &Stores<'_>, dry_run: bool) -> Report {
    let mut report = Report::new(dry_run);
    let mut jobs = Vec::new();
    for (index, scan) in scans.iter_mut().enumerate() {
        report.notes.extend(scan.skipped.clone());
        jobs.extend(prepare(index, scan, stores));
    }
    jobs.retain(|job| !scans.get(job.at.0).is_none_or(Scan::is_blocked));
    let used: BTreeMap<_, _> = jobs.iter().map(|job| (job.at, job.store.clone())).collect();
    let outcomes = if dry_run {
        BTreeMap::new()
    } else {
        encrypt_all(jobs, stores).await
    };
    for (index, scan) in scans.iter_mut().enumerate() {
        let mut sealed = Vec::new();
        let mut texts = Vec::new();
        for (number, entry) in scan.entries.iter().enumerate() {
            let Some(store) = used.get(&(index, number)) else {
                continue;
            };
            let (kms, key) = stores.provider_and_key_name(store);
            let envelope = match outcomes.get(&(index, number)) {
                Some(Ok((text, envelope))) => {
                    texts.push(text.clone());
                    *envelope
                }
                Some(Err(message)) => {
                    scan.faults.push(of_entry(entry, message.clone()));
                    continue;
                }
                None => false,
            };
            sealed.push(Sealed::new(entry, store, kms, key, envelope));
        }
        if !scan.is_blocked() && !dry_run {
            put(scan, &texts, &mut report);
        }
        if scan.is_blocked() {
            report.total += scan.entries.len();
            report.faults.append(&mut scan.unreadable);
            report.faults.append(&mut scan.faults);
        } else {
            report.total += sealed.len();
            report.sealed.append(&mut sealed);
        }
    }
    report
}

/// Returns the store and value of each entry.
fn prepare(index: usize, scan: &mut Scan<'_>, stores: &Stores<'_>) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut faults = Vec::new();
    for (number, entry) in scan.entries.iter().enumerate() {
        let value = match entry.field {
            "plaintextFile" => match entry.held.expose_str() {
                Some(path) => developer::read_plaintext_file(scan.source.path.as_deref(), path),
                None => Err("the path is not valid UTF-8".to_owned()),
            },
            _ => Ok(entry.held.expose().to_vec()),
        };
        let job = value.and_then(|value| {
            Ok(Job {
                at: (index, number),
                store: stores.find(entry)?,
                value: SecretValue::new(value),
                binding: entry.binding(),
            })
        });
        match job {
            Ok(job) => jobs.push(job),
            Err(message) => faults.push(of_entry(entry, message)),
        }
    }
    scan.faults.append(&mut faults);
    jobs
}

fn of_entry(entry: &Entry, message: String) -> Finding {
    let field = format!("{}.{}", entry.path, entry.field);
    Finding::new(entry.position.clone(), Some(&entry.object), Some(&field), message)
}

async fn encrypt_all(jobs: Vec<Job>, stores: &Stores<'_>) -> BTreeMap<(usize, usize), Outcome> {
    let mut encryptors = BTreeMap::new();
    let mut dead = BTreeMap::new();
    let wanted: BTreeSet<_> = jobs.iter().map(|job| job.store.clone()).collect();
    for key in wanted {
        match stores.encryptor(&key).await {
            Ok(encryptor) => drop(encryptors.insert(key, encryptor)),
            Err(message) => drop(dead.insert(key, message)),
        }
    }
    let dead = RefCell::new(dead);
    let all = jobs.len();
    let mut answers = stream::iter(jobs)
        .map(|job| encrypt_one(job, &encryptors, &dead))
        .buffer_unordered(AT_ONCE);
    let mut outcomes = BTreeMap::new();
    let tell = all >= MANY && std::io::stderr().is_terminal();
    while let Some((at, outcome)) = answers.next().await {
        outcomes.insert(at, outcome);
        if tell && outcomes.len().is_multiple_of(MANY) {
            output::print_error(&format!("{} of {all} values encrypted", outcomes.len()));
        }
    }
    outcomes
}

/// Encrypts a value. If its store is in `dead`, any value would fail with the known error.
async fn encrypt_one(
    job: Job,
    encryptors: &BTreeMap<StoreKey, Arc<dyn Encryptor>>,
    dead: &RefCell<BTreeMap<StoreKey, String>>,
) -> ((usize, usize), Outcome) {
    let known = dead.borrow().get(&job.store).cloned();
    let outcome = match (known, encryptors.get(&job.store)) {
        (Some(message), _) => Err(message),
        (None, Some(encryptor)) => {
            let envelope = encrypt::needs_envelope(encryptor.as_ref(), &job.value);
            let text = encrypt::seal(encryptor.as_ref(), &job.value, &job.binding).await;
            text.map(|text| (text, envelope)).map_err(|refusal| {
                let message = format!("{}: {}", job.store, refusal.message);
                if refusal.of_any {
                    dead.borrow_mut().insert(job.store.clone(), message.clone());
                }
                message
            })
        }
        (None, None) => Err(format!("{} has no encryptor", job.store)),
    };
    (job.at, outcome)
}

/// Writes a sealed text back to its source.
fn put(scan: &mut Scan<'_>, texts: &[String], report: &mut Report) {
    if texts.is_empty() {
        if scan.source.path.is_none() {
            report.text = Some(scan.source.text.clone());
        }
        return;
    }
    let Some(text) = scan.sealed(texts) else {
        let message = "sealing would change more than the sealed values, so the file was not changed. Write the value in double quotes";
        for entry in &scan.entries {
            scan.faults.push(of_entry(entry, message.to_owned()));
        }
        return;
    };
    match &scan.source.path {
        None => report.text = Some(text),
        Some(path) => {
            if let Err(message) = write::replace(path, &scan.source.text, &text) {
                let line = scan.entries.first().map_or(1, |entry| entry.position.line);
                let position = Position {
                    file: scan.source.name.clone(),
                    line,
                };
                scan.faults.push(Finding::new(position, None, None, message));
                return;
            }
        }
    }
    for entry in &scan.entries {
        if let ("plaintextFile", Some(path)) = (entry.field, entry.held.expose_str()) {
            let path = developer::beside(scan.source.path.as_deref(), path);
            report.notes.push(format!(
                "{} still contains the plaintext: its value was sealed, but the file was not deleted. Keep the file out of Git",
                path.display()
            ));
        }
    }
}
