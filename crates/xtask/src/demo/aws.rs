//! moto, which implements the AWS API, with the example of a store that logs in as a
//! ServiceAccount.

use anyhow::{Context as _, Result};
use lockstep_testkit::{Moto, example, ports};
use serde_json::json;

use super::{show::Show, story::Story};

/// Port in the examples. moto listens on it if it is free.
const PORT: u16 = 4566;
const KEY: &str = "aws-web-identity/application";
const REGION: &str = "eu-central-1";

pub(crate) const STORY: Story = Story {
    example: "examples/providers/aws/web-identity",
    namespace: "example-aws-web-identity",
    synced_secret: "application",
    secret: "application",
    key: "password",
    first: "test-password",
    second: "rotated-by-the-demo",
};

/// A running moto server.
#[derive(Debug)]
pub(crate) struct Aws {
    server: Moto,
}

impl Aws {
    pub(crate) async fn start() -> Result<Self> {
        let server = Moto::start_on(ports::preferably(PORT)?).await?;
        Ok(Self { server })
    }

    pub(crate) fn address(&self) -> &str {
        self.server.address()
    }

    pub(super) async fn prepare(&self, show: &Show) -> Result<()> {
        let value = content(STORY.first);
        show.does(&format!(
            "aws secretsmanager create-secret --name {KEY} --secret-string '{value}'"
        ));
        let request = json!({ "Name": KEY, "SecretString": value });
        self.call("secretsmanager.CreateSecret", &request).await
    }

    pub(super) fn at_its_address(&self, manifests: &str) -> (String, String) {
        let file = format!("kubectl apply -f {}/manifests.yaml", STORY.example);
        if self.address() == example::AWS {
            return (manifests.to_owned(), file);
        }
        let typed = format!("{file}   (with {} instead of port {PORT})", self.address());
        (manifests.replace(example::AWS, self.address()), typed)
    }

    pub(super) async fn change(&self, show: &Show) -> Result<()> {
        let value = content(STORY.second);
        show.does(&format!(
            "aws secretsmanager put-secret-value --secret-id {KEY} --secret-string '{value}'"
        ));
        let request = json!({ "SecretId": KEY, "SecretString": value });
        self.call("secretsmanager.PutSecretValue", &request).await
    }

    pub(super) fn commands(&self) -> Vec<String> {
        vec![format!(
            "AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test aws --endpoint-url {} --region {REGION} secretsmanager put-secret-value --secret-id {KEY} --secret-string '{}'",
            self.address(),
            content("mine")
        )]
    }

    async fn call(&self, target: &str, request: &serde_json::Value) -> Result<()> {
        let answer = self.server.call(REGION, target, request).await;
        answer.map(drop).with_context(|| format!("{target} {KEY}"))
    }
}

fn content(password: &str) -> String {
    json!({ "password": password }).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::demo::story::read;

    #[test]
    fn example_matches_the_demo() {
        let manifests = read(&format!("{}/manifests.yaml", STORY.example)).unwrap();
        for text in [example::AWS, KEY, REGION] {
            assert!(manifests.contains(text), "{text}");
        }
        let values = read(&format!("{}/values/{KEY}", STORY.example)).unwrap();
        let values: Value = serde_json::from_str(&values).unwrap();
        assert_eq!(values, json!({ "password": STORY.first }));
    }
}
