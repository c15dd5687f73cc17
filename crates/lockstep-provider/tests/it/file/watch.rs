//! Tests that changed files are reported.

use std::{fs, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use lockstep_provider::{Clients, FetchMetrics, FileFactory, Registry};
use tokio::time::timeout;

use super::setup::{Files, config};
use crate::credentials::NoCredentials;

/// Longer than it takes to notice and settle a change on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than two polls.
const QUIET: Duration = Duration::from_millis(2500);

async fn told(changes: &mut BoxStream<'static, ()>) {
    timeout(PATIENCE, changes.next())
        .await
        .expect("the change is noticed");
}

async fn quiet(changes: &mut BoxStream<'static, ()>) {
    assert!(
        timeout(QUIET, changes.next()).await.is_err(),
        "nothing changed, so nothing is told"
    );
}

#[tokio::test]
async fn only_rewritten_new_and_removed_files_are_changes() {
    let files = Files::new();
    files.write("shop/eu/password", "first");
    let store = files.store("shop").await;
    assert!(store.0.capability().notifies);
    let mut changes = store.0.changes().unwrap();
    quiet(&mut changes).await;
    assert_eq!(store.text("eu/password").await, "first");
    quiet(&mut changes).await;
    files.write("shop/eu/password", "other");
    told(&mut changes).await;
    files.write("shop/new", "value");
    told(&mut changes).await;
    fs::remove_file(files.at("shop/new")).unwrap();
    told(&mut changes).await;
    quiet(&mut changes).await;
}

#[tokio::test]
async fn change_between_client_build_and_watch_is_noticed() {
    let files = Files::new();
    files.write("values.yaml", "a: first");
    let store = files.store("values.yaml").await;
    files.write("values.yaml", "a: other");
    told(&mut store.0.changes().unwrap()).await;
}

#[tokio::test]
async fn swapping_a_volume_is_a_change() {
    let files = Files::new();
    for time in ["..1", "..2"] {
        files.write(&format!("csi/{time}/password"), "value");
    }
    files.link("csi/..data", "..1");
    files.link("csi/password", "..data/password");
    let store = files.store("csi").await;
    let mut changes = store.0.changes().unwrap();
    quiet(&mut changes).await;
    files.link("csi/..data_tmp", "..2");
    fs::rename(files.at("csi/..data_tmp"), files.at("csi/..data")).unwrap();
    told(&mut changes).await;
}

#[tokio::test]
async fn mounting_a_volume_is_a_change() {
    let files = Files::new();
    let store = files.store("volume").await;
    let mut changes = store.0.changes().unwrap();
    quiet(&mut changes).await;
    files.write("volume/password", "value");
    told(&mut changes).await;
}

#[tokio::test]
async fn simultaneous_changes_are_reported_once() {
    let files = Files::new();
    files.write("shop/first", "value");
    let store = files.store("shop").await;
    let mut changes = store.0.changes().unwrap();
    for index in 0..200 {
        files.write(&format!("shop/{index}"), "value");
    }
    told(&mut changes).await;
    quiet(&mut changes).await;
}

#[tokio::test]
async fn clients_report_changed_stores_until_they_are_forgotten() {
    let files = Files::new();
    files.write("shop/password", "first");
    let registry = Registry::default().with(FileFactory::new(files.root()));
    let metrics = FetchMetrics::new(&prometheus::Registry::new()).unwrap();
    let clients = Clients::new(registry, metrics, 16);
    let mut changes = clients.changes();
    let config = config("shop");
    let get = || clients.get(&config.key, "1", &config, Arc::new(NoCredentials));
    drop(get().await.unwrap());
    files.write("shop/password", "other");
    let store = timeout(PATIENCE, changes.next()).await.unwrap();
    assert_eq!(store.as_ref(), Some(&config.key));
    assert!(format!("{changes:?}").contains("stores: 1"));
    clients.forget(&config.key).await;
    files.write("shop/password", "third");
    assert!(timeout(QUIET, changes.next()).await.is_err());
    assert!(
        format!("{changes:?}").contains("stores: 0"),
        "the watch has ended"
    );
    // a store of the same name is watched again
    drop(get().await.unwrap());
    files.write("shop/password", "fourth");
    assert_eq!(
        timeout(PATIENCE, changes.next()).await.unwrap().as_ref(),
        Some(&config.key)
    );
}
