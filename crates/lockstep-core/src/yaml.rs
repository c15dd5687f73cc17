//! Checks the limits of YAML before anything is expanded.
//!
//! An alias is a copy of the node of its anchor, so a short text can describe gigabytes. [`check`]
//! measures a text node by node with the parser that reads it later, and keeps nothing.

use std::{cell::Cell, fmt};

use granit_parser::{ErrorKind, Event};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess as _,
    Visitor,
};

/// Maximum nesting depth, which is the one of the loader. The time to load a text grows with its
/// depth times its length.
pub const MAX_DEPTH: usize = 128;
/// Maximum number of nodes. An alias counts as the nodes of its anchor.
pub const MAX_NODES: usize = 50_000;
/// Up to this length, a text has too few nodes to matter, so they are not counted before it is
/// loaded.
const SHORT: usize = 64 * 1024;

/// The error of [`check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// The text is not YAML.
    #[error("it is not YAML")]
    Invalid {
        /// Line and column, if the parser reports them.
        at: Option<(usize, usize)>,
    },
    /// It has more than [`MAX_DEPTH`] levels.
    #[error("it has more than {MAX_DEPTH} levels")]
    TooDeep,
    /// The text exceeds a limit once every alias is expanded.
    #[error("it is too large once its aliases are expanded")]
    TooLarge,
}

/// Checks that a text is one YAML document with at most `most_bytes` bytes in its scalars and at
/// most [`MAX_NODES`] nodes. In both, an alias counts as the nodes of its anchor.
///
/// # Errors
/// See [`YamlError`]. It never contains a part of the text.
pub fn check(text: &str, most_bytes: usize) -> Result<(), YamlError> {
    check_nodes(text, most_bytes, MAX_NODES)
}

/// Like [`check`], with another limit of nodes.
///
/// # Errors
/// See [`check`].
pub fn check_nodes(text: &str, most_bytes: usize, most_nodes: usize) -> Result<(), YamlError> {
    check_depth(text).map_err(|(error, _)| error)?;
    if text.len() > SHORT {
        count_nodes(text, most_nodes)?;
    }
    let meter = Meter {
        bytes: Cell::new(most_bytes),
        nodes: Cell::new(most_nodes),
    };
    let measured = Measure(&meter).deserialize(serde_yaml_ng::Deserializer::from_str(text));
    measured.map_err(|error| {
        if meter.is_spent() {
            YamlError::TooLarge
        } else {
            let at = error.location();
            YamlError::Invalid {
                at: at.map(|at| (at.line(), at.column())),
            }
        }
    })
}

/// Checks the nesting depth with a parser that takes the same time for each level.
///
/// # Errors
/// `TooDeep` or `Invalid`, with the number of the line.
pub fn check_depth(text: &str) -> Result<(), (YamlError, usize)> {
    let mut depth = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    depth = 0;
    for event in granit_parser::Parser::new_from_str(text) {
        let failed = |error: granit_parser::ScanError| {
            let line = error.marker().line();
            match error.kind() {
                // its own limit of brackets is 255
                ErrorKind::RecursionLimitExceeded => (YamlError::TooDeep, line),
                _ => (YamlError::Invalid { at: None }, line),
            }
        };
        let (event, span) = event.map_err(failed)?;
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err((YamlError::TooDeep, span.start.line()));
        }
    }
    Ok(())
}

/// Counts the nodes without loading them, because the loader needs a hundred bytes for each.
fn count_nodes(text: &str, most: usize) -> Result<(), YamlError> {
    let mut nodes = 0_usize;
    for event in granit_parser::Parser::new_from_str(text) {
        let (event, _) = event.map_err(|_| YamlError::Invalid { at: None })?;
        nodes += usize::from(event.is_node());
        if nodes > most {
            return Err(YamlError::TooLarge);
        }
    }
    Ok(())
}

/// The remaining budget of bytes and nodes.
struct Meter {
    bytes: Cell<usize>,
    nodes: Cell<usize>,
}

impl Meter {
    /// Counts one node with a scalar of this length.
    fn take<E: Error>(&self, bytes: usize) -> Result<(), E> {
        let left = |cell: &Cell<usize>, amount| {
            let left = cell.get().checked_sub(amount);
            cell.set(left.unwrap_or_default());
            left.is_some()
        };
        if left(&self.bytes, bytes) && left(&self.nodes, 1) {
            return Ok(());
        }
        self.nodes.set(SPENT);
        Err(E::custom("it is too large"))
    }

    fn is_spent(&self) -> bool {
        self.nodes.get() == SPENT
    }
}

/// Marks an exhausted meter. No real limit is this large.
const SPENT: usize = usize::MAX;

/// Counts a node and discards it.
#[derive(Clone, Copy)]
struct Measure<'a>(&'a Meter);

impl<'de> DeserializeSeed<'de> for Measure<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The assumed length of a number or boolean.
const SHORT_SCALAR: usize = 8;

impl<'de> Visitor<'de> for Measure<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.0.take(SHORT_SCALAR)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.0.take(SHORT_SCALAR)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.0.take(SHORT_SCALAR)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<(), E> {
        self.0.take(SHORT_SCALAR)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<(), E> {
        self.0.take(SHORT_SCALAR)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.0.take(SHORT_SCALAR)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.take(text.len())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.0.take(0)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.0.take(0)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.take(0)?;
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        self.0.take(0)?;
        while fields.next_key_seed(self)?.is_some() {
            fields.next_value_seed(self)?;
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        self.0.take(0)?;
        let (_, value) = tagged.variant::<IgnoredAny>()?;
        value.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1 << 20;

    #[test]
    fn aliases_count_as_the_nodes_they_expand_to() {
        let value = "x".repeat(100_000);
        let fields = |count: usize| {
            (0..count)
                .map(|n| format!("k{n}: *a\n"))
                .collect::<Vec<_>>()
                .concat()
        };
        assert_eq!(check(&format!("a: &a {value}\n{}", fields(9)), MOST), Ok(()));
        assert_eq!(
            check(&format!("a: &a {value}\n{}", fields(10)), MOST),
            Err(YamlError::TooLarge)
        );
    }

    #[test]
    fn nested_aliases_are_rejected_quickly() {
        let levels = (1..100).map(|level| {
            let before = format!("*a{}", level - 1);
            format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", "))
        });
        let first = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        let bomb = std::iter::once(first).chain(levels).collect::<Vec<_>>().concat();
        let begun = std::time::Instant::now();
        assert_eq!(check(&bomb, MOST), Err(YamlError::TooLarge));
        assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    }

    #[test]
    fn too_many_nodes_are_rejected_before_loading() {
        assert_eq!(check(&format!("[{}]", "a,".repeat(49_999)), MOST), Ok(()));
        assert_eq!(
            check(&format!("[{}]", "a,".repeat(500_000)), MOST),
            Err(YamlError::TooLarge)
        );
        let anchors: Vec<_> = (0..60_000).map(|n| format!("- &a{n} x\n")).collect();
        assert_eq!(check(&anchors.concat(), MOST), Err(YamlError::TooLarge));
    }

    #[test]
    fn deep_texts_are_rejected_quickly() {
        let begun = std::time::Instant::now();
        for hidden in [" [\"]\",\n", " [ #]\n", " {\"}\": a, ? \n"] {
            let text = format!("a:{}", hidden.repeat(100_000));
            assert_eq!(check(&text, MOST), Err(YamlError::TooDeep), "{hidden}");
        }
        // brackets in strings and comments have no depth
        let shallow = format!("a: \"{}\" # {}\n", "[".repeat(1000), "{".repeat(1000));
        assert_eq!(check(&shallow, MOST), Ok(()));
        assert_eq!(check(&"[".repeat(1 << 20), MOST), Err(YamlError::TooDeep));
        assert!(check(&format!("{}{}", "[".repeat(500), "a,".repeat(400_000)), MOST).is_err());
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn ordinary_documents_are_accepted() {
        for text in [
            "",
            "a: 1\nb: [x, 2.5, ~, true]\nc: {d: &x e, f: *x}\n<<: {g: h}\n",
            "a: !tag {b: c}",
            "a: !!str 1",
            "18446744073709551616",
            "lines: |\n  {{{{ [[[[\n",
        ] {
            assert_eq!(check(text, MOST), Ok(()), "{text}");
        }
        assert!(matches!(check("a: *b", MOST), Err(YamlError::Invalid { .. })));
        assert!(check("a: &a [*a]", MOST).is_err());
    }
}
