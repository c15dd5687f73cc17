//! Renaming the keys that `dataFrom` yields.

mod merge;

use std::collections::BTreeMap;

use lockstep_api::{Rewrite, RewriteRegexp};
use regex::Regex;

use crate::{
    remote::SecretValue,
    search,
    template::{self, Budget},
};

/// How long a key may become between the steps, in bytes. What Kubernetes takes is checked later.
const MAX_KEY: usize = 4096;

/// Why a step of `rewrite` failed: a sentence that names the step and keys, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rewrite[{step}]: {message}")]
pub struct RewriteError {
    /// Index of the step in `rewrite`.
    pub step: usize,
    /// What is wrong with it.
    pub message: String,
}

/// Applies the steps to the entries, one after the other.
///
/// # Errors
///
/// A regular expression or template that does not work, two keys that become one, or values that cannot be merged: see
/// [`RewriteError`].
pub fn rewrite(
    steps: &[Rewrite],
    entries: BTreeMap<String, SecretValue>,
    budget: Budget,
) -> Result<BTreeMap<String, SecretValue>, RewriteError> {
    let mut entries = entries;
    for (step, rewrite) in steps.iter().enumerate() {
        entries = apply(rewrite, entries, budget).map_err(|message| RewriteError { step, message })?;
    }
    Ok(entries)
}

fn apply(
    rewrite: &Rewrite,
    entries: BTreeMap<String, SecretValue>,
    budget: Budget,
) -> Result<BTreeMap<String, SecretValue>, String> {
    if let Some(regexp) = &rewrite.regexp {
        let pattern = compile(regexp)?;
        return rename(entries, |key| {
            budget.ask().map_err(|_| {
                format!(
                    "regexp.source \"{}\" takes too long for so many keys",
                    regexp.source
                )
            })?;
            Ok(replaced(&pattern, key, &regexp.target))
        });
    }
    if let Some(transform) = &rewrite.transform {
        return rename(entries, |key| {
            budget
                .ask()
                .and_then(|()| template::render_key(&transform.template, key))
                .map_err(|error| format!("transform.template for key \"{key}\": {error}"))
        });
    }
    match &rewrite.merge {
        Some(merge) => merge::merge(merge, &entries),
        None => Ok(entries),
    }
}

fn compile(regexp: &RewriteRegexp) -> Result<Regex, String> {
    search::compile(&regexp.source, MAX_KEY, true).map_err(|_| {
        format!(
            "regexp.source \"{}\" is not a valid regular expression, or too large",
            regexp.source
        )
    })
}

fn replaced(pattern: &Regex, key: &str, target: &str) -> String {
    let mut renamed = String::new();
    let mut end = 0;
    for captures in pattern.captures_iter(key) {
        let Some(found) = captures.get(0) else { continue };
        renamed.push_str(&key[end..found.start()]);
        captures.expand(target, &mut renamed);
        end = found.end();
        if renamed.len() > MAX_KEY {
            break;
        }
    }
    renamed.push_str(&key[end..]);
    renamed
}

fn rename(
    entries: BTreeMap<String, SecretValue>,
    new_name: impl Fn(&str) -> Result<String, String>,
) -> Result<BTreeMap<String, SecretValue>, String> {
    let mut renamed: BTreeMap<String, (String, SecretValue)> = BTreeMap::new();
    for (key, value) in entries {
        if key.len() > MAX_KEY {
            return Err(format!("a key is longer than {MAX_KEY} bytes"));
        }
        let new = new_name(&key)?;
        if new.len() > MAX_KEY {
            return Err(format!("key \"{key}\" would become longer than {MAX_KEY} bytes"));
        }
        if let Some((other, _)) = renamed.get(&new) {
            return Err(format!("keys \"{other}\" and \"{key}\" both become \"{new}\""));
        }
        renamed.insert(new, (key, value));
    }
    Ok(renamed
        .into_iter()
        .map(|(new, (_, value))| (new, value))
        .collect())
}
