//! Runs the operator's own pipeline over the objects: plan → fetch → collect → assemble.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_api::{CreationPolicy, TemplateTarget, annotation};
use lockstep_controller::{
    fetch::{self, Large, Meter},
    index::Index,
};
use lockstep_core::{
    Failure,
    assemble::{self, DesiredSecret},
    collect::{self, Collected, Outcome},
    owner::Owner,
    plan::{self, Plan},
    secret_write::WriteError,
    spec,
};
use lockstep_provider::{Context, ProviderError, SecretValue};

use super::{
    values::{Everywhere, Folder},
    written,
};
use crate::manifests::{self, Objects, Placed};

/// Result of rendering one SyncedSecret.
#[derive(Debug)]
pub(super) enum Rendered {
    /// The rendered Secret.
    Secret(Made),
    /// The Secret depends on the values of these keys, which are sealed.
    Sealed(BTreeSet<String>),
    /// The Secret cannot be rendered, because there are no values or the store issues a credential.
    /// Only the reads are known.
    Reads(Plan),
    /// Every source is gone, so the Secret is deleted.
    Gone,
    /// The failure that the operator would report in the status.
    Failed(Failure),
}

/// A rendered Secret, and the keys that must be masked.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) secret: DesiredSecret,
    /// Keys of `data` whose values are sealed and therefore unknown.
    pub(super) sealed: BTreeSet<String>,
    /// Keys of `data` whose names come from templates, and possibly from values.
    pub(super) templated: BTreeSet<String>,
}

/// Values of ciphertexts. There is no KMS to decrypt them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed<'a> {
    /// Values by namespace, name and key.
    pub(super) values: Option<&'a Folder>,
    /// Whether values are printed, so that none may be missing.
    pub(super) shown: bool,
}

/// Runs every SyncedSecret through the pipeline, in order.
pub(super) async fn run(
    objects: &mut Objects,
    values: Option<&Everywhere>,
    sealed: Sealed<'_>,
) -> Vec<Rendered> {
    let index = manifests::index(objects);
    let mut all = Vec::new();
    for placed in &objects.synced_secrets {
        let rendered = one(placed, &index, objects, values, sealed).await;
        all.push(rendered.unwrap_or_else(Rendered::Failed));
    }
    all
}

async fn one(
    placed: &Placed,
    index: &Index,
    objects: &Objects,
    values: Option<&Everywhere>,
    sealed: Sealed<'_>,
) -> Result<Rendered, Failure> {
    let around = placed.surroundings(index);
    let input = placed.input(&around);
    let plan = plan::plan(&input)?;
    let target = input.target_name();
    if let Some(annotations) = objects
        .secrets
        .get(&(placed.namespace.clone(), target.to_owned()))
    {
        check_owner(placed, target, annotations)?;
    }
    // the store issues a new credential at each sync, so there is none to read
    let Some(values) = values.filter(|_| plan.generation.is_none()) else {
        return Ok(Rendered::Reads(plan));
    };
    let (decrypted, unknown) = decrypt(placed, &plan, sealed);
    if !unknown.is_empty() && (sealed.shown || has_templates(placed)) {
        return Ok(Rendered::Sealed(unknown));
    }
    let meter = Meter::new(Large::default(), &placed.namespace);
    let mut fetched = fetch::fetch(&plan, values, &Context::default(), &meter).await;
    fetched.decrypted = Some(decrypted);
    match collect::collect(&input, &fetched)? {
        Outcome::Gone => Ok(Rendered::Gone),
        Outcome::Complete(collected) => {
            let secret = assemble::assemble(&input, &collected)?;
            let templated = templated_keys(placed, &collected, &secret);
            Ok(Rendered::Secret(Made {
                secret,
                sealed: unknown,
                templated,
            }))
        }
    }
}

/// Returns the keys of `data` that neither a source nor the manifest names, so only a template can
/// have made them.
fn templated_keys(placed: &Placed, collected: &Collected, secret: &DesiredSecret) -> BTreeSet<String> {
    let template = placed.object.spec.target.template.as_ref();
    let is_written = |key: &str| {
        template.is_some_and(|template| {
            template.data.contains_key(key) || written::is_constant(template, TemplateTarget::Data)
        })
    };
    let keys = secret.data.keys();
    keys.filter(|key| !collected.values.contains_key(*key) && !is_written(key))
        .cloned()
        .collect()
}

/// Returns the known values of ciphertexts and the keys of the unknown ones, which are left empty.
fn decrypt(
    placed: &Placed,
    plan: &Plan,
    sealed: Sealed<'_>,
) -> (
    BTreeMap<usize, Result<SecretValue, ProviderError>>,
    BTreeSet<String>,
) {
    let mut decrypted = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    for decryption in &plan.decryptions {
        let key = &decryption.secret_key;
        let value = sealed
            .values
            .and_then(|values| values.unsealed(&placed.namespace, &placed.name, key));
        let value = value.unwrap_or_else(|| {
            unknown.insert(key.to_owned());
            Ok(SecretValue::new([]))
        });
        decrypted.insert(decryption.entry, value);
    }
    (decrypted, unknown)
}

/// Whether the SyncedSecret has templates, in which an unknown value could be used.
fn has_templates(placed: &Placed) -> bool {
    let template = placed.object.spec.target.template.as_ref();
    template.is_some_and(|template| {
        let metadata = template.metadata.as_ref();
        !template.data.is_empty()
            || !template.template_from.is_empty()
            || metadata
                .is_some_and(|metadata| !metadata.labels.is_empty() || !metadata.annotations.is_empty())
    })
}

/// Checks an existing Secret as the admission policy would.
fn check_owner(placed: &Placed, target: &str, annotations: &BTreeMap<String, String>) -> Result<(), Failure> {
    let names_it = |annotation| {
        let names = annotations
            .get(annotation)
            .map(String::as_str)
            .unwrap_or_default();
        names.split(',').any(|name| name.trim() == placed.name)
    };
    let merges = placed.object.spec.target.creation_policy == CreationPolicy::Merge;
    let allowed = if merges {
        names_it(annotation::MERGE)
    } else {
        names_it(annotation::OWNER) || names_it(annotation::ADOPT)
    };
    if allowed {
        return Ok(());
    }
    let owner = Owner {
        object: &placed.object,
        namespace: &placed.namespace,
        name: &placed.name,
        target,
    };
    let error = if merges {
        WriteError::MergeNotListed
    } else {
        WriteError::Foreign
    };
    Err(error.failure(&owner))
}

/// Returns a note for the user about a SyncedSecret that did not fail.
pub(super) fn note(placed: &Placed, rendered: &Rendered, objects: &Objects) -> Option<String> {
    if let Rendered::Sealed(keys) = rendered {
        let keys: Vec<_> = keys.iter().map(|key| format!("\"{key}\"")).collect();
        return Some(format!(
            "not shown, because the value of {} is sealed. Provide it with --sealed-values",
            keys.join(" and ")
        ));
    }
    let spec = &placed.object.spec;
    let target = spec::target_name(&placed.name, &spec.target);
    if spec.suspend {
        return Some("suspended: nothing is written until spec.suspend is false".to_owned());
    }
    let there = objects
        .secrets
        .contains_key(&(placed.namespace.clone(), target.to_owned()));
    (spec.target.creation_policy == CreationPolicy::Merge && !there).then(|| {
        format!(
            "Secret \"{target}\" must exist and list this SyncedSecret in an annotation: {}={}",
            annotation::MERGE,
            placed.name
        )
    })
}
