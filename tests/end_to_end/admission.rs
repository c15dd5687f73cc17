//! What the API server takes and refuses: the table that the API crate checks without a cluster, asked of a real one.

use kube::{
    Api,
    api::{ObjectMeta, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta},
};
use lockstep_testkit::{ControlPlane, operator};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::stage::stage;

const TABLE: &str = include_str!("../../crates/lockstep-api/tests/data/rules.yaml");

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    kind: String,
    spec: Value,
    refused: Option<String>,
}

#[tokio::test]
async fn the_api_server_takes_and_refuses_what_the_table_says() {
    let room = stage().await.room("admission").await;
    let rows: Vec<Row> = serde_yaml_ng::from_str(TABLE).unwrap();
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for row in rows {
        let gvk = GroupVersionKind::gvk("lockstep.dev", "v1alpha1", &row.kind);
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = if row.kind == "ClusterSecretStore" {
            Api::all_with(room.client.clone(), &resource)
        } else {
            Api::namespaced_with(room.client.clone(), &room.namespace, &resource)
        };
        let object = DynamicObject {
            types: Some(TypeMeta {
                api_version: resource.api_version.clone(),
                kind: row.kind.clone(),
            }),
            metadata: ObjectMeta {
                name: Some(format!("{}-row", room.namespace)),
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
async fn the_crds_can_be_applied_on_the_client_side() {
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
