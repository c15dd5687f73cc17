//! Maps the method and path of a request to an action and a resource.

use std::collections::BTreeMap;

use axum::http::{Method, Uri};
use reqwest::Url;
use serde_json::Value;

use super::{PROJECT, PROJECT_NUMBER};

/// A parsed request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// The decoded path, without the part after the last `:`.
    pub(super) segments: Vec<String>,
    /// The part of the path after the last `:`.
    pub(super) verb: Option<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn new(method: Method, uri: &Uri, body: &[u8]) -> Self {
        let mut segments: Vec<String> = uri
            .path()
            .trim_start_matches('/')
            .split('/')
            .map(decoded)
            .collect();
        let verb = segments
            .last_mut()
            .and_then(|last| {
                last.rsplit_once(':')
                    .map(|(rest, verb)| (rest.to_owned(), verb.to_owned()))
            })
            .map(|(rest, verb)| {
                if let Some(last) = segments.last_mut() {
                    *last = rest;
                }
                verb
            });
        Self {
            method,
            segments,
            verb,
            query: form(uri.query().unwrap_or_default()),
            body: String::from_utf8_lossy(body).into_owned(),
        }
    }

    /// Returns the body, or `null` if it is not JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// Parses the fields of a form or query.
pub(super) fn form(text: &str) -> BTreeMap<String, String> {
    Url::parse(&format!("http://form/?{text}"))
        .map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default()
}

/// Decodes a segment of a path, in which `+` is literal.
fn decoded(segment: &str) -> String {
    let text = segment
        .replace('+', "%2B")
        .replace('&', "%26")
        .replace('=', "%3D");
    form(&format!("x={text}")).remove("x").unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    SecretManager,
    Kms,
    PubSub,
}

/// A method of an API.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) service: Service,
    pub(super) name: &'static str,
    /// The permission that it requires.
    pub(super) permission: &'static str,
}

const fn secret_manager(name: &'static str, permission: &'static str) -> Action {
    Action {
        service: Service::SecretManager,
        name,
        permission,
    }
}

const fn kms(name: &'static str, permission: &'static str) -> Action {
    Action {
        service: Service::Kms,
        name,
        permission,
    }
}

const fn pubsub(name: &'static str) -> Action {
    Action {
        service: Service::PubSub,
        name,
        permission: "pubsub.subscriptions.consume",
    }
}

impl Action {
    pub(super) const ACCESS: Self = secret_manager("AccessSecretVersion", "secretmanager.versions.access");
    pub(super) const LIST: Self = secret_manager("ListSecrets", "secretmanager.secrets.list");
    pub(super) const GET: Self = secret_manager("GetSecret", "secretmanager.secrets.get");
    pub(super) const CREATE: Self = secret_manager("CreateSecret", "secretmanager.secrets.create");
    pub(super) const DELETE: Self = secret_manager("DeleteSecret", "secretmanager.secrets.delete");
    pub(super) const ADD_VERSION: Self = secret_manager("AddSecretVersion", "secretmanager.versions.add");
    pub(super) const LIST_VERSIONS: Self =
        secret_manager("ListSecretVersions", "secretmanager.versions.list");
    pub(super) const GET_VERSION: Self = secret_manager("GetSecretVersion", "secretmanager.versions.get");
    pub(super) const ENABLE: Self = secret_manager("EnableSecretVersion", "secretmanager.versions.enable");
    pub(super) const DISABLE: Self = secret_manager("DisableSecretVersion", "secretmanager.versions.disable");
    pub(super) const DESTROY: Self = secret_manager("DestroySecretVersion", "secretmanager.versions.destroy");
    pub(super) const PULL: Self = pubsub("Pull");
    pub(super) const ACKNOWLEDGE: Self = pubsub("Acknowledge");
    pub(super) const ENCRYPT: Self = kms("Encrypt", "cloudkms.cryptoKeyVersions.useToEncrypt");
    pub(super) const DECRYPT: Self = kms("Decrypt", "cloudkms.cryptoKeyVersions.useToDecrypt");
    pub(super) const GET_KEY: Self = kms("GetCryptoKey", "cloudkms.cryptoKeys.get");
    pub(super) const UPDATE_KEY_VERSION: Self =
        kms("UpdateCryptoKeyVersion", "cloudkms.cryptoKeyVersions.update");
    pub(super) const DESTROY_KEY_VERSION: Self =
        kms("DestroyCryptoKeyVersion", "cloudkms.cryptoKeyVersions.destroy");
    pub(super) const GET_KEY_VERSION: Self = kms("GetCryptoKeyVersion", "cloudkms.cryptoKeyVersions.get");
}

/// The resource of a call, below the project.
#[derive(Debug)]
pub(super) struct Resource {
    project: String,
    /// The location in `projects/*/locations/*`, or `None` for `projects/*`.
    pub(super) location: Option<String>,
    /// The segments after project and location: `secrets`, `NAME`, `versions`, `latest`.
    pub(super) rest: Vec<String>,
}

impl Resource {
    /// Returns the complete path below the project.
    pub(super) fn path(&self) -> String {
        self.below(self.rest.len())
    }

    /// Returns the secret or key that contains the version, or the list itself for a call on a
    /// list.
    pub(super) fn holder(&self) -> String {
        let length = if self.rest.first().is_some_and(|first| first == "keyRings") {
            4
        } else {
            2
        };
        self.below(length)
    }

    fn below(&self, length: usize) -> String {
        let location = self
            .location
            .iter()
            .flat_map(|location| ["locations", location.as_str()]);
        let parts: Vec<&str> = location
            .chain(self.rest.iter().take(length).map(String::as_str))
            .collect();
        parts.join("/")
    }

    /// Returns the version in the path.
    pub(super) fn version(&self) -> Option<&str> {
        let is_version = |kind: &str| kind == "versions" || kind == "cryptoKeyVersions";
        let (last, before) = self.rest.split_last()?;
        is_version(before.last()?).then_some(last.as_str())
    }

    /// Whether the project is [`super::PROJECT`].
    pub(super) fn is_ours(&self) -> bool {
        self.project == PROJECT || self.project == PROJECT_NUMBER
    }
}

/// Returns the method and the resource of a request.
pub(super) fn find(asked: &Asked) -> Option<(&'static Action, Resource)> {
    let parts: Vec<&str> = asked.segments.iter().map(String::as_str).collect();
    let (project, location, rest) = match parts.as_slice() {
        ["v1", "projects", project, "locations", location, rest @ ..] => {
            (*project, Some((*location).to_owned()), rest)
        }
        ["v1", "projects", project, rest @ ..] => (*project, None, rest),
        _ => return None,
    };
    let action = action(&asked.method, rest, asked.verb.as_deref(), location.is_some())?;
    let resource = Resource {
        project: project.to_owned(),
        location,
        rest: rest.iter().map(ToString::to_string).collect(),
    };
    Some((action, resource))
}

fn action(method: &Method, rest: &[&str], verb: Option<&str>, has_location: bool) -> Option<&'static Action> {
    let action = match (method.as_str(), rest, verb) {
        ("GET", ["secrets"], None) => &Action::LIST,
        ("POST", ["secrets"], None) => &Action::CREATE,
        ("GET", ["secrets", _], None) => &Action::GET,
        ("DELETE", ["secrets", _], None) => &Action::DELETE,
        ("POST", ["secrets", _], Some("addVersion")) => &Action::ADD_VERSION,
        ("GET", ["secrets", _, "versions"], None) => &Action::LIST_VERSIONS,
        ("GET", ["secrets", _, "versions", _], None) => &Action::GET_VERSION,
        ("GET", ["secrets", _, "versions", _], Some("access")) => &Action::ACCESS,
        ("POST", ["secrets", _, "versions", _], Some("enable")) => &Action::ENABLE,
        ("POST", ["secrets", _, "versions", _], Some("disable")) => &Action::DISABLE,
        ("POST", ["secrets", _, "versions", _], Some("destroy")) => &Action::DESTROY,
        ("POST", ["subscriptions", _], Some("pull")) => &Action::PULL,
        ("POST", ["subscriptions", _], Some("acknowledge")) => &Action::ACKNOWLEDGE,
        (method, ["keyRings", _, "cryptoKeys", _, versions @ ..], verb) if has_location => {
            match (method, versions, verb) {
                ("GET", [], None) => &Action::GET_KEY,
                ("POST", [] | ["cryptoKeyVersions", _], Some("encrypt")) => &Action::ENCRYPT,
                ("POST", [], Some("decrypt")) => &Action::DECRYPT,
                ("GET", ["cryptoKeyVersions", _], None) => &Action::GET_KEY_VERSION,
                ("PATCH", ["cryptoKeyVersions", _], None) => &Action::UPDATE_KEY_VERSION,
                ("POST", ["cryptoKeyVersions", _], Some("destroy")) => &Action::DESTROY_KEY_VERSION,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(action)
}
