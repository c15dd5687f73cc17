//! The stage that reads: every read of a plan, and every result of its searches.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use lockstep_api::StoreRef;
use lockstep_core::{
    collect::Fetched,
    plan::{Plan, Read, Search},
    remote::RemoteRef,
};
use lockstep_provider::{Context, ErrorKind, Operation, Provider, ProviderError};

/// Where the clients of stores come from: a cluster in the operator, a folder in `lockstep render`.
#[async_trait]
pub trait Stores: Sync {
    /// The client of a store.
    ///
    /// # Errors
    /// What keeps the store from being asked at all.
    async fn provider(&self, store: &StoreRef) -> Result<Arc<dyn Provider>, ProviderError>;
}

/// Stores that one SyncedSecret reads from at the same time.
const STORES_AT_ONCE: usize = 8;

/// Reads everything that the plan names. Each read has an answer, also where the provider left one out.
pub async fn fetch(plan: &Plan, stores: &dyn Stores, cx: &Context) -> Fetched {
    let mut by_store: BTreeMap<StoreRef, (Vec<RemoteRef>, Vec<Search>)> = BTreeMap::new();
    for read in &plan.reads {
        by_store
            .entry(read.store.clone())
            .or_default()
            .0
            .push(read.reference.clone());
    }
    for search in &plan.searches {
        by_store
            .entry(search.store.clone())
            .or_default()
            .1
            .push(search.clone());
    }
    let mut answers = stream::iter(by_store)
        .map(|(store, (refs, searches))| fetch_store(store, refs, searches, stores, cx))
        .buffer_unordered(STORES_AT_ONCE);
    let mut all = Fetched::default();
    while let Some(one) = answers.next().await {
        all.reads.extend(one.reads);
        all.found.extend(one.found);
    }
    all
}

async fn fetch_store(
    store: StoreRef,
    mut refs: Vec<RemoteRef>,
    searches: Vec<Search>,
    stores: &dyn Stores,
    cx: &Context,
) -> Fetched {
    let mut fetched = Fetched::default();
    let provider = match stores.provider(&store).await {
        Ok(provider) => provider,
        Err(error) => {
            fetched.reads.extend(
                refs.into_iter()
                    .map(|reference| (read(&store, reference), Err(error.clone()))),
            );
            fetched.found.extend(
                searches
                    .into_iter()
                    .map(|search| (search.entry, Err(error.clone()))),
            );
            return fetched;
        }
    };
    for search in searches {
        let found = provider.find(cx, &search.query).await.map(|found| {
            let mut keys: Vec<_> = found
                .into_iter()
                .map(|meta| meta.key)
                .filter(|key| search.grant.allows(key))
                .collect();
            keys.sort();
            keys.dedup();
            keys
        });
        if let Ok(keys) = &found {
            refs.extend(keys.iter().cloned().map(RemoteRef::current));
        }
        fetched.found.insert(search.entry, found);
    }
    refs.sort();
    refs.dedup();
    if refs.is_empty() {
        return fetched;
    }
    let answers = provider.fetch(cx, &refs).await;
    let missing = std::iter::repeat_with(|| {
        Err(ProviderError::new(
            ErrorKind::Malformed,
            Operation::Read,
            "the answer left out some of the keys",
        ))
    });
    fetched.reads.extend(
        refs.into_iter()
            .map(|reference| read(&store, reference))
            .zip(answers.into_iter().chain(missing)),
    );
    fetched
}

fn read(store: &StoreRef, reference: RemoteRef) -> Read {
    Read {
        store: store.clone(),
        reference,
    }
}
