//! Functions for regular expressions (RE2 syntax), with limits of program size, text length, time
//! and results.
//!
//! The time of one search is proportional to the product of text length and program size, so the
//! product is limited. Functions that search again after each match can take that time for each
//! match, so they check the deadline of the template between searches.

use gtmpl_ng::Value;
use regex::Regex;

use super::values::{MAX_VALUE, Outcome, TOO_LARGE, TOO_SLOW, bounded, integer, strings, text};
use crate::{
    search::{self, SearchError},
    template::session,
};

fn compile(pattern: &Value, searched: &str, groups: bool) -> Result<Regex, &'static str> {
    search::compile(&text(pattern), searched.len(), groups).map_err(|error| match error {
        SearchError::Invalid => "the regular expression is not valid, or too large",
        SearchError::TooMuch => {
            "the text is too long for a regular expression of this size; it may be 1 MiB for a small one, and 16 KiB for the largest"
        }
    })
}

fn limit(value: &Value) -> Result<usize, &'static str> {
    Ok(usize::try_from(integer(value)?).unwrap_or(usize::MAX))
}

pub(super) fn matches(arguments: &[Value]) -> Outcome {
    let text = text(&arguments[1]);
    Ok(Value::Bool(compile(&arguments[0], &text, false)?.is_match(&text)))
}

pub(super) fn find(arguments: &[Value]) -> Outcome {
    let text = text(&arguments[1]);
    Ok(Value::from(
        compile(&arguments[0], &text, false)?
            .find(&text)
            .map_or("", |found| found.as_str()),
    ))
}

pub(super) fn find_all(arguments: &[Value]) -> Outcome {
    let text = text(&arguments[1]);
    let pattern = compile(&arguments[0], &text, false)?;
    let found = pattern.find_iter(&text).take(limit(&arguments[2])?);
    strings(found.map(|found| found.as_str().to_owned()))
}

pub(super) fn replace_all(arguments: &[Value]) -> Outcome {
    let (whole, replacement) = (text(&arguments[1]), text(&arguments[2]));
    if !replacement.contains('$') {
        return replaced_literally(&arguments[0], &whole, &replacement);
    }
    let pattern = compile(&arguments[0], &whole, true)?;
    let (mut result, mut end) = (String::new(), 0);
    for captures in pattern.captures_iter(&whole) {
        let Some(found) = captures.get(0) else { continue };
        result.push_str(&whole[end..found.start()]);
        captures.expand(&replacement, &mut result);
        end = found.end();
        check_limits(&result)?;
    }
    result.push_str(&whole[end..]);
    bounded(result)
}

pub(super) fn replace_all_literal(arguments: &[Value]) -> Outcome {
    replaced_literally(&arguments[0], &text(&arguments[1]), &text(&arguments[2]))
}

fn replaced_literally(pattern: &Value, whole: &str, replacement: &str) -> Outcome {
    let pattern = compile(pattern, whole, false)?;
    let (mut result, mut end) = (String::new(), 0);
    for found in pattern.find_iter(whole) {
        result.push_str(&whole[end..found.start()]);
        result.push_str(replacement);
        end = found.end();
        check_limits(&result)?;
    }
    result.push_str(&whole[end..]);
    bounded(result)
}

fn check_limits(result: &str) -> Result<(), &'static str> {
    if result.len() > MAX_VALUE {
        return Err(TOO_LARGE);
    }
    if session::is_late() {
        return Err(TOO_SLOW);
    }
    Ok(())
}

pub(super) fn split(arguments: &[Value]) -> Outcome {
    let whole = text(&arguments[1]);
    let pattern = compile(&arguments[0], &whole, false)?;
    strings(pattern.splitn(&whole, limit(&arguments[2])?).map(str::to_owned))
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
    bounded(quoted)
}
