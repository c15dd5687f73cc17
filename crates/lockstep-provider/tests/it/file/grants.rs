//! Tests that every read stays within the grant.

use lockstep_provider::{Context, FileFactory, ProviderFactory as _};
use lockstep_provider_testkit::grants::{Attack, attacks, covers, planned};
use tokio::runtime::Runtime;

use super::setup::{Files, config};

#[test]
fn every_file_read_is_within_the_grant() {
    let runtime = Runtime::new().unwrap();
    let files = Files::new();
    for folder in [
        "",
        "shop/",
        "shop/eu/",
        "admin/",
        "secret/",
        "secret/data/",
        "team/kv/",
    ] {
        for name in ["db", "root", "größe", "token", "a.b", "%2e%2e"] {
            files.write(&format!("{folder}{name}"), format!("{folder}{name}"));
        }
    }
    let store = runtime.block_on(files.store(""));
    let locator = FileFactory::without_root().locator(&config("").provider).unwrap();
    attacks(2000, |attack: &Attack| {
        let Some(reference) = planned(&locator, attack) else {
            return Ok(false);
        };
        let mut read = runtime.block_on(store.0.fetch(&Context::default(), &[reference]));
        match read.pop() {
            Some(Ok(secret)) => {
                let path = secret.value.expose_str().unwrap_or_default();
                if covers(&attack.globs, path) {
                    Ok(true)
                } else {
                    Err(format!("\"{path}\" is not granted"))
                }
            }
            // granted, but does not exist
            _ => Ok(true),
        }
    });
}
