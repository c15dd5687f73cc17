//! Runs the behaviour suite. Names of secrets contain no slash and no dot, so the suite's keys are
//! encoded in words.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use lockstep_provider::{
    Capability, Ciphertext, Context, EventSource, FindQuery, NoLeases, Notice, Provider, ProviderError,
    RemoteMeta, RemoteRef, RemoteSecret, SecretValue,
};
use lockstep_provider_testkit::{Skip, Subject, at};
use lockstep_testkit::{
    gcp::{Gcp, Trouble},
    proxy::{Fate, Proxy},
};
use serde_json::json;

use crate::bench::{Store, objects, spec};

const SLASH: &str = "_s_";
const DOT: &str = "_d_";

/// Encodes a key of the suite as a name. A key that resolves elsewhere, or that no name could have,
/// is unchanged.
fn name(key: &str) -> String {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"/_.-".contains(&byte);
    let is_path = key
        .split('/')
        .all(|part| !part.is_empty() && !matches!(part, "." | ".."));
    if is_path && key.bytes().all(is_usual) {
        key.replace('/', SLASH).replace('.', DOT)
    } else {
        key.to_owned()
    }
}

fn key(text: &str) -> String {
    text.replace(SLASH, "/").replace(DOT, ".")
}

/// The provider, with the suite's keys in requests and responses.
#[derive(Debug)]
struct Named(Arc<dyn Provider>);

fn told(mut error: ProviderError) -> ProviderError {
    error.message = key(&error.message);
    error
}

#[async_trait]
impl Provider for Named {
    fn capability(&self) -> Capability {
        self.0.capability()
    }

    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        let named = |reference: &RemoteRef| RemoteRef {
            key: at(name(&reference.key)),
            ..reference.clone()
        };
        let refs: Vec<RemoteRef> = refs.iter().map(named).collect();
        let results = self.0.fetch(cx, &refs).await;
        results.into_iter().map(|result| result.map_err(told)).collect()
    }

    fn batches(&self, _: &RemoteRef) -> bool {
        false
    }

    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        let query = FindQuery {
            // A folder is a prefix here.
            path: query
                .path
                .as_ref()
                .map(|path| at(format!("{}{SLASH}", name(path)))),
            scope: query.scope.clone(),
            name: query.name.as_ref().map(|pattern| pattern.replace('/', SLASH)),
            tags: query.tags.clone(),
        };
        let found = self.0.find(cx, &query).await.map_err(told)?;
        assert!(found.is_sorted());
        let mut found: Vec<_> = found
            .into_iter()
            .map(|meta| RemoteMeta {
                key: at(key(&meta.key)),
            })
            .collect();
        // A slash sorts before its encoded form.
        found.sort();
        Ok(found)
    }

    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        self.0.decrypt(cx, ciphertext).await
    }

    async fn check(&self, cx: &Context) -> Result<(), ProviderError> {
        self.0.check(cx).await.map_err(told)
    }

    fn notice(&self) -> Option<Notice> {
        self.0.notice()
    }

    fn changes(&self) -> Option<BoxStream<'static, ()>> {
        self.0.changes()
    }

    fn events(&self) -> Option<Arc<dyn EventSource>> {
        self.0.events()
    }
}

impl NoLeases for Named {}

/// The stand-in, behind a proxy that simulates faults of the connection.
struct StandIn {
    gcp: Gcp,
    proxy: Proxy,
}

impl StandIn {
    async fn new() -> Self {
        let gcp = Gcp::start().await.unwrap();
        let proxy = Proxy::start(&gcp.address()).await;
        Self { gcp, proxy }
    }
}

#[async_trait]
impl Subject for StandIn {
    async fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(Named(
            Store::new(spec(self.proxy.address()), &objects(&self.gcp))
                .await
                .0,
        ))
    }

    fn skips(&self) -> &'static [&'static str] {
        &["unicode_keys_are_found"]
    }

    fn takes_key(&self, key: &str) -> Result<(), Skip> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if name(key).bytes().all(is_word) {
            Ok(())
        } else {
            Skip::because("names have ASCII letters, digits, - and _")
        }
    }

    async fn put(&self, key: &str, fields: &[(&str, &str)]) -> Option<String> {
        let document = json!(fields.iter().copied().collect::<BTreeMap<_, _>>()).to_string();
        let number = self.gcp.put_oversized_secret(&name(key), document.as_bytes());
        Some(number.to_string())
    }

    async fn put_raw(&self, key: &str, value: &[u8]) -> Result<(), Skip> {
        self.gcp.put_secret_bytes(&name(key), value);
        Ok(())
    }

    async fn tag(&self, key: &str, label: &str, value: &str) -> Result<(), Skip> {
        self.gcp.label(&name(key), label, value);
        Ok(())
    }

    async fn delete(&self, key: &str) {
        self.gcp.delete(&name(key));
    }

    async fn deny(&self, key: &str) -> Result<(), Skip> {
        self.gcp.deny_name(&name(key));
        Ok(())
    }

    async fn throttle(&self, requests: usize, retry_after: Duration) -> Result<(), Skip> {
        self.gcp.trouble(Some(Trouble::Throttled {
            left: requests,
            retry_after: Some(retry_after.as_secs()),
        }));
        Ok(())
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    async fn unavailable(&self) -> Result<(), Skip> {
        self.gcp.trouble(Some(Trouble::Broken));
        Ok(())
    }

    async fn heal(&self) {
        self.gcp.trouble(None);
        self.proxy.all(Fate::Pass);
    }
}

lockstep_provider_testkit::behaviour!(StandIn::new());
