//! Functions for paths with slashes. They process text only and access no files.

use gtmpl_ng::Value;

use super::values::{Outcome, text};

pub(super) fn base(arguments: &[Value]) -> Outcome {
    let path = text(&arguments[0]);
    if path.is_empty() {
        return Ok(Value::from("."));
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return Ok(Value::from("/"));
    }
    Ok(Value::from(trimmed.rsplit('/').next().unwrap_or(trimmed)))
}

pub(super) fn dir(arguments: &[Value]) -> Outcome {
    let path = text(&arguments[0]);
    let directory = path.rfind('/').map_or("", |slash| &path[..=slash]);
    Ok(Value::String(cleaned(directory)))
}

pub(super) fn clean(arguments: &[Value]) -> Outcome {
    Ok(Value::String(cleaned(&text(&arguments[0]))))
}

pub(super) fn ext(arguments: &[Value]) -> Outcome {
    let path = text(&arguments[0]);
    let name = path.rsplit('/').next().unwrap_or_default();
    Ok(Value::from(name.rfind('.').map_or("", |dot| &name[dot..])))
}

pub(super) fn is_abs(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(text(&arguments[0]).starts_with('/')))
}

fn cleaned(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = vec![];
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}
