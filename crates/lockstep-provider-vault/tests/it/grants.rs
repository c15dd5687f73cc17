//! Whatever is requested of the server is within the grant.

use lockstep_api::StoreProvider;
use lockstep_provider::{Context, ProviderFactory as _};
use lockstep_provider_testkit::grants::{Attack, attacks, covers, planned};
use lockstep_provider_vault::VaultFactory;
use lockstep_testkit::proxy::{Fate, Proxy};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::bench::{Objects, Store};

/// The canonical form of what a target asks for, made from the bytes that the server sees.
fn requested(target: &str, mount: Option<&str>, version: &str) -> Result<String, String> {
    let strange = || format!("the request {target} is none for a value");
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let resolved = url::Url::parse("http://server").and_then(|base| base.join(path));
    if resolved.as_ref().map(url::Url::path) != Ok(path) {
        return Err(format!("the request {target} may be taken for another one"));
    }
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
    let decoded = decoded.map_err(|_| strange())?;
    let path = decoded.strip_prefix("/v1/").ok_or_else(strange)?;
    let first = path.split('/').next().unwrap_or_default();
    if ["sys", "auth", "identity", "cubbyhole"].contains(&first) {
        return Err(strange());
    }
    Ok(match (mount, version) {
        (Some(mount), "v1") => path
            .strip_prefix(&format!("{mount}/"))
            .ok_or_else(strange)?
            .to_owned(),
        (Some(mount), _) => path
            .strip_prefix(&format!("{mount}/data/"))
            .ok_or_else(strange)?
            .to_owned(),
        (None, "v1") => path.to_owned(),
        (None, _) => {
            let (mount, below) = path.split_once("/data/").ok_or_else(strange)?;
            format!("{mount}/{below}")
        }
    })
}

#[test]
fn every_request_is_within_the_grant() {
    let runtime = Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start("127.0.0.1:1"));
    proxy.all(Fate::answer(404, &[], r#"{"errors":[]}"#));
    let objects = Objects::default().with("vault", "token", "s.token");
    for (mount, version) in [
        (Some("secret"), "v2"),
        (Some("secret"), "v1"),
        (Some("team/kv"), "v2"),
        (None, "v2"),
        (None, "v1"),
    ] {
        let auth = json!({ "tokenSecretRef": { "name": "vault", "key": "token" } });
        let mut spec = json!({ "server": proxy.address(), "auth": auth, "version": version });
        spec["path"] = mount.map_or(Value::Null, Value::from);
        let store = runtime.block_on(Store::new(spec.clone(), &objects));
        let provider: StoreProvider = serde_json::from_value(json!({ "vault": spec })).unwrap();
        let locator = VaultFactory.locator(&provider).unwrap();
        let mut seen = proxy.requests().len();
        attacks(400, |attack: &Attack| {
            let Some(reference) = planned(&locator, attack) else {
                return Ok(false);
            };
            let canonical = reference.key.to_string();
            runtime.block_on(store.0.fetch(&Context::default(), &[reference]));
            let requests = proxy.requests();
            let [request] = &requests[seen..] else {
                return Err(format!(
                    "{} requests were made for one key",
                    requests.len() - seen
                ));
            };
            seen = requests.len();
            let asked = requested(&request.target, mount, version)?;
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
    }
}
