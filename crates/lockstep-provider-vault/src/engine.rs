//! The engines that issue credentials, and where in each of them.
//!
//! Everything else is refused: a request to another engine, or to another path of one of these, may write. For the same reason, values
//! are encrypted and decrypted only where the server has a transit engine.

use serde::Deserialize;

/// Types of engines, and the paths below their mount at which they issue credentials. `+` is any one segment.
///
/// `docs/guides/leases.md` has the same list.
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

/// What the names of engines begin with that are not built in.
const PLUGINS: [&str; 2] = ["vault-plugin-secrets-", "openbao-plugin-secrets-"];

/// The type of the engine that encrypts and decrypts.
const TRANSIT: &str = "transit";

/// An engine, as the server tells of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Mount {
    /// Its mount path, with a slash at the end.
    path: String,
    /// Its type.
    #[serde(rename = "type")]
    kind: String,
}

/// Checks that a path is one at which the engine issues credentials.
///
/// # Errors
/// What is wrong with the path, to be read after it, and what to do.
pub(crate) fn check(mount: &Mount, path: &str) -> Result<(), (String, String)> {
    let root = mount.path.trim_end_matches('/');
    let below = path
        .strip_prefix(root)
        .and_then(|rest| rest.strip_prefix('/'))
        .filter(|_| !root.is_empty());
    let kind = PLUGINS
        .iter()
        .find_map(|plugin| mount.kind.strip_prefix(plugin))
        .unwrap_or(&mount.kind);
    let engine = ENGINES.iter().find(|(name, _)| *name == kind);
    let (Some(below), Some((name, paths))) = (below, engine) else {
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

/// Checks that an engine is a transit engine, and that a path is its whole mount path, without slashes at the ends.
///
/// # Errors
/// What is wrong with the path, to be read after it.
pub(crate) fn check_transit(mount: &Mount, path: &str) -> Result<(), &'static str> {
    if mount.kind != TRANSIT {
        return Err("is not a transit engine");
    }
    if path.is_empty() || mount.path.strip_suffix('/').unwrap_or(&mount.path) != path {
        return Err("is not the mount path of the transit engine there");
    }
    Ok(())
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
        };
        check(&mount, path).is_ok()
    }

    #[test]
    fn engines_issue_credentials_at_these_paths_alone() {
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
            // the server answers for another mount than the path has
            ("database", "other/", "database/creds/shop"),
            ("database", "data/", "database/creds/shop"),
            ("database", "/", "database/creds/shop"),
            ("database", "", "database/creds/shop"),
        ] {
            assert!(!is_allowed(kind, mount, path), "{kind} {path}");
        }
    }

    #[test]
    fn only_a_transit_engine_at_exactly_this_path_is_one() {
        let checked = |kind: &str, mount: &str, path: &str| {
            let mount = Mount {
                path: mount.to_owned(),
                kind: kind.to_owned(),
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
    fn a_refusal_lists_what_is_allowed() {
        let mount = |kind: &str| Mount {
            path: "x/".to_owned(),
            kind: kind.to_owned(),
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
}
