//! Reads the parts of a kustomization that lockstep supports. Messages never quote it, because a
//! link can turn it into any other file.

use serde_json::{Map, Value};

use super::yaml;

/// File names of a kustomization, in the order in which kustomize looks for them.
pub(super) const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// Fields that do not change the resources.
const HARMLESS: [&str; 4] = ["apiVersion", "kind", "metadata", "resources"];
/// The other fields of kustomize. Messages name only fields in this list.
const IGNORED: [&str; 29] = [
    "bases",
    "buildMetadata",
    "commonAnnotations",
    "commonLabels",
    "components",
    "configMapGenerator",
    "configurations",
    "crds",
    "generatorOptions",
    "generators",
    "helmChartInflationGenerator",
    "helmCharts",
    "helmGlobals",
    "images",
    "labels",
    "namePrefix",
    "nameSuffix",
    "namespace",
    "openapi",
    "patches",
    "patchesJson6902",
    "patchesStrategicMerge",
    "replacements",
    "replicas",
    "secretGenerator",
    "sortOptions",
    "transformers",
    "validators",
    "vars",
];

/// The relevant content of a kustomization.
#[derive(Debug)]
pub(super) struct Kustomization {
    /// Entries of `resources`.
    pub(super) resources: Vec<String>,
    /// Fields that are set but ignored, as shown in messages.
    pub(super) ignored: Option<String>,
}

/// Parses a kustomization.
///
/// # Errors
/// Reports the position of the error and what is expected.
pub(super) fn parse(text: &str, name: &str) -> Result<Kustomization, String> {
    const WANTED: &str = "must be a map with the fields of a kustomization, such as resources";
    let mut documents = yaml::documents(text).into_iter();
    let Some(document) = documents.next() else {
        return Err(format!("{name}: {WANTED}"));
    };
    if let Some(second) = documents.next() {
        return Err(format!(
            "{name}:{}: a kustomization must be a single document",
            second.line
        ));
    }
    let line = document.line;
    match document.value {
        Ok(Value::Object(fields)) => Ok(Kustomization {
            resources: resources(&fields).map_err(|message| format!("{name}: {message}"))?,
            ignored: ignored(&fields),
        }),
        Ok(_) => Err(format!("{name}:{line}: {WANTED}")),
        Err(message) => Err(format!("{name}:{line}: {message}")),
    }
}

fn resources(fields: &Map<String, Value>) -> Result<Vec<String>, String> {
    let entries = match fields.get("resources") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err("resources must be a list of paths".to_owned()),
    };
    let path = |(index, entry): (usize, &Value)| {
        let path = entry.as_str().filter(|path| !path.is_empty());
        path.map(str::to_owned)
            .ok_or_else(|| format!("resources[{index}] must be a path"))
    };
    entries.iter().enumerate().map(path).collect()
}

fn ignored(fields: &Map<String, Value>) -> Option<String> {
    let known: Vec<_> = IGNORED
        .into_iter()
        .filter(|field| fields.contains_key(*field))
        .collect();
    let known = (!known.is_empty()).then(|| known.join(", "));
    let is_known = |field: &str| HARMLESS.contains(&field) || IGNORED.contains(&field);
    let others = fields.keys().any(|field| !is_known(field));
    let others = others.then_some("fields that kustomize does not have");
    match (known, others) {
        (Some(known), Some(others)) => Some(format!("{known} and {others}")),
        (known, others) => known.or(others.map(str::to_owned)),
    }
}
