//! Decides which namespace may read what from a ClusterSecretStore, before any read.

use std::collections::BTreeMap;

use lockstep_api::{
    Access, CiphertextScope,
    selector::{LabelSelector, LabelSelectorOperator, LabelSelectorRequirement},
};

use crate::remote::{Location, Pattern, Scope};

/// The namespace that asks for access.
#[derive(Debug, Clone, Copy)]
pub struct Namespace<'a> {
    /// The name of the namespace.
    pub name: &'a str,
    /// Its labels. `None` until they are observed; no selector matches then.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

/// Patterns with the index of their entry in `access`.
type Patterns = Vec<(usize, Pattern)>;

/// What one store grants to one namespace.
#[derive(Debug, Clone)]
pub enum Grant {
    /// Grants everything: a SecretStore in the same namespace.
    Everything,
    /// Grants what the entries of `access` list. Each item has the index of its entry.
    Listed {
        /// The patterns of locations that may be read.
        keys: Patterns,
        /// The patterns of paths at which the store may issue credentials.
        generate: Patterns,
        /// The scopes of ciphertexts that may be decrypted.
        scopes: Vec<(usize, CiphertextScope)>,
        /// Whether entries with a selector were ignored because the labels of the namespace are
        /// unknown.
        unobserved: bool,
    },
}

impl Grant {
    /// Returns what a ClusterSecretStore grants to a namespace. A malformed glob grants nothing.
    pub fn new(access: &[Access], namespace: Namespace<'_>) -> Self {
        let entries = || {
            let all = access.iter().enumerate();
            all.filter(|(_, entry)| names_namespace(entry, namespace))
        };
        let globs = |of: fn(&Access) -> &[String]| -> Patterns {
            entries()
                .flat_map(|(index, entry)| of(entry).iter().map(move |glob| (index, glob)))
                .filter_map(|(index, glob)| Some((index, Pattern::new(glob)?)))
                .collect()
        };
        let keys = globs(|entry| &entry.keys);
        let generate = globs(|entry| &entry.generate);
        let scopes = entries()
            .flat_map(|(index, entry)| entry.ciphertext_scopes.iter().map(move |scope| (index, *scope)))
            .collect();
        let selects = |entry: &Access| entry.namespaces.selector.is_some();
        Self::Listed {
            keys,
            generate,
            scopes,
            unobserved: namespace.labels.is_none() && access.iter().any(selects),
        }
    }

    /// Whether the value at the location may be read.
    pub fn allows(&self, location: &Location) -> bool {
        match self {
            Self::Everything => true,
            Self::Listed { keys, .. } => is_listed(keys, location),
        }
    }

    /// Returns the scope of a search.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Everything => Scope::everything(),
            Self::Listed { keys, .. } => Scope::patterns(keys.iter().map(|(_, pattern)| pattern.clone())),
        }
    }

    /// Whether the store may issue credentials at the path.
    pub fn generates(&self, path: &Location) -> bool {
        match self {
            Self::Everything => true,
            Self::Listed { generate, .. } => is_listed(generate, path),
        }
    }

    /// Describes the granted credential paths for a message: `access[0] grants "database/creds/*"`.
    pub fn describe_generation(&self) -> String {
        match self {
            Self::Everything => "everything is granted".to_owned(),
            Self::Listed {
                generate, unobserved, ..
            } if generate.is_empty() => format!(
                "no entry of access lists generate for this namespace{}",
                explain_ignored_entries(*unobserved)
            ),
            Self::Listed { generate, .. } => describe(generate),
        }
    }

    /// Whether entries were ignored because the labels of the namespace are unknown. A search within
    /// the rest would miss values that are granted.
    pub const fn is_unobserved(&self) -> bool {
        matches!(self, Self::Listed { unobserved: true, .. })
    }

    /// Whether no key may be read.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Listed { keys, .. } if keys.is_empty())
    }

    /// Whether ciphertexts of the scope may be decrypted.
    pub fn decrypts(&self, scope: CiphertextScope) -> bool {
        match self {
            Self::Everything => true,
            Self::Listed { scopes, .. } => scopes.iter().any(|(_, granted)| *granted == scope),
        }
    }

    /// Describes the granted scopes for a message: `access[0] grants Strict`.
    pub fn describe_scopes(&self) -> String {
        match self {
            Self::Everything => "everything is granted".to_owned(),
            Self::Listed {
                scopes, unobserved, ..
            } if scopes.is_empty() => format!(
                "no entry of access lists ciphertextScopes for this namespace{}",
                explain_ignored_entries(*unobserved)
            ),
            Self::Listed { scopes, .. } => {
                let shown: Vec<_> = scopes
                    .iter()
                    .take(4)
                    .map(|(index, scope)| format!("access[{index}] grants {scope}"))
                    .collect();
                shown.join(", ")
            }
        }
    }

    /// Describes the granted keys for a message: `access[0] grants "shop/*"`.
    pub fn describe(&self) -> String {
        match self {
            Self::Everything => "everything is granted".to_owned(),
            Self::Listed { keys, unobserved, .. } if keys.is_empty() => format!(
                "no entry of access grants this namespace anything{}",
                explain_ignored_entries(*unobserved)
            ),
            Self::Listed { keys, .. } => describe(keys),
        }
    }
}

/// Whether a ClusterSecretStore grants a namespace one of these locations. Only the globs that can
/// cover one are compiled, so that this can be called for each namespace of each event.
pub fn grants_any(access: &[Access], namespace: Namespace<'_>, locations: &[Location]) -> bool {
    let entries = access.iter().filter(|entry| names_namespace(entry, namespace));
    entries.flat_map(|entry| &entry.keys).any(|glob| {
        let begin = Pattern::literal(glob);
        let mut near = locations
            .iter()
            .filter(|location| location.starts_with(begin))
            .peekable();
        near.peek().is_some()
            && Pattern::new(glob).is_some_and(|pattern| near.any(|location| pattern.covers(location)))
    })
}

/// Whether one of the patterns covers a location.
fn is_listed(patterns: &[(usize, Pattern)], location: &Location) -> bool {
    patterns.iter().any(|(_, pattern)| pattern.covers(location))
}

/// Explains in a message why an entry with a selector may be missing.
fn explain_ignored_entries(unobserved: bool) -> &'static str {
    if unobserved {
        "; the labels of the namespace are not known, so entries with a selector do not apply"
    } else {
        ""
    }
}

fn describe(patterns: &[(usize, Pattern)]) -> String {
    let shown: Vec<_> = patterns
        .iter()
        .take(4)
        .map(|(index, pattern)| format!("access[{index}] grants \"{}\"", pattern.as_str()))
        .collect();
    let more = patterns.len().saturating_sub(shown.len());
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    format!("{}{more}", shown.join(", "))
}

/// Returns the first malformed glob of a store and its field, for the status of the store.
pub fn malformed_glob(access: &[Access]) -> Option<(String, &str)> {
    access.iter().enumerate().find_map(|(index, entry)| {
        let fields = [("keys", &entry.keys), ("generate", &entry.generate)];
        fields.into_iter().find_map(|(field, globs)| {
            let glob = globs.iter().find(|glob| Pattern::new(glob).is_none())?;
            Some((format!("access[{index}].{field}"), glob.as_str()))
        })
    })
}

fn names_namespace(entry: &Access, namespace: Namespace<'_>) -> bool {
    entry.namespaces.names.iter().any(|name| name == namespace.name)
        || entry
            .namespaces
            .selector
            .as_ref()
            .zip(namespace.labels)
            .is_some_and(|(selector, labels)| matches(selector, labels))
}

fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector
        .match_labels
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && selector
            .match_expressions
            .iter()
            .all(|requirement| meets(requirement, labels))
}

fn meets(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    match requirement.operator {
        LabelSelectorOperator::In => value.is_some_and(|value| requirement.values.contains(value)),
        LabelSelectorOperator::NotIn => !value.is_some_and(|value| requirement.values.contains(value)),
        LabelSelectorOperator::Exists => value.is_some(),
        LabelSelectorOperator::DoesNotExist => value.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use lockstep_api::AccessNamespaces;

    use super::*;

    fn access(names: &[&str], selector: Option<&[(&str, &str)]>, keys: &[&str]) -> Access {
        Access {
            namespaces: AccessNamespaces {
                names: names.iter().map(ToString::to_string).collect(),
                selector: selector.map(|labels| LabelSelector {
                    match_labels: labels
                        .iter()
                        .map(|(k, v)| (k.to_string(), v.to_string()))
                        .collect(),
                    match_expressions: vec![],
                }),
            },
            keys: keys.iter().map(ToString::to_string).collect(),
            generate: Vec::new(),
            ciphertext_scopes: Vec::new(),
        }
    }

    fn at(key: &str) -> Location {
        Location::new(key).unwrap()
    }

    #[test]
    fn any_granted_location_is_found_without_the_other_globs() {
        let access = [
            access(&["other"], None, &["**"]),
            access(&["shop"], None, &["shop/*", "pub/[a-c]?", "bad[", "**/all"]),
        ];
        let namespace = Namespace {
            name: "shop",
            labels: None,
        };
        let grant = Grant::new(&access, namespace);
        for keys in [
            &["shop/db"][..],
            &["shop/a/b"],
            &["x", "pub/b1"],
            &["pub/d1"],
            &["deep/in/all"],
            &["bad["],
            &[],
        ] {
            let locations: Vec<_> = keys.iter().map(|key| at(key)).collect();
            let expected = locations.iter().any(|location| grant.allows(location));
            assert_eq!(grants_any(&access, namespace, &locations), expected, "{keys:?}");
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn no_entry_grants_nothing() {
        let labels = labels(&[]);
        let grant = Grant::new(
            &[],
            Namespace {
                name: "shop",
                labels: Some(&labels),
            },
        );
        assert!(grant.is_empty() && !grant.allows(&at("shop/database")));
    }

    #[test]
    fn one_star_stays_within_a_segment_and_two_stars_cross() {
        let none = labels(&[]);
        let shop = Namespace {
            name: "shop",
            labels: Some(&none),
        };
        let one = Grant::new(&[access(&["shop"], None, &["shop/*"])], shop);
        assert!(one.allows(&at("shop/database")));
        for key in ["shop/a/b", "shop", "billing/x", "xshop/a"] {
            assert!(!one.allows(&at(key)), "{key}");
        }
        let all = Grant::new(&[access(&["shop"], None, &["shop/**"])], shop);
        assert!(all.allows(&at("shop/a/b")));
    }

    #[test]
    fn entry_without_keys_grants_nothing() {
        let none = labels(&[]);
        assert!(
            Grant::new(
                &[access(&["shop"], None, &[])],
                Namespace {
                    name: "shop",
                    labels: Some(&none)
                }
            )
            .is_empty()
        );
    }

    #[test]
    fn ciphertext_scope_is_granted_only_by_name() {
        let none = labels(&[]);
        let mut entry = access(&["shop"], None, &["**"]);
        let grant = |entry: &Access, name| {
            let namespace = Namespace {
                name,
                labels: Some(&none),
            };
            Grant::new(std::slice::from_ref(entry), namespace)
        };
        assert!(
            !grant(&entry, "shop").decrypts(CiphertextScope::Strict),
            "keys grant no scope"
        );
        entry.ciphertext_scopes = vec![CiphertextScope::Strict];
        let granted = grant(&entry, "shop");
        assert!(granted.decrypts(CiphertextScope::Strict));
        assert!(!granted.decrypts(CiphertextScope::Namespace) && !granted.decrypts(CiphertextScope::Cluster));
        assert_eq!(granted.describe_scopes(), "access[0] grants Strict");
        assert!(!grant(&entry, "blog").decrypts(CiphertextScope::Strict));
    }

    #[test]
    fn read_and_generate_are_granted_separately() {
        let none = labels(&[]);
        let mut entry = access(&["shop"], None, &["**"]);
        let grant = |entry: &Access, name| {
            let namespace = Namespace {
                name,
                labels: Some(&none),
            };
            Grant::new(std::slice::from_ref(entry), namespace)
        };
        assert!(
            !grant(&entry, "shop").generates(&at("database/creds/shop")),
            "keys that were written for values grant no credential"
        );
        entry.keys = Vec::new();
        entry.generate = vec!["database/creds/shop-*".to_owned()];
        let granted = grant(&entry, "shop");
        assert!(
            granted.generates(&at("database/creds/shop-web"))
                && !granted.allows(&at("database/creds/shop-web"))
        );
        for path in ["database/creds/shop", "database/creds/shop-a/b"] {
            assert!(!granted.generates(&at(path)), "{path}");
        }
        assert!(!grant(&entry, "blog").generates(&at("database/creds/shop-web")));
        assert_eq!(
            granted.describe_generation(),
            r#"access[0] grants "database/creds/shop-*""#
        );
    }

    #[test]
    fn labels_grant_access_and_their_removal_revokes_it() {
        let entry = [access(&[], Some(&[("team", "shop")]), &["**"])];
        let has = labels(&[("team", "shop")]);
        let lost = labels(&[("team", "billing")]);
        assert!(
            Grant::new(
                &entry,
                Namespace {
                    name: "a",
                    labels: Some(&has)
                }
            )
            .allows(&at("x/y"))
        );
        assert!(
            !Grant::new(
                &entry,
                Namespace {
                    name: "a",
                    labels: Some(&lost)
                }
            )
            .allows(&at("x/y"))
        );
    }

    #[test]
    fn malformed_glob_grants_nothing_and_is_named() {
        let none = labels(&[]);
        let entry = [access(&["shop"], None, &["a[", "ok"])];
        let grant = Grant::new(
            &entry,
            Namespace {
                name: "shop",
                labels: Some(&none),
            },
        );
        assert!(grant.allows(&at("ok")) && !grant.allows(&at("a[")));
        assert_eq!(malformed_glob(&entry), Some(("access[0].keys".to_owned(), "a[")));
        let mut entry = access(&["shop"], None, &["ok"]);
        entry.generate = vec!["b[".to_owned()];
        assert_eq!(
            malformed_glob(&[entry]),
            Some(("access[0].generate".to_owned(), "b["))
        );
    }

    #[test]
    fn label_requirements_work_as_in_kubernetes() {
        let has = labels(&[("tier", "gold")]);
        let rows = [
            (LabelSelectorOperator::In, vec!["gold"], true),
            (LabelSelectorOperator::In, vec!["iron"], false),
            (LabelSelectorOperator::NotIn, vec!["gold"], false),
            (LabelSelectorOperator::NotIn, vec!["iron"], true),
            (LabelSelectorOperator::Exists, vec![], true),
            (LabelSelectorOperator::DoesNotExist, vec![], false),
        ];
        for (operator, values, expected) in rows {
            let requirement = LabelSelectorRequirement {
                key: "tier".into(),
                operator,
                values: values.iter().map(ToString::to_string).collect(),
            };
            assert_eq!(meets(&requirement, &has), expected, "{operator:?} {values:?}");
        }
    }

    #[test]
    fn unknown_labels_match_no_selector() {
        let requirement = |operator, values: &[&str]| LabelSelectorRequirement {
            key: "tier".to_owned(),
            operator,
            values: values.iter().map(ToString::to_string).collect(),
        };
        let selectors = [
            vec![],
            vec![requirement(LabelSelectorOperator::NotIn, &["gold"])],
            vec![requirement(LabelSelectorOperator::DoesNotExist, &[])],
        ];
        for expressions in selectors {
            let mut entry = access(&["named"], Some(&[]), &["**"]);
            if let Some(selector) = &mut entry.namespaces.selector {
                selector.match_expressions = expressions;
            }
            let entry = [entry];
            let grant = |name, labels| Grant::new(&entry, Namespace { name, labels });
            let none = labels(&[]);
            assert!(grant("shop", Some(&none)).allows(&at("x")), "known to have none");
            let unknown = grant("shop", None);
            assert!(unknown.is_empty() && !unknown.allows(&at("x")));
            assert!(
                unknown
                    .describe()
                    .contains("labels of the namespace are not known")
            );
            assert!(grant("named", None).allows(&at("x")), "a name needs no labels");
        }
    }
}
