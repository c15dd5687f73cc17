//! A store of files: the example as it is applied, and a change of a file that is followed without being asked for.

use std::{fs, path::Path, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use lockstep_api::{ClusterSecretStore, SyncedSecret};
use lockstep_testkit::{ControlPlane, Operator, Scratch, operator};
use serde::Deserialize as _;
use tokio::time::{Instant, sleep};

use crate::shared_cluster::{shared_cluster, text};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/sources/file-store");
const NAMESPACE: &str = "example-file-store";
const PATIENCE: Duration = Duration::from_secs(30);

async fn apply(client: &Client, manifests: &str) {
    for document in serde_yaml_ng::Deserializer::from_str(manifests) {
        let object = DynamicObject::deserialize(document).unwrap();
        let resource =
            ApiResource::from_gvk(&GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap());
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let params = PatchParams::apply("end-to-end").force();
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await
            .unwrap();
    }
}

/// Copies a folder as a volume is mounted: the files in a folder with a time in its name, and links to them.
fn mount(from: &Path, volume: &Path, time: &str) {
    copy(from, &volume.join(time));
    std::os::unix::fs::symlink(time, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

async fn wait_for(client: &Client, operator: &Operator, password: &str) -> Duration {
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let start = Instant::now();
    loop {
        if let Some(secret) = api.get_opt("files").await.unwrap()
            && text(&secret, "password").as_deref() == Some(password)
        {
            assert_eq!(text(&secret, "license").as_deref(), Some("test license\n"));
            return start.elapsed();
        }
        assert!(
            start.elapsed() < PATIENCE,
            "no Secret with \"{password}\"\n{}",
            operator.log()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn file_example_is_synced_and_follows_volume_changes() {
    let root = Scratch::new("file-root").unwrap();
    let volume = root.path().join("file-store");
    let values = Path::new(EXAMPLE).join("values");
    mount(&values, &volume, "..2026_11_24_03_00_00.1");
    for name in ["license.txt", "shop"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), volume.join(name)).unwrap();
    }
    let plane = ControlPlane::builder()
        .with_controller_manager()
        .start()
        .await
        .unwrap();
    plane.install_crds().await.unwrap();
    operator::install(&plane.kubeconfig()).await.unwrap();
    let arguments = ["--file-root", root.path().to_str().unwrap()];
    let operator = Operator::start(&plane, &arguments).await.unwrap();
    let client = plane.client().await.unwrap();
    let manifests = fs::read_to_string(Path::new(EXAMPLE).join("manifests.yaml")).unwrap();
    apply(&client, &manifests).await;
    wait_for(&client, &operator, "test-password").await;

    let second = root.path().join("second");
    copy(&values, &second);
    fs::write(second.join("shop/database.json"), r#"{"password": "second"}"#).unwrap();
    mount(&second, &volume, "..2026_11_24_04_00_00.2");
    fs::remove_dir_all(volume.join("..2026_11_24_03_00_00.1")).unwrap();
    let took = wait_for(&client, &operator, "second").await;
    assert!(took < Duration::from_secs(15), "a change is followed in {took:?}");

    // a volume that goes away deletes nothing, and is told of; when it is back, all is well again
    fs::rename(&volume, root.path().join("unmounted")).unwrap();
    let stores: Api<ClusterSecretStore> = Api::all(client.clone());
    let reason_is = async |wanted: &str| {
        let start = Instant::now();
        loop {
            let status = stores
                .get("example-files")
                .await
                .unwrap()
                .status
                .unwrap_or_default();
            if let Some(ready) = status
                .conditions
                .iter()
                .find(|condition| condition.reason == wanted)
            {
                return ready.message.clone();
            }
            assert!(start.elapsed() < PATIENCE, "{:?}\n{}", status, operator.log());
            sleep(Duration::from_millis(50)).await;
        }
    };
    let message = reason_is("Unavailable").await;
    assert!(
        message.contains("\"file-store\" below the operator's --file-root is not there"),
        "{message}"
    );
    fs::rename(root.path().join("unmounted"), &volume).unwrap();
    reason_is("StoreReady").await;
    wait_for(&client, &operator, "second").await;
    let synced: Api<SyncedSecret> = Api::namespaced(client.clone(), NAMESPACE);
    let start = Instant::now();
    loop {
        let status = synced.get("files").await.unwrap().status.unwrap_or_default();
        if status
            .conditions
            .iter()
            .any(|condition| condition.reason == "Synced")
        {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", status.conditions);
        sleep(Duration::from_millis(50)).await;
    }
    for canary in ["test-password", "\"second\"", "test license"] {
        assert!(!operator.log().contains(canary), "a value is in the log");
    }
}

#[tokio::test]
async fn file_store_reports_a_missing_root_option() {
    let test = shared_cluster().await.test_namespace("files").await;
    let name = format!("{}-files", test.namespace);
    let manifest = format!(
        "apiVersion: lockstep.dev/v1alpha1\nkind: ClusterSecretStore\nmetadata: {{ name: {name} }}\nspec: {{ provider: {{ file: {{ path: shop }} }} }}\n"
    );
    apply(&test.client, &manifest).await;
    let stores: Api<ClusterSecretStore> = Api::all(test.client.clone());
    let start = Instant::now();
    loop {
        let status = stores.get(&name).await.unwrap().status.unwrap_or_default();
        if let Some(condition) = status
            .conditions
            .iter()
            .find(|condition| condition.reason == "ConfigInvalid")
        {
            assert!(
                condition
                    .message
                    .contains("the operator was started without --file-root"),
                "{}",
                condition.message
            );
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", status.conditions);
        sleep(Duration::from_millis(50)).await;
    }
}
