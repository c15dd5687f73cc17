use std::collections::{BTreeMap, HashMap};

use gtmpl_ng::{Context, Limits, Template, Value};

use super::{
    TemplateError, diagnose,
    functions::{FUNCTIONS, OURS},
    limits::{DEADLINE, MAX_OUTPUT},
    session,
    source::Source,
    values::Values,
};
use crate::remote::SecretValue;

/// Maximum total size of the values that a template may read, in bytes.
const MAX_VALUES: usize = 2 * 1024 * 1024;
const TOO_LARGE: &str = "the output would be larger than 1 MiB.";

/// Renders a template over the keys of a Secret.
///
/// # Errors
///
/// When the template cannot be parsed, prints a missing value, or exceeds a limit. See
/// [`TemplateError`].
pub fn render<'a>(text: &str, values: impl Into<Values<'a>>) -> Result<SecretValue, TemplateError> {
    let _session = session::begin();
    resolved(&output(text, values.into())?)
}

/// Renders a template whose output is a YAML map of strings. Numbers and booleans keep their text,
/// and null becomes an empty string. Empty output is an empty map.
///
/// # Errors
///
/// See [`render`]. Also when the output is not such a map or has a duplicate key.
pub fn render_map<'a>(
    text: &str,
    values: impl Into<Values<'a>>,
) -> Result<BTreeMap<String, SecretValue>, TemplateError> {
    let _session = session::begin();
    let mut map = BTreeMap::new();
    for (key, value) in super::map::parse(&output(text, values.into())?)? {
        map.insert(key, resolved(&value)?);
    }
    Ok(map)
}

/// Renders the template of a `rewrite` step, in which `.value` is the key.
///
/// # Errors
///
/// See [`render`].
pub fn render_key(text: &str, key: &str) -> Result<String, TemplateError> {
    let _session = session::begin();
    let values = BTreeMap::from([("value".to_owned(), SecretValue::from(key))]);
    let output = resolved(&output(text, Values::from(&values))?)?;
    output
        .expose_str()
        .map(str::to_owned)
        .ok_or_else(|| TemplateError::whole("the new key is not text."))
}

/// Parses a template, without values.
///
/// # Errors
///
/// When the template cannot be parsed, or calls a function that is not in [`FUNCTIONS`].
pub fn check(text: &str) -> Result<(), TemplateError> {
    parse(&Source::new(text)?).map(drop)
}

fn parse(source: &Source<'_>) -> Result<Template, TemplateError> {
    let limits = Limits::default()
        .with_output_bytes(MAX_OUTPUT)
        .with_function_output(2 * MAX_OUTPUT)
        .with_iterations(10_000)
        .with_total_iterations(100_000)
        .with_deadline(DEADLINE);
    let mut template = Template::with_limits(limits);
    template.funcs.clear();
    for function in FUNCTIONS {
        template.add_func(function.name, function.call);
    }
    for (name, call) in OURS {
        template.add_func(name, *call);
    }
    template
        .parse(source.rewritten.text.as_str())
        .map_err(|error| diagnose::explain_parse_error(source, &error))?;
    Ok(template)
}

/// Returns the output, with placeholders for binary values.
fn output(text: &str, values: Values<'_>) -> Result<String, TemplateError> {
    let source = Source::new(text)?;
    let template = parse(&source)?;
    if values.all.values().map(SecretValue::len).sum::<usize>() > MAX_VALUES {
        return Err(TemplateError::whole(
            "the values that the template may read exceed 2 MiB in total.",
        ));
    }
    let fields: HashMap<String, Value> = values
        .all
        .iter()
        .map(|(key, value)| Some((key.clone(), session::value_of(value.expose())?)))
        .collect::<Option<_>>()
        .ok_or_else(|| TemplateError::whole(TOO_LARGE))?;
    let mut written = vec![];
    template
        .execute(&mut written, &Context::from(fields))
        .map_err(|error| diagnose::evaluate(&source, values, &error))?;
    String::from_utf8(written).map_err(|_| TemplateError::whole("the output is not text."))
}

fn resolved(output: &str) -> Result<SecretValue, TemplateError> {
    let bytes = session::bytes_of(output).ok_or_else(|| TemplateError::whole(TOO_LARGE))?;
    Ok(SecretValue::new(bytes.into_owned()))
}
