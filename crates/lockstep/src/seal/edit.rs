//! Replaces one field of a text, and proves that nothing else changed.

use std::ops::Range;

use granit_parser::ScalarStyle;
use serde_json::Value;

use super::tree::{Kind, Node};
use crate::manifests::yaml;

/// Field that contains a ciphertext.
pub(super) const CIPHERTEXT: &str = "ciphertext";

/// A range of bytes and its replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) bytes: Range<usize>,
    pub(super) text: String,
}

/// The ranges of a field that is to be replaced with a ciphertext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Range of the key, without quotes.
    key: Range<usize>,
    /// Range that the ciphertext replaces, without quotes.
    value: Range<usize>,
    /// Range that is removed: the lines of a block scalar.
    gone: Range<usize>,
}

impl Slot {
    /// Returns the slot of a key and its value; `None` if one of them is not a scalar.
    pub(super) fn of(text: &str, key: &Node, value: &Node) -> Option<Self> {
        let key_bytes = match &key.kind {
            Kind::Scalar(_, style) => inner(text, &key.bytes, *style)?,
            _ => return None,
        };
        let Kind::Scalar(_, style) = &value.kind else {
            return None;
        };
        let nothing = value.bytes.end..value.bytes.end;
        let (value_bytes, gone) = match style {
            ScalarStyle::Literal | ScalarStyle::Folded => {
                let header = header(text, key.bytes.end..value.bytes.start)?;
                let gone = lines(text, header.end, &value.bytes)?;
                (header, gone)
            }
            style => (inner(text, &value.bytes, *style)?, nothing),
        };
        Some(Self {
            key: key_bytes,
            value: value_bytes,
            gone,
        })
    }

    /// Returns the changes that insert the ciphertext.
    pub(super) fn changes(&self, ciphertext: &str) -> [Change; 3] {
        let change = |bytes: &Range<usize>, text: &str| Change {
            bytes: bytes.clone(),
            text: text.to_owned(),
        };
        [
            change(&self.key, CIPHERTEXT),
            change(&self.value, ciphertext),
            change(&self.gone, ""),
        ]
    }
}

/// Returns the range of a flow scalar without its quotes.
fn inner(text: &str, bytes: &Range<usize>, style: ScalarStyle) -> Option<Range<usize>> {
    let written = text.get(bytes.clone())?;
    let quote = match style {
        ScalarStyle::Plain => return Some(bytes.clone()),
        ScalarStyle::SingleQuoted => '\'',
        ScalarStyle::DoubleQuoted => '"',
        ScalarStyle::Literal | ScalarStyle::Folded => return None,
    };
    let quoted = written.len() >= 2 && written.starts_with(quote) && written.ends_with(quote);
    quoted.then(|| bytes.start + 1..bytes.end - 1)
}

/// Returns the header of a block scalar, such as `|-`, between its key and its content. Comments
/// can precede it.
fn header(text: &str, between: Range<usize>) -> Option<Range<usize>> {
    let mut comment = false;
    let start = text.get(between.clone())?.char_indices().find(|(_, c)| {
        match c {
            '\n' | '\r' => comment = false,
            '#' => comment = true,
            _ => {}
        }
        !comment && matches!(c, '|' | '>')
    });
    let start = between.start + start?.0;
    let length = text
        .get(start + 1..)?
        .find(|c: char| !matches!(c, '+' | '-' | '0'..='9'))
        .unwrap_or(text.len() - start - 1);
    Some(start..start + 1 + length)
}

/// Returns the lines of a block scalar without the final line break. A comment next to the header
/// is not included.
fn lines(text: &str, header_end: usize, content: &Range<usize>) -> Option<Range<usize>> {
    let written = text.get(content.clone())?;
    // exclude the indentation of the next line
    let lines = written.rfind('\n').map_or(written, |end| {
        let (lines, rest) = written.split_at(end + 1);
        if rest.chars().all(|c| c == ' ') {
            lines
        } else {
            written
        }
    });
    let written = lines.trim_end_matches(['\r', '\n']);
    if written.is_empty() {
        return Some(content.start..content.start);
    }
    let beside = text.get(header_end..)?.find(['\r', '\n'])?;
    Some(header_end + beside..content.start + written.len())
}

/// Applies changes to a text. They must not overlap.
pub(super) fn apply(text: &str, mut changes: Vec<Change>) -> Option<String> {
    changes.sort_by_key(|change| (change.bytes.start, change.bytes.end));
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    for change in changes {
        result.push_str(text.get(at..change.bytes.start)?);
        result.push_str(&change.text);
        at = change.bytes.end;
    }
    result.push_str(text.get(at..)?);
    Some(result)
}

/// Whether a text contains exactly these documents.
pub(super) fn has_documents(text: &str, expected: &[Value]) -> bool {
    let documents = yaml::documents(text);
    documents.len() == expected.len()
        && documents
            .iter()
            .zip(expected)
            .all(|(document, expected)| document.value.as_ref().is_ok_and(|value| value == expected))
}

/// Replaces a field of an object with a ciphertext.
pub(super) fn replace(object: &mut Value, field: &str, ciphertext: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
        fields.insert(CIPHERTEXT.to_owned(), ciphertext.into());
    }
}
