//! What the functions of one render share. They are plain `fn` pointers for the engine, so it travels by thread-local.

use std::{borrow::Cow, cell::RefCell};

use gtmpl_ng::Value;

use super::MAX_OUTPUT;

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
}

#[derive(Default)]
struct Session {
    binaries: Vec<Vec<u8>>,
    fault: Option<Fault>,
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
    SESSION.with_borrow_mut(|session| *session = Session::default());
    Guard(())
}

/// Notes why a function failed; the engine passes on text only.
pub(super) fn fail(fault: Fault) {
    SESSION.with_borrow_mut(|session| session.fault = Some(fault));
}

/// Why a function failed, if one did.
pub(super) fn fault() -> Option<Fault> {
    SESSION.with_borrow(|session| session.fault)
}

/// Bytes as a value of the engine: text as it is, anything else by a stand-in.
pub(super) fn value_of(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(OPEN) => Value::from(text),
        _ => Value::String(stand_in(bytes)),
    }
}

fn stand_in(bytes: &[u8]) -> String {
    let index = SESSION.with_borrow_mut(|session| {
        session
            .binaries
            .iter()
            .position(|known| known == bytes)
            .unwrap_or_else(|| {
                session.binaries.push(bytes.to_vec());
                session.binaries.len() - 1
            })
    });
    format!("{OPEN}{index}{CLOSE}")
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
