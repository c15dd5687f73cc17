//! `lockstep seal --check`: finds plaintext without a KMS, a store or a cluster.

use std::process::ExitCode;

use serde_json::json;

use super::{finding::Finding, scan};
use crate::{
    cli::{SealArguments, SealFormat},
    exit,
    manifests::input::{self, Folders},
    output,
};

/// Prints every plaintext value.
pub(super) fn check(arguments: &SealArguments) -> ExitCode {
    let sources = match input::read(
        &arguments.files,
        arguments.root.as_deref(),
        Folders::Everything,
        "seal",
    ) {
        Ok(input) => input.sources,
        Err(message) => return exit::usage_error(&message),
    };
    let mut findings: Vec<Finding> = Vec::new();
    let mut skipped = 0;
    for source in &sources {
        let mut scan = scan::scan(source, arguments.namespace.as_deref());
        if let Some(note) = scan.skipped {
            output::print_error(&format!("note: {note}"));
            skipped += 1;
        }
        findings.append(&mut scan.plaintexts);
        findings.append(&mut scan.unreadable);
    }
    let printed = match arguments.output {
        SealFormat::Text => {
            let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
            output::print(&(lines.join("\n") + if lines.is_empty() { "" } else { "\n" }))
        }
        SealFormat::Json => {
            let document = json!({ "findings": findings, "files": sources.len(), "skipped": skipped });
            match serde_json::to_string_pretty(&document) {
                Ok(text) => output::print_json(&(text + "\n")),
                Err(error) => return exit::failed(&format!("cannot format the output: {error}")),
            }
        }
    };
    let files = if sources.len() == 1 { "file" } else { "files" };
    if findings.is_empty() {
        output::print_error(&format!(
            "no plaintext found in {} {files}",
            sources.len() - skipped
        ));
        return exit::printed(printed);
    }
    let problems = if findings.len() == 1 {
        "problem"
    } else {
        "problems"
    };
    exit::failed(&format!(
        "{} {problems} found in {} {files}. Seal or fix them before you commit",
        findings.len(),
        sources.len()
    ))
}
