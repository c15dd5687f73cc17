//! Splits a template into its actions and their words before the engine reads it.
//!
//! The words are used to limit nesting and size, to report unknown functions, and to quote missing
//! keys in messages.

use std::ops::Range;

use super::{TemplateError, position::at};

/// The kind of a word in an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `.`
    Dot,
    /// `.a.b`
    Field,
    /// `.a` after a parenthesis
    Chain,
    /// `$`, `$x`, `$x.a`
    Variable,
    /// `if`, `quote`, `true`
    Word,
    /// Text in quotes.
    Text,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `|`
    Pipe,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// Numbers, commas, and invalid characters.
    Other,
}

/// One word of an action.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
}

/// One action: everything between `{{` and `}}`. Comments are left out.
#[derive(Debug, Clone)]
pub(super) struct Action {
    /// The range of the action with its braces.
    pub(super) span: Range<usize>,
    /// The start of the closing braces, or of the trim marker before them.
    pub(super) inner_end: usize,
    pub(super) tokens: Vec<Token>,
}

/// Splits a template into its actions.
pub(super) fn actions(text: &str) -> Result<Vec<Action>, TemplateError> {
    let mut actions = vec![];
    let mut position = 0;
    while let Some(found) = text[position..].find("{{") {
        let start = position + found;
        let mut inner = start + 2;
        if starts_with_trim(&text[inner..]) {
            inner += 2;
        }
        if text[inner..].starts_with("/*") {
            position = comment_end(text, start, inner)?;
            continue;
        }
        let action = Scanner {
            text,
            start,
            position: inner,
        }
        .action()?;
        position = action.span.end;
        actions.push(action);
    }
    Ok(actions)
}

fn starts_with_trim(rest: &str) -> bool {
    rest.strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(is_space))
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn comment_end(text: &str, start: usize, inner: usize) -> Result<usize, TemplateError> {
    let Some(length) = text[inner..].find("*/") else {
        return Err(at(text, start, "the comment is not closed by \"*/}}\"."));
    };
    let end = inner + length + 2;
    let rest = &text[end..];
    if rest.starts_with("}}") {
        return Ok(end + 2);
    }
    if rest.starts_with(is_space) && rest[1..].starts_with("-}}") {
        return Ok(end + 4);
    }
    Err(at(text, end, "the comment must end with \"*/}}\"."))
}

struct Scanner<'a> {
    text: &'a str,
    start: usize,
    position: usize,
}

impl Scanner<'_> {
    fn action(mut self) -> Result<Action, TemplateError> {
        let mut tokens: Vec<Token> = vec![];
        loop {
            let rest = &self.text[self.position..];
            let Some(character) = rest.chars().next() else {
                return Err(at(self.text, self.start, "\"{{\" is not closed by \"}}\"."));
            };
            if rest.starts_with("}}") {
                return Ok(self.finished(tokens, 2));
            }
            if is_space(character) {
                if rest[1..].starts_with("-}}") {
                    return Ok(self.finished(tokens, 4));
                }
                self.position += 1;
                continue;
            }
            let from = self.position;
            let adjoins = tokens
                .last()
                .is_some_and(|last| last.kind == Kind::Close && last.span.end == from);
            let (kind, length) = self.token(rest, character, adjoins)?;
            self.position += length;
            tokens.push(Token {
                kind,
                span: from..from + length,
            });
        }
    }

    fn finished(self, tokens: Vec<Token>, closing: usize) -> Action {
        Action {
            span: self.start..self.position + closing,
            inner_end: self.position,
            tokens,
        }
    }

    fn token(&self, rest: &str, character: char, adjoins: bool) -> Result<(Kind, usize), TemplateError> {
        Ok(match character {
            '"' => (Kind::Text, self.quoted(rest)?),
            '`' => match rest[1..].find('`') {
                Some(length) => (Kind::Text, length + 2),
                None => {
                    return Err(at(
                        self.text,
                        self.position,
                        "the text is not closed by a backquote.",
                    ));
                }
            },
            '\'' => {
                return Err(at(
                    self.text,
                    self.position,
                    "use double quotes for text, not single quotes.",
                ));
            }
            '(' => (Kind::Open, 1),
            ')' => (Kind::Close, 1),
            '|' => (Kind::Pipe, 1),
            '=' => (Kind::Assign, 1),
            ':' if rest.starts_with(":=") => (Kind::Declare, 2),
            '$' => (Kind::Variable, 1 + chain_length(&rest[1..])),
            '.' if rest[1..].starts_with(is_name) && !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                (
                    if adjoins { Kind::Chain } else { Kind::Field },
                    chain_length(rest),
                )
            }
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => (Kind::Other, number_length(rest)),
            '.' => (Kind::Dot, 1),
            '+' | '-' | '0'..='9' => (Kind::Other, number_length(rest)),
            _ if is_name(character) => (Kind::Word, name_length(rest)),
            other => (Kind::Other, other.len_utf8()),
        })
    }

    fn quoted(&self, rest: &str) -> Result<usize, TemplateError> {
        let mut escaped = false;
        for (index, character) in rest.char_indices().skip(1) {
            match character {
                '\n' => break,
                '"' if !escaped => return Ok(index + 1),
                _ => escaped = character == '\\' && !escaped,
            }
        }
        Err(at(
            self.text,
            self.position,
            "the text is not closed by a double quote on its line.",
        ))
    }
}

fn name_length(rest: &str) -> usize {
    rest.find(|character| !is_name(character)).unwrap_or(rest.len())
}

/// The length of `name.name.name` or `.name.name`.
fn chain_length(rest: &str) -> usize {
    let mut length = name_length(rest);
    while rest[length..].starts_with('.') && rest[length + 1..].starts_with(is_name) {
        length += 1 + name_length(&rest[length + 1..]);
    }
    length
}

fn number_length(rest: &str) -> usize {
    let length = rest[1..]
        .find(|character: char| !(is_name(character) || character == '.'))
        .map_or(rest.len(), |l| l + 1);
    let exponent = rest[..length].ends_with(['e', 'E']) && rest[length..].starts_with(['+', '-']);
    if exponent {
        length + 1 + name_length(&rest[length + 1..])
    } else {
        length
    }
}
