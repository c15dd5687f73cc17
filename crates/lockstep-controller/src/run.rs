//! Runs the operator: start, proofs, watches, reconciles and shutdown.

mod control;
mod dispatch;
mod options;
mod proof;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use kube::{
    Api, Client,
    runtime::events::{Recorder, Reporter},
};
use lockstep_api::annotation;
use lockstep_core::{
    reconcile::Settings,
    time::{Clock, SteadyClock, SystemClock},
};
use lockstep_provider::{Clients, FetchMetrics, Registry};
use parking_lot::RwLock;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

pub use self::options::{Options, RunError};
use self::{
    control::control,
    proof::{AudienceProof, accept, prove, prove_periodically},
};
use crate::{
    admin::{self, Admin, Readiness},
    audiences::Audiences,
    context::Shared,
    events::Events,
    fair::FairSlots,
    fetch::Large,
    index::Index,
    key,
    kube::{
        account::Account, admission::LeaseProof, checks::Verifier, secrets::SecretWriter,
        workloads::Workloads,
    },
    lanes::{Lanes, Slots},
    metrics::Metrics,
    objects::Objects,
    stores::{check_stores, follow_changes},
    tasks::Tasks,
    wake::WakeQueue,
    watch as follow,
};

/// Maximum number of concurrent reconciles for one set of stores. It is large enough that
/// reconciles waiting for values fill the batches of the store while others write.
const LANE_SLOTS: usize = 256;
/// Number of threads that parse large values and render templates. Each uses up to some tens of
/// MiB.
const COMPUTE_THREADS: usize = 2;
/// Maximum number of cached clients of stores.
const MAX_CLIENTS: u64 = 1024;
/// Timeout for tasks to end at shutdown.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(15);

/// Runs the operator until `shutdown` is cancelled. `anonymous` is a client of the same API server
/// without credentials.
///
/// # Errors
/// When it cannot start, or a part of it fails permanently.
pub async fn run(
    client: Client,
    anonymous: Client,
    registry: Registry,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let prometheus = prometheus::Registry::new();
    #[cfg(target_os = "linux")]
    prometheus.register(Box::new(
        prometheus::process_collector::ProcessCollector::for_self(),
    ))?;
    let fetch_metrics = FetchMetrics::new(&prometheus)?;
    let metrics = Metrics::new(prometheus)?;
    let tasks = Tasks::new(shutdown.child_token());
    let readiness = Readiness::default();
    let objects = Arc::new(Objects::default());
    for part in ["fingerprint key", "admission policy", "stores", "synced secrets"] {
        readiness.missing(part, "starting");
    }
    let late: Arc<std::sync::OnceLock<Arc<Shared>>> = Arc::default();
    serve(&tasks, &options, &readiness, &metrics, &objects, late.clone()).await?;

    let verdict = tokio::select! {
        verdict = prove(&client, &options, &metrics) => verdict,
        () = shutdown.cancelled() => return Ok(()),
    };
    let proven = verdict.is_ok();
    accept(verdict, &options, &readiness)?;
    let account = Account::look_up(&client, &options.operator_namespace).await;
    let audiences = Arc::new(Audiences::new(options.token_audiences.clone()));
    let proof = AudienceProof {
        anonymous,
        account: account.service_account(&options.operator_namespace),
        readiness: readiness.clone(),
    };
    // Must complete before the first store is checked: no store can log in with a token until then.
    tokio::select! {
        _ = proof.run(&client, &audiences, &metrics) => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let key = key::load_or_create(&client, &options.operator_namespace).await?;
    readiness.there("fingerprint key");

    let clock = Arc::new(SystemClock);
    let reporter = Reporter {
        controller: annotation::MANAGER.to_owned(),
        instance: None,
    };
    let scopes = scopes(&options.namespaces);
    let account = Arc::new(account);
    let shared = Arc::new(Shared {
        writer: SecretWriter::new(client.clone(), account.clone()),
        account,
        policy_proven: AtomicBool::new(proven),
        audiences,
        workloads: Workloads::new(options.unsafe_without_admission_policy),
        lease_proof: LeaseProof::new(options.unsafe_without_admission_policy),
        verifier: Verifier::new(options.unsafe_without_admission_policy),
        recorder: Recorder::new(client.clone(), reporter),
        clients: Clients::new(registry.clone(), fetch_metrics, MAX_CLIENTS),
        index: Arc::new(RwLock::new(
            Index::new(&options.operator_namespace)
                .with_registry(registry)
                .with_local_endpoints(options.unsafe_allow_local_store_endpoints),
        )),
        objects,
        metrics,
        key,
        settings: Settings {
            drift_probe_interval: options.drift_probe_interval,
            issue_timeout: options.issue_timeout,
            deletion_delay: options.deletion_delay,
            process_seed: u64::from(clock.now().subsec_nanosecond().unsigned_abs()),
        },
        steady: Arc::new(SteadyClock::new(&*clock)),
        clock,
        lanes: Lanes::new(LANE_SLOTS),
        compute: FairSlots::new(COMPUTE_THREADS, COMPUTE_THREADS),
        large: Large::default(),
        writes: Slots::new(usize::from(options.concurrency)),
        may_write: AtomicBool::new(true),
        wake: scopes
            .iter()
            .map(|scope| (scope.clone(), WakeQueue::default()))
            .collect(),
        checks: WakeQueue::default(),
        events: Events::new(tasks.clone(), scopes.len()),
        client,
    });
    let _ = late.set(shared.clone());
    start(&tasks, &shared, &options, &readiness, &scopes);
    prove_periodically(&tasks, &shared, &options, &readiness, proof, proven);
    tasks.shutdown().cancelled().await;
    tasks.wait(SHUTDOWN_PATIENCE).await;
    if shutdown.is_cancelled() {
        Ok(())
    } else {
        Err(RunError::Task)
    }
}

fn scopes(namespaces: &[String]) -> Vec<Option<String>> {
    if namespaces.is_empty() {
        vec![None]
    } else {
        namespaces.iter().cloned().map(Some).collect()
    }
}

async fn serve(
    tasks: &Tasks,
    options: &Options,
    readiness: &Readiness,
    metrics: &Metrics,
    objects: &Arc<Objects>,
    late: Arc<std::sync::OnceLock<Arc<Shared>>>,
) -> Result<(), RunError> {
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|error| RunError::Listen(options.listen, error))?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "serving /livez, /readyz and /metrics");
    }
    let (metrics, objects) = (metrics.clone(), objects.clone());
    let encode = move || {
        let waiting = late
            .get()
            .map_or((0, 0), |shared| (shared.lanes.waiting(), shared.writes.waiting()));
        metrics.encode(&objects, waiting.0, waiting.1)
    };
    let router = admin::router(Admin {
        readiness: readiness.clone(),
        metrics: Arc::new(encode),
    });
    tasks.spawn("admin server", CancellationToken::new(), async move {
        if axum::serve(listener, router).await.is_err() {
            tracing::error!("the admin server ended");
        }
    });
    Ok(())
}

fn start(
    tasks: &Tasks,
    shared: &Arc<Shared>,
    options: &Options,
    readiness: &Readiness,
    scopes: &[Option<String>],
) {
    let credentials = Arc::new(follow::CredentialWatches::new(tasks.clone()));
    let mut ready: BTreeMap<&'static str, watch::Receiver<bool>> = BTreeMap::new();
    let mut stores = Vec::new();
    let forever = CancellationToken::new;
    let (sender, receiver) = watch::channel(false);
    ready.insert("ClusterSecretStore", receiver);
    tasks.spawn(
        "ClusterSecretStore watch",
        forever(),
        follow::follow_stores::<lockstep_api::ClusterSecretStore>(
            shared.clone(),
            Api::all(shared.client.clone()),
            None,
            sender,
            credentials.clone(),
        ),
    );
    for scope in scopes {
        let (sender, receiver) = watch::channel(false);
        stores.push(receiver);
        tasks.spawn(
            "SecretStore watch",
            forever(),
            follow::follow_stores::<lockstep_api::SecretStore>(
                shared.clone(),
                follow::scoped(&shared.client, scope.as_deref()),
                scope.clone(),
                sender,
                credentials.clone(),
            ),
        );
    }
    if options.namespaces.is_empty() {
        let (sender, receiver) = watch::channel(false);
        ready.insert("Namespace", receiver);
        tasks.spawn(
            "Namespace watch",
            forever(),
            follow::follow_namespaces(shared.clone(), sender),
        );
    }
    tasks.spawn("store checks", forever(), check_stores(shared.clone()));
    tasks.spawn("store changes", forever(), follow_changes(shared.clone()));
    let (shared, readiness, scopes, inner) =
        (shared.clone(), readiness.clone(), scopes.to_vec(), tasks.clone());
    let drift_watch = options.drift_watch;
    tasks.spawn("controllers", forever(), async move {
        for mut receiver in stores {
            if receiver.wait_for(|ready| *ready).await.is_err() {
                return;
            }
        }
        follow::all_ready(ready, |_| {}).await;
        readiness.there("stores");
        for scope in scopes {
            let controller = control(shared.clone(), scope.clone(), readiness.clone());
            inner.spawn("SyncedSecret controller", CancellationToken::new(), controller);
            if drift_watch {
                let drift = follow::follow_secrets(shared.clone(), scope);
                inner.spawn("drift watch", CancellationToken::new(), drift);
            }
        }
    });
}
