//! Compacts JSON text without changing its meaning.

use zeroize::Zeroizing;

/// Removes white space and unnecessary escapes from JSON: Go's encoder, which Vault uses, writes
/// `<` as `\u003c`. Numbers keep their digits and keys their order. Parsing into numbers would
/// change `1.10` and everything above 2^53.
///
/// Returns `None` if a string is not valid Unicode. The text must be valid JSON, like a parsed
/// `RawValue`.
pub(crate) fn compact(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        if first == b'"' {
            let (literal, after) = rest.split_at(string_end(rest)?);
            let string = Zeroizing::new(serde_json::from_str::<String>(literal).ok()?);
            serde_json::to_writer(&mut *out, string.as_str()).ok()?;
            rest = after;
        } else {
            let end = rest.find('"').unwrap_or(rest.len());
            let (plain, after) = rest.split_at(end);
            out.extend(plain.bytes().filter(|byte| !byte.is_ascii_whitespace()));
            rest = after;
        }
    }
    Some(out)
}

/// Returns the end of the string literal at the start of the text.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_keeps_numbers_strings_and_order() {
        let cases = [
            (r#"{ "b" : 1.10 , "a" : [ 1, 2 ] }"#, r#"{"b":1.10,"a":[1,2]}"#),
            (
                r#"{"n":123456789012345678901234567890}"#,
                r#"{"n":123456789012345678901234567890}"#,
            ),
            (r#"{"a":"\u003cx\u003e \u00e9"}"#, r#"{"a":"<x> é"}"#),
            (
                r#"{"a":"quote \" and \\ and \n"}"#,
                r#"{"a":"quote \" and \\ and \n"}"#,
            ),
            (r#"{"a":"\\"}"#, r#"{"a":"\\"}"#),
            ("{\n\t\"a b\" : null }", r#"{"a b":null}"#),
            (r#"{"😀":"\ud83d\ude00"}"#, r#"{"😀":"😀"}"#),
            ("{}", "{}"),
        ];
        for (text, want) in cases {
            assert_eq!(
                std::str::from_utf8(&compact(text).unwrap()).unwrap(),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn lone_surrogate_is_rejected() {
        assert!(compact(r#"{"a":"\ud800"}"#).is_none());
    }
}
