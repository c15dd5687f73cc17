//! Extracts properties from remote values that are JSON.
//!
//! Numbers keep their text: `1.10` stays `1.10`, and integers of any size stay exact.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt,
    rc::Rc,
};

use serde_json::value::RawValue;

use crate::remote::SecretValue;

/// Maximum number of fields and indexes in a path.
pub const MAX_SEGMENTS: usize = 64;

/// The error of [`extract`] and [`fields`]. It never contains a value, or a field that the user did
/// not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// The value is not JSON.
    #[error("the value is not JSON, so it has no properties")]
    NotJson,
    /// The value is a JSON string, number or boolean (for [`fields`]: anything but an object).
    #[error("the value is JSON, but not an object, so it has no properties")]
    NotObject,
    /// The path does not exist, or its value is `null`.
    #[error("it has no such property; it has {}", count(*properties))]
    Missing {
        /// The number of fields or elements of the whole value.
        properties: usize,
    },
    /// The path has more than [`MAX_SEGMENTS`] fields and indexes.
    #[error("the path has more than {MAX_SEGMENTS} fields and indexes")]
    PathTooDeep,
}

fn count(properties: usize) -> String {
    if properties == 1 {
        "1 property".to_owned()
    } else {
        format!("{properties} properties")
    }
}

/// Returns the property of a JSON value at `path`. See [`Document::extract`].
///
/// # Errors
///
/// See [`PropertyError`].
pub fn extract(value: &SecretValue, path: &str) -> Result<SecretValue, PropertyError> {
    Document::new(value).extract(path)
}

/// Returns every field of a JSON object. See [`Document::fields`].
///
/// # Errors
///
/// See [`PropertyError`].
pub fn fields(
    value: &SecretValue,
    path: Option<&str>,
) -> Result<BTreeMap<String, SecretValue>, PropertyError> {
    Document::new(value).fields(path)
}

/// A JSON value. Each of its parts is parsed once, for any number of properties.
pub struct Document<'a> {
    value: &'a SecretValue,
    /// The parsed nodes, by the address where their text begins.
    nodes: RefCell<HashMap<usize, Rc<Node<'a>>>>,
    whole: RefCell<Option<Result<&'a RawValue, PropertyError>>>,
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({:?})", self.value)
    }
}

impl<'a> Document<'a> {
    /// Wraps a value without parsing it.
    pub fn new(value: &'a SecretValue) -> Self {
        Self {
            value,
            nodes: RefCell::default(),
            whole: RefCell::default(),
        }
    }

    /// Returns the property at `path`.
    ///
    /// A field named like the whole path has priority: `a.b` finds the field `a.b` before the field
    /// `b` in `a`. Otherwise the path consists of field names and indexes joined by dots, as in
    /// External Secrets Operator: `a.b.0.c`, `items.1`. Write `\.` for a dot and `\\` for a
    /// backslash in a name. If several fields have the same name, the last one is used.
    ///
    /// A string yields its text. A number or boolean yields its JSON text, unchanged. An object or
    /// array yields its JSON without white space. `null` counts as missing.
    ///
    /// # Errors
    ///
    /// See [`PropertyError`].
    pub fn extract(&self, path: &str) -> Result<SecretValue, PropertyError> {
        text(self.find(path)?)
    }

    /// Returns every field of the object at `path`, or of the value itself. Fields that are `null`
    /// are left out.
    ///
    /// # Errors
    ///
    /// See [`Document::extract`]. [`PropertyError::NotObject`] if the value at the path is not an
    /// object.
    pub fn fields(&self, path: Option<&str>) -> Result<BTreeMap<String, SecretValue>, PropertyError> {
        let raw = match path {
            Some(path) => self.find(path)?,
            None => self.whole()?,
        };
        let node = self.node(raw)?;
        let Node::Object(object) = node.as_ref() else {
            return Err(PropertyError::NotObject);
        };
        object
            .iter()
            .filter(|(_, field)| field.get() != "null")
            .map(|(name, field)| Ok((name.clone().into_owned(), text(field)?)))
            .collect()
    }

    fn whole(&self) -> Result<&'a RawValue, PropertyError> {
        *self.whole.borrow_mut().get_or_insert_with(|| whole(self.value))
    }

    fn node(&self, raw: &'a RawValue) -> Result<Rc<Node<'a>>, PropertyError> {
        let begin = raw.get().as_ptr().addr();
        if let Some(node) = self.nodes.borrow().get(&begin) {
            return Ok(Rc::clone(node));
        }
        let node = Rc::new(Node::of(raw)?);
        if !matches!(*node, Node::Scalar) {
            self.nodes.borrow_mut().insert(begin, Rc::clone(&node));
        }
        Ok(node)
    }

    fn find(&self, path: &str) -> Result<&'a RawValue, PropertyError> {
        let top = self.node(self.whole()?)?;
        if matches!(*top, Node::Scalar) {
            return Err(PropertyError::NotObject);
        }
        let missing = PropertyError::Missing {
            properties: top.len(),
        };
        let found = match top.as_ref() {
            Node::Object(object) if object.contains_key(path) => object.get(path).copied(),
            _ => self.walk(&top, path)?,
        };
        found.filter(|raw| raw.get() != "null").ok_or(missing)
    }

    fn walk(&self, top: &Node<'a>, path: &str) -> Result<Option<&'a RawValue>, PropertyError> {
        let segments = segments(path);
        if segments.len() > MAX_SEGMENTS {
            return Err(PropertyError::PathTooDeep);
        }
        let mut segments = segments.iter();
        let mut found = segments.next().and_then(|first| top.child(first));
        for segment in segments {
            let Some(raw) = found else { return Ok(None) };
            found = self.node(raw)?.child(segment);
        }
        Ok(found)
    }
}

/// Returns every field of a JSON object as compact JSON, including `null`.
pub(crate) fn raw_fields(value: &SecretValue) -> Result<BTreeMap<String, SecretValue>, PropertyError> {
    let Node::Object(object) = Node::of(whole(value)?)? else {
        return Err(PropertyError::NotObject);
    };
    Ok(object
        .into_iter()
        .map(|(name, raw)| (name.into_owned(), SecretValue::new(compact(raw.get()))))
        .collect())
}

type Object<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

enum Node<'a> {
    Object(Object<'a>),
    Array(Vec<&'a RawValue>),
    Scalar,
}

impl<'a> Node<'a> {
    fn of(raw: &'a RawValue) -> Result<Self, PropertyError> {
        let json = raw.get();
        let node = match json.as_bytes().first() {
            Some(b'{') => {
                let names: BTreeMap<Name<'a>, &'a RawValue> =
                    serde_json::from_str(json).map_err(|_| PropertyError::NotJson)?;
                Self::Object(names.into_iter().map(|(name, field)| (name.0, field)).collect())
            }
            Some(b'[') => Self::Array(serde_json::from_str(json).map_err(|_| PropertyError::NotJson)?),
            _ => Self::Scalar,
        };
        Ok(node)
    }

    fn child(&self, name: &str) -> Option<&'a RawValue> {
        match self {
            Self::Object(object) => object.get(name).copied(),
            Self::Array(array) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                array.get(name.parse::<usize>().ok()?).copied()
            }
            Self::Array(_) | Self::Scalar => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Object(object) => object.len(),
            Self::Array(array) => array.len(),
            Self::Scalar => 0,
        }
    }
}

/// A field name, borrowed unless it contains an escape.
#[derive(PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

fn whole(value: &SecretValue) -> Result<&RawValue, PropertyError> {
    let json = value.expose_str().ok_or(PropertyError::NotJson)?;
    serde_json::from_str(json).map_err(|_| PropertyError::NotJson)
}

fn segments(path: &str) -> Vec<String> {
    let mut segments = vec![];
    let mut segment = String::new();
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => segment.push(characters.next().unwrap_or('\\')),
            '.' => segments.push(std::mem::take(&mut segment)),
            other => segment.push(other),
        }
    }
    segments.push(segment);
    segments
}

fn text(raw: &RawValue) -> Result<SecretValue, PropertyError> {
    let json = raw.get();
    match json.as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(json).map_err(|_| PropertyError::NotJson)?;
            Ok(SecretValue::from(text))
        }
        Some(b'{' | b'[') => Ok(SecretValue::new(compact(json))),
        _ => Ok(SecretValue::from(json)),
    }
}

/// Removes the white space between the parts of JSON text.
fn compact(json: &str) -> Vec<u8> {
    let mut compact = Vec::with_capacity(json.len());
    let mut in_string = false;
    let mut escaped = false;
    for byte in json.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        compact.push(byte);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_does_not_change_strings() {
        assert_eq!(
            compact(r#"{ "a \" b" : [ 1 , "c  d\\" ] }"#),
            br#"{"a \" b":[1,"c  d\\"]}"#
        );
    }

    #[test]
    fn backslash_escapes_a_dot_and_itself() {
        assert_eq!(segments(r"a\.b.c\\d.e\"), ["a.b", r"c\d", r"e\"]);
    }
}
