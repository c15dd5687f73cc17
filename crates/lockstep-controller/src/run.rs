//! The operator's life: start, prove, watch, reconcile, end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::{
        Controller, Predicate, PredicateConfig, WatchStreamExt, controller,
        controller::Action,
        events::{Recorder, Reporter},
        reflector::{self, ObjectRef},
        watcher::Event,
    },
};
use lockstep_api::{SyncedSecret, annotation};
use lockstep_core::{
    decide::Settings,
    time::{Clock, SystemClock},
};
use lockstep_provider::{Clients, FetchMetrics, Registry};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin, Readiness},
    admission::{self, Verdict},
    context::Shared,
    identity::Account,
    index::{Index, ObjectKey},
    key,
    lanes::{Lanes, Slots},
    metrics::Metrics,
    objects::Objects,
    reconcile::reconcile,
    secret::SecretWriter,
    stores::{check_stores, follow_changes},
    tasks::Tasks,
    wake::WakeQueue,
    watch as follow,
};

/// Reconciles of one set of stores that are under way at the same time.
const LANE_SLOTS: usize = 32;
/// Clients of stores that are kept at most.
const MAX_CLIENTS: u64 = 1024;
/// How often the admission policies are proven again.
const SELF_TEST_INTERVAL: Duration = Duration::from_secs(300);
/// How long the start waits for the admission policies to take effect: the API server needs a moment after an install.
const SELF_TEST_PATIENCE: Duration = Duration::from_secs(60);
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(15);

/// Settings of the process.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where `/livez`, `/readyz` and `/metrics` listen.
    pub listen: SocketAddr,
    /// Namespaces to watch; empty: all.
    pub namespaces: Vec<String>,
    /// Writes to the API server at the same time.
    pub concurrency: u16,
    /// The operator's own namespace.
    pub operator_namespace: String,
    /// Time between two looks at the same Secret; zero turns them off.
    pub drift_probe_interval: Duration,
    /// Watch the metadata of written Secrets, for repair within a second. It needs `list` and `watch` on Secrets.
    pub drift_watch: bool,
    /// Write Secrets although the admission policy is missing.
    pub unsafe_without_admission_policy: bool,
}

/// Why the operator could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// There is no fingerprint key.
    #[error(transparent)]
    Key(#[from] key::KeyError),
    /// The admission policy does not hold.
    #[error(
        "the admission policy lockstep-secrets does not refuse what it must refuse ({0}). Install it (deploy/kustomize holds it), or start with --unsafe-without-admission-policy, which lets whoever takes over this process write every Secret"
    )]
    Admission(String),
    /// A metric is registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A task failed for good.
    #[error("a part of the operator failed; the log says which")]
    Task,
}

/// Runs the operator until `shutdown` is cancelled.
///
/// # Errors
/// When it cannot start, or a part of it fails for good.
pub async fn run(
    client: Client,
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
    let account = Account::ask(&client, &options.operator_namespace).await;
    let key = key::load_or_create(&client, &options.operator_namespace).await?;
    readiness.there("fingerprint key");

    let clock = Arc::new(SystemClock);
    let reporter = Reporter {
        controller: annotation::MANAGER.to_owned(),
        instance: None,
    };
    let scopes = scopes(&options.namespaces);
    let shared = Arc::new(Shared {
        account: Arc::new(account),
        writer: SecretWriter::new(client.clone()),
        recorder: Recorder::new(client.clone(), reporter),
        clients: Clients::new(registry, fetch_metrics, MAX_CLIENTS),
        index: Arc::new(RwLock::new(Index::new(&options.operator_namespace))),
        objects,
        metrics,
        key,
        settings: Settings {
            drift_probe_interval: options.drift_probe_interval,
            process_seed: u64::from(clock.now().subsec_nanosecond().unsigned_abs()),
        },
        clock,
        lanes: Lanes::new(LANE_SLOTS),
        writes: Slots::new(usize::from(options.concurrency)),
        may_write: AtomicBool::new(true),
        wake: scopes
            .iter()
            .map(|scope| (scope.clone(), WakeQueue::default()))
            .collect(),
        checks: WakeQueue::default(),
        client,
    });
    let _ = late.set(shared.clone());
    start(&tasks, &shared, &options, &readiness, &scopes);
    keep_proving(&tasks, &shared, &options, &readiness, proven);
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

/// Proves the policy for Secrets, with patience: after an install it takes the API server a moment to enforce it.
async fn prove(client: &Client, options: &Options, metrics: &Metrics) -> Result<(), String> {
    let until = tokio::time::Instant::now() + SELF_TEST_PATIENCE;
    loop {
        let verdict = admission::secrets(client, &options.operator_namespace).await;
        metrics
            .admission
            .with_label_values(&["secrets"])
            .set(i64::from(verdict == Verdict::Enforced));
        let why = match verdict {
            Verdict::Enforced => return Ok(()),
            Verdict::Open => "a Secret without owner would have been written",
            Verdict::Unknown(why) => why,
        };
        let hopeless = options.unsafe_without_admission_policy && verdict == Verdict::Open;
        if hopeless || tokio::time::Instant::now() >= until {
            return Err(why.to_owned());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn accept(verdict: Result<(), String>, options: &Options, readiness: &Readiness) -> Result<(), RunError> {
    match verdict {
        Ok(()) => {
            tracing::info!("admission policy proven: a Secret without owner is refused");
            readiness.there("admission policy");
            Ok(())
        }
        Err(why) if options.unsafe_without_admission_policy => {
            tracing::warn!(
                why,
                "running without a proven admission policy, as --unsafe-without-admission-policy says"
            );
            readiness.there("admission policy");
            Ok(())
        }
        Err(why) => Err(RunError::Admission(why)),
    }
}

fn keep_proving(
    tasks: &Tasks,
    shared: &Arc<Shared>,
    options: &Options,
    readiness: &Readiness,
    mut proven: bool,
) {
    let (shared, options, readiness) = (shared.clone(), options.clone(), readiness.clone());
    tasks.spawn("admission self-test", CancellationToken::new(), async move {
        loop {
            // the second policy guards tokens; the operator works without it, and says so
            let tokens = match shared.account.as_ref() {
                Account::ServiceAccount { namespace, name } => {
                    admission::token_requests(&shared.client, namespace, name).await
                }
                Account::User(_) => Verdict::Unknown("the operator runs as a user, whom no policy is about"),
            };
            shared
                .metrics
                .admission
                .with_label_values(&["token_requests"])
                .set(i64::from(tokens == Verdict::Enforced));
            if tokens == Verdict::Open {
                tracing::warn!(
                    "the admission policy lockstep-token-requests does not refuse what it must refuse"
                );
            }
            tokio::time::sleep(SELF_TEST_INTERVAL).await;
            let verdict = admission::secrets(&shared.client, &options.operator_namespace).await;
            match verdict {
                Verdict::Enforced => {
                    proven = true;
                    shared.metrics.admission.with_label_values(&["secrets"]).set(1);
                    shared.may_write.store(true, Ordering::Release);
                    readiness.there("admission policy");
                }
                Verdict::Open => {
                    shared.metrics.admission.with_label_values(&["secrets"]).set(0);
                    if proven && !options.unsafe_without_admission_policy {
                        tracing::error!(
                            "the admission policy lockstep-secrets no longer holds; no Secret is written"
                        );
                        shared.may_write.store(false, Ordering::Release);
                        readiness.missing(
                            "admission policy",
                            "lockstep-secrets no longer refuses what it must refuse",
                        );
                    }
                }
                // an API server that is away proves nothing either way
                Verdict::Unknown(why) => {
                    tracing::warn!(why, "the admission policy could not be proven again");
                }
            }
        }
    });
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
            let controller = control(
                shared.clone(),
                scope.clone(),
                readiness.clone(),
                inner.shutdown().clone(),
            );
            inner.spawn("SyncedSecret controller", CancellationToken::new(), controller);
            if drift_watch {
                let drift = follow::follow_secrets(shared.clone(), scope);
                inner.spawn("drift watch", CancellationToken::new(), drift);
            }
        }
    });
}

/// What of a SyncedSecret makes a reconcile due. Its status is not: it is the operator's own word.
struct Relevant;

impl Predicate<SyncedSecret> for Relevant {
    fn hash_property(&self, object: &SyncedSecret) -> Option<u64> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let meta = &object.metadata;
        let mut hasher = DefaultHasher::new();
        (&meta.uid, meta.generation, meta.deletion_timestamp.is_some()).hash(&mut hasher);
        meta.annotations
            .as_ref()
            .and_then(|all| all.get(annotation::REFRESH))
            .hash(&mut hasher);
        Some(hasher.finish())
    }
}

async fn control(
    shared: Arc<Shared>,
    scope: Option<String>,
    readiness: Readiness,
    shutdown: CancellationToken,
) {
    let (reader, writer) = reflector::store::<SyncedSecret>();
    let events = follow::ours(follow::scoped(&shared.client, scope.as_deref()), &shared);
    let taking_in = shared.clone();
    let mut listed: Option<std::collections::BTreeSet<ObjectKey>> = None;
    let within = scope.clone();
    let trigger = events
        .inspect(move |event| {
            let Ok(event) = event else { return };
            match event {
                Event::Init => listed = Some(std::collections::BTreeSet::new()),
                Event::InitApply(object) | Event::Apply(object) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(ObjectKey::of(object));
                    }
                    taking_in.objects.seen(&ObjectKey::of(object), object);
                    let rivals = taking_in.index_mut().apply_object(object);
                    taking_in.wake(rivals);
                }
                Event::Delete(object) => forget(&taking_in, &ObjectKey::of(object)),
                Event::InitDone => {
                    let listed = listed.take().unwrap_or_default();
                    let known = taking_in.index().objects(within.as_deref());
                    for gone in known.into_iter().filter(|key| !listed.contains(key)) {
                        forget(&taking_in, &gone);
                    }
                    readiness.there("synced secrets");
                }
            }
        })
        .reflect(writer)
        .applied_objects()
        .predicate_filter(Relevant, PredicateConfig::default());
    let woken = shared.wake.get(&scope).cloned().unwrap_or_default();
    let woken = woken.map(|key| ObjectRef::new(&key.name).within(&key.namespace));
    Controller::for_stream(trigger, reader)
        .reconcile_on(woken)
        .with_config(controller::Config::default().concurrency(0))
        .graceful_shutdown_on(async move { shutdown.cancelled().await })
        .run(reconcile, |_, error, _| match *error {}, shared)
        .for_each(|_: Result<(_, Action), _>| std::future::ready(()))
        .await;
}

fn forget(shared: &Shared, key: &ObjectKey) {
    let rivals = shared.index_mut().delete_object(key);
    shared.objects.remove(key);
    shared.wake(rivals);
}
