//! The values that a template may read.

use std::collections::{BTreeMap, BTreeSet};

use crate::remote::SecretValue;

/// The values that a template may read.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    pub(super) all: &'a BTreeMap<String, SecretValue>,
    /// The keys that messages may list.
    pub(super) named: &'a BTreeSet<String>,
}

impl<'a> Values<'a> {
    /// Lets messages list these keys, which the spec names. Messages only count other keys, because
    /// they can be properties of remote values, whose names can be secret.
    #[must_use]
    pub fn naming(self, named: &'a BTreeSet<String>) -> Self {
        Self { named, ..self }
    }
}

impl<'a> From<&'a BTreeMap<String, SecretValue>> for Values<'a> {
    fn from(all: &'a BTreeMap<String, SecretValue>) -> Self {
        static NONE: BTreeSet<String> = BTreeSet::new();
        Self { all, named: &NONE }
    }
}
