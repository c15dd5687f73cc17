//! The API of Parameter Store.

use std::{collections::BTreeMap, time::SystemTime};

use serde_json::{Value, json};

use super::{ACCOUNT, Aws, PageCodes, REGION, Refusal, World, page, seconds, strings};

/// Maximum number of names in one call.
const MOST_NAMES: usize = 10;
/// Maximum number of parameters on one page, by path and by filter.
const MOST_BY_PATH: usize = 10;
const MOST_DESCRIBED: usize = 50;
/// Maximum length of an advanced parameter, in bytes.
const LONGEST: usize = 8192;

const CODES: PageCodes = PageCodes {
    size: "ValidationException",
    token: "InvalidNextToken",
};

/// A parameter with its versions, the current one last.
#[derive(Debug)]
pub(crate) struct Parameter {
    kind: &'static str,
    versions: Vec<Version>,
    pub(super) tags: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Version {
    value: String,
    labels: Vec<String>,
    modified: SystemTime,
}

impl Aws {
    /// Stores a SecureString as a new version, which it returns.
    ///
    /// # Panics
    /// When the service would not store it.
    pub fn put_parameter(&self, name: &str, value: &str) -> usize {
        assert!(
            (1..=LONGEST).contains(&value.len()),
            "a value has 1 byte to 8 KiB"
        );
        self.put_parameter_as(name, "SecureString", value)
    }

    /// Stores a value of this type (`String`, `StringList`, `SecureString`) and any length as a new
    /// version, which it returns.
    pub fn put_parameter_as(&self, name: &str, kind: &'static str, value: &str) -> usize {
        let mut world = self.world.lock();
        let parameter = world
            .parameters
            .entry(name.to_owned())
            .or_insert_with(|| Parameter {
                kind,
                versions: Vec::new(),
                tags: BTreeMap::new(),
            });
        parameter.kind = kind;
        parameter.versions.push(Version {
            value: value.to_owned(),
            labels: Vec::new(),
            modified: SystemTime::now(),
        });
        parameter.versions.len()
    }

    /// Moves a label to a version, counted from 1.
    pub fn label_parameter(&self, name: &str, version: usize, label: &str) {
        if let Some(parameter) = self.world.lock().parameters.get_mut(name) {
            for known in &mut parameter.versions {
                known.labels.retain(|known| known != label);
            }
            if let Some(version) = parameter.versions.get_mut(version - 1) {
                version.labels.push(label.to_owned());
            }
        }
    }
}

pub(super) fn call(world: &mut World, action: &str, request: &Value) -> Result<Value, Refusal> {
    match action {
        "GetParameters" => read(world, request),
        "GetParametersByPath" => by_path(world, request),
        "DescribeParameters" => describe(world, request),
        "ListTagsForResource" => tags(world, request),
        _ => Err(Refusal::new("UnknownOperationException", "CANARY")),
    }
}

fn arn(name: &str) -> String {
    format!(
        "arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/{}",
        name.trim_start_matches('/')
    )
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/:".contains(&byte);
    let hierarchy = name.starts_with("arn:") || !name.contains('/') || name.starts_with('/');
    if name.is_empty() || !name.bytes().all(allowed) || !hierarchy {
        return Err(Refusal::new(
            "ValidationException",
            "Parameter name CANARY must be fully qualified",
        ));
    }
    Ok(())
}

fn shown(name: &str, parameter: &Parameter, index: usize, value: bool) -> Value {
    let Some(version) = parameter.versions.get(index) else {
        return Value::Null;
    };
    let mut shown = json!({
        "Name": name,
        "ARN": arn(name),
        "Type": parameter.kind,
        "Version": index + 1,
        "LastModifiedDate": seconds(version.modified),
        "DataType": "text",
    });
    if value {
        shown["Value"] = json!(version.value);
    }
    shown
}

fn read(world: &World, request: &Value) -> Result<Value, Refusal> {
    let names = strings(&request["Names"]);
    if names.is_empty() || names.len() > MOST_NAMES {
        let text = format!("Member must have length less than or equal to {MOST_NAMES} CANARY");
        return Err(Refusal::new("ValidationException", text));
    }
    let (mut parameters, mut invalid) = (Vec::new(), Vec::new());
    for asked in &names {
        check_name(asked)?;
        let (base, selector) = match asked.rsplit_once(':') {
            Some((base, selector)) if !base.starts_with("arn:") || !selector.starts_with("parameter/") => {
                (base, Some(selector))
            }
            _ => (asked.as_str(), None),
        };
        let found = world
            .parameters
            .iter()
            .find(|(name, _)| *name == base || arn(name) == base);
        // Permissions apply to all names of a call: one denied name denies the call.
        if world
            .denied_names
            .contains(found.map_or(base, |(name, _)| name.as_str()))
        {
            let text = format!("User CANARY is not authorized to perform: ssm:GetParameters on {base}");
            return Err(Refusal::new("AccessDeniedException", text));
        }
        let index = found.and_then(|(_, parameter)| match selector {
            None => parameter.versions.len().checked_sub(1),
            Some(selector) => parameter
                .versions
                .iter()
                .enumerate()
                .position(|(index, version)| {
                    (index + 1).to_string() == selector
                        || version.labels.iter().any(|label| label == selector)
                }),
        });
        match (found, index) {
            (Some((name, parameter)), Some(index)) => {
                let mut shown = shown(name, parameter, index, true);
                if let Some(selector) = selector {
                    shown["Selector"] = json!(format!(":{selector}"));
                }
                parameters.push(shown);
            }
            _ => invalid.push(asked),
        }
    }
    Ok(json!({ "Parameters": parameters, "InvalidParameters": invalid }))
}

fn tags(world: &World, request: &Value) -> Result<Value, Refusal> {
    let name = request["ResourceId"].as_str().unwrap_or_default();
    check_name(name)?;
    if world.denied_names.contains(name) {
        let text = format!("User CANARY is not authorized to perform: ssm:ListTagsForResource on {name}");
        return Err(Refusal::new("AccessDeniedException", text));
    }
    let parameter = world
        .parameters
        .get(name)
        .ok_or_else(|| Refusal::new("InvalidResourceId", "CANARY"))?;
    let tags = parameter.tags.iter();
    let tags: Vec<Value> = tags
        .map(|(key, value)| json!({ "Key": key, "Value": value }))
        .collect();
    Ok(json!({ "TagList": tags }))
}

fn is_below(name: &str, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let name = if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("/{name}")
    };
    name.strip_prefix(path)
        .is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
}

fn by_path(world: &World, request: &Value) -> Result<Value, Refusal> {
    let path = request["Path"].as_str().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(Refusal::new(
            "ValidationException",
            "The parameter path CANARY must start with /",
        ));
    }
    let found: Vec<Value> = world
        .parameters
        .iter()
        .filter(|(name, _)| is_below(name, path))
        .map(|(name, parameter)| shown(name, parameter, parameter.versions.len() - 1, true))
        .collect();
    answer(found, request, MOST_BY_PATH)
}

fn describe(world: &World, request: &Value) -> Result<Value, Refusal> {
    let filters = request["ParameterFilters"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let holds = |name: &str, parameter: &Parameter| {
        filters.iter().all(|filter| {
            let values = strings(&filter["Values"]);
            let key = filter["Key"].as_str().unwrap_or_default();
            match key.strip_prefix("tag:") {
                Some(tag) => parameter
                    .tags
                    .get(tag)
                    .is_some_and(|value| values.contains(value)),
                None => key == "Path" && values.iter().any(|path| is_below(name, path)),
            }
        })
    };
    let found: Vec<Value> = world
        .parameters
        .iter()
        .filter(|(name, parameter)| holds(name, parameter))
        .map(|(name, parameter)| shown(name, parameter, parameter.versions.len() - 1, false))
        .collect();
    answer(found, request, MOST_DESCRIBED)
}

fn answer(found: Vec<Value>, request: &Value, most: usize) -> Result<Value, Refusal> {
    let (found, next) = page(found, request, most, &CODES)?;
    let mut answer = json!({ "Parameters": found });
    if let Some(next) = next {
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}
