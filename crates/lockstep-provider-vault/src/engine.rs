//! The engines that issue credentials, and the paths where they do.
//!
//! Everything else is rejected: a request to another engine, or to another path of one of these,
//! may write. For the same reason, values are encrypted and decrypted only if the server has a
//! transit engine at the path. Keys are read and searched only in a key/value engine, and also read
//! at the paths of static roles.

use lockstep_api::vault::KvVersion;
use serde::Deserialize;

use crate::path;

/// Types of engines, and the paths below their mount at which they issue credentials. `+` stands
/// for any single segment.
///
/// `docs/guides/leases.md` contains the same list.
const ENGINES: &[(&str, &[&str])] = &[
    ("ad", &["creds/+"]),
    ("alicloud", &["creds/+"]),
    ("aws", &["creds/+", "sts/+"]),
    ("azure", &["creds/+"]),
    ("consul", &["creds/+"]),
    ("database", &["creds/+"]),
    (
        "gcp",
        &[
            "roleset/+/token",
            "roleset/+/key",
            "static-account/+/token",
            "static-account/+/key",
            "impersonated-account/+/token",
            "token/+",
            "key/+",
        ],
    ),
    ("kubernetes", &["creds/+"]),
    ("ldap", &["creds/+"]),
    ("mongodbatlas", &["creds/+"]),
    ("nomad", &["creds/+"]),
    ("openldap", &["creds/+"]),
    (
        "pki",
        &["issue/+", "sign/+", "issuer/+/issue/+", "issuer/+/sign/+"],
    ),
    ("rabbitmq", &["creds/+"]),
    ("ssh", &["creds/+", "issue/+", "sign/+"]),
    ("terraform", &["creds/+"]),
];

/// Types of engines that have static roles.
const STATIC_ENGINES: [&str; 4] = ["ad", "database", "ldap", "openldap"];

/// The paths of static roles below the mount of such an engine. A read issues nothing: it returns
/// the password of an account.
const STATIC_ROLES: [&str; 2] = ["static-creds/+", "static-cred/+"];

/// Prefixes of the type names of external plugins.
const PLUGINS: [&str; 2] = ["vault-plugin-secrets-", "openbao-plugin-secrets-"];

/// The type of the engine that encrypts and decrypts.
const TRANSIT: &str = "transit";

/// The types of key/value engines. `generic` is the old name of version 1.
const KEY_VALUE: [&str; 2] = ["kv", "generic"];

/// An engine as the server describes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Mount {
    /// The mount path, with a trailing slash.
    path: String,
    /// The type of the engine.
    #[serde(rename = "type")]
    kind: String,
    /// The options of the engine, if it has any.
    #[serde(default)]
    options: Option<Options>,
}

#[derive(Debug, Deserialize)]
struct Options {
    /// The version of a key/value engine. Defaults to 1.
    #[serde(default)]
    version: Option<String>,
}

/// Checks that the engine issues credentials at a path.
///
/// # Errors
/// What is wrong with the path, to be appended to it, and what to do.
pub(crate) fn check(mount: &Mount, path: &str) -> Result<(), (String, String)> {
    let root = mount.path.trim_end_matches('/');
    let below = path
        .strip_prefix(root)
        .and_then(|rest| rest.strip_prefix('/'))
        .filter(|_| !root.is_empty());
    let (Some(below), Some((name, paths))) = (below, issuer(mount)) else {
        let names: Vec<_> = ENGINES.iter().map(|(name, _)| *name).collect();
        return Err((
            "is not below an engine that issues credentials".to_owned(),
            format!("These do: {}", names.join(", ")),
        ));
    };
    if paths.iter().any(|pattern| is_like(pattern, below)) {
        return Ok(());
    }
    let shown: Vec<_> = paths.iter().map(|path| path.replace('+', "<name>")).collect();
    Err((
        format!("is not one at which an engine of type {name} issues credentials"),
        format!("Below its mount path these are: {}", shown.join(", ")),
    ))
}

/// Returns the entry of an engine in [`ENGINES`].
fn issuer(mount: &Mount) -> Option<&'static (&'static str, &'static [&'static str])> {
    let kind = builtin_kind(mount);
    ENGINES.iter().find(|(name, _)| *name == kind)
}

/// Returns the type of an engine. A plugin counts as the built-in engine of its name.
fn builtin_kind(mount: &Mount) -> &str {
    PLUGINS
        .iter()
        .find_map(|plugin| mount.kind.strip_prefix(plugin))
        .unwrap_or(&mount.kind)
}

/// Checks that an engine is a transit engine, and that a path is exactly its mount path, without
/// leading or trailing slash.
///
/// # Errors
/// What is wrong with the path, to be appended to it.
pub(crate) fn check_transit(mount: &Mount, path: &str) -> Result<(), &'static str> {
    if mount.kind != TRANSIT {
        return Err("is not a transit engine");
    }
    if path.is_empty() || mount.path.strip_suffix('/').unwrap_or(&mount.path) != path {
        return Err("is not the mount path of the transit engine there");
    }
    Ok(())
}

/// Checks that an engine is a key/value engine of this version, and that a path is its mount path
/// or below it. Returns the mount path without a trailing slash.
///
/// # Errors
/// What is wrong with the path, to be appended to it, and what to do.
pub(crate) fn check_kv<'a>(
    mount: &'a Mount,
    version: KvVersion,
    path: &str,
) -> Result<&'a str, (&'static str, &'static str)> {
    match (Kind::of(mount), version) {
        (Kind::Other, _) => Err((
            "is not in a key/value engine",
            "A store without spec.provider.vault.path reads no other engines",
        )),
        (Kind::UnknownKeyValue, _) => Err((
            "is in a key/value engine of an unknown version",
            "Versions 1 and 2 are supported",
        )),
        (Kind::KeyValue(KvVersion::V1), KvVersion::V2) => Err((
            "is in a key/value engine of version 1",
            "Use a store with spec.provider.vault.version set to v1",
        )),
        (Kind::KeyValue(KvVersion::V2), KvVersion::V1) => Err((
            "is in a key/value engine of version 2",
            "Use a store with spec.provider.vault.version set to v2",
        )),
        (Kind::KeyValue(_), _) => root_of(mount, path).ok_or((
            "is not below the mount path that the server returned for it",
            "Set spec.provider.vault.path of the store to the mount path of the engine",
        )),
    }
}

/// What a store with a mount path may read there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readable {
    /// Every path: the engine is a key/value engine of the store's version.
    Keys,
    /// The paths of static roles, in an engine that issues credentials at other paths.
    StaticRoles {
        /// The type of the engine.
        kind: String,
        /// The part of the store's mount path below that of the engine: empty, or a path with a
        /// trailing slash.
        folder: String,
    },
}

impl Readable {
    /// Checks that reading a path below the store's mount path issues no credential.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub(crate) fn check(&self, mount: &str, path: &str) -> Result<(), (String, String)> {
        let Self::StaticRoles { kind, folder } = self else {
            return Ok(());
        };
        let below = format!("{folder}{path}");
        if STATIC_ROLES.iter().any(|pattern| is_like(pattern, &below)) {
            return Ok(());
        }
        Err((
            format!(
                "spec.provider.vault.path: \"{mount}\" leads to an engine of type {kind}, \
                 and \"{path}\" is not the path of a static role"
            ),
            "Keys of static roles are static-creds/<name> and static-cred/<name>. \
             Use dataFrom.generate to issue a credential"
                .to_owned(),
        ))
    }

    /// Checks that the engine can be searched. An engine that issues credentials never gets a
    /// search request.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub(crate) fn check_search(&self, mount: &str) -> Result<(), (String, String)> {
        let Self::StaticRoles { kind, .. } = self else {
            return Ok(());
        };
        Err((
            format!(
                "spec.provider.vault.path: \"{mount}\" leads to an engine of type {kind}, which cannot be searched"
            ),
            "Read static roles by key: static-creds/<name> and static-cred/<name>".to_owned(),
        ))
    }
}

/// Checks that an engine holds the keys of a store with this mount path and version. With version 1
/// it can also be an engine with static roles.
///
/// # Errors
/// What is wrong with the store, and what to do.
pub(crate) fn check_named(
    mount: &Mount,
    version: KvVersion,
    path: &str,
) -> Result<Readable, (String, String)> {
    let is_held = match version {
        KvVersion::V1 => is_root(mount, path) || root_of(mount, path).is_some(),
        KvVersion::V2 => is_root(mount, path),
    };
    match (Kind::of(mount), version) {
        (Kind::KeyValue(KvVersion::V1), KvVersion::V2) => Err((
            format!("spec.provider.vault.version is v2, but the engine at \"{path}\" has version 1"),
            "Set version to v1".to_owned(),
        )),
        (Kind::KeyValue(KvVersion::V2), KvVersion::V1) => Err((
            format!("spec.provider.vault.version is v1, but the engine at \"{path}\" has version 2"),
            "Set version to v2".to_owned(),
        )),
        (Kind::UnknownKeyValue, _) => Err((
            format!("spec.provider.vault.path: the key/value engine at \"{path}\" has an unknown version"),
            "Versions 1 and 2 are supported".to_owned(),
        )),
        (Kind::KeyValue(_), _) if is_held => Ok(Readable::Keys),
        (Kind::Other, KvVersion::V1) if is_held && STATIC_ENGINES.contains(&builtin_kind(mount)) => {
            Ok(Readable::StaticRoles {
                kind: builtin_kind(mount).to_owned(),
                folder: folder_of(mount, path),
            })
        }
        (Kind::KeyValue(_) | Kind::Other, _) => Err((
            format!("spec.provider.vault.path: \"{path}\" is not the mount path of a key/value engine"),
            "Set path to the mount path of the engine, and namespace to its namespace. \
             Use dataFrom.generate to issue a credential"
                .to_owned(),
        )),
    }
}

/// The kind of an engine for a store that reads keys.
#[derive(Debug, Clone, Copy)]
enum Kind {
    KeyValue(KvVersion),
    /// A key/value engine of a version other than 1 and 2.
    UnknownKeyValue,
    Other,
}

impl Kind {
    fn of(mount: &Mount) -> Self {
        if !KEY_VALUE.contains(&mount.kind.as_str()) {
            return Self::Other;
        }
        let options = mount.options.as_ref();
        match options.and_then(|options| options.version.as_deref()) {
            None | Some("" | "1") => Self::KeyValue(KvVersion::V1),
            Some("2") => Self::KeyValue(KvVersion::V2),
            Some(_) => Self::UnknownKeyValue,
        }
    }
}

/// Returns whether a path is the mount path of an engine. Vault returns mount paths relative to
/// their namespace, and the path of a store can begin with that namespace.
fn is_root(mount: &Mount, path: &str) -> bool {
    good_root(mount).is_some_and(|root| {
        path.strip_suffix(root)
            .is_some_and(|namespace| namespace.is_empty() || namespace.ends_with('/'))
    })
}

/// Returns the mount path of an engine without a trailing slash, if a path is below it and the
/// mount is not one of the server's own.
fn root_of<'a>(mount: &'a Mount, path: &str) -> Option<&'a str> {
    good_root(mount).filter(|root| path::below(path, root).is_some())
}

/// Returns the part of a path below the mount path of an engine, with a trailing slash unless it is
/// empty.
fn folder_of(mount: &Mount, path: &str) -> String {
    let below = root_of(mount, path).and_then(|root| path::below(path, root));
    match below {
        None | Some("") => String::new(),
        Some(below) => format!("{below}/"),
    }
}

/// Returns the mount path of an engine without a trailing slash, unless it is invalid or one of the
/// server's own.
fn good_root(mount: &Mount) -> Option<&str> {
    let root = mount.path.strip_suffix('/')?;
    let is_good = path::check(root).is_ok() && path::check_mount(root).is_ok();
    is_good.then_some(root)
}

fn is_like(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.split('/'), path.split('/'));
    pattern.clone().count() == path.clone().count()
        && pattern
            .zip(path)
            .all(|(want, segment)| want == segment || (want == "+" && !segment.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(kind: &str, mount: &str, path: &str) -> bool {
        let mount = Mount {
            path: mount.to_owned(),
            kind: kind.to_owned(),
            options: None,
        };
        check(&mount, path).is_ok()
    }

    #[test]
    fn engines_issue_credentials_only_at_listed_paths() {
        for (kind, mount, path) in [
            ("database", "database/", "database/creds/shop"),
            ("database", "team/db/", "team/db/creds/shop"),
            ("aws", "aws/", "aws/sts/shop"),
            ("pki", "pki/", "pki/issuer/default/issue/shop"),
            ("gcp", "gcp/", "gcp/roleset/shop/token"),
            ("openbao-plugin-secrets-aws", "aws/", "aws/creds/shop"),
        ] {
            assert!(is_allowed(kind, mount, path), "{kind} {path}");
        }
        for (kind, mount, path) in [
            ("kv", "secret/", "secret/data/shop/db"),
            ("generic", "secret/", "secret/creds/db"),
            ("system", "sys/", "sys/policies/acl/x"),
            ("token", "auth/token/", "auth/token/create"),
            ("identity", "identity/", "identity/entity"),
            ("cubbyhole", "cubbyhole/", "cubbyhole/creds/x"),
            ("transit", "transit/", "transit/encrypt/x"),
            ("unknown", "x/", "x/creds/y"),
            ("", "x/", "x/creds/y"),
            ("database", "database/", "database/config/shop"),
            ("database", "database/", "database/roles/shop"),
            ("database", "database/", "database/rotate-root/shop"),
            ("database", "database/", "database/creds/shop/x"),
            ("database", "database/", "database/creds"),
            ("gcp", "gcp/", "gcp/roleset/shop"),
            ("pki", "pki/", "pki/root/generate/exported"),
            ("pki", "pki/", "pki/issuer/default"),
            // the server returns another mount than the path has
            ("database", "other/", "database/creds/shop"),
            ("database", "data/", "database/creds/shop"),
            ("database", "/", "database/creds/shop"),
            ("database", "", "database/creds/shop"),
        ] {
            assert!(!is_allowed(kind, mount, path), "{kind} {path}");
        }
    }

    #[test]
    fn transit_engine_must_match_the_exact_path() {
        let checked = |kind: &str, mount: &str, path: &str| {
            let mount = Mount {
                path: mount.to_owned(),
                kind: kind.to_owned(),
                options: None,
            };
            check_transit(&mount, path)
        };
        for (mount, path) in [
            ("transit/", "transit"),
            ("team/transit/", "team/transit"),
            ("transit", "transit"),
        ] {
            assert_eq!(checked("transit", mount, path), Ok(()), "{mount} {path}");
        }
        for kind in [
            "kv",
            "generic",
            "cubbyhole",
            "system",
            "token",
            "database",
            "transform",
            "Transit",
            "vault-plugin-secrets-transit",
            "",
        ] {
            assert_eq!(
                checked(kind, "transit/", "transit"),
                Err("is not a transit engine"),
                "{kind}"
            );
        }
        for (mount, path) in [
            ("transit/", "transit/encrypt"),
            ("transit/", "other"),
            ("team/transit/", "transit"),
            ("transit/", "team/transit"),
            ("transit//", "transit"),
            ("/", ""),
            ("", ""),
        ] {
            assert_eq!(
                checked("transit", mount, path),
                Err("is not the mount path of the transit engine there"),
                "{mount} {path}"
            );
        }
    }

    #[test]
    fn rejection_lists_what_is_allowed() {
        let mount = |kind: &str| Mount {
            path: "x/".to_owned(),
            kind: kind.to_owned(),
            options: None,
        };
        let (what, hint) = check(&mount("kv"), "x/creds/y").unwrap_err();
        assert_eq!(what, "is not below an engine that issues credentials");
        assert!(hint.starts_with("These do: ad, alicloud, aws,"), "{hint}");
        let (what, hint) = check(&mount("ssh"), "x/roles/y").unwrap_err();
        assert_eq!(
            what,
            "is not one at which an engine of type ssh issues credentials"
        );
        assert_eq!(
            hint,
            "Below its mount path these are: creds/<name>, issue/<name>, sign/<name>"
        );
    }

    #[test]
    fn named_mount_must_have_the_version_of_the_store() {
        let checked = |text: &str, version, path: &str| {
            let mount: Mount = serde_json::from_str(text).unwrap();
            check_named(&mount, version, path)
                .map(drop)
                .map_err(|(message, _)| message)
        };
        let (v1, v2) = (KvVersion::V1, KvVersion::V2);
        let one = r#"{"path":"team/kv/","type":"kv","options":{"version":"1"}}"#;
        let two = r#"{"path":"team/kv/","type":"kv","options":{"version":"2"}}"#;
        // Vault returns paths relative to their namespace
        for path in ["team/kv", "ns1/team/kv"] {
            assert_eq!(checked(one, v1, path), Ok(()), "{path}");
            assert_eq!(checked(two, v2, path), Ok(()), "{path}");
            for (text, version) in [(one, v2), (two, v1)] {
                let message = checked(text, version, path).unwrap_err();
                assert!(
                    message.starts_with("spec.provider.vault.version is v"),
                    "{message}"
                );
            }
        }
        // below a mount of version 1, a folder works as a mount path
        assert_eq!(checked(one, v1, "team/kv/shop"), Ok(()));
        // static roles are read with version 1
        for kind in ["database", "ldap", "vault-plugin-secrets-ad"] {
            let other = format!(r#"{{"path":"db/","type":"{kind}"}}"#);
            assert_eq!(checked(&other, v1, "db"), Ok(()), "{kind}");
            assert!(checked(&other, v2, "db").is_err(), "{kind}");
            assert!(checked(&other, v1, "other").is_err(), "{kind}");
        }
        for (kind, _) in ENGINES.iter().filter(|(kind, _)| !STATIC_ENGINES.contains(kind)) {
            let other = format!(r#"{{"path":"db/","type":"{kind}"}}"#);
            assert!(checked(&other, v1, "db").is_err(), "{kind}");
        }
        for (text, path) in [
            (two, "team/kv/shop"),
            (two, "other"),
            (two, "my-team/kv"),
            (r#"{"path":"kv/","type":"kv","options":{"version":"3"}}"#, "kv"),
            (r#"{"path":"kv/","type":"transit"}"#, "kv"),
            (r#"{"path":"kv/","type":"cubbyhole"}"#, "kv"),
            (r#"{"path":"/","type":"kv"}"#, "kv"),
            (r#"{"path":"","type":"kv"}"#, "kv"),
            (r#"{"path":"auth/","type":"kv"}"#, "ns1/auth"),
        ] {
            for version in [v1, v2] {
                assert!(checked(text, version, path).is_err(), "{text} {path}");
            }
        }
    }

    #[test]
    fn issuing_engines_are_read_only_at_static_roles() {
        let is_readable = |path: &str, key: &str| {
            let mount: Mount = serde_json::from_str(r#"{"path":"team/db/","type":"database"}"#).unwrap();
            let readable = check_named(&mount, KvVersion::V1, path).unwrap();
            readable.check(path, key).is_ok()
        };
        for (path, key) in [
            ("team/db", "static-creds/web"),
            ("team/db", "static-cred/web"),
            ("ns1/team/db", "static-creds/web"),
            ("team/db/static-creds", "web"),
        ] {
            assert!(is_readable(path, key), "{path} {key}");
        }
        for (path, key) in [
            ("team/db", "creds/web"),
            ("team/db", "static-creds"),
            ("team/db", "static-creds/web/x"),
            ("team/db", "x/static-creds/web"),
            ("ns1/team/db", "creds/web"),
            ("team/db/creds", "web"),
            ("team/db/creds", "static-creds/web"),
            ("team/db/static-creds", "web/x"),
        ] {
            assert!(!is_readable(path, key), "{path} {key}");
        }
        assert_eq!(Readable::Keys.check("kv", "creds/web"), Ok(()));
    }

    #[test]
    fn key_value_engine_must_match_version_and_path() {
        let checked = |text: &str, version, path: &str| {
            let mount: Mount = serde_json::from_str(text).unwrap();
            check_kv(&mount, version, path)
                .map(str::to_owned)
                .map_err(|(what, _)| what)
        };
        let (v1, v2) = (KvVersion::V1, KvVersion::V2);
        let two = r#"{"path":"team/kv/","type":"kv","options":{"version":"2","x":"y"}}"#;
        for path in ["team/kv", "team/kv/shop", "team/kv/shop/db"] {
            assert_eq!(checked(two, v2, path).as_deref(), Ok("team/kv"), "{path}");
        }
        for path in ["team/kvs/db", "team", "other/kv/db", "kv/db"] {
            assert!(checked(two, v2, path).is_err(), "{path}");
        }
        assert_eq!(
            checked(two, v1, "team/kv/a"),
            Err("is in a key/value engine of version 2")
        );
        for one in [
            r#"{"path":"kv/","type":"kv","options":{"version":"1"}}"#,
            r#"{"path":"kv/","type":"kv","options":null}"#,
            r#"{"path":"kv/","type":"kv","options":{}}"#,
            r#"{"path":"kv/","type":"generic"}"#,
        ] {
            assert_eq!(checked(one, v1, "kv/a").as_deref(), Ok("kv"), "{one}");
            assert_eq!(
                checked(one, v2, "kv/a"),
                Err("is in a key/value engine of version 1"),
                "{one}"
            );
        }
        for other in [
            r#"{"path":"kv/","type":"kv","options":{"version":"3"}}"#,
            r#"{"path":"kv","type":"kv"}"#,
            r#"{"path":"kv//","type":"kv"}"#,
            r#"{"path":"/","type":"kv"}"#,
            r#"{"path":"","type":"kv"}"#,
            r#"{"path":"sys/","type":"kv"}"#,
            r#"{"path":"kv/","type":"KV"}"#,
            r#"{"path":"kv/","type":"cubbyhole"}"#,
            r#"{"path":"kv/","type":"database"}"#,
            r#"{"path":"kv/","type":""}"#,
        ] {
            for path in ["kv/a", "sys/a", "/a"] {
                assert!(checked(other, v1, path).is_err(), "{other} {path}");
            }
        }
    }
}
