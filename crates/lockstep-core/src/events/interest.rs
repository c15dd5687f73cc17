//! The values that a SyncedSecret depends on, as far as events can name them.

use std::collections::BTreeSet;

use lockstep_api::{StoreRef, SyncedSecretSpec};

use crate::spec::{self, Source};

/// What a SyncedSecret reads from a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interest {
    /// The value of a key.
    Key(String),
    /// The results of a search below a path; `None` for the whole store.
    Search(Option<String>),
}

impl Interest {
    /// Whether an event about a value with these names concerns it. An event does not name tags, so
    /// it can concern a search that would not find the value.
    pub fn is_concerned(&self, names: &[String]) -> bool {
        match self {
            Self::Key(key) => names.contains(key),
            Self::Search(None) => !names.is_empty(),
            Self::Search(Some(path)) => {
                let path = path.trim_matches('/');
                names
                    .iter()
                    .any(|name| name.trim_start_matches('/').starts_with(path))
            }
        }
    }
}

/// Returns what a spec reads, by store. Ciphertexts are in the spec itself.
pub fn interests(spec: &SyncedSecretSpec) -> BTreeSet<(StoreRef, Interest)> {
    let interests = spec::entries(spec).flatten().filter_map(|entry| {
        let interest = match entry.source {
            Source::Value(_, reference) | Source::Fields(reference) => {
                Interest::Key(reference.key.to_owned())
            }
            Source::Search(find) => Interest::Search(find.path.clone()),
            Source::Ciphertext { .. } | Source::Generated(_) => return None,
        };
        Some((entry.store.clone(), interest))
    });
    interests.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spec_is_interested_in_its_keys_and_searches() {
        let spec: SyncedSecretSpec = serde_json::from_value(json!({
            "secretStoreRef": { "name": "top" },
            "data": [
                { "secretKey": "a", "remoteRef": { "key": "shop/a" } },
                { "secretKey": "b", "remoteRef": { "key": "shop/a" }, "secretStoreRef": { "name": "own" } },
                { "secretKey": "c", "ciphertext": "x" },
            ],
            "dataFrom": [{ "extract": { "key": "shop/b" } }, { "find": { "path": "/team/" } }],
        }))
        .unwrap();
        let interests = interests(&spec);
        let by = |name: &str| -> Vec<Interest> {
            let of_store = interests.iter().filter(|(store, _)| store.name == name);
            of_store.map(|(_, interest)| interest.clone()).collect()
        };
        let key = |key: &str| Interest::Key(key.to_owned());
        let found = Interest::Search(Some("/team/".to_owned()));
        assert_eq!(by("top"), [key("shop/a"), key("shop/b"), found.clone()]);
        assert_eq!(by("own"), [key("shop/a")]);
        let names = |name: &str| [name.to_owned()];
        assert!(found.is_concerned(&names("team/x")) && !found.is_concerned(&names("shop/a")));
        assert!(
            Interest::Search(None).is_concerned(&names("x")) && !Interest::Search(None).is_concerned(&[])
        );
    }
}
