//! Every request to the services is within the grant.

use lockstep_api::StoreProvider;
use lockstep_provider::{Context, ProviderFactory as _};
use lockstep_provider_aws::AwsFactory;
use lockstep_provider_testkit::grants::{Attack, attacks, covers, planned};
use lockstep_testkit::proxy::{Fate, Proxy};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::bench::{Store, and, objects, spec};

/// Returns the secret or parameter that a request reads.
fn id(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    let id = body["SecretId"].as_str().or_else(|| body["Names"][0].as_str())?;
    Some(id.to_owned())
}

/// Whether a glob covers an ARN: it must spell out everything before the name.
fn covers_arn(globs: &[String], arn: &str) -> bool {
    let name = arn.rfind([':', '/']).and_then(|_| {
        let resource = arn.splitn(6, ':').nth(5)?;
        let name = resource
            .strip_prefix("secret:")
            .or_else(|| resource.strip_prefix("parameter/"))?;
        Some(arn.len() - name.len())
    });
    let Some(anchor) = name else { return false };
    let spelled: Vec<String> = globs
        .iter()
        .filter(|glob| glob.starts_with(&arn[..anchor]))
        .cloned()
        .collect();
    covers(&spelled, arn)
}

#[test]
fn every_request_is_within_the_grant() {
    let runtime = Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start("127.0.0.1:1"));
    let missing = r#"{"__type":"ResourceNotFoundException","message":"no"}"#;
    let content = [("Content-Type", "application/x-amz-json-1.1")];
    proxy.all(Fate::answer(400, &content, missing));
    for (service, prefix) in [
        ("SecretsManager", ""),
        ("SecretsManager", "team/"),
        ("SecretsManager", "shop"),
        ("ParameterStore", ""),
        ("ParameterStore", "/team/"),
    ] {
        let spec = and(spec(service, proxy.address()), "prefix", prefix);
        let store = runtime.block_on(Store::new(spec.clone(), &objects()));
        let provider: StoreProvider = serde_json::from_value(json!({ "aws": spec })).unwrap();
        let locator = AwsFactory::default().locator(&provider).unwrap();
        let mut seen = proxy.requests().len();
        attacks(400, |attack: &Attack| {
            let Some(reference) = planned(&locator, attack) else {
                return Ok(false);
            };
            runtime.block_on(store.0.fetch(&Context::default(), &[reference]));
            let requests = proxy.requests();
            let asked: Vec<String> = requests[seen..]
                .iter()
                .filter_map(|request| id(&request.body))
                .collect();
            seen = requests.len();
            if asked.is_empty() {
                return Err("nothing was requested".to_owned());
            }
            for id in asked {
                let granted = match id.strip_prefix(prefix) {
                    Some(arn) if arn.starts_with("arn:") && prefix.is_empty() => {
                        covers_arn(&attack.globs, arn)
                    }
                    Some(key) => covers(&attack.globs, key),
                    None => false,
                };
                if !granted {
                    return Err(format!("\"{id}\" is not granted"));
                }
            }
            Ok(true)
        });
    }
}
