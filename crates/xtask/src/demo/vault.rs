//! A real OpenBao, with the quickstart: the store logs in as a ServiceAccount of the namespace.

use anyhow::{Context as _, Result};
use lockstep_testkit::{
    OpenBao,
    example::{self, Replacements},
    ports,
    tools::{self, Tool},
};
use serde_json::json;

use super::{
    cluster::Cluster,
    show::Show,
    story::{Story, read},
};

/// Port in the examples. OpenBao listens on it if it is free.
const PORT: u16 = 8200;
const KEY: &str = "shop/database";

pub(crate) const STORY: Story = Story {
    example: "examples/getting-started/quickstart",
    namespace: "shop",
    synced_secret: "database",
    secret: "database",
    key: "password",
    first: "correct horse/battery",
    second: "rotated-by-the-demo",
};

/// A running OpenBao server.
#[derive(Debug)]
pub(crate) struct Vault {
    server: OpenBao,
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
        let reviewer = read("examples/_shared/vault/reviewer.yaml")?;
        show.does("kubectl apply -f examples/_shared/vault/reviewer.yaml");
        applied.push(reviewer.clone());
        cluster.kubectl(&["apply", "-f", "-"], Some(&reviewer)).await?;
        let replacements = Replacements::default()
            .scalar("${KUBERNETES_HOST}", cluster.url())
            .scalar("${KUBERNETES_CA}", cluster.ca()?)
            .scalar(
                "${TOKEN_REVIEWER_JWT}",
                cluster.token("vault", "token-reviewer").await?,
            );
        show.does(
            "apply examples/_shared/vault/setup.yaml and the Vault requests of examples/getting-started/quickstart/expected.yaml",
        );
        for file in [
            "examples/_shared/vault/setup.yaml",
            "examples/getting-started/quickstart/expected.yaml",
        ] {
            for mut request in example::vault_requests(file)? {
                replacements.fill_in(&mut request.body);
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
        if self.address() == example::VAULT {
            return (manifests, kustomize);
        }
        let typed = format!("{kustomize}   (with {} instead of port {PORT})", self.address());
        (manifests.replace(example::VAULT, self.address()), typed)
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
        self.put_at(KEY, password).await
    }

    /// Writes a value to another key.
    ///
    /// # Errors
    /// Fails if the server rejects it.
    pub(super) async fn put_at(&self, key: &str, password: &str) -> Result<()> {
        let fields = json!({ "username": "shop", "password": password });
        self.server.put_kv2(key, fields).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn quickstart_matches_the_demo() {
        let manifests = read("examples/getting-started/quickstart/manifests.yaml").unwrap();
        assert!(manifests.contains(example::VAULT));
        assert!(manifests.contains(KEY));
        let values: Value =
            serde_json::from_str(&read("examples/getting-started/quickstart/values/shop/database").unwrap())
                .unwrap();
        assert_eq!(values, json!({ "username": "shop", "password": STORY.first }));
    }
}
