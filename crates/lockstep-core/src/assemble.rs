//! Builds the Secret from its keys: runs templates, sets metadata and type, checks sizes, and
//! computes the fingerprint.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_api::{CreationPolicy, MergePolicy, Reason, Template, TemplateTarget, annotation};

use crate::{
    Failure,
    collect::Collected,
    fingerprint::FingerprintKey,
    plan::{self, Input},
    remote::{Requeue, SecretValue},
    spec,
    template::{self, Budget, Values},
    text::excerpt,
};

/// Maximum size of a Secret's data that the API server accepts, in bytes.
pub const MAX_SECRET_BYTES: usize = 1024 * 1024;

/// The Secret that lockstep writes.
#[derive(Debug, Clone)]
pub struct DesiredSecret {
    /// The name of the Secret.
    pub name: String,
    /// The type. `None` lets the API server set its default, `Opaque`.
    pub secret_type: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The values by key.
    pub data: BTreeMap<String, SecretValue>,
    /// The keys that only `templateFrom` made, possibly from values.
    pub templated_keys: BTreeSet<String>,
    /// Whether the Secret is immutable.
    pub immutable: bool,
    /// Whether lockstep owns the Secret or merges into it.
    pub creation_policy: CreationPolicy,
}

impl DesiredSecret {
    /// An empty merge: removes everything that lockstep merged into someone else's Secret.
    pub fn nothing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            secret_type: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            data: BTreeMap::new(),
            templated_keys: BTreeSet::new(),
            immutable: false,
            creation_policy: CreationPolicy::Merge,
        }
    }

    /// Whether it is an empty merge.
    pub fn is_nothing(&self) -> bool {
        self.data.is_empty() && self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// The format of the fingerprint's inputs. Raise it when the same inputs produce another Secret
/// than before: then every Secret is written once after the upgrade.
const FORMAT: &[u8] = b"1";

/// Computes a hash of every input of the Secret, which changes when any input changes. It runs no
/// template, so a salted function is not a change. It decrypts nothing: it hashes the ciphertext.
pub fn fingerprint(input: &Input<'_>, collected: &Collected, key: &FingerprintKey) -> String {
    let mut all = key.hash("fingerprint");
    all.field(FORMAT)
        .field(input.namespace.as_bytes())
        .field(input.name.as_bytes())
        .field(input.uid.as_bytes())
        .field(&erased::Json::bytes(&input.spec.target));
    if collected.sealed.is_empty() && collected.leased.is_none() {
        all.values(&collected.values);
        return all.finish(64);
    }
    let leased = collected.leased.as_ref().and_then(|leased| leased.keys.as_ref());
    let read: BTreeMap<_, _> = collected
        .values
        .iter()
        .filter(|(name, _)| !collected.sealed.contains_key(*name))
        .filter(|(name, _)| leased.is_none_or(|leased| !leased.contains(*name)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    all.values(&read);
    for (name, sealed) in &collected.sealed {
        all.field(name.as_bytes())
            .field(sealed.text.as_bytes())
            .field(&erased::Json::bytes(&sealed.strategy));
    }
    // a credential cannot be read again, so its lease id is hashed
    if let Some(leased) = &collected.leased {
        all.field(b"lease")
            .field(leased.lease.as_deref().unwrap_or_default().as_bytes())
            .field(&erased::Json::bytes(&leased.rewrite));
    }
    all.finish(64)
}

pub(crate) mod erased {
    /// A value that serde can write as JSON, as an object-safe trait.
    pub(crate) trait Json {
        fn bytes(&self) -> Vec<u8>;
    }

    impl<T: serde::Serialize> Json for T {
        fn bytes(&self) -> Vec<u8> {
            serde_json::to_vec(self).unwrap_or_default()
        }
    }
}

/// Builds the Secret.
///
/// # Errors
/// When a template fails, Kubernetes does not allow a key, or the Secret is too large. `Internal`
/// if a ciphertext was not decrypted.
pub fn assemble(input: &Input<'_>, collected: &Collected) -> Result<DesiredSecret, Failure> {
    if collected
        .sealed
        .keys()
        .any(|key| !collected.values.contains_key(key))
    {
        let message =
            "internal error: a ciphertext was not decrypted before the Secret was built. Report this bug";
        return Err(Failure::new(Reason::Internal, message).requeued(Requeue::LongBackoff));
    }
    if collected
        .leased
        .as_ref()
        .is_some_and(|leased| leased.keys.is_none())
    {
        let message = "internal error: the credential of dataFrom[].generate was not issued before the Secret was built. Report this bug";
        return Err(Failure::new(Reason::Internal, message).requeued(Requeue::LongBackoff));
    }
    let target = &input.spec.target;
    let default = Template::default();
    let template = target.template.as_ref().unwrap_or(&default);
    let mut secret = DesiredSecret {
        name: input.target_name().to_owned(),
        secret_type: template.secret_type.clone(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        data: BTreeMap::new(),
        templated_keys: BTreeSet::new(),
        immutable: target.immutable,
        creation_policy: target.creation_policy,
    };
    let budget = Budget::begin();
    let named: BTreeSet<String> = spec::secret_keys(input.spec).map(str::to_owned).collect();
    let values = Values::from(&collected.values).naming(&named);
    render_metadata(template, values, budget, &mut secret)?;
    if !renders_data(template) || template.merge_policy == MergePolicy::Merge {
        secret.data.clone_from(&collected.values);
    }
    let read: BTreeSet<String> = secret.data.keys().cloned().collect();
    render_data(template, values, budget, &mut secret)?;
    secret
        .templated_keys
        .retain(|key| !read.contains(key) && !template.data.contains_key(key));
    secret.labels.insert(
        annotation::MANAGED_BY_LABEL.to_owned(),
        annotation::MANAGER.to_owned(),
    );
    secret
        .annotations
        .insert(annotation::OWNER.to_owned(), input.name.to_owned());
    check(input, &secret)?;
    Ok(secret)
}

fn failed(place: &str, error: &template::TemplateError) -> Failure {
    Failure::new(Reason::TemplateFailed, format!("{place} {error}"))
}

fn render_value(text: &str, values: Values<'_>, budget: Budget, place: &str) -> Result<SecretValue, Failure> {
    budget
        .check()
        .and_then(|()| template::render(text, values))
        .map_err(|error| failed(place, &error))
}

fn render_text(text: &str, values: Values<'_>, budget: Budget, place: &str) -> Result<String, Failure> {
    let value = render_value(text, values, budget, place)?;
    value.expose_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(
            Reason::TemplateFailed,
            format!("{place}: the output is not text. Labels and annotations must be text"),
        )
    })
}

fn render_metadata(
    template: &Template,
    values: Values<'_>,
    budget: Budget,
    secret: &mut DesiredSecret,
) -> Result<(), Failure> {
    if let Some(metadata) = &template.metadata {
        for (key, text) in &metadata.labels {
            let place = format!("target.template.metadata.labels[\"{key}\"]");
            secret
                .labels
                .insert(key.clone(), render_text(text, values, budget, &place)?);
        }
        for (key, text) in &metadata.annotations {
            let place = format!("target.template.metadata.annotations[\"{key}\"]");
            secret
                .annotations
                .insert(key.clone(), render_text(text, values, budget, &place)?);
        }
    }
    Ok(())
}

/// Whether the template sets keys of the Secret.
fn renders_data(template: &Template) -> bool {
    !template.data.is_empty()
        || template
            .template_from
            .iter()
            .any(|from| from.target == TemplateTarget::Data)
}

fn render_data(
    template: &Template,
    values: Values<'_>,
    budget: Budget,
    secret: &mut DesiredSecret,
) -> Result<(), Failure> {
    for (index, from) in template.template_from.iter().enumerate() {
        let place = format!("target.template.templateFrom[{index}].literal");
        let rendered = budget
            .check()
            .and_then(|()| template::render_map(&from.literal, values))
            .map_err(|error| failed(&place, &error))?;
        for (key, value) in rendered {
            let text = || {
                value.expose_str().map(str::to_owned).ok_or_else(|| {
                    Failure::new(
                        Reason::TemplateFailed,
                        format!("{place}: the output is not text. Labels and annotations must be text"),
                    )
                })
            };
            match from.target {
                TemplateTarget::Data => {
                    secret.templated_keys.insert(key.clone());
                    secret.data.insert(key, value);
                }
                target => {
                    if key
                        .split_once('/')
                        .is_some_and(|(prefix, _)| plan::is_reserved_prefix(prefix))
                    {
                        return Err(Failure::new(
                            Reason::TemplateFailed,
                            format!(
                                "{place}: keys under lockstep.dev are reserved for lockstep. Use another key"
                            ),
                        ));
                    }
                    let map = if target == TemplateTarget::Labels {
                        &mut secret.labels
                    } else {
                        &mut secret.annotations
                    };
                    map.insert(key, text()?);
                }
            }
        }
    }
    for (key, text) in &template.data {
        let place = format!("target.template.data[\"{key}\"]");
        let value = render_value(text, values, budget, &place)?;
        secret.data.insert(key.clone(), value);
    }
    Ok(())
}

fn check(input: &Input<'_>, secret: &DesiredSecret) -> Result<(), Failure> {
    for key in secret.data.keys() {
        if !is_valid_key(key) {
            // names of properties can be secret too
            let which = if spec::is_key_named(input.spec, key) {
                format!("\"{}\"", excerpt(key))
            } else {
                "a key of dataFrom".to_owned()
            };
            return Err(Failure::new(
                Reason::InvalidKey,
                format!(
                    "{which} is not a valid key of a Secret. Use at most 253 letters, digits, \"-\", \"_\" and \".\". dataFrom[].rewrite renames keys"
                ),
            ));
        }
    }
    for (key, value) in &secret.labels {
        if !is_valid_label(value) {
            // templateFrom can make a key from a value
            let which = if is_named_label(input, key) {
                format!("the label \"{}\"", excerpt(key))
            } else {
                "a label of target.template.templateFrom".to_owned()
            };
            let message = format!("{which}: its value is not valid for a label in Kubernetes");
            return Err(Failure::new(Reason::TemplateFailed, message));
        }
    }
    let size: usize = secret
        .data
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if size > MAX_SECRET_BYTES {
        return Err(Failure::new(
            Reason::TooLarge,
            // the size could reveal the length of a value
            format!("the Secret is too large. Kubernetes allows {MAX_SECRET_BYTES} bytes"),
        ));
    }
    Ok(())
}

/// Whether `target.template.metadata` names the label.
fn is_named_label(input: &Input<'_>, key: &str) -> bool {
    let template = input.spec.target.template.as_ref();
    let metadata = template.and_then(|template| template.metadata.as_ref());
    metadata.is_some_and(|metadata| metadata.labels.contains_key(key))
}

/// Whether Kubernetes accepts the name as a key of a Secret.
pub fn is_valid_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 253
        && key != "."
        && !key.starts_with("..")
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_valid_label(value: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
