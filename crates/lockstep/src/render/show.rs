//! Output of `lockstep render`: YAML, JSON and notes.

use std::fmt::{self, Write as _};

use lockstep_api::{Template, TemplateTarget};
use lockstep_controller::manifest::{Base64Data, Manifest};
use lockstep_core::{assemble::DesiredSecret, owner::Owner, plan::Plan, text};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use super::{
    pipeline::{self, Made, Rendered},
    written,
};
use crate::manifests::{Objects, Placed, Problem};

/// Serializes lengths instead of values. Lengths are masked too if the value is sealed or a
/// template can set it. The keys made by templates become one entry.
struct Masked<'a>(&'a Made, Option<&'a Template>);

impl Serialize for Masked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(Made { secret, sealed }, template) = self;
        let makes_keys = written::makes_keys(*template, TemplateTarget::Data);
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &secret.data {
            if makes_keys && secret.templated_keys.contains(key) {
                continue;
            }
            if sealed.contains(key) {
                map.serialize_entry(key, "●●●●●●●● (sealed)")?;
            } else if template.is_some_and(|template| template.data.contains_key(key)) {
                // a template chooses its length, and could spell a value with lengths
                map.serialize_entry(key, "●●●●●●●● (from a template)")?;
            } else if makes_keys {
                map.serialize_entry(key, written::MASK)?;
            } else {
                map.serialize_entry(key, &written::mask(value.len()))?;
            }
        }
        if makes_keys {
            map.serialize_entry(written::TEMPLATED_KEYS, written::MASK)?;
        }
        map.end()
    }
}

fn owner<'a>(placed: &'a Placed, secret: &'a DesiredSecret) -> Owner<'a> {
    Owner {
        object: &placed.object,
        namespace: &placed.namespace,
        name: &placed.name,
        target: &secret.name,
    }
}

/// Serializes the Secret, masked unless `show_values` is set.
fn serialize_secret<T, E: fmt::Display>(
    placed: &Placed,
    made: &Made,
    show_values: bool,
    all: impl FnOnce(&Manifest<'_, Base64Data<'_>>) -> Result<T, E>,
    masked: impl FnOnce(&Manifest<'_, Masked<'_>>) -> Result<T, E>,
) -> Result<T, String> {
    let owner = owner(placed, &made.secret);
    let text = if show_values {
        let data = Base64Data(&made.secret.data);
        all(&Manifest::new(&owner, &made.secret, None, data))
    } else {
        let template = placed.object.spec.target.template.as_ref();
        let secret = written::masked(&made.secret, template);
        masked(&Manifest::new(&owner, &secret, None, Masked(made, template)))
    };
    text.map_err(|error| error.to_string())
}

fn secret_yaml(placed: &Placed, made: &Made, show_values: bool) -> Result<String, String> {
    serialize_secret(
        placed,
        made,
        show_values,
        |manifest| serde_yaml_ng::to_string(manifest),
        |manifest| serde_yaml_ng::to_string(manifest),
    )
}

fn secret_json(placed: &Placed, made: &Made, show_values: bool) -> Result<Value, String> {
    serialize_secret(
        placed,
        made,
        show_values,
        |manifest| serde_json::to_value(manifest),
        |manifest| serde_json::to_value(manifest),
    )
}

/// Returns the Secrets as a YAML stream. Results other than Secrets become comments.
pub(super) fn yaml(objects: &Objects, all: &[Rendered], show_values: bool) -> Result<String, String> {
    let mut stream = String::new();
    for (placed, rendered) in objects.synced_secrets.iter().zip(all) {
        // a line break would end the comment
        let name = format!("SyncedSecret {}/{}", placed.namespace, placed.name);
        let name = text::escape(&name);
        match rendered {
            Rendered::Secret(made) => {
                let manifest = secret_yaml(placed, made, show_values)?;
                let _ = write!(stream, "---\n# {name}\n{manifest}");
            }
            Rendered::Sealed(_) => {
                let note = pipeline::note(placed, rendered, objects).unwrap_or_default();
                let _ = writeln!(stream, "---\n# {name}: {}", text::escape(&note));
            }
            Rendered::Gone => {
                let _ = writeln!(
                    stream,
                    "---\n# {name}: every source is gone, so the Secret is deleted"
                );
            }
            Rendered::Reads(plan) => {
                let _ = writeln!(stream, "---\n# {name} reads");
                for line in reads(plan) {
                    let _ = writeln!(stream, "#   {}", text::escape(&line));
                }
            }
            Rendered::Failed(_) => {}
        }
    }
    Ok(stream)
}

fn reads(plan: &Plan) -> Vec<String> {
    let read = plan.reads.iter().map(|read| {
        let key = &read.reference.key;
        let version = read
            .reference
            .version
            .as_ref()
            .map(|version| format!(", version {version:?}"));
        format!("{}: \"{key}\"{}", read.store, version.unwrap_or_default())
    });
    let find = plan.searches.iter().map(|search| {
        let query = &search.query;
        let path = query.path.as_ref().map(|path| format!(" below {path:?}"));
        let name = query.name.as_ref().map(|name| format!(" matching {name:?}"));
        let tags = query
            .tags
            .iter()
            .map(|(key, value)| format!(" with tag {key:?}: {value:?}"));
        let (path, name) = (path.unwrap_or_default(), name.unwrap_or_default());
        format!(
            "{}: all keys{path}{name}{}",
            search.store,
            tags.collect::<String>()
        )
    });
    let decrypt = plan.decryptions.iter().map(|decryption| {
        format!(
            "{}: the ciphertext of data[{}]",
            decryption.store, decryption.entry
        )
    });
    let generate = plan.generation.as_ref().map(|generation| {
        format!(
            "{}: a credential that the store issues at {:?} when the operator syncs, so nothing can be rendered",
            generation.store, generation.request.path
        )
    });
    read.chain(find).chain(decrypt).chain(generate).collect()
}

/// Returns one JSON document with all results.
pub(super) fn json(objects: &Objects, all: &[Rendered], show_values: bool) -> Result<String, String> {
    let mut results = Vec::new();
    for (placed, rendered) in objects.synced_secrets.iter().zip(all) {
        let mut result = placed.json();
        let (outcome, more) = match rendered {
            Rendered::Secret(made) => {
                let manifest = secret_json(placed, made, show_values)?;
                ("Secret", json!({ "secret": manifest }))
            }
            Rendered::Sealed(keys) => ("Sealed", json!({ "sealedKeys": keys })),
            Rendered::Gone => ("Gone", json!({})),
            Rendered::Reads(plan) => ("Reads", json!({ "reads": reads(plan) })),
            Rendered::Failed(failure) => (
                "Failed",
                json!({ "reason": failure.reason.to_string(), "message": failure.message }),
            ),
        };
        result["outcome"] = outcome.into();
        if let (Some(result), Value::Object(more)) = (result.as_object_mut(), more) {
            result.extend(more);
        }
        if let Some(note) = pipeline::note(placed, rendered, objects) {
            result["note"] = note.into();
        }
        results.push(result);
    }
    let document = json!({ "results": results, "problems": objects.problems });
    serde_json::to_string_pretty(&document)
        .map(|text| text + "\n")
        .map_err(|error| error.to_string())
}

/// Returns the errors and notes for standard error, one per line.
pub(super) fn errors_and_notes(objects: &Objects, all: &[Rendered]) -> Vec<String> {
    let mut lines: Vec<_> = objects.problems.iter().map(Problem::line).collect();
    for (placed, rendered) in objects.synced_secrets.iter().zip(all) {
        if let Rendered::Failed(failure) = rendered {
            lines.push(placed.failed(failure));
        } else if let Some(note) = pipeline::note(placed, rendered, objects) {
            lines.push(format!(
                "note: {}:{}: SyncedSecret {}/{}: {note}",
                placed.position.file, placed.position.line, placed.namespace, placed.name
            ));
        }
    }
    lines
}
