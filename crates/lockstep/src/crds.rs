//! `lockstep crds`: prints the CustomResourceDefinitions as YAML.

use std::io;

use crate::output;

/// Prints every CustomResourceDefinition as one YAML stream.
pub(crate) fn print() -> io::Result<()> {
    output::print_document(&yaml()?)
}

fn yaml() -> io::Result<String> {
    let mut text = String::new();
    for crd in lockstep_api::crd::all() {
        text.push_str("---\n");
        text.push_str(&serde_yaml_ng::to_string(&crd).map_err(io::Error::other)?);
    }
    Ok(text)
}
