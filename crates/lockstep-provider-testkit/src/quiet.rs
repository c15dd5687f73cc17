//! What is logged while a test runs, and that no secret is in it.

use std::sync::{Mutex, PoisonError};

use crate::{CANARY, logs::Logs};

/// Everything that is logged on this thread while this lives. When it ends, none of it may hold a canary, nor a
/// credential that it was told of.
pub struct Quiet {
    logs: Logs,
    secrets: Mutex<Vec<String>>,
}

impl Quiet {
    /// Listens to everything.
    pub fn listen() -> Self {
        Self::listen_to("trace")
    }

    /// Listens to these levels by module, in the syntax of `RUST_LOG`.
    pub fn listen_to(directives: &str) -> Self {
        let logs = Logs::capture(directives);
        tracing::info!("listening");
        Self {
            logs,
            secrets: Mutex::new(vec![CANARY.to_owned()]),
        }
    }

    /// This must not be logged either.
    pub fn never(&self, secret: &str) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.push(secret.to_owned());
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let text = self.logs.text();
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let shows = |line: &&str| secrets.iter().any(|secret| line.contains(secret));
        let leaks = text.lines().filter(shows).count();
        assert_eq!(leaks, 0, "lines with a value or a credential were logged");
        assert!(text.contains("listening"), "what listens must hear something");
    }
}
