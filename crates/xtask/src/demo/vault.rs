//! A real OpenBao, and the quickstart on it: the store logs in as a ServiceAccount of the namespace.

use anyhow::{Context as _, Result};
use lockstep_testkit::{
    OpenBao, ports,
    tools::{self, Tool},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    cluster::Cluster,
    show::Show,
    source::{Story, read},
};

/// The port that the examples name; OpenBao listens there when it is free.
const PORT: u16 = 8200;
const ADDRESS_IN_EXAMPLES: &str = "http://127.0.0.1:8200";
const KEY: &str = "shop/database";

pub(crate) const STORY: Story = Story {
    example: "examples/quickstart",
    namespace: "shop",
    synced_secret: "database",
    secret: "database",
    key: "password",
    first: "correct horse/battery",
    second: "rotated-by-the-demo",
};

/// OpenBao, running.
#[derive(Debug)]
pub(crate) struct Vault {
    server: OpenBao,
}

/// A file that says what Vault has to know: see examples/README.md.
#[derive(Debug, Deserialize)]
struct Setup {
    vault: Vec<SetupRequest>,
}

#[derive(Debug, Deserialize)]
struct SetupRequest {
    path: String,
    body: Value,
}

impl Vault {
    pub(crate) async fn start() -> Result<Self> {
        let server = OpenBao::builder().port(ports::preferably(PORT)?).start().await?;
        Ok(Self { server })
    }

    pub(crate) fn address(&self) -> &str {
        self.server.address()
    }

    pub(super) async fn prepare(
        &self,
        cluster: &Cluster,
        show: &Show,
        applied: &mut Vec<String>,
    ) -> Result<()> {
        cluster.ensure_reachable_by_a_server()?;
        let reviewer = read("examples/vault/reviewer.yaml")?;
        show.does("kubectl apply -f examples/vault/reviewer.yaml");
        applied.push(reviewer.clone());
        cluster.kubectl(&["apply", "-f", "-"], Some(&reviewer)).await?;
        let texts = [
            ("${KUBERNETES_HOST}", cluster.url().to_owned()),
            ("${KUBERNETES_CA}", cluster.ca()?),
            (
                "${TOKEN_REVIEWER_JWT}",
                cluster.token("vault", "token-reviewer").await?,
            ),
        ];
        show.does("examples/vault/setup.yaml, and what examples/quickstart/expected.yaml asks of Vault");
        for file in ["examples/vault/setup.yaml", "examples/quickstart/expected.yaml"] {
            let setup: Setup =
                serde_yaml_ng::from_str(&read(file)?).with_context(|| format!("read {file}"))?;
            for mut request in setup.vault {
                fill_in(&mut request.body, &texts);
                self.server
                    .post(&request.path, request.body)
                    .await
                    .with_context(|| format!("{file}: {}", request.path))?;
            }
        }
        show.does(&format!(
            "bao kv put secret/{KEY} username=shop password='{}'",
            STORY.first
        ));
        self.put(STORY.first).await
    }

    pub(super) fn at_its_address(&self, manifests: String) -> (String, String) {
        let kustomize = format!("kubectl apply -k {}", STORY.example);
        if self.address() == ADDRESS_IN_EXAMPLES {
            return (manifests, kustomize);
        }
        let typed = format!("{kustomize}   (with {} for port {PORT})", self.address());
        (manifests.replace(ADDRESS_IN_EXAMPLES, self.address()), typed)
    }

    pub(super) async fn change(&self, show: &Show) -> Result<()> {
        show.does(&format!(
            "bao kv put secret/{KEY} username=shop password='{}'",
            STORY.second
        ));
        self.put(STORY.second).await
    }

    pub(super) fn commands(&self) -> Result<Vec<String>> {
        let bao = tools::ensure(Tool::OpenBao)?;
        Ok(vec![format!(
            "BAO_ADDR={} BAO_TOKEN={} {} kv put secret/{KEY} username=shop password=mine",
            self.address(),
            self.server.root_token(),
            bao.display()
        )])
    }

    async fn put(&self, password: &str) -> Result<()> {
        let fields = json!({ "username": "shop", "password": password });
        self.server.put_kv2(KEY, fields).await.map(drop)
    }
}

/// Puts texts in place of the whole scalars that name them.
fn fill_in(value: &mut Value, texts: &[(&str, String)]) {
    match value {
        Value::String(text) => {
            if let Some((_, replacement)) = texts.iter().find(|(name, _)| name == text) {
                text.clone_from(replacement);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| fill_in(value, texts)),
        Value::Object(fields) => fields.values_mut().for_each(|value| fill_in(value, texts)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_for_whole_scalars_only() {
        let mut value = json!({ "a": ["${CA}"], "b": "not ${CA}", "c": 1 });
        fill_in(&mut value, &[("${CA}", "PEM".to_owned())]);
        assert_eq!(value, json!({ "a": ["PEM"], "b": "not ${CA}", "c": 1 }));
    }

    #[test]
    fn the_quickstart_is_what_the_demo_tells_of_it() {
        let manifests = read("examples/quickstart/manifests.yaml").unwrap();
        assert!(manifests.contains(ADDRESS_IN_EXAMPLES));
        assert!(manifests.contains(KEY));
        let values: Value =
            serde_json::from_str(&read("examples/quickstart/values/shop/database").unwrap()).unwrap();
        assert_eq!(values, json!({ "username": "shop", "password": STORY.first }));
    }
}
