//! Measures the first sync of all SyncedSecrets, and a minute of refreshes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use lockstep_testkit::{
    ControlPlane, Operator, operator,
    progress::{Step, human},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    arguments::FirstSync,
    cluster,
    meter::{Requests, Usage},
    raw,
    rounds::{self, Round, Sample},
    stand_in::StandIn,
};
use crate::workspace;

/// Number of writes that warm up the API server before the measurement.
const WARM_UP: u32 = 200;
/// Interval at which the calls of the store are counted while nothing changes.
const SAMPLES: Duration = Duration::from_millis(50);
/// Namespace of the objects that the operator syncs.
const NAMESPACE: &str = "bench";

/// Measured figures.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    pub(crate) objects: u32,
    /// Maximum number of values per call of the store.
    pub(crate) batch: u32,
    pub(crate) throttled: bool,
    pub(crate) release_build: bool,
    /// Duration of the faster raw loop. One runs before the operator and one after.
    pub(crate) raw_seconds: f64,
    /// Time from the start of the process until `/readyz` succeeds.
    pub(crate) start_seconds: f64,
    /// Time from the start of the process until the last SyncedSecret is Ready.
    pub(crate) ready_seconds: f64,
    pub(crate) ratio: f64,
    pub(crate) ready: usize,
    pub(crate) secret_writes: u64,
    /// Writes of the operator's own key, once per installation.
    pub(crate) key_writes: u64,
    pub(crate) status_writes: u64,
    pub(crate) event_writes: u64,
    pub(crate) writes_per_object: f64,
    pub(crate) secret_reads: u64,
    pub(crate) provider_reads: u64,
    pub(crate) distinct_keys: usize,
    pub(crate) reads_per_key: f64,
    pub(crate) peak_mebibytes: f64,
    /// Limit for the peak memory.
    pub(crate) most_mebibytes: Option<f64>,
    pub(crate) processor_seconds: f64,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) quiet: Option<Quiet>,
}

/// Effects of a throttling store on the first syncs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Throttle {
    /// Number of calls that the store throttled.
    pub(crate) refused_calls: u64,
    /// Number of reconciles that failed. The error stays in the status until the next one.
    pub(crate) failed_reconciles: u64,
    /// Time for which requests were held back.
    pub(crate) throttled_seconds: f64,
}

/// Refreshes without changes over a period.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Quiet {
    pub(crate) seconds: f64,
    /// Number of refreshes of each object.
    pub(crate) rounds: f64,
    pub(crate) provider_reads: u64,
    /// Complete refresh cycles in the period.
    pub(crate) each_round: Vec<Round>,
    /// Number of SyncedSecrets that are not Ready at the end.
    pub(crate) not_ready: usize,
    /// Status writes of SyncedSecrets and stores.
    pub(crate) status_writes: u64,
    pub(crate) secret_writes: u64,
    pub(crate) event_writes: u64,
    /// Number of Secrets and SyncedSecrets whose version changed.
    pub(crate) changed_objects: usize,
    pub(crate) peak_mebibytes: f64,
    pub(crate) mebibytes: f64,
    pub(crate) processor_seconds: f64,
}

/// Runs the benchmark.
///
/// # Errors
/// Fails if a part cannot be started, or objects do not become Ready.
pub(crate) async fn measure(arguments: &FirstSync) -> Result<Figures> {
    let count = arguments.objects;
    let (plane, client) = cluster::start(arguments.common.debug).await?;

    let account = plane
        .client_for_service_account(operator::NAMESPACE, operator::SERVICE_ACCOUNT)
        .await?;
    raw_loop(&client, &account, "warm-up", WARM_UP.min(count), arguments).await?;
    let before = raw_loop(&client, &account, "raw-before", count, arguments).await?;
    let (mut figures, stand_in, running) = operator_run(&plane, &client, arguments).await?;
    if arguments.quiet_seconds > 0 {
        figures.quiet = Some(quiet(&client, &stand_in, &running, arguments).await?);
    }
    drop(running);
    let after = raw_loop(&client, &account, "raw-after", count, arguments).await?;
    figures.raw_seconds = before.min(after).as_secs_f64();
    figures.ratio = figures.ready_seconds / figures.raw_seconds;
    Ok(figures)
}

async fn raw_loop(
    client: &Client,
    account: &Client,
    namespace: &str,
    count: u32,
    arguments: &FirstSync,
) -> Result<Duration> {
    cluster::namespace(client, namespace).await?;
    synced_secrets(client, namespace, count, arguments).await?;
    let step = Step::begin(format!(
        "{namespace}: {count} Secrets and as many status in a raw loop"
    ));
    let took = raw::write(account, namespace, count, arguments.workers).await?;
    step.done();
    Ok(took)
}

/// Creates SyncedSecrets that read the four properties of a value.
async fn synced_secrets(client: &Client, namespace: &str, count: u32, arguments: &FirstSync) -> Result<()> {
    // a store that throttles serves only the first syncs: refreshes every few seconds would exceed
    // its limit
    let refresh = if arguments.throttle {
        "1h".to_owned()
    } else {
        format!("{}s", arguments.store.refresh_seconds(arguments.objects))
    };
    let data = |number| {
        let key = cluster::name(number / arguments.objects_per_key);
        let entries = cluster::PROPERTIES.iter().map(
            |property| json!({ "secretKey": property, "remoteRef": { "key": key, "property": property } }),
        );
        entries.collect()
    };
    cluster::synced_secrets(client, namespace, count, &refresh, data).await
}

async fn operator_run(
    plane: &ControlPlane,
    client: &Client,
    arguments: &FirstSync,
) -> Result<(Figures, StandIn, Operator)> {
    let count = arguments.objects;
    let stand_in = StandIn::start(arguments).await?;
    cluster::namespace(client, NAMESPACE).await?;
    let (credentials, provider) = (stand_in.credentials(), stand_in.provider());
    cluster::store(client, NAMESPACE, credentials, provider, Value::Null).await?;
    synced_secrets(client, NAMESPACE, count, arguments).await?;
    let binary = workspace::build_folder()?.join("lockstep");
    let mut running = Operator::prepare_binary(plane, &binary, &["--namespaces", NAMESPACE]).await?;
    let mut step = Step::begin(format!("lockstep: {count} first syncs"));
    let earlier = Requests::so_far(client).await?;
    let began = Instant::now();
    running.run().await?;
    let started = began.elapsed();
    let ready = wait_for_all(&running, &stand_in, arguments, began, &mut step).await?;
    step.done();
    let pid = running.pid().context("the operator has ended")?;
    let usage = Usage::of(pid)?;
    let requests = Requests::so_far(client).await?.since(&earlier);
    let (reads, keys) = stand_in.reads();
    let (all, complaint) = cluster::ready(client, NAMESPACE).await?;
    if all != count as usize {
        bail!(
            "{all} of {count} are Ready; first message: {}",
            complaint.unwrap_or_default()
        );
    }
    let throttle = if arguments.throttle {
        Some(throttle(&running).await?)
    } else {
        None
    };
    // the operator creates its fingerprint key once per installation; it does not count as a write
    // of an object
    let key_writes = u64::from(cluster::has_fingerprint_key(client).await?);
    let secret_writes = requests.writes("secrets") - key_writes;
    let status_writes = requests.writes("syncedsecrets/status");
    let objects = f64::from(count);
    #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
    let figures = Figures {
        objects: count,
        batch: arguments.store.batch(),
        throttled: arguments.throttle,
        release_build: !arguments.common.debug,
        raw_seconds: 0.0,
        start_seconds: started.as_secs_f64(),
        ready_seconds: ready.as_secs_f64(),
        ratio: 0.0,
        ready: all,
        secret_writes,
        key_writes,
        status_writes,
        event_writes: requests.writes("events"),
        writes_per_object: (secret_writes + status_writes) as f64 / objects,
        secret_reads: requests.reads("secrets"),
        provider_reads: reads,
        distinct_keys: keys,
        reads_per_key: reads as f64 / keys.max(1) as f64,
        peak_mebibytes: usage.peak_mebibytes,
        most_mebibytes: arguments
            .store
            .most_memory(count)
            .filter(|_| !arguments.common.debug),
        processor_seconds: usage.processor.as_secs_f64(),
        throttle,
        quiet: None,
    };
    Ok((figures, stand_in, running))
}

/// Returns the operator's metrics of a throttling store.
async fn throttle(running: &Operator) -> Result<Throttle> {
    let reconciles = "lockstep_reconcile_duration_seconds_count";
    let mut failed = running.metric(reconciles, &[]).await?;
    for fine in ["outcome=\"Synced\"", "outcome=\"unchanged\""] {
        failed -= running.metric(reconciles, &[fine]).await?;
    }
    let refused = running
        .metric("lockstep_provider_requests_total", &["outcome=\"rate_limited\""])
        .await?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters of requests and reconciles"
    )]
    let (refused_calls, failed_reconciles) = (refused as u64, failed.max(0.0) as u64);
    Ok(Throttle {
        refused_calls,
        failed_reconciles,
        throttled_seconds: running
            .metric("lockstep_store_throttled_seconds_total", &[])
            .await?,
    })
}

/// Waits until all SyncedSecrets are Ready. Polls the operator's metrics, because a watch of ten
/// thousand objects would affect the measurement. The metrics of ten thousand objects are expensive
/// too, so they are polled only after the last value was read, and rarely before.
async fn wait_for_all(
    running: &Operator,
    stand_in: &StandIn,
    arguments: &FirstSync,
    began: Instant,
    step: &mut Step,
) -> Result<Duration> {
    let count = arguments.objects;
    let keys = count.div_ceil(arguments.objects_per_key) as usize;
    // with every second call throttled, each read needs two calls, possibly at the slowest rate
    let each = Duration::from_millis(if arguments.throttle { 250 } else { 50 });
    let patience = Duration::from_secs(60) + each * count;
    let mut asked = Instant::now();
    loop {
        let read = stand_in.reads().1 >= keys;
        if read || asked.elapsed() > Duration::from_secs(10) {
            asked = Instant::now();
            let ready = running.metric("lockstep_synced_secret_ready", &[]).await?;
            if ready >= f64::from(count) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > patience {
                bail!(
                    "{ready} of {count} are Ready after {}\n{}",
                    human(patience),
                    running.log()
                );
            }
        }
        step.tick();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn quiet(
    client: &Client,
    stand_in: &StandIn,
    running: &Operator,
    arguments: &FirstSync,
) -> Result<Quiet> {
    let seconds = arguments.quiet_seconds;
    let pid = running.pid().context("the operator has ended")?;
    let mut step = Step::begin(format!("{seconds} s of refreshes without a change"));
    let versions = cluster::versions(client, NAMESPACE).await?;
    let earlier = Requests::so_far(client).await?;
    let (reads, _) = stand_in.reads();
    let used = Usage::of(pid)?;
    let began = Instant::now();
    let sample = || Sample {
        at: began.elapsed(),
        calls: stand_in.reads().0,
    };
    let mut samples = vec![sample()];
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(SAMPLES).await;
        samples.push(sample());
        step.tick();
    }
    let took = began.elapsed();
    let usage = Usage::of(pid)?;
    let requests = Requests::so_far(client).await?.since(&earlier);
    let (reads_now, _) = stand_in.reads();
    let now = cluster::versions(client, NAMESPACE).await?;
    let changed = now
        .iter()
        .filter(|version| versions.binary_search(version).is_err())
        .count();
    let (ready, _) = cluster::ready(client, NAMESPACE).await?;
    step.done();
    let interval = Duration::from_secs(arguments.store.refresh_seconds(arguments.objects));
    Ok(Quiet {
        seconds: took.as_secs_f64(),
        rounds: took.as_secs_f64() / interval.as_secs_f64(),
        provider_reads: reads_now - reads,
        each_round: rounds::of(&samples, interval),
        not_ready: (arguments.objects as usize).saturating_sub(ready),
        status_writes: requests.writes("syncedsecrets/status")
            + requests.writes("secretstores/status")
            + requests.writes("clustersecretstores/status"),
        secret_writes: requests.writes("secrets"),
        event_writes: requests.writes("events"),
        changed_objects: changed + versions.len().saturating_sub(now.len()),
        peak_mebibytes: usage.peak_mebibytes,
        mebibytes: usage.mebibytes,
        processor_seconds: usage.processor.saturating_sub(used.processor).as_secs_f64(),
    })
}
