//! Reads `examples/` for tests and the demo: requests to Vault, and placeholders in manifests that
//! depend on the machine. examples/README.md explains both.

mod expected;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::operator;

pub use self::expected::{
    AwsSource, Expected, ExpectedObject, ExpectedSecret, GcpSource, Kind, Request, SecretName, SpecPatch,
    Step,
};

/// The address of Vault in the examples.
pub const VAULT: &str = "http://127.0.0.1:8200";

/// The address in examples for AWS, instead of the real one.
pub const AWS: &str = "http://127.0.0.1:4566";

/// The address in examples for Google, instead of the real one.
pub const GCP: &str = "http://127.0.0.1:4580";

/// Reads the requests below `vault` in a file. `file` is its path in the repository.
///
/// # Errors
/// When the file cannot be read.
pub fn vault_requests(file: &str) -> Result<Vec<Request>> {
    #[derive(Deserialize)]
    struct File {
        vault: Vec<Request>,
    }
    let read = || -> Result<File> {
        let text = fs::read_to_string(operator::repository().join(file))?;
        Ok(serde_yaml_ng::from_str(&text)?)
    };
    Ok(read().with_context(|| format!("read {file}"))?.vault)
}

/// Returns the folders of all examples, sorted: every folder below `examples/` that contains files.
/// Folders whose names begin with `_` contain shared set-up.
///
/// # Errors
/// A folder cannot be read.
pub fn folders() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    add_folders(&root(), &mut found)?;
    found.sort();
    Ok(found)
}

fn add_folders(category: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    for path in entries(category)? {
        let is_shared = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('_'));
        if !path.is_dir() || is_shared {
            continue;
        }
        if entries(&path)?.iter().any(|entry| entry.is_file()) {
            found.push(path);
        } else {
            add_folders(&path, found)?;
        }
    }
    Ok(())
}

/// Returns the name of an example: its path below `examples/`.
#[must_use]
pub fn name(folder: &Path) -> String {
    folder
        .strip_prefix(root())
        .unwrap_or(folder)
        .display()
        .to_string()
}

/// Reads the `expected.yaml` of an example.
///
/// # Errors
/// The file cannot be read, or does not have the form of [`Expected`].
pub fn expected(folder: &Path) -> Result<Expected> {
    let text = fs::read_to_string(folder.join("expected.yaml")).context("read expected.yaml")?;
    serde_yaml_ng::from_str(&text).context("expected.yaml")
}

fn root() -> PathBuf {
    operator::repository().join("examples")
}

/// Replacements for placeholders in the examples.
#[derive(Debug, Clone, Default)]
pub struct Replacements {
    scalars: Vec<(&'static str, String)>,
    addresses: Vec<(&'static str, String)>,
}

impl Replacements {
    /// Adds a text for a whole scalar, such as `${VAULT_CA}`.
    #[must_use]
    pub fn scalar(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.scalars.push((name, text.into()));
        self
    }

    /// Adds an address that replaces the one that scalars start with.
    #[must_use]
    pub fn address(mut self, in_examples: &'static str, real: impl Into<String>) -> Self {
        self.addresses.push((in_examples, real.into()));
        self
    }

    /// Applies all replacements.
    pub fn fill_in(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some((_, replacement)) = self.scalars.iter().find(|(name, _)| name == text) {
                    text.clone_from(replacement);
                } else if let Some((address, real)) = self
                    .addresses
                    .iter()
                    .find(|(address, _)| text.starts_with(address))
                {
                    text.replace_range(..address.len(), real);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.fill_in(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.fill_in(value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_replace_whole_scalars_and_addresses_prefixes() {
        let mut value = json!({ "a": ["${CA}"], "b": "not ${CA}", "c": 1, "d": "http://127.0.0.1:8200/ui" });
        Replacements::default()
            .scalar("${CA}", "PEM")
            .address(VAULT, "http://127.0.0.1:9")
            .fill_in(&mut value);
        assert_eq!(
            value,
            json!({ "a": ["PEM"], "b": "not ${CA}", "c": 1, "d": "http://127.0.0.1:9/ui" })
        );
    }

    #[test]
    fn examples_are_found_in_all_categories() {
        let names: Vec<_> = folders().unwrap().iter().map(|folder| name(folder)).collect();
        for expected in ["getting-started/quickstart", "providers/vault/jwt"] {
            assert!(names.iter().any(|name| name == expected), "{names:?}");
        }
        assert!(!names.iter().any(|name| name.starts_with('_')), "{names:?}");
    }

    #[test]
    fn missing_file_is_named() {
        let error = vault_requests("examples/none.yaml").unwrap_err();
        assert!(error.to_string().contains("examples/none.yaml"), "{error}");
    }
}
