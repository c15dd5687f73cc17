use std::collections::BTreeMap;

use gtmpl_ng::{Context, Template, Value};

use super::TemplateError;
use crate::remote::SecretValue;

/// Renders a template over the keys of a Secret.
///
/// # Errors
///
/// See [`TemplateError`].
pub fn render(text: &str, values: &BTreeMap<String, SecretValue>) -> Result<SecretValue, TemplateError> {
    let mut template = Template::default();
    template.parse(text).map_err(|_| TemplateError::whole("the template does not parse"))?;
    let values: std::collections::HashMap<String, Value> = values
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), Value::from(value.expose_str()?))))
        .collect();
    let output = template
        .render(&Context::from(values))
        .map_err(|_| TemplateError::whole("the template cannot be evaluated"))?;
    Ok(SecretValue::from(output))
}

/// Renders a template whose output is a YAML map of strings.
///
/// # Errors
///
/// See [`TemplateError`].
pub fn render_map(
    text: &str,
    values: &BTreeMap<String, SecretValue>,
) -> Result<BTreeMap<String, SecretValue>, TemplateError> {
    let output = render(text, values)?;
    let map: BTreeMap<String, String> = serde_yaml_ng::from_slice(output.expose())
        .map_err(|_| TemplateError::whole("the output is not a YAML map of strings"))?;
    Ok(map.into_iter().map(|(key, value)| (key, SecretValue::from(value))).collect())
}

/// Renders the template of a `rewrite` step, with `.value` the key.
///
/// # Errors
///
/// See [`TemplateError`].
pub fn render_key(text: &str, key: &str) -> Result<String, TemplateError> {
    let values = BTreeMap::from([("value".to_owned(), SecretValue::from(key))]);
    let output = render(text, &values)?;
    output
        .expose_str()
        .map(str::to_owned)
        .ok_or_else(|| TemplateError::whole("the new key is not text"))
}

/// Parses a template, without values.
///
/// # Errors
///
/// See [`TemplateError`].
pub fn check(text: &str) -> Result<(), TemplateError> {
    Template::default().parse(text).map_err(|_| TemplateError::whole("the template does not parse"))
}
