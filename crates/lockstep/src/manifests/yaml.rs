//! Splits a text into documents without trusting it. Sizes, depths and aliases are limited.
//! Ambiguous YAML (duplicate keys, tags) is an error. An error reports line, column and what is
//! expected. It never quotes the text, which could be a token or a private key that a link or a
//! wrong path led to.

use std::{cell::Cell, fmt};

use lockstep_core::yaml::{MAX_DEPTH, YamlError, check_depth};
use serde::{
    Deserializer,
    de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Maximum number of nodes in all documents of a text, with aliases expanded.
const MAX_NODES: usize = 2_000_000;
/// Maximum number of bytes in all scalars, with aliases expanded.
const MAX_SCALAR_BYTES: usize = 64 << 20;

const TWICE: &str = "duplicate key in the map that starts here";
const TOO_LARGE: &str = "too large once aliases (*name) are expanded";
/// Messages for the parser's errors. Its own messages are never shown, because they can contain a
/// value or a key.
const MEANINGS: [(&str, &str); 20] = [
    ("recursion limit exceeded", "nested too deeply"),
    ("repetition limit exceeded", TOO_LARGE),
    (
        "unknown anchor",
        "an alias (*name) has no anchor (&name) in its document",
    ),
    (
        "did not find expected ',' or ']'",
        "not YAML: expected ',' or ']'",
    ),
    (
        "did not find expected ',' or '}'",
        "not YAML: expected ',' or '}'",
    ),
    (
        "did not find expected '-' indicator",
        "not YAML: expected '-'. Check the indentation",
    ),
    (
        "did not find expected key",
        "not YAML: expected a key. Check the indentation",
    ),
    ("did not find expected node content", "not YAML: expected a value"),
    (
        "could not find expected ':'",
        "not YAML: expected ':' after a key",
    ),
    (
        "mapping values are not allowed",
        "not YAML: unexpected ':'. Quote a string that contains \": \"",
    ),
    (
        "mapping keys are not allowed",
        "not YAML: unexpected '?'. Quote the string",
    ),
    (
        "block sequence entries are not allowed",
        "not YAML: unexpected '-'. Check the indentation",
    ),
    ("tab character", "not YAML: expected spaces instead of a tab"),
    (
        "cannot start any token",
        "not YAML: a string cannot start with this character. Quote it",
    ),
    ("unexpected end of stream", "not YAML: expected a closing quote"),
    (
        "unexpected document indicator",
        "not YAML: expected a closing quote before the next document",
    ),
    (
        "unknown escape character",
        "not YAML: invalid escape in double quotes",
    ),
    ("hexadecimal number", "not YAML: invalid escape in double quotes"),
    (
        "control characters",
        "not YAML: control characters are not allowed",
    ),
    // serde's error for a tag such as !!int before a text
    ("invalid ", "a value does not match its tag (!!name)"),
];

/// One document of a text.
#[derive(Debug)]
pub(crate) struct Document {
    /// Line of the text at which the document starts, starting at 1.
    pub(crate) line: usize,
    /// Content, or why it cannot be parsed: position and expectation, without quoting the text.
    pub(crate) value: Result<Value, String>,
}

/// How much may still be read, and why reading stopped.
#[derive(Debug)]
struct Budget {
    nodes: Cell<usize>,
    bytes: Cell<usize>,
    fault: Cell<Option<&'static str>>,
}

impl Budget {
    /// Stops reading. The message bypasses the parser, which would add the path with its keys.
    fn refuse<E: de::Error>(&self, fault: &'static str) -> E {
        self.fault.set(Some(fault));
        E::custom(fault)
    }

    fn take<E: de::Error>(&self, bytes: usize) -> Result<(), E> {
        let (nodes, left) = (
            self.nodes.get().checked_sub(1),
            self.bytes.get().checked_sub(bytes),
        );
        let (Some(nodes), Some(left)) = (nodes, left) else {
            return Err(self.refuse(TOO_LARGE));
        };
        self.nodes.set(nodes);
        self.bytes.set(left);
        Ok(())
    }
}

/// Returns the non-empty documents of a YAML or JSON text.
pub(crate) fn documents(text: &str) -> Vec<Document> {
    let budget = Budget {
        nodes: Cell::new(MAX_NODES),
        bytes: Cell::new(MAX_SCALAR_BYTES),
        fault: Cell::new(None),
    };
    split(text)
        .into_iter()
        .map(|(line, text)| Document {
            line,
            value: parse(&text, line, &budget),
        })
        .filter(|document| !matches!(document.value, Ok(Value::Null)))
        .collect()
}

/// Splits a text into documents, at lines that start with `---` or `...`. A document starts at its
/// first line that is neither empty nor a comment.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut documents = Vec::new();
    let mut current = String::new();
    let mut first = None;
    for (index, whole) in text.split_inclusive('\n').enumerate() {
        // the value of a block scalar depends on whether its last line ends with a line break
        let (line, end) = match whole.strip_suffix('\n') {
            Some(line) => (line.strip_suffix('\r').unwrap_or(line), "\n"),
            None => (whole, ""),
        };
        let marker = |marker: &str| {
            line.strip_prefix(marker)
                .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
        };
        let rest = marker("---").or_else(|| marker("..."));
        if let Some(rest) = rest {
            finish(&mut documents, &mut current, &mut first);
            if has_content(rest) {
                first = Some(index + 1);
                current.push_str("   ");
                current.push_str(rest);
                current.push_str(end);
            }
            continue;
        }
        // skip directives, which precede their document and have no effect here
        if first.is_none() && (line.starts_with('%') || !has_content(line)) {
            continue;
        }
        first.get_or_insert(index + 1);
        current.push_str(line);
        current.push_str(end);
    }
    finish(&mut documents, &mut current, &mut first);
    documents
}

fn finish(documents: &mut Vec<(usize, String)>, current: &mut String, first: &mut Option<usize>) {
    if let Some(line) = first.take() {
        documents.push((line, std::mem::take(current)));
    }
    current.clear();
}

fn has_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

fn parse(text: &str, first_line: usize, budget: &Budget) -> Result<Value, String> {
    check_depth(text).map_err(|(error, line)| {
        let line = first_line + line.saturating_sub(1);
        match error {
            YamlError::TooDeep => format!("line {line}: nested more than {MAX_DEPTH} levels deep"),
            _ => format!("line {line}: not YAML"),
        }
    })?;
    let seed = Node { budget };
    seed.deserialize(serde_yaml_ng::Deserializer::from_str(text))
        .map_err(|error| {
            let fault = budget.fault.take().unwrap_or_else(|| explain(&error));
            match error.location() {
                Some(at) => {
                    let line = first_line + at.line().saturating_sub(1);
                    format!("line {line}, column {}: {fault}", at.column())
                }
                None => format!("line {first_line}: {fault}"),
            }
        })
}

fn explain(error: &serde_yaml_ng::Error) -> &'static str {
    let message = error.to_string();
    MEANINGS
        .iter()
        .find(|(part, _)| message.contains(part))
        .map_or("not YAML", |(_, meaning)| meaning)
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Node<'a> {
    budget: &'a Budget,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON supports")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.budget.take(0).map(|()| Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        self.budget.take(0).map(|()| value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.budget.take(0).map(|()| value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.budget.take(0).map(|()| value.into())
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a number that large is inexact in Kubernetes too"
    )]
    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a number that large is inexact in Kubernetes too"
    )]
    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        self.budget.take(0)?;
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| {
            self.budget
                .refuse("JSON does not support an infinite number or NaN")
        })
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        self.budget.take(value.len()).map(|()| value.into())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        self.budget.take(value.len()).map(|()| value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        self.budget.take(0)?;
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(self)? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.budget.take(0)?;
        let mut fields = Map::new();
        let mut merged = None;
        while let Some(key) = map.next_key_seed(self)? {
            let key = match key {
                Value::String(key) => key,
                Value::Bool(key) => key.to_string(),
                Value::Number(key) => key.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(self.budget.refuse("a key of a map must be a string"));
                }
            };
            let value = map.next_value_seed(self)?;
            if key == "<<" {
                if merged.replace(value).is_some() {
                    return Err(self.budget.refuse(TWICE));
                }
            } else if fields.contains_key(&key) {
                return Err(self.budget.refuse(TWICE));
            } else {
                fields.insert(key, value);
            }
        }
        merge(&mut fields, merged).map_err(|fault| self.budget.refuse(fault))?;
        Ok(fields.into())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        let fault = "a tag (!name) is not supported";
        Err(self.budget.refuse(fault))
    }
}

/// Applies YAML's merge key: adds the fields of other maps that the map itself does not set.
fn merge(fields: &mut Map<String, Value>, merged: Option<Value>) -> Result<(), &'static str> {
    let maps = match merged {
        None => return Ok(()),
        Some(Value::Array(maps)) => maps,
        Some(map) => vec![map],
    };
    for map in maps {
        let Value::Object(map) = map else {
            return Err("the merge key \"<<\" must be a map");
        };
        for (key, value) in map {
            fields.entry(key).or_insert(value);
        }
    }
    Ok(())
}

/// Returns a user-provided key, shortened for messages.
pub(crate) fn shown(key: &str) -> String {
    const LONGEST: usize = 100;
    let short: String = key.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if key.chars().nth(LONGEST).is_some() {
        format!("{short}…")
    } else {
        short
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;

    use super::*;

    fn values(text: &str) -> Vec<(usize, Value)> {
        documents(text)
            .into_iter()
            .map(|document| (document.line, document.value.unwrap()))
            .collect()
    }

    fn error(text: &str) -> String {
        let mut documents = documents(text);
        documents.pop().unwrap().value.unwrap_err()
    }

    #[test]
    fn documents_are_split_and_keep_their_line() {
        let text = "# first\n%YAML 1.2\n---\na: 1\n---\n# nothing\n---\n\nb: |\n  --- no marker\n---  { c: 3 }\n...\n";
        assert_eq!(
            values(text),
            [
                (4, json!({"a": 1})),
                (9, json!({"b": "--- no marker\n"})),
                (11, json!({"c": 3}))
            ]
        );
        assert_eq!(
            values("{\"a\": [1, null, \"x\"]}"),
            [(1, json!({"a": [1, null, "x"]}))]
        );
        assert!(values("\n# only a comment\n---\n").is_empty());
    }

    #[test]
    fn errors_report_the_line() {
        assert!(
            error("a: 1\n---\nb: 1\nc: [\n").starts_with("line "),
            "{}",
            error("a: 1\n---\nb: [\n")
        );
        assert_eq!(
            error("a: 1\n---\n\nx:\n  b: 1\n  b: 2\n"),
            "line 5, column 3: duplicate key in the map that starts here"
        );
        assert!(error("a: !secret x\n").contains("a tag"));
        assert!(error("a: *b\n").contains("alias"));
        assert!(error("a: .inf\n").contains("number"));
        assert!(
            error(&format!("{}1{}", "[".repeat(500), "]".repeat(500)))
                .contains("nested more than 128 levels deep")
        );
    }

    #[test]
    fn end_of_text_is_parsed_as_in_kubernetes() {
        for (text, value) in [
            ("a: |\n  x\n", "x\n"),
            ("a: |\n  x", "x"),
            ("a: |\r\n  x\r\n", "x\n"),
        ] {
            assert_eq!(values(text), [(1, json!({"a": value}))], "{text:?}");
        }
    }

    #[test]
    fn error_does_not_quote_the_text() {
        for text in [
            "CANARY: 1\nCANARY: 2\n",
            "CANARY:\n  a: &CANARY { b: 1, b: 2 }\n",
            "CANARY: { CANARY: [ { a: !CANARY x } ] }\n",
            "CANARY: *CANARY\n",
            "CANARY: .inf\n",
            "[CANARY]: 1\n",
            "CANARY: { <<: CANARY }\n",
            "CANARY: { <<: {}, <<: {} }\n",
            "CANARY: CANARY: CANARY\n",
            "CANARY\nCANARY: 1\n",
            "%CANARY CANARY\na: @CANARY\n",
            "CANARY: \"\\CANARY\"\n",
            "CANARY:\n\t- CANARY\n",
            "CANARY: !e!CANARY CANARY\n",
            "-----BEGIN CANARY-----\nCANARY:\n-----END CANARY-----\n",
            "a: !!int CANARY\n",
            "a: !!bool CANARY",
            "a: !!float CANARY",
            "a: !!null CANARY",
            "a: [ CANARY",
            "a: \"CANARY",
        ] {
            assert!(!error(text).contains("CANARY"), "{}", error(text));
            assert!(error(text).starts_with("line "), "{}", error(text));
        }
    }

    #[test]
    fn anchors_and_merge_keys_work_within_limits() {
        let text = "base: &base { x: 1, y: 2 }\nmore: { <<: *base, y: 3 }\n";
        assert_eq!(values(text)[0].1["more"], json!({"x": 1, "y": 3}));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            writeln!(bomb, "a{level}: &a{level} [{}]", vec![alias; 9].join(", ")).unwrap();
        }
        assert!(error(&bomb).contains("too large"), "{}", error(&bomb));
    }

    #[test]
    fn numbers_and_booleans_can_be_keys() {
        assert_eq!(values("1: a\ntrue: b\n")[0].1, json!({"1": "a", "true": "b"}));
    }
}
