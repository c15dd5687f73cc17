//! What the API server takes and refuses: the table that the API crate checks without a cluster, asked of a real one.

use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams, ValidationDirective},
    core::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta},
};
use lockstep_testkit::{ControlPlane, operator};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::shared_cluster::shared_cluster;

const TABLE: &str = include_str!("../../crates/lockstep-api/tests/data/rules.yaml");

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    kind: String,
    spec: Value,
    refused: Option<String>,
}

#[tokio::test]
async fn api_server_accepts_and_rejects_each_row() {
    let test = shared_cluster().await.test_namespace("admission").await;
    let rows: Vec<Row> = serde_yaml_ng::from_str(TABLE).unwrap();
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for row in rows {
        let gvk = GroupVersionKind::gvk("lockstep.dev", "v1alpha1", &row.kind);
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = if row.kind == "ClusterSecretStore" {
            Api::all_with(test.client.clone(), &resource)
        } else {
            Api::namespaced_with(test.client.clone(), &test.namespace, &resource)
        };
        let object = DynamicObject {
            types: Some(TypeMeta {
                api_version: resource.api_version.clone(),
                kind: row.kind.clone(),
            }),
            metadata: ObjectMeta {
                name: Some(format!("{}-row", test.namespace)),
                ..ObjectMeta::default()
            },
            data: json!({ "spec": row.spec }),
        };
        match (&row.refused, api.create(&params, &object).await) {
            (None, Ok(_)) => {}
            (Some(_), Ok(_)) => panic!("{}: the API server took it", row.name),
            (Some(wanted), Err(kube::Error::Api(status))) => {
                assert_eq!(status.code, 422, "{}: {}", row.name, status.message);
                assert!(
                    status.message.contains(wanted),
                    "{}: {}",
                    row.name,
                    status.message
                );
            }
            (_, Err(error)) => panic!("{}: {error}", row.name),
        }
    }
}

#[tokio::test]
async fn crds_work_with_client_side_apply() {
    // which keeps the whole object in an annotation, and fails where it is too large for one
    let plane = ControlPlane::start().await.unwrap();
    let folder = operator::repository().join("crds");
    let apply = ["apply", "--server-side=false", "-k", folder.to_str().unwrap()];
    let first = operator::kubectl(&plane.kubeconfig(), &apply, None)
        .await
        .unwrap();
    assert_eq!(first.matches(" created").count(), 3, "{first}");
    let second = operator::kubectl(&plane.kubeconfig(), &apply, None)
        .await
        .unwrap();
    assert_eq!(second.matches(" unchanged").count(), 3, "{second}");
}

/// The blocks of YAML on a page, without the spaces that they are moved in by.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut indent = None;
    for line in page.lines() {
        let text = line.trim_start();
        match indent {
            None if text == "```yaml" => {
                indent = Some(line.len() - text.len());
                blocks.push(String::new());
            }
            Some(_) if text == "```" => indent = None,
            Some(indent) => {
                let block = blocks.last_mut().unwrap();
                block.extend([line.get(indent..).unwrap_or_default(), "\n"]);
            }
            None => {}
        }
    }
    blocks
}

#[tokio::test]
async fn api_server_accepts_every_manifest_of_the_provider_pages() {
    let test = shared_cluster().await.test_namespace("pages").await;
    let params = PatchParams {
        dry_run: true,
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("pages")
    };
    for (page, least) in [("aws", 9), ("gcp", 10), ("vault", 1)] {
        let path = operator::repository().join(format!("docs/providers/{page}.md"));
        let mut taken = 0;
        for block in blocks(&std::fs::read_to_string(path).unwrap()) {
            for document in serde_yaml_ng::Deserializer::from_str(&block) {
                let mut value =
                    Value::deserialize(document).unwrap_or_else(|error| panic!("{page}: {error}\n{block}"));
                if value["patches"].is_array() {
                    continue;
                }
                // A page may show the part of a store that it is about.
                if value["kind"].is_null() {
                    value["apiVersion"] = json!("lockstep.dev/v1alpha1");
                    value["kind"] = json!("SecretStore");
                    value["metadata"] = json!({ "name": "part", "namespace": "shop" });
                }
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let (kind, version) = (text(&value["kind"]), text(&value["apiVersion"]));
                let (group, version) = version.split_once('/').unwrap_or(("", &version));
                let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
                let api: Api<DynamicObject> = if value["metadata"]["namespace"].is_null() {
                    Api::all_with(test.client.clone(), &resource)
                } else {
                    value["metadata"]["namespace"] = json!(test.namespace);
                    Api::namespaced_with(test.client.clone(), &test.namespace, &resource)
                };
                // The namespace has objects of its own.
                let name = format!("page-{}", text(&value["metadata"]["name"]));
                value["metadata"]["name"] = json!(name);
                let answer = api.patch(&name, &params, &Patch::Apply(&value)).await;
                answer.unwrap_or_else(|error| panic!("{page}: {kind} {name}: {error}\n{block}"));
                taken += 1;
            }
        }
        assert!(taken >= least, "{page}: {taken} manifests are few");
    }
}
