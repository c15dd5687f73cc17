//! The same writes as a raw loop: one `POST` of the Secret and one patch of the status per object,
//! back to back. It uses the operator's account, so that the admission policies affect both
//! equally.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams, PostParams},
    core::request::Request,
};
use lockstep_api::SyncedSecret;
use serde_json::{Value, json};

use super::cluster;

/// Writes the Secrets and the status of the first `count` objects of a namespace, and returns the
/// duration.
pub(crate) async fn write(client: &Client, namespace: &str, count: u32, workers: u16) -> Result<Duration> {
    let began = Instant::now();
    stream::iter(0..count)
        .map(|number| one(client, namespace, cluster::name(number)))
        .buffer_unordered(usize::from(workers))
        .try_collect::<()>()
        .await?;
    Ok(began.elapsed())
}

async fn one(client: &Client, namespace: &str, name: String) -> Result<()> {
    let secret = secret(&name);
    let url = Request::new(Secret::url_path(&(), Some(namespace)));
    let mut request = url.create(&PostParams::default(), serde_json::to_vec(&secret)?)?;
    request.headers_mut().insert(
        "accept",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1".parse()?,
    );
    let answer: Value = client
        .request(request)
        .await
        .with_context(|| format!("create Secret {namespace}/{name}"))?;
    let api: Api<SyncedSecret> = Api::namespaced(client.clone(), namespace);
    let status = status(&name, &answer["metadata"]);
    let params = PatchParams {
        field_manager: Some("lockstep".to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(&name, &params, &Patch::Merge(&status))
        .await
        .with_context(|| format!("patch the status of SyncedSecret {namespace}/{name}"))?;
    Ok(())
}

fn secret(name: &str) -> Value {
    let values = cluster::values(name);
    let data: serde_json::Map<String, Value> = cluster::PROPERTIES
        .iter()
        .map(|property| {
            let value = values[property].as_str().unwrap_or_default();
            ((*property).to_owned(), STANDARD.encode(value).into())
        })
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": name,
            "annotations": { "lockstep.dev/owner": name },
            "labels": { "app.kubernetes.io/managed-by": "lockstep" },
        },
        "data": data,
    })
}

fn status(name: &str, written: &Value) -> Value {
    json!({ "status": {
        "observedGeneration": 1,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Synced", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "message": format!("Secret \"{name}\" is in sync with 1 remote value, at revision 0000000000000000"),
        }],
        "target": {
            "name": name, "uid": written["uid"], "resourceVersion": written["resourceVersion"],
            "revision": "0000000000000000", "fingerprint": "0".repeat(64),
            "lastChangeTime": "2026-01-01T00:00:00Z",
        },
        "sources": [{
            "store": { "kind": "ClusterSecretStore", "name": "bench" }, "key": name, "version": "1", "createdTime": "2026-01-01T00:00:00Z",
        }],
        "sourceCount": 1,
    } })
}
