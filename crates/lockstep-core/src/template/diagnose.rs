//! Turns what the engine says into sentences of ours. The engine's texts may hold values, so that none of them passes:
//! they are compared with known beginnings and dropped.

use std::collections::BTreeMap;

use gtmpl_ng::{ExecError, ParseError};

use super::{
    TemplateError,
    position::{at, offset},
    scan::{Action, Kind, Token},
    session::{self, Fault},
    source::{Scope, Source},
};
use crate::remote::SecretValue;

/// How many keys a message lists.
const MAX_KEYS: usize = 20;

/// What to do about a key that is no name.
const NAME: &str =
    "a name holds letters, digits and \"_\"; a key with others is read with: index . \"the-key\".";

/// Why the engine could not parse a template.
pub(super) fn parse(source: &Source<'_>, error: &ParseError) -> TemplateError {
    let ParseError::WithContext(context, message) = error else {
        return TemplateError::whole("the template does not parse; its blocks or texts are not well formed.");
    };
    let place = offset(&source.rewritten.text, context.line, context.col);
    let place = source.rewritten.original(place);
    let sentence = [
        ("undefined variable", "the variable is not declared here."),
        ("bad character", NAME),
        ("bad number", "this is not a number."),
        ("illegal number", "this is not a number."),
        ("unclosed left paren", "\"(\" is not closed by \")\"."),
        ("unclosed right paren", "\"(\" is not closed by \")\"."),
        ("unexpected right paren", "\")\" closes nothing."),
        ("unexpected <EOF>", "the template ends within a block."),
        ("missing value", "a value is missing here."),
        ("empty command", "a value is missing here."),
        ("non executable command", "behind \"|\" stands a function."),
        ("{{break}}", "{{ break }} stands outside of {{ range }}."),
        ("{{continue}}", "{{ continue }} stands outside of {{ range }}."),
        (
            "too many declarations",
            "only {{ range }} declares two variables.",
        ),
        (
            "template multiple definition",
            "a template with this name is defined twice.",
        ),
        (
            "unexpected . after term",
            "only keys, variables and parentheses have fields.",
        ),
    ]
    .iter()
    .find(|(beginning, _)| message.starts_with(beginning))
    .map_or_else(|| unknown(source, place), |(_, sentence)| sentence);
    at(source.text, place, sentence)
}

/// Why a template does not parse where the engine says nothing that helps.
fn unknown(source: &Source<'_>, place: usize) -> &'static str {
    let dashed = source.action_at(place).is_some_and(|(action, _)| {
        action
            .tokens
            .iter()
            .filter(|token| token.kind == Kind::Field)
            .any(|token| source.text[token.span.end..].starts_with('-'))
    });
    if dashed {
        NAME
    } else {
        "the template does not parse here."
    }
}

/// Why the engine could not evaluate a template.
pub(super) fn evaluate(
    source: &Source<'_>,
    values: &BTreeMap<String, SecretValue>,
    error: &ExecError,
) -> TemplateError {
    let place = error.as_structured().map(|structured| {
        let place = offset(
            &source.rewritten.text,
            structured.context.line,
            structured.context.col,
        );
        source.rewritten.original(place)
    });
    let finding = Finding {
        source,
        values,
        place,
    };
    match session::fault() {
        Some(fault) => finding.fault(fault),
        None => finding.engine(error),
    }
}

struct Finding<'a> {
    source: &'a Source<'a>,
    values: &'a BTreeMap<String, SecretValue>,
    place: Option<usize>,
}

impl Finding<'_> {
    fn here(&self, message: impl Into<String>) -> TemplateError {
        match self.place {
            Some(place) => at(self.source.text, place, message),
            None => TemplateError::whole(message),
        }
    }

    fn fault(&self, fault: Fault) -> TemplateError {
        match fault {
            Fault::Refused { function, why } => match self.own_message(function) {
                Some(message) => self.here(format!("{function}: {why}: {message}.")),
                None => self.here(format!("{function}: {why}.")),
            },
            Fault::Arguments {
                function,
                least,
                most,
                given,
            } => {
                let wanted = match (least, most) {
                    (least, most) if least == most => least.to_string(),
                    (least, usize::MAX) => format!("at least {least}"),
                    (least, most) => format!("{least} to {most}"),
                };
                self.here(format!("{function} takes {wanted} arguments; {given} are given."))
            }
            Fault::Printed => self.missing(None),
            Fault::Missing { function } => self.missing(Some(function)),
            Fault::Binary { function } => self.binary(function),
            Fault::Full => self.here("the template would hold more than 16 MiB of values at the same time."),
        }
    }

    /// The message that the template itself gives to `fail` or `required`, when it is a literal.
    fn own_message(&self, function: &str) -> Option<&str> {
        if function != "fail" && function != "required" {
            return None;
        }
        let (action, _) = self.action()?;
        action
            .tokens
            .windows(2)
            .find(|pair| pair[1].kind == Kind::Text && self.source.word(&pair[0]) == function)
            .map(|pair| self.source.word(&pair[1]))
    }

    fn action(&self) -> Option<&(Action, Scope)> {
        self.source.action_at(self.place?)
    }

    /// The words from the failing part on; all of them where that part holds no word that fits.
    fn search<T>(&self, fits: impl Fn(usize, &[Token], Scope) -> Option<T>) -> Option<T> {
        let (action, scope) = self.action()?;
        let from = action
            .tokens
            .iter()
            .position(|token| Some(token.span.end) > self.place)
            .unwrap_or(0);
        (from..action.tokens.len())
            .chain(0..from)
            .find_map(|index| fits(index, &action.tokens, *scope))
    }

    fn missing(&self, function: Option<&str>) -> TemplateError {
        let unknown = self.search(|index, tokens, scope| {
            let name = self.key(index, tokens, scope)?;
            (!self.values.contains_key(name.trim_start_matches('.')))
                .then(|| (tokens[index].span.start, name))
        });
        if let Some((place, name)) = unknown {
            let whole = self.source.action_at(place).and_then(|(action, _)| {
                let token = action.tokens.iter().find(|token| token.span.start == place)?;
                Some(self.source.word(token).trim_start_matches(['$', '.']))
            });
            let hint = match whole {
                Some(whole) if whole.contains('.') && self.values.contains_key(whole) => {
                    format!(" A key with a dot is read with: index . \"{whole}\".")
                }
                _ => String::new(),
            };
            return at(
                self.source.text,
                place,
                format!("\"{name}\" is not a key of this Secret; {}.{hint}", self.keys()),
            );
        }
        let field = self.search(|index, tokens, scope| {
            let token = &tokens[index];
            let word = self.source.word(token);
            let named = matches!(token.kind, Kind::Field | Kind::Chain)
                || token.kind == Kind::Variable && word.len() > 1;
            let known = self
                .key(index, tokens, scope)
                .is_some_and(|name| name == word.trim_start_matches('$'));
            (named && !known).then(|| (token.span.start, word.to_owned()))
        });
        match (field, function) {
            (Some((place, word)), _) => at(
                self.source.text,
                place,
                format!("\"{word}\" is not there, or null."),
            ),
            (None, Some(function)) => self.here(format!("{function} is given a value that is not there.")),
            (None, None) => self.here("the value that is printed here is not there, or null."),
        }
    }

    /// The key of the Secret that a word reads: of `.a.b` and `$.a` the `.a`, of `index . "a"` the `a`.
    fn key(&self, index: usize, tokens: &[Token], scope: Scope) -> Option<String> {
        let token = &tokens[index];
        let word = self.source.word(token);
        let root = match token.kind {
            Kind::Field | Kind::Dot => scope.dot_is_root,
            Kind::Variable => scope.dollar_is_root && (word == "$" || word.starts_with("$.")),
            _ => false,
        };
        if !root {
            return None;
        }
        if let Some(chain) = word
            .trim_start_matches('$')
            .strip_prefix('.')
            .filter(|chain| !chain.is_empty())
        {
            return Some(format!(".{}", chain.split('.').next().unwrap_or(chain)));
        }
        let literal = tokens
            .get(index + 1)
            .filter(|next| next.kind == Kind::Text)
            .map(|next| self.source.word(next))?;
        let indexes = index > 0 && self.source.word(&tokens[index - 1]) == "index";
        (indexes && !literal.contains('\\')).then(|| literal.trim_matches(['"', '`']).to_owned())
    }

    fn keys(&self) -> String {
        if self.values.is_empty() {
            return "there are no keys".to_owned();
        }
        let listed: Vec<&str> = self.values.keys().take(MAX_KEYS).map(String::as_str).collect();
        let more = match self.values.len().saturating_sub(MAX_KEYS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("keys are {}{more}", listed.join(", "))
    }

    fn binary(&self, function: &str) -> TemplateError {
        let key = self.search(|index, tokens, scope| {
            let name = self.key(index, tokens, scope)?;
            let value = self.values.get(name.trim_start_matches('.'))?;
            value
                .expose_str()
                .is_none()
                .then(|| (tokens[index].span.start, name))
        });
        let way_out = "b64enc makes text of it, and mergePolicy Merge writes it untouched";
        match key {
            Some((place, name)) => at(
                self.source.text,
                place,
                format!("\"{name}\" is binary, and {function} takes text only; {way_out}."),
            ),
            None => self.here(format!(
                "{function} takes text only, and is given a binary value; {way_out}."
            )),
        }
    }

    fn engine(&self, error: &ExecError) -> TemplateError {
        let message = error
            .as_structured()
            .map_or_else(|| error.to_string(), |structured| structured.message.clone());
        if message.starts_with("only maps and objects have fields") {
            let field = self.search(|index, tokens, _| {
                let word = self.source.word(&tokens[index]);
                (matches!(tokens[index].kind, Kind::Field | Kind::Chain | Kind::Variable)
                    && word.contains('.'))
                .then(|| (tokens[index].span.start, word.to_owned()))
            });
            return match field {
                Some((place, word)) => at(
                    self.source.text,
                    place,
                    format!(
                        "\"{word}\" asks for a field of a value that has none; fromJson makes fields of JSON text."
                    ),
                ),
                None => self.here("only dictionaries have fields; fromJson makes them of JSON text."),
            };
        }
        let sentence = [
            (
                "range can't iterate",
                "range goes over lists, dictionaries and whole numbers only.",
            ),
            ("can't use", "a range over a number has one variable only."),
            (
                "range over",
                "a range over a number has at most 10000 iterations.",
            ),
            (
                "the render would run",
                "the loops have more than 100000 iterations together.",
            ),
            ("the render would write", "the output would be larger than 1 MiB."),
            (
                "the render did not finish",
                "the template did not finish within 1 s.",
            ),
            (
                "a function produced a value larger",
                "a value would be larger than 1 MiB.",
            ),
            (
                "a function produced a value nested",
                "a value is nested deeper than 128 levels.",
            ),
            (
                "exceeded the maximum template nesting",
                "blocks and templates are nested too deep.",
            ),
            ("template ", "there is no template of this name."),
            ("can't give argument", "only functions take arguments."),
        ]
        .iter()
        .find(|(beginning, _)| message.starts_with(beginning))
        .map(|(_, sentence)| *sentence);
        let sentence = match sentence {
            Some(sentence) => sentence,
            None if message.ends_with("cannot be invoked as function") => "only functions take arguments.",
            None => "this cannot be evaluated.",
        };
        self.here(sentence)
    }
}
