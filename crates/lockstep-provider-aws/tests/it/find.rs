//! Tests the requests of searches.

use lockstep_provider::{ErrorKind, FindQuery, Pattern, Scope};
use lockstep_provider_testkit::at;
use lockstep_testkit::{
    aws::{Aws, Trouble},
    proxy::{Fate, Proxy},
};
use serde_json::json;

use crate::bench::{Store, and, objects, spec};

fn below(path: &str) -> FindQuery {
    FindQuery {
        path: Some(at(path)),
        ..FindQuery::default()
    }
}

#[tokio::test]
async fn service_filters_by_path_and_pages_are_full() {
    let aws = Aws::start().await.unwrap();
    for number in 0..250 {
        aws.put_secret(&format!("shop/{number:03}"), "CANARY");
        aws.put_secret(&format!("other/{number:03}"), "CANARY");
    }
    let store = Store::of("SecretsManager", &aws).await;
    assert_eq!(store.find(below("shop")).await.unwrap().len(), 250);
    assert_eq!(
        aws.calls().len(),
        3,
        "100 on a page, and only those below the path"
    );
}

#[tokio::test]
async fn secret_marked_for_deletion_is_not_found() {
    let aws = Aws::start().await.unwrap();
    aws.put_secret("shop/a", "CANARY");
    aws.put_secret("shop/b", "CANARY");
    aws.schedule_deletion("shop/a");
    let store = Store::of("SecretsManager", &aws).await;
    assert_eq!(store.find(below("shop")).await.unwrap(), ["shop/b"]);
}

#[tokio::test]
async fn denied_search_names_the_action() {
    for (service, action) in [
        ("SecretsManager", "ListSecrets"),
        ("ParameterStore", "GetParametersByPath"),
    ] {
        let aws = Aws::start().await.unwrap();
        aws.deny_action(action);
        let store = Store::of(service, &aws).await;
        let error = store.find(below("shop")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied);
        assert!(error.to_string().contains(action), "{error}");
    }
}

#[tokio::test]
async fn parameters_are_found_below_the_prefix_and_named_without_it() {
    let aws = Aws::start().await.unwrap();
    for name in ["/prod/shop/a", "/prod/shop/eu/b", "/prod/other", "/test/shop/a"] {
        aws.put_parameter(name, "CANARY");
    }
    for prefix in ["/prod/", "/prod"] {
        let spec = and(spec("ParameterStore", &aws.address()), "prefix", prefix);
        let store = Store::new(spec, &objects()).await;
        let path = if prefix.ends_with('/') { "shop" } else { "/shop" };
        let found = store.find(below(path)).await.unwrap();
        assert_eq!(found.len(), 2, "{prefix}: {found:?}");
        for key in &found {
            store.read(key).await;
        }
    }
}

#[tokio::test]
async fn search_of_a_failing_service_returns_no_partial_result() {
    for service in ["SecretsManager", "ParameterStore"] {
        let aws = Aws::start().await.unwrap();
        for number in 0..120 {
            aws.put_secret(&format!("/shop/{number}"), "CANARY");
            aws.put_parameter(&format!("/shop/{number}"), "CANARY");
        }
        aws.trouble(Some(Trouble::EverySecond));
        let store = Store::of(service, &aws).await;
        let error = store.find(FindQuery::default()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::RateLimited, "{service}");
    }
}

fn granted(globs: &[&str]) -> FindQuery {
    FindQuery {
        scope: Scope::patterns(globs.iter().filter_map(|glob| Pattern::new(glob))),
        ..FindQuery::default()
    }
}

#[tokio::test]
async fn search_starts_at_the_granted_prefixes() {
    let arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/shop/*";
    for (service, globs, filter) in [
        ("SecretsManager", ["shop/db-*", "blog/*", arn], "shop/db-"),
        ("ParameterStore", ["/shop/db-*", "/blog/*", arn], "\"/shop\""),
    ] {
        let proxy = Proxy::start("127.0.0.1:1").await;
        let names = json!({
            "SecretList": [{ "Name": "shop/db-1" }, { "Name": "shop/smtp" }, { "Name": "admin/root" }],
            "Parameters": [{ "Name": "/shop/db-1" }, { "Name": "/shop/smtp" }, { "Name": "/admin/root" }],
        });
        let content = [("Content-Type", "application/x-amz-json-1.1")];
        proxy.all(Fate::answer(200, &content, &names.to_string()));
        let store = Store::new(spec(service, proxy.address()), &objects()).await;
        let found = store.find(granted(&globs)).await.unwrap();
        assert_eq!(found, [globs[0].replace('*', "1")], "{service}");
        let requests = proxy.requests();
        assert_eq!(
            requests.len(),
            2,
            "one search for each beginning of a name: {requests:?}"
        );
        assert!(
            requests.iter().any(|request| request.body.contains(filter)),
            "{requests:?}"
        );
        assert!(
            !requests.iter().any(|request| request.body.contains("arn:")),
            "{requests:?}"
        );
    }
}
