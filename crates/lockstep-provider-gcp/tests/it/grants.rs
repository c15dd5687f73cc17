//! Every request to the service is within the grant.

use lockstep_api::StoreProvider;
use lockstep_provider::{Context, ProviderFactory as _};
use lockstep_provider_gcp::GcpFactory;
use lockstep_provider_testkit::grants::{Attack, attacks, covers, planned};
use lockstep_testkit::{
    gcp::{Gcp, PROJECT},
    proxy::Proxy,
};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::bench::{Store, objects, spec};

#[test]
fn every_request_is_within_the_grant() {
    let runtime = Runtime::new().unwrap();
    let gcp = runtime.block_on(Gcp::start()).unwrap();
    let proxy = runtime.block_on(Proxy::start(&gcp.address()));
    let store = runtime.block_on(Store::new(spec(proxy.address()), &objects(&gcp)));
    let provider: StoreProvider = serde_json::from_value(json!({ "gcp": spec(proxy.address()) })).unwrap();
    let locator = GcpFactory::default().locator(&provider).unwrap();
    let mut seen = 0;
    attacks(1000, |attack: &Attack| {
        // The words of the suite name this project.
        let attack = Attack {
            key: attack.key.replace("shop-prod", PROJECT),
            ..attack.clone()
        };
        let Some(reference) = planned(&locator, &attack) else {
            return Ok(false);
        };
        runtime.block_on(store.0.fetch(&Context::default(), &[reference]));
        let requests = proxy.requests();
        let mut asked = requests[seen..]
            .iter()
            .filter(|request| request.target.contains("/secrets/"))
            .map(|request| request.target.clone());
        seen = requests.len();
        let target = asked.next().ok_or("nothing was requested")?;
        let id = target
            .strip_prefix(&format!("/v1/projects/{PROJECT}/secrets/"))
            .and_then(|rest| rest.split('/').next())
            .ok_or_else(|| format!("the request {target} leads out of the project"))?;
        if covers(&attack.globs, id) {
            Ok(true)
        } else {
            Err(format!("\"{id}\" is not granted"))
        }
    });
}
