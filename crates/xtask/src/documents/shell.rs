//! Splits shell text into commands, as far as the checks of the documents need it. Expansions are
//! replaced with a placeholder.

use std::{iter::Peekable, str::Chars};

/// Stands for the output of `$(…)` and `<(…)`.
const OUTPUT: &str = "OUTPUT";
/// Words that can precede a command.
const BEFORE_COMMANDS: [&str; 9] = ["do", "else", "exec", "if", "then", "time", "until", "while", "!"];

/// Content of a shell block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// Words of each command, without assignments and redirections.
    pub(super) commands: Vec<Vec<String>>,
    /// Here-documents.
    pub(super) documents: Vec<String>,
}

impl Script {
    /// Reads a text that `bash -n` accepts.
    pub(super) fn parse(text: &str) -> Self {
        let mut script = Self::default();
        let mut rest = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            rest.extend([line, "\n"]);
            if let Some(end) = here_document(line) {
                let body = lines.by_ref().take_while(|line| line.trim() != end);
                script.documents.push(body.collect::<Vec<_>>().join("\n"));
            }
        }
        script.read(&rest);
        script
    }

    fn read(&mut self, text: &str) {
        let mut chars = text.chars().peekable();
        let mut words = Words::default();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some('\n') | None => {}
                    Some(c) => words.push(c),
                },
                '\'' => words.extend(chars.by_ref().take_while(|c| *c != '\'')),
                '"' => self.double_quoted(&mut chars, &mut words),
                '$' | '<' | '>' if chars.peek() == Some(&'(') => {
                    self.read(&inner(&mut chars));
                    words.extend(OUTPUT.chars());
                }
                '#' if words.word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
                '<' | '>' => {
                    while chars.next_if(|c| matches!(c, '<' | '>' | '&')).is_some() {}
                    words.redirection();
                }
                '\n' | ';' | '|' | '&' | '(' | ')' => self.end(&mut words),
                c if c.is_whitespace() => words.end_word(),
                c => words.push(c),
            }
        }
        self.end(&mut words);
    }

    fn double_quoted(&mut self, chars: &mut Peekable<Chars<'_>>, words: &mut Words) {
        words.extend([]);
        while let Some(c) = chars.next() {
            match c {
                '"' => return,
                '\\' => words.extend(chars.next()),
                '$' if chars.peek() == Some(&'(') => {
                    self.read(&inner(chars));
                    words.extend(OUTPUT.chars());
                }
                c => words.push(c),
            }
        }
    }

    fn end(&mut self, words: &mut Words) {
        words.end_word();
        let is_prefix = |word: &&String| BEFORE_COMMANDS.contains(&word.as_str()) || is_assignment(word);
        let words = std::mem::take(&mut words.ended);
        let before = words.iter().take_while(is_prefix).count();
        if before < words.len() {
            self.commands.push(words[before..].to_vec());
        }
    }
}

/// Words of the command that is being read.
#[derive(Debug, Default)]
struct Words {
    ended: Vec<String>,
    word: Option<String>,
    is_target: bool,
}

impl Words {
    fn push(&mut self, c: char) {
        self.extend([c]);
    }

    fn extend(&mut self, text: impl IntoIterator<Item = char>) {
        self.word.get_or_insert_default().extend(text);
    }

    fn end_word(&mut self) {
        if let Some(word) = self.word.take()
            && !std::mem::take(&mut self.is_target)
        {
            self.ended.push(word);
        }
    }

    /// Ends the word, unless it is the number of a file descriptor. The next word is a file.
    fn redirection(&mut self) {
        self.word.take_if(|word| word.chars().all(|c| c.is_ascii_digit()));
        self.end_word();
        self.is_target = true;
    }
}

/// Returns the last line of the here-document that a line starts.
fn here_document(line: &str) -> Option<&str> {
    let (_, end) = line.split_once("<<")?;
    let end = end.trim_start_matches('-').trim_matches(['\'', '"', ' ']);
    (!end.is_empty() && end.chars().all(char::is_alphanumeric)).then_some(end)
}

/// Returns the text between the next parenthesis and the one that closes it.
fn inner(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut depth = 0;
    let mut text = String::new();
    for c in chars {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        text.push(c);
        if depth == 0 {
            break;
        }
    }
    text.trim_start_matches('(').trim_end_matches(')').to_owned()
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

#[test]
fn commands_are_found_behind_everything_that_can_precede_them() {
    for (text, expected) in [
        ("a b # c\nd", &["a b", "d"][..]),
        ("a \\\n  b | c && d; e &", &["a b", "c", "d", "e"]),
        (
            "A_B=1 a 'b c' \"d $(e f) \\\" g\"",
            &["e f", "a b c d OUTPUT \" g"],
        ),
        ("a > b 2>&1 < c d <<<'e'", &["a d"]),
        ("source <(a b)", &["a b", "source OUTPUT"]),
        ("until a; do b; done", &["a", "b", "done"]),
        ("a -p '{\"b\": 1}'", &["a -p {\"b\": 1}"]),
    ] {
        let commands = Script::parse(text).commands;
        let found: Vec<_> = commands.iter().map(|words| words.join(" ")).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn here_documents_are_no_commands() {
    let script = Script::parse("a -f - <<EOF\nb: c\nEOF\nd <<<e\n");
    assert_eq!(script.documents, ["b: c"]);
    assert_eq!(script.commands, [vec!["a", "-f", "-"], vec!["d"]]);
}
