//! Cloud KMS keys: the suite for keys, and Google-specific behaviour.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use lockstep_api::{CiphertextScope, Limits, StoreKind, StoreProvider};
use lockstep_provider::{
    Binding, Ciphertext, Context, Encryptor, EndpointPolicy, ErrorKind, Provider, ProviderFactory as _,
    SecretValue, StoreConfig,
};
use lockstep_provider_gcp::GcpFactory;
use lockstep_provider_testkit::{
    KeySubject,
    keys::{encrypt, refuse},
};
use lockstep_testkit::gcp::{Gcp, KeyState, SERVICE_ACCOUNT, Trouble};
use serde_json::{Value, json};

use crate::bench::{Objects, Store, key, key_auth, objects};

/// The account of a developer; [`SERVICE_ACCOUNT`] is the operator's.
const DEVELOPER: &str = "developer@lockstep-test.iam.gserviceaccount.com";

pub(crate) fn spec(address: &str, key: &str) -> Value {
    json!({
        "stsEndpoint": address, "iamEndpoint": address, "auth": key_auth(),
        "kms": { "key": key, "endpoint": address },
    })
}

pub(crate) async fn encryptor(gcp: &Gcp, spec: Value, email: &str) -> Arc<dyn Encryptor> {
    lockstep_testkit::init();
    let config = StoreConfig {
        key: key(StoreKind::SecretStore),
        provider: serde_json::from_value::<StoreProvider>(json!({ "gcp": spec })).unwrap(),
        limits: Limits::default(),
        events: None,
        endpoints: EndpointPolicy::TenantOrLoopback,
    };
    let file = gcp.service_account_key_of(email).unwrap();
    let objects = Objects::default().with("gcp", "key.json", file);
    GcpFactory::default()
        .encryptor(&config, Arc::new(objects))
        .await
        .unwrap()
}

struct StandIn {
    gcp: Gcp,
    keys: [String; 2],
}

impl StandIn {
    async fn new() -> Self {
        let gcp = Gcp::start().await.unwrap();
        gcp.deny_action_to(SERVICE_ACCOUNT, "Encrypt");
        gcp.deny_action_to(DEVELOPER, "Decrypt");
        let keys = [gcp.add_kms_key("shop"), gcp.add_kms_key("other")];
        Self { gcp, keys }
    }

    fn spec(&self, number: usize) -> Value {
        spec(&self.gcp.address(), &self.keys[number])
    }
}

#[async_trait]
impl KeySubject for StandIn {
    async fn provider(&self) -> Arc<dyn Provider> {
        Store::new(self.spec(0), &objects(&self.gcp)).await.0
    }

    async fn encryptor(&self) -> Arc<dyn Encryptor> {
        encryptor(&self.gcp, self.spec(0), DEVELOPER).await
    }

    async fn other_encryptor(&self) -> Arc<dyn Encryptor> {
        encryptor(&self.gcp, self.spec(1), DEVELOPER).await
    }

    async fn operators_encryptor(&self) -> Arc<dyn Encryptor> {
        encryptor(&self.gcp, self.spec(0), SERVICE_ACCOUNT).await
    }

    async fn enable(&self, enabled: bool) {
        let state = if enabled {
            KeyState::Enabled
        } else {
            KeyState::Disabled
        };
        self.gcp.set_kms_key_state("shop", 1, state);
    }

    async fn deny(&self) {
        self.gcp.deny_action("Decrypt");
    }

    async fn unavailable(&self, away: bool) {
        self.gcp.trouble(away.then_some(Trouble::Broken));
    }
}

lockstep_provider_testkit::key_behaviour!(StandIn::new());

fn place() -> Binding {
    Binding::new(CiphertextScope::Strict, "shop", "database", "password")
}

#[tokio::test]
async fn missing_key_does_not_mean_that_a_value_is_gone() {
    let subject = StandIn::new().await;
    let ciphertext = encrypt(&subject.encryptor().await, b"CANARY").await;
    let provider = subject.provider().await;
    for state in [KeyState::DestroyScheduled, KeyState::Destroyed] {
        subject.gcp.set_kms_key_state("shop", 1, state);
        refuse(&provider, &ciphertext, ErrorKind::KeyUnavailable).await;
    }
    let nobody = subject.keys[0].replace("cryptoKeys/shop", "cryptoKeys/nobody");
    let missing = spec(&subject.gcp.address(), &nobody);
    let provider = Store::new(missing, &objects(&subject.gcp)).await.0;
    refuse(&provider, &ciphertext, ErrorKind::KeyUnavailable).await;
}

#[tokio::test]
async fn ciphertext_of_an_older_key_version_is_decrypted() {
    let subject = StandIn::new().await;
    let ciphertext = encrypt(&subject.encryptor().await, b"CANARY").await;
    subject.gcp.add_kms_key("shop");
    let provider = subject.provider().await;
    assert!(provider.decrypt(&Context::default(), &ciphertext).await.is_ok());
}

#[tokio::test]
async fn location_is_authenticated_and_every_checksum_is_sent() {
    let subject = StandIn::new().await;
    let ciphertext = encrypt(&subject.encryptor().await, b"CANARY").await;
    let provider = subject.provider().await;
    provider.decrypt(&Context::default(), &ciphertext).await.unwrap();
    let calls = subject.gcp.calls();
    for (action, data) in [("Encrypt", "plaintext"), ("Decrypt", "ciphertext")] {
        let call = calls.iter().find(|call| call.action == action).unwrap();
        let body: Value = serde_json::from_str(&call.body).unwrap();
        let place_sent = body["additionalAuthenticatedData"].as_str().unwrap();
        assert_eq!(BASE64_STANDARD.decode(place_sent).unwrap(), place().to_bytes());
        assert!(body["additionalAuthenticatedDataCrc32c"].is_string(), "{action}");
        assert!(body[format!("{data}Crc32c")].is_string(), "{action}");
    }
}

#[tokio::test]
async fn response_with_a_wrong_checksum_is_malformed() {
    let subject = StandIn::new().await;
    let encryptor = subject.encryptor().await;
    let ciphertext = encrypt(&encryptor, b"CANARY").await;
    let provider = subject.provider().await;
    for trouble in [Trouble::WrongChecksum, Trouble::NoPayload, Trouble::Cut] {
        subject.gcp.trouble(Some(trouble.clone()));
        refuse(&provider, &ciphertext, ErrorKind::Malformed).await;
        let error = encryptor.encrypt(&"CANARY".into(), &place()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed, "{trouble:?}");
        assert!(!format!("{error:?}").contains("CANARY"), "{error}");
    }
}

#[tokio::test]
async fn empty_value_can_be_encrypted() {
    let subject = StandIn::new().await;
    let bytes = subject
        .encryptor()
        .await
        .encrypt(&SecretValue::new([]), &place())
        .await
        .unwrap();
    let ciphertext = Ciphertext {
        bytes,
        binding: place(),
    };
    let provider = subject.provider().await;
    let value = provider.decrypt(&Context::default(), &ciphertext).await.unwrap();
    assert!(value.is_empty());
}

#[tokio::test]
async fn throttled_kms_request_is_rate_limited() {
    let subject = StandIn::new().await;
    let ciphertext = encrypt(&subject.encryptor().await, b"CANARY").await;
    let provider = subject.provider().await;
    subject.gcp.trouble(Some(Trouble::Throttled {
        left: 1,
        retry_after: Some(7),
    }));
    refuse(&provider, &ciphertext, ErrorKind::RateLimited).await;
    assert!(provider.decrypt(&Context::default(), &ciphertext).await.is_ok());
}

#[tokio::test]
async fn store_with_only_a_key_reads_nothing_and_passes_its_check() {
    let subject = StandIn::new().await;
    let store = Store::new(subject.spec(0), &objects(&subject.gcp)).await;
    store.check().await.unwrap();
    let error = store.refuse("a").await;
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert!(
        error.to_string().contains("spec.provider.gcp.projectID"),
        "{error}"
    );
}

#[tokio::test]
async fn store_without_a_key_decrypts_nothing() {
    let subject = StandIn::new().await;
    let ciphertext = encrypt(&subject.encryptor().await, b"CANARY").await;
    let provider = Store::of(&subject.gcp).await.0;
    refuse(&provider, &ciphertext, ErrorKind::Unsupported).await;
}
