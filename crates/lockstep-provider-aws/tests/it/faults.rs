//! Tests the errors for a failing service, or for something else in its place.

use std::time::{Duration, Instant};

use futures::future::join_all;
use lockstep_api::{Limits, StoreKind};
use lockstep_provider::{EndpointPolicy, ErrorKind, FindQuery, layers::StackOptions};
use lockstep_testkit::{
    aws::{Aws, Trouble},
    proxy::{Fate, Proxy},
};

use crate::bench::{DIRECTIVES, ONCE, Quiet, Store, objects, spec};

async fn stocked(service: &str) -> (Aws, Store) {
    let aws = Aws::start().await.unwrap();
    aws.put_secret("a", "CANARY-a");
    aws.put_secret("b", "CANARY-b");
    aws.put_parameter("a", "CANARY-a");
    aws.put_parameter("b", "CANARY-b");
    let store = Store::of(service, &aws).await;
    (aws, store)
}

const SERVICES: [&str; 2] = ["SecretsManager", "ParameterStore"];

#[tokio::test]
async fn every_kind_of_throttling_is_rate_limited() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    for service in SERVICES {
        let (aws, store) = stocked(service).await;
        let flavours = [
            Trouble::Throttled {
                left: 100,
                retry_after: None,
            },
            Trouble::Xml {
                status: 400,
                code: "Throttling",
            },
            Trouble::Xml {
                status: 400,
                code: "TooManyRequestsException",
            },
            Trouble::Xml {
                status: 429,
                code: "Unknown",
            },
            Trouble::Xml {
                status: 503,
                code: "SlowDown",
            },
            Trouble::Xml {
                status: 503,
                code: "Unknown",
            },
        ];
        for flavour in flavours {
            aws.trouble(Some(flavour.clone()));
            for result in store.fetch_all(&["a", "b"]).await {
                assert_eq!(
                    result.unwrap_err().kind,
                    ErrorKind::RateLimited,
                    "{service} {flavour:?}"
                );
            }
        }
        aws.trouble(None);
        assert_eq!(store.read("a").await, "CANARY-a");
    }
}

#[tokio::test]
async fn truncated_response_is_malformed_and_not_used() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    for service in SERVICES {
        let (aws, store) = stocked(service).await;
        aws.trouble(Some(Trouble::Cut));
        for result in store.fetch_all(&["a", "b"]).await {
            assert_eq!(result.unwrap_err().kind, ErrorKind::Malformed, "{service}");
        }
        aws.trouble(None);
        assert_eq!(store.read("b").await, "CANARY-b");
    }
}

/// A batch, a single read, a search, a login and a decryption: any response that broke off can be
/// complete the next time.
#[tokio::test]
async fn connection_that_breaks_during_a_response_is_retried() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    for service in SERVICES {
        let (aws, _) = stocked(service).await;
        let proxy = Proxy::start(&aws.address()).await;
        let spec = spec(service, proxy.address());
        let store = Store::new(spec.clone(), &objects()).await;
        proxy.all(Fate::CutOff);
        for keys in [&["a", "b"][..], &["a"]] {
            for result in store.fetch_all(keys).await {
                let error = result.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Unavailable, "{service}: {error}");
                assert!(error.message.contains("broke"), "{error}");
            }
        }
        let error = store.find(FindQuery::default()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{service}: {error}");
        let assumed = crate::bench::and(spec.clone(), "role", crate::bench::ROLE);
        let error = Store::new(assumed, &objects()).await.refuse("a").await;
        assert_eq!(error.kind, ErrorKind::Unavailable, "{service}: {error}");

        let mut cuts = 1;
        proxy.rule(move |_| {
            cuts -= 1;
            if cuts >= 0 { Fate::CutOff } else { Fate::Pass }
        });
        let options = StackOptions {
            retries: 1,
            ..StackOptions::default()
        };
        let (store, _) = Store::new(spec, &objects())
            .await
            .within(Limits::default(), options);
        let results = store.fetch_all(&["a", "b"]).await;
        assert!(results.iter().all(Result::is_ok), "{service} is asked again");
    }
}

/// A complete response is used however late it is. `limits.timeout` is how long the store waits.
#[tokio::test]
async fn late_response_is_used_until_the_timeout_of_the_store() {
    for service in SERVICES {
        let (aws, _) = stocked(service).await;
        let proxy = Proxy::start(&aws.address()).await;
        let limits = Limits {
            timeout: Some(lockstep_api::Duration::from_secs(1)),
            ..Limits::default()
        };
        let store = Store::new(spec(service, proxy.address()), &objects()).await;
        let (store, _) = store.within(limits, ONCE);
        let begun = Instant::now();
        for (delay, kind) in [
            (Duration::from_millis(300), None),
            (Duration::from_secs(20), Some(ErrorKind::Timeout)),
        ] {
            proxy.all(Fate::Late(delay));
            let results = store.fetch_all(&["a", "b"]).await;
            let kinds: Vec<_> = results
                .iter()
                .map(|result| result.as_ref().err().map(|error| error.kind))
                .collect();
            assert_eq!(kinds, [kind; 2], "{service} after {delay:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{service}");
        assert_eq!(aws.calls().len(), 2, "{service}: a batch each");
        proxy.all(Fate::Pass);
        assert_eq!(store.read("a").await, "CANARY-a");
    }
}

#[tokio::test]
async fn xml_errors_are_classified_by_code_or_status() {
    for service in SERVICES {
        let (aws, store) = stocked(service).await;
        for (status, code, kind) in [
            (403, "AccessDenied", ErrorKind::PermissionDenied),
            (500, "InternalFailure", ErrorKind::Unavailable),
            (502, "Unknown", ErrorKind::Unavailable),
            (400, "ExpiredToken", ErrorKind::Unauthenticated),
            (403, "InvalidClientTokenId", ErrorKind::Unauthenticated),
        ] {
            aws.trouble(Some(Trouble::Xml { status, code }));
            assert_eq!(store.refuse("a").await.kind, kind, "{service} {code}");
        }
    }
}

#[tokio::test]
async fn page_of_a_proxy_is_malformed_with_any_status() {
    for service in SERVICES {
        let aws = Aws::start().await.unwrap();
        let proxy = Proxy::start(&aws.address()).await;
        let store = Store::new(spec(service, proxy.address()), &objects()).await;
        for status in [200, 403, 404] {
            proxy.all(Fate::answer(
                status,
                &[("Content-Type", "text/html")],
                "<html>CANARY</html>",
            ));
            let error = store.refuse("a").await;
            assert_eq!(error.kind, ErrorKind::Malformed, "{service} {status}: {error}");
        }
    }
}

#[tokio::test]
async fn refused_or_broken_connection_is_unavailable() {
    for service in SERVICES {
        let (aws, store) = stocked(service).await;
        let address = aws.address();
        drop(aws);
        // Idle connections may take a moment to end.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let gone = Store::new(spec(service, &address), &objects()).await;
        for store in [store, gone] {
            let error = store.refuse("a").await;
            assert_eq!(error.kind, ErrorKind::Unavailable, "{service}: {error}");
        }
    }
}

#[tokio::test]
async fn response_of_more_than_eight_mebibytes_is_rejected() {
    let (aws, store) = stocked("SecretsManager").await;
    aws.put_oversized_secret("large", &"x".repeat(7 << 20));
    aws.put_oversized_secret("larger", &"x".repeat(9 << 20));
    assert_eq!(store.read("large").await.len(), 7 << 20);
    let error = store.refuse("larger").await;
    assert_eq!(
        error.kind,
        ErrorKind::Malformed,
        "it would be as long again: {error}"
    );
    assert_eq!(store.read("a").await, "CANARY-a");
}

#[tokio::test]
async fn batch_of_twenty_values_of_maximum_size_is_read() {
    let aws = Aws::start().await.unwrap();
    let names: Vec<String> = (0..20).map(|number| format!("large/{number}")).collect();
    // Each of these characters takes six in JSON.
    let value = "\u{1}".repeat(65_536);
    for name in &names {
        aws.put_secret(name, &value);
    }
    let store = Store::of("SecretsManager", &aws).await;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for result in store.fetch_all(&names).await {
        assert_eq!(result.unwrap().value.len(), 65_536);
    }
    assert_eq!(aws.calls().len(), 1);
}

#[tokio::test]
async fn check_fails_like_the_first_read() {
    for service in SERVICES {
        let (aws, store) = stocked(service).await;
        aws.trouble(Some(Trouble::Broken));
        assert_eq!(
            store.check().await.unwrap_err().kind,
            ErrorKind::Unavailable,
            "{service}"
        );
        aws.trouble(None);
        aws.revoke_all();
        assert_eq!(
            store.check().await.unwrap_err().kind,
            ErrorKind::Unauthenticated,
            "{service}"
        );
    }
}

#[tokio::test]
async fn failing_token_service_is_reported_like_the_service() {
    let aws = Aws::start().await.unwrap();
    aws.put_secret("a", "CANARY");
    let spec = crate::bench::and(spec("SecretsManager", &aws.address()), "role", crate::bench::ROLE);
    let store = Store::new(spec, &objects()).await;
    for (trouble, kind) in [
        (
            Trouble::Throttled {
                left: 9,
                retry_after: Some(7),
            },
            ErrorKind::RateLimited,
        ),
        (Trouble::Broken, ErrorKind::Unavailable),
        (
            Trouble::Xml {
                status: 400,
                code: "Throttling",
            },
            ErrorKind::RateLimited,
        ),
        (
            Trouble::Xml {
                status: 503,
                code: "ServiceUnavailable",
            },
            ErrorKind::RateLimited,
        ),
        (
            Trouble::Xml {
                status: 403,
                code: "SignatureDoesNotMatch",
            },
            ErrorKind::Unauthenticated,
        ),
    ] {
        aws.trouble(Some(trouble.clone()));
        let error = store.refuse("a").await;
        assert_eq!(error.kind, kind, "{trouble:?}: {error}");
    }
    aws.trouble(None);
    assert_eq!(store.read("a").await, "CANARY");
}

#[tokio::test]
async fn tenant_cannot_reach_loopback_addresses() {
    let aws = Aws::start().await.unwrap();
    let plain = aws.address();
    let port = plain.rsplit(':').next().unwrap().to_owned();
    let closed = lockstep_testkit::ports::free().unwrap().to_string();
    let refuse = async |endpoint: &str| {
        let spec = spec("SecretsManager", endpoint);
        let kind = StoreKind::SecretStore;
        let store = Store::build_with(spec, None, &objects(), kind, EndpointPolicy::Tenant).await;
        store.unwrap().fetch_all(&["a"]).await.remove(0).unwrap_err()
    };
    let before = aws.count("GetSecretValue");
    let endpoints = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"]
        .iter()
        .flat_map(|host| [&port, &closed].map(|port| format!("https://{host}:{port}")));
    let errors = endpoints.map(async |endpoint| (refuse(&endpoint).await, endpoint));
    // Each takes as long as a connection attempt may.
    for (error, endpoint) in join_all(errors).await {
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert_eq!(error.message, "could not connect to the service", "{endpoint}");
    }
    let error = refuse(&plain).await;
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert_eq!(error.message, "a SecretStore cannot use plain http");
    let error = refuse("https://no-such-host.invalid").await;
    assert_eq!(
        error.message,
        "the host name of the service could not be resolved"
    );
    assert_eq!(aws.count("GetSecretValue"), before);
}

#[tokio::test]
async fn open_and_closed_ports_look_alike_and_http_uses_no_tls() {
    let aws = Aws::start().await.unwrap();
    let open = aws.address().replace("http://", "https://");
    let closed = format!("https://127.0.0.1:{}", lockstep_testkit::ports::free().unwrap());
    for endpoint in [open, closed] {
        let store = Store::new(spec("SecretsManager", &endpoint), &objects()).await;
        let error = store.fetch_all(&["a"]).await.remove(0).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert_eq!(error.message, "could not connect to the service", "{endpoint}");
    }
}
