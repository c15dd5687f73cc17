//! Output of `lockstep seal`: positions, never values.

use std::fmt::Write as _;

use lockstep_api::CiphertextScope;
use lockstep_core::text;
use lockstep_provider::StoreKey;
use serde::Serialize;
use serde_json::json;

use super::{finding::Finding, scan::Entry};
use crate::manifests::objects::Position;

/// One value that was or would be sealed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sealed {
    #[serde(flatten)]
    position: Position,
    object: String,
    field: String,
    secret_key: String,
    scope: CiphertextScope,
    store: String,
    provider: &'static str,
    key: String,
    envelope: bool,
}

impl Sealed {
    pub(super) fn new(
        entry: &Entry,
        store: &StoreKey,
        provider: &'static str,
        key: String,
        envelope: bool,
    ) -> Self {
        Self {
            position: entry.position.clone(),
            object: entry.object.clone(),
            field: format!("{}.{}", entry.path, entry.field),
            secret_key: entry.secret_key.clone(),
            scope: entry.scope,
            store: store.to_string(),
            provider,
            key,
            envelope,
        }
    }
}

/// Result of a run.
#[derive(Debug)]
pub(super) struct Report {
    dry_run: bool,
    /// Values that were sealed.
    pub(super) sealed: Vec<Sealed>,
    /// Number of values found.
    pub(super) total: usize,
    /// Why the other values were not sealed.
    pub(super) faults: Vec<Finding>,
    /// Notes for the user that are not errors.
    pub(super) notes: Vec<String>,
    /// The sealed text of standard input.
    pub(super) text: Option<String>,
}

impl Report {
    pub(super) fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            sealed: Vec::new(),
            total: 0,
            faults: Vec::new(),
            notes: Vec::new(),
            text: None,
        }
    }

    /// Returns one line for each value.
    pub(super) fn lines(&self) -> String {
        let mut lines = String::new();
        let verb = if self.dry_run { "would seal" } else { "sealed" };
        for sealed in &self.sealed {
            let envelope = if sealed.envelope { ", in an envelope" } else { "" };
            let line = format!(
                "{verb} {}:{}: {}: {}: scope {}, with {} ({} {}){envelope}",
                sealed.position.file,
                sealed.position.line,
                sealed.object,
                sealed.field,
                sealed.scope,
                sealed.store,
                sealed.provider,
                sealed.key,
            );
            // writing to a String cannot fail
            let _ = writeln!(lines, "{}", text::escape(&line));
        }
        if self.total == 0 && self.faults.is_empty() {
            lines.push_str("nothing to seal\n");
        }
        lines
    }

    /// Returns one JSON document.
    ///
    /// # Errors
    /// Reports a serialization error, which is not expected.
    pub(super) fn json(&self) -> Result<String, String> {
        let document = json!({ "dryRun": self.dry_run, "sealed": self.sealed, "problems": self.faults });
        serde_json::to_string_pretty(&document)
            .map(|text| text + "\n")
            .map_err(|error| format!("cannot format the output: {error}"))
    }

    /// Returns the last line of a failed run.
    pub(super) fn summary(&self) -> String {
        let errors = if self.faults.len() == 1 { "error" } else { "errors" };
        let verb = if self.dry_run {
            "would be sealed"
        } else {
            "were sealed"
        };
        format!(
            "{} of {} values {verb}; {} {errors}",
            self.sealed.len(),
            self.total,
            self.faults.len()
        )
    }
}
