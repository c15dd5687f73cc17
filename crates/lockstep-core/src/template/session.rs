//! The state that the functions of one render share. The engine calls plain `fn` pointers, so the
//! state is thread-local.

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap, time::Instant};

use gtmpl_ng::Value;

use super::limits::{DEADLINE, MAX_OUTPUT};

/// Maximum memory of the parts of one action, and of all values in variables and blocks.
pub(super) const MAX_HELD: usize = 16 << 20;
/// Memory of a value in addition to its text.
const VALUE_OVERHEAD: usize = 64;
/// Memory of a dictionary field in addition to its name and value.
const FIELD_OVERHEAD: usize = 48;

/// Starts the placeholder of a value that the engine cannot store as text. It is a noncharacter, so
/// ordinary values do not contain it. A value that does is treated as binary.
pub(super) const OPEN: char = '\u{10FFFE}';
const CLOSE: char = '\u{10FFFF}';

/// Why a function failed, without any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A function rejected its arguments.
    Refused {
        function: &'static str,
        why: &'static str,
    },
    /// A function was called with too few or too many arguments.
    Arguments {
        function: &'static str,
        least: usize,
        most: usize,
        given: usize,
    },
    /// An argument of a function does not exist.
    Missing { function: &'static str },
    /// A printed value does not exist.
    Printed,
    /// An argument of a text function is binary.
    Binary { function: &'static str },
    /// The values held at the same time exceed [`MAX_HELD`].
    Full,
}

#[derive(Default)]
struct Session {
    binaries: Vec<Vec<u8>>,
    binary_bytes: usize,
    fault: Option<Fault>,
    /// When the template must be finished.
    deadline: Option<Instant>,
    /// The memory of the parts of the current action.
    parts: usize,
    /// The memory of each variable and each open block.
    held: BTreeMap<usize, usize>,
}

thread_local! {
    static SESSION: RefCell<Session> = RefCell::default();
}

/// Guards the session of a render, which is cleared when the guard is dropped.
pub(super) struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        SESSION.with_borrow_mut(|session| *session = Session::default());
    }
}

/// Starts a render on this thread.
pub(super) fn begin() -> Guard {
    SESSION.with_borrow_mut(|session| {
        *session = Session {
            deadline: Instant::now().checked_add(DEADLINE),
            ..Session::default()
        };
    });
    Guard(())
}

/// Whether the template exceeded its time. Loops within functions check it, as the engine does
/// between functions.
pub(super) fn is_late() -> bool {
    SESSION.with_borrow(|session| {
        session
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    })
}

/// Estimates the memory of a value and stops counting above `most`.
pub(super) fn weight(value: &Value, most: usize) -> usize {
    let mut weight = 0_usize;
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        weight += VALUE_OVERHEAD;
        match value {
            Value::String(text) => weight += text.len(),
            Value::Array(items) => open.extend(items),
            Value::Map(fields) | Value::Object(fields) => {
                weight += fields
                    .keys()
                    .map(|name| name.len() + FIELD_OVERHEAD)
                    .sum::<usize>();
                open.extend(fields.values());
            }
            _ => {}
        }
        if weight > most {
            break;
        }
    }
    weight
}

/// Adds a value to the parts of the current action. Returns `false` if they exceed the limit.
pub(super) fn add_part(value: &Value) -> bool {
    let weight = weight(value, MAX_HELD);
    SESSION.with_borrow_mut(|session| {
        session.parts += weight;
        session.parts <= MAX_HELD
    })
}

/// Ends an action and releases its parts.
pub(super) fn end_action() {
    SESSION.with_borrow_mut(|session| session.parts = 0);
}

/// Sets the value of a variable or block. Returns `false` if all of them exceed the limit.
pub(super) fn hold(slot: usize, value: &Value) -> bool {
    let weight = weight(value, MAX_HELD);
    SESSION.with_borrow_mut(|session| {
        session.held.insert(slot, weight);
        session.held.values().sum::<usize>() <= MAX_HELD
    })
}

/// Records why a function failed, because the engine returns only text.
pub(super) fn fail(fault: Fault) {
    SESSION.with_borrow_mut(|session| session.fault = Some(fault));
}

/// Returns why a function failed, if one did.
pub(super) fn fault() -> Option<Fault> {
    SESSION.with_borrow(|session| session.fault)
}

/// Converts bytes to a value of the engine: text unchanged, anything else as a placeholder. `None`
/// if the binary values of this render exceed [`MAX_HELD`].
pub(super) fn value_of(bytes: &[u8]) -> Option<Value> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(OPEN) => Some(Value::from(text)),
        _ => placeholder(bytes).map(Value::String),
    }
}

fn placeholder(bytes: &[u8]) -> Option<String> {
    let index = SESSION.with_borrow_mut(|session| {
        if let Some(known) = session.binaries.iter().position(|known| known == bytes) {
            return Some(known);
        }
        session.binary_bytes += bytes.len() + VALUE_OVERHEAD;
        if session.binary_bytes > MAX_HELD {
            return None;
        }
        session.binaries.push(bytes.to_vec());
        Some(session.binaries.len() - 1)
    })?;
    Some(format!("{OPEN}{index}{CLOSE}"))
}

/// Replaces the placeholders in a text of the engine; `None` if the result exceeds 1 MiB.
pub(super) fn bytes_of(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains(OPEN) {
        return (text.len() <= MAX_OUTPUT).then_some(Cow::Borrowed(text.as_bytes()));
    }
    let mut bytes = vec![];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        bytes.extend_from_slice(before.as_bytes());
        match after
            .split_once(CLOSE)
            .and_then(|(index, tail)| Some((index.parse::<usize>().ok()?, tail)))
        {
            Some((index, tail)) => {
                SESSION.with_borrow(|session| {
                    bytes.extend_from_slice(session.binaries.get(index).map_or(&[][..], Vec::as_slice));
                });
                rest = tail;
            }
            None => rest = after,
        }
        if bytes.len() > MAX_OUTPUT {
            return None;
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    (bytes.len() <= MAX_OUTPUT).then_some(Cow::Owned(bytes))
}

/// Whether a value is binary or contains a binary value.
pub(super) fn holds_binary(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(OPEN),
        Value::Array(items) => items.iter().any(holds_binary),
        Value::Map(fields) | Value::Object(fields) => fields.values().any(holds_binary),
        _ => false,
    }
}
