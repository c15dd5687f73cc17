//! Tests one login method with a valid and with a wrong credential.

use lockstep_provider::{ErrorKind, Operation};
use lockstep_testkit::OpenBao;
use serde_json::{Value, json};

use crate::bench::{Objects, Quiet, Store, and, spec};

/// One login method: the mount with the value, `auth`, a valid credential, and a wrong one.
pub(crate) struct Login<'a> {
    pub(crate) bao: &'a OpenBao,
    pub(crate) mount: &'a str,
    pub(crate) auth: Value,
    pub(crate) objects: Objects,
    pub(crate) place: (&'a str, &'a str),
    pub(crate) wrong: &'a str,
}

impl Login<'_> {
    /// Returns `spec.provider.vault` of a store with this login method.
    pub(crate) fn spec(&self) -> Value {
        let spec = spec(self.bao.address(), self.mount, self.auth.clone());
        match self.bao.ca() {
            Some(ca) => {
                self.objects.set("ca", "ca.crt", ca);
                and(
                    spec,
                    "caProvider",
                    json!({ "type": "ConfigMap", "name": "ca", "key": "ca.crt" }),
                )
            }
            None => spec,
        }
    }

    /// Reads with the valid credential, with and without a trailing line end. The wrong one must be
    /// rejected with these words.
    pub(crate) async fn works_and_is_refused(self, words: &str, hint: &str) {
        let quiet = Quiet::listen();
        quiet.never(self.wrong);
        let (name, key) = self.place;
        let good = self.objects.text(name, key);
        quiet.never(&good);
        for end in ["", "\n", "\r\n"] {
            self.objects.set(name, key, format!("{good}{end}"));
            let store = Store::new(self.spec(), &self.objects).await;
            store.check().await.unwrap();
            assert_eq!(
                store.read("shop/database").await,
                json!({ "password": "CANARY-value" })
            );
        }

        self.objects.set(name, key, self.wrong);
        let store = Store::new(self.spec(), &self.objects).await;
        for error in [
            store.refuse("shop/database").await,
            store.check().await.unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Unauthenticated, "{error}");
            assert_eq!(error.operation, Operation::Login);
            assert_eq!(error.message, words);
            assert_eq!(error.hint.as_deref(), Some(hint));
        }
    }
}
