//! Counts the structure of a JSON document while its bytes arrive.
//!
//! A parser turns `{}` into a struct of several hundred bytes, so a limit in bytes does not limit
//! memory. The counter reads each byte once and keeps no copy. It never fails on invalid JSON; the
//! parser rejects that.

/// Limits for the structure of one document. Brackets and commas inside strings do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Maximum number of objects and arrays.
    pub containers: usize,
    /// Maximum number of commas, which separate object members and array items.
    pub commas: usize,
    /// Maximum nesting depth of objects and arrays.
    pub depth: usize,
}

/// The document exceeds its [`JsonLimits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooComplex;

/// The position of the next byte in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Position {
    /// Between tokens, or inside a number or keyword.
    #[default]
    Outside,
    /// Inside a string.
    InString,
    /// Inside a string, after a backslash.
    Escaped,
}

/// Counts objects, arrays and commas. The document may arrive in chunks of any length.
#[derive(Debug, Clone)]
pub struct JsonCounter {
    limits: JsonLimits,
    position: Position,
    containers: usize,
    commas: usize,
    depth: usize,
}

impl JsonCounter {
    /// Creates a counter for one document.
    pub const fn new(limits: JsonLimits) -> Self {
        Self {
            limits,
            position: Position::Outside,
            containers: 0,
            commas: 0,
            depth: 0,
        }
    }

    /// Counts the next bytes of the document.
    ///
    /// # Errors
    /// Fails when the document exceeds a limit. The counter must not be used afterwards.
    pub fn count(&mut self, bytes: &[u8]) -> Result<(), TooComplex> {
        bytes.iter().try_for_each(|byte| self.count_byte(*byte))
    }

    fn count_byte(&mut self, byte: u8) -> Result<(), TooComplex> {
        self.position = match (self.position, byte) {
            (Position::InString, b'\\') => Position::Escaped,
            (Position::InString, b'"') => Position::Outside,
            (Position::InString | Position::Escaped, _) | (Position::Outside, b'"') => Position::InString,
            (Position::Outside, _) => {
                self.count_token(byte);
                Position::Outside
            }
        };
        if self.exceeds_limits() {
            return Err(TooComplex);
        }
        Ok(())
    }

    fn count_token(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                self.containers += 1;
                self.depth += 1;
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' => self.commas += 1,
            _ => {}
        }
    }

    const fn exceeds_limits(&self) -> bool {
        self.containers > self.limits.containers
            || self.commas > self.limits.commas
            || self.depth > self.limits.depth
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const UNLIMITED: JsonLimits = JsonLimits {
        containers: usize::MAX,
        commas: usize::MAX,
        depth: usize::MAX,
    };

    fn counted(chunks: &[&[u8]]) -> (usize, usize) {
        let mut counter = JsonCounter::new(UNLIMITED);
        for chunk in chunks {
            counter.count(chunk).unwrap();
        }
        (counter.containers, counter.commas)
    }

    #[test]
    fn objects_arrays_and_commas_are_counted() {
        for (text, want) in [
            ("", (0, 0)),
            ("null", (0, 0)),
            ("{}", (1, 0)),
            (r#"{"a":[1,2,3],"b":{}}"#, (3, 3)),
            ("[[],[],{}]", (4, 2)),
        ] {
            assert_eq!(counted(&[text.as_bytes()]), want, "{text}");
        }
    }

    #[test]
    fn content_of_strings_is_not_counted() {
        for text in [
            r#""{}[],""#,
            r#""\"{,""#,
            r#""\\\"[,""#,
            r#""\u0022{""#,
            "\"unterminated {[,",
        ] {
            assert_eq!(counted(&[text.as_bytes()]), (0, 0), "{text}");
        }
        assert_eq!(
            counted(&[br#"["\\",{}]"#]),
            (2, 1),
            "an escaped backslash ends no escape"
        );
    }

    #[test]
    fn strings_may_be_split_after_any_byte() {
        let text = br#"{"a\\\"{,":["[\\",{}]}"#;
        for at in 0..=text.len() {
            let (head, tail) = text.split_at(at);
            assert_eq!(counted(&[head, tail]), (3, 1), "{at}");
        }
    }

    #[test]
    fn each_limit_is_exact() {
        let within = |limits: JsonLimits, text: &str| JsonCounter::new(limits).count(text.as_bytes()).is_ok();
        let containers = JsonLimits {
            containers: 3,
            ..UNLIMITED
        };
        assert!(within(containers, "[{},{}]") && !within(containers, "[{},{},{}]"));
        let commas = JsonLimits {
            commas: 2,
            ..UNLIMITED
        };
        assert!(within(commas, "[1,2,3]") && !within(commas, "[1,2,3,4]"));
        let depth = JsonLimits {
            depth: 2,
            ..UNLIMITED
        };
        assert!(within(depth, "[[],[],[]]") && !within(depth, "[[[]]]"));
        assert!(within(depth, "]]]]}}[[]]"), "closing brackets do not underflow");
    }

    /// The counts according to a parser: objects and arrays, and the commas between their elements.
    fn expected(value: &Value) -> (usize, usize) {
        let (parts, length): (Vec<&Value>, usize) = match value {
            Value::Array(items) => (items.iter().collect(), items.len()),
            Value::Object(members) => (members.values().collect(), members.len()),
            _ => return (0, 0),
        };
        parts.into_iter().map(expected).fold(
            (1, length.saturating_sub(1)),
            |(containers, commas), (more, separators)| (containers + more, commas + separators),
        )
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![r#"["\\{}\[\],:a]{0,8}"#, any::<String>()]
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(text(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn counts_match_a_parser(document in document(), size in 1_usize..9, is_pretty: bool) {
            let text = if is_pretty {
                serde_json::to_vec_pretty(&document).unwrap()
            } else {
                serde_json::to_vec(&document).unwrap()
            };
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            prop_assert_eq!(counted(&chunks), expected(&document));
        }

        #[test]
        fn escaped_strings_are_not_counted(value in text()) {
            let text = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(counted(&[&text]), (0, 0));
        }

        #[test]
        fn any_bytes_are_accepted(bytes: Vec<u8>) {
            prop_assert!(JsonCounter::new(UNLIMITED).count(&bytes).is_ok());
        }
    }
}
