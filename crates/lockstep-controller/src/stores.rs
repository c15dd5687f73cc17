//! The status of stores: whether each can be reached with its credentials.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    future::{AbortHandle, abortable},
    stream::FuturesUnordered,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use lockstep_api::{
    ClusterSecretStore, ConditionStatus, ConditionType, Reason, SecretStore, StoreKind, StoreStatus,
    annotation,
};
use lockstep_core::{Failure, report, schedule};
use lockstep_provider::{Context, Notice, StoreKey};
use serde_json::json;
use tokio::time::Instant;

use crate::{context::Shared, secret::WRITE_TIMEOUT};

/// Stores that are checked at the same time: many, because each that hangs holds its place for up to half a minute, and
/// little is held by one that waits.
const AT_ONCE: usize = 256;
/// How often a store that is ready is checked again.
const RECHECK: Duration = Duration::from_secs(600);
const CHECK_DEADLINE: Duration = Duration::from_secs(30);

/// Checks stores: when they change, when their credentials do, and from time to time. A store that becomes ready wakes
/// who depends on it. A store that is named while it is checked is checked anew, and what the check before would have
/// said of its earlier state is never said.
pub async fn check_stores(shared: Arc<Shared>) {
    let mut woken = shared.checks.clone();
    let mut due: BTreeMap<StoreKey, (Instant, u32)> = BTreeMap::new();
    let mut running = FuturesUnordered::new();
    let mut handles: HashMap<StoreKey, AbortHandle> = HashMap::new();
    loop {
        let now = Instant::now();
        while running.len() < AT_ONCE
            && let Some(key) = due
                .iter()
                .find(|(_, (at, _))| *at <= now)
                .map(|(key, _)| key.clone())
        {
            let attempt = due.remove(&key).map_or(0, |(_, attempt)| attempt);
            let (checking, handle) = abortable(check(shared.clone(), key.clone(), attempt));
            handles.insert(key, handle);
            running.push(checking);
        }
        let next = due
            .values()
            .map(|(at, _)| *at)
            .min()
            .unwrap_or(now + RECHECK)
            .max(now);
        tokio::select! {
            Some(key) = woken.next() => {
                if let Some(before) = handles.remove(&key) {
                    before.abort();
                }
                due.insert(key, (now, 0));
            }
            Some(ended) = running.next(), if !running.is_empty() => {
                // what was given up is due again already
                let Ok((key, again)) = ended else { continue };
                handles.remove(&key);
                if let Some((wait, attempt)) = again {
                    due.entry(key).or_insert((Instant::now() + wait, attempt));
                }
            }
            () = tokio::time::sleep_until(next), if running.len() < AT_ONCE => {}
        }
    }
}

/// Follows the stores that tell of changes themselves: who depends on one is woken. What is told is a hint; whether
/// anything changed, the next read finds out.
pub async fn follow_changes(shared: Arc<Shared>) {
    let mut changes = shared.clients.changes();
    while let Some(store) = changes.next().await {
        tracing::debug!(store = %store, "values may have changed");
        shared.checks.wake([store.clone()]);
        let dependents = shared.index().dependents(&store);
        shared.wake(dependents);
    }
}

async fn check(shared: Arc<Shared>, key: StoreKey, attempt: u32) -> (StoreKey, Option<(Duration, u32)>) {
    if shared.index().store_config(&key).is_none() {
        return (key, None);
    }
    let result = verdict(&shared, &key).await;
    let label = key.to_string();
    let again = match &result {
        Ok(_) => (RECHECK.mul_f64(1.0 + 0.1 * schedule::fraction(&label)), 0),
        Err(failure) => (
            schedule::retry(failure.requeue, RECHECK, failure.retry_after, &label, attempt),
            attempt.saturating_add(1),
        ),
    };
    let client = shared.client.clone();
    let turned_ready = match key.kind {
        StoreKind::SecretStore => {
            let namespace = key.namespace.as_deref().unwrap_or_default();
            write(
                &shared,
                Api::<SecretStore>::namespaced(client, namespace),
                &key.name,
                &result,
            )
            .await
        }
        StoreKind::ClusterSecretStore => {
            write(
                &shared,
                Api::<ClusterSecretStore>::all(client),
                &key.name,
                &result,
            )
            .await
        }
    };
    if turned_ready {
        let dependents = shared.index().dependents(&key);
        shared.wake(dependents);
    }
    (key, Some(again))
}

/// Whether a store works, and what its owner should know although it does.
type Verdict = Result<Option<Notice>, Failure>;

async fn verdict(shared: &Shared, key: &StoreKey) -> Verdict {
    let malformed = shared.index().malformed_glob(key);
    if let Some((place, glob)) = malformed {
        return Err(Failure::new(
            Reason::ConfigInvalid,
            format!("{place}: \"{glob}\" is not a glob, and grants nothing"),
        ));
    }
    let context = key.to_string();
    let cx = Context {
        deadline: Some(std::time::Instant::now() + CHECK_DEADLINE),
        ..Context::default()
    };
    let provider = shared
        .provider(key)
        .await
        .map_err(|error| Failure::provider(&context, &error))?;
    provider
        .check(&cx)
        .await
        .map_err(|error| Failure::provider(&context, &error))?;
    Ok(match (provider.notice(), shared.events.trouble(key)) {
        (Some(notice), Some(trouble)) => Some(Notice {
            message: format!("{}; {trouble}", notice.message),
            ..notice
        }),
        (None, Some(message)) => Some(Notice {
            reason: "events",
            message,
        }),
        (notice, None) => notice,
    })
}

/// A store, as far as its status is concerned.
trait HasStatus {
    fn status(&self) -> Option<&StoreStatus>;
    fn generation(&self) -> i64;
}

impl HasStatus for SecretStore {
    fn status(&self) -> Option<&StoreStatus> {
        self.status.as_ref()
    }
    fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }
}

impl HasStatus for ClusterSecretStore {
    fn status(&self) -> Option<&StoreStatus> {
        self.status.as_ref()
    }
    fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }
}

/// Writes the status when it changed; answers whether the store was not ready before and is now.
async fn write<K>(shared: &Shared, api: Api<K>, name: &str, verdict: &Verdict) -> bool
where
    K: HasStatus + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let Ok(Ok(store)) = tokio::time::timeout(WRITE_TIMEOUT, api.get(name)).await else {
        return false;
    };
    let old = store.status().cloned().unwrap_or_default();
    let was_ready = old
        .conditions
        .iter()
        .any(|condition| condition.kind == ConditionType::Ready && condition.status == ConditionStatus::True);
    let known = !old.conditions.is_empty();
    let conditions = report::store_conditions(
        &old.conditions,
        verdict
            .as_ref()
            .map(|notice| notice.as_ref().map(|notice| notice.message.as_str())),
        store.generation(),
        shared.clock.now(),
    );
    let status = StoreStatus {
        observed_generation: Some(store.generation()),
        conditions,
    };
    if status != old {
        let params = PatchParams {
            field_manager: Some(annotation::MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({ "status": status }));
        let written = tokio::time::timeout(WRITE_TIMEOUT, api.patch_status(name, &params, &patch)).await;
        let outcome = if matches!(written, Ok(Ok(_))) {
            "ok"
        } else {
            "error"
        };
        shared.metrics.status.with_label_values(&[outcome]).inc();
    }
    known && !was_ready && verdict.is_ok()
}
