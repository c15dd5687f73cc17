use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use crate::{ErrorKind, FindQuery, Location, Operation, ProviderError, RemoteMeta, Scope};

/// How large a compiled pattern may get, in bytes: a user's pattern must not eat the operator's memory.
const PATTERN_SIZE_LIMIT: usize = 1 << 20;

/// A [`FindQuery`] made ready to be asked of many keys: the one meaning of scope, path, name and tags for every provider.
///
/// - `scope`: the caller is granted the key.
/// - `path`: the key lies below it. `shop` finds `shop/database` and not `shopping/cart`.
/// - `name`: the pattern matches somewhere in the whole key; anchor it with `^` and `$`.
/// - `tags`: the value carries every one of them, with the same value.
#[derive(Debug, Clone)]
pub struct KeyFilter {
    scope: Scope,
    begin: String,
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
        let path = query.path.as_ref();
        Ok(Self {
            scope: query.scope.clone(),
            begin: path.map(|path| format!("{path}/")).unwrap_or_default(),
            name,
            tags: query.tags.clone(),
        })
    }

    /// Whether a key is granted, and has the path and the name that are looked for.
    pub fn matches_key(&self, key: &str) -> bool {
        self.matches_location(key) && self.matches_name(key)
    }

    /// Whether a key is granted and lies below the path.
    pub fn matches_location(&self, key: &str) -> bool {
        key.starts_with(&self.begin) && self.scope.covers_text(key)
    }

    /// Whether the caller is granted a location, whatever is looked for.
    pub fn covers(&self, location: &Location) -> bool {
        self.scope.covers(location)
    }

    /// Whether a key that begins so may match.
    pub fn reaches(&self, begin: &str) -> bool {
        self.scope.reaches(begin)
    }

    /// Whether a key has the name that is looked for.
    pub fn matches_name(&self, key: &str) -> bool {
        self.name.as_ref().is_none_or(|name| name.is_match(key))
    }

    /// The folders below which every key lies that matches: see [`Scope::folders`].
    pub fn folders(&self) -> Vec<String> {
        self.scope.folders(&self.begin)
    }

    /// What every key begins with that matches: see [`Scope::beginnings`].
    pub fn beginnings(&self) -> Vec<String> {
        self.scope.beginnings(&self.begin)
    }

    /// Whether a value's tags are those that are looked for.
    pub fn matches_tags(&self, tags: &BTreeMap<String, String>) -> bool {
        self.tags
            .iter()
            .all(|(name, value)| tags.get(name) == Some(value))
    }
}

/// A key that a search found and that matches, as a location.
///
/// # Errors
/// `Unsupported` when no reference can name it.
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
    fn what_is_not_granted_does_not_match() {
        let filter = KeyFilter::new(&FindQuery {
            scope: Scope::patterns([Pattern::new("shop/*").unwrap()]),
            ..FindQuery::default()
        })
        .unwrap();
        assert!(filter.matches_key("shop/database"));
        assert!(!filter.matches_key("shop/eu/database") && !filter.matches_key("blog/database"));
        assert_eq!(filter.folders(), ["shop"]);
    }

    #[test]
    fn a_found_name_that_no_key_can_have_is_an_error() {
        let error = found("shop/my db").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.message.contains("\"shop/my db\""), "{error}");
    }

    #[test]
    fn a_path_finds_what_lies_below_it_and_no_neighbour() {
        let filter = filter(Some("shop"), None);
        assert!(filter.matches_key("shop/database"));
        assert!(filter.matches_key("shop/eu/database"));
        assert!(!filter.matches_key("shopping/cart"));
        assert!(!filter.matches_key("shop"));
    }

    #[test]
    fn without_a_path_every_key_matches() {
        assert!(filter(None, None).matches_key("anything"));
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
