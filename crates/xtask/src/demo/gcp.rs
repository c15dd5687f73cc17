//! The stand-in for Google Cloud, with the example of a store that uses a service account key.

use anyhow::{Context as _, Result};
use lockstep_testkit::{example, gcp::Gcp as StandIn, ports};
use serde_json::json;

use super::{show::Show, story::Story};

/// Port in the examples. The stand-in listens on it if it is free.
const PORT: u16 = 4580;
const DATABASE: &str = "gcp-secret-manager-database";
const SMTP: &str = "gcp-secret-manager-smtp";
/// Placeholder for the key in the example.
const KEY: &str = "${GCP_SERVICE_ACCOUNT_KEY}";

pub(crate) const STORY: Story = Story {
    example: "examples/providers/gcp/secret-manager",
    namespace: "example-gcp-secret-manager",
    synced_secret: "application",
    secret: "application",
    key: "password",
    first: "test-password",
    second: "rotated-by-the-demo",
};

/// The running stand-in.
#[derive(Debug)]
pub(crate) struct Gcp {
    server: StandIn,
}

impl Gcp {
    pub(crate) async fn start() -> Result<Self> {
        let server = StandIn::start_on(ports::preferably(PORT)?).await?;
        Ok(Self { server })
    }

    pub(crate) fn address(&self) -> String {
        self.server.address()
    }

    pub(super) fn prepare(&self, show: &Show) {
        for (name, value) in [(DATABASE, content(STORY.first)), (SMTP, mail())] {
            show.does(&format!(
                "gcloud secrets create {name} --data-file=- <<< '{value}'"
            ));
            self.server.put_secret(name, &value);
        }
        show.does(&format!("gcloud secrets update {SMTP} --update-labels team=shop"));
        self.server.label(SMTP, "team", "shop");
    }

    pub(super) fn at_its_address(&self, manifests: &str) -> Result<(String, String)> {
        let key = self.server.service_account_key()?;
        // a JSON string is a YAML string
        let key = serde_json::to_string(&key).context("write the key")?;
        let file = format!("kubectl apply -f {}/manifests.yaml", STORY.example);
        let typed = if self.address() == example::GCP {
            format!("{file}   (with a service account key)")
        } else {
            format!(
                "{file}   (with a service account key, and {} instead of port {PORT})",
                self.address()
            )
        };
        let manifests = manifests
            .replace(KEY, &key)
            .replace(example::GCP, &self.address());
        Ok((manifests, typed))
    }

    pub(super) fn change(&self, show: &Show) {
        let value = content(STORY.second);
        show.does(&format!(
            "gcloud secrets versions add {DATABASE} --data-file=- <<< '{value}'"
        ));
        self.server.put_secret(DATABASE, &value);
    }

    /// Returns commands to try. They need no key: the stand-in's metadata server issues a token to
    /// any client.
    pub(super) fn commands(&self) -> Vec<String> {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let address = self.address();
        let project = lockstep_testkit::gcp::PROJECT;
        let data = BASE64_STANDARD.encode(content("mine"));
        let token = format!(
            "curl -s -H 'Metadata-Flavor: Google' {address}/computeMetadata/v1/instance/service-accounts/default/token | grep -o 'ya29[^\"]*'"
        );
        vec![format!(
            "curl -X POST -H \"Authorization: Bearer $({token})\" {address}/v1/projects/{project}/secrets/{DATABASE}:addVersion -d '{{\"payload\":{{\"data\":\"{data}\"}}}}'"
        )]
    }
}

fn content(password: &str) -> String {
    json!({ "password": password }).to_string()
}

fn mail() -> String {
    json!({ "host": "mail.example", "user": "test-user" }).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::demo::story::read;

    #[test]
    fn example_matches_the_demo() {
        let manifests = read(&format!("{}/manifests.yaml", STORY.example)).unwrap();
        for text in [example::GCP, DATABASE, SMTP, KEY] {
            assert!(manifests.contains(text), "{text}");
        }
        for (name, want) in [(DATABASE, content(STORY.first)), (SMTP, mail())] {
            let values = read(&format!("{}/values/{name}", STORY.example)).unwrap();
            let parsed = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
            assert_eq!(parsed(&values), parsed(&want));
        }
    }
}
