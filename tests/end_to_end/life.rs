//! From the start of the operator to its end.

use std::time::Duration;

use crate::api_proxy::{Asked, Fault, Scene};

fn terminate(scene: &mut Scene) -> std::process::ExitStatus {
    let pid = scene.operator.pid().expect("a process").to_string();
    let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.expect("kill").success());
    let process = scene.operator.process().expect("a process");
    process.wait(Duration::from_secs(20)).expect("it ends")
}

#[tokio::test]
async fn a_request_to_end_ends_it_well_also_while_the_cluster_hangs() {
    let mut scene = Scene::set(&[]).await.unwrap();
    scene.put("a", "0");
    scene.operator.run().await.unwrap();
    scene.declare("a").await.unwrap();
    scene.synced("a", "0").await;
    assert_eq!(terminate(&mut scene).code(), Some(0), "{}", scene.operator.log());

    scene.operator.kill();
    scene.operator.run().await.unwrap();
    scene
        .proxy
        .strike(Fault::Hangs, 0, 100, |asked| asked.path.ends_with("/secrets/a"));
    scene.put("a", "1");
    scene.proxy.struck().await;
    assert_eq!(terminate(&mut scene).code(), Some(0), "{}", scene.operator.log());
}

#[tokio::test]
async fn it_is_not_ready_before_it_knows_its_objects_and_lives_all_the_same() {
    let mut scene = Scene::set(&[]).await.unwrap();
    let lists = |asked: &Asked| asked.path.ends_with("/syncedsecrets");
    scene.proxy.strike(Fault::Status(503), 0, 1000, lists);
    let (proxy, address) = (scene.proxy.clone(), scene.operator.address());
    let status = async |path: &str| {
        let answer = reqwest::get(format!("{address}/{path}")).await;
        answer.expect("an answer").status().as_u16()
    };
    let watched = async {
        proxy.struck().await;
        let seen = (status("livez").await, status("readyz").await);
        proxy.heal();
        seen
    };
    let (started, seen) = tokio::join!(scene.operator.run(), watched);
    assert_eq!(seen, (200, 503));
    started.unwrap();
}

#[tokio::test]
async fn it_looks_at_the_namespaces_that_it_is_told_alone() {
    let mut scene = Scene::set(&["--namespaces", "scene"]).await.unwrap();
    scene.put("a", "0");
    scene.operator.run().await.unwrap();
    scene.declare_in("default", "a").await.unwrap();
    scene.declare("a").await.unwrap();
    scene.synced("a", "0").await;
    let strays: Vec<_> = scene
        .proxy
        .asked()
        .into_iter()
        .filter(|asked| asked.path.contains("syncedsecrets") && !asked.path.contains("/namespaces/scene/"))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
}
