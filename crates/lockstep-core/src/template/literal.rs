//! Decodes quoted text by Go's rules and writes it in a form that the engine reads correctly. The
//! engine reads a quote after an escaped backslash as part of the text, and a backslash in
//! backquotes as an escape.

use super::{
    TemplateError,
    position::{Edit, at},
    scan::Token,
};

/// Returns the literal in the engine's form, if it differs.
pub(super) fn rewritten(text: &str, token: &Token) -> Result<Option<Edit>, TemplateError> {
    let literal = &text[token.span.clone()];
    if !literal.contains('\\') {
        return Ok(None);
    }
    let error = |message: &str| at(text, token.span.start, message);
    let inner = &literal[1..literal.len() - 1];
    let decoded = if literal.starts_with('`') {
        inner.to_owned()
    } else {
        decode(inner)
            .ok_or_else(|| error("the text contains an escape that Go does not support, or is not UTF-8."))?
    };
    let escaped = decoded.replace('\\', r"\\");
    let written = if !decoded.ends_with('\\') {
        format!("\"{}\"", escaped.replace('"', "\\\"").replace('\n', "\\n"))
    } else if decoded.contains('`') {
        return Err(error(
            "text that contains a backquote cannot end with a backslash.",
        ));
    } else {
        format!("`{escaped}`")
    };
    Ok(Some(Edit {
        span: token.span.clone(),
        text: written,
    }))
}

fn decode(inner: &str) -> Option<String> {
    let mut decoded = vec![];
    let mut rest = inner;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        if character != '\\' {
            decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.chars().next()?;
        let mut number = |skip: usize, digits: usize, radix: u32| {
            let number = u32::from_str_radix(rest.get(skip..skip + digits)?, radix).ok()?;
            rest = rest.get(skip + digits..)?;
            Some(number)
        };
        match escape {
            'x' => decoded.push(u8::try_from(number(1, 2, 16)?).ok()?),
            '0'..='7' => decoded.push(u8::try_from(number(0, 3, 8)?).ok()?),
            'u' | 'U' => {
                let character = char::from_u32(number(1, if escape == 'u' { 4 } else { 8 }, 16)?)?;
                decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            simple => {
                decoded.push(match simple {
                    'a' => 7,
                    'b' => 8,
                    'f' => 12,
                    'n' => b'\n',
                    'r' => b'\r',
                    't' => b'\t',
                    'v' => 11,
                    '\\' => b'\\',
                    '"' => b'"',
                    _ => return None,
                });
                rest = &rest[1..];
            }
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_match_go() {
        assert_eq!(
            decode(r#"\a\n\t\\\"\x41\101\u00e9\U0001F600"#).as_deref(),
            Some("\u{7}\n\t\\\"AA\u{e9}\u{1F600}")
        );
        for wrong in [r"\q", r"\'", r"\x4", r"\xff", r"\ud800", r"\", r"\8"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
