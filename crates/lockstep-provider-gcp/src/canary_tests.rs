//! Google's own types show their content: `{:?}` of a `SecretPayload` is the value. Whatever goes
//! wrong, neither the value nor the token of the request may be in a log of any module, in an
//! error, in the client or the transport.

use std::sync::{Arc, Mutex};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use google_cloud_secretmanager_v1::{
    client::SecretManagerService,
    model::{AccessSecretVersionResponse, SecretPayload},
};
use lockstep_api::{Limits, StoreKind, StoreProvider};
use lockstep_core::time::SystemClock;
use lockstep_http::{Connect, HttpError};
use lockstep_provider::{
    Context, EndpointPolicy, ErrorKind, Location, Login, ProviderError, ProviderFactory as _, RemoteRef,
    StoreConfig, StoreKey,
};
use lockstep_provider_testkit::{Objects, Quiet};
use lockstep_testkit::{
    gcp::{Gcp, PROJECT, PROJECT_NUMBER, Trouble},
    proxy::{Fate, Proxy},
};
use serde_json::{Value, json};

use crate::{
    GcpFactory,
    auth::Caller,
    client::Http,
    config::Config,
    error::{Failed, Why},
    login::GcpAuthenticator,
    transport::Transport,
};

const VALUE: &str = "CANARY-value";

/// Returns what must not be shown: the value as text and in base64, each of them also as a list of
/// byte values; a token, a signed assertion, a key.
fn secrets() -> Vec<String> {
    let encoded = BASE64_STANDARD.encode(VALUE);
    let numbers = |text: &str| {
        let numbers = format!("{:?}", text.as_bytes());
        numbers.trim_matches(['[', ']']).to_owned()
    };
    let mut secrets = vec![numbers(VALUE), numbers(&encoded), encoded];
    secrets.extend(["CANARY", "ya29.", "eyJ", "BEGIN"].map(str::to_owned));
    secrets
}

fn listen() -> Quiet {
    let quiet = Quiet::listen();
    for secret in secrets() {
        quiet.never(&secret);
    }
    quiet
}

#[track_caller]
fn assert_shows_nothing(shown: &str) {
    assert!(!shown.is_empty(), "there is something to look at");
    for secret in secrets() {
        assert!(
            !shown.contains(&secret),
            "a value, a token or the service's own text is shown"
        );
    }
}

/// A stand-in with one value, behind a proxy that can return another response.
struct Stage {
    gcp: Gcp,
    proxy: Proxy,
    config: StoreConfig,
    objects: Objects,
}

impl Stage {
    async fn raise() -> Self {
        lockstep_testkit::init();
        let gcp = Gcp::start().await.unwrap();
        gcp.put_secret("database", VALUE);
        let proxy = Proxy::start(&gcp.address()).await;
        let spec = json!({ "gcp": {
            "projectID": PROJECT, "endpoint": proxy.address(),
            "auth": { "secretRef": { "secretAccessKeySecretRef": { "name": "gcp", "key": "key.json" } } },
        } });
        let config = StoreConfig {
            key: StoreKey {
                kind: StoreKind::SecretStore,
                namespace: Some("shop".to_owned()),
                name: "gcp".to_owned(),
            },
            provider: serde_json::from_value::<StoreProvider>(spec).unwrap(),
            limits: Limits::default(),
            events: None,
            endpoints: EndpointPolicy::TenantOrLoopback,
        };
        let objects = Objects::default().with("gcp", "key.json", gcp.service_account_key().unwrap());
        Self {
            gcp,
            proxy,
            config,
            objects,
        }
    }

    /// Sets the response to all further reads of a value.
    fn answers(&self, fate: &Fate) {
        let fate = fate.clone();
        self.proxy.rule(move |request| {
            if request.target.contains(":access") {
                fate.clone()
            } else {
                Fate::Pass
            }
        });
    }

    /// Returns the error of a read, and asserts that nothing was shown.
    async fn refuses(&self) -> ProviderError {
        let factory = GcpFactory::default();
        let store = factory
            .build(&self.config, Arc::new(self.objects.clone()))
            .await
            .unwrap();
        assert_shows_nothing(&format!("{factory:?} {store:?}"));
        let reference = RemoteRef::current(Location::new("database").unwrap());
        let mut results = store.fetch(&Context::default(), &[reference]).await;
        let error = results.remove(0).unwrap_err();
        assert_shows_nothing(&format!("{error} {error:?}"));
        error
    }

    /// Sends the same call and inspects everything on its way: the transport, Google's client
    /// around it, the error that the client passes through with all its sources, and our error.
    /// Returns the content of the response.
    async fn calls(&self) -> Result<AccessSecretVersionResponse, Failed> {
        let config = Config::new(self.config.provider.gcp.as_ref().unwrap(), &self.config.key).unwrap();
        let project_ref = config.project_ref.clone().unwrap();
        let http = Http::new(Connect::from(&self.config), Arc::new(SystemClock)).unwrap();
        let authenticator =
            GcpAuthenticator::new(config.login.clone(), http.clone(), Arc::new(self.objects.clone()));
        let caller = Caller::new(http.clone(), Login::new(authenticator));
        let seen = Mutex::new(format!("{http:?} {caller:?}"));
        let look = |shown: &str| seen.lock().unwrap().push_str(shown);
        let look = &look;
        let outcome = caller
            .call(&project_ref.endpoint, |transport| async move {
                look(&format!("{transport:?}"));
                let client = SecretManagerService::from_stub::<Transport>(transport);
                look(&format!("{client:?}"));
                let request = client
                    .access_secret_version()
                    .set_name(format!("projects/{PROJECT}/secrets/database/versions/latest"));
                look(&format!("{request:?}"));
                let outcome = request.send().await;
                if let Err(error) = &outcome {
                    look(&format!("{error} {error:?}"));
                    let mut source = std::error::Error::source(error);
                    while let Some(error) = source {
                        look(&format!("{error} {error:?}"));
                        source = error.source();
                    }
                }
                outcome
            })
            .await;
        if let Err(failed) = &outcome {
            look(&format!("{failed} {failed:?}"));
        }
        look(&format!("{caller:?}"));
        assert_shows_nothing(&seen.into_inner().unwrap());
        outcome
    }
}

/// Creates a response with this payload.
fn with(payload: &Value) -> Fate {
    let name = format!("projects/{PROJECT_NUMBER}/secrets/database/versions/1");
    let body = json!({ "name": name, "payload": payload }).to_string();
    Fate::answer(200, &[("Content-Type", "application/json")], &body)
}

#[tokio::test]
async fn value_that_was_read_is_not_shown() {
    let _quiet = listen();
    let stage = Stage::raise().await;
    let answer = stage.calls().await.unwrap();
    assert_eq!(answer.payload.unwrap().data, VALUE);
}

#[tokio::test]
async fn value_with_a_wrong_checksum_is_not_shown() {
    let _quiet = listen();
    let stage = Stage::raise().await;
    stage.gcp.trouble(Some(Trouble::WrongChecksum));
    assert_eq!(stage.refuses().await.kind, ErrorKind::Malformed);
    let answer = stage.calls().await.unwrap();
    assert_eq!(answer.payload.unwrap().data, VALUE, "the value did arrive");
}

#[tokio::test]
async fn malformed_payload_is_not_shown() {
    let _quiet = listen();
    let stage = Stage::raise().await;
    let encoded = BASE64_STANDARD.encode(VALUE);
    for payload in [
        json!({ "data": VALUE, "dataCrc32c": "1" }),
        json!({ "data": format!("{encoded}!"), "dataCrc32c": "1" }),
        json!({ "data": { VALUE: encoded }, "dataCrc32c": "1" }),
        json!({ "data": encoded, "dataCrc32c": VALUE }),
        json!(VALUE),
    ] {
        stage.answers(&with(&payload));
        assert_eq!(stage.refuses().await.kind, ErrorKind::Malformed);
        assert_eq!(stage.calls().await.unwrap_err().why(), Some(Why::Garbage));
    }
}

#[tokio::test]
async fn rejected_login_shows_neither_token_nor_key() {
    let _quiet = listen();
    let stage = Stage::raise().await;
    // The service rejects the token and the new one, and repeats both.
    let body = json!({ "error": { "code": 401, "status": "UNAUTHENTICATED", "message": "ya29.CANARY" } });
    stage.answers(&Fate::answer(401, &[], &body.to_string()));
    assert_eq!(stage.refuses().await.kind, ErrorKind::Unauthenticated);
    assert_eq!(stage.calls().await.unwrap_err().why(), Some(Why::Credentials));
    assert_eq!(
        stage.gcp.count("ExchangeJwt"),
        4,
        "each of them had a token, and asked for a second one"
    );
    // There is no token at all: the key was deleted.
    stage
        .gcp
        .delete_service_account_key(lockstep_testkit::gcp::SERVICE_ACCOUNT);
    assert_eq!(stage.refuses().await.kind, ErrorKind::Unauthenticated);
    assert!(matches!(stage.calls().await, Err(Failed::Login(_))));
}

#[tokio::test]
async fn truncated_response_is_not_shown() {
    let _quiet = listen();
    let stage = Stage::raise().await;
    let encoded = BASE64_STANDARD.encode(VALUE);
    let begin = format!(r#"{{"name":"CANARY","payload":{{"data":"{encoded}"#);
    // The message is complete, and the JSON in it is not.
    stage.answers(&Fate::answer(200, &[], &begin));
    assert_eq!(stage.refuses().await.kind, ErrorKind::Malformed);
    assert_eq!(stage.calls().await.unwrap_err().why(), Some(Why::Garbage));
    // The connection ends in the middle of the message.
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n{begin}");
    stage.answers(&Fate::Answer(head.into_bytes()));
    assert_eq!(stage.refuses().await.kind, ErrorKind::Unavailable);
    assert!(matches!(
        stage.calls().await,
        Err(Failed::Http(HttpError::Broken))
    ));
}

/// If this fails, the library has started to hide values, or the logs of its modules are no longer
/// captured.
#[test]
#[should_panic(expected = "lines with a value or a credential were logged")]
fn payload_logged_by_a_library_module_is_detected() {
    let _quiet = listen();
    let payload = SecretPayload::new().set_data(VALUE);
    tracing::trace!(target: "google_cloud_secretmanager_v1", "{payload:?}");
}
