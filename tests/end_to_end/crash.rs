//! A lost machine: the operator is killed (signal 9) at each of its writes, before and after it reaches the API server,
//! and the next start brings everything where it has to be.

use crate::api_proxy::{Asked, Fault, Scene};

#[tokio::test]
async fn a_kill_at_any_write_loses_nothing() {
    let mut scene = Scene::set(&[]).await.unwrap();
    let mut uids = Vec::new();
    for name in ["a", "b"] {
        scene.put(name, "0");
    }
    scene.operator.run().await.unwrap();
    for name in ["a", "b"] {
        scene.declare(name).await.unwrap();
        uids.push(scene.synced(name, "0").await["metadata"]["uid"].clone());
    }
    let mut round = 0;
    for fault in [Fault::Hangs, Fault::LosesAnswer] {
        // two objects, two writes each
        for nth in 0..4 {
            round += 1;
            scene.proxy.strike(fault, nth, 1, Asked::is_write);
            for name in ["a", "b"] {
                scene.put(name, &round.to_string());
            }
            scene.proxy.struck().await;
            scene.operator.kill();
            scene.proxy.heal();
            scene.operator.run().await.unwrap();
            for (name, uid) in ["a", "b"].iter().zip(&uids) {
                let secret = scene.synced(name, &round.to_string()).await;
                assert_eq!(
                    secret["metadata"]["uid"], *uid,
                    "{fault:?} at write {nth}: it is the same Secret"
                );
            }
        }
    }
}
