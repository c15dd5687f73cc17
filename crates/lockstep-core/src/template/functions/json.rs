//! Parses JSON directly into values of the engine, with a limit of their memory.

use std::{cell::Cell, fmt};

use gtmpl_ng::Value;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::values::{Fields, MAX_WEIGHT, Outcome, TOO_HEAVY};
use crate::template::session;

/// Memory of a value in addition to its text.
const OVERHEAD: usize = 64;

/// Parses JSON text.
pub(super) fn read(text: &str) -> Outcome {
    let left = Cell::new(Some(MAX_WEIGHT));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Build(&left).deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(_) if left.get().is_none() => Err(TOO_HEAVY),
        Err(_) => Err("the text is not JSON"),
    }
}

/// Builds a value and deducts its memory from the remaining budget.
#[derive(Clone, Copy)]
struct Build<'a>(&'a Cell<Option<usize>>);

impl Build<'_> {
    fn take<E: Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().and_then(|left| left.checked_sub(bytes + OVERHEAD));
        self.0.set(left);
        left.map(drop).ok_or_else(|| E::custom("it is too large"))
    }
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.take(0).map(|()| Value::Nil)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Value, E> {
        self.take(0).map(|()| Value::Bool(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        self.take(0).map(|()| Value::from(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        self.take(0)?;
        Ok(i64::try_from(number).map_or_else(|_| Value::from(number), Value::from))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        self.take(0).map(|()| Value::from(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.take(text.len())?;
        session::value_of(text.as_bytes()).ok_or_else(|| {
            self.0.set(None);
            E::custom("it is too large")
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.take(0)?;
        let mut items = vec![];
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.take(0)?;
        let mut fields = Fields::new();
        while let Some(name) = access.next_key::<String>()? {
            self.take(name.len())?;
            fields.insert(name, access.next_value_seed(self)?);
        }
        Ok(Value::Map(fields))
    }
}
