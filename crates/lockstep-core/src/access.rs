//! Who may read what from a ClusterSecretStore. Authorisation comes before any read.

use std::collections::BTreeMap;

use globset::{Glob, GlobMatcher};
use lockstep_api::{
    Access, CiphertextScope,
    store::{LabelSelector, LabelSelectorOperator, LabelSelectorRequirement},
};

/// A namespace, as grants see it.
#[derive(Debug, Clone, Copy)]
pub struct Namespace<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// Globs, each with the number of its entry and as it is written.
type Globs = Vec<(usize, GlobMatcher, String)>;

/// What of one store one namespace is granted.
#[derive(Debug, Clone)]
pub enum Grant {
    /// Everything: a SecretStore of the namespace itself.
    Everything,
    /// What these entries of `access` list; the number is that of the entry.
    Listed {
        /// The keys that one of these globs matches.
        keys: Globs,
        /// The paths at which credentials are made that one of these globs matches.
        generate: Globs,
        /// The scopes of ciphertexts that are decrypted.
        scopes: Vec<(usize, CiphertextScope)>,
    },
}

impl Grant {
    /// The grants of a ClusterSecretStore to a namespace. A glob that is malformed grants nothing.
    pub fn new(access: &[Access], namespace: Namespace<'_>) -> Self {
        let entries = || {
            let all = access.iter().enumerate();
            all.filter(|(_, entry)| names_namespace(entry, namespace))
        };
        let globs = |of: fn(&Access) -> &[String]| -> Globs {
            entries()
                .flat_map(|(index, entry)| of(entry).iter().map(move |glob| (index, glob)))
                .filter_map(|(index, glob)| Some((index, compile(glob)?, glob.clone())))
                .collect()
        };
        let keys = globs(|entry| &entry.keys);
        let generate = globs(|entry| &entry.generate);
        let scopes = entries()
            .flat_map(|(index, entry)| entry.ciphertext_scopes.iter().map(move |scope| (index, *scope)))
            .collect();
        Self::Listed {
            keys,
            generate,
            scopes,
        }
    }

    /// Whether the key may be read.
    pub fn allows(&self, key: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Listed { keys, .. } => is_listed(keys, key),
        }
    }

    /// Whether credentials may be made at that path.
    pub fn generates(&self, path: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Listed { generate, .. } => is_listed(generate, path),
        }
    }

    /// At which paths credentials may be made, for a message: `access[0] grants "database/creds/*"`.
    pub fn describe_generation(&self) -> String {
        match self {
            Self::Everything => "everything is granted".to_owned(),
            Self::Listed { generate, .. } if generate.is_empty() => {
                "no entry of access lists generate for this namespace".to_owned()
            }
            Self::Listed { generate, .. } => describe(generate),
        }
    }

    /// Whether no key at all may be read.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Listed { keys, .. } if keys.is_empty())
    }

    /// Whether ciphertexts of that scope are decrypted.
    pub fn decrypts(&self, scope: CiphertextScope) -> bool {
        match self {
            Self::Everything => true,
            Self::Listed { scopes, .. } => scopes.iter().any(|(_, granted)| *granted == scope),
        }
    }

    /// Which scopes are granted, for a message: `access[0] grants Strict`.
    pub fn describe_scopes(&self) -> String {
        match self {
            Self::Everything => "everything is granted".to_owned(),
            Self::Listed { scopes, .. } if scopes.is_empty() => {
                "no entry of access lists ciphertextScopes for this namespace".to_owned()
            }
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

    /// What is granted, for a message: `access[0] grants "shop/*"`.
    pub fn describe(&self) -> String {
        match self {
            Self::Everything => "everything is granted".to_owned(),
            Self::Listed { keys, .. } if keys.is_empty() => {
                "no entry of access grants this namespace anything".to_owned()
            }
            Self::Listed { keys, .. } => describe(keys),
        }
    }
}

/// Whether one of the globs matches a key. One with a dot segment could mean another one to the backend than to the glob.
fn is_listed(globs: &[(usize, GlobMatcher, String)], key: &str) -> bool {
    !key.split('/').any(|segment| matches!(segment, "." | ".."))
        && globs.iter().any(|(_, glob, _)| glob.is_match(key))
}

fn describe(globs: &[(usize, GlobMatcher, String)]) -> String {
    let shown: Vec<_> = globs
        .iter()
        .take(4)
        .map(|(index, _, glob)| format!("access[{index}] grants \"{glob}\""))
        .collect();
    let more = globs.len().saturating_sub(shown.len());
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    format!("{}{more}", shown.join(", "))
}

fn compile(glob: &str) -> Option<GlobMatcher> {
    globset::GlobBuilder::new(glob)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .ok()
        .as_ref()
        .map(Glob::compile_matcher)
}

/// The first glob of a store that is malformed, and where it stands, for the store's own status.
pub fn malformed_glob(access: &[Access]) -> Option<(String, &str)> {
    access.iter().enumerate().find_map(|(index, entry)| {
        let fields = [("keys", &entry.keys), ("generate", &entry.generate)];
        fields.into_iter().find_map(|(field, globs)| {
            let glob = globs.iter().find(|glob| compile(glob).is_none())?;
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
            .is_some_and(|selector| matches(selector, namespace.labels))
}

fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector
        .match_labels
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && selector
            .match_expressions
            .iter()
            .all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
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

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn with_no_entry_nobody_may_read_anything() {
        let labels = labels(&[]);
        let grant = Grant::new(
            &[],
            Namespace {
                name: "shop",
                labels: &labels,
            },
        );
        assert!(grant.is_empty() && !grant.allows("shop/database"));
    }

    #[test]
    fn a_star_stays_within_a_segment_and_two_stars_cross() {
        let none = labels(&[]);
        let shop = Namespace {
            name: "shop",
            labels: &none,
        };
        let one = Grant::new(&[access(&["shop"], None, &["shop/*"])], shop);
        assert!(one.allows("shop/database"));
        for key in [
            "shop/a/b",
            "shop",
            "billing/x",
            "shop/../billing",
            "xshop/a",
            "shop/./a",
        ] {
            assert!(!one.allows(key), "{key}");
        }
        let all = Grant::new(&[access(&["shop"], None, &["shop/**"])], shop);
        assert!(all.allows("shop/a/b"));
        assert!(!all.allows("shop/../billing/key"));
    }

    #[test]
    fn an_entry_without_keys_grants_nothing() {
        let none = labels(&[]);
        assert!(
            Grant::new(
                &[access(&["shop"], None, &[])],
                Namespace {
                    name: "shop",
                    labels: &none
                }
            )
            .is_empty()
        );
    }

    #[test]
    fn a_scope_of_ciphertexts_is_granted_by_name_and_by_nothing_else() {
        let none = labels(&[]);
        let mut entry = access(&["shop"], None, &["**"]);
        let grant = |entry: &Access, name| {
            let namespace = Namespace { name, labels: &none };
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
    fn what_may_be_read_is_not_what_may_be_made() {
        let none = labels(&[]);
        let mut entry = access(&["shop"], None, &["**"]);
        let grant = |entry: &Access, name| {
            let namespace = Namespace { name, labels: &none };
            Grant::new(std::slice::from_ref(entry), namespace)
        };
        assert!(
            !grant(&entry, "shop").generates("database/creds/shop"),
            "keys that were written for values grant no credential"
        );
        entry.keys = Vec::new();
        entry.generate = vec!["database/creds/shop-*".to_owned()];
        let granted = grant(&entry, "shop");
        assert!(granted.generates("database/creds/shop-web") && !granted.allows("database/creds/shop-web"));
        for path in [
            "database/creds/shop",
            "database/creds/shop-a/b",
            "database/creds/../creds/shop-a",
        ] {
            assert!(!granted.generates(path), "{path}");
        }
        assert!(!grant(&entry, "blog").generates("database/creds/shop-web"));
        assert_eq!(
            granted.describe_generation(),
            r#"access[0] grants "database/creds/shop-*""#
        );
    }

    #[test]
    fn labels_grant_and_their_loss_takes_away() {
        let entry = [access(&[], Some(&[("team", "shop")]), &["**"])];
        let has = labels(&[("team", "shop")]);
        let lost = labels(&[("team", "billing")]);
        assert!(
            Grant::new(
                &entry,
                Namespace {
                    name: "a",
                    labels: &has
                }
            )
            .allows("x/y")
        );
        assert!(
            !Grant::new(
                &entry,
                Namespace {
                    name: "a",
                    labels: &lost
                }
            )
            .allows("x/y")
        );
    }

    #[test]
    fn a_malformed_glob_grants_nothing_and_is_named() {
        let none = labels(&[]);
        let entry = [access(&["shop"], None, &["a[", "ok"])];
        let grant = Grant::new(
            &entry,
            Namespace {
                name: "shop",
                labels: &none,
            },
        );
        assert!(grant.allows("ok") && !grant.allows("a["));
        assert_eq!(malformed_glob(&entry), Some(("access[0].keys".to_owned(), "a[")));
        let mut entry = access(&["shop"], None, &["ok"]);
        entry.generate = vec!["b[".to_owned()];
        assert_eq!(
            malformed_glob(&[entry]),
            Some(("access[0].generate".to_owned(), "b["))
        );
    }

    #[test]
    fn requirements_mean_what_kubernetes_means() {
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
            assert_eq!(holds(&requirement, &has), expected, "{operator:?} {values:?}");
        }
    }
}
