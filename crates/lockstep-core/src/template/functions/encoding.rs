//! Functions for base64, JSON, YAML and digests. Functions that read bytes also accept binary
//! values.

use std::{borrow::Cow, fmt::Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use gtmpl_ng::{NumberKind, Value};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::{
    json,
    values::{MAX_VALUE, Outcome, TOO_HEAVY, TOO_LARGE, bounded, text},
};
use crate::{
    template::session,
    yaml::{self, YamlError},
};

/// Returns the bytes of an argument.
fn bytes(value: &Value) -> Result<Cow<'_, [u8]>, &'static str> {
    match text(value) {
        Cow::Borrowed(text) => session::bytes_of(text),
        Cow::Owned(text) => session::bytes_of(&text).map(|bytes| Cow::Owned(bytes.into_owned())),
    }
    .ok_or(TOO_LARGE)
}

pub(super) fn b64enc(arguments: &[Value]) -> Outcome {
    bounded(BASE64_STANDARD.encode(bytes(&arguments[0])?))
}

pub(super) fn b64dec(arguments: &[Value]) -> Outcome {
    let encoded: Vec<u8> = text(&arguments[0])
        .bytes()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    let decoded = BASE64_STANDARD
        .decode(encoded)
        .map_err(|_| "the text is not base64")?;
    session::value_of(&decoded).ok_or(TOO_HEAVY)
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

pub(super) fn b32enc(arguments: &[Value]) -> Outcome {
    let mut encoded = String::new();
    for chunk in bytes(&arguments[0])?.chunks(5) {
        let mut group = [0_u8; 8];
        group[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(group);
        let digits = (chunk.len() * 8).div_ceil(5);
        for digit in 0..8 {
            let index = (bits >> (35 - 5 * digit)) & 31;
            let symbol = usize::try_from(index)
                .ok()
                .and_then(|index| BASE32.get(index))
                .copied()
                .unwrap_or(b'=');
            encoded.push(char::from(if digit < digits { symbol } else { b'=' }));
        }
    }
    bounded(encoded)
}

pub(super) fn b32dec(arguments: &[Value]) -> Outcome {
    const NOT_BASE32: &str = "the text is not base32";
    let encoded: Vec<u8> = text(&arguments[0])
        .bytes()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    if !encoded.len().is_multiple_of(8) {
        return Err(NOT_BASE32);
    }
    let digits = encoded
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |last| last + 1);
    let mut decoded = vec![];
    let (mut bits, mut width) = (0_u32, 0_u32);
    for byte in &encoded[..digits] {
        let digit = BASE32
            .iter()
            .position(|symbol| symbol == byte)
            .ok_or(NOT_BASE32)?;
        bits = bits << 5 | u32::try_from(digit).map_err(|_| NOT_BASE32)?;
        width += 5;
        if width >= 8 {
            width -= 8;
            decoded.extend((bits >> width).to_be_bytes().last());
            bits &= (1 << width) - 1;
        }
    }
    session::value_of(&decoded).ok_or(TOO_HEAVY)
}

fn hexadecimal(digest: &[u8]) -> Value {
    let mut hexadecimal = String::new();
    for byte in digest {
        let _ = write!(hexadecimal, "{byte:02x}");
    }
    Value::String(hexadecimal)
}

pub(super) fn sha1sum(arguments: &[Value]) -> Outcome {
    Ok(hexadecimal(&Sha1::digest(bytes(&arguments[0])?)))
}

pub(super) fn sha256sum(arguments: &[Value]) -> Outcome {
    Ok(hexadecimal(&Sha256::digest(bytes(&arguments[0])?)))
}

pub(super) fn sha512sum(arguments: &[Value]) -> Outcome {
    Ok(hexadecimal(&Sha512::digest(bytes(&arguments[0])?)))
}

pub(super) fn adler32sum(arguments: &[Value]) -> Outcome {
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in bytes(&arguments[0])?.iter() {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    Ok(Value::String((high << 16 | low).to_string()))
}

fn hashed(password: &Value) -> Result<String, &'static str> {
    let password = text(password);
    if password.len() > 72 {
        return Err("bcrypt takes a password of at most 72 bytes");
    }
    bcrypt::hash(password.as_ref(), bcrypt_cost()).map_err(|_| "the password cannot be hashed")
}

/// The cost that Sprig uses.
const fn bcrypt_cost() -> u32 {
    10
}

pub(super) fn bcrypt(arguments: &[Value]) -> Outcome {
    hashed(&arguments[0]).map(Value::String)
}

pub(super) fn htpasswd(arguments: &[Value]) -> Outcome {
    let (user, password) = (text(&arguments[0]), &arguments[1]);
    if user.contains(':') {
        return Err("the user name contains a colon");
    }
    let hash = match arguments.get(2).map(text).as_deref() {
        None | Some("bcrypt") => hashed(password)?,
        Some("sha") => format!(
            "{{SHA}}{}",
            BASE64_STANDARD.encode(Sha1::digest(text(password).as_bytes()))
        ),
        Some(_) => return Err("the third argument is \"bcrypt\" or \"sha\""),
    };
    bounded(format!("{user}:{hash}"))
}

fn to_serde(value: &Value) -> Result<serde_json::Value, &'static str> {
    Ok(match value {
        Value::Nil | Value::NoValue => serde_json::Value::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => {
            serde_json::Value::Array(items.iter().map(to_serde).collect::<Result<_, _>>()?)
        }
        Value::Map(fields) | Value::Object(fields) => {
            let mut object = serde_json::Map::new();
            for (name, field) in super::values::sorted(fields) {
                object.insert(name.clone(), to_serde(field)?);
            }
            serde_json::Value::Object(object)
        }
        Value::Number(number) => match number.kind() {
            NumberKind::Signed(number) => number.into(),
            NumberKind::Unsigned(number) => number.into(),
            NumberKind::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                super::values::truncated(number).into()
            }
            NumberKind::Float(number) => serde_json::Number::from_f64(number)
                .ok_or("JSON has no such number")?
                .into(),
        },
        Value::Function(_) => return Err("a function has no such form"),
    })
}

fn escaped(json: &str, html: bool) -> Outcome {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' if html => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(character));
            }
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
        if escaped.len() > MAX_VALUE {
            return Err(TOO_LARGE);
        }
    }
    Ok(Value::String(escaped))
}

pub(super) fn to_json(arguments: &[Value]) -> Outcome {
    escaped(&to_serde(&arguments[0])?.to_string(), true)
}

pub(super) fn to_raw_json(arguments: &[Value]) -> Outcome {
    escaped(&to_serde(&arguments[0])?.to_string(), false)
}

pub(super) fn to_pretty_json(arguments: &[Value]) -> Outcome {
    escaped(&format!("{:#}", to_serde(&arguments[0])?), true)
}

pub(super) fn from_json(arguments: &[Value]) -> Outcome {
    json::read(&text(&arguments[0]))
}

pub(super) fn to_yaml(arguments: &[Value]) -> Outcome {
    let yaml =
        serde_yaml_ng::to_string(&to_serde(&arguments[0])?).map_err(|_| "the value has no form in YAML")?;
    bounded(yaml.strip_suffix('\n').unwrap_or(&yaml).to_owned())
}

pub(super) fn from_yaml(arguments: &[Value]) -> Outcome {
    const NOT_YAML: &str = "the text is not YAML";
    let text = text(&arguments[0]);
    yaml::check(&text, MAX_VALUE).map_err(|error| match error {
        YamlError::TooLarge => {
            "the text is larger than 1 MiB, or has more than 50,000 nodes, once its aliases are expanded"
        }
        YamlError::TooDeep => "the text has more than 128 levels",
        YamlError::Invalid { .. } => NOT_YAML,
    })?;
    let mut yaml: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).map_err(|_| NOT_YAML)?;
    yaml.apply_merge().map_err(|_| NOT_YAML)?;
    from_yaml_value(yaml)
}

fn from_yaml_value(yaml: serde_yaml_ng::Value) -> Outcome {
    use serde_yaml_ng::Value as Yaml;
    Ok(match yaml {
        Yaml::Null => Value::Nil,
        Yaml::Bool(truth) => Value::Bool(truth),
        Yaml::String(text) => session::value_of(text.as_bytes()).ok_or(TOO_HEAVY)?,
        Yaml::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (_, _, number) => Value::from(number.unwrap_or_default()),
        },
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(from_yaml_value).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(fields) => {
            let mut map = super::values::Fields::new();
            for (name, field) in fields {
                map.insert(
                    text(&from_yaml_value(name)?).into_owned(),
                    from_yaml_value(field)?,
                );
            }
            Value::Map(map)
        }
        Yaml::Tagged(tagged) => from_yaml_value(tagged.value)?,
    })
}
