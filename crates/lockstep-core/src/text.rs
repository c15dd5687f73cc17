//! Makes text of tenants, backends and files safe for the place where it is shown or sent.

use std::{borrow::Cow, fmt::Write as _};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use unicode_general_category::{GeneralCategory, get_general_category};

/// Maximum length of a DNS-1123 subdomain, the format of most names in Kubernetes.
pub const MAX_SUBDOMAIN: usize = 253;
/// Maximum length of a DNS-1123 label, the format of the names of namespaces and Services.
pub const MAX_LABEL: usize = 63;

/// Characters that are not encoded in a path segment: the unreserved characters of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Refers to one of several keys without its name, which may be part of a remote value.
pub(crate) fn one_of(keys: usize) -> String {
    match keys {
        1 => "the only key".to_owned(),
        keys => format!("one of {keys} keys"),
    }
}

/// Escapes and shortens a name for a message.
pub fn excerpt(name: &str) -> String {
    const LONGEST: usize = 200;
    let escaped = escape(name);
    let mut shown: String = escaped.chars().take(LONGEST).collect();
    if shown.len() < escaped.len() {
        shown.push('…');
    }
    shown
}

/// Whether Kubernetes accepts the text as a DNS-1123 label, such as the name of a namespace.
pub fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL && is_label_of_any_length(text)
}

/// Whether Kubernetes accepts the text as a DNS-1123 subdomain, such as the name of a Secret.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_label_of_any_length)
}

fn is_label_of_any_length(text: &str) -> bool {
    let is_edge =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

/// Whether the text is acceptable as a name that a backend chose: 1 to `longest` printable ASCII
/// characters without spaces.
pub fn is_backend_name(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Quotes a word for a POSIX shell. The shell uses the result as one word and expands nothing in
/// it. Hidden characters, which no name in Kubernetes contains, are escaped first.
pub fn shell_quote(word: &str) -> String {
    let shown = escape(word);
    // only NUL cannot be quoted, and it was escaped
    shlex::try_quote(&shown).map_or_else(|_| "''".to_owned(), Cow::into_owned)
}

/// Quotes a string for HCL, the language of Vault policies, and includes the quotes.
pub fn hcl_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            // `${` would start an expression
            '$' if characters.peek() == Some(&'{') => push_hcl_escape(&mut quoted, character),
            character if is_hidden(character) => push_hcl_escape(&mut quoted, character),
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

fn push_hcl_escape(quoted: &mut String, character: char) {
    let code = u32::from(character);
    // writing to a String cannot fail
    let _ = if code <= 0xffff {
        write!(quoted, "\\u{code:04x}")
    } else {
        write!(quoted, "\\U{code:08x}")
    };
}

/// Percent-encodes a segment of a URL path. The result adds no further segment, query or fragment.
pub fn path_segment(name: &str) -> String {
    match name {
        // dots are unreserved, but these two segments would change the path
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        name => utf8_percent_encode(name, SEGMENT).to_string(),
    }
}

/// Escapes everything that a terminal would interpret or hide: control characters, line breaks,
/// characters that change the direction of text, and characters without width.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_where(text, is_hidden)
}

/// Escapes like [`escape`], but keeps line breaks and tabs, for text of several lines.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_where(text, |character| {
        !matches!(character, '\n' | '\t') && is_hidden(character)
    })
}

fn escape_where(text: &str, escapes: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&escapes) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if !escapes(character) {
            escaped.push(character);
        } else if matches!(character, '\n' | '\r' | '\t') {
            escaped.extend(character.escape_default());
        } else {
            escaped.extend(character.escape_unicode());
        }
    }
    Cow::Owned(escaped)
}

/// Escapes hidden characters in JSON text. They occur only in strings, so the value does not
/// change.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let escapes = |character: char| !matches!(character, '\n' | '\t' | '\r') && is_hidden(character);
    if !json.chars().any(escapes) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 8);
    for character in json.chars() {
        if escapes(character) {
            let mut units = [0_u16; 2];
            for unit in character.encode_utf16(&mut units) {
                // writing to a String cannot fail
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal interprets the character or shows nothing for it.
pub fn is_hidden(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    let fillers = matches!(
        character,
        '\u{034f}' | '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}'
    );
    let selectors =
        matches!(character, '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}');
    fillers
        || selectors
        || matches!(
            get_general_category(character),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
                | GeneralCategory::PrivateUse
                | GeneralCategory::Unassigned
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that attack a shell, a terminal or a URL.
    const HOSTILE: [&str; 10] = [
        "a; rm -rf ~",
        "$(id)",
        "`id`",
        "a'b\"c\\d",
        "a\nb",
        "\u{1b}]0;title\u{7}",
        "abc\u{202e}cba",
        "zero\u{200b}width",
        "../../secrets/x?watch=1#y",
        "\0",
    ];

    #[test]
    fn kubernetes_names_are_recognized() {
        for good in ["a", "a-b", "0", "a1-b2"] {
            assert!(is_label(good) && is_subdomain(good), "{good}");
        }
        assert!(is_subdomain("a.b-c.d") && !is_label("a.b"));
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)));
        assert!(is_subdomain(&"a".repeat(253)) && !is_subdomain(&"a".repeat(254)));
        for bad in ["", "-a", "a-", "A", "a..b", ".a", "a.", "a_b", "ä", "a b"]
            .iter()
            .chain(&HOSTILE)
        {
            assert!(!is_label(bad) && !is_subdomain(bad), "{bad:?}");
        }
    }

    #[test]
    fn shell_reads_quoted_text_as_one_word() {
        assert_eq!(shell_quote("database"), "database");
        assert_eq!(shell_quote("a; rm -rf ~"), "'a; rm -rf ~'");
        for name in HOSTILE {
            let quoted = shell_quote(name);
            assert_eq!(
                shlex::split(&quoted),
                Some(vec![escape(name).into_owned()]),
                "{name:?}"
            );
            assert!(!quoted.chars().any(is_hidden), "{quoted:?}");
        }
    }

    #[test]
    fn hcl_reads_quoted_text_as_one_string() {
        assert_eq!(hcl_quote("database/creds/shop"), "\"database/creds/shop\"");
        assert_eq!(
            hcl_quote("a\" { capabilities = [\"sudo\"] } path \"${x}"),
            r#""a\" { capabilities = [\"sudo\"] } path \"\u0024{x}""#
        );
        assert_eq!(hcl_quote("50%$"), "\"50%$\"");
        assert_eq!(hcl_quote("a\n\u{e0001}"), "\"a\\u000a\\U000e0001\"");
    }

    #[test]
    fn encoded_path_segment_stays_one_segment() {
        assert_eq!(path_segment("a.b-c"), "a.b-c");
        for name in HOSTILE.into_iter().chain([".", "..", "a/b", "a%2fb", "ä"]) {
            let segment = path_segment(name);
            assert!(
                segment
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)),
                "{segment}"
            );
            assert!(segment != "." && segment != "..", "{segment}");
            let decoded = percent_encoding::percent_decode_str(&segment)
                .decode_utf8()
                .unwrap();
            assert_eq!(decoded, name);
        }
    }

    #[test]
    fn escaping_leaves_no_hidden_characters() {
        for text in HOSTILE {
            assert!(!escape(text).chars().any(is_hidden), "{text:?}");
        }
        assert_eq!(escape("plain ä 日本 e\u{301}"), "plain ä 日本 e\u{301}");
        assert_eq!(escape("a\u{1b}[2Jb\r\nc"), "a\\u{1b}[2Jb\\r\\nc");
        assert_eq!(escape_lines("a\u{202e}\n\tb\r"), "a\\u{202e}\n\tb\\r");
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({ "name": HOSTILE, "tag": "\u{e0041}" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escape_json(&text);
        assert!(
            escaped
                .chars()
                .all(|character| character == '\n' || !is_hidden(character))
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&escaped).unwrap(),
            value
        );
    }

    #[test]
    fn names_of_backends_are_short_printable_ascii() {
        assert!(is_backend_name("database/creds/shop/Ab1.-_", 256));
        assert!(is_backend_name(&"a".repeat(256), 256));
        for bad in ["", "a b", "a\u{1b}", "ä", "a\n", &"a".repeat(257)] {
            assert!(!is_backend_name(bad, 256), "{bad:?}");
        }
    }
}
