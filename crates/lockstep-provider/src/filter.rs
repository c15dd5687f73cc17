use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use crate::{ErrorKind, FindQuery, Operation, ProviderError};

/// How large a compiled pattern may get, in bytes: a user's pattern must not eat the operator's memory.
const PATTERN_SIZE_LIMIT: usize = 1 << 20;

/// A [`FindQuery`] made ready to be asked of many keys: the one meaning of path, name and tags for every provider.
///
/// - `path`: the key lies below it. `shop` and `shop/` both find `shop/database` and not `shopping/cart`.
/// - `name`: the pattern matches somewhere in the whole key; anchor it with `^` and `$`.
/// - `tags`: the value carries every one of them, with the same value.
#[derive(Debug, Clone)]
pub struct KeyFilter {
    prefix: Option<String>,
    name: Option<Regex>,
    tags: BTreeMap<String, String>,
}

impl KeyFilter {
    /// Prepares a query.
    ///
    /// # Errors
    /// `ConfigInvalid` when `name` is no regular expression, or one that compiles to more than 1 MiB.
    pub fn new(query: &FindQuery) -> Result<Self, ProviderError> {
        let name = match &query.name {
            None => None,
            Some(pattern) => {
                Some(RegexBuilder::new(pattern).size_limit(PATTERN_SIZE_LIMIT).build().map_err(|_| {
                    ProviderError::new(
                        ErrorKind::ConfigInvalid,
                        Operation::Find,
                        format!("find.name.regexp \"{pattern}\" is not a regular expression that can be used"),
                    )
                    .with_hint("It has RE2 syntax (no look-around, no back-references) and compiles to at most 1 MiB.")
                })?)
            }
        };
        let path = query
            .path
            .as_deref()
            .map(|path| path.trim_matches('/'))
            .filter(|path| !path.is_empty());
        Ok(Self {
            prefix: path.map(|path| format!("{path}/")),
            name,
            tags: query.tags.clone(),
        })
    }

    /// Whether a key has the path and the name that are looked for.
    pub fn matches_key(&self, key: &str) -> bool {
        let below = self
            .prefix
            .as_ref()
            .is_none_or(|prefix| key.starts_with(prefix.as_str()));
        below && self.name.as_ref().is_none_or(|name| name.is_match(key))
    }

    /// Whether a value's tags are those that are looked for.
    pub fn matches_tags(&self, tags: &BTreeMap<String, String>) -> bool {
        self.tags
            .iter()
            .all(|(name, value)| tags.get(name) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(path: Option<&str>, name: Option<&str>) -> KeyFilter {
        KeyFilter::new(&FindQuery {
            path: path.map(Into::into),
            name: name.map(Into::into),
            ..FindQuery::default()
        })
        .unwrap()
    }

    #[test]
    fn a_path_finds_what_lies_below_it_and_no_neighbour() {
        for path in ["shop", "shop/", "/shop/"] {
            let filter = filter(Some(path), None);
            assert!(filter.matches_key("shop/database"), "{path}");
            assert!(filter.matches_key("shop/eu/database"), "{path}");
            assert!(!filter.matches_key("shopping/cart"), "{path}");
            assert!(!filter.matches_key("shop"), "{path}");
        }
    }

    #[test]
    fn an_empty_path_is_the_root() {
        for path in [None, Some(""), Some("/")] {
            assert!(filter(path, None).matches_key("anything"));
        }
    }

    #[test]
    fn a_name_is_looked_for_anywhere_in_the_key() {
        let filter = filter(Some("shop"), Some("data|^smtp$"));
        assert!(filter.matches_key("shop/database"));
        assert!(!filter.matches_key("shop/smtp"), "^ is the beginning of the key");
    }

    #[test]
    fn every_tag_must_be_carried() {
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
    fn a_pattern_that_explodes_is_refused_with_the_field_that_holds_it() {
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
