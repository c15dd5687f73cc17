//! The behaviour suite, against both services.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use lockstep_provider::Provider;
use lockstep_provider_testkit::{Skip, Subject};
use lockstep_testkit::{
    aws::{Aws, Trouble},
    proxy::{Fate, Proxy},
};
use serde_json::json;

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

/// The stand-in, behind a proxy for what a server of HTTP cannot do.
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

    async fn hang(&self) -> Result<(), Skip> {
        self.proxy.all(Fate::Hang);
        Ok(())
    }

    async fn unavailable(&self) -> Result<(), Skip> {
        self.aws.trouble(Some(Trouble::Broken));
        Ok(())
    }

    async fn garbage(&self) -> Result<(), Skip> {
        let page = "<html><body>Sign in, CANARY</body></html>";
        self.proxy
            .all(Fate::answer(200, &[("Content-Type", "text/html")], page));
        Ok(())
    }

    async fn endless(&self, _: &str) -> Result<(), Skip> {
        self.proxy.all(Fate::Endless);
        Ok(())
    }

    async fn heal(&self) {
        self.aws.trouble(None);
        self.proxy.all(Fate::Pass);
    }
}

mod secrets_manager {
    lockstep_provider_testkit::behaviour!(super::StandIn::new(super::Service::SecretsManager));
}

mod parameter_store {
    lockstep_provider_testkit::behaviour!(super::StandIn::new(super::Service::ParameterStore));
}
