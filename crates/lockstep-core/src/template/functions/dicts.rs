//! Functions for dictionaries. Unlike in Sprig, fields are always sorted by name, so that the
//! output is stable.

use gtmpl_ng::Value;

use super::values::{Fields, Outcome, count, dict, is_empty, list, sorted, strings, text};

pub(super) fn make(arguments: &[Value]) -> Outcome {
    let mut fields = Fields::new();
    for pair in arguments.chunks(2) {
        let value = pair.get(1).cloned().unwrap_or_else(|| Value::from(""));
        fields.insert(text(&pair[0]).into_owned(), value);
    }
    Ok(Value::Map(fields))
}

pub(super) fn get(arguments: &[Value]) -> Outcome {
    Ok(dict(&arguments[0])?
        .get(text(&arguments[1]).as_ref())
        .cloned()
        .unwrap_or_else(|| Value::from("")))
}

pub(super) fn set(arguments: &[Value]) -> Outcome {
    let mut fields = dict(&arguments[0])?.clone();
    fields.insert(text(&arguments[1]).into_owned(), arguments[2].clone());
    Ok(Value::Map(fields))
}

pub(super) fn unset(arguments: &[Value]) -> Outcome {
    let mut fields = dict(&arguments[0])?.clone();
    fields.remove(text(&arguments[1]).as_ref());
    Ok(Value::Map(fields))
}

pub(super) fn has_key(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(
        dict(&arguments[0])?.contains_key(text(&arguments[1]).as_ref()),
    ))
}

pub(super) fn keys(arguments: &[Value]) -> Outcome {
    let mut keys = vec![];
    for argument in arguments {
        keys.extend(sorted(dict(argument)?).into_iter().map(|(key, _)| key.clone()));
    }
    strings(keys)
}

pub(super) fn values(arguments: &[Value]) -> Outcome {
    Ok(Value::Array(
        sorted(dict(&arguments[0])?)
            .into_iter()
            .map(|(_, value)| value.clone())
            .collect(),
    ))
}

pub(super) fn pluck(arguments: &[Value]) -> Outcome {
    let (key, dicts) = arguments.split_first().ok_or("it takes a key")?;
    let key = text(key);
    let mut found = vec![];
    for argument in dicts {
        found.extend(dict(argument)?.get(key.as_ref()).cloned());
    }
    Ok(Value::Array(found))
}

pub(super) fn pick(arguments: &[Value]) -> Outcome {
    let fields = dict(&arguments[0])?;
    let picked = arguments[1..]
        .iter()
        .filter_map(|key| fields.get_key_value(text(key).as_ref()));
    Ok(Value::Map(
        picked.map(|(key, value)| (key.clone(), value.clone())).collect(),
    ))
}

pub(super) fn omit(arguments: &[Value]) -> Outcome {
    let mut fields = dict(&arguments[0])?.clone();
    for key in &arguments[1..] {
        fields.remove(text(key).as_ref());
    }
    Ok(Value::Map(fields))
}

pub(super) fn merge(arguments: &[Value]) -> Outcome {
    merged(arguments, false)
}

pub(super) fn merge_overwrite(arguments: &[Value]) -> Outcome {
    merged(arguments, true)
}

fn merged(arguments: &[Value], overwrite: bool) -> Outcome {
    let (target, sources) = arguments.split_first().ok_or("it takes dictionaries")?;
    let mut fields = dict(target)?.clone();
    for source in sources {
        merge_into(&mut fields, dict(source)?, overwrite);
    }
    Ok(Value::Map(fields))
}

/// Merges dictionaries recursively. The depth is bounded, because the engine holds no value that is
/// nested deeper than 128.
fn merge_into(target: &mut Fields, source: &Fields, overwrite: bool) {
    for (key, value) in source {
        match (target.get_mut(key), value) {
            (Some(Value::Map(inner) | Value::Object(inner)), Value::Map(other) | Value::Object(other)) => {
                merge_into(inner, other, overwrite);
            }
            (Some(old), new) => {
                if is_empty(old) || overwrite {
                    *old = new.clone();
                }
            }
            (None, new) => {
                target.insert(key.clone(), new.clone());
            }
        }
    }
}

pub(super) fn copy(arguments: &[Value]) -> Outcome {
    Ok(arguments[0].clone())
}

pub(super) fn dig(arguments: &[Value]) -> Outcome {
    let (fields, arguments) = arguments.split_last().ok_or("it takes a dictionary")?;
    let (default, path) = arguments.split_last().ok_or("it takes keys and a default")?;
    dict(fields)?;
    let mut found = fields;
    for key in path {
        let (Value::Map(fields) | Value::Object(fields)) = found else {
            return Err("a key leads into what is no dictionary");
        };
        match fields.get(text(key).as_ref()) {
            Some(value) => found = value,
            None => return Ok(default.clone()),
        }
    }
    Ok(found.clone())
}

pub(super) fn index(arguments: &[Value]) -> Outcome {
    let (first, keys) = arguments.split_first().ok_or("it takes a list or a dictionary")?;
    let mut found = first;
    for key in keys {
        found = match found {
            Value::Map(fields) | Value::Object(fields) => match fields.get(text(key).as_ref()) {
                Some(value) => value,
                None => return Ok(Value::NoValue),
            },
            Value::Array(_) => list(found)?
                .get(count(key)?)
                .ok_or("the index lies outside of the list")?,
            Value::Nil | Value::NoValue => return Ok(Value::NoValue),
            Value::String(text) => {
                let byte = text
                    .as_bytes()
                    .get(count(key)?)
                    .ok_or("the index lies outside of the text")?;
                return Ok(Value::from(i64::from(*byte)));
            }
            _ => return Err("it takes a list or a dictionary"),
        };
    }
    Ok(found.clone())
}

pub(super) fn len(arguments: &[Value]) -> Outcome {
    let len = match &arguments[0] {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Map(fields) | Value::Object(fields) => fields.len(),
        _ => return Err("it takes a text, a list or a dictionary"),
    };
    Ok(Value::from(len))
}
