//! Resolves keys to locations, and builds the full names of secrets and their versions.
//!
//! The location of a secret is its id: a store reads one project and one location, and a full name
//! of another one is rejected.

use lockstep_provider::{
    ErrorKind, Located, Location, LocationError, Locator, Operation, ProviderError, RemoteRef,
};

use crate::config::{ProjectRef, is_label, is_project};

/// The version that is read if none is requested: the newest, in any state.
pub(crate) const LATEST: &str = "latest";
/// Maximum length of a secret's id.
const LONGEST_ID: usize = 255;
/// Maximum length of a version's name.
const LONGEST_VERSION: usize = 63;

/// A secret and a version of it. Each part is validated, because together they are the path of a
/// request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The full name: `projects/P/secrets/S`, or `projects/P/locations/L/secrets/S`.
    pub(crate) secret: String,
    /// The id, which is `S` in the full name.
    pub(crate) id: String,
    /// A number, an alias, or [`LATEST`].
    pub(crate) version: String,
}

impl Name {
    /// Returns the name that a reference means.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming the key.
    pub(crate) fn new(project_ref: &ProjectRef, reference: &RemoteRef) -> Result<Self, ProviderError> {
        let id = reference.key.as_str();
        let version = reference.version.as_deref().unwrap_or(LATEST);
        let checked = check_id(id).and_then(|()| check_version(version));
        checked.map_err(|error| {
            let message = format!("key \"{}\" {error}", id.escape_debug());
            ProviderError::new(ErrorKind::ConfigInvalid, Operation::Read, message)
        })?;
        Ok(Self {
            secret: format!("{}/secrets/{id}", project_ref.parent()),
            id: id.to_owned(),
            version: version.to_owned(),
        })
    }
}

/// Parses the keys of a store: an id, or a full name in the store's own project and location, with
/// or without a version.
#[derive(Debug, Clone)]
pub(crate) struct GcpLocator {
    /// The store's project and location. `None` if it has only a KMS key.
    pub(crate) project_ref: Option<ProjectRef>,
}

impl GcpLocator {
    fn project_ref(&self) -> Result<&ProjectRef, LocationError> {
        self.project_ref.as_ref().ok_or_else(|| {
            LocationError::refused(
                "leads nowhere, because the store has a KMS key alone",
                "Set spec.provider.gcp.projectID, or use ciphertext in place of remoteRef",
            )
        })
    }
}

impl Locator for GcpLocator {
    fn locate(&self, key: &str, version: Option<&str>) -> Result<Located, LocationError> {
        let project_ref = self.project_ref()?;
        lockstep_core::remote::check(key)?;
        let parts: Vec<&str> = key.split('/').collect();
        let (parts, inner) = match parts.as_slice() {
            [rest @ .., "versions", version] if rest.len() > 1 => (rest, Some(*version)),
            all => (all, None),
        };
        let (project, location, id) = match parts {
            [id] => (None, project_ref.location.as_deref(), *id),
            ["projects", project, "secrets", id] => (Some(*project), None, *id),
            ["projects", project, "locations", location, "secrets", id] => {
                (Some(*project), Some(*location), *id)
            }
            _ => return Err(no_name()),
        };
        check_id(id)?;
        if !project.is_none_or(is_project) || !location.is_none_or(is_label) {
            return Err(no_name());
        }
        if project.is_some_and(|project| project != project_ref.project) {
            return Err(LocationError::refused(
                "is in another project than the store",
                "Use a store whose projectID is that of the secret. The number of a project is not its id",
            ));
        }
        // Each region has its own endpoint, which does not serve the secrets of others.
        if location != project_ref.location.as_deref() {
            return Err(LocationError::refused(
                "is in another location than the store",
                "Set spec.provider.gcp.location of a store to that of its secrets, and leave it out for secrets that are replicated",
            ));
        }
        let version = match (inner, version) {
            (Some(inner), Some(outer)) if inner != outer => {
                return Err(LocationError::refused(
                    "names another version than version does",
                    "Leave one of them out",
                ));
            }
            (inner, outer) => inner.or(outer),
        };
        if let Some(version) = version {
            check_version(version)?;
        }
        Ok(Located {
            location: Location::new(id)?,
            // The current version has only one spelling.
            version: version.filter(|version| *version != LATEST).map(str::to_owned),
        })
    }

    fn folder(&self, path: &str) -> Result<Option<Location>, LocationError> {
        self.project_ref()?;
        (!path.is_empty()).then(|| Location::new(path)).transpose()
    }
}

fn no_name() -> LocationError {
    LocationError::refused(
        "is neither the id of a secret nor its full name",
        "An id has letters, digits, - and _; a full name is projects/P/secrets/S, or projects/P/locations/L/secrets/S in a store with that location, with /versions/V behind it if need be",
    )
}

fn check_id(id: &str) -> Result<(), LocationError> {
    if is_word(id) && id.len() <= LONGEST_ID {
        Ok(())
    } else {
        Err(no_name())
    }
}

fn check_version(version: &str) -> Result<(), LocationError> {
    if is_word(version) && version.len() <= LONGEST_VERSION {
        return Ok(());
    }
    Err(LocationError::refused(
        "has a version that is neither a number, nor an alias, nor latest",
        "An alias has letters, digits, - and _",
    ))
}

/// Whether the text is the number of a version.
pub(crate) fn is_number(text: &str) -> bool {
    (1..=19).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the text is not empty and has only characters of ids and aliases.
pub(crate) fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project_ref(location: Option<&str>) -> ProjectRef {
        ProjectRef {
            project: "shop-prod".to_owned(),
            location: location.map(str::to_owned),
            endpoint: "https://secretmanager.googleapis.com".parse().unwrap(),
        }
    }

    fn name(key: &str, version: Option<&str>, location: Option<&str>) -> Result<String, LocationError> {
        let project_ref = project_ref(location);
        let locator = GcpLocator {
            project_ref: Some(project_ref.clone()),
        };
        let located = locator.locate(key, version)?;
        let reference = RemoteRef {
            version: located.version,
            ..RemoteRef::current(located.location)
        };
        let name = Name::new(&project_ref, &reference).unwrap();
        assert_eq!(name.id, *reference.key, "the location is the id");
        Ok(format!("{} {}", name.secret, name.version))
    }

    #[test]
    fn id_and_full_name_are_the_same_location() {
        let west = Some("europe-west3");
        let (shop, regional) = ("projects/shop-prod", "projects/shop-prod/locations/europe-west3");
        for (key, version, location, parent, want) in [
            ("a", None, None, shop, "a latest"),
            ("a", Some("3"), None, shop, "a 3"),
            ("a", Some("latest"), None, shop, "a latest"),
            ("A-b_1", Some("blue"), None, shop, "A-b_1 blue"),
            ("versions", None, None, shop, "versions latest"),
            ("a", None, west, regional, "a latest"),
            ("projects/shop-prod/secrets/a", Some("3"), None, shop, "a 3"),
            ("projects/shop-prod/secrets/a/versions/4", None, None, shop, "a 4"),
            (
                "projects/shop-prod/secrets/a/versions/4",
                Some("4"),
                None,
                shop,
                "a 4",
            ),
            (
                "projects/shop-prod/locations/europe-west3/secrets/a/versions/4",
                None,
                west,
                regional,
                "a 4",
            ),
        ] {
            assert_eq!(
                name(key, version, location).unwrap(),
                format!("{parent}/secrets/{want}")
            );
        }
    }

    #[test]
    fn key_that_could_resolve_elsewhere_is_rejected() {
        let long = "x".repeat(256);
        for (key, version, location) in [
            ("", None, None),
            (".", None, None),
            ("..", None, None),
            ("a/b", None, None),
            ("a b", None, None),
            ("a ", None, None),
            ("a\u{a0}", None, None),
            ("a?b", None, None),
            ("a%2fb", None, None),
            ("größe", None, None),
            ("a\n", None, None),
            ("a:access", None, None),
            (long.as_str(), None, None),
            ("a/versions/3", None, None),
            ("projects/../secrets/a", None, None),
            ("projects/shop-prod/secrets/a/versions", None, None),
            ("projects/shop-prod/secrets/a/versions/3/x", None, None),
            ("projects/shop-prod/secrets/a/versions/..", None, None),
            ("projects//secrets/a", None, None),
            ("projects/other/secrets/a", None, None),
            ("projects/123456789012/secrets/a", None, None),
            ("projects/shop-prod/locations/europe-west3/secrets/a", None, None),
            ("projects/shop-prod/secrets/a", None, Some("europe-west3")),
            (
                "projects/shop-prod/locations/europe-west1/secrets/a",
                None,
                Some("europe-west3"),
            ),
            ("projects/shop-prod/secrets/a/versions/3", Some("4"), None),
            ("a", Some(""), None),
            ("a", Some("3/x"), None),
            ("a", Some("3:destroy"), None),
        ] {
            assert!(name(key, version, location).is_err(), "{key:?} {version:?}");
        }
    }
}
