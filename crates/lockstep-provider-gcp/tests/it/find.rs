//! Tests the requests of searches.

use lockstep_provider::{ErrorKind, FindQuery};
use lockstep_provider_testkit::at;
use lockstep_testkit::gcp::{Gcp, PROJECT, Trouble};

use crate::bench::{Quiet, Store, and, objects, spec};

fn begins(path: &str) -> FindQuery {
    FindQuery {
        path: Some(at(path)),
        ..FindQuery::default()
    }
}

fn labelled(label: &str, value: &str) -> FindQuery {
    FindQuery {
        tags: [(label.to_owned(), value.to_owned())].into(),
        ..FindQuery::default()
    }
}

#[tokio::test]
async fn service_filters_and_pages_are_full() {
    let _quiet = Quiet::listen();
    let gcp = Gcp::start().await.unwrap();
    for number in 0..250 {
        gcp.put_secret(&format!("shop-{number:03}"), "CANARY");
        gcp.put_secret(&format!("other-{number:03}"), "CANARY");
    }
    gcp.put_secret("not-shop-1", "CANARY");
    let store = Store::of(&gcp).await;
    let found = store.find(begins("shop-")).await.unwrap();
    assert_eq!(
        found.len(),
        250,
        "what begins so, and not what has it in its middle"
    );
    assert_eq!(gcp.count("ListSecrets"), 3, "100 on a page");
    let call = gcp.calls().pop().unwrap();
    assert_eq!(call.query["filter"], "name:shop-");
}

#[tokio::test]
async fn secrets_found_by_label_can_be_read() {
    let gcp = Gcp::start().await.unwrap();
    for (name, team) in [("a", "shop"), ("b", "blog"), ("c", "shop"), ("d", "shopping")] {
        gcp.put_secret(name, "CANARY");
        gcp.label(name, "team", team);
    }
    let store = Store::of(&gcp).await;
    let found = store.find(labelled("team", "shop")).await.unwrap();
    assert_eq!(found, ["a", "c"]);
    for key in found {
        assert_eq!(store.read(&key).await, "CANARY");
    }
}

#[tokio::test]
async fn search_of_a_region_finds_only_its_secrets() {
    let gcp = Gcp::start().await.unwrap();
    gcp.put_secret("a", "CANARY");
    gcp.put_secret("locations/europe-west3/secrets/b", "CANARY");
    let spec = and(spec(&gcp.address()), "location", "europe-west3");
    let store = Store::new(spec, &objects(&gcp)).await;
    assert_eq!(store.find(FindQuery::default()).await.unwrap(), ["b"]);
    assert_eq!(
        gcp.calls().pop().unwrap().resource,
        "locations/europe-west3/secrets",
        "below {PROJECT}"
    );
}

#[tokio::test]
async fn denied_search_names_the_permission() {
    let gcp = Gcp::start().await.unwrap();
    gcp.deny_action("ListSecrets");
    let error = Store::of(&gcp).await.find(begins("shop-")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(
        error.to_string().contains("secretmanager.secrets.list"),
        "{error}"
    );
}

#[tokio::test]
async fn failed_page_fails_the_whole_search() {
    let gcp = Gcp::start().await.unwrap();
    for number in 0..250 {
        gcp.put_secret(&format!("shop-{number:03}"), "CANARY");
    }
    let store = Store::of(&gcp).await;
    store.check().await.unwrap();
    gcp.trouble(Some(Trouble::EverySecond));
    let error = store.find(begins("shop-")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RateLimited);
}
