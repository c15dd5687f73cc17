//! The reference of the fields, from the schemas of the CustomResourceDefinitions.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Returns the sections of all fields below one field of a kind: a heading for each object, and an
/// entry for each field in it.
pub(super) fn sections(kind: &str, part: &str) -> String {
    let mut page = String::new();
    if let Some(schema) = schema(kind, part) {
        section(&mut page, part, &schema);
    }
    page
}

/// Returns the names of the fields directly below one field of a kind.
#[cfg(test)]
pub(super) fn names(kind: &str, part: &str) -> Vec<String> {
    let schema = schema(kind, part).unwrap_or_default();
    properties(&schema).map_or_else(Vec::new, |fields| fields.keys().cloned().collect())
}

/// Returns the schema of one field of a kind.
fn schema(kind: &str, part: &str) -> Option<Value> {
    let crd = lockstep_api::crd::all()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)?;
    let schema = crd.spec.versions.into_iter().next()?.schema?.open_api_v3_schema?;
    let fields = serde_json::to_value(schema.properties?).ok()?;
    fields.get(part).cloned()
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}

/// Writes the fields of an object, then the objects in it.
fn section(page: &mut String, path: &str, schema: &Value) {
    let Some(fields) = properties(schema) else { return };
    // writing to a String cannot fail
    let _ = writeln!(page, "## `{path}`\n");
    if let Some(description) = description(schema) {
        let _ = writeln!(page, "{description}\n");
    }
    for rule in array(schema, "x-kubernetes-validations") {
        if let Some(message) = rule.get("message").and_then(Value::as_str) {
            let _ = writeln!(page, "- Validation: {}", inline(message));
        }
    }
    let required: Vec<_> = array(schema, "required").filter_map(Value::as_str).collect();
    for (name, field) in fields {
        let facts = facts(field, required.contains(&name.as_str()));
        let (path, inner) = inside(path, name, field);
        let name = match properties(inner) {
            Some(_) => format!("[**`{name}`**](#{})", anchor(&path)),
            None => format!("**`{name}`**"),
        };
        let _ = writeln!(page, "- {name} ({facts})");
        if let Some(description) = description(field) {
            let _ = writeln!(page, "{}", indented(&description));
        }
    }
    page.push('\n');
    for (name, field) in fields {
        let (path, inner) = inside(path, name, field);
        section(page, &path, inner);
    }
}

/// Returns the path and schema of the objects in a field.
fn inside<'a>(path: &str, name: &str, field: &'a Value) -> (String, &'a Value) {
    match (field.get("items"), field.get("additionalProperties")) {
        (Some(items), _) => (format!("{path}.{name}[]"), items),
        (None, Some(values)) => (format!("{path}.{name}.*"), values),
        (None, None) => (format!("{path}.{name}"), field),
    }
}

/// Returns the anchor that the heading of a section has in rendered Markdown.
pub(super) fn anchor(path: &str) -> String {
    let letters = path.chars().filter(|char| char.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// Returns what the schema states about a field, without its description.
fn facts(field: &Value, is_required: bool) -> String {
    let mut facts = vec![type_of(field)];
    if is_required {
        facts.push("required".to_owned());
    }
    if is_time(field) {
        // all times have the same pattern
        return facts.join("; ");
    }
    let default = field.get("default").filter(|default| !default.is_object());
    if let Some(default) = default {
        facts.push(format!("default `{}`", text(default)));
    }
    let values: Vec<_> = array(field, "enum")
        .filter(|value| !value.is_null())
        .map(|value| format!("`{}`", text(value)))
        .collect();
    if !values.is_empty() {
        facts.push(format!("one of {}", values.join(", ")));
    }
    for (key, words) in [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minLength", "length at least"),
        ("maxLength", "length at most"),
        ("minItems", "items at least"),
        ("maxItems", "items at most"),
        ("maxProperties", "entries at most"),
    ] {
        if let Some(bound) = field.get(key) {
            facts.push(format!("{words} {}", text(bound)));
        }
    }
    if let Some(pattern) = field.get("pattern") {
        facts.push(format!("pattern `{}`", text(pattern)));
    }
    facts.join("; ")
}

fn type_of(field: &Value) -> String {
    let name = field.get("type").and_then(Value::as_str).unwrap_or("any");
    match (name, field.get("items"), field.get("additionalProperties")) {
        ("array", Some(items), _) => format!("list of {}", type_of(items)),
        ("object", _, Some(values)) if values.is_object() => format!("map of {}", type_of(values)),
        (name, ..) if is_time(field) => format!("time ({name}, RFC 3339 in UTC)"),
        (name, ..) => name.to_owned(),
    }
}

fn is_time(field: &Value) -> bool {
    field.get("format").is_some_and(|format| format == "date-time")
}

fn array<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), |text| text.replace('|', "\\|"))
}

fn description(schema: &Value) -> Option<String> {
    let description = schema.get("description")?.as_str()?;
    Some(inline(description))
}

/// Keeps the text of a description from being read as HTML.
fn inline(text: &str) -> String {
    let mut in_code = false;
    text.chars()
        .map(|char| {
            in_code ^= char == '`';
            match char {
                '<' if !in_code => "&lt;".to_owned(),
                char => char.to_string(),
            }
        })
        .collect()
}

fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| {
        if line.is_empty() {
            String::new()
        } else {
            format!("  {line}")
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn field_has_type_bounds_default_and_description() {
        let schema = json!({
            "type": "object",
            "description": "Use a < b.",
            "required": ["name"],
            "x-kubernetes-validations": [{ "rule": "…", "message": "name needs size" }],
            "properties": {
                "name": { "type": "string", "maxLength": 63, "description": "name is it.\n\n- `a`: one" },
                "size": { "type": "array", "items": { "type": "object", "properties": {
                    "kind": { "type": "string", "enum": ["A", "B"], "default": "A" },
                    "time": { "type": "string", "format": "date-time", "pattern": "Z$" },
                } } },
            },
        });
        let mut page = String::new();
        section(&mut page, "spec", &schema);
        insta::assert_snapshot!(page, @r"
        ## `spec`

        Use a &lt; b.

        - Validation: name needs size
        - **`name`** (string; required; length at most 63)
          name is it.

          - `a`: one
        - [**`size`**](#specsize) (list of object)

        ## `spec.size[]`

        - **`kind`** (string; default `A`; one of `A`, `B`)
        - **`time`** (time (string, RFC 3339 in UTC))
        ");
    }

    #[test]
    fn every_kind_has_a_spec_and_a_status() {
        for kind in ["SyncedSecret", "SecretStore", "ClusterSecretStore"] {
            for part in ["spec", "status"] {
                assert!(sections(kind, part).contains(&format!("## `{part}`")), "{kind}");
            }
        }
    }
}
