//! Objects of a benchmark.

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use lockstep_api::{ClusterSecretStore, ConditionStatus, ConditionType, SyncedSecret};
use lockstep_testkit::{ControlPlane, operator, progress::Step};
use serde_json::{Value, json};

use crate::command;

/// The four properties of a remote value.
pub(crate) const PROPERTIES: [&str; 4] = ["username", "password", "host", "database"];
/// Returns the content of a remote value: about 100 bytes that differ for each key.
pub(crate) fn values(key: &str) -> Value {
    json!({
        "username": format!("user-{key}"),
        "password": format!("correct horse battery staple {key}"),
        "host": "database.internal",
        "database": key,
    })
}

/// Name of the Secret with the credentials of the store.
pub(crate) const CREDENTIALS: &str = "bench-credentials";

/// Returns the name of an object by its number.
pub(crate) fn name(number: u32) -> String {
    format!("object-{number:06}")
}

/// Starts a control plane that is ready for the operator. With `debug`, it first builds the operator.
pub(crate) async fn start(debug: bool) -> Result<(ControlPlane, Client)> {
    if debug {
        command::cargo(["build", "--locked", "--package", "lockstep"])?;
    }
    let step = Step::begin("control plane, with CRDs, RBAC and admission policies");
    let plane = ControlPlane::start().await?;
    plane.install_crds().await?;
    operator::install(&plane.kubeconfig()).await?;
    let client = plane.client().await?;
    step.done();
    Ok((plane, client))
}

/// Whether the operator has created its fingerprint key.
pub(crate) async fn has_fingerprint_key(client: &Client) -> Result<bool> {
    let api: Api<Secret> = Api::namespaced(client.clone(), operator::NAMESPACE);
    let key = api.get_opt("lockstep-fingerprint-key").await;
    Ok(key.context("look for the fingerprint key")?.is_some())
}

/// Creates a namespace.
pub(crate) async fn namespace(client: &Client, name: &str) -> Result<()> {
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    let api: Api<Namespace> = Api::all(client.clone());
    api.create(&PostParams::default(), &namespace)
        .await
        .with_context(|| format!("create namespace {name}"))?;
    Ok(())
}

/// Creates the store, and the Secret with its credentials. `events` can be null.
pub(crate) async fn store(
    client: &Client,
    namespace: &str,
    credentials: Value,
    provider: Value,
    events: Value,
) -> Result<()> {
    let credentials: Secret = serde_json::from_value(json!({
        "metadata": { "name": CREDENTIALS }, "stringData": credentials,
    }))?;
    let api: Api<Secret> = Api::namespaced(client.clone(), operator::NAMESPACE);
    api.create(&PostParams::default(), &credentials)
        .await
        .context("create the credentials")?;
    let store: ClusterSecretStore = serde_json::from_value(json!({
        "metadata": { "name": "bench" },
        "spec": {
            "access": [{ "namespaces": { "names": [namespace] }, "keys": ["**"] }],
            "provider": provider,
            "events": events,
        },
    }))?;
    let api: Api<ClusterSecretStore> = Api::all(client.clone());
    api.create(&PostParams::default(), &store)
        .await
        .context("create the store")?;
    Ok(())
}

/// Creates the SyncedSecrets. `data` returns the entries of the one with a number.
pub(crate) async fn synced_secrets(
    client: &Client,
    namespace: &str,
    count: u32,
    refresh: &str,
    data: impl Fn(u32) -> Value,
) -> Result<()> {
    let api: Api<SyncedSecret> = Api::namespaced(client.clone(), namespace);
    let create = |number| {
        let (api, data) = (api.clone(), data(number));
        async move {
            let name = name(number);
            let object: SyncedSecret = serde_json::from_value(json!({
                "metadata": { "name": name },
                "spec": {
                    "secretStoreRef": { "kind": "ClusterSecretStore", "name": "bench" },
                    "refreshInterval": refresh,
                    "data": data,
                },
            }))?;
            api.create(&PostParams::default(), &object)
                .await
                .with_context(|| format!("create SyncedSecret {name}"))?;
            Ok::<_, anyhow::Error>(())
        }
    };
    stream::iter(0..count)
        .map(create)
        .buffer_unordered(32)
        .try_collect()
        .await
}

/// Returns the number of SyncedSecrets that are Ready, and the message of the first that is not.
pub(crate) async fn ready(client: &Client, namespace: &str) -> Result<(usize, Option<String>)> {
    let api: Api<SyncedSecret> = Api::namespaced(client.clone(), namespace);
    let mut ready = 0;
    let mut complaint = None;
    let mut params = ListParams::default().limit(500);
    loop {
        let page = api.list(&params).await.context("list SyncedSecrets")?;
        for object in &page.items {
            let condition = object
                .status
                .as_ref()
                .and_then(|status| status.condition(ConditionType::Ready));
            match condition {
                Some(condition) if condition.status == ConditionStatus::True => ready += 1,
                Some(condition) => complaint = Some(condition.message.clone()),
                None => {}
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok((ready, complaint)),
        }
    }
}

/// Returns the name and version of every object in the namespace that lockstep writes, sorted.
pub(crate) async fn versions(client: &Client, namespace: &str) -> Result<Vec<(String, Option<String>)>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let objects: Api<SyncedSecret> = Api::namespaced(client.clone(), namespace);
    let all = ListParams::default();
    let (secrets, objects) = tokio::try_join!(secrets.list_metadata(&all), objects.list_metadata(&all))
        .context("list versions")?;
    let secrets = secrets
        .items
        .into_iter()
        .map(|object| ("Secret", object.metadata));
    let objects = objects
        .items
        .into_iter()
        .map(|object| ("SyncedSecret", object.metadata));
    let mut versions: Vec<_> = secrets
        .chain(objects)
        .map(|(kind, meta)| {
            (
                format!("{kind}/{}", meta.name.unwrap_or_default()),
                meta.resource_version,
            )
        })
        .collect();
    versions.sort();
    Ok(versions)
}
