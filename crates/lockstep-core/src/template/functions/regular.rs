//! Regular expressions (RE2 syntax), with bounded programs and results.

use gtmpl_ng::Value;
use regex::{NoExpand, Regex, RegexBuilder, Replacer};

use super::values::{MAX_VALUE, Outcome, TOO_LARGE, integer, strings, text};

/// How large a compiled expression may be, in bytes.
const MAX_PROGRAM: usize = 1 << 20;

fn compile(pattern: &Value) -> Result<Regex, &'static str> {
    RegexBuilder::new(&text(pattern))
        .size_limit(MAX_PROGRAM)
        .dfa_size_limit(MAX_PROGRAM)
        .nest_limit(64)
        .build()
        .map_err(|_| "the regular expression is not valid, or too large")
}

fn limit(value: &Value) -> Result<usize, &'static str> {
    Ok(usize::try_from(integer(value)?).unwrap_or(usize::MAX))
}

pub(super) fn matches(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(
        compile(&arguments[0])?.is_match(&text(&arguments[1])),
    ))
}

pub(super) fn find(arguments: &[Value]) -> Outcome {
    let text = text(&arguments[1]);
    Ok(Value::from(
        compile(&arguments[0])?
            .find(&text)
            .map_or("", |found| found.as_str()),
    ))
}

pub(super) fn find_all(arguments: &[Value]) -> Outcome {
    let text = text(&arguments[1]);
    let found = compile(&arguments[0])?;
    let found = found.find_iter(&text).take(limit(&arguments[2])?);
    Ok(strings(found.map(|found| found.as_str().to_owned())))
}

pub(super) fn replace_all(arguments: &[Value]) -> Outcome {
    replaced(arguments, text(&arguments[2]).as_ref())
}

pub(super) fn replace_all_literal(arguments: &[Value]) -> Outcome {
    replaced(arguments, NoExpand(text(&arguments[2]).as_ref()))
}

fn replaced(arguments: &[Value], mut replacement: impl Replacer) -> Outcome {
    let pattern = compile(&arguments[0])?;
    let whole = text(&arguments[1]);
    let mut result = String::new();
    let mut end = 0;
    for captures in pattern.captures_iter(&whole) {
        let Some(found) = captures.get(0) else { continue };
        result.push_str(&whole[end..found.start()]);
        replacement.replace_append(&captures, &mut result);
        end = found.end();
        if result.len() > MAX_VALUE {
            return Err(TOO_LARGE);
        }
    }
    result.push_str(&whole[end..]);
    super::values::bounded(result)
}

pub(super) fn split(arguments: &[Value]) -> Outcome {
    let (pattern, whole) = (compile(&arguments[0])?, text(&arguments[1]));
    Ok(strings(
        pattern.splitn(&whole, limit(&arguments[2])?).map(str::to_owned),
    ))
}

pub(super) fn quote_meta(arguments: &[Value]) -> Outcome {
    let special = r"\.+*?()|[]{}^$";
    let mut quoted = String::new();
    for character in text(&arguments[0]).chars() {
        if special.contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    super::values::bounded(quoted)
}
