//! Validates objects against the schema of the CRDs, as the API server does before it evaluates
//! rules: types, bounds and unknown fields.

use std::collections::{BTreeMap, HashMap};

use regex::Regex;
use serde_json::Value;

use super::yaml::shown;

/// Fields of an entry of `spec.data` that `lockstep seal` replaces: the value, or the path of a
/// file with the value. No CRD has them, so an API server rejects unsealed values.
pub(crate) const UNSEALED: [&str; 2] = ["plaintext", "plaintextFile"];
/// Maximum number of errors reported for one object.
const MAX_FAULTS: usize = 20;

/// Schemas of all kinds, with compiled patterns.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    by_kind: BTreeMap<String, Value>,
    patterns: HashMap<String, Regex>,
}

impl Schemas {
    /// Returns the schemas of the CRDs of this build.
    pub(crate) fn new() -> Self {
        let by_kind: BTreeMap<_, _> = lockstep_api::crd::all()
            .into_iter()
            .filter_map(|crd| {
                let schema = crd.spec.versions.into_iter().next()?.schema?.open_api_v3_schema?;
                Some((crd.spec.names.kind, serde_json::to_value(schema).ok()?))
            })
            .collect();
        let mut patterns = HashMap::new();
        for schema in by_kind.values() {
            collect_patterns(schema, &mut patterns);
        }
        Self { by_kind, patterns }
    }

    /// Returns what is wrong with an object, without quoting the values of fields.
    pub(crate) fn faults(&self, kind: &str, object: &Value) -> Vec<String> {
        let Some(schema) = self.by_kind.get(kind) else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        let fields = object.as_object();
        for field in fields.into_iter().flat_map(|fields| fields.keys()) {
            if !["apiVersion", "kind", "metadata", "spec"].contains(&field.as_str()) {
                faults.push(format!("{}: unknown field", shown(field)));
            }
        }
        match object.get("spec") {
            None => faults.push("spec: required".to_owned()),
            Some(spec) => self.check(&schema["properties"]["spec"], spec, "spec", &mut faults),
        }
        faults.truncate(MAX_FAULTS);
        faults
    }

    fn check(&self, schema: &Value, value: &Value, path: &str, faults: &mut Vec<String>) {
        if faults.len() > MAX_FAULTS {
            return;
        }
        if value.is_null() {
            // the API server drops a null where the field has a default, and rejects it elsewhere
            if schema["nullable"] != true && schema.get("default").is_none() {
                faults.push(format!(
                    "{path}: must not be empty. Set a value or remove the field"
                ));
            }
            return;
        }
        if schema["x-kubernetes-int-or-string"] == true {
            if !(value.is_string() || value.is_i64() || value.is_u64()) {
                faults.push(format!("{path}: must be a number or a string"));
            }
            return;
        }
        let (fits, wanted) = match schema["type"].as_str() {
            Some("object") => (value.is_object(), "a map"),
            Some("array") => (value.is_array(), "a list"),
            Some("string") => (value.is_string(), "a string (quote it)"),
            Some("boolean") => (value.is_boolean(), "true or false"),
            Some("integer") => (value.is_i64() || value.is_u64(), "an integer"),
            Some("number") => (value.is_number(), "a number"),
            _ => (true, ""),
        };
        if !fits {
            faults.push(format!("{path}: must be {wanted}"));
            return;
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path, faults),
            Value::Array(items) => {
                check_bounds(schema, "Items", items.len(), "entries", path, faults);
                for (index, item) in items.iter().enumerate() {
                    self.check(&schema["items"], item, &format!("{path}[{index}]"), faults);
                }
            }
            Value::String(text) => self.check_string(schema, text, path, faults),
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or_default();
                if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
                    faults.push(format!("{path}: must be at least {least}"));
                }
                if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
                    faults.push(format!("{path}: must be at most {most}"));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn object(
        &self,
        schema: &Value,
        fields: &serde_json::Map<String, Value>,
        path: &str,
        faults: &mut Vec<String>,
    ) {
        check_bounds(schema, "Properties", fields.len(), "fields", path, faults);
        for needed in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !fields.contains_key(needed) {
                faults.push(format!("{path}.{needed}: required"));
            }
        }
        for (name, value) in fields {
            let path = format!("{path}.{}", shown(name));
            if let Some(schema) = schema["properties"].get(name) {
                self.check(schema, value, &path, faults);
            } else if schema["additionalProperties"].is_object() {
                self.check(&schema["additionalProperties"], value, &path, faults);
            } else if is_unsealed(&path) {
                faults.push(format!(
                    "{path}: not sealed. Run lockstep seal to replace it with a ciphertext"
                ));
            } else if schema["x-kubernetes-preserve-unknown-fields"] != true {
                let known: Vec<_> = schema["properties"]
                    .as_object()
                    .into_iter()
                    .flat_map(|known| known.keys().map(String::as_str))
                    .collect();
                faults.push(format!(
                    "{path}: unknown field. Known fields: {}",
                    known.join(", ")
                ));
            }
        }
    }

    /// Checks the length, the allowed values and the pattern of a string.
    fn check_string(&self, schema: &Value, text: &str, path: &str, faults: &mut Vec<String>) {
        check_bounds(schema, "Length", text.chars().count(), "characters", path, faults);
        if let Some(allowed) = schema["enum"].as_array() {
            let allowed: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
            if !allowed.contains(&text) {
                faults.push(format!("{path}: must be one of {}", allowed.join(", ")));
            }
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            // A pattern that the regex crate cannot compile is missing here, and the value is rejected.
            let fits = self
                .patterns
                .get(pattern)
                .is_some_and(|pattern| pattern.is_match(text));
            if !fits {
                faults.push(format!("{path}: must match {pattern}"));
            }
        }
    }
}

/// Whether the path is a field of `spec.data` that `lockstep seal` replaces.
fn is_unsealed(path: &str) -> bool {
    path.strip_prefix("spec.data[")
        .and_then(|rest| rest.split_once("]."))
        .is_some_and(|(_, field)| UNSEALED.contains(&field))
}

fn collect_patterns(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    match schema {
        Value::Object(fields) => {
            if let Some(pattern) = fields.get("pattern").and_then(Value::as_str)
                && let Ok(regex) = Regex::new(pattern)
            {
                patterns.insert(pattern.to_owned(), regex);
            }
            fields
                .values()
                .for_each(|inner| collect_patterns(inner, patterns));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect_patterns(inner, patterns)),
        _ => {}
    }
}

fn check_bounds(schema: &Value, what: &str, count: usize, unit: &str, path: &str, faults: &mut Vec<String>) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    if let Some(least) = schema[format!("min{what}")]
        .as_u64()
        .filter(|least| count < *least)
    {
        faults.push(format!("{path}: must have at least {least} {unit}"));
    }
    if let Some(most) = schema[format!("max{what}")].as_u64().filter(|most| count > *most) {
        faults.push(format!(
            "{path}: must have at most {most} {unit}, but has {count}"
        ));
    }
}
