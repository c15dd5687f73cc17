//! `lockstep seal`: encrypts values for Git in place, on the developer's machine.
//!
//! [`scan`] finds the values to seal and [`tree`] their positions. [`developer`] provides the
//! credentials and [`trust`] decides where they may go. [`encrypt`] calls the KMS. [`edit`]
//! produces the new text and proves that nothing else changed. [`write`] writes it. [`check`] is
//! `--check`, which needs no KMS.

mod check;
mod developer;
mod edit;
mod encrypt;
mod finding;
mod plaintext;
mod report;
mod scan;
#[cfg(test)]
mod tests;
mod tree;
mod trust;
mod work;
mod write;

use std::{collections::BTreeSet, fs, path::PathBuf, process::ExitCode};

use lockstep_provider::Registry;

use self::{developer::Developer, report::Report, trust::Trusted, work::Stores};
use crate::{
    cli::{SealArguments, SealFormat},
    exit,
    manifests::{
        input::{self, Folders, Source},
        objects::Objects,
    },
    output, providers,
};

/// Seals or checks the files.
pub(crate) fn seal(arguments: &SealArguments) -> ExitCode {
    if arguments.check {
        return check::check(arguments);
    }
    let report = match run(arguments, &providers::registry(None)) {
        Ok(report) => report,
        Err(message) => return exit::usage_error(&message),
    };
    finish(arguments, &report)
}

/// Reads, encrypts and writes the files.
///
/// # Errors
/// Describes a usage error or unreadable input. Nothing was written in that case.
fn run(arguments: &SealArguments, registry: &Registry) -> Result<Report, String> {
    if arguments.output == SealFormat::Json && arguments.files.iter().any(|path| path.as_os_str() == "-") {
        return Err("--output json and -f - cannot be combined: both write to standard output".to_owned());
    }
    let root = arguments.root.as_deref();
    let read = |paths: &[PathBuf]| input::read(paths, root, Folders::Everything, "seal");
    let sources = read(&arguments.files)?.sources;
    let store_sources = without_known(read(&arguments.stores)?.sources, &sources);
    let developer = Developer::of(
        arguments.vault_token.as_ref(),
        arguments.token_file.as_deref(),
        arguments.home.as_deref(),
        arguments.vault_address.as_ref(),
        arguments.ca_file.as_deref(),
        Trusted::new(&arguments.trusted_endpoints)?,
    )?;
    let mut scans: Vec<_> = sources
        .iter()
        .map(|source| scan::scan(source, arguments.namespace.as_deref()))
        .collect();
    let namespace = arguments.namespace.as_deref().unwrap_or(work::NAMESPACE);
    let mut server = Objects::none(namespace);
    for scan in scans.iter_mut().filter(|scan| !scan.is_blocked()) {
        scan.admission(&mut server);
    }
    let everything = [store_sources, sources.clone()].concat();
    let objects = Objects::stores_of(&everything, namespace);
    let stores = Stores {
        known: &objects.stores,
        problems: &objects.problems,
        developer: &developer,
        registry,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the async runtime: {error}"))?;
    Ok(runtime.block_on(work::work(&mut scans, &stores, arguments.dry_run)))
}

/// Returns the texts that are not among `others`.
fn without_known(sources: Vec<Source>, others: &[Source]) -> Vec<Source> {
    let real = |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let known: BTreeSet<_> = others
        .iter()
        .filter_map(|source| source.path.as_ref())
        .map(real)
        .collect();
    let differs = |source: &Source| {
        source
            .path
            .as_ref()
            .is_none_or(|path| !known.contains(&real(path)))
    };
    sources.into_iter().filter(differs).collect()
}

/// Prints the result.
fn finish(arguments: &SealArguments, report: &Report) -> ExitCode {
    for note in &report.notes {
        output::print_error(&format!("note: {note}"));
    }
    let printed = match (arguments.output, &report.text) {
        (SealFormat::Json, _) => match report.json() {
            Ok(text) => output::print_json(&text),
            Err(message) => return exit::failed(&message),
        },
        (SealFormat::Text, None) if arguments.files.iter().all(|path| path.as_os_str() != "-") => {
            output::print(&report.lines())
        }
        (SealFormat::Text, text) => {
            // standard output is reserved for the manifest
            output::print_error_lines(report.lines().trim_end());
            output::print_document(text.as_deref().unwrap_or_default())
        }
    };
    for fault in &report.faults {
        output::print_error(&format!("error: {fault}"));
    }
    if !report.faults.is_empty() {
        return exit::failed(&report.summary());
    }
    exit::printed(printed)
}
