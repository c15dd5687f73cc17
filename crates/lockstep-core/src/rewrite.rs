//! Renames the keys of `dataFrom`.

mod merge;

use std::collections::BTreeMap;

use lockstep_api::{Rewrite, RewriteRegexp};
use regex::Regex;

use crate::{
    remote::SecretValue,
    search,
    template::{self, Budget, TemplateError},
    text::one_of,
};

/// Maximum length of a key between the steps, in bytes. The limit of Kubernetes is checked later.
const MAX_KEY: usize = 4096;

/// The error of a step of `rewrite`. It names the step and counts keys. It contains no value, and
/// no key that the spec does not name, because keys can be properties of remote values, whose names
/// can be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rewrite[{step}]: {message}")]
pub struct RewriteError {
    /// The index of the step in `rewrite`.
    pub step: usize,
    /// What is wrong with the step.
    pub message: String,
}

/// Applies the steps to the entries in order.
///
/// # Errors
///
/// When a regular expression or template fails, two keys get the same name, or values cannot be
/// merged. See [`RewriteError`].
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

/// Applies one step. Its variants are mutually exclusive.
fn apply(
    rewrite: &Rewrite,
    entries: BTreeMap<String, SecretValue>,
    budget: Budget,
) -> Result<BTreeMap<String, SecretValue>, String> {
    if let Some(regexp) = &rewrite.regexp {
        let pattern = compile(regexp)?;
        return rename(entries, |key| {
            replace_in_key(&pattern, key, &regexp.target, budget).map_err(|_| {
                format!(
                    "regexp.source \"{}\" takes too long for this many keys",
                    regexp.source
                )
            })
        });
    }
    if let Some(transform) = &rewrite.transform {
        let key_label = one_of(entries.len());
        return rename(entries, |key| {
            budget
                .check()
                .and_then(|()| template::render_key(&transform.template, key))
                .map_err(|error| format!("transform.template for {key_label}: {error}"))
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
            "regexp.source \"{}\" is not a valid regular expression, or is too large",
            regexp.source
        )
    })
}

/// Each match searches the rest of the key, so the budget is checked before each.
fn replace_in_key(pattern: &Regex, key: &str, target: &str, budget: Budget) -> Result<String, TemplateError> {
    let mut renamed = String::new();
    let mut end = 0;
    budget.check()?;
    for captures in pattern.captures_iter(key) {
        budget.check()?;
        let Some(found) = captures.get(0) else { continue };
        renamed.push_str(&key[end..found.start()]);
        captures.expand(target, &mut renamed);
        end = found.end();
        if renamed.len() > MAX_KEY {
            break;
        }
    }
    renamed.push_str(&key[end..]);
    Ok(renamed)
}

fn rename(
    entries: BTreeMap<String, SecretValue>,
    new_name: impl Fn(&str) -> Result<String, String>,
) -> Result<BTreeMap<String, SecretValue>, String> {
    let keys = entries.len();
    let mut renamed = BTreeMap::new();
    for (key, value) in entries {
        if key.len() > MAX_KEY {
            return Err(format!("{} is longer than {MAX_KEY} bytes", one_of(keys)));
        }
        let new = new_name(&key)?;
        if new.len() > MAX_KEY {
            return Err(format!(
                "{} would become longer than {MAX_KEY} bytes",
                one_of(keys)
            ));
        }
        if renamed.insert(new, value).is_some() {
            return Err(format!("two of {keys} keys would get the same name"));
        }
    }
    Ok(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spent_budget_ends_the_renaming_of_one_key() {
        let pattern = Regex::new("a").unwrap();
        assert_eq!(
            replace_in_key(&pattern, "aba", "x", Budget::begin()).unwrap(),
            "xbx"
        );
        assert!(replace_in_key(&pattern, "aba", "x", Budget::spent()).is_err());
    }
}
