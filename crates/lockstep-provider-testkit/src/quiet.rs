//! Captures log output while a test runs, and checks that it contains no secret.

use parking_lot::Mutex;

use crate::{CANARY, logs::Logs};

/// Captures everything that is logged on this thread until it is dropped. It then checks that the
/// log contains no canary and none of the credentials passed to [`Self::never`].
pub struct Quiet {
    logs: Logs,
    secrets: Mutex<Vec<String>>,
}

impl Quiet {
    /// Captures all levels of all modules.
    pub fn listen() -> Self {
        Self::listen_to("trace")
    }

    /// Captures these levels by module, in the syntax of `RUST_LOG`.
    pub fn listen_to(directives: &str) -> Self {
        let logs = Logs::capture(directives);
        tracing::info!("listening");
        Self {
            logs,
            secrets: Mutex::new(vec![CANARY.to_owned()]),
        }
    }

    /// Adds a text that must not be logged.
    pub fn never(&self, secret: &str) {
        let mut secrets = self.secrets.lock();
        secrets.push(secret.to_owned());
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let text = self.logs.text();
        let secrets = self.secrets.lock();
        let shows = |line: &&str| secrets.iter().any(|secret| line.contains(secret));
        let leaks = text.lines().filter(shows).count();
        assert_eq!(leaks, 0, "lines with a value or a credential were logged");
        assert!(text.contains("listening"), "what listens must hear something");
    }
}
