//! What the operator asks of the API server: two writes for a first sync, none for no change, and never a Secret's
//! values.

use axum::http::Method;

use crate::api_proxy::{Asked, Fault, ProxiedCluster};

const READS: &str = "lockstep_provider_requests_total";

fn writes(asked: &[Asked]) -> Vec<String> {
    let writes = asked.iter().filter(|asked| asked.is_write());
    writes
        .map(|asked| format!("{} {}", asked.method, asked.path))
        .collect()
}

#[tokio::test]
async fn first_sync_writes_twice_and_an_unchanged_one_nothing() {
    let mut cluster = ProxiedCluster::set(&["--drift-probe-interval", "1h"])
        .await
        .unwrap();
    cluster.put("a", "one");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    cluster.synced("a", "one").await;
    let own = |asked: &&Asked| asked.path.contains("/namespaces/scene/");
    let of_scene = |cluster: &ProxiedCluster| {
        cluster
            .proxy
            .asked()
            .iter()
            .filter(own)
            .cloned()
            .collect::<Vec<_>>()
    };
    let first = of_scene(&cluster);
    assert_eq!(
        writes(&first),
        [
            "POST /api/v1/namespaces/scene/secrets",
            "PATCH /apis/lockstep.dev/v1alpha1/namespaces/scene/syncedsecrets/a/status",
        ]
    );

    let read = cluster
        .operator
        .metric(READS, &["operation=\"read\""])
        .await
        .unwrap();
    cluster
        .metric_reaches(READS, &["operation=\"read\""], read + 3.0)
        .await;
    assert_eq!(
        writes(&of_scene(&cluster)).len(),
        2,
        "reads without a change write nothing"
    );

    cluster.put("a", "two");
    cluster.synced("a", "two").await;
    let all = cluster.proxy.asked();
    for asked in all.iter().filter(|asked| asked.is_of_secrets()) {
        let own_key = asked.path.contains("/secrets/lockstep-fingerprint-key");
        if asked.method == Method::GET {
            assert!(own_key, "a Secret is read: {asked:?}");
        } else if asked.path.contains("/namespaces/scene/") {
            assert!(
                asked.accept.contains("PartialObjectMetadata"),
                "the answer would hold values: {asked:?}"
            );
        }
    }
}

#[tokio::test]
async fn drift_probe_is_one_dry_run_and_detects_an_edit() {
    let mut cluster = ProxiedCluster::set(&["--drift-probe-interval", "1s"])
        .await
        .unwrap();
    cluster.put("a", "one");
    cluster.operator.run().await.unwrap();
    cluster.declare("a").await.unwrap();
    let secret = cluster.synced("a", "one").await;
    let before = cluster.proxy.asked().len();
    let probed = |asked: &Asked| asked.method == Method::DELETE && asked.path.ends_with("/secrets/a");
    while cluster.proxy.asked()[before..]
        .iter()
        .filter(|asked| probed(asked))
        .count()
        < 2
    {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let asked = cluster.proxy.asked();
    assert!(
        asked[before..]
            .iter()
            .all(|asked| asked.method != Method::GET || !asked.is_of_secrets())
    );
    let later = cluster.get("secret", "a").await;
    assert_eq!(
        later["metadata"]["resourceVersion"], secret["metadata"]["resourceVersion"],
        "a probe changes nothing"
    );
    cluster
        .apply(&serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a", "namespace": "scene" },
            "stringData": { "value": "edited" },
        }))
        .await
        .unwrap();
    cluster.synced("a", "one").await;
}

#[tokio::test]
async fn new_object_goes_before_waiting_refreshes() {
    const OLD: usize = 6;
    let arguments = ["--drift-probe-interval", "1h", "--concurrency", "1"];
    let mut cluster = ProxiedCluster::set(&arguments).await.unwrap();
    let old: Vec<_> = (0..OLD).map(|number| format!("old-{number}")).collect();
    cluster.operator.run().await.unwrap();
    for name in &old {
        cluster.put(name, "one");
        cluster.declare(name).await.unwrap();
    }
    for name in &old {
        cluster.synced(name, "one").await;
    }

    // one refresh holds the only slot for writes, the others wait for it
    let before = cluster.proxy.asked().len();
    cluster.proxy.strike(Fault::Waits, 0, 1, Asked::is_write);
    for name in &old {
        cluster.put(name, "two");
    }
    cluster.proxy.struck().await;
    let waiting = ["queue=\"write\""];
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let refreshes = (OLD - 1) as f64;
    cluster
        .metric_reaches("lockstep_queue_depth", &waiting, refreshes)
        .await;
    cluster.put("new", "one");
    cluster.declare("new").await.unwrap();
    cluster
        .metric_reaches("lockstep_queue_depth", &waiting, refreshes + 1.0)
        .await;
    cluster.proxy.heal();

    cluster.synced("new", "one").await;
    for name in &old {
        cluster.synced(name, "two").await;
    }
    let asked = cluster.proxy.asked().split_off(before);
    let secrets: Vec<_> = writes(&asked)
        .into_iter()
        .filter_map(|write| {
            if write == "POST /api/v1/namespaces/scene/secrets" {
                return Some("new".to_owned());
            }
            write
                .strip_prefix("PUT /api/v1/namespaces/scene/secrets/")
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(secrets.len(), OLD + 1, "{secrets:?}");
    assert_eq!(secrets[1], "new", "the newcomer goes first: {secrets:?}");
}
