//! Runs the suite for keys with associated data and with derived keys of the transit engine, and
//! tests what is specific to Vault.

use std::sync::Arc;

use async_trait::async_trait;
use lockstep_api::{CiphertextScope, Limits, StoreKind, StoreProvider};
use lockstep_provider::{
    Binding, Ciphertext, Context, Encryptor, EndpointPolicy, ErrorKind, Provider, ProviderFactory as _,
    SecretValue, StoreConfig, StoreKey,
};
use lockstep_provider_testkit::KeySubject;
use lockstep_provider_vault::VaultFactory;
use lockstep_testkit::{
    OpenBao,
    proxy::{Fate, Proxy},
};
use serde_json::{Value, json};

use crate::bench::{Objects, Store, assert_clean, bao, later, unique};

struct Transit {
    bao: &'static OpenBao,
    proxy: Proxy,
    mount: String,
    derived: bool,
    operator: String,
    policy: String,
}

impl Transit {
    async fn new(derived: bool) -> Self {
        let bao = bao().await;
        let (mount, policy) = (unique("transit"), unique("operator"));
        bao.post(&format!("sys/mounts/{mount}"), json!({ "type": "transit" }))
            .await
            .unwrap();
        for key in ["shop", "other"] {
            bao.post(&format!("{mount}/keys/{key}"), json!({ "derived": derived }))
                .await
                .unwrap();
        }
        let rules = format!("path \"{mount}/decrypt/*\" {{ capabilities = [\"update\"] }}");
        bao.put_policy(&policy, &rules).await.unwrap();
        Self {
            bao,
            proxy: Proxy::start(bao.address()).await,
            operator: bao.create_token(&[&policy]).await.unwrap(),
            mount,
            derived,
            policy,
        }
    }

    fn spec(&self, key: &str) -> Value {
        json!({
            "server": self.proxy.address(),
            "transit": { "path": self.mount, "key": key, "derived": self.derived },
            "auth": { "tokenSecretRef": { "name": "vault", "key": "token" } },
        })
    }

    async fn encryptor_of(&self, key: &str, token: &str) -> Arc<dyn Encryptor> {
        lockstep_testkit::init();
        let config = StoreConfig {
            key: StoreKey {
                kind: StoreKind::SecretStore,
                namespace: Some("shop".to_owned()),
                name: "vault".to_owned(),
            },
            provider: serde_json::from_value::<StoreProvider>(json!({ "vault": self.spec(key) })).unwrap(),
            limits: Limits::default(),
            events: None,
            endpoints: EndpointPolicy::TenantOrLoopback,
        };
        let objects = Objects::default().with("vault", "token", token);
        VaultFactory.encryptor(&config, Arc::new(objects)).await.unwrap()
    }

    async fn developer(&self, key: &str) -> Arc<dyn Encryptor> {
        let policy = unique("developer");
        let rules = format!(
            "path \"{}/encrypt/*\" {{ capabilities = [\"update\"] }}",
            self.mount
        );
        self.bao.put_policy(&policy, &rules).await.unwrap();
        let token = self.bao.create_token(&[&policy]).await.unwrap();
        self.encryptor_of(key, &token).await
    }
}

#[async_trait]
impl KeySubject for Transit {
    async fn provider(&self) -> Arc<dyn Provider> {
        let objects = Objects::default().with("vault", "token", self.operator.as_str());
        Store::new(self.spec("shop"), &objects).await.0
    }

    async fn encryptor(&self) -> Arc<dyn Encryptor> {
        self.developer("shop").await
    }

    async fn other_encryptor(&self) -> Arc<dyn Encryptor> {
        self.developer("other").await
    }

    async fn operators_encryptor(&self) -> Arc<dyn Encryptor> {
        self.encryptor_of("shop", &self.operator).await
    }

    /// A key of the transit engine cannot be disabled, but its versions can be retired.
    async fn enable(&self, enabled: bool) {
        let key = format!("{}/keys/shop", self.mount);
        if !enabled {
            self.bao.post(&format!("{key}/rotate"), json!({})).await.unwrap();
        }
        let oldest = if enabled { 1 } else { 2 };
        self.bao
            .post(
                &format!("{key}/config"),
                json!({ "min_decryption_version": oldest }),
            )
            .await
            .unwrap();
    }

    async fn deny(&self) {
        let rules = format!(
            "path \"{}/decrypt/*\" {{ capabilities = [\"deny\"] }}",
            self.mount
        );
        self.bao.put_policy(&self.policy, &rules).await.unwrap();
    }

    async fn unavailable(&self, away: bool) {
        self.proxy.all(if away { Fate::sealed() } else { Fate::Pass });
    }
}

mod with_associated_data {
    lockstep_provider_testkit::key_behaviour!(super::Transit::new(false));
}

mod with_derived_keys {
    lockstep_provider_testkit::key_behaviour!(super::Transit::new(true));
}

async fn sealed(subject: &Transit) -> Ciphertext {
    let binding = Binding::new(CiphertextScope::Strict, "shop", "database", "password");
    let value = SecretValue::from("CANARY");
    let bytes = subject.encryptor().await.encrypt(&value, &binding).await.unwrap();
    Ciphertext { bytes, binding }
}

#[tokio::test]
async fn deleted_key_is_not_a_missing_value() {
    let subject = Transit::new(false).await;
    let (provider, ciphertext) = (subject.provider().await, sealed(&subject).await);
    let key = format!("{}/keys/shop", subject.mount);
    let config = json!({ "deletion_allowed": true });
    subject.bao.post(&format!("{key}/config"), config).await.unwrap();
    subject.bao.delete(&key).await.unwrap();
    let error = provider
        .decrypt(&Context::default(), &ciphertext)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::KeyUnavailable, "{error}");
}

#[tokio::test]
async fn derived_key_requires_derived_to_be_set() {
    let mut subject = Transit::new(true).await;
    let ciphertext = sealed(&subject).await;
    subject.derived = false;
    let error = subject
        .provider()
        .await
        .decrypt(&Context::default(), &ciphertext)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert!(error.message.contains("transit.derived"), "{error}");
}

fn elsewhere(ciphertext: &Ciphertext) -> Ciphertext {
    Ciphertext {
        bytes: ciphertext.bytes.clone(),
        binding: Binding::new(CiphertextScope::Strict, "blog", "stolen", "password"),
    }
}

async fn assert_refused_as_unbound(provider: &Arc<dyn Provider>, ciphertext: &Ciphertext, words: &str) {
    for ciphertext in [ciphertext, &elsewhere(ciphertext)] {
        let result = provider.decrypt(&Context::default(), ciphertext).await;
        let error = result.unwrap_err();
        assert_clean(&error);
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
        assert!(error.message.contains(words), "{error}");
    }
}

/// The server ignores the context of a key that is not derived.
#[tokio::test]
async fn derived_store_rejects_a_key_that_is_not_derived() {
    let mut subject = Transit::new(false).await;
    subject.derived = true;
    let (provider, ciphertext) = (subject.provider().await, sealed(&subject).await);
    let words = "transit.derived is set, but transit key \"shop\" is not derived";
    assert_refused_as_unbound(&provider, &ciphertext, words).await;
    // the server rejects every binding of a damaged ciphertext, which proves nothing
    let mut damaged = sealed(&subject).await;
    if let Some(byte) = damaged.bytes.iter_mut().rev().nth(4) {
        *byte = if *byte == b'A' { b'B' } else { b'A' };
    }
    let error = provider.decrypt(&Context::default(), &damaged).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Undecryptable, "{error}");
    assert_refused_as_unbound(&provider, &ciphertext, words).await;
}

#[tokio::test]
async fn server_that_ignores_associated_data_is_rejected() {
    let subject = Transit::new(false).await;
    subject.proxy.rule(|request| {
        match serde_json::from_str::<serde_json::Map<String, Value>>(&request.body) {
            Ok(mut body) => {
                body.remove("associated_data");
                Fate::PassBody(Value::from(body).to_string())
            }
            Err(_) => Fate::Pass,
        }
    });
    let (provider, ciphertext) = (subject.provider().await, sealed(&subject).await);
    assert_refused_as_unbound(&provider, &ciphertext, "the server ignores associated data").await;
    assert!(subject.proxy.count("/decrypt/shop") > 0);
}

#[tokio::test]
async fn binding_is_proven_again_after_five_minutes() {
    for derived in [false, true] {
        let subject = Transit::new(derived).await;
        let (provider, ciphertext) = (subject.provider().await, sealed(&subject).await);
        let decrypt = || async {
            let result = provider.decrypt(&Context::default(), &ciphertext).await;
            assert!(result.is_ok_and(|value| value.expose() == b"CANARY"));
        };
        futures::future::join_all((0..8).map(|_| decrypt())).await;
        assert_eq!(subject.proxy.count("/decrypt/shop"), 9, "derived: {derived}");
        decrypt().await;
        assert_eq!(subject.proxy.count("/decrypt/shop"), 10, "derived: {derived}");
        later(6).await;
        decrypt().await;
        assert_eq!(subject.proxy.count("/decrypt/shop"), 12, "derived: {derived}");
    }
}

#[tokio::test]
async fn only_a_rejected_binding_proves_the_key() {
    let forbidden = r#"{"errors":["cipher: message authentication failed"]}"#;
    for (fate, kind) in [
        (Fate::answer(500, &[], forbidden), ErrorKind::Unavailable),
        (Fate::answer(503, &[], forbidden), ErrorKind::Unavailable),
        (Fate::answer(429, &[], forbidden), ErrorKind::RateLimited),
        (Fate::answer(403, &[], forbidden), ErrorKind::PermissionDenied),
        (Fate::answer(404, &[], r#"{"errors":[]}"#), ErrorKind::NotFound),
        (
            Fate::answer(400, &[], r#"{"errors":["CANARY"]}"#),
            ErrorKind::ConfigInvalid,
        ),
        (
            Fate::answer(400, &[], "<html>message authentication failed</html>"),
            ErrorKind::Malformed,
        ),
        (
            Fate::answer(200, &[], "<html>CANARY</html>"),
            ErrorKind::Malformed,
        ),
    ] {
        let mut subject = Transit::new(false).await;
        subject.derived = true;
        let (provider, ciphertext) = (subject.provider().await, sealed(&subject).await);
        let mut first = Some(fate);
        subject.proxy.rule(move |request| {
            let is_decryption = request.target.contains("/decrypt/");
            first.take_if(|_| is_decryption).unwrap_or(Fate::Pass)
        });
        let error = provider
            .decrypt(&Context::default(), &ciphertext)
            .await
            .unwrap_err();
        assert_clean(&error);
        assert_eq!(error.kind, kind, "{error}");
        assert_refused_as_unbound(&provider, &ciphertext, "is not derived").await;
    }
}

/// Vault returns this error when its storage is slow.
#[tokio::test]
async fn server_failure_is_not_config_invalid() {
    let subject = Transit::new(false).await;
    let ciphertext = sealed(&subject).await;
    let body = r#"{"errors":["1 error occurred: context deadline exceeded"]}"#;
    subject.proxy.all(Fate::answer(500, &[], body));
    let provider = subject.provider().await;
    let error = provider
        .decrypt(&Context::default(), &ciphertext)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn store_without_a_key_cannot_decrypt() {
    let subject = Transit::new(false).await;
    let ciphertext = sealed(&subject).await;
    let mut spec = subject.spec("shop");
    spec.as_object_mut().unwrap().remove("transit");
    let objects = Objects::default().with("vault", "token", subject.operator.as_str());
    let provider = Store::new(spec, &objects).await.0;
    let error = provider
        .decrypt(&Context::default(), &ciphertext)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(
        error.to_string().contains("spec.provider.vault.transit"),
        "{error}"
    );
}

#[tokio::test]
async fn denial_names_the_missing_policy_path() {
    let subject = Transit::new(false).await;
    let (provider, ciphertext) = (subject.provider().await, sealed(&subject).await);
    subject.deny().await;
    let error = provider
        .decrypt(&Context::default(), &ciphertext)
        .await
        .unwrap_err();
    let line = format!(
        "path \"{}/decrypt/shop\" {{ capabilities = [\"update\"] }}",
        subject.mount
    );
    assert!(error.to_string().contains(&line), "{error}");
}

/// Version 1 of the key/value engine stores whatever a client writes to `encrypt/NAME`.
#[tokio::test]
async fn nothing_is_sent_to_an_engine_that_is_not_transit() {
    let mut subject = Transit::new(false).await;
    subject.mount = unique("kv");
    subject.bao.enable_kv(&subject.mount, 1).await.unwrap();
    let policy = unique("anything");
    let rules = format!(
        "path \"{}/*\" {{ capabilities = [\"create\", \"read\", \"update\", \"list\"] }}",
        subject.mount
    );
    subject.bao.put_policy(&policy, &rules).await.unwrap();
    let token = subject.bao.create_token(&[&policy]).await.unwrap();

    let encryptor = subject.encryptor_of("shop", &token).await;
    let binding = Binding::new(CiphertextScope::Strict, "shop", "database", "password");
    let value = SecretValue::from("CANARY");
    let error = encryptor.encrypt(&value, &binding).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert!(
        error.to_string().contains("spec.provider.vault.transit.path"),
        "{error}"
    );

    subject.operator = token;
    let ciphertext = Ciphertext {
        bytes: b"vault:v1:CANARY".to_vec(),
        binding,
    };
    let provider = subject.provider().await;
    let error = provider
        .decrypt(&Context::default(), &ciphertext)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");

    for path in ["encrypt/shop", "decrypt/shop"] {
        assert_eq!(subject.proxy.count(path), 0, "{path} was requested");
        let stored = subject.bao.get(&format!("{}/{path}", subject.mount)).await;
        assert!(stored.is_err(), "{path} was stored");
    }
}

#[tokio::test]
async fn nothing_is_sent_to_an_engine_that_replaced_transit() {
    let subject = Transit::new(false).await;
    let (provider, ciphertext) = (subject.provider().await, sealed(&subject).await);
    provider.decrypt(&Context::default(), &ciphertext).await.unwrap();
    let before = subject.proxy.count("/decrypt/shop");
    subject
        .bao
        .delete(&format!("sys/mounts/{}", subject.mount))
        .await
        .unwrap();
    subject.bao.enable_kv(&subject.mount, 1).await.unwrap();
    later(6).await;
    let error = provider
        .decrypt(&Context::default(), &ciphertext)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert_eq!(subject.proxy.count("/decrypt/shop"), before);
}
