use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lockstep_provider::Provider;
use lockstep_testkit::proxy::{Fate, Proxy};

/// Why a subject cannot do what a case needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The reason, which is printed.
    pub reason: String,
}

impl Skip {
    /// Skips the case for that reason.
    ///
    /// # Errors
    /// Always: it is written as `return Skip::because("…")`.
    pub fn because<T>(reason: impl Into<String>) -> Result<T, Self> {
        Err(Self {
            reason: reason.into(),
        })
    }
}

/// A backend under test. It is made anew, and empty, for each case.
///
/// The faults are the backend's, not the client's: they are made at the far end of whatever the client talks to (a proxy
/// before a real server, a scripted server, a broken file), so that the client's own code is what is tested. A fault that
/// the backend cannot have is a [`Skip`].
#[async_trait]
pub trait Subject: Send + Sync {
    /// A client, as the provider's factory makes it, without layers. It is asked for once per case, before any fault.
    async fn provider(&self) -> Arc<dyn Provider>;

    /// The cases that this subject skips, by the name of their function; no others may be skipped, and each of these
    /// must be.
    fn skips(&self) -> &'static [&'static str];

    /// What is captured while a case runs, in the syntax of `RUST_LOG`. Everything, unless a library logs values at some
    /// level: then the binary must hold that library to the same level, and the reason stands here.
    fn log_directives(&self) -> &'static str {
        "trace"
    }

    /// Stores fields under a key, in place of what was there, as a new version where the backend has versions. The
    /// provider answers them as one JSON object with these fields and no other.
    ///
    /// Returns the version, in the form in which a reference names it; `None` where the backend has none.
    async fn put(&self, key: &str, fields: &[(&str, &str)]) -> Option<String>;

    /// Whether the backend takes such a key.
    ///
    /// # Errors
    /// Where no value can have it.
    fn takes_key(&self, _: &str) -> Result<(), Skip> {
        Ok(())
    }

    /// Whether a search below a path without values, or in an empty store, is an empty list.
    ///
    /// # Errors
    /// Where the provider cannot tell it from a backend that is away.
    fn finds_nothing(&self) -> Result<(), Skip> {
        Ok(())
    }

    /// Stores bytes under a key: the provider answers exactly them.
    ///
    /// # Errors
    /// Where the backend stores fields only, or not these bytes.
    async fn put_raw(&self, key: &str, value: &[u8]) -> Result<(), Skip>;

    /// Stores one small value under each key. A subject with a faster way than one after the other takes it.
    async fn put_many(&self, keys: &[String]) {
        for key in keys {
            self.put(key, &[("value", crate::CANARY)]).await;
        }
    }

    /// Sets a tag of a key that was stored.
    ///
    /// # Errors
    /// Where the backend has no tags.
    async fn tag(&self, key: &str, name: &str, value: &str) -> Result<(), Skip>;

    /// Deletes a key with all its versions, as a user of the backend would.
    async fn delete(&self, key: &str);

    /// From now on the client's identity may not read this key; other keys it may.
    ///
    /// # Errors
    /// Where the backend has no such rights.
    async fn deny(&self, key: &str) -> Result<(), Skip>;

    /// The next requests are told to slow down for so long (whole seconds).
    ///
    /// # Errors
    /// Where the backend never does.
    async fn throttle(&self, requests: usize, retry_after: Duration) -> Result<(), Skip>;

    /// What stands between the client and its backend, where something does: the faults that any server can have are made there.
    fn proxy(&self) -> Option<&Proxy> {
        None
    }

    /// From now on all requests have this fate.
    ///
    /// # Errors
    /// Where nothing stands between the client and its backend.
    fn all(&self, fate: Fate) -> Result<(), Skip> {
        let Some(proxy) = self.proxy() else {
            return Skip::because("nothing stands between the client and its backend");
        };
        proxy.all(fate);
        Ok(())
    }

    /// From now on requests are taken and never answered.
    ///
    /// # Errors
    /// Where that cannot happen.
    async fn hang(&self) -> Result<(), Skip> {
        self.all(Fate::Hang)
    }

    /// From now on the backend cannot be reached, or says that it cannot serve.
    ///
    /// # Errors
    /// Where that cannot happen.
    async fn unavailable(&self) -> Result<(), Skip>;

    /// From now on answers are not in the form that they must have, and contain [`CANARY`](crate::CANARY).
    ///
    /// # Errors
    /// Where any bytes are a value.
    async fn garbage(&self) -> Result<(), Skip> {
        let page = "<html><body>Sign in, CANARY</body></html>";
        self.all(Fate::answer(200, &[("Content-Type", "text/html")], page))
    }

    /// From now on the answer for this key never ends, or is larger than anybody can take (a gibibyte).
    ///
    /// # Errors
    /// Where that cannot happen.
    async fn endless(&self, key: &str) -> Result<(), Skip> {
        let _ = key;
        self.all(Fate::Endless)
    }

    /// Ends the faults of [`hang`](Self::hang), [`unavailable`](Self::unavailable), [`garbage`](Self::garbage) and
    /// [`throttle`](Self::throttle).
    async fn heal(&self);
}
