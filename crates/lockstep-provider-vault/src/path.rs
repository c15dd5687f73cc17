//! Validates paths, and finds the path of a key on the server.

use lockstep_api::vault::KvVersion;
use lockstep_provider::{Located, Location, LocationError, Locator};

/// The server's own mounts. They hold no values; reading them returns tokens and configuration.
const RESERVED: [&str; 4] = ["sys", "auth", "identity", "cubbyhole"];

/// Checks a path of one or more segments.
///
/// # Errors
/// What is wrong with it. Such a path is rejected, not cleaned: a reviewer could miss that it means
/// something else than it shows.
pub(crate) fn check(path: &str) -> Result<(), LocationError> {
    lockstep_core::remote::check(path)?;
    if path.split('/').any(str::is_empty) {
        return Err(LocationError::Refused(
            "has an empty segment: it must not begin or end with a slash, nor hold two in a row".to_owned(),
        ));
    }
    Ok(())
}

/// Checks that a path does not lead to the server's own mounts.
///
/// # Errors
/// Fails when its first segment is reserved.
pub(crate) fn check_mount(path: &str) -> Result<(), LocationError> {
    let first = path.split('/').next().unwrap_or_default();
    if RESERVED.contains(&first) {
        return Err(LocationError::refused(
            format!("leads to \"{first}\", which is the server's own"),
            "Keys lie below the mount path of a secrets engine",
        ));
    }
    Ok(())
}

/// Returns the part of a path below a mount path: empty for the mount path itself, `None` for a
/// path elsewhere.
pub(crate) fn below<'a>(path: &'a str, mount: &str) -> Option<&'a str> {
    match path.strip_prefix(mount)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

/// A path in a key/value engine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KvPath {
    /// The mount path of the engine.
    pub(crate) mount: String,
    /// The path below the mount path.
    pub(crate) path: String,
}

impl KvPath {
    /// Appends a segment to the path.
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

    /// Returns the policy path for reading the value.
    pub(crate) fn value_policy(&self, version: KvVersion) -> String {
        match version {
            KvVersion::V1 => format!("{}/{}", self.mount, self.path),
            KvVersion::V2 => format!("{}/data/{}", self.mount, self.path),
        }
    }

    /// Returns the policy path for reading metadata (version 2) or for listing.
    pub(crate) fn metadata_policy(&self, version: KvVersion) -> String {
        match version {
            KvVersion::V1 => format!("{}/{}", self.mount, self.path),
            KvVersion::V2 => format!("{}/metadata/{}", self.mount, self.path),
        }
    }
}

/// Parses keys by the rules of External Secrets Operator:
///
/// - If the store has a mount path, the key is below it. A key that repeats the mount path, or in
///   version 2 the mount path and `data`, means the same. If the first segment of a secret equals
///   the name of the mount, the key must include the mount path. The location is the path below the
///   mount.
/// - If the store has no mount path, the key begins with it: in version 2 everything before
///   `/data/`, otherwise at least the first segment. The location is the mount path and the path
///   below it, without `data`. Only the server knows where the mount path ends; whatever it
///   returns, the path that is read is the location.
#[derive(Debug, Clone)]
pub(crate) struct KvLocator {
    /// The mount path of the store.
    pub(crate) mount: Option<String>,
    /// The version of the engine.
    pub(crate) version: KvVersion,
}

/// Returns the error of a key that has nothing below the mount path.
fn no_secret() -> LocationError {
    LocationError::refused(
        "names no secret below a mount path",
        "Write it as \"<mount path>/<name>\", or set spec.provider.vault.path of the store",
    )
}

impl KvLocator {
    /// Returns the path below the store's mount.
    fn below<'a>(&self, mount: &str, key: &'a str) -> &'a str {
        let below = key.strip_prefix(mount).and_then(|rest| rest.strip_prefix('/'));
        match (below, self.version) {
            (Some(below), KvVersion::V2) => below.strip_prefix("data/").unwrap_or(below),
            (Some(below), KvVersion::V1) => below,
            (None, _) => key,
        }
    }

    /// Splits a key into the mount path and the path below it, for a store without a mount path.
    fn apart<'a>(&self, key: &'a str) -> Result<(&'a str, &'a str), LocationError> {
        let (mount, path) = match (self.version, key.split_once("/data/")) {
            (KvVersion::V2, Some(parts)) => parts,
            _ => key.split_once('/').ok_or_else(no_secret)?,
        };
        // in a Vault namespace, the path of an engine begins with that of the namespace
        let led = match self.version {
            KvVersion::V1 => key,
            KvVersion::V2 => mount,
        };
        if let Some(segment) = led.split('/').find(|segment| RESERVED.contains(segment)) {
            return Err(LocationError::refused(
                format!("has the segment \"{segment}\", which may lead to the server's own"),
                "Set spec.provider.vault.path of the store to the mount path of the engine",
            ));
        }
        // the server may have a longer mount path with a segment "data"
        let goes_on = path.starts_with("data/") || path.contains("/data/");
        if self.version == KvVersion::V2 && goes_on {
            return Err(LocationError::refused(
                "has a second segment \"data\", so that it is not clear where the mount path ends",
                "Set spec.provider.vault.path of the store to the mount path of the engine",
            ));
        }
        Ok((mount, path))
    }

    /// Returns the path of a location: below the mount path of the store, or below the one that the
    /// server returned for it.
    pub(crate) fn path_of(&self, location: &Location, mount: &str) -> Result<KvPath, LocationError> {
        let path = match &self.mount {
            Some(_) => Some(location.as_str()),
            None => below(location, mount),
        };
        let path = path.filter(|path| !path.is_empty()).ok_or_else(no_secret)?;
        check(path)?;
        Ok(KvPath {
            mount: mount.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Checks that the mount path that the server returned for a location is the one that was
    /// written before `/data/`. A single segment may be shorter than the mount path, because a key
    /// without `data` does not show where that ends.
    pub(crate) fn check_container(location: &Location, mount: &str) -> Result<(), LocationError> {
        let (container, _) = location.in_container().ok_or(LocationError::Empty)?;
        if container == mount || !container.contains('/') {
            return Ok(());
        }
        Err(LocationError::refused(
            format!("begins with \"{container}\", but the mount path is \"{mount}\""),
            "Write the key as \"<mount path>/<name>\", or set spec.provider.vault.path of the store",
        ))
    }

    /// Returns the location of a path.
    pub(crate) fn location_of(&self, path: &KvPath) -> Result<Location, LocationError> {
        match &self.mount {
            Some(_) => Location::new(path.path.as_str()),
            None => Location::within(&path.mount, &path.path),
        }
    }
}

impl Locator for KvLocator {
    fn locate(&self, key: &str, version: Option<&str>) -> Result<Located, LocationError> {
        check(key)?;
        let location = if let Some(mount) = &self.mount {
            Location::new(self.below(mount, key))?
        } else {
            let (mount, path) = self.apart(key)?;
            Location::within(mount, path)?
        };
        Ok(Located {
            location,
            version: version.map(str::to_owned),
        })
    }

    fn folder(&self, path: &str) -> Result<Option<Location>, LocationError> {
        lockstep_core::remote::check_visible(path)?;
        let path = path.trim_matches('/');
        if path.is_empty() {
            return Ok(None);
        }
        check(path)?;
        // the mount path alone, with or without `data`, is the root
        let bare = match self.version {
            KvVersion::V2 => path.strip_suffix("/data").unwrap_or(path),
            KvVersion::V1 => path,
        };
        match &self.mount {
            Some(mount) if bare == mount => Ok(None),
            None if !bare.contains('/') => {
                check_mount(bare)?;
                Location::within(bare, "").map(Some)
            }
            Some(_) | None => Ok(Some(self.locate(path, None)?.location)),
        }
    }

    fn issuer(&self, path: &str) -> Result<Location, LocationError> {
        check(path)?;
        check_mount(path)?;
        Location::new(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locator(mount: Option<&str>, version: KvVersion) -> KvLocator {
        KvLocator {
            mount: mount.map(str::to_owned),
            version,
        }
    }

    #[test]
    fn key_may_include_mount_and_data() {
        let (v1, v2) = (KvVersion::V1, KvVersion::V2);
        let cases = [
            (Some("secret"), v2, "shop/db", "shop/db", "secret", "shop/db"),
            (
                Some("secret"),
                v2,
                "secret/shop/db",
                "shop/db",
                "secret",
                "shop/db",
            ),
            (
                Some("secret"),
                v2,
                "secret/data/shop/db",
                "shop/db",
                "secret",
                "shop/db",
            ),
            (
                Some("secret"),
                v2,
                "data/shop",
                "data/shop",
                "secret",
                "data/shop",
            ),
            (Some("secret"), v2, "secret", "secret", "secret", "secret"),
            (
                Some("secret"),
                v2,
                "secret/secret/shop",
                "secret/shop",
                "secret",
                "secret/shop",
            ),
            (
                Some("secret"),
                v2,
                "secrets/shop",
                "secrets/shop",
                "secret",
                "secrets/shop",
            ),
            (
                Some("team/kv"),
                v2,
                "team/kv/data/shop",
                "shop",
                "team/kv",
                "shop",
            ),
            (
                Some("team/kv"),
                v2,
                "team/shop",
                "team/shop",
                "team/kv",
                "team/shop",
            ),
            (Some("kv"), v1, "kv/data/shop", "data/shop", "kv", "data/shop"),
            (Some("kv"), v1, "shop", "shop", "kv", "shop"),
            (None, v2, "secret/shop/db", "secret/shop/db", "secret", "shop/db"),
            (
                None,
                v2,
                "secret/data/shop/db",
                "secret/shop/db",
                "secret",
                "shop/db",
            ),
            (None, v2, "team/kv/data/shop", "team/kv/shop", "team/kv", "shop"),
            (None, v1, "kv/data/shop", "kv/data/shop", "kv", "data/shop"),
            (
                None,
                v2,
                "secret/größe/日本",
                "secret/größe/日本",
                "secret",
                "größe/日本",
            ),
        ];
        for (mount, version, key, canonical, want_mount, want_path) in cases {
            let locator = locator(mount, version);
            let location = locator.locate(key, None).unwrap().location;
            assert_eq!(location.as_str(), canonical, "{key}");
            let path = locator.path_of(&location, want_mount).unwrap();
            assert_eq!((&*path.mount, &*path.path), (want_mount, want_path), "{key}");
            if mount.is_none() {
                assert_eq!(KvLocator::check_container(&location, want_mount), Ok(()), "{key}");
            }
            assert_eq!(locator.location_of(&path), Ok(location), "{key}");
        }
    }

    #[test]
    fn location_is_the_path_below_the_servers_mount() {
        let locator = locator(None, KvVersion::V2);
        let located = |key: &str| locator.locate(key, None).unwrap().location;
        for (key, mount, path) in [
            ("team/kv/shop/db", "team/kv", "shop/db"),
            ("team/kv/data/shop/db", "team/kv", "shop/db"),
            ("team/kv/shop/db", "team", "kv/shop/db"),
        ] {
            let location = located(key);
            let found = locator.path_of(&location, mount).unwrap();
            assert_eq!((&*found.mount, &*found.path), (mount, path), "{key}");
            assert_eq!(
                locator.location_of(&found).unwrap().as_str(),
                location.as_str(),
                "{key}"
            );
            assert_eq!(KvLocator::check_container(&location, mount), Ok(()), "{key}");
        }
        for (key, mount) in [
            ("team/kv/db", "team/kv/db"),
            ("team/kv/db", "team/k"),
            ("team/kv/db", "other"),
            ("team/kv/db", "team/kv/db/x"),
        ] {
            assert!(locator.path_of(&located(key), mount).is_err(), "{key} {mount}");
        }
        for mount in ["kv1", "kv1/shop/eu"] {
            let location = located("kv1/shop/data/eu/a");
            let error = KvLocator::check_container(&location, mount).unwrap_err();
            assert!(error.to_string().contains("but the mount path is"), "{error}");
        }
    }

    #[test]
    fn key_that_is_not_a_path_is_rejected() {
        let cases = [
            ("", "is empty"),
            ("/shop", "empty segment"),
            ("shop/", "empty segment"),
            ("a//b", "empty segment"),
            ("../sys/seal", "\".\" or \"..\""),
            ("a/./b", "\".\" or \"..\""),
            ("a/..", "\".\" or \"..\""),
            ("a\nb", "invisible"),
            ("a\0b", "invisible"),
            ("shop/db ", "invisible"),
            (" shop/db", "invisible"),
            ("shop/db\u{a0}", "invisible"),
            ("a\\b", "backslash"),
        ];
        for (key, want) in cases {
            for mount in [Some("secret"), None] {
                let error = locator(mount, KvVersion::V2).locate(key, None).unwrap_err();
                assert!(error.to_string().contains(want), "{key:?}: {error}");
            }
        }
        let error = locator(None, KvVersion::V2).locate("shop", None).unwrap_err();
        assert!(error.to_string().contains("names no secret below a mount path"));
    }

    #[test]
    fn servers_own_mounts_are_rejected() {
        for (version, key) in [
            (KvVersion::V1, "auth/token/lookup-self"),
            (KvVersion::V1, "ns1/auth/token/lookup-self"),
            (KvVersion::V1, "sys/raw/x"),
            (KvVersion::V1, "identity/oidc/token/x"),
            (KvVersion::V1, "cubbyhole/x"),
            (KvVersion::V2, "sys/data/x"),
            (KvVersion::V2, "ns1/auth/data/role/x"),
        ] {
            let error = locator(None, version).locate(key, None).unwrap_err();
            assert!(error.to_string().contains("the server's own"), "{key}: {error}");
        }
        assert!(locator(None, KvVersion::V1).folder("sys").is_err());
        // with a mount path, a segment of that name is a folder like any other
        let below = locator(Some("kv"), KvVersion::V1).locate("auth/jwt", None);
        assert_eq!(below.unwrap().location.as_str(), "auth/jwt");
        assert!(locator(None, KvVersion::V2).locate("kv/auth/jwt", None).is_ok());
    }

    #[test]
    fn ambiguous_mount_path_is_rejected() {
        let error = locator(None, KvVersion::V2).locate("team/data/q/data/z", None);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("a second segment \"data\"")
        );
        assert!(
            locator(Some("team"), KvVersion::V2)
                .locate("q/data/z", None)
                .is_ok()
        );
    }

    #[test]
    fn issuer_path_is_below_an_engine() {
        let locator = locator(None, KvVersion::V2);
        for good in [
            "database/creds/shop",
            "team/aws/sts/shop",
            "system/creds/x",
            "authority/issue/x",
        ] {
            assert_eq!(locator.issuer(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "sys",
            "sys/raw/x",
            " sys/policies/acl/x",
            "sys /policies/acl/x",
            "auth/token/create",
            "identity/oidc/token/x",
            "cubbyhole/x",
            "/database/creds/x",
            "database//creds",
            "database/../sys/raw",
            "a\nb",
        ] {
            assert!(locator.issuer(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn search_begins_at_or_below_the_mount() {
        let folder = |mount, path: &str| {
            let folder = locator(mount, KvVersion::V2).folder(path).unwrap();
            folder.map(|folder| folder.to_string())
        };
        for path in ["", "/", "secret", "/secret/", "secret/data"] {
            assert_eq!(folder(Some("secret"), path), None, "{path}");
        }
        for path in ["shop", "shop/", "/shop/", "secret/shop", "secret/data/shop"] {
            assert_eq!(folder(Some("secret"), path).as_deref(), Some("shop"), "{path}");
        }
        assert_eq!(folder(None, "secret").as_deref(), Some("secret"));
        assert_eq!(folder(None, "secret/data").as_deref(), Some("secret"));
        assert_eq!(folder(None, "team/kv/data/shop").as_deref(), Some("team/kv/shop"));
    }

    #[test]
    fn policy_paths_depend_on_the_engine_version() {
        let path = KvPath {
            mount: "secret".to_owned(),
            path: "shop/database".to_owned(),
        };
        assert_eq!(path.value_policy(KvVersion::V2), "secret/data/shop/database");
        assert_eq!(path.value_policy(KvVersion::V1), "secret/shop/database");
        assert_eq!(
            path.metadata_policy(KvVersion::V2),
            "secret/metadata/shop/database"
        );
        assert_eq!(path.metadata_policy(KvVersion::V1), "secret/shop/database");
    }
}
