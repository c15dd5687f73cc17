//! The limits of a store count the calls that are sent, whatever they read.

use std::time::Duration;

use lockstep_api::Limits;
use lockstep_provider::RemoteRef;
use lockstep_provider_testkit::at;
use lockstep_testkit::aws::Aws;

use crate::bench::{ONCE, Store, text};

/// Creates a store of twenty values that may have one call in flight, and its metrics.
async fn narrow(service: &str) -> (Aws, Store, prometheus::Registry) {
    let aws = Aws::start().await.unwrap();
    for number in 0..20 {
        aws.put_secret(&name(number), "CANARY-old");
        aws.put_secret(&name(number), "CANARY-new");
        aws.put_parameter(&name(number), "CANARY-old");
        aws.put_parameter(&name(number), "CANARY-new");
        aws.tag(&name(number), "team", "CANARY");
    }
    aws.latency(Duration::from_millis(5));
    let limits = Limits {
        max_concurrent: Some(1),
        ..Limits::default()
    };
    let (store, registry) = Store::of(service, &aws).await.within(limits, ONCE);
    (aws, store, registry)
}

fn name(number: usize) -> String {
    format!("/shop/{number}")
}

/// Returns the number of counted requests.
fn counted(registry: &prometheus::Registry) -> String {
    let families = registry.gather();
    let requests = families
        .iter()
        .filter(|family| family.name() == "lockstep_provider_requests_total");
    requests
        .flat_map(prometheus::proto::MetricFamily::get_metric)
        .map(|metric| metric.get_counter().get_value())
        .sum::<f64>()
        .to_string()
}

#[tokio::test]
async fn twenty_versions_are_twenty_requests_one_at_a_time() {
    let (aws, store, registry) = narrow("SecretsManager").await;
    let refs: Vec<_> = (0..20)
        .map(|number| RemoteRef::version(at(name(number)), "AWSPREVIOUS"))
        .collect();
    for result in store.fetch(&refs).await {
        assert_eq!(text(&result), "CANARY-old");
    }
    assert_eq!((aws.count("GetSecretValue"), aws.most_in_flight()), (20, 1));
    assert_eq!(counted(&registry), "20");
}

#[tokio::test]
async fn twenty_tag_reads_are_twenty_requests_one_at_a_time() {
    for (service, action) in [
        ("SecretsManager", "DescribeSecret"),
        ("ParameterStore", "ListTagsForResource"),
    ] {
        let (aws, store, registry) = narrow(service).await;
        let refs: Vec<_> = (0..20)
            .map(|number| RemoteRef::current(at(name(number))).metadata())
            .collect();
        let results = store.fetch(&refs).await;
        assert!(results.iter().all(Result::is_ok), "{service}");
        assert_eq!((aws.count(action), aws.most_in_flight()), (20, 1), "{service}");
        assert_eq!(counted(&registry), "20", "{service}");
    }
}

#[tokio::test]
async fn batched_values_are_one_request_next_to_single_reads() {
    let (aws, store, registry) = narrow("SecretsManager").await;
    let mut refs: Vec<_> = (0..20)
        .map(|number| RemoteRef::current(at(name(number))))
        .collect();
    refs.insert(3, RemoteRef::version(at(name(3)), "AWSPREVIOUS"));
    refs.insert(9, RemoteRef::current(at(name(9))).metadata());
    let results = store.fetch(&refs).await;
    assert_eq!(text(&results[3]), "CANARY-old");
    assert!(text(&results[9]).contains("team"));
    assert_eq!((aws.count("BatchGetSecretValue"), aws.calls().len()), (1, 3));
    assert_eq!((aws.most_in_flight(), counted(&registry)), (1, "3".to_owned()));
    // Versions of parameters share a call.
    let (aws, store, registry) = narrow("ParameterStore").await;
    let refs: Vec<_> = (0..20)
        .map(|number| RemoteRef::version(at(name(number)), "1"))
        .collect();
    for result in store.fetch(&refs).await {
        assert_eq!(text(&result), "CANARY-old");
    }
    assert_eq!((aws.calls().len(), counted(&registry)), (2, "2".to_owned()));
}
