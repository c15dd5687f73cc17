//! Tests that every request to the server stays within the grant.

use lockstep_api::StoreProvider;
use lockstep_provider::{Context, ProviderFactory as _};
use lockstep_provider_testkit::grants::{Attack, attacks, covers, planned};
use lockstep_provider_vault::VaultFactory;
use lockstep_testkit::proxy::{Fate, Proxy, Request};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::bench::{LOOKUP, Objects, Store};

/// The engines of the server: mount path, type and version.
type Engines = &'static [(&'static str, &'static str, &'static str)];

/// Mostly engines of version 2, with mount paths of one or more segments, and engines that no key
/// may lead to.
const MOSTLY_TWO: Engines = &[
    ("secret", "kv", "2"),
    ("shop", "kv", "2"),
    ("team/kv", "kv", "2"),
    ("team/shop", "kv", "2"),
    ("kv/data", "kv", "2"),
    ("kv/shop", "kv", "1"),
    ("eu", "kv", "1"),
    ("db", "database", ""),
    ("admin", "kv", "3"),
];

/// Like [`MOSTLY_TWO`], but mostly of version 1.
const MOSTLY_ONE: Engines = &[
    ("secret", "kv", "1"),
    ("shop", "generic", ""),
    ("team/kv", "kv", ""),
    ("team/shop", "kv", "1"),
    ("kv/data", "kv", "1"),
    ("kv/shop", "kv", "2"),
    ("eu", "kv", "2"),
    ("db", "database", ""),
    ("admin", "kv", "3"),
];

/// Returns the path of a request target, as the server sees it.
fn path_of(target: &str) -> Result<String, String> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let resolved = url::Url::parse("http://server").and_then(|base| base.join(path));
    if resolved.as_ref().map(url::Url::path) != Ok(path) {
        return Err(format!("the request {target} may be taken for another one"));
    }
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
    decoded
        .map(String::from)
        .map_err(|_| format!("the request {target} is no text"))
}

/// Returns the engine that the server routes a path to, and the path below it.
fn routed(engines: Engines, path: &str) -> Option<(&'static str, &'static str, &'static str, &str)> {
    engines.iter().find_map(|(mount, kind, version)| {
        let below = path.strip_prefix(mount)?;
        let below = below
            .strip_prefix('/')
            .or_else(|| below.is_empty().then_some(""))?;
        Some((*mount, *kind, *version, below))
    })
}

/// Returns the server's response to the lookup of an engine.
fn told(engines: Engines, request: &Request) -> Fate {
    let path = path_of(&request.target).unwrap_or_default();
    let engine = path.strip_prefix(LOOKUP).and_then(|path| routed(engines, path));
    match engine {
        Some((mount, kind, version, _)) => {
            let options = (!version.is_empty()).then(|| json!({ "version": version }));
            let data = json!({ "path": format!("{mount}/"), "type": kind, "options": options });
            Fate::answer(200, &[], &json!({ "data": data }).to_string())
        }
        None => Fate::answer(
            403,
            &[],
            r#"{"errors":["preflight capability check returned 403"]}"#,
        ),
    }
}

/// Returns the canonical form of the value that the server reads for a target.
fn requested(target: &str, engines: Engines, version: &str) -> Result<(String, String), String> {
    let strange = || format!("the request {target} is none for a value");
    let path = path_of(target)?;
    let path = path.strip_prefix("/v1/").ok_or_else(strange)?;
    let (mount, kind, of, below) = routed(engines, path).ok_or_else(strange)?;
    let below = match (kind, version, of) {
        ("kv" | "generic", "v1", "" | "1") => below,
        ("kv", "v2", "2") => below.strip_prefix("data/").ok_or_else(strange)?,
        _ => return Err(strange()),
    };
    Ok((mount.to_owned(), below.to_owned()))
}

#[test]
fn every_request_stays_within_the_grant() {
    let runtime = Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start("127.0.0.1:1"));
    let objects = Objects::default().with("vault", "token", "s.token");
    let stores: [(Option<&str>, &str, Engines); 5] = [
        (Some("secret"), "v2", &[("secret", "kv", "2")]),
        (Some("secret"), "v1", &[("secret", "kv", "1")]),
        (Some("team/kv"), "v2", &[("team/kv", "kv", "2")]),
        (None, "v2", MOSTLY_TWO),
        (None, "v1", MOSTLY_ONE),
    ];
    for (mount, version, engines) in stores {
        proxy.rule(move |request| {
            if request.target.starts_with(LOOKUP) {
                told(engines, request)
            } else if request.target.ends_with("/lookup-self") {
                Fate::answer(200, &[], r#"{"data":{}}"#)
            } else {
                Fate::answer(404, &[], r#"{"errors":[]}"#)
            }
        });
        let auth = json!({ "tokenSecretRef": { "name": "vault", "key": "token" } });
        let mut spec = json!({ "server": proxy.address(), "auth": auth, "version": version });
        spec["path"] = mount.map_or(Value::Null, Value::from);
        let store = runtime.block_on(Store::new(spec.clone(), &objects));
        let provider: StoreProvider = serde_json::from_value(json!({ "vault": spec })).unwrap();
        let locator = VaultFactory.locator(&provider).unwrap();
        let first = proxy.requests().len();
        let mut seen = first;
        let cases = if mount.is_some() { 400 } else { 1200 };
        attacks(cases, |attack: &Attack| {
            let Some(reference) = planned(&locator, attack) else {
                return Ok(false);
            };
            let canonical = reference.key.to_string();
            runtime.block_on(store.0.fetch(&Context::default(), &[reference]));
            let requests = proxy.requests();
            let is_read = |request: &&Request| {
                !request.target.starts_with(LOOKUP)
                    && (mount.is_some() || !request.target.ends_with("/lookup-self"))
            };
            let reads: Vec<_> = requests[seen..].iter().filter(is_read).collect();
            seen = requests.len();
            let request = match reads[..] {
                [request] => request,
                // the server has no such engine
                [] if mount.is_none() => return Ok(false),
                _ => return Err(format!("{} requests were made for one key", reads.len())),
            };
            let (engine, below) = requested(&request.target, engines, version)?;
            let asked = match mount {
                Some(_) => below,
                None => format!("{engine}/{below}"),
            };
            if asked != canonical {
                return Err(format!(
                    "\"{canonical}\" was authorized, and \"{asked}\" requested"
                ));
            }
            if covers(&attack.globs, &asked) {
                Ok(true)
            } else {
                Err(format!("\"{asked}\" is not granted"))
            }
        });
        if let Some(mount) = mount {
            let requests = proxy.requests();
            let lookups: Vec<_> = requests[first..]
                .iter()
                .filter(|request| request.target.starts_with(LOOKUP))
                .map(|request| request.target.as_str())
                .collect();
            assert!(!lookups.is_empty());
            let expected = format!("{LOOKUP}{mount}");
            assert!(lookups.iter().all(|target| *target == expected), "{lookups:?}");
        }
    }
}
