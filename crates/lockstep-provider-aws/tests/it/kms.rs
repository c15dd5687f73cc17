//! KMS keys: the suite for keys, against the stand-in and against moto, and AWS-specific behaviour.

use std::sync::Arc;

use async_trait::async_trait;
use lockstep_api::{CiphertextScope, Limits, StoreKind, StoreProvider};
use lockstep_provider::{
    Binding, Ciphertext, Context, Encryptor, EndpointPolicy, ErrorKind, Provider, ProviderFactory as _,
    RemoteRef, SecretValue, StoreConfig,
};
use lockstep_provider_aws::AwsFactory;
use lockstep_provider_testkit::{
    KeySubject, Quiet, at,
    keys::{encrypt, refuse},
};
use lockstep_testkit::{
    Moto,
    aws::{ACCESS_KEY_ID, Aws, KeyState, REGION, SECRET_ACCESS_KEY, Trouble},
};
use serde_json::{Value, json};

use crate::bench::{DIRECTIVES, Objects, Store, key, key_auth, objects};

/// The access key of a developer; [`ACCESS_KEY_ID`] is the operator's.
const DEVELOPER: &str = "AKIALOCKSTEPTEST0002";

pub(crate) fn spec(address: &str, key: &str) -> Value {
    json!({
        "region": REGION, "stsEndpoint": address, "auth": key_auth(),
        "kms": { "keyId": key, "endpoint": address },
    })
}

pub(crate) async fn encryptor(spec: Value, access_key: &str) -> Arc<dyn Encryptor> {
    lockstep_testkit::init();
    let config = StoreConfig {
        key: key(StoreKind::SecretStore),
        provider: serde_json::from_value::<StoreProvider>(json!({ "aws": spec })).unwrap(),
        limits: Limits::default(),
        events: None,
        endpoints: EndpointPolicy::TenantOrLoopback,
    };
    let objects = Objects::default()
        .with("aws", "id", access_key)
        .with("aws", "secret", SECRET_ACCESS_KEY);
    AwsFactory::default()
        .encryptor(&config, Arc::new(objects))
        .await
        .unwrap()
}

/// Returns the errors of encrypting and decrypting with this configuration, in this order.
pub(crate) async fn round_trip(spec: Value) -> [Option<ErrorKind>; 2] {
    let place = Binding::new(CiphertextScope::Strict, "shop", "database", "password");
    let sealed = encryptor(spec.clone(), ACCESS_KEY_ID).await;
    let sealed = sealed.encrypt(&SecretValue::from("CANARY"), &place).await;
    let ciphertext = Ciphertext {
        bytes: vec![1],
        binding: place,
    };
    let store = Store::new(spec, &objects()).await;
    let opened = store.0.decrypt(&Context::default(), &ciphertext).await;
    [
        sealed.err().map(|error| error.kind),
        opened.err().map(|error| error.kind),
    ]
}

struct StandIn {
    aws: Aws,
    keys: [String; 2],
}

impl StandIn {
    async fn new() -> Self {
        let aws = Aws::start().await.unwrap();
        aws.add_key(DEVELOPER);
        aws.deny_action_to(ACCESS_KEY_ID, "Encrypt");
        aws.deny_action_to(DEVELOPER, "Decrypt");
        let keys = [aws.add_kms_key("shop"), aws.add_kms_key("other")];
        Self { aws, keys }
    }

    fn spec(&self, number: usize) -> Value {
        spec(&self.aws.address(), &self.keys[number])
    }
}

#[async_trait]
impl KeySubject for StandIn {
    async fn provider(&self) -> Arc<dyn Provider> {
        Store::new(self.spec(0), &objects()).await.0
    }

    async fn encryptor(&self) -> Arc<dyn Encryptor> {
        encryptor(self.spec(0), DEVELOPER).await
    }

    async fn other_encryptor(&self) -> Arc<dyn Encryptor> {
        encryptor(self.spec(1), DEVELOPER).await
    }

    async fn operators_encryptor(&self) -> Arc<dyn Encryptor> {
        encryptor(self.spec(0), ACCESS_KEY_ID).await
    }

    async fn enable(&self, enabled: bool) {
        let state = if enabled {
            KeyState::Enabled
        } else {
            KeyState::Disabled
        };
        self.aws.set_kms_key("shop", state);
    }

    async fn deny(&self) {
        self.aws.deny_action("Decrypt");
    }

    async fn unavailable(&self, away: bool) {
        self.aws.trouble(away.then_some(Trouble::Broken));
    }

    fn log_directives(&self) -> &'static str {
        DIRECTIVES
    }
}

lockstep_provider_testkit::key_behaviour!(StandIn::new());

#[tokio::test]
async fn missing_key_does_not_mean_that_a_value_is_gone() {
    let subject = StandIn::new().await;
    let ciphertext = encrypt(&subject.encryptor().await, b"CANARY").await;
    let provider = subject.provider().await;
    subject.aws.set_kms_key("shop", KeyState::PendingDeletion);
    refuse(&provider, &ciphertext, ErrorKind::KeyUnavailable).await;
    let missing = spec(
        &subject.aws.address(),
        "arn:aws:kms:eu-central-1:123456789012:key/nobody",
    );
    let provider = Store::new(missing, &objects()).await.0;
    refuse(&provider, &ciphertext, ErrorKind::KeyUnavailable).await;
}

#[tokio::test]
async fn encryption_context_contains_the_location() {
    let subject = StandIn::new().await;
    let ciphertext = encrypt(&subject.encryptor().await, b"CANARY").await;
    let provider = subject.provider().await;
    provider.decrypt(&Context::default(), &ciphertext).await.unwrap();
    let calls = subject.aws.calls();
    let decrypt = calls.iter().find(|call| call.action == "Decrypt").unwrap();
    let body: Value = serde_json::from_str(&decrypt.body).unwrap();
    let expected = json!({
        "lockstep:namespace": "shop", "lockstep:syncedsecret": "database", "lockstep:key": "password",
        "lockstep:scope": "Strict",
    });
    assert_eq!(body["EncryptionContext"], expected);
    assert_eq!(body["KeyId"], subject.keys[0]);
}

#[tokio::test]
async fn throttled_kms_request_is_rate_limited() {
    let subject = StandIn::new().await;
    let ciphertext = encrypt(&subject.encryptor().await, b"CANARY").await;
    let provider = subject.provider().await;
    let throttled = Trouble::Throttled {
        left: 1,
        retry_after: Some(7),
    };
    subject.aws.trouble(Some(throttled));
    refuse(&provider, &ciphertext, ErrorKind::RateLimited).await;
    assert!(provider.decrypt(&Context::default(), &ciphertext).await.is_ok());
}

#[tokio::test]
async fn store_with_only_a_key_reads_nothing_and_passes_its_check() {
    let subject = StandIn::new().await;
    let store = Store::new(subject.spec(0), &objects()).await;
    store.check().await.unwrap();
    let error = store
        .fetch(&[RemoteRef::current(at("a"))])
        .await
        .remove(0)
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert!(error.to_string().contains("spec.provider.aws.service"), "{error}");
}

/// moto has no policies and decrypts with disabled keys. The stand-in covers both.
#[tokio::test]
async fn moto_decrypts_only_for_the_sealed_location() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let moto = Moto::start().await.unwrap();
    let created = moto
        .call(REGION, "TrentService.CreateKey", &json!({}))
        .await
        .unwrap();
    let arn = created["KeyMetadata"]["Arn"].as_str().unwrap();
    let encryptor = encryptor(spec(moto.address(), arn), DEVELOPER).await;
    let ciphertext = encrypt(&encryptor, b"CANARY").await;
    let provider = Store::new(spec(moto.address(), arn), &objects()).await.0;
    let value = provider.decrypt(&Context::default(), &ciphertext).await.unwrap();
    assert_eq!(value.expose(), b"CANARY");
    let elsewhere = Ciphertext {
        binding: Binding::new(CiphertextScope::Strict, "blog", "database", "password"),
        ..ciphertext.clone()
    };
    refuse(&provider, &elsewhere, ErrorKind::Undecryptable).await;
    lockstep_provider_testkit::keys::assert_envelope_is_bound(&provider, &encryptor).await;
}
