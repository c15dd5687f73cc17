//! Runs the behaviour suite against key/value engines of both versions.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use lockstep_provider::Provider;
use lockstep_provider_testkit::{Skip, Subject};
use lockstep_testkit::{
    OpenBao,
    proxy::{Fate, Proxy},
};
use serde_json::{Map, Value, json};

use crate::bench::{self, Objects, Store, bao, encode, engine, reader, token_spec};

struct Vault {
    bao: &'static OpenBao,
    proxy: Proxy,
    mount: String,
    policy: String,
    token: String,
    version: u8,
}

impl Vault {
    async fn new(version: u8) -> Self {
        let bao = bao().await;
        let mount = engine(bao, version).await;
        let policy = reader(bao, &mount).await;
        Self {
            bao,
            proxy: Proxy::start(bao.address()).await,
            token: bao.create_token(&[&policy]).await.unwrap(),
            mount,
            policy,
            version,
        }
    }

    fn value_path(&self, key: &str) -> String {
        let data = if self.version == 1 { "" } else { "data/" };
        format!("{}/{data}{}", self.mount, encode(key))
    }

    fn metadata_path(&self, key: &str) -> String {
        format!("{}/metadata/{}", self.mount, encode(key))
    }
}

#[async_trait]
impl Subject for Vault {
    async fn provider(&self) -> Arc<dyn Provider> {
        let spec = token_spec(self.proxy.address(), &self.mount);
        let spec = bench::and(spec, "version", format!("v{}", self.version));
        let objects = Objects::default().with("vault", "token", self.token.as_str());
        Store::new(spec, &objects).await.0
    }

    fn skips(&self) -> &'static [&'static str] {
        match self.version {
            1 => &[
                "binary_values_are_answered_byte_for_byte",
                "a_pinned_version_is_answered",
                "a_missing_version_is_not_found",
                "metadata_is_answered_as_a_json_object",
                "values_are_found_by_tags",
            ],
            _ => &["binary_values_are_answered_byte_for_byte"],
        }
    }

    async fn put(&self, key: &str, fields: &[(&str, &str)]) -> Option<String> {
        let fields: Map<String, Value> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        if self.version == 1 {
            self.bao
                .put_kv1(&self.value_path(key), json!(fields))
                .await
                .unwrap();
            return None;
        }
        let version = bench::put(self.bao, &self.mount, key, json!(fields)).await;
        Some(version.to_string())
    }

    async fn put_raw(&self, _: &str, _: &[u8]) -> Result<(), Skip> {
        Skip::because("a key/value engine stores fields of text")
    }

    async fn put_many(&self, keys: &[String]) {
        let puts: Vec<_> = keys
            .iter()
            .map(|key| self.put(key, &[("value", "CANARY")]))
            .collect();
        stream::iter(puts).buffer_unordered(32).collect::<Vec<_>>().await;
    }

    async fn tag(&self, key: &str, name: &str, value: &str) -> Result<(), Skip> {
        if self.version == 1 {
            return Skip::because("a key/value engine of version 1 keeps no custom metadata");
        }
        let path = self.metadata_path(key);
        let metadata = self.bao.get(&path).await.unwrap();
        let mut tags = metadata["data"]["custom_metadata"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        tags.insert(name.to_owned(), json!(value));
        self.bao
            .post(&path, json!({ "custom_metadata": tags }))
            .await
            .unwrap();
        Ok(())
    }

    async fn delete(&self, key: &str) {
        let path = match self.version {
            1 => self.value_path(key),
            _ => self.metadata_path(key),
        };
        self.bao.delete(&path).await.unwrap();
    }

    async fn deny(&self, key: &str) -> Result<(), Skip> {
        let rules = format!(
            "path \"{}/*\" {{ capabilities = [\"read\", \"list\"] }}\npath \"{}\" {{ capabilities = [\"deny\"] }}",
            self.mount,
            self.value_path(key)
        );
        self.bao.put_policy(&self.policy, &rules).await.unwrap();
        Ok(())
    }

    async fn throttle(&self, requests: usize, retry_after: Duration) -> Result<(), Skip> {
        let mut left = requests;
        let seconds = retry_after.as_secs().to_string();
        self.proxy.rule(move |_| {
            if left == 0 {
                return Fate::Pass;
            }
            left -= 1;
            Fate::answer(429, &[("Retry-After", &seconds)], r#"{"errors":["CANARY"]}"#)
        });
        Ok(())
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    async fn unavailable(&self) -> Result<(), Skip> {
        self.proxy.all(Fate::sealed());
        Ok(())
    }

    async fn heal(&self) {
        self.proxy.all(Fate::Pass);
    }
}

mod version_1 {
    lockstep_provider_testkit::behaviour!(super::Vault::new(1));
}

mod version_2 {
    lockstep_provider_testkit::behaviour!(super::Vault::new(2));
}
