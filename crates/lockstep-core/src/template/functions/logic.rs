//! Functions that choose between values, compare them, and inspect their type.

use gtmpl_ng::{NumberKind, Value, funcs};

use super::values::{Outcome, is_empty, is_nil, text};

pub(super) fn default(arguments: &[Value]) -> Outcome {
    match arguments {
        [default, given] if is_empty(given) => Ok(default.clone()),
        [_, given] => Ok(given.clone()),
        [default, ..] => Ok(default.clone()),
        [] => Ok(Value::Nil),
    }
}

pub(super) fn empty(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(is_empty(&arguments[0])))
}

pub(super) fn coalesce(arguments: &[Value]) -> Outcome {
    Ok(arguments
        .iter()
        .find(|value| !is_empty(value))
        .cloned()
        .unwrap_or(Value::NoValue))
}

pub(super) fn all(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(!arguments.iter().any(is_empty)))
}

pub(super) fn any(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(!arguments.iter().all(is_empty)))
}

pub(super) fn ternary(arguments: &[Value]) -> Outcome {
    let chosen = usize::from(is_empty(&arguments[2]));
    Ok(arguments[chosen].clone())
}

pub(super) fn required(arguments: &[Value]) -> Outcome {
    match &arguments[1] {
        Value::Nil | Value::NoValue => Err("a value that the template requires is not there"),
        Value::String(text) if text.is_empty() => Err("a value that the template requires is empty"),
        value => Ok(value.clone()),
    }
}

pub(super) fn fail(_: &[Value]) -> Outcome {
    Err("the template calls fail")
}

pub(super) fn not(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(is_empty(&arguments[0])))
}

const NOT_COMPARABLE: &str = "the values cannot be compared";

pub(super) fn eq(arguments: &[Value]) -> Outcome {
    if arguments.iter().any(is_nil) {
        let (first, rest) = arguments.split_first().ok_or(NOT_COMPARABLE)?;
        return Ok(Value::Bool(rest.iter().any(|other| {
            is_nil(first) && is_nil(other) || !is_nil(first) && !is_nil(other) && first == other
        })));
    }
    funcs::eq(arguments).map_err(|_| NOT_COMPARABLE)
}

pub(super) fn ne(arguments: &[Value]) -> Outcome {
    match eq(arguments)? {
        Value::Bool(equal) => Ok(Value::Bool(!equal)),
        _ => Err(NOT_COMPARABLE),
    }
}

pub(super) fn lt(arguments: &[Value]) -> Outcome {
    funcs::lt(arguments).map_err(|_| NOT_COMPARABLE)
}

pub(super) fn le(arguments: &[Value]) -> Outcome {
    funcs::le(arguments).map_err(|_| NOT_COMPARABLE)
}

pub(super) fn gt(arguments: &[Value]) -> Outcome {
    funcs::gt(arguments).map_err(|_| NOT_COMPARABLE)
}

pub(super) fn ge(arguments: &[Value]) -> Outcome {
    funcs::ge(arguments).map_err(|_| NOT_COMPARABLE)
}

pub(super) fn deep_equal(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(arguments[0] == arguments[1]))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil | Value::NoValue => "invalid",
        Value::Bool(_) => "bool",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Map(_) | Value::Object(_) => "map",
        Value::Function(_) => "func",
        Value::Number(number) => match number.kind() {
            NumberKind::Float(_) => "float64",
            _ => "int",
        },
    }
}

fn type_name(value: &Value) -> &'static str {
    match kind(value) {
        "invalid" => "<nil>",
        "slice" => "[]interface {}",
        "map" => "map[string]interface {}",
        other => other,
    }
}

pub(super) fn kind_of(arguments: &[Value]) -> Outcome {
    Ok(Value::from(kind(&arguments[0])))
}

pub(super) fn type_of(arguments: &[Value]) -> Outcome {
    Ok(Value::from(type_name(&arguments[0])))
}

pub(super) fn kind_is(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(same_type(&text(&arguments[0]), kind(&arguments[1]))))
}

pub(super) fn type_is(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(same_type(
        &text(&arguments[0]),
        type_name(&arguments[1]),
    )))
}

/// Compares two type names. All integers have one type here, but Go has `int` and `int64`.
fn same_type(wanted: &str, found: &str) -> bool {
    wanted == found || wanted == "int64" && found == "int"
}
