use proptest::prelude::*;

use super::sealed;

/// Some lines of a manifest before and after, and the value that is sealed in them, if any.
#[derive(Debug, Clone)]
struct Piece {
    before: String,
    after: String,
    value: Option<String>,
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// An entry whose value is written in a random style. `HERE` is replaced with the number of the
/// ciphertext.
fn entry(value: String, style: u8, comment: &str, spaces: usize, key_last: bool) -> Piece {
    let indent = " ".repeat(8 + spaces);
    let gap = " ".repeat(spaces + 1);
    let beside = if comment.is_empty() {
        String::new()
    } else {
        format!("{gap}#{comment}")
    };
    let (before, after, value) = match style {
        0 => (
            format!("{}{beside}", double_quoted(&value)),
            format!("\"HERE\"{beside}"),
            value,
        ),
        1 => {
            let line = value.replace(['\n', '\t'], " ");
            (
                format!("'{}'{beside}", line.replace('\'', "''")),
                format!("'HERE'{beside}"),
                line,
            )
        }
        2 => {
            let word: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
            let word = format!("x{word}");
            (format!("{word}{beside}"), format!("HERE{beside}"), word)
        }
        _ => {
            // the first line of a block determines its indentation
            let text = format!("x{}", value.replace('\t', " "));
            let lines: Vec<_> = text
                .split('\n')
                .map(|line| {
                    if line.is_empty() {
                        String::new()
                    } else {
                        format!("{indent}{line}")
                    }
                })
                .collect();
            let trimmed = text.trim_end_matches('\n').to_owned();
            (
                format!("|-{beside}\n{}", lines.join("\n").trim_end_matches('\n')),
                format!("HERE{beside}"),
                trimmed,
            )
        }
    };
    let write = |name: &str, what: &str| {
        if key_last {
            format!("    - {name}:{gap}{what}\n      secretKey: NAME\n")
        } else {
            format!("    - secretKey: NAME\n      {name}:{gap}{what}\n")
        }
    };
    Piece {
        before: write("plaintext", &before),
        after: write("ciphertext", &after),
        value: Some(value),
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    let comment = "[ a-z|>:{}'\"é-]{0,12}";
    prop_oneof![
        3 => ("([ -~éß√\n\t]|\n\n){0,40}", 0..4_u8, comment, 0..4_usize, any::<bool>())
            .prop_map(|(value, style, comment, spaces, key_last)| entry(value, style, &comment, spaces, key_last)),
        1 => comment.prop_map(|comment| {
            let line = format!("    # {comment}\n\n");
            Piece { before: line.clone(), after: line, value: None }
        }),
        1 => Just(()).prop_map(|()| {
            let lines = "    - { secretKey: NAME, remoteRef: { key: a, property: \"plaintext: no\" } } # plaintext: no\n".to_owned();
            Piece { before: lines.clone(), after: lines, value: None }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sealing_changes_only_the_sealed_values(
        pieces in prop::collection::vec(piece(), 1..8),
        windows in any::<bool>(),
    ) {
        let head = "# head\napiVersion: lockstep.dev/v1alpha1\nkind: SyncedSecret\nmetadata: {name: a, namespace: b}\nspec:\n  secretStoreRef: {name: kms}\n  data:\n    - {secretKey: first, remoteRef: {key: a}}\n";
        let (mut before, mut after, mut values) = (head.to_owned(), head.to_owned(), Vec::new());
        for (at, piece) in pieces.iter().enumerate() {
            let name = format!("key-{at}");
            before.push_str(&piece.before.replace("NAME", &name));
            after.push_str(&piece.after.replace("NAME", &name).replace("HERE", &format!("SEALED-{}", values.len())));
            values.extend(piece.value.clone());
        }
        if windows {
            (before, after) = (before.replace('\n', "\r\n"), after.replace('\n', "\r\n"));
        }
        let (text, held) = sealed(&before);
        prop_assert_eq!(held, values);
        prop_assert_eq!(text, after);
    }
}
