//! Turns errors of the engine into messages of lockstep. The text of the engine may contain values,
//! so it is never shown: it is only compared with known prefixes.

use gtmpl_ng::{ExecError, ParseError};

use super::{
    TemplateError,
    position::{at, offset},
    scan::{Action, Kind, Token},
    session::{self, Fault},
    source::{Scope, Source},
    values::Values,
};

/// Maximum number of keys that a message lists.
const MAX_KEYS: usize = 20;

/// Explains how to read a key that is not a name.
const NAME: &str = "a name has only letters, digits and \"_\". Read other keys with: index . \"the-key\".";

/// Explains why the engine could not parse a template.
pub(super) fn explain_parse_error(source: &Source<'_>, error: &ParseError) -> TemplateError {
    let ParseError::WithContext(context, message) = error else {
        return TemplateError::whole("the template cannot be parsed. Check its blocks and quotes.");
    };
    let rewritten_offset = offset(&source.rewritten.text, context.line, context.col);
    let original_offset = source.rewritten.original(rewritten_offset);
    let explanation = [
        ("undefined variable", "the variable is not declared here."),
        ("bad character", NAME),
        ("bad number", "this is not a number."),
        ("illegal number", "this is not a number."),
        ("unclosed left paren", "\"(\" is not closed by \")\"."),
        ("unclosed right paren", "\"(\" is not closed by \")\"."),
        ("unexpected right paren", "\")\" has no matching \"(\"."),
        (
            "unexpected <EOF>",
            "a block is not closed at the end of the template.",
        ),
        ("missing value", "a value is missing here."),
        ("empty command", "a value is missing here."),
        ("non executable command", "\"|\" must be followed by a function."),
        ("{{break}}", "{{ break }} is outside of {{ range }}."),
        ("{{continue}}", "{{ continue }} is outside of {{ range }}."),
        (
            "too many declarations",
            "only {{ range }} can declare two variables.",
        ),
        (
            "template multiple definition",
            "a template with this name is defined twice.",
        ),
        (
            "unexpected . after term",
            "a field can only follow a key, a variable or a closing parenthesis.",
        ),
    ]
    .iter()
    .find(|(prefix, _)| message.starts_with(prefix))
    .map_or_else(
        || unknown(source, original_offset),
        |(_, explanation)| explanation,
    );
    at(source.text, original_offset, explanation)
}

/// Explains a parse error for which the engine has no useful message.
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
        "the template cannot be parsed here."
    }
}

/// Explains why the engine could not evaluate a template.
pub(super) fn evaluate(source: &Source<'_>, values: Values<'_>, error: &ExecError) -> TemplateError {
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
    values: Values<'a>,
    place: Option<usize>,
}

impl Finding<'_> {
    fn error_here(&self, message: impl Into<String>) -> TemplateError {
        match self.place {
            Some(place) => at(self.source.text, place, message),
            None => TemplateError::whole(message),
        }
    }

    fn fault(&self, fault: Fault) -> TemplateError {
        match fault {
            Fault::Refused { function, why } => match self.own_message(function) {
                Some(message) => self.error_here(format!("{function}: {why}: {message}.")),
                None => self.error_here(format!("{function}: {why}.")),
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
                self.error_here(format!(
                    "{function} has the wrong number of arguments: expected {wanted}, got {given}."
                ))
            }
            Fault::Printed => self.missing(None),
            Fault::Missing { function } => self.missing(Some(function)),
            Fault::Binary { function } => self.binary(function),
            Fault::Full => {
                self.error_here("the template would hold more than 16 MiB of values at the same time.")
            }
        }
    }

    /// Returns the literal message of the template's own call of `fail` or `required`.
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

    /// Searches the words from the failing part on, then the words before it.
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
            (!self.values.all.contains_key(name.trim_start_matches('.')))
                .then(|| (tokens[index].span.start, name))
        });
        if let Some((place, name)) = unknown {
            let whole = self.source.action_at(place).and_then(|(action, _)| {
                let token = action.tokens.iter().find(|token| token.span.start == place)?;
                Some(self.source.word(token).trim_start_matches(['$', '.']))
            });
            let hint = match whole {
                Some(whole) if whole.contains('.') && self.values.all.contains_key(whole) => {
                    format!(" Read keys that contain a dot with: index . \"{whole}\".")
                }
                _ => String::new(),
            };
            return at(
                self.source.text,
                place,
                format!("\"{name}\" is not a key of this Secret. {}.{hint}", self.keys()),
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
                format!("\"{word}\" does not exist or is null."),
            ),
            (None, Some(function)) => {
                self.error_here(format!("{function} has an argument that does not exist."))
            }
            (None, None) => self.error_here("the value printed here does not exist or is null."),
        }
    }

    /// Returns the key of the Secret that a word reads: `.a` for `.a.b` and `$.a`, `a` for `index .
    /// "a"`.
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

    /// Lists the keys that the spec names, and counts the others.
    fn keys(&self) -> String {
        let named = || {
            self.values
                .all
                .keys()
                .filter(|key| self.values.named.contains(*key))
        };
        let listed: Vec<&str> = named().take(MAX_KEYS).map(String::as_str).collect();
        let others = self.values.all.len() - named().count();
        if listed.is_empty() {
            return match others {
                0 => "There are no keys".to_owned(),
                1 => "1 key of dataFrom is available".to_owned(),
                others => format!("{others} keys of dataFrom are available"),
            };
        }
        let more = match named().count() - listed.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let others = match others {
            0 => String::new(),
            1 => ", and 1 key of dataFrom".to_owned(),
            others => format!(", and {others} keys of dataFrom"),
        };
        format!("Available keys: {}{more}{others}", listed.join(", "))
    }

    fn binary(&self, function: &str) -> TemplateError {
        let key = self.search(|index, tokens, scope| {
            let name = self.key(index, tokens, scope)?;
            let value = self.values.all.get(name.trim_start_matches('.'))?;
            value
                .expose_str()
                .is_none()
                .then(|| (tokens[index].span.start, name))
        });
        let way_out = "Encode it with b64enc, or copy it unchanged with mergePolicy: Merge";
        match key {
            Some((place, name)) => at(
                self.source.text,
                place,
                format!("\"{name}\" is binary, but {function} accepts only text. {way_out}."),
            ),
            None => self.error_here(format!(
                "{function} accepts only text, but an argument is binary. {way_out}."
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
                        "\"{word}\" reads a field of a value without fields. Parse JSON text with fromJson."
                    ),
                ),
                None => self.error_here("only dictionaries have fields. Parse JSON text with fromJson."),
            };
        }
        let sentence = [
            (
                "range can't iterate",
                "range accepts only lists, dictionaries and whole numbers.",
            ),
            (
                "can't use",
                "a range over a number can declare only one variable.",
            ),
            (
                "range over",
                "a range over a number has at most 10000 iterations.",
            ),
            (
                "the render would run",
                "the loops have more than 100000 iterations in total.",
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
        self.error_here(sentence)
    }
}
