//! The operator's own pipeline over the objects: plan → fetch → collect → assemble.

use std::collections::BTreeMap;

use lockstep_api::{CreationPolicy, annotation};
use lockstep_controller::{
    fetch,
    index::Index,
    secret::{Owner, WriteError},
};
use lockstep_core::{
    Failure,
    assemble::{self, DesiredSecret},
    collect::{self, Outcome},
    plan::{self, Plan},
};
use lockstep_provider::Context;

use super::values::Everywhere;
use crate::manifests::{self, Objects, Placed};

/// What becomes of a SyncedSecret.
#[derive(Debug)]
pub(super) enum Rendered {
    /// This Secret.
    Secret(DesiredSecret),
    /// Without values, nobody can say more than what is read.
    Reads(Plan),
    /// Every source is gone, and so is the Secret.
    Gone,
    /// The status would say this.
    Failed(Failure),
}

/// Takes every SyncedSecret through the pipeline, in their order.
pub(super) async fn run(objects: &mut Objects, values: Option<&Everywhere>) -> Vec<Rendered> {
    let index = manifests::index(objects);
    let mut all = Vec::new();
    for placed in &objects.synced_secrets {
        let rendered = one(placed, &index, objects, values).await;
        all.push(rendered.unwrap_or_else(Rendered::Failed));
    }
    all
}

async fn one(
    placed: &Placed,
    index: &Index,
    objects: &Objects,
    values: Option<&Everywhere>,
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
    let Some(values) = values else {
        return Ok(Rendered::Reads(plan));
    };
    let fetched = fetch::fetch(&plan, values, &Context::default()).await;
    match collect::collect(&input, &fetched)? {
        Outcome::Gone => Ok(Rendered::Gone),
        Outcome::Complete(collected) => assemble::assemble(&input, &collected).map(Rendered::Secret),
    }
}

/// What the admission policy would say to a Secret that is there already.
fn check_owner(placed: &Placed, target: &str, annotations: &BTreeMap<String, String>) -> Result<(), Failure> {
    let names_it = |annotation| {
        annotations
            .get(annotation)
            .is_some_and(|name| *name == placed.name)
    };
    if names_it(annotation::OWNER) || names_it(annotation::ADOPT) {
        return Ok(());
    }
    let owner = Owner {
        object: &placed.object,
        namespace: &placed.namespace,
        name: &placed.name,
        target,
    };
    Err(WriteError::Foreign.failure(&owner))
}

/// What everybody should know although nothing is wrong.
pub(super) fn note(placed: &Placed, objects: &Objects) -> Option<String> {
    let spec = &placed.object.spec;
    let target = plan::target_name(&placed.name, &spec.target);
    if spec.suspend {
        return Some("it is suspended: nothing is written until spec.suspend is false".to_owned());
    }
    let there = objects
        .secrets
        .contains_key(&(placed.namespace.clone(), target.to_owned()));
    (spec.target.creation_policy == CreationPolicy::Merge && !there).then(|| {
        format!(
            "Secret \"{target}\" must be there already, with the annotation {}: {}",
            annotation::ADOPT,
            placed.name
        )
    })
}
