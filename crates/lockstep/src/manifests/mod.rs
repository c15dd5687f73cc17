//! Manifests as `lockstep render`, `plan` and `seal` take them in, without a cluster.
//!
//! [`input`] reads texts, [`confine`] keeps it below the folders that were named, [`kustomization`] reads what lists them. [`yaml`] cuts them into documents, [`objects`] and [`schema`] take in what lockstep reads.

mod confine;
pub(crate) mod input;
mod kustomization;
pub(crate) mod objects;
pub(crate) mod schema;
pub(crate) mod yaml;

use std::collections::BTreeMap;

use lockstep_controller::index::{ClusterView, Index, ObjectKey};
use lockstep_core::{Failure, plan::Input};

use crate::providers::registry;

pub(crate) use objects::{Objects, Place, Placed, Problem};

/// Where `deploy/` puts the operator; its own credentials are not looked at here.
const OPERATOR_NAMESPACE: &str = "lockstep-system";

/// What the operator's watches would tell of the objects. Finds what only all of them together can show to be wrong.
pub(crate) fn index(objects: &mut Objects) -> Index {
    let mut index = Index::new(OPERATOR_NAMESPACE).with_registry(registry(None));
    for (key, (entry, place)) in &objects.stores {
        index.apply_store(key, entry.clone());
        if let Some((at, glob)) = index.malformed_glob(key) {
            objects.problems.push(Problem {
                place: Place::clone(place),
                object: Some(key.to_string()),
                message: format!("spec.{at}: \"{glob}\" is not a glob that can be used"),
            });
        }
    }
    for placed in &objects.synced_secrets {
        let labels: BTreeMap<_, _> = objects.labels(&placed.namespace);
        index.apply_namespace(&placed.namespace, labels, false);
        index.apply_object(&placed.object);
    }
    index
}

impl Placed {
    /// What the operator would know of it beyond its own object.
    pub(crate) fn surroundings(&self, index: &Index) -> ClusterView {
        index.surroundings(&ObjectKey::of(&self.object), &self.object)
    }

    /// What its plan is made from.
    pub(crate) fn input<'a>(&'a self, around: &'a ClusterView) -> Input<'a> {
        Input {
            name: &self.name,
            namespace: &self.namespace,
            uid: "",
            spec: &self.object.spec,
            stores: &around.views,
            rival: around.rival.as_ref(),
        }
    }

    /// The line that says why it would not sync.
    pub(crate) fn failed(&self, failure: &Failure) -> String {
        format!(
            "error: {}:{}: SyncedSecret {}/{}: {}: {}",
            self.place.file, self.place.line, self.namespace, self.name, failure.reason, failure.message
        )
    }
}

impl Problem {
    /// The line that says what is wrong.
    pub(crate) fn line(&self) -> String {
        let object = self.object.as_ref();
        let object = object.map(|object| format!("{object}: ")).unwrap_or_default();
        format!(
            "error: {}:{}: {object}{}",
            self.place.file, self.place.line, self.message
        )
    }
}

/// What the last line of a run that failed says: of `all` SyncedSecrets so many `failed`.
pub(crate) fn summary(all: usize, failed: usize, problems: usize) -> String {
    let objects = |count: usize| {
        if count == 1 {
            "SyncedSecret"
        } else {
            "SyncedSecrets"
        }
    };
    let mut parts = Vec::new();
    if all > 0 {
        parts.push(format!("{} of {all} {} would sync", all - failed, objects(all)));
    }
    if problems > 0 {
        let errors = if problems == 1 { "error" } else { "errors" };
        parts.push(format!("{problems} {errors} in what was read"));
    }
    parts.join("; ")
}
