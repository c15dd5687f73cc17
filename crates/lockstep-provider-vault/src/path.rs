//! Paths: what may stand in one, and where on the server a key is.

use lockstep_api::vault::KvVersion;

/// Why a path cannot be used. Reads on after the name of what holds it: `key "a//b" `.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// A leading, trailing or doubled slash.
    #[error("has an empty segment: it must not begin or end with a slash, nor hold two in a row")]
    EmptySegment,
    /// `.` or `..`.
    #[error("has a segment \".\" or \"..\"")]
    Dots,
    /// A control character.
    #[error("has a control character")]
    Control,
    /// No mount path in a key of a store that has none either.
    #[error(
        "names no secret below a mount path; write it as \"<mount path>/<name>\", or set the store's path"
    )]
    NoMount,
}

/// Checks a path of one or more segments.
///
/// # Errors
/// What is wrong with it. Such a path is refused, not cleaned: a path that means something else than what it looks
/// like would slip past the store's `access` globs, which see the key as the user wrote it.
pub(crate) fn check(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    for segment in path.split('/') {
        match segment {
            "" => return Err(PathError::EmptySegment),
            "." | ".." => return Err(PathError::Dots),
            _ => {}
        }
    }
    Ok(())
}

/// A place in a key/value engine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Location {
    /// Mount path of the engine.
    pub(crate) mount: String,
    /// Path below it.
    pub(crate) path: String,
}

impl Location {
    /// What lies below it under that name.
    pub(crate) fn join(&self, segment: &str) -> Self {
        let path = if self.path.is_empty() {
            segment.to_owned()
        } else {
            format!("{}/{segment}", self.path)
        };
        Self {
            mount: self.mount.clone(),
            path,
        }
    }

    /// The path that a policy names for reading the value.
    pub(crate) fn value_policy(&self, version: KvVersion) -> String {
        match version {
            KvVersion::V1 => format!("{}/{}", self.mount, self.path),
            KvVersion::V2 => format!("{}/data/{}", self.mount, self.path),
        }
    }

    /// The path that a policy names for reading metadata (version 2) or for listing.
    pub(crate) fn metadata_policy(&self, version: KvVersion) -> String {
        match version {
            KvVersion::V1 => format!("{}/{}", self.mount, self.path),
            KvVersion::V2 => format!("{}/metadata/{}", self.mount, self.path),
        }
    }
}

/// Where a key is, by the rules of External Secrets Operator:
///
/// - with a mount path in the store, the key is below it; a key that repeats the mount path, or in version 2 the mount
///   path and `data`, means the same. A secret whose own first segment is the mount's name is written with the mount.
/// - without one, the key begins with the mount path: its first segment, or in version 2 all that stands before
///   `/data/`.
///
/// # Errors
/// What is wrong with the key.
pub(crate) fn locate(mount: Option<&str>, version: KvVersion, key: &str) -> Result<Location, PathError> {
    check(key)?;
    let (mount, path) = match mount {
        Some(mount) => {
            let below = key.strip_prefix(mount).and_then(|rest| rest.strip_prefix('/'));
            let path = match (below, version) {
                (Some(below), KvVersion::V2) => below.strip_prefix("data/").unwrap_or(below),
                (Some(below), KvVersion::V1) => below,
                (None, _) => key,
            };
            (mount, path)
        }
        None => match (version, key.split_once("/data/")) {
            (KvVersion::V2, Some(parts)) => parts,
            _ => key.split_once('/').ok_or(PathError::NoMount)?,
        },
    };
    Ok(Location {
        mount: mount.to_owned(),
        path: path.to_owned(),
    })
}

/// The shortest key that [`locate`] finds there.
pub(crate) fn key_of(mount: Option<&str>, version: KvVersion, location: &Location) -> String {
    let Location { mount: engine, path } = location;
    let short = if mount.is_some() {
        path.clone()
    } else {
        format!("{engine}/{path}")
    };
    if locate(mount, version, &short).is_ok_and(|found| found == *location) || path.is_empty() {
        return short;
    }
    match version {
        KvVersion::V1 => format!("{engine}/{path}"),
        KvVersion::V2 => format!("{engine}/data/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_with_and_without_mount_and_data() {
        let cases = [
            (
                Some("secret"),
                KvVersion::V2,
                "shop/database",
                "secret",
                "shop/database",
            ),
            (
                Some("secret"),
                KvVersion::V2,
                "secret/shop/database",
                "secret",
                "shop/database",
            ),
            (
                Some("secret"),
                KvVersion::V2,
                "secret/data/shop/database",
                "secret",
                "shop/database",
            ),
            (Some("secret"), KvVersion::V2, "data/shop", "secret", "data/shop"),
            (Some("secret"), KvVersion::V2, "secret", "secret", "secret"),
            (
                Some("secret"),
                KvVersion::V2,
                "secret/secret/shop",
                "secret",
                "secret/shop",
            ),
            (
                Some("secret"),
                KvVersion::V2,
                "secrets/shop",
                "secret",
                "secrets/shop",
            ),
            (
                Some("team/kv"),
                KvVersion::V2,
                "team/kv/data/shop",
                "team/kv",
                "shop",
            ),
            (
                Some("team/kv"),
                KvVersion::V2,
                "team/shop",
                "team/kv",
                "team/shop",
            ),
            (Some("kv"), KvVersion::V1, "kv/data/shop", "kv", "data/shop"),
            (Some("kv"), KvVersion::V1, "shop", "kv", "shop"),
            (
                None,
                KvVersion::V2,
                "secret/shop/database",
                "secret",
                "shop/database",
            ),
            (
                None,
                KvVersion::V2,
                "secret/data/shop/database",
                "secret",
                "shop/database",
            ),
            (None, KvVersion::V2, "team/kv/data/shop", "team/kv", "shop"),
            (None, KvVersion::V1, "kv/data/shop", "kv", "data/shop"),
            (None, KvVersion::V2, "secret/größe/日本", "secret", "größe/日本"),
        ];
        for (mount, version, key, want_mount, want_path) in cases {
            let location = locate(mount, version, key).unwrap();
            assert_eq!(
                (location.mount.as_str(), location.path.as_str()),
                (want_mount, want_path),
                "{key}"
            );
        }
    }

    #[test]
    fn a_key_that_is_no_path_is_refused() {
        let cases = [
            ("", PathError::Empty),
            ("/shop", PathError::EmptySegment),
            ("shop/", PathError::EmptySegment),
            ("a//b", PathError::EmptySegment),
            ("../sys/seal", PathError::Dots),
            ("a/./b", PathError::Dots),
            ("a/..", PathError::Dots),
            ("a\nb", PathError::Control),
            ("a\0b", PathError::Control),
        ];
        for (key, want) in cases {
            assert_eq!(locate(Some("secret"), KvVersion::V2, key), Err(want), "{key:?}");
            assert_eq!(locate(None, KvVersion::V2, key), Err(want), "{key:?}");
        }
        assert_eq!(locate(None, KvVersion::V2, "shop"), Err(PathError::NoMount));
    }

    #[test]
    fn the_policy_paths_are_those_of_the_engine_version() {
        let location = Location {
            mount: "secret".to_owned(),
            path: "shop/database".to_owned(),
        };
        assert_eq!(location.value_policy(KvVersion::V2), "secret/data/shop/database");
        assert_eq!(location.value_policy(KvVersion::V1), "secret/shop/database");
        assert_eq!(
            location.metadata_policy(KvVersion::V2),
            "secret/metadata/shop/database"
        );
        assert_eq!(location.metadata_policy(KvVersion::V1), "secret/shop/database");
    }

    #[test]
    fn the_key_of_a_place_leads_back_to_it() {
        for mount in [None, Some("secret")] {
            for version in [KvVersion::V1, KvVersion::V2] {
                for path in [
                    "shop",
                    "shop/database",
                    "secret/shop",
                    "secret",
                    "data/shop",
                    "a/data/b",
                    "secret/data/x",
                ] {
                    let location = Location {
                        mount: "secret".to_owned(),
                        path: path.to_owned(),
                    };
                    let key = key_of(mount, version, &location);
                    assert_eq!(
                        locate(mount, version, &key),
                        Ok(location),
                        "{mount:?} {version:?} {path}: {key}"
                    );
                }
            }
        }
        let location = Location {
            mount: "secret".to_owned(),
            path: "shop/database".to_owned(),
        };
        assert_eq!(key_of(Some("secret"), KvVersion::V2, &location), "shop/database");
        assert_eq!(key_of(None, KvVersion::V2, &location), "secret/shop/database");
    }
}
