//! The stage that reads: every read of a plan, and every result of its searches.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use lockstep_api::StoreRef;
use lockstep_core::{
    collect::Fetched,
    plan::{Decryption, Plan, Read, Search},
    remote::{RemoteRef, SecretValue},
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
/// Ciphertexts of one SyncedSecret that are decrypted at the same time.
const CIPHERTEXTS_AT_ONCE: usize = 16;

/// Decrypts every ciphertext that the plan names; each has an answer, by its entry of `data`.
pub async fn decrypt(
    plan: &Plan,
    stores: &dyn Stores,
    cx: &Context,
) -> BTreeMap<usize, Result<SecretValue, ProviderError>> {
    stream::iter(plan.decryptions.clone())
        .map(|decryption| decrypt_one(decryption, stores, cx))
        .buffer_unordered(CIPHERTEXTS_AT_ONCE)
        .collect()
        .await
}

async fn decrypt_one(
    decryption: Decryption,
    stores: &dyn Stores,
    cx: &Context,
) -> (usize, Result<SecretValue, ProviderError>) {
    (decryption.entry, decrypted(&decryption, stores, cx).await)
}

async fn decrypted(
    decryption: &Decryption,
    stores: &dyn Stores,
    cx: &Context,
) -> Result<SecretValue, ProviderError> {
    let failed = |message: String| ProviderError::new(ErrorKind::Undecryptable, Operation::Decrypt, message);
    let provider = stores.provider(&decryption.store).await?;
    let (own, other) = (provider.capability().name, decryption.kms());
    if own != other {
        return Err(failed(format!(
            "the ciphertext was sealed with a key of provider \"{}\", and this store is of provider \"{own}\"",
            other.escape_debug()
        )));
    }
    let decrypted = provider.decrypt(cx, &decryption.ciphertext).await?;
    decryption
        .open(&decrypted)
        .map_err(|error| failed(format!("the ciphertext {error}")))
}

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
                // the provider was told the scope, and the grant is checked all the same
                .filter(|location| search.grant.allows(location))
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
