use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lockstep_core::search;
use regex::Regex;

use crate::{ErrorKind, FindQuery, Location, Operation, ProviderError, RemoteMeta, Scope};

/// Maximum length of a key that is compared with a pattern, in bytes.
const LONGEST_KEY: usize = 4096;
/// Maximum time that one search spends on matching keys with its pattern. Both may come from an
/// attacker, and matching runs on shared threads.
const MATCHING: Duration = Duration::from_millis(500);

/// A prepared [`FindQuery`]. It defines scope, path, name and tags in the same way for every
/// provider.
///
/// - `scope`: the caller is granted the key.
/// - `path`: the key lies below it. `shop` finds `shop/database` but not `shopping/cart`.
/// - `name`: the pattern matches anywhere in the whole key; anchor it with `^` and `$`.
/// - `tags`: the value has every tag, with the same value.
#[derive(Debug, Clone)]
pub struct KeyFilter {
    scope: Scope,
    begin: String,
    name: Option<Regex>,
    tags: BTreeMap<String, String>,
    /// Nanoseconds spent on matching keys with the pattern.
    spent: Arc<AtomicU64>,
}

impl KeyFilter {
    /// Prepares a query.
    ///
    /// # Errors
    /// `ConfigInvalid` when `name` is not a valid regular expression, or compiles to more than 1
    /// MiB.
    pub fn new(query: &FindQuery) -> Result<Self, ProviderError> {
        let name = match &query.name {
            None => None,
            Some(pattern) => Some(search::compile(pattern, LONGEST_KEY, false).map_err(|_| {
                ProviderError::new(
                    ErrorKind::ConfigInvalid,
                    Operation::Find,
                    format!("find.name.regexp \"{pattern}\" is not a regular expression that can be used"),
                )
                .with_hint(
                    "It has RE2 syntax (no look-around, no back-references) and compiles to at most 1 MiB.",
                )
            })?),
        };
        let path = query.path.as_ref();
        Ok(Self {
            scope: query.scope.clone(),
            begin: path.map(|path| format!("{path}/")).unwrap_or_default(),
            name,
            tags: query.tags.clone(),
            spent: Arc::default(),
        })
    }

    /// Returns whether a key is granted and matches the path and the name.
    ///
    /// # Errors
    /// The errors of [`KeyFilter::matches_name`].
    pub fn matches_key(&self, key: &str) -> Result<bool, ProviderError> {
        Ok(self.matches_location(key) && self.matches_name(key)?)
    }

    /// Returns whether a key is granted and lies below the path.
    pub fn matches_location(&self, key: &str) -> bool {
        key.starts_with(&self.begin) && self.scope.covers_text(key)
    }

    /// Returns whether the caller is granted a location, independent of the query.
    pub fn covers(&self, location: &Location) -> bool {
        self.scope.covers(location)
    }

    /// Returns whether a key with this prefix may match.
    pub fn reaches(&self, begin: &str) -> bool {
        self.scope.reaches(begin)
    }

    /// Returns whether a key matches the name pattern.
    ///
    /// # Errors
    /// `Malformed` when the key is longer than 4096 bytes, `ConfigInvalid` when the pattern takes
    /// too long for all keys of the search together.
    pub fn matches_name(&self, key: &str) -> Result<bool, ProviderError> {
        let Some(name) = &self.name else {
            return Ok(true);
        };
        if key.len() > LONGEST_KEY {
            let message = format!("the store holds a key of more than {LONGEST_KEY} bytes");
            return Err(ProviderError::new(ErrorKind::Malformed, Operation::Find, message));
        }
        let begun = Instant::now();
        let matches = name.is_match(key);
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let before = self.spent.fetch_add(took, Ordering::Relaxed);
        if Duration::from_nanos(before.saturating_add(took)) > MATCHING {
            let message = "find.name.regexp takes too long for the keys that there are";
            let error = ProviderError::new(ErrorKind::ConfigInvalid, Operation::Find, message);
            return Err(error.with_hint("Use a simpler pattern, or narrow the search down with find.path"));
        }
        Ok(matches)
    }

    /// Returns the folders that contain all matching keys: see [`Scope::folders`].
    pub fn folders(&self) -> Vec<String> {
        self.scope.folders(&self.begin)
    }

    /// Returns the prefixes of all matching keys: see [`Scope::beginnings`].
    pub fn beginnings(&self) -> Vec<String> {
        self.scope.beginnings(&self.begin)
    }

    /// Returns the items whose keys match.
    ///
    /// # Errors
    /// The errors of [`KeyFilter::matches_key`].
    pub fn keep<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, ProviderError> {
        let mut kept = Vec::new();
        for item in items {
            if self.matches_key(key(&item))? {
                kept.push(item);
            }
        }
        Ok(kept)
    }

    /// Returns whether a value has the requested tags.
    pub fn matches_tags(&self, tags: &BTreeMap<String, String>) -> bool {
        self.tags
            .iter()
            .all(|(name, value)| tags.get(name) == Some(value))
    }
}

/// Converts a matching key that a search found to a location.
///
/// # Errors
/// `Unsupported` when no reference can name the key.
pub fn found(key: &str) -> Result<RemoteMeta, ProviderError> {
    let location = Location::new(key);
    location.map(|key| RemoteMeta { key }).map_err(|error| {
        let shown: String = key.chars().take(200).flat_map(char::escape_debug).collect();
        let message = format!("the search found \"{shown}\", which no key can name: it {error}");
        ProviderError::new(ErrorKind::Unsupported, Operation::Find, message)
            .with_hint("Rename it, or narrow find.path or find.name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pattern, testing::at};

    fn filter(path: Option<&str>, name: Option<&str>) -> KeyFilter {
        KeyFilter::new(&FindQuery {
            path: path.map(at),
            name: name.map(Into::into),
            ..FindQuery::default()
        })
        .unwrap()
    }

    #[test]
    fn keys_outside_the_grant_do_not_match() {
        let filter = KeyFilter::new(&FindQuery {
            scope: Scope::patterns([Pattern::new("shop/*").unwrap()]),
            ..FindQuery::default()
        })
        .unwrap();
        assert!(filter.matches_key("shop/database").unwrap());
        assert!(
            !filter.matches_key("shop/eu/database").unwrap() && !filter.matches_key("blog/database").unwrap()
        );
        assert_eq!(filter.folders(), ["shop"]);
    }

    #[test]
    fn found_name_that_is_not_a_valid_key_is_an_error() {
        let error = found("shop/my db").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.message.contains("\"shop/my db\""), "{error}");
    }

    #[test]
    fn path_matches_only_keys_below_it() {
        let filter = filter(Some("shop"), None);
        assert!(filter.matches_key("shop/database").unwrap());
        assert!(filter.matches_key("shop/eu/database").unwrap());
        assert!(!filter.matches_key("shopping/cart").unwrap());
        assert!(!filter.matches_key("shop").unwrap());
    }

    #[test]
    fn without_a_path_every_key_matches() {
        assert!(filter(None, None).matches_key("anything").unwrap());
    }

    #[test]
    fn name_pattern_matches_anywhere_in_the_key() {
        let filter = filter(Some("shop"), Some("data|^smtp$"));
        assert!(filter.matches_key("shop/database").unwrap());
        assert!(
            !filter.matches_key("shop/smtp").unwrap(),
            "^ is the beginning of the key"
        );
    }

    #[test]
    fn all_tags_must_match() {
        let tags = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let query = FindQuery {
            tags: tags(&[("team", "shop")]),
            ..FindQuery::default()
        };
        let filter = KeyFilter::new(&query).unwrap();
        assert!(filter.matches_tags(&tags(&[("team", "shop"), ("env", "prod")])));
        assert!(!filter.matches_tags(&tags(&[("team", "blog")])));
        assert!(!filter.matches_tags(&tags(&[])));
    }

    #[test]
    fn slow_pattern_ends_the_search() {
        let slow = filter(None, Some("(a.*){10}[^a]"));
        let key = "a".repeat(4000);
        let begun = Instant::now();
        let error = slow
            .keep(std::iter::repeat_n(key, 100_000), |key| key)
            .unwrap_err();
        assert!(error.message.contains("takes too long"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let error = filter(None, Some("x"))
            .matches_key(&"x".repeat(5000))
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed);
    }

    #[test]
    fn exploding_pattern_is_rejected_with_its_field() {
        for pattern in ["(", "(?=x)", "((((a{1,100}){1,100}){1,100}){1,100})"] {
            let error = KeyFilter::new(&FindQuery {
                name: Some(pattern.into()),
                ..FindQuery::default()
            })
            .unwrap_err();
            assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{pattern}");
            assert!(error.to_string().contains("find.name.regexp"), "{error}");
        }
    }
}
