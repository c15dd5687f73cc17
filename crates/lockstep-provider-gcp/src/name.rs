//! The full name of a secret and its version, from what the user wrote.

use lockstep_provider::{ErrorKind, Operation, ProviderError, RemoteRef};

use crate::config::{Place, is_label, is_project};

/// The version that is read where none is named: the newest, whatever its state.
pub(crate) const LATEST: &str = "latest";
/// The longest id of a secret.
const LONGEST_ID: usize = 255;
/// The longest name of a version.
const LONGEST_VERSION: usize = 63;

/// A secret and a version of it. Each part is checked: together they are the path of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// `projects/P/secrets/S`, or `projects/P/locations/L/secrets/S`.
    pub(crate) secret: String,
    /// `S` of it.
    pub(crate) id: String,
    /// A number, an alias, or [`LATEST`].
    pub(crate) version: String,
}

impl Name {
    /// What a reference names: an id in the store's project, or a full name with or without a version.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming the key.
    pub(crate) fn new(place: &Place, reference: &RemoteRef) -> Result<Self, ProviderError> {
        let key = reference.key.as_str();
        let invalid = |what: &str, hint: &str| {
            let message = format!("key \"{}\" {what}", key.escape_debug());
            ProviderError::new(ErrorKind::ConfigInvalid, Operation::Read, message).with_hint(hint)
        };
        let not_one = || {
            invalid(
                "is neither the id of a secret nor its full name",
                "An id has letters, digits, - and _; a full name is projects/P/secrets/S, or projects/P/locations/L/secrets/S in a store with that location, with /versions/V behind it if need be",
            )
        };
        let parts: Vec<&str> = key.split('/').collect();
        let (parts, inner) = match parts.as_slice() {
            [rest @ .., "versions", version] if rest.len() > 1 => (rest, Some(*version)),
            all => (all, None),
        };
        let (project, location, id) = match parts {
            [id] => (None, place.location.as_deref(), *id),
            ["projects", project, "secrets", id] => (Some(*project), None, *id),
            ["projects", project, "locations", location, "secrets", id] => {
                (Some(*project), Some(*location), *id)
            }
            _ => return Err(not_one()),
        };
        let is_good = is_word(id)
            && id.len() <= LONGEST_ID
            && project.is_none_or(is_project)
            && location.is_none_or(is_label);
        if !is_good {
            return Err(not_one());
        }
        // Each region has an address of its own, and the others know nothing of its secrets.
        if location != place.location.as_deref() {
            return Err(invalid(
                "is in another location than the store",
                "Set spec.provider.gcp.location of a store to that of its secrets, and leave it out for secrets that are replicated",
            ));
        }
        let version = match (inner, reference.version.as_deref()) {
            (Some(inner), Some(outer)) if inner != outer => {
                return Err(invalid(
                    "names another version than version does",
                    "Leave one of them out",
                ));
            }
            (inner, outer) => inner.or(outer).unwrap_or(LATEST),
        };
        if !is_word(version) || version.len() > LONGEST_VERSION {
            return Err(invalid(
                "has a version that is neither a number, nor an alias, nor latest",
                "An alias has letters, digits, - and _",
            ));
        }
        let project = project.unwrap_or(&place.project);
        let secret = match location {
            Some(location) => format!("projects/{project}/locations/{location}/secrets/{id}"),
            None => format!("projects/{project}/secrets/{id}"),
        };
        Ok(Self {
            secret,
            id: id.to_owned(),
            version: version.to_owned(),
        })
    }
}

/// Whether this is the number of a version.
pub(crate) fn is_number(text: &str) -> bool {
    (1..=19).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(location: Option<&str>) -> Place {
        Place {
            project: "shop-prod".to_owned(),
            location: location.map(str::to_owned),
            endpoint: "https://secretmanager.googleapis.com".parse().unwrap(),
        }
    }

    fn name(key: &str, version: Option<&str>, location: Option<&str>) -> Result<String, ProviderError> {
        let mut reference = RemoteRef::current(key);
        reference.version = version.map(str::to_owned);
        Name::new(&place(location), &reference).map(|name| format!("{} {}", name.secret, name.version))
    }

    #[test]
    fn an_id_and_a_full_name_with_and_without_a_version_are_taken() {
        let west = Some("europe-west3");
        for (key, version, location, want) in [
            ("a", None, None, "projects/shop-prod/secrets/a latest"),
            ("a", Some("3"), None, "projects/shop-prod/secrets/a 3"),
            (
                "A-b_1",
                Some("blue"),
                None,
                "projects/shop-prod/secrets/A-b_1 blue",
            ),
            (
                "versions",
                None,
                None,
                "projects/shop-prod/secrets/versions latest",
            ),
            (
                "a",
                None,
                west,
                "projects/shop-prod/locations/europe-west3/secrets/a latest",
            ),
            (
                "projects/12/secrets/a",
                Some("3"),
                None,
                "projects/12/secrets/a 3",
            ),
            (
                "projects/12/secrets/a/versions/4",
                None,
                None,
                "projects/12/secrets/a 4",
            ),
            (
                "projects/12/secrets/a/versions/4",
                Some("4"),
                None,
                "projects/12/secrets/a 4",
            ),
            (
                "projects/example.com:x/secrets/a",
                None,
                None,
                "projects/example.com:x/secrets/a latest",
            ),
            (
                "projects/12/locations/europe-west3/secrets/a/versions/4",
                None,
                west,
                "projects/12/locations/europe-west3/secrets/a 4",
            ),
        ] {
            assert_eq!(name(key, version, location).unwrap(), want);
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused_with_the_key_in_the_message() {
        let long = "x".repeat(256);
        for (key, version, location) in [
            ("", None, None),
            (".", None, None),
            ("..", None, None),
            ("a/b", None, None),
            ("a b", None, None),
            ("a?b", None, None),
            ("a%2fb", None, None),
            ("größe", None, None),
            ("a\n", None, None),
            ("a:access", None, None),
            (long.as_str(), None, None),
            ("a/versions/3", None, None),
            ("projects/../secrets/a", None, None),
            ("projects/x/secrets/a/versions", None, None),
            ("projects/x/secrets/a/versions/3/x", None, None),
            ("projects/x/secrets/a/versions/..", None, None),
            ("projects//secrets/a", None, None),
            ("projects/x/locations/europe-west3/secrets/a", None, None),
            ("projects/x/secrets/a", None, Some("europe-west3")),
            (
                "projects/x/locations/europe-west1/secrets/a",
                None,
                Some("europe-west3"),
            ),
            ("projects/x/secrets/a/versions/3", Some("4"), None),
            ("a", Some(""), None),
            ("a", Some("3/x"), None),
            ("a", Some("3:destroy"), None),
        ] {
            let error = name(key, version, location).unwrap_err();
            assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{key}");
            assert!(
                error.message.contains(&format!("\"{}\"", key.escape_debug())),
                "{error}"
            );
        }
    }
}
