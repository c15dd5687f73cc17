//! Reads one YAML or JSON document. Each top-level field is a remote value.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
};

use lockstep_core::{
    property,
    yaml::{self, YamlError},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use super::{MOST_BYTES, path::shown};
use crate::{ErrorKind, Operation, ProviderError, SecretValue};

/// Maximum number of nodes of a YAML document after expanding its aliases. The administrator owns
/// the file, so it may be larger than what a tenant sends.
const MOST_NODES: usize = 250_000;

/// The format of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
}

impl Format {
    /// Detects the format from the file extension.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path.rsplit_once('.')?.1 {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Yaml => "YAML",
            Self::Json => "JSON",
        }
    }
}

/// One top-level field.
#[derive(Debug, Clone)]
pub(super) enum Field {
    /// A string as it is, a number or boolean as written, anything else as JSON.
    Value(SecretValue),
    /// A structure that contains a number which JSON output would change (`1.10`).
    Inexact,
}

/// The fields of a document. Fields with the value `null` are omitted.
pub(super) type Fields = BTreeMap<String, Field>;

/// Parses a document.
///
/// # Errors
/// `Malformed` with line and column, without any of the content.
pub(super) fn parse(
    bytes: &[u8],
    format: Format,
    path: &str,
    operation: Operation,
) -> Result<Fields, ProviderError> {
    let fields = match format {
        Format::Yaml => checked(bytes).and_then(|()| {
            yaml(bytes).map_err(|error| {
                error
                    .location()
                    .map(|location| (location.line(), location.column()))
            })
        }),
        Format::Json => json(bytes),
    };
    fields.map_err(|at| {
        let name = shown(path);
        let at = at.map_or_else(String::new, |(line, column)| {
            format!(" (line {line}, column {column})")
        });
        let message = format!(
            "\"{name}\" is not a {} document with fields at its top{at}",
            format.name()
        );
        ProviderError::new(ErrorKind::Malformed, operation, message)
    })
}

/// A position in a text: line and column.
type At = Option<(usize, usize)>;

fn json(bytes: &[u8]) -> Result<Fields, At> {
    let text = std::str::from_utf8(bytes).map_err(|error| Some(place(bytes, error.valid_up_to())))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| Some((error.line(), error.column())))?;
    let fields = property::fields(&SecretValue::new(bytes), None).map_err(|_| None)?;
    Ok(fields
        .into_iter()
        .map(|(name, value)| (name, Field::Value(value)))
        .collect())
}

fn place(bytes: &[u8], index: usize) -> (usize, usize) {
    let before = bytes.get(..index).unwrap_or_default();
    let lines = before.split(|byte| *byte == b'\n');
    lines.fold((0, 1), |(line, _), text| (line + 1, text.len() + 1))
}

/// Checks the size of a document with all aliases expanded, before expanding any.
fn checked(bytes: &[u8]) -> Result<(), At> {
    let text = std::str::from_utf8(bytes).map_err(|error| Some(place(bytes, error.valid_up_to())))?;
    let most = usize::try_from(MOST_BYTES).unwrap_or(usize::MAX);
    yaml::check_nodes(text, most, MOST_NODES).map_err(|error| match error {
        YamlError::Invalid { at } => at,
        YamlError::TooDeep | YamlError::TooLarge => None,
    })
}

fn yaml(bytes: &[u8]) -> Result<Fields, serde_yaml_ng::Error> {
    let mut parsed = Top::deserialize(serde_yaml_ng::Deserializer::from_slice(bytes))?.0;
    parsed.retain(|_, value| !value.is_null());
    let scalars: BTreeSet<_> = parsed
        .iter()
        .filter(|(_, value)| value.is_number() || value.is_boolean())
        .map(|(name, _)| name.clone())
        .collect();
    // a password like 0012 or 1.10 must not change: such fields are read again, as text
    let written = if scalars.is_empty() {
        BTreeMap::new()
    } else {
        InSync(&scalars).deserialize(serde_yaml_ng::Deserializer::from_slice(bytes))?
    };
    let mut fields: Fields = written
        .into_iter()
        .map(|(name, text)| (name, Field::Value(text.into())))
        .collect();
    for (name, value) in parsed {
        if let Entry::Vacant(entry) = fields.entry(name) {
            entry.insert(match value {
                Value::String(text) => Field::Value(text.into()),
                structure if is_inexact(&structure) => Field::Inexact,
                structure => Field::Value(structure.to_string().into()),
            });
        }
    }
    Ok(fields)
}

fn is_inexact(value: &Value) -> bool {
    match value {
        Value::Number(number) => !number.is_i64() && !number.is_u64(),
        Value::Array(items) => items.iter().any(is_inexact),
        Value::Object(fields) => fields.values().any(is_inexact),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// The top level of a YAML document. A duplicate field is an error, because it would be unclear
/// which one was meant.
struct Top(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Top;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value = map.next_value()?;
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom("a field is there twice"));
                    }
                }
                Ok(Top(fields))
            }
        }
        // a document that is empty at the moment is about to be written; it is not one without
        // fields
        deserializer.deserialize_any(Reader)
    }
}

/// Reads the given fields as the text that the document contains.
struct InSync<'a>(&'a BTreeSet<String>);

impl<'de> DeserializeSeed<'de> for InSync<'_> {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for InSync<'_> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if self.0.contains(&name) {
                fields.insert(name, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, format: Format) -> Result<Fields, ProviderError> {
        parse(text.as_bytes(), format, "shop/values", Operation::Read)
    }

    fn text(fields: &Fields, name: &str) -> String {
        match fields.get(name) {
            Some(Field::Value(value)) => value.expose_str().unwrap().to_owned(),
            Some(Field::Inexact) => "inexact".to_owned(),
            None => "missing".to_owned(),
        }
    }

    #[test]
    fn yaml_fields_stay_as_written() {
        let fields = read(
            "text: secret\nquoted: '1.10'\nnumber: 1.10\npin: 0012\nhex: 0x1F\ntruth: yes\nreal: True\nempty: ''\n\
             gone: ~\nvoid:\nlines: |\n  a\n  b\nanchor: &a 1_0\nalias: *a\nbig: 18446744073709551615\n7: seven\n",
            Format::Yaml,
        )
        .unwrap();
        for (name, expected) in [
            ("text", "secret"),
            ("quoted", "1.10"),
            ("number", "1.10"),
            ("pin", "0012"),
            ("hex", "0x1F"),
            ("truth", "yes"),
            ("real", "True"),
            ("empty", ""),
            ("gone", "missing"),
            ("void", "missing"),
            ("lines", "a\nb\n"),
            ("anchor", "1_0"),
            ("alias", "1_0"),
            ("big", "18446744073709551615"),
            ("7", "seven"),
        ] {
            assert_eq!(text(&fields, name), expected, "{name}");
        }
    }

    #[test]
    fn structures_become_json_without_changing_numbers() {
        let fields = read(
            "shop/database:\n  user: shop\n  port: 5432\nlist: [a, 1]\nrate:\n  deep: [{x: 1.10}]\n",
            Format::Yaml,
        )
        .unwrap();
        assert_eq!(text(&fields, "shop/database"), r#"{"port":5432,"user":"shop"}"#);
        assert_eq!(text(&fields, "list"), r#"["a",1]"#);
        assert_eq!(text(&fields, "rate"), "inexact");
    }

    #[test]
    fn json_fields_stay_as_written() {
        let fields = read(
            r#"{"text":"gr\u00f6\u00dfe \ud83d\udd11","number":1.10,"structure":{"a": [1.10]},"gone":null,"a/b":true}"#,
            Format::Json,
        )
        .unwrap();
        assert_eq!(text(&fields, "text"), "größe 🔑");
        assert_eq!(text(&fields, "number"), "1.10");
        assert_eq!(text(&fields, "structure"), r#"{"a":[1.10]}"#);
        assert_eq!(text(&fields, "gone"), "missing");
        assert_eq!(text(&fields, "a/b"), "true");
    }

    #[test]
    fn malformed_document_error_has_position_but_no_content() {
        for (document, format, at) in [
            ("a: CANARY\nb: [CANARY\n", Format::Yaml, Some("line")),
            ("a: CANARY\na: CANARY\n", Format::Yaml, None),
            ("a: CANARY\n---\nb: CANARY\n", Format::Yaml, None),
            ("a: !CANARY {b: CANARY}\n", Format::Yaml, None),
            ("a: *CANARY\n", Format::Yaml, Some("line 1, column 4")),
            ("CANARY", Format::Yaml, None),
            ("- CANARY", Format::Yaml, None),
            ("", Format::Yaml, None),
            ("# CANARY\n", Format::Yaml, None),
            ("---\n", Format::Yaml, None),
            ("~", Format::Yaml, None),
            ("\u{1}CANARY", Format::Yaml, None),
            (
                "{\n  \"a\": \"CANARY\",\n  CANARY}",
                Format::Json,
                Some("line 3, column 3"),
            ),
            ("{\"CANARY\": 1} CANARY", Format::Json, Some("line 1, column")),
            ("[\"CANARY\"]", Format::Json, None),
            ("\"CANARY\"", Format::Json, None),
            ("", Format::Json, Some("line 1")),
        ] {
            let error = read(document, format).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Malformed, "{document}");
            assert!(!error.to_string().contains("CANARY"), "{error}");
            assert!(error.message.starts_with("\"shop/values\" is not a "), "{error}");
            assert!(at.is_none_or(|at| error.message.contains(at)), "{error}");
        }
        let error = parse(b"{\n\"a\": \"\xff\"}", Format::Json, "a", Operation::Read).unwrap_err();
        assert!(error.message.contains("line 2, column 7"), "{error}");
        assert!(parse(b"a: \"\xff\"", Format::Yaml, "a", Operation::Read).is_err());
    }

    #[test]
    fn alias_bombs_are_rejected() {
        let first = "a0: &a0 [CANARY, CANARY]\n".to_owned();
        let bomb: String = std::iter::once(first)
            .chain((1..40).map(|index| format!("a{index}: &a{index} [*a{0}, *a{0}]\n", index - 1)))
            .collect();
        let error = read(&bomb, Format::Yaml).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed);
    }

    #[test]
    fn deeply_nested_documents_are_rejected_quickly() {
        let start = std::time::Instant::now();
        for depth in [200, yaml::MAX_DEPTH, 1 << 20] {
            let deep = format!("a: {}", "[".repeat(depth));
            assert_eq!(read(&deep, Format::Yaml).unwrap_err().kind, ErrorKind::Malformed);
            let deep = format!("{{\"a\": {}", "[".repeat(depth));
            assert_eq!(read(&deep, Format::Json).unwrap_err().kind, ErrorKind::Malformed);
        }
        assert!(start.elapsed().as_secs() < 10);
    }

    #[test]
    fn format_is_detected_from_the_extension() {
        assert_eq!(Format::of("a.yaml"), Some(Format::Yaml));
        assert_eq!(Format::of("a/b.yml"), Some(Format::Yaml));
        assert_eq!(Format::of("a.json"), Some(Format::Json));
        for path in ["a", "a.txt", "a.yaml/b", "a.json.bak", ""] {
            assert_eq!(Format::of(path), None, "{path}");
        }
    }
}
