//! What the operator's account may not do, under the shipped rights and admission policies.

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Secret, ServiceAccount},
    events::v1::Event,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use lockstep_testkit::operator;
use serde_json::json;

use crate::shared_cluster::{TestNamespace, shared_cluster};

/// A client with the rights of the operator.
pub(crate) async fn as_operator(test: &TestNamespace) -> kube::Client {
    test.cluster
        .plane
        .client_for_service_account(operator::NAMESPACE, operator::SERVICE_ACCOUNT)
        .await
        .unwrap()
}

fn is_forbidden<T: std::fmt::Debug>(result: kube::Result<T>) {
    match result {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{status:?}"),
        other => panic!("not refused: {other:?}"),
    }
}

async fn foreign_secret(test: &TestNamespace) {
    test.apply_raw(&json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "foreign", "namespace": test.namespace },
        "stringData": { "x": "theirs" },
    }))
    .await
    .unwrap();
}

#[tokio::test]
async fn operator_account_cannot_read_secrets() {
    let test = shared_cluster().await.test_namespace("read").await;
    foreign_secret(&test).await;
    let api: Api<Secret> = Api::namespaced(as_operator(&test).await, &test.namespace);
    is_forbidden(api.get("foreign").await);
    is_forbidden(api.list(&ListParams::default()).await);
}

#[tokio::test]
async fn operator_account_cannot_change_an_unowned_secret() {
    let test = shared_cluster().await.test_namespace("touch").await;
    foreign_secret(&test).await;
    let api: Api<Secret> = Api::namespaced(as_operator(&test).await, &test.namespace);
    let owner = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name, "annotations": { "lockstep.dev/owner": "somebody" } },
            "stringData": { "x": "ours" },
        })
    };
    let secret = |object: serde_json::Value| serde_json::from_value::<Secret>(object).unwrap();
    let params = PostParams::default();
    is_forbidden(api.replace("foreign", &params, &secret(owner("foreign"))).await);
    is_forbidden(
        api.patch(
            "foreign",
            &PatchParams::default(),
            &Patch::Merge(json!({ "stringData": { "x": "1" } })),
        )
        .await,
    );
    is_forbidden(api.delete("foreign", &DeleteParams::default()).await);
    let without = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "new" } });
    is_forbidden(api.create(&params, &secret(without)).await);
    let mut token = owner("token");
    token["type"] = json!("kubernetes.io/service-account-token");
    token["metadata"]["annotations"]["kubernetes.io/service-account.name"] = json!("default");
    is_forbidden(api.create(&params, &secret(token)).await);
}

/// The garbage collector cannot resolve an owner of a version that is not served. With `blockOwnerDeletion`, the
/// object with that uid could then not be deleted in the foreground.
#[tokio::test]
async fn operator_account_adds_only_references_to_the_owner() {
    let test = shared_cluster().await.test_namespace("references").await;
    let api: Api<Secret> = Api::namespaced(as_operator(&test).await, &test.namespace);
    let owned = |change: serde_json::Value| {
        let mut reference = json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret", "name": "a", "uid": "u", "controller": true,
        });
        for (field, value) in change.as_object().unwrap() {
            reference[field] = value.clone();
        }
        let secret = json!({
            "metadata": {
                "name": "owned", "annotations": { "lockstep.dev/owner": "a" }, "ownerReferences": [reference],
            },
        });
        serde_json::from_value::<Secret>(secret).unwrap()
    };
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for change in [
        json!({ "apiVersion": "lockstep.dev/v99" }),
        json!({ "apiVersion": "v1" }),
        json!({ "blockOwnerDeletion": true }),
        json!({ "kind": "SecretStore" }),
        json!({ "name": "b" }),
    ] {
        is_forbidden(api.create(&dry_run, &owned(change)).await);
    }
    api.create(&dry_run, &owned(json!({}))).await.unwrap();
    // they would still let lockstep write the Secret after someone removed the owner
    for name in ["lockstep.dev/adopt", "lockstep.dev/merge"] {
        let mut secret = owned(json!({}));
        secret
            .metadata
            .annotations
            .as_mut()
            .unwrap()
            .insert(name.to_owned(), "a".to_owned());
        is_forbidden(api.create(&dry_run, &secret).await);
    }
}

/// With the field manager of the operator.
pub(crate) fn as_lockstep() -> PatchParams {
    PatchParams {
        field_manager: Some("lockstep".to_owned()),
        ..PatchParams::default()
    }
}

/// The managed fields of everyone but lockstep.
fn others(object: &serde_json::Value) -> Vec<serde_json::Value> {
    let all = object["metadata"]["managedFields"].as_array().unwrap().iter();
    all.filter(|entry| !entry["manager"].as_str().unwrap().starts_with("lockstep"))
        .cloned()
        .collect()
}

/// Managed fields that someone who patches an object could write: none at all, without an entry, of another manager, and with one more
/// field or finalizer in an entry of someone else or of lockstep.
pub(crate) fn forged_managed_fields(object: &serde_json::Value, more_field: &str) -> Vec<serde_json::Value> {
    let stored = object["metadata"]["managedFields"].as_array().unwrap();
    let other = |entry: &serde_json::Value| !entry["manager"].as_str().unwrap().starts_with("lockstep");
    let first = stored.iter().position(other).expect("a manager besides lockstep");
    let (mut without, mut more) = (stored.clone(), stored.clone());
    without.remove(first);
    more[first]["fieldsV1"]["f:spec"][format!("f:{more_field}")] = json!({});
    let mut renamed = stored.clone();
    renamed[first]["manager"] = json!("gitops");
    let mut own = stored.clone();
    let mut entry = own[first].clone();
    entry["manager"] = json!("lockstep");
    entry["operation"] = json!("Apply");
    own.push(entry);
    let mut finalizer = stored.clone();
    finalizer[first]["fieldsV1"]["f:metadata"]["f:finalizers"] =
        json!({ ".": {}, "v:\"example.org/keep\"": {} });
    vec![
        json!([{}]),
        json!(without),
        json!(more),
        json!(renamed),
        json!(own),
        json!(finalizer),
    ]
}

/// Managed fields with one more entry of lockstep, which has only these fields. Each change makes the
/// API server keep it besides other entries.
pub(crate) fn added_entries(
    object: &serde_json::Value,
    fields: &serde_json::Value,
    changes: &[serde_json::Value],
) -> Vec<serde_json::Value> {
    let stored = object["metadata"]["managedFields"].as_array().unwrap();
    let added = |change: &serde_json::Value| {
        let mut entry = json!({
            "manager": "lockstep", "operation": "Update", "apiVersion": object["apiVersion"],
            "time": "2036-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields,
        });
        for (field, value) in change.as_object().unwrap() {
            entry[field] = value.clone();
        }
        let mut all = stored.clone();
        all.push(entry);
        json!(all)
    };
    changes.iter().map(added).collect()
}

#[tokio::test]
async fn operator_account_changes_only_its_finalizer() {
    let test = shared_cluster().await.test_namespace("finalizer").await;
    let spec = json!({
        "suspend": true,
        "data": [{ "secretKey": "a", "remoteRef": { "key": test.key("a") } }],
    });
    test.declare("a", spec).await;
    // The operator's entry for the status is there before others are forged.
    test.wait_for_reason("a", "Suspended").await;
    let api: Api<lockstep_api::SyncedSecret> = Api::namespaced(as_operator(&test).await, &test.namespace);
    let patch = async |patch: serde_json::Value| api.patch("a", &as_lockstep(), &Patch::Merge(patch)).await;
    let ours = "lockstep.dev/revoke-lease";
    is_forbidden(patch(json!({ "spec": { "suspend": false } })).await);
    is_forbidden(patch(json!({ "metadata": { "labels": { "x": "y" } } })).await);
    is_forbidden(patch(json!({ "metadata": { "annotations": { "lockstep.dev/refresh": "1" } } })).await);
    is_forbidden(patch(json!({ "metadata": { "finalizers": ["example.org/other"] } })).await);
    is_forbidden(patch(json!({ "metadata": { "finalizers": [ours] } })).await);
    let apply = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": { "name": "a", "finalizers": [ours] },
    });
    api.patch(
        "a",
        &PatchParams::apply("lockstep-lease"),
        &Patch::Apply(apply.clone()),
    )
    .await
    .unwrap();
    is_forbidden(
        api.patch("a", &PatchParams::apply("lockstep9"), &Patch::Apply(apply))
            .await,
    );
    let other = json!({ "metadata": { "finalizers": [ours, "example.org/other"] } });
    test.synced_secrets()
        .patch("a", &PatchParams::default(), &Patch::Merge(other.clone()))
        .await
        .unwrap();
    is_forbidden(patch(json!({ "metadata": { "finalizers": [ours] } })).await);
    let stored = json!(test.synced_secrets().get("a").await.unwrap());
    let fields = json!({ "f:metadata": { "f:finalizers": { "v:\"lockstep.dev/revoke-lease\"": {} } } });
    let changes = [
        json!({}),
        json!({ "subresource": "s0" }),
        json!({ "manager": "lockstep9" }),
        json!({ "manager": "lockstep-lease" }),
        json!({ "manager": "lockstep-lease", "subresource": "s0" }),
        json!({ "manager": "lockstep-lease", "operation": "Apply", "subresource": "s0" }),
    ];
    for forged in added_entries(&stored, &fields, &changes) {
        is_forbidden(patch(json!({ "metadata": { "managedFields": forged } })).await);
    }
    patch(json!({ "metadata": { "finalizers": ["example.org/other"] } }))
        .await
        .unwrap();
    // a manager whose name only begins like one of lockstep's
    let applied = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": { "name": "a" }, "spec": { "refreshInterval": "1h" },
    });
    let gitops = PatchParams::apply("lockstep-gitops");
    let stored = test
        .synced_secrets()
        .patch("a", &gitops, &Patch::Apply(applied))
        .await;
    let mut forged = json!(stored.unwrap().metadata.managed_fields);
    let entries = forged.as_array_mut().unwrap();
    entries.retain(|entry| entry["manager"] != "lockstep-gitops");
    is_forbidden(patch(json!({ "metadata": { "managedFields": forged } })).await);
    // a server-side apply removes what its manager owned before, so nobody may choose what others own
    for forged in forged_managed_fields(&json!(api.get("a").await.unwrap()), "refreshInterval") {
        is_forbidden(patch(json!({ "metadata": { "managedFields": forged } })).await);
        let before = json!(test.synced_secrets().get("a").await.unwrap());
        let through_status = Patch::Merge(json!({ "metadata": { "managedFields": forged } }));
        let answer = api.patch_status("a", &as_lockstep(), &through_status).await;
        let after = json!(test.synced_secrets().get("a").await.unwrap());
        assert_eq!(others(&after), others(&before), "{answer:?}");
    }
    is_forbidden(api.delete("a", &DeleteParams::default()).await);
    let stores: Api<lockstep_api::SecretStore> = Api::namespaced(as_operator(&test).await, &test.namespace);
    let limits = json!({ "spec": { "limits": { "maxConcurrent": 1 } } });
    is_forbidden(
        stores
            .patch("vault", &PatchParams::default(), &Patch::Merge(limits))
            .await,
    );
    let free = json!({ "metadata": { "finalizers": null } });
    test.synced_secrets()
        .patch("a", &PatchParams::default(), &Patch::Merge(free))
        .await
        .unwrap();
}

#[tokio::test]
async fn only_the_operator_account_can_write_a_status() {
    let test = shared_cluster().await.test_namespace("status-writer").await;
    let spec = json!({
        "suspend": true,
        "data": [{ "secretKey": "a", "remoteRef": { "key": test.key("a") } }],
    });
    test.declare("a", spec).await;
    test.wait_for_reason("a", "Suspended").await;
    test.apply_raw(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "ClusterSecretStore",
        "metadata": { "name": test.namespace },
        "spec": { "provider": { "file": { "path": "." } } },
    }))
    .await
    .unwrap();
    let namespaced = [("SyncedSecret", "a"), ("SecretStore", "vault")];
    let kinds = namespaced
        .into_iter()
        .map(|(kind, name)| (kind, name, Some(&*test.namespace)))
        .chain([("ClusterSecretStore", &*test.namespace, None)]);
    let forged = Patch::Merge(json!({ "status": { "observedGeneration": 4242 } }));
    let dry_run = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    for (kind, name, namespace) in kinds {
        let gvk = GroupVersionKind::gvk("lockstep.dev", "v1alpha1", kind);
        let resource = ApiResource::from_gvk(&gvk);
        let api = |client: kube::Client| -> Api<DynamicObject> {
            match namespace {
                Some(namespace) => Api::namespaced_with(client, namespace, &resource),
                None => Api::all_with(client, &resource),
            }
        };
        // somebody with every right of the cluster
        let administrator = api(test.client.clone());
        is_forbidden(
            administrator
                .patch_status(name, &PatchParams::default(), &forged)
                .await,
        );
        let whole = administrator.get(name).await.unwrap();
        is_forbidden(
            administrator
                .replace_status(name, &PostParams::default(), &whole)
                .await,
        );
        // and past the subresource the API server takes no status
        let kept = administrator.patch(name, &PatchParams::default(), &forged).await;
        assert_ne!(kept.unwrap().data["status"]["observedGeneration"], 4242);
        let operator = api(as_operator(&test).await);
        let own = PatchParams {
            field_manager: Some("lockstep".to_owned()),
            ..dry_run.clone()
        };
        operator.patch_status(name, &own, &forged).await.unwrap();
        // many field managers would push out those of other fields
        is_forbidden(operator.patch_status(name, &dry_run, &forged).await);
    }
}

#[tokio::test]
async fn operator_account_can_write_only_its_own_events() {
    let test = shared_cluster().await.test_namespace("own-events").await;
    let event = |name: &str, reporter: &str, metadata: serde_json::Value| {
        let mut event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": { "name": name, "namespace": test.namespace },
            "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Test", "reason": "Test", "type": "Normal",
            "reportingController": reporter, "reportingInstance": "x",
            "regarding": { "kind": "Namespace", "name": test.namespace, "namespace": test.namespace },
        });
        for (field, value) in metadata.as_object().unwrap() {
            event["metadata"][field] = value.clone();
        }
        event
    };
    let typed = |value: serde_json::Value| serde_json::from_value::<Event>(value).unwrap();
    test.apply_raw(&event("theirs", "kubelet", json!({})))
        .await
        .unwrap();
    let api: Api<Event> = Api::namespaced(as_operator(&test).await, &test.namespace);
    let params = PostParams::default();
    let own = typed(event("own", "lockstep", json!({})));
    api.create(&params, &own).await.unwrap();
    let finalizers = json!({ "finalizers": ["example.org/keep"] });
    let owners =
        json!({ "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": "a", "uid": "u" }] });
    for bad in [
        event("forged", "kubelet", json!({})),
        event("kept", "lockstep", finalizers.clone()),
        event("owned", "lockstep", owners.clone()),
    ] {
        is_forbidden(api.create(&params, &typed(bad)).await);
    }
    // every other field is immutable
    let series = json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z" } });
    for (name, patch) in [
        ("theirs", series.clone()),
        ("own", json!({ "metadata": finalizers })),
        ("own", json!({ "metadata": owners })),
    ] {
        is_forbidden(
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await,
        );
    }
    api.patch("own", &PatchParams::default(), &Patch::Merge(series))
        .await
        .unwrap();
}

#[tokio::test]
async fn operator_account_cannot_mint_tokens_for_other_audiences() {
    let test = shared_cluster().await.test_namespace("mint").await;
    test.apply_raw(&json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "shop", "namespace": test.namespace },
    }))
    .await
    .unwrap();
    let api: Api<ServiceAccount> = Api::namespaced(as_operator(&test).await, &test.namespace);
    let ask = |audiences: &[&str], seconds: Option<i64>| TokenRequest {
        spec: TokenRequestSpec {
            audiences: audiences.iter().map(ToString::to_string).collect(),
            expiration_seconds: seconds,
            bound_object_ref: None,
        },
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    assert!(
        api.create_token_request("shop", &params, &ask(&["vault"], Some(600)))
            .await
            .is_ok()
    );
    let own = "https://kubernetes.default.svc";
    for (audiences, seconds) in [
        (vec![own], Some(600)),
        (vec!["vault", own], Some(600)),
        (vec![], Some(600)),
        (vec!["elsewhere"], Some(600)),
        (vec!["vault"], Some(3600)),
        (vec!["vault"], None),
    ] {
        is_forbidden(
            api.create_token_request("shop", &params, &ask(&audiences, seconds))
                .await,
        );
    }
}
