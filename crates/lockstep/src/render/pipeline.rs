//! Runs the operator's own reconcile in memory, up to the write of each Secret.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_api::{CreationPolicy, Reason, annotation};
use lockstep_controller::{
    fetch::{self, Large, Meter},
    index::Index,
};
use lockstep_core::{
    Failure,
    assemble::DesiredSecret,
    fingerprint::FingerprintKey,
    plan::Plan,
    reconcile::{Effect, EffectResult, Moment, Reconcile, Record, SecretRequest, SourcesRead, StatusAnswer},
    schedule::RefreshSchedule,
    secret_write::{Answer, Request, SecretIdentity, WriteError},
    time::{Clock as _, SystemClock},
};
use lockstep_provider::{Context, ProviderError, SecretValue};

use super::values::{Everywhere, Folder};
use crate::manifests::{self, Objects, Placed};

/// The values of ciphertexts by index in `data`.
type Decrypted = BTreeMap<usize, Result<SecretValue, ProviderError>>;

/// Result of rendering one SyncedSecret.
#[derive(Debug)]
pub(super) enum Rendered {
    /// The rendered Secret.
    Secret(Box<Made>),
    /// The Secret depends on the values of these keys, which are sealed.
    Sealed(BTreeSet<String>),
    /// The Secret cannot be rendered, because there are no values or the store issues a credential.
    /// Only the reads are known.
    Reads(Box<Plan>),
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
}

/// Values of ciphertexts. There is no KMS to decrypt them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed<'a> {
    /// Values by namespace, name and key.
    pub(super) values: Option<&'a Folder>,
    /// Whether values are printed, so that none may be missing.
    pub(super) shown: bool,
}

/// Reconciles every SyncedSecret in memory, in order.
pub(super) async fn run(
    objects: &mut Objects,
    values: Option<&Everywhere>,
    sealed: Sealed<'_>,
) -> Vec<Rendered> {
    let index = manifests::index(objects);
    let mut all = Vec::new();
    for placed in &objects.synced_secrets {
        let first_sync = FirstSync {
            placed,
            existing: objects
                .secrets
                .get(&(placed.namespace.clone(), placed.target().to_owned())),
            values,
            sealed,
            unknown: BTreeSet::new(),
        };
        all.push(first_sync.run(&index).await);
    }
    all
}

/// The first sync of one SyncedSecret, up to the write of its Secret.
struct FirstSync<'a> {
    placed: &'a Placed,
    /// Annotations of a Secret with the name of the target, if the manifests contain one.
    existing: Option<&'a BTreeMap<String, String>>,
    values: Option<&'a Everywhere>,
    sealed: Sealed<'a>,
    /// Keys whose values are sealed and therefore unknown.
    unknown: BTreeSet<String>,
}

/// The result of an effect, or the result of the rendering.
type Performed = Result<EffectResult, Rendered>;

impl FirstSync<'_> {
    /// Performs the effects of the reconcile until the Secret would be written.
    async fn run(mut self, index: &Index) -> Rendered {
        let key = match FingerprintKey::new([0; 32]) {
            Ok(key) => key,
            Err(error) => return Rendered::Failed(Failure::new(Reason::Internal, error.to_string())),
        };
        let now = SystemClock.now();
        let moment = Moment {
            wall: now,
            steady: now,
            may_write: true,
            policy_proven: true,
        };
        let (mut reconcile, mut effect) = Reconcile::start(self.placed.facts(index, key), moment);
        loop {
            effect = match self.perform(effect).await {
                Ok(result) => reconcile.resume(result, moment),
                Err(rendered) => return rendered,
            };
        }
    }

    async fn perform(&mut self, effect: Effect) -> Performed {
        Ok(match effect {
            Effect::ReadSources(request) => EffectResult::ReadSources(Ok(self.read(&request.plan).await?)),
            Effect::Decrypt(plan) => EffectResult::Decrypt(self.decrypt(&plan)?),
            Effect::Compute(work) => {
                work.run();
                EffectResult::Compute(())
            }
            Effect::RequestSecret(request) => EffectResult::RequestSecret(self.answer(&request)?),
            Effect::MergeSecret(merge) => EffectResult::MergeSecret(self.merge(&merge.secret)?),
            Effect::WriteStatus(_) => EffectResult::WriteStatus(StatusAnswer::Written(None)),
            Effect::PlanRefresh(()) => EffectResult::PlanRefresh(RefreshSchedule::default()),
            Effect::Publish(_) => EffectResult::Publish(()),
            Effect::Messages(_) => EffectResult::Messages(()),
            Effect::Record(Record::NotSynced(reason, message)) => {
                return Err(Rendered::Failed(Failure::new(reason, message)));
            }
            Effect::Record(_) => EffectResult::Record(()),
            // the sync ended without a write
            Effect::Done(_) => return Err(Rendered::Gone),
            other => {
                let message = format!("a first sync does not need {}", other.name());
                return Err(Rendered::Failed(Failure::new(Reason::Internal, message)));
            }
        })
    }

    async fn read(&self, plan: &Plan) -> Result<SourcesRead, Rendered> {
        // the store issues a new credential at each sync, so there is none to read
        let Some(values) = self.values.filter(|_| plan.generation.is_none()) else {
            return Err(Rendered::Reads(Box::new(plan.clone())));
        };
        let meter = Meter::new(Large::default(), &self.placed.namespace);
        Ok(SourcesRead {
            fetched: fetch::fetch(plan, values, &Context::default(), &meter).await,
            large: false,
            messages: Vec::new(),
        })
    }

    /// Answers a request as the API server and the admission policy would.
    fn answer(&self, request: &SecretRequest) -> Result<Answer<WriteError>, Rendered> {
        match (&request.request, self.existing) {
            (Request::Create, Some(_)) => Ok(Answer::AlreadyExists),
            (Request::Replace { .. }, Some(annotations)) => {
                let is_ours = |annotation| self.is_named(annotations, annotation);
                if !is_ours(annotation::OWNER) && !is_ours(annotation::ADOPT) {
                    return Ok(Answer::Denied);
                }
                Err(self.rendered(request.desired.as_deref()))
            }
            (Request::Create, None) => Err(self.rendered(request.desired.as_deref())),
            _ => Ok(Answer::Denied),
        }
    }

    fn merge(&self, secret: &DesiredSecret) -> Result<Result<SecretIdentity, WriteError>, Rendered> {
        match self.existing {
            Some(annotations) if !self.is_named(annotations, annotation::MERGE) => {
                Ok(Err(WriteError::MergeNotListed))
            }
            _ => Err(self.rendered(Some(secret))),
        }
    }

    /// Whether an annotation lists the SyncedSecret.
    fn is_named(&self, annotations: &BTreeMap<String, String>, annotation: &str) -> bool {
        let names = annotations
            .get(annotation)
            .map(String::as_str)
            .unwrap_or_default();
        names.split(',').any(|name| name.trim() == self.placed.name)
    }

    fn rendered(&self, secret: Option<&DesiredSecret>) -> Rendered {
        let Some(secret) = secret else {
            let message = "a write has no Secret";
            return Rendered::Failed(Failure::new(Reason::Internal, message));
        };
        let mut secret = secret.clone();
        // the revision in the name of a versioned Secret depends on the key of the operator
        self.placed.target().clone_into(&mut secret.name);
        let sealed = self.unknown.clone();
        Rendered::Secret(Box::new(Made { secret, sealed }))
    }

    /// Returns the values of ciphertexts. Unknown ones are empty, unless a template or the user
    /// needs them.
    fn decrypt(&mut self, plan: &Plan) -> Result<Decrypted, Rendered> {
        let mut decrypted = BTreeMap::new();
        for decryption in &plan.decryptions {
            let key = &decryption.secret_key;
            let folder = self.sealed.values;
            let value =
                folder.and_then(|folder| folder.unsealed(&self.placed.namespace, &self.placed.name, key));
            let value = value.unwrap_or_else(|| {
                self.unknown.insert(key.to_owned());
                Ok(SecretValue::new([]))
            });
            decrypted.insert(decryption.entry, value);
        }
        if !self.unknown.is_empty() && (self.sealed.shown || has_templates(self.placed)) {
            return Err(Rendered::Sealed(self.unknown.clone()));
        }
        Ok(decrypted)
    }
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
    let target = placed.target();
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
