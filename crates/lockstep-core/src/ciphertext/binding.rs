//! The binding of a ciphertext to its location.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_api::CiphertextScope;
use sha2::{Digest, Sha256};

/// Binds a plaintext to a location: pairs that the KMS authenticates together with the ciphertext,
/// as encryption context (AWS) or additional data. They are not secret, and appear in the audit log
/// of the KMS.
///
/// ```
/// use lockstep_api::CiphertextScope;
/// use lockstep_core::ciphertext::Binding;
///
/// let binding = Binding::new(CiphertextScope::Strict, "shop", "database", "password");
/// assert_eq!(
///     binding.to_bytes(),
///     br#"{"lockstep:key":"password","lockstep:namespace":"shop","lockstep:scope":"Strict","lockstep:syncedsecret":"database"}"#
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Binding(BTreeMap<&'static str, String>);

impl Binding {
    /// Creates the binding of a value, with the parts of its location that the scope includes.
    pub fn new(scope: CiphertextScope, namespace: &str, synced_secret: &str, key: &str) -> Self {
        let mut pairs = BTreeMap::from([("lockstep:scope", scope.as_str().to_owned())]);
        if scope != CiphertextScope::Cluster {
            pairs.insert("lockstep:namespace", namespace.to_owned());
        }
        if scope == CiphertextScope::Strict {
            pairs.insert("lockstep:syncedsecret", synced_secret.to_owned());
            pairs.insert("lockstep:key", key.to_owned());
        }
        Self(pairs)
    }

    /// Adds the SHA-256 of the envelope, for its data key. The KMS then refuses to decrypt the data
    /// key as a value or for another envelope, so nobody can forge a value with a data key.
    pub(super) fn of_data_key(mut self, envelope: &[u8]) -> Self {
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(envelope));
        self.0.insert("lockstep:envelope", digest);
        self
    }

    /// Returns the pairs, sorted by name.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Returns the pairs as canonical bytes: a JSON object with sorted names and no white space.
    pub fn to_bytes(&self) -> Vec<u8> {
        // a map of strings can always be written as JSON
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    /// Returns the first bytes of the SHA-256 of [`Binding::to_bytes`].
    pub(super) fn digest(&self) -> [u8; 8] {
        let mut digest = [0; 8];
        for (to, from) in digest.iter_mut().zip(Sha256::digest(self.to_bytes())) {
            *to = from;
        }
        digest
    }
}

#[cfg(test)]
mod tests {
    use CiphertextScope::{Cluster, Namespace, Strict};

    use super::*;

    #[test]
    fn scope_binds_only_to_its_own_fields() {
        let here = |scope| Binding::new(scope, "shop", "database", "password");
        let elsewhere = |scope, [namespace, name, key]: [&str; 3]| Binding::new(scope, namespace, name, key);
        for (scope, namespace_counts, rest_counts) in [
            (Strict, true, true),
            (Namespace, true, false),
            (Cluster, false, false),
        ] {
            let differs = |place| here(scope) != elsewhere(scope, place);
            assert_eq!(
                differs(["blog", "database", "password"]),
                namespace_counts,
                "{scope}"
            );
            assert_eq!(differs(["shop", "smtp", "password"]), rest_counts, "{scope}");
            assert_eq!(differs(["shop", "database", "user"]), rest_counts, "{scope}");
        }
    }

    #[test]
    fn scopes_have_distinct_digests() {
        let all: std::collections::BTreeSet<_> = CiphertextScope::ALL
            .iter()
            .map(|scope| Binding::new(*scope, "shop", "database", "password").digest())
            .collect();
        assert_eq!(all.len(), 3);
    }
}
