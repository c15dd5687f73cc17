//! Shapes of YAML, whole runs with a KMS in memory, and random documents.

mod kms;
mod random;
mod runs;

mod shapes;

use std::{
    path::PathBuf,
    sync::{LazyLock, Mutex, PoisonError},
};

use super::scan::{Scan, scan};
use crate::manifests::{input::Source, objects::Objects};

/// Built once, because building the schemas is slow.
static SERVER: LazyLock<Mutex<Objects>> = LazyLock::new(|| Mutex::new(Objects::none("default")));

/// Returns a source with this text.
fn source(text: &str) -> Source {
    Source {
        name: "manifest.yaml".to_owned(),
        path: Some(PathBuf::from("manifest.yaml")),
        named: true,
        text: text.to_owned(),
    }
}

/// Returns the errors that prevent sealing a text.
fn faults(scan: &mut Scan<'_>) -> Vec<String> {
    if scan.faults.is_empty() {
        let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        scan.admission(&mut server);
    }
    let all = scan.faults.iter().chain(&scan.unreadable);
    all.map(ToString::to_string).collect()
}

/// Returns a text with the ciphertexts `SEALED-0`, `SEALED-1`, … in place of its values, and the
/// values.
fn sealed(text: &str) -> (String, Vec<String>) {
    let source = source(text);
    let mut scan = scan(&source, None);
    assert_eq!(faults(&mut scan), [""; 0], "{text}");
    let ciphertexts: Vec<_> = (0..scan.entries.len()).map(|at| format!("SEALED-{at}")).collect();
    let values = scan
        .entries
        .iter()
        .map(|entry| entry.held.expose_str().unwrap().to_owned());
    let values = values.collect();
    (
        scan.sealed(&ciphertexts).expect("nothing else is different"),
        values,
    )
}
