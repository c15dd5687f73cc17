//! What the functions of one render share. They are plain `fn` pointers for the engine, so it travels by thread-local.

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap, time::Instant};

use gtmpl_ng::Value;

use super::limits::{DEADLINE, MAX_OUTPUT};

/// How much memory the parts of one action may take, and how much everything that variables and blocks hold.
pub(super) const MAX_HELD: usize = 16 << 20;
/// What a value takes beyond its text.
const VALUE_OVERHEAD: usize = 64;
/// What a field of a dictionary takes beyond its name and its value.
const FIELD_OVERHEAD: usize = 48;

/// Starts the stand-in of a value that the engine's text cannot hold. It is a noncharacter, so no ordinary value has it;
/// a value that does is kept like a binary one.
pub(super) const OPEN: char = '\u{10FFFE}';
const CLOSE: char = '\u{10FFFF}';

/// Why a function did not return, in a form that holds no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A function refused its arguments; the sentence is ours.
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
    /// A function was given something that is not there.
    Missing { function: &'static str },
    /// Something that is not there was printed.
    Printed,
    /// A function for text was given a binary value.
    Binary { function: &'static str },
    /// The values that the template holds at the same time are larger than [`MAX_HELD`].
    Full,
}

#[derive(Default)]
struct Session {
    binaries: Vec<Vec<u8>>,
    binary_bytes: usize,
    fault: Option<Fault>,
    /// When the template must have ended.
    deadline: Option<Instant>,
    /// What the parts of the current action take.
    parts: usize,
    /// What each variable and each open block holds.
    held: BTreeMap<usize, usize>,
}

thread_local! {
    static SESSION: RefCell<Session> = RefCell::default();
}

/// Holds the session of a render; what it kept goes when this is dropped.
pub(super) struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        SESSION.with_borrow_mut(|session| *session = Session::default());
    }
}

/// Begins a render on this thread.
pub(super) fn begin() -> Guard {
    SESSION.with_borrow_mut(|session| {
        *session = Session {
            deadline: Instant::now().checked_add(DEADLINE),
            ..Session::default()
        };
    });
    Guard(())
}

/// Whether the template has taken its time. Loops within functions ask, as the engine does between functions.
pub(super) fn is_late() -> bool {
    SESSION.with_borrow(|session| {
        session
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    })
}

/// The memory that a value takes, roughly; no further than `most`.
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

/// Counts a value among the parts of the current action; `false` when they are too large together.
pub(super) fn add_part(value: &Value) -> bool {
    let weight = weight(value, MAX_HELD);
    SESSION.with_borrow_mut(|session| {
        session.parts += weight;
        session.parts <= MAX_HELD
    })
}

/// The action is done: its parts are gone.
pub(super) fn end_action() {
    SESSION.with_borrow_mut(|session| session.parts = 0);
}

/// Counts a value as what this variable or block holds from now on; `false` when they hold too much together.
pub(super) fn hold(slot: usize, value: &Value) -> bool {
    let weight = weight(value, MAX_HELD);
    SESSION.with_borrow_mut(|session| {
        session.held.insert(slot, weight);
        session.held.values().sum::<usize>() <= MAX_HELD
    })
}

/// Notes why a function failed; the engine passes on text only.
pub(super) fn fail(fault: Fault) {
    SESSION.with_borrow_mut(|session| session.fault = Some(fault));
}

/// Why a function failed, if one did.
pub(super) fn fault() -> Option<Fault> {
    SESSION.with_borrow(|session| session.fault)
}

/// Bytes as a value of the engine: text as it is, anything else by a stand-in; `None` when the binary values of this
/// render are larger than [`MAX_HELD`] together.
pub(super) fn value_of(bytes: &[u8]) -> Option<Value> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(OPEN) => Some(Value::from(text)),
        _ => stand_in(bytes).map(Value::String),
    }
}

fn stand_in(bytes: &[u8]) -> Option<String> {
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

/// The bytes that a text of the engine stands for, unless there are more than 1 MiB of them.
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

/// Whether a value is, or holds, a binary one.
pub(super) fn holds_binary(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(OPEN),
        Value::Array(items) => items.iter().any(holds_binary),
        Value::Map(fields) | Value::Object(fields) => fields.values().any(holds_binary),
        _ => false,
    }
}
