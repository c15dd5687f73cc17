//! Converts the arguments of functions as Go and Sprig do.

use std::{borrow::Cow, collections::HashMap};

use gtmpl_ng::{NumberKind, Value};

use crate::template::session;

/// The result of a function. The error is a constant, so it cannot contain a value.
pub(super) type Outcome = Result<Value, &'static str>;

/// The fields of a dictionary.
pub(super) type Fields = HashMap<String, Value>;

/// Maximum size of a value that a function returns, in bytes.
pub(super) const MAX_VALUE: usize = super::super::limits::MAX_OUTPUT;

/// Maximum memory of the result of a function.
pub(super) const MAX_WEIGHT: usize = 4 << 20;

pub(super) const TOO_LARGE: &str = "the result would be larger than 1 MiB";
pub(super) const TOO_HEAVY: &str = "the result would have too many parts";
pub(super) const TOO_SLOW: &str = "it did not finish within the second that a template may take";
pub(super) const NOT_A_LIST: &str = "it takes a list";
pub(super) const NOT_A_DICT: &str = "it takes a dictionary";
pub(super) const NOT_A_NUMBER: &str = "it takes a number";

/// Converts a value to text as `%v` prints it.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Nil | Value::NoValue => Cow::Borrowed("<nil>"),
        other => Cow::Owned(other.to_string()),
    }
}

/// Returns text unless it is too long.
pub(super) fn bounded(text: String) -> Outcome {
    if text.len() > MAX_VALUE {
        Err(TOO_LARGE)
    } else {
        Ok(Value::String(text))
    }
}

pub(super) fn is_nil(value: &Value) -> bool {
    matches!(value, Value::Nil | Value::NoValue)
}

/// Whether Sprig treats a value as empty: absent, false, zero, or without content.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Nil | Value::NoValue => true,
        Value::Bool(truth) => !truth,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Map(fields) | Value::Object(fields) => fields.is_empty(),
        Value::Number(number) => match number.kind() {
            NumberKind::Signed(number) => number == 0,
            NumberKind::Unsigned(number) => number == 0,
            NumberKind::Float(number) => number == 0.0,
        },
        Value::Function(_) => false,
    }
}

pub(super) fn list(value: &Value) -> Result<&[Value], &'static str> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(NOT_A_LIST),
    }
}

pub(super) fn dict(value: &Value) -> Result<&Fields, &'static str> {
    match value {
        Value::Map(fields) | Value::Object(fields) => Ok(fields),
        _ => Err(NOT_A_DICT),
    }
}

/// Returns the fields of a dictionary sorted by name.
pub(super) fn sorted(fields: &Fields) -> Vec<(&String, &Value)> {
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    sorted
}

/// Converts a value to an integer. Fractions are truncated and text is parsed. Anything else is an
/// error.
pub(super) fn integer(value: &Value) -> Result<i64, &'static str> {
    match value {
        Value::Number(number) => match number.kind() {
            NumberKind::Signed(number) => Ok(number),
            NumberKind::Unsigned(number) => i64::try_from(number).map_err(|_| "the number is too large"),
            NumberKind::Float(number) => Ok(truncated(number)),
        },
        Value::Bool(truth) => Ok(i64::from(*truth)),
        Value::String(text) => parse_integer(text).ok_or(NOT_A_NUMBER),
        _ => Err(NOT_A_NUMBER),
    }
}

/// Parses a decimal integer, whose fraction may only contain zeros.
pub(super) fn parse_integer(text: &str) -> Option<i64> {
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    whole.parse().ok()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the fraction is dropped on purpose, and values out of range saturate"
)]
pub(super) fn truncated(number: f64) -> i64 {
    number as i64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Go converts integers to floats in the same way"
)]
pub(super) fn float(value: &Value) -> Result<f64, &'static str> {
    match value {
        Value::Number(number) => Ok(match number.kind() {
            NumberKind::Signed(number) => number as f64,
            NumberKind::Unsigned(number) => number as f64,
            NumberKind::Float(number) => number,
        }),
        Value::Bool(truth) => Ok(f64::from(u8::from(*truth))),
        Value::String(text) => text.trim().parse().map_err(|_| NOT_A_NUMBER),
        _ => Err(NOT_A_NUMBER),
    }
}

/// Converts a value to a count, which must not be negative.
pub(super) fn count(value: &Value) -> Result<usize, &'static str> {
    usize::try_from(integer(value)?).map_err(|_| "it takes a number that is not negative")
}

/// Returns a list of texts. Fails if it becomes too large or the deadline has passed.
pub(super) fn strings(texts: impl IntoIterator<Item = String>) -> Outcome {
    gathered(texts).map(|texts| Value::Array(texts.into_iter().map(Value::String).collect()))
}

/// Memory of a text in a list in addition to its bytes.
const TEXT_OVERHEAD: usize = 64;

/// Collects texts. Fails if they become too large or the deadline has passed. The deadline is
/// checked for each text, because the iterator may search for it.
pub(super) fn gathered(texts: impl IntoIterator<Item = String>) -> Result<Vec<String>, &'static str> {
    let (mut gathered, mut weight) = (vec![], 0_usize);
    for text in texts {
        weight += text.len() + TEXT_OVERHEAD;
        if weight > MAX_WEIGHT {
            return Err(TOO_HEAVY);
        }
        if session::is_late() {
            return Err(TOO_SLOW);
        }
        gathered.push(text);
    }
    Ok(gathered)
}
