//! Checks whether stores can be reached with their credentials, and writes their status.

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

use crate::{context::Shared, kube::request::WRITE_TIMEOUT};

/// Maximum number of concurrent checks. It is large because a store that hangs uses its slot for up
/// to half a minute, and a waiting check needs little memory.
const AT_ONCE: usize = 256;
/// Interval between checks of a ready store.
const RECHECK: Duration = Duration::from_secs(600);
const CHECK_DEADLINE: Duration = Duration::from_secs(30);

/// Checks stores when they or their credentials change, and periodically. A store that becomes
/// ready wakes its dependents. If a store changes during its check, the check is aborted and starts
/// again.
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
                // an aborted check is already due again
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

/// Listens to stores that report changes and wakes their dependents. A report is only a hint: the
/// next read finds out whether a value changed.
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
    let result = check_store(&shared, &key).await;
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

/// The result of a check: a working store, possibly with a notice for its owner, or the failure.
type Verdict = Result<Option<Notice>, Failure>;

async fn check_store(shared: &Shared, key: &StoreKey) -> Verdict {
    let malformed = shared.index().malformed_glob(key);
    if let Some((place, glob)) = malformed {
        return Err(Failure::new(
            Reason::ConfigInvalid,
            format!("{place}: \"{glob}\" is not a valid glob, so it grants nothing. Correct the pattern"),
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
    Ok(match (provider.notice(), shared.events.failure(key)) {
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

/// The status and generation of a store.
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

/// Writes the status if it changed. Returns whether the store became ready.
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
        shared.metrics.process.status.with_label_values(&[outcome]).inc();
    }
    known && !was_ready && verdict.is_ok()
}
