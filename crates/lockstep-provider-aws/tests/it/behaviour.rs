//! Runs the behaviour suite against both services.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{StreamExt as _, stream};
use lockstep_provider::Provider;
use lockstep_provider_testkit::{Skip, Subject};
use lockstep_testkit::{
    Moto,
    aws::{Aws, Trouble},
    proxy::{Fate, Proxy},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::bench::{self, DIRECTIVES, Store, objects, spec};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Service {
    SecretsManager,
    ParameterStore,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::SecretsManager => "SecretsManager",
            Self::ParameterStore => "ParameterStore",
        }
    }

    fn takes_key(self, key: &str) -> Result<(), Skip> {
        let also: &[u8] = match self {
            Self::SecretsManager => b"/_+=.@-",
            Self::ParameterStore => b"/_.-",
        };
        if key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
        {
            Ok(())
        } else {
            Skip::because("names have ASCII letters, digits and a few signs")
        }
    }

    fn skips(self) -> &'static [&'static str] {
        match self {
            Self::SecretsManager => &["unicode_keys_are_found"],
            Self::ParameterStore => &[
                "binary_values_are_answered_byte_for_byte",
                "unicode_keys_are_found",
            ],
        }
    }
}

fn document(fields: &[(&str, &str)]) -> String {
    json!(fields.iter().copied().collect::<BTreeMap<_, _>>()).to_string()
}

/// The stand-in, behind a proxy that simulates faults of the connection.
struct StandIn {
    aws: Aws,
    proxy: Proxy,
    service: Service,
}

impl StandIn {
    async fn new(service: Service) -> Self {
        let aws = Aws::start().await.unwrap();
        let proxy = Proxy::start(&aws.address()).await;
        Self { aws, proxy, service }
    }

    fn name(&self, key: &str) -> String {
        match self.service {
            Service::SecretsManager => key.to_owned(),
            Service::ParameterStore => format!("/{key}"),
        }
    }
}

#[async_trait]
impl Subject for StandIn {
    async fn provider(&self) -> Arc<dyn Provider> {
        let mut spec = spec(self.service.name(), self.proxy.address());
        if self.service == Service::ParameterStore {
            spec = bench::and(spec, "prefix", "/");
        }
        Store::new(spec, &objects()).await.0
    }

    fn skips(&self) -> &'static [&'static str] {
        self.service.skips()
    }

    fn log_directives(&self) -> &'static str {
        DIRECTIVES
    }

    fn takes_key(&self, key: &str) -> Result<(), Skip> {
        self.service.takes_key(key)
    }

    async fn put(&self, key: &str, fields: &[(&str, &str)]) -> Option<String> {
        let (name, value) = (self.name(key), document(fields));
        // The suite reads a value of one mebibyte from every provider, which neither service would
        // store.
        Some(match self.service {
            Service::SecretsManager => format!("uuid/{}", self.aws.put_oversized_secret(&name, &value)),
            Service::ParameterStore => self
                .aws
                .put_parameter_as(&name, "SecureString", &value)
                .to_string(),
        })
    }

    async fn put_raw(&self, key: &str, value: &[u8]) -> Result<(), Skip> {
        if self.service == Service::ParameterStore {
            return Skip::because("a parameter is text");
        }
        if value.is_empty() {
            return Skip::because("a secret has a byte at least");
        }
        self.aws.put_secret_bytes(key, value);
        Ok(())
    }

    async fn tag(&self, key: &str, name: &str, value: &str) -> Result<(), Skip> {
        self.aws.tag(&self.name(key), name, value);
        Ok(())
    }

    async fn delete(&self, key: &str) {
        self.aws.delete(&self.name(key));
    }

    async fn deny(&self, key: &str) -> Result<(), Skip> {
        self.aws.deny_name(&self.name(key));
        Ok(())
    }

    async fn throttle(&self, requests: usize, retry_after: Duration) -> Result<(), Skip> {
        self.aws.trouble(Some(Trouble::Throttled {
            left: requests,
            retry_after: Some(retry_after.as_secs()),
        }));
        Ok(())
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    async fn unavailable(&self) -> Result<(), Skip> {
        self.aws.trouble(Some(Trouble::Broken));
        Ok(())
    }

    async fn heal(&self) {
        self.aws.trouble(None);
        self.proxy.all(Fate::Pass);
    }
}

static MOTO: OnceCell<Moto> = OnceCell::const_new();

/// moto, which all tests share. Each test has its own region.
struct Emulated {
    moto: &'static Moto,
    proxy: Proxy,
    service: Service,
    region: String,
}

impl Emulated {
    async fn new(service: Service) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let moto = MOTO.get_or_init(|| async { Moto::start().await.unwrap() }).await;
        Self {
            moto,
            proxy: Proxy::start(moto.address()).await,
            service,
            region: format!("eu-test-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        }
    }

    async fn call(&self, target: &str, request: Value) -> anyhow::Result<Value> {
        self.moto.call(&self.region, target, &request).await
    }

    async fn store(&self, key: &str, value: Value) -> String {
        match self.service {
            Service::SecretsManager => {
                let with = |mut request: Value| {
                    for (field, value) in value.as_object().unwrap() {
                        request[field] = value.clone();
                    }
                    request
                };
                let put = self
                    .call("secretsmanager.PutSecretValue", with(json!({ "SecretId": key })))
                    .await;
                let answer = match put {
                    Ok(answer) => answer,
                    Err(_) => self
                        .call("secretsmanager.CreateSecret", with(json!({ "Name": key })))
                        .await
                        .unwrap(),
                };
                format!("uuid/{}", answer["VersionId"].as_str().unwrap())
            }
            Service::ParameterStore => {
                let request = json!({
                    "Name": format!("/{key}"), "Value": value["SecretString"], "Type": "SecureString",
                    "Overwrite": true, "Tier": "Advanced",
                });
                let answer = self.call("AmazonSSM.PutParameter", request).await.unwrap();
                answer["Version"].to_string()
            }
        }
    }
}

#[async_trait]
impl Subject for Emulated {
    async fn provider(&self) -> Arc<dyn Provider> {
        let spec = bench::and(
            spec(self.service.name(), self.proxy.address()),
            "region",
            self.region.as_str(),
        );
        let prefix = match self.service {
            Service::SecretsManager => "",
            Service::ParameterStore => "/",
        };
        Store::new(bench::and(spec, "prefix", prefix), &objects()).await.0
    }

    fn skips(&self) -> &'static [&'static str] {
        match self.service {
            Service::SecretsManager => &["unicode_keys_are_found", "a_denied_key_is_permission_denied"],
            Service::ParameterStore => &[
                "binary_values_are_answered_byte_for_byte",
                "unicode_keys_are_found",
                "a_denied_key_is_permission_denied",
            ],
        }
    }

    fn log_directives(&self) -> &'static str {
        DIRECTIVES
    }

    fn takes_key(&self, key: &str) -> Result<(), Skip> {
        self.service.takes_key(key)
    }

    async fn put(&self, key: &str, fields: &[(&str, &str)]) -> Option<String> {
        Some(self.store(key, json!({ "SecretString": document(fields) })).await)
    }

    async fn put_raw(&self, key: &str, value: &[u8]) -> Result<(), Skip> {
        if self.service == Service::ParameterStore {
            return Skip::because("a parameter is text");
        }
        if value.is_empty() {
            return Skip::because("a secret has a byte at least");
        }
        let bytes = BASE64_STANDARD.encode(value);
        self.store(key, json!({ "SecretBinary": bytes })).await;
        Ok(())
    }

    async fn put_many(&self, keys: &[String]) {
        let puts: Vec<_> = keys
            .iter()
            .map(|key| self.put(key, &[("value", "CANARY")]))
            .collect();
        stream::iter(puts).buffer_unordered(16).collect::<Vec<_>>().await;
    }

    async fn tag(&self, key: &str, name: &str, value: &str) -> Result<(), Skip> {
        let tags = json!([{ "Key": name, "Value": value }]);
        let (target, request) = match self.service {
            Service::SecretsManager => (
                "secretsmanager.TagResource",
                json!({ "SecretId": key, "Tags": tags }),
            ),
            Service::ParameterStore => (
                "AmazonSSM.AddTagsToResource",
                json!({ "ResourceType": "Parameter", "ResourceId": format!("/{key}"), "Tags": tags }),
            ),
        };
        self.call(target, request).await.unwrap();
        Ok(())
    }

    async fn delete(&self, key: &str) {
        let (target, request) = match self.service {
            Service::SecretsManager => (
                "secretsmanager.DeleteSecret",
                json!({ "SecretId": key, "ForceDeleteWithoutRecovery": true }),
            ),
            Service::ParameterStore => ("AmazonSSM.DeleteParameter", json!({ "Name": format!("/{key}") })),
        };
        // It may be deleted already.
        let _ = self.call(target, request).await;
    }

    async fn deny(&self, _: &str) -> Result<(), Skip> {
        Skip::because("moto has no rights of single keys")
    }

    async fn throttle(&self, requests: usize, retry_after: Duration) -> Result<(), Skip> {
        let mut left = requests;
        let seconds = retry_after.as_secs().to_string();
        self.proxy.rule(move |_| {
            if left == 0 {
                return Fate::Pass;
            }
            left -= 1;
            let text = r#"{"__type":"ThrottlingException","message":"CANARY"}"#;
            Fate::answer(400, &[("Retry-After", &seconds)], text)
        });
        Ok(())
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    async fn unavailable(&self) -> Result<(), Skip> {
        self.proxy.all(Fate::answer(
            500,
            &[],
            r#"{"__type":"InternalServiceError","message":"CANARY"}"#,
        ));
        Ok(())
    }

    async fn heal(&self) {
        self.proxy.all(Fate::Pass);
    }
}

mod moto_secrets_manager {
    lockstep_provider_testkit::behaviour!(super::Emulated::new(super::Service::SecretsManager));
}

mod moto_parameter_store {
    lockstep_provider_testkit::behaviour!(super::Emulated::new(super::Service::ParameterStore));
}

mod secrets_manager {
    lockstep_provider_testkit::behaviour!(super::StandIn::new(super::Service::SecretsManager));
}

mod parameter_store {
    lockstep_provider_testkit::behaviour!(super::StandIn::new(super::Service::ParameterStore));
}
