//! Measures the delay from an event to the updated Secret.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use lockstep_testkit::{
    Operator,
    aws::{ACCESS_KEY_ID, Aws, REGION, SECRET_ACCESS_KEY},
    progress::Step,
};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;

use super::{
    arguments::{Events, Output},
    cluster,
};
use crate::workspace;

const NAMESPACE: &str = "bench";
/// Timeout for all first syncs, and for all changes after the last was made.
const PATIENCE: Duration = Duration::from_secs(300);
/// Goal for the 99th percentile of the delay.
const GOAL: Duration = Duration::from_secs(1);

/// Measured figures.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    objects: u32,
    changes: u32,
    changes_per_second: u32,
    release_build: bool,
    /// Time from sending the event to the queue until a watch of the API server returns the Secret.
    median_milliseconds: f64,
    p99_milliseconds: f64,
    longest_milliseconds: f64,
    /// Number of calls that read values, for all changes.
    reads: u64,
    /// Number of messages left in the queue at the end.
    left_in_queue: usize,
}

/// Time at which each Secret last changed after its first sync.
type Seen = Arc<Mutex<HashMap<String, Instant>>>;

/// Runs the benchmark.
///
/// # Errors
/// Fails if a part cannot be started, objects do not become Ready, or a change does not arrive.
pub(crate) async fn measure(arguments: &Events) -> Result<Figures> {
    let count = arguments.objects;
    let (plane, client) = cluster::start(arguments.common.debug).await?;

    let aws = Aws::start().await?;
    for number in 0..count {
        aws.put_secret(&cluster::name(number), "first");
    }
    cluster::namespace(&client, NAMESPACE).await?;
    store(&client, &aws).await?;
    let data = |number| json!([{ "secretKey": "value", "remoteRef": { "key": cluster::name(number) } }]);
    cluster::synced_secrets(&client, NAMESPACE, count, "1h", data).await?;
    let binary = workspace::build_folder()?.join("lockstep");
    let mut running = Operator::prepare_binary(&plane, &binary, &["--namespaces", NAMESPACE]).await?;
    let step = Step::begin(format!("lockstep: {count} first syncs"));
    running.run().await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (ready, complaint) = cluster::ready(&client, NAMESPACE).await?;
        if ready == count as usize {
            break;
        }
        if Instant::now() > deadline {
            bail!(
                "{ready} of {count} are Ready; first message: {}",
                complaint.unwrap_or_default()
            );
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    step.done();

    let seen = Seen::default();
    #[expect(clippy::disallowed_methods, reason = "it ends before the measurement does")]
    let watching = tokio::spawn(watch(client.clone(), seen.clone()));
    // the watch starts with a list, which contains no changes
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = aws.reads().0;
    let step = Step::begin(format!("{} changes", arguments.changes));
    let mut took = measure_changes(&aws, &seen, arguments).await?;
    step.done();
    watching.abort();
    tokio::time::sleep(Duration::from_secs(1)).await;
    took.sort_unstable();
    let milliseconds = |took: Duration| took.as_secs_f64() * 1000.0;
    let at = |hundredth: usize| took[(took.len() * hundredth / 100).min(took.len() - 1)];
    Ok(Figures {
        objects: count,
        changes: arguments.changes,
        changes_per_second: arguments.rate,
        release_build: !arguments.common.debug,
        median_milliseconds: milliseconds(at(50)),
        p99_milliseconds: milliseconds(at(99)),
        longest_milliseconds: milliseconds(at(100)),
        reads: aws.reads().0 - before,
        left_in_queue: aws.queued().len(),
    })
}

/// Changes values at a constant rate. Returns how long each change took to reach its Secret.
async fn measure_changes(aws: &Aws, seen: &Seen, arguments: &Events) -> Result<Vec<Duration>> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / arguments.rate);
    let mut sent = Vec::new();
    for number in 0..arguments.changes {
        tick.tick().await;
        let name = cluster::name(number % arguments.objects);
        let version = aws.put_secret(&name, &format!("change {number}"));
        let began = Instant::now();
        aws.send(&Aws::label_updated(&name, &version));
        sent.push((name, began));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut latencies = Vec::new();
    for (name, began) in sent {
        loop {
            let at = seen.lock().get(&name).copied().filter(|at| *at >= began);
            if let Some(at) = at {
                latencies.push(at - began);
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{name}: the change did not reach its Secret within {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(latencies)
}

async fn watch(client: Client, seen: Seen) {
    let api: Api<Secret> = Api::namespaced(client, NAMESPACE);
    let mut changes = std::pin::pin!(
        watcher(api, watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    while let Some(secret) = changes.next().await {
        let Ok(secret) = secret else { continue };
        let name = secret.metadata.name.unwrap_or_default();
        seen.lock().insert(name, Instant::now());
    }
}

async fn store(client: &Client, aws: &Aws) -> Result<()> {
    let key = |key: &str| json!({ "name": cluster::CREDENTIALS, "key": key });
    let credentials = json!({ "id": ACCESS_KEY_ID, "secret": SECRET_ACCESS_KEY });
    let provider = json!({ "aws": {
        "service": "SecretsManager", "region": REGION, "endpoint": aws.address(),
        "auth": { "secretRef": {
            "accessKeyIDSecretRef": key("id"), "secretAccessKeySecretRef": key("secret"),
        } },
    } });
    let events = json!({ "sqs": { "queueUrl": aws.queue_url() } });
    cluster::store(client, NAMESPACE, credentials, provider, events).await
}

/// Writes the figures to standard output.
///
/// # Errors
/// Fails if standard output cannot be written.
pub(crate) fn print(figures: &Figures, output: Output) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if output != Output::Json {
        writeln!(
            out,
            "{} changes of {} SyncedSecrets, {} per second, from the event to the Secret:",
            figures.changes, figures.objects, figures.changes_per_second
        )?;
        for (what, milliseconds) in [
            ("median", figures.median_milliseconds),
            ("99th percentile", figures.p99_milliseconds),
            ("longest", figures.longest_milliseconds),
        ] {
            writeln!(out, "  {what:<16} {milliseconds:>8.0} ms")?;
        }
        writeln!(
            out,
            "  {} calls that read values; {} messages left in the queue",
            figures.reads, figures.left_in_queue
        )?;
    }
    if output != Output::Table {
        writeln!(out, "{}", serde_json::to_string_pretty(figures)?)?;
    }
    Ok(())
}

/// Checks the goals.
///
/// # Errors
/// Fails if a goal is missed.
pub(crate) fn check(figures: &Figures) -> Result<()> {
    let limit = GOAL.as_secs_f64() * 1000.0;
    ensure!(
        figures.p99_milliseconds <= limit,
        "the 99th percentile is {:.0} ms, but the goal is {limit:.0} ms",
        figures.p99_milliseconds
    );
    ensure!(
        figures.left_in_queue == 0,
        "{} messages were not acknowledged",
        figures.left_in_queue
    );
    Ok(())
}
