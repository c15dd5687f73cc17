//! Checks one property of every provider: every request stays within the grant.
//!
//! A provider's tests pass each [`Attack`] to [`planned`], read what the plan reads, and compare
//! the backend's requests with [`covers`]. `covers` shares no code with the code under test.

use std::{collections::BTreeMap, sync::Arc};

use lockstep_api::{Access, AccessNamespaces, StoreRef, SyncedSecretSpec};
use lockstep_core::{
    access::{Grant, Namespace},
    plan::{self, Input},
    spec::StoreView,
};
use lockstep_provider::{Locator, RemoteRef};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use serde_json::json;

/// Segments that keys are built from: plain words, and texts that a parser, a server or a reader
/// could take for another location.
const WORDS: &[&str] = &[
    "shop",
    "shop",
    "db",
    "eu",
    "admin",
    "root",
    "secret",
    "secret",
    "team",
    "kv",
    "team/kv",
    "data",
    "data",
    "metadata",
    "auth",
    "sys",
    "token",
    "lookup-self",
    "identity",
    "cubbyhole",
    "a.b",
    "a-b_c",
    "größe",
    "鍵",
    "",
    ".",
    "..",
    "...",
    "%2e%2e",
    "%2F",
    "%252e",
    "a%20b",
    "a+b",
    "a b",
    "db ",
    " db",
    "db\u{a0}",
    "\u{200b}",
    "\u{202e}",
    "\t",
    "a\\b",
    "..\\",
    "?list=true",
    "a?b",
    "#x",
    ";x",
    "a:b",
    "a=b",
    "a@b",
    "*",
    "projects",
    "secrets",
    "versions",
    "projects/shop-prod/secrets/db",
    "projects/other/secrets/db",
    "projects/shop-prod/secrets/db/versions/3",
    "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/db-AbCdEf",
    "arn:aws:secretsmanager:us-east-1:123456789012:secret:shop/db",
    "arn:aws:ssm:eu-central-1:123456789012:parameter/shop/db",
];
/// Segments that every provider accepts in a key.
const PLAIN: &[&str] = &["shop", "db", "eu", "secret", "team"];
/// Segments that globs are built from.
const GLOBS: &[&str] = &[
    "shop",
    "shop",
    "db",
    "eu",
    "secret",
    "team",
    "kv",
    "data",
    "admin",
    "*",
    "*",
    "**",
    "**",
    "??",
    "???",
    "d*",
    "*b",
    "größe",
    "arn:aws:ssm:eu-central-1:123456789012:parameter",
    "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop",
];

/// A key written by a tenant, and the globs that the owner of the store granted.
#[derive(Debug, Clone)]
pub struct Attack {
    /// The key that the tenant wrote.
    pub key: String,
    /// The granted globs.
    pub globs: Vec<String>,
}

fn attack() -> impl Strategy<Value = Attack> {
    let path = |words: &'static [&'static str], most: usize| {
        let words = prop::collection::vec(prop::sample::select(words), 1..=most);
        (words, prop::bool::weighted(0.2)).prop_map(|(words, rooted)| {
            let path = words.join("/");
            if rooted { format!("/{path}") } else { path }
        })
    };
    let key = prop_oneof![path(WORDS, 5), path(PLAIN, 2)];
    (key, prop::collection::vec(path(GLOBS, 3), 1..=3)).prop_map(|(key, globs)| Attack { key, globs })
}

/// Runs a property on many generated attacks, the same ones each time. The property returns whether
/// the key was granted.
///
/// # Panics
/// Panics with the smallest attack when the property fails, and when almost no key was granted.
pub fn attacks(cases: u32, mut property: impl FnMut(&Attack) -> Result<bool, String>) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let granted = std::cell::Cell::new(0);
    let property = std::cell::RefCell::new(&mut property);
    let result = runner.run(&attack(), |attack| {
        let is_granted = (property.borrow_mut())(&attack).map_err(TestCaseError::fail)?;
        granted.set(granted.get() + u32::from(is_granted));
        Ok(())
    });
    match result {
        Err(TestError::Fail(reason, attack)) => panic!("{attack:?}: {reason}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
        Ok(()) => assert!(granted.get() > cases / 100, "{} keys were granted", granted.get()),
    }
}

/// Returns what a plan reads for the key, or `None` if the key is not granted.
///
/// # Panics
/// Panics when a granted key does not lead to exactly one read.
pub fn planned(locator: &Arc<dyn Locator>, attack: &Attack) -> Option<RemoteRef> {
    let store: StoreRef =
        serde_json::from_value(json!({ "name": "shared", "kind": "ClusterSecretStore" })).ok()?;
    let spec: SyncedSecretSpec = serde_json::from_value(json!({
        "secretStoreRef": store, "data": [{ "secretKey": "key", "remoteRef": { "key": attack.key } }],
    }))
    .ok()?;
    let access = Access {
        namespaces: AccessNamespaces {
            names: vec!["shop".to_owned()],
            selector: None,
        },
        keys: attack.globs.clone(),
        generate: Vec::new(),
        ciphertext_scopes: Vec::new(),
    };
    let namespace = Namespace {
        name: "shop",
        labels: None,
    };
    let view = StoreView {
        configuration: "".into(),
        grant: Grant::new(&[access], namespace),
        locator: Ok(Arc::clone(locator)),
    };
    let plan = plan::plan(&Input {
        name: "name",
        namespace: "shop",
        uid: "uid",
        spec: &spec,
        stores: &BTreeMap::from([(store, view)]),
        rival: None,
    });
    let mut reads = plan.ok()?.reads;
    assert_eq!(reads.len(), 1, "one key is one read");
    reads.pop().map(|read| read.reference)
}

/// Returns whether one of the globs covers a path, segment by segment.
pub fn covers(globs: &[String], path: &str) -> bool {
    let path: Vec<&str> = path.split('/').collect();
    globs.iter().any(|glob| {
        let glob: Vec<&str> = glob.split('/').collect();
        segments(&glob, &path)
    })
}

fn segments(glob: &[&str], path: &[&str]) -> bool {
    match (glob, path) {
        ([], []) => true,
        // a trailing `**` matches at least one segment, unless it is the only segment
        (["**"], path) => !path.is_empty(),
        (["**", rest @ ..], path) => (0..=path.len()).any(|skipped| segments(rest, &path[skipped..])),
        ([glob, rest @ ..], [segment, below @ ..]) => {
            let (glob, segment): (Vec<char>, Vec<char>) = (glob.chars().collect(), segment.chars().collect());
            characters(&glob, &segment) && segments(rest, below)
        }
        _ => false,
    }
}

fn characters(glob: &[char], text: &[char]) -> bool {
    match (glob, text) {
        ([], []) => true,
        (['*', rest @ ..], text) => (0..=text.len()).any(|skipped| characters(rest, &text[skipped..])),
        (['?', rest @ ..], [_, below @ ..]) => characters(rest, below),
        ([wanted, rest @ ..], [c, below @ ..]) => wanted == c && characters(rest, below),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_matcher_compares_whole_segments() {
        let covers = |glob: &str, path: &str| covers(&[glob.to_owned()], path);
        for (glob, path) in [
            ("shop/*", "shop/db"),
            ("shop/**", "shop/eu/db"),
            ("**", "shop/db"),
            ("**/db", "db"),
            ("shop/**/db", "shop/db"),
            ("shop/???", "shop/d-b"),
            ("shop/??", "shop/鍵鍵"),
            ("d*b", "d-b"),
        ] {
            assert!(covers(glob, path), "{glob} {path}");
        }
        for (glob, path) in [
            ("shop/*", "shop/eu/db"),
            ("shop/*", "shop"),
            ("shop/**", "shop"),
            ("shop/???", "shop/db"),
            ("shop/???", "shop/db/x"),
            ("*", "shop/db"),
        ] {
            assert!(!covers(glob, path), "{glob} {path}");
        }
    }
}
