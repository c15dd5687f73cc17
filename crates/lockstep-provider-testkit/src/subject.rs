use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lockstep_provider::Provider;
use lockstep_testkit::proxy::{Fate, Proxy};

/// The reason why a subject cannot do what a case needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The reason, which the test prints.
    pub reason: String,
}

impl Skip {
    /// Skips the case for that reason.
    ///
    /// # Errors
    /// Always: use it as `return Skip::because("…")`.
    pub fn because<T>(reason: impl Into<String>) -> Result<T, Self> {
        Err(Self {
            reason: reason.into(),
        })
    }
}

/// A backend under test. Each case gets a new, empty one.
///
/// Faults are injected at the backend, not in the client: in a proxy before a real server, in a
/// scripted server, or in a broken file. The cases therefore test the client's own code. A fault
/// that the backend cannot have is a [`Skip`].
#[async_trait]
pub trait Subject: Send + Sync {
    /// Returns a client as the provider's factory builds it, without layers. It is called once per
    /// case, before any fault.
    async fn provider(&self) -> Arc<dyn Provider>;

    /// Lists the cases that this subject skips, by function name. No other case may be skipped, and
    /// each of these must be.
    fn skips(&self) -> &'static [&'static str];

    /// The log levels to capture while a case runs, in the syntax of `RUST_LOG`. The default
    /// captures everything. If a library logs values at some level, the binary must limit that
    /// library to the same level, and the implementation must state the reason.
    fn log_directives(&self) -> &'static str {
        "trace"
    }

    /// Stores fields under a key and replaces its value, as a new version if the backend has
    /// versions. The provider returns the value as one JSON object with exactly these fields.
    ///
    /// Returns the version as a reference names it, or `None` if the backend has no versions.
    async fn put(&self, key: &str, fields: &[(&str, &str)]) -> Option<String>;

    /// Checks whether the backend accepts such a key.
    ///
    /// # Errors
    /// Skips the case if no value can have this key.
    fn takes_key(&self, _: &str) -> Result<(), Skip> {
        Ok(())
    }

    /// Checks whether a search below a path without values, or in an empty store, returns an empty
    /// list.
    ///
    /// # Errors
    /// Skips the case if the provider cannot tell this from an unavailable backend.
    fn finds_nothing(&self) -> Result<(), Skip> {
        Ok(())
    }

    /// Stores bytes under a key. The provider returns exactly these bytes.
    ///
    /// # Errors
    /// Skips the case if the backend only stores fields, or cannot store these bytes.
    async fn put_raw(&self, key: &str, value: &[u8]) -> Result<(), Skip>;

    /// Stores one small value under each key. Subjects override this if they have a faster way than
    /// one key at a time.
    async fn put_many(&self, keys: &[String]) {
        for key in keys {
            self.put(key, &[("value", crate::CANARY)]).await;
        }
    }

    /// Sets a tag of a stored key.
    ///
    /// # Errors
    /// Skips the case if the backend has no tags.
    async fn tag(&self, key: &str, name: &str, value: &str) -> Result<(), Skip>;

    /// Deletes a key with all its versions, like a user of the backend would.
    async fn delete(&self, key: &str);

    /// Denies the client's identity access to this key. Other keys stay readable.
    ///
    /// # Errors
    /// Skips the case if the backend has no such permissions.
    async fn deny(&self, key: &str) -> Result<(), Skip>;

    /// Throttles the next requests with this delay, in whole seconds.
    ///
    /// # Errors
    /// Skips the case if the backend never throttles.
    async fn throttle(&self, requests: usize, retry_after: Duration) -> Result<(), Skip>;

    /// Returns the proxy between the client and its backend, if there is one. It injects the faults
    /// that any server can have.
    fn proxy(&self) -> Option<&Proxy> {
        None
    }

    /// Applies this fate to all further requests.
    ///
    /// # Errors
    /// Skips the case if there is no proxy between the client and its backend.
    fn all(&self, fate: Fate) -> Result<(), Skip> {
        let Some(proxy) = self.proxy() else {
            return Skip::because("nothing stands between the client and its backend");
        };
        proxy.all(fate);
        Ok(())
    }

    /// Accepts further requests and never responds to them.
    ///
    /// # Errors
    /// Skips the case if the backend cannot hang.
    async fn hang(&self) -> Result<(), Skip> {
        self.all(Fate::Hang)
    }

    /// Makes the backend unreachable, or makes it respond that it is unavailable.
    ///
    /// # Errors
    /// Skips the case if the backend is always available.
    async fn unavailable(&self) -> Result<(), Skip>;

    /// Makes responses malformed. They contain [`CANARY`](crate::CANARY).
    ///
    /// # Errors
    /// Skips the case if any bytes are a valid value.
    async fn garbage(&self) -> Result<(), Skip> {
        let page = "<html><body>Sign in, CANARY</body></html>";
        self.all(Fate::answer(200, &[("Content-Type", "text/html")], page))
    }

    /// Makes the response for this key endless, or larger than any client accepts (one gibibyte).
    ///
    /// # Errors
    /// Skips the case if the backend has no such response.
    async fn endless(&self, key: &str) -> Result<(), Skip> {
        let _ = key;
        self.all(Fate::Endless)
    }

    /// Ends the faults of [`hang`](Self::hang), [`unavailable`](Self::unavailable),
    /// [`garbage`](Self::garbage) and [`throttle`](Self::throttle).
    async fn heal(&self);
}
