//! Manifests as `lockstep render`, `plan` and `seal` read them, without a cluster.
//!
//! [`input`] reads texts, [`confine`] limits it to the named folders, and [`kustomization`] reads
//! lists of resources. [`yaml`] splits texts into documents. [`objects`] and [`schema`] validate
//! the objects that lockstep reads.

mod confine;
pub(crate) mod input;
mod kustomization;
pub(crate) mod objects;
pub(crate) mod schema;
pub(crate) mod yaml;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lockstep_controller::index::{Index, ObjectKey};
use lockstep_core::{
    Failure,
    fingerprint::FingerprintKey,
    plan::Input,
    reconcile::{ClusterView, Facts, Memory, Settings},
    spec,
};

use crate::providers::registry;

pub(crate) use objects::{Objects, Placed, Position, Problem};

/// Namespace of the operator in `deploy/`. Its credentials are not read here.
const OPERATOR_NAMESPACE: &str = "lockstep-system";

/// Builds the operator's index of the objects. Adds the problems that only show up across objects.
pub(crate) fn index(objects: &mut Objects) -> Index {
    let mut index = Index::new(OPERATOR_NAMESPACE).with_registry(registry(None));
    for (key, (entry, position)) in &objects.stores {
        index.apply_store(key, entry.clone());
        if let Some((at, glob)) = index.malformed_glob(key) {
            objects.problems.push(Problem {
                position: Position::clone(position),
                object: Some(key.to_string()),
                message: format!("spec.{at}: \"{glob}\" is not a valid glob"),
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
    /// Returns what the operator would know about it beyond its own object.
    pub(crate) fn view_of(&self, index: &Index) -> ClusterView {
        index.view_of(&ObjectKey::of(&self.object), &self.object)
    }

    /// Returns the name of its Secret.
    pub(crate) fn target(&self) -> &str {
        spec::target_name(&self.name, &self.object.spec.target)
    }

    /// Returns the facts of its first reconcile, as if it were not suspended. Nothing that depends
    /// on the key leaves this process.
    pub(crate) fn facts(&self, index: &Index, key: FingerprintKey) -> Facts {
        let mut object = self.object.clone();
        object.spec.suspend = false;
        Facts {
            object: Arc::new(object),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: String::new(),
            status: None,
            resource_version: None,
            memory: Memory::default(),
            view: Arc::new(self.view_of(index)),
            lease_grants: BTreeMap::new(),
            account: String::new(),
            key,
            settings: Settings {
                drift_probe_interval: Duration::ZERO,
                issue_timeout: Duration::ZERO,
                deletion_delay: Duration::ZERO,
                process_seed: 0,
            },
            uses_stores: true,
        }
    }

    /// Returns the input of its plan.
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

    /// Returns the error line for a SyncedSecret that would not sync.
    pub(crate) fn failed(&self, failure: &Failure) -> String {
        format!(
            "error: {}:{}: SyncedSecret {}/{}: {}: {}",
            self.position.file,
            self.position.line,
            self.namespace,
            self.name,
            failure.reason,
            failure.message
        )
    }
}

impl Problem {
    /// Returns the error line.
    pub(crate) fn line(&self) -> String {
        let object = self.object.as_ref();
        let object = object.map(|object| format!("{object}: ")).unwrap_or_default();
        format!(
            "error: {}:{}: {object}{}",
            self.position.file, self.position.line, self.message
        )
    }
}

/// Returns the last line of a failed run.
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
        parts.push(format!("{problems} {errors} in the input"));
    }
    parts.join("; ")
}
