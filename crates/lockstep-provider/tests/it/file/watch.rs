//! A change announces itself.

use std::{fs, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use lockstep_provider::{Clients, FetchMetrics, FileFactory, Registry};
use tokio::time::timeout;

use super::setup::{Files, config};
use crate::credentials::NoCredentials;

/// Longer than a change takes to be noticed and to settle, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Two looks and more.
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
async fn a_rewritten_a_new_and_a_removed_file_are_noticed_and_nothing_else() {
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
async fn a_change_between_the_making_of_a_client_and_its_watch_is_noticed() {
    let files = Files::new();
    files.write("values.yaml", "a: first");
    let store = files.store("values.yaml").await;
    files.write("values.yaml", "a: other");
    told(&mut store.0.changes().unwrap()).await;
}

#[tokio::test]
async fn the_swap_of_a_volume_is_noticed() {
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
async fn a_volume_that_comes_is_noticed() {
    let files = Files::new();
    let store = files.store("volume").await;
    let mut changes = store.0.changes().unwrap();
    quiet(&mut changes).await;
    files.write("volume/password", "value");
    told(&mut changes).await;
}

#[tokio::test]
async fn many_changes_at_once_are_told_once() {
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
async fn clients_tell_which_store_changed_until_the_store_is_forgotten() {
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
    // and a store of the same name is watched again
    drop(get().await.unwrap());
    files.write("shop/password", "fourth");
    assert_eq!(
        timeout(PATIENCE, changes.next()).await.unwrap().as_ref(),
        Some(&config.key)
    );
}
