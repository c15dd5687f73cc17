//! Tests that two store identities share nothing: through [`Clients`] and every layer, the same key
//! of each is a separate request to a separate client with a separate result.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use lockstep_api::{CiphertextScope, Limits, StoreKind, StoreProvider};
use lockstep_provider::{
    Binding, Ciphertext, Clients, Context, EndpointPolicy, ErrorKind, FetchMetrics, FindQuery, MemoryBackend,
    MemoryFactory, Operation, Provider, ProviderError, Registry, RemoteRef, StoreConfig, StoreKey,
};
use lockstep_provider_testkit::at;

use crate::credentials::NoCredentials;

/// The key that exists in every store, with a different value in each.
const KEY: &str = "database";
/// Number of concurrent readers per store.
const CALLERS: u64 = 10;

/// A store identity with its own backend, which holds a value under [`KEY`].
struct Identity {
    store: StoreKey,
    revision: &'static str,
    value: String,
    backend: MemoryBackend,
}

/// Returns the identities under test: stores of the same name in two namespaces, a
/// ClusterSecretStore of that name, a store with another name, and one store with earlier
/// credentials.
fn identities(batch: usize) -> Vec<Identity> {
    let namespaced = |namespace: &str, name: &str| StoreKey {
        kind: StoreKind::SecretStore,
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    };
    let cluster = StoreKey {
        kind: StoreKind::ClusterSecretStore,
        namespace: None,
        name: "vault".to_owned(),
    };
    [
        (namespaced("shop", "vault"), "1"),
        (namespaced("bank", "vault"), "1"),
        (cluster, "1"),
        (namespaced("shop", "other"), "1"),
        (namespaced("shop", "vault"), "2"),
    ]
    .into_iter()
    .enumerate()
    .map(|(number, (store, revision))| {
        let (backend, value) = (
            MemoryBackend::new().with_batch(batch),
            format!("CANARY of identity {number}"),
        );
        backend.put(KEY, value.clone());
        backend.put(&format!("only-{number}"), "CANARY");
        Identity {
            store,
            revision,
            value,
            backend,
        }
    })
    .collect()
}

/// Builds one client for each identity from the same process-wide [`Clients`].
async fn clients_of(identities: &[Identity]) -> (MemoryFactory, Vec<Arc<dyn Provider>>) {
    let factory = MemoryFactory::new("file");
    let metrics = FetchMetrics::new(&prometheus::Registry::new()).unwrap();
    let clients = Clients::new(Registry::default().with(factory.clone()), metrics, 16);
    let mut made = Vec::new();
    for identity in identities {
        // each set of credentials has its own backend
        factory.insert(identity.store.clone(), &identity.backend);
        let config = StoreConfig {
            key: identity.store.clone(),
            provider: StoreProvider {
                file: Some(lockstep_api::file::FileProvider { path: String::new() }),
                ..StoreProvider::default()
            },
            limits: Limits::default(),
            events: None,
            endpoints: EndpointPolicy::default(),
        };
        let client = clients
            .get(
                &identity.store,
                identity.revision,
                &config,
                Arc::new(NoCredentials),
            )
            .await
            .unwrap();
        made.push(client);
    }
    (factory, made)
}

async fn read(client: &Arc<dyn Provider>) -> Result<String, ProviderError> {
    let answer = client
        .fetch(&Context::default(), &[RemoteRef::current(at(KEY))])
        .await
        .remove(0)?;
    Ok(answer.value.expose_str().unwrap_or_default().to_owned())
}

#[tokio::test(start_paused = true)]
async fn identities_never_share_clients_results_or_requests() {
    for batch in [1, 20] {
        let identities = identities(batch);
        let (factory, clients) = clients_of(&identities).await;
        assert_eq!(
            factory.builds(),
            identities.len() as u64,
            "each has its own client"
        );

        // No backend responds until all of them have requests, so that everything that could be
        // joined is in flight at the same time.
        for identity in &identities {
            identity.backend.set_hung(true);
        }
        let reads = clients
            .iter()
            .flat_map(|client| (0..CALLERS).map(move |_| read(client)));
        let mut reads = Box::pin(join_all(reads));
        tokio::time::timeout(Duration::from_secs(1), &mut reads)
            .await
            .expect_err("every backend hangs");
        for identity in &identities {
            assert_eq!(
                identity.backend.calls(Operation::Read),
                1,
                "{} at revision {}: one request for its own callers",
                identity.store.label(),
                identity.revision
            );
        }
        for identity in &identities {
            identity.backend.set_hung(false);
        }
        let answers = reads.await;
        let expected = identities
            .iter()
            .flat_map(|identity| (0..CALLERS).map(|_| Ok(identity.value.clone())));
        for (answer, expected) in answers.into_iter().zip(expected) {
            assert_eq!(answer, expected, "batches of {batch}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn identities_never_share_a_search() {
    let identities = identities(20);
    let (_, clients) = clients_of(&identities).await;
    for identity in &identities {
        identity.backend.set_latency(Duration::from_millis(100));
    }
    let query = FindQuery::default();
    let found = join_all(
        clients
            .iter()
            .map(|client| async { client.find(&Context::default(), &query).await }),
    )
    .await;
    for (number, (found, identity)) in found.into_iter().zip(&identities).enumerate() {
        let keys: Vec<_> = found
            .unwrap()
            .into_iter()
            .map(|meta| meta.key.to_string())
            .collect();
        assert_eq!(keys, [KEY.to_owned(), format!("only-{number}")]);
        assert_eq!(identity.backend.calls(Operation::Find), 1);
    }
}

/// The same ciphertext in two namespaces is decrypted with each store's own key and credentials.
#[tokio::test(start_paused = true)]
async fn identities_never_share_a_decryption() {
    let identities = identities(20);
    let (_, clients) = clients_of(&identities).await;
    let binding = Binding::new(CiphertextScope::Cluster, "shop", "database", "password");
    let ciphertext = Ciphertext {
        bytes: [binding.to_bytes().as_slice(), b"CANARY"].concat(),
        binding,
    };
    for identity in &identities {
        identity.backend.set_hung(true);
    }
    let decrypt = |client: &Arc<dyn Provider>| {
        let (client, ciphertext) = (Arc::clone(client), ciphertext.clone());
        async move { client.decrypt(&Context::default(), &ciphertext).await }
    };
    let all = clients
        .iter()
        .flat_map(|client| (0..CALLERS).map(move |_| client));
    let mut all = Box::pin(join_all(all.map(decrypt)));
    tokio::time::timeout(Duration::from_secs(1), &mut all)
        .await
        .expect_err("every backend hangs");
    for identity in &identities {
        assert_eq!(identity.backend.calls(Operation::Decrypt), 1);
    }
    // a rejection of one does not affect the others
    identities[1]
        .backend
        .fail_next(1000, ErrorKind::PermissionDenied, None);
    for identity in &identities {
        identity.backend.set_hung(false);
    }
    all.await;
    for (number, client) in clients.iter().enumerate() {
        let answer = decrypt(client).await;
        assert_eq!(answer.is_ok(), number != 1, "identity {number}: {answer:?}");
    }
}

/// Rejections are results too: neither an identity's errors nor the state of its store affect
/// another.
#[tokio::test(start_paused = true)]
async fn failures_do_not_affect_other_identities() {
    for kind in [
        ErrorKind::PermissionDenied,
        ErrorKind::RateLimited,
        ErrorKind::Unauthenticated,
        ErrorKind::Unavailable,
    ] {
        let identities = identities(20);
        let (_, clients) = clients_of(&identities).await;
        let (refused, others) = identities.split_first().unwrap();
        let hold = (kind == ErrorKind::RateLimited).then(|| Duration::from_secs(600));
        refused.backend.fail_next(1000, kind, hold);
        // often enough to break the circuit for the kinds that do
        for _ in 0..5 {
            assert_eq!(read(&clients[0]).await.unwrap_err().kind, kind);
        }
        let begun = tokio::time::Instant::now();
        for (client, identity) in clients[1..].iter().zip(others) {
            assert_eq!(
                read(client).await.as_ref(),
                Ok(&identity.value),
                "{}",
                kind.label()
            );
        }
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{}: the others wait for nothing",
            kind.label()
        );
    }
}

/// A denied identity gets its error even while another identity reads the same key.
#[tokio::test(start_paused = true)]
async fn denied_identity_gets_no_value_during_another_read() {
    for batch in [1, 20] {
        let identities = identities(batch);
        let (_, clients) = clients_of(&identities).await;
        for identity in &identities {
            identity.backend.set_latency(Duration::from_millis(100));
        }
        identities[1].backend.set_denied(KEY, true);
        let answers = join_all(clients.iter().map(read)).await;
        for (number, (answer, identity)) in answers.into_iter().zip(&identities).enumerate() {
            match answer {
                Ok(value) => assert_eq!(value, identity.value),
                Err(error) => assert_eq!((number, error.kind), (1, ErrorKind::PermissionDenied)),
            }
            assert_eq!(identity.backend.calls(Operation::Read), 1);
        }
    }
}

/// A request with a revoked credential may go on, but requests with the new credential do not wait
/// for it.
#[tokio::test(start_paused = true)]
async fn new_credentials_do_not_join_requests_of_old_ones() {
    let identities = identities(20);
    let (_, clients) = clients_of(&identities).await;
    // the same store before and after its credentials changed
    let (old, new) = (&identities[0], &identities[4]);
    assert_eq!(old.store, new.store);
    old.backend.set_hung(true);
    let mut in_flight = Box::pin(read(&clients[0]));
    tokio::time::timeout(Duration::from_secs(1), &mut in_flight)
        .await
        .expect_err("the old credentials' request hangs");
    assert_eq!(old.backend.calls(Operation::Read), 1);
    assert_eq!(read(&clients[4]).await.as_ref(), Ok(&new.value));
    assert_eq!(new.backend.calls(Operation::Read), 1);
    old.backend.set_hung(false);
    assert_eq!(in_flight.await.as_ref(), Ok(&old.value));
}
