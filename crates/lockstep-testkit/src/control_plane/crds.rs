//! Installs the CustomResourceDefinitions.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};

use super::{ControlPlane, POLL};

const ESTABLISHED_LIMIT: Duration = Duration::from_secs(30);

impl ControlPlane {
    /// Applies lockstep's CustomResourceDefinitions and waits until they are served.
    ///
    /// # Errors
    /// When the API server rejects one, with its own message.
    pub async fn install_crds(&self) -> Result<()> {
        install(&self.client().await?).await
    }
}

/// Applies lockstep's CustomResourceDefinitions to any cluster and waits until they are served.
///
/// # Errors
/// When the API server rejects one, with its own message.
pub async fn install(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crds = lockstep_api::crd::all();
    for crd in &crds {
        let name = crd.name_any();
        api.patch(
            &name,
            &PatchParams::apply("lockstep-testkit").force(),
            &Patch::Apply(crd),
        )
        .await
        .with_context(|| format!("apply CustomResourceDefinition {name}"))?;
    }
    for crd in &crds {
        wait_until_established(&api, &crd.name_any()).await?;
    }
    Ok(())
}

async fn wait_until_established(api: &Api<CustomResourceDefinition>, name: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let crd = api
            .get(name)
            .await
            .with_context(|| format!("get CustomResourceDefinition {name}"))?;
        let conditions = crd
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        if conditions
            .iter()
            .any(|condition| condition.type_ == "Established" && condition.status == "True")
        {
            return Ok(());
        }
        if began.elapsed() > ESTABLISHED_LIMIT {
            let said: Vec<_> = conditions
                .iter()
                .filter_map(|condition| condition.message.as_deref())
                .collect();
            bail!(
                "CustomResourceDefinition {name} is not served: {}",
                said.join("; ")
            );
        }
        tokio::time::sleep(POLL).await;
    }
}
