//! Parses the output of a template that produces several keys.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::{TemplateError, limits::MAX_OUTPUT};
use crate::yaml::{self, YamlError};

/// Parses a YAML map of strings. The messages of the parser may contain values, so they are never
/// shown.
pub(super) fn parse(output: &str) -> Result<BTreeMap<String, String>, TemplateError> {
    if output.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    // an alias is a copy, so the total size is checked before any copy is made
    match yaml::check(output, MAX_OUTPUT) {
        Err(YamlError::TooLarge) => {
            return Err(TemplateError::whole(
                "the output is a YAML map that is larger than 1 MiB, or has more than 50,000 nodes, once its aliases are expanded.",
            ));
        }
        Err(YamlError::TooDeep) => {
            return Err(TemplateError::whole(
                "the output is a YAML map with more than 128 levels, which is the limit.",
            ));
        }
        Err(YamlError::Invalid { .. }) => return Err(no_map()),
        Ok(()) => {}
    }
    match serde_yaml_ng::from_str::<Entries>(output) {
        Ok(Entries::Unique(entries)) => Ok(entries),
        Ok(Entries::Repeated) => Err(TemplateError::whole(
            "the output is a YAML map with a duplicate key.",
        )),
        Err(_) => Err(no_map()),
    }
}

fn no_map() -> TemplateError {
    TemplateError::whole(
        "the output is not a YAML map of strings. Quote values with special characters, for example with toJson.",
    )
}

enum Entries {
    Unique(BTreeMap<String, String>),
    Repeated,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map of texts")
    }

    fn visit_unit<E: Error>(self) -> Result<Entries, E> {
        Ok(Entries::Unique(BTreeMap::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Entries, A::Error> {
        let mut entries = BTreeMap::new();
        let mut repeated = false;
        while let Some((key, value)) = access.next_entry::<String, Option<String>>()? {
            repeated |= entries.insert(key, value.unwrap_or_default()).is_some();
        }
        Ok(if repeated {
            Entries::Repeated
        } else {
            Entries::Unique(entries)
        })
    }
}
