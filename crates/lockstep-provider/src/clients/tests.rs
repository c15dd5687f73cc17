use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _, future::join_all, stream::BoxStream};
use lockstep_api::StoreProvider;
use tokio::sync::mpsc;

use super::*;
use crate::{
    Ciphertext, Context, ErrorKind, EventSource, FindQuery, Locator, MemoryBackend, MemoryFactory, NoLeases,
    Notice, Operation, ProviderFactory, RemoteMeta, RemoteRef, RemoteSecret, SecretValue, Verbatim,
    layers::testing::{self, Measured, measured},
    testing::at,
};

#[derive(Debug)]
struct NoCredentials;

#[async_trait]
impl Credentials for NoCredentials {
    async fn secret(&self, _: &str, _: &str) -> Result<SecretValue, ProviderError> {
        Err(unasked())
    }
    async fn config_map(&self, _: &str, _: &str) -> Result<String, ProviderError> {
        Err(unasked())
    }
    async fn service_account_token(&self, _: &str, _: &str) -> Result<SecretValue, ProviderError> {
        Err(unasked())
    }

    async fn service_account_annotation(&self, _: &str, _: &str) -> Result<Option<String>, ProviderError> {
        Err(unasked())
    }
}

fn unasked() -> ProviderError {
    ProviderError::new(
        ErrorKind::Internal,
        Operation::Configure,
        "no credentials are needed",
    )
}

fn config() -> StoreConfig {
    let mut config = testing::config(lockstep_api::Limits::default());
    config.provider.file = Some(lockstep_api::file::FileProvider { path: String::new() });
    config
}

struct Setup {
    backend: MemoryBackend,
    factory: MemoryFactory,
    measured: Measured,
    clients: Clients,
}

fn setup() -> Setup {
    let backend = MemoryBackend::new();
    let factory = MemoryFactory::new("file").with(testing::key(), &backend);
    let measured = measured();
    let registry = Registry::default().with(factory.clone());
    let clients = Clients::new(registry, measured.metrics.clone(), 16);
    Setup {
        backend,
        factory,
        measured,
        clients,
    }
}

impl Setup {
    async fn get(&self, revision: &str) -> Result<Arc<dyn Provider>, ProviderError> {
        let credentials = Arc::new(NoCredentials);
        self.clients
            .get(&testing::key(), revision, &config(), credentials)
            .await
    }

    fn count(&self) -> i64 {
        self.measured.metrics.clients().get()
    }
}

#[tokio::test]
async fn concurrent_callers_share_one_client_build() {
    let setup = setup();
    let clients = join_all((0..100).map(|_| setup.get("1"))).await;
    assert!(clients.iter().all(Result::is_ok));
    assert_eq!((setup.factory.builds(), setup.count()), (1, 1));
}

#[tokio::test]
async fn client_decrypts_with_the_key_of_its_store() {
    let setup = setup();
    let place = crate::Binding::new(
        lockstep_api::CiphertextScope::Strict,
        "shop",
        "database",
        "password",
    );
    let ciphertext = MemoryBackend::encrypt(&"value".into(), &place);
    let client = setup.get("1").await.unwrap();
    let value = client.decrypt(&Context::default(), &ciphertext).await.unwrap();
    assert_eq!(value.expose_str(), Some("value"));
    assert_eq!(setup.backend.calls(Operation::Decrypt), 1);
}

#[tokio::test]
async fn client_passes_on_which_references_can_be_batched() {
    let backend = MemoryBackend::new().with_batch(20).with_only_current_in_batches();
    let factory = MemoryFactory::new("file").with(testing::key(), &backend);
    let registry = Registry::default().with(factory);
    let clients = Clients::new(registry, measured().metrics, 16);
    let credentials = Arc::new(NoCredentials);
    let client = clients
        .get(&testing::key(), "1", &config(), credentials)
        .await
        .unwrap();
    assert!(client.batches(&RemoteRef::current(at("key"))));
    assert!(!client.batches(&RemoteRef::version(at("key"), "1")));
}

#[tokio::test]
async fn new_revision_replaces_the_client() {
    let setup = setup();
    drop(setup.get("1").await.unwrap());
    let held = setup.get("2").await.unwrap();
    assert_eq!(setup.factory.builds(), 2);
    // the cache drops a replaced client asynchronously
    while setup.count() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(setup.count(), 1);
    setup.clients.drop_client(&testing::key()).await;
    assert_eq!(setup.count(), 1, "whoever holds it may end what is under way");
    drop(held);
    while setup.count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn failed_client_build_is_cached_for_a_second() {
    let setup = setup();
    setup.backend.fail_configure(2, ErrorKind::CredentialsUnavailable);
    for _ in 0..100 {
        let error = setup.get("1").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
    }
    assert_eq!(setup.factory.builds(), 1);
    tokio::time::advance(Duration::from_millis(1001)).await;
    assert!(setup.get("1").await.is_err());
    assert_eq!(setup.factory.builds(), 2);
    // other credentials are tried immediately
    assert!(setup.get("2").await.is_ok());
    assert_eq!(setup.factory.builds(), 3);
}

/// A backend whose clients report a change when the test triggers one.
#[derive(Debug, Clone, Default)]
struct Talkative(Arc<Mutex<Vec<mpsc::Sender<()>>>>);

#[derive(Debug)]
struct Voice(Arc<dyn Provider>, Mutex<Option<mpsc::Receiver<()>>>);

#[async_trait]
impl ProviderFactory for Talkative {
    fn name(&self) -> &'static str {
        "file"
    }

    fn locator(&self, _: &StoreProvider) -> Result<Arc<dyn Locator>, ProviderError> {
        Ok(Arc::new(Verbatim))
    }

    async fn build(
        &self,
        _: &StoreConfig,
        _: Arc<dyn Credentials>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        let (sender, receiver) = mpsc::channel(8);
        self.0.lock().push(sender);
        Ok(Arc::new(Voice(
            MemoryBackend::new().provider(),
            Mutex::new(Some(receiver)),
        )))
    }
}

#[async_trait]
impl Provider for Voice {
    fn capability(&self) -> Capability {
        self.0.capability()
    }
    async fn fetch(&self, cx: &Context, refs: &[RemoteRef]) -> Vec<Result<RemoteSecret, ProviderError>> {
        self.0.fetch(cx, refs).await
    }
    fn batches(&self, reference: &RemoteRef) -> bool {
        self.0.batches(reference)
    }
    async fn find(&self, cx: &Context, query: &FindQuery) -> Result<Vec<RemoteMeta>, ProviderError> {
        self.0.find(cx, query).await
    }
    async fn decrypt(&self, cx: &Context, ciphertext: &Ciphertext) -> Result<SecretValue, ProviderError> {
        self.0.decrypt(cx, ciphertext).await
    }
    async fn check(&self, cx: &Context) -> Result<(), ProviderError> {
        self.0.check(cx).await
    }
    fn notice(&self) -> Option<Notice> {
        self.0.notice()
    }
    fn events(&self) -> Option<Arc<dyn EventSource>> {
        self.0.events()
    }
    fn changes(&self) -> Option<BoxStream<'static, ()>> {
        let receiver = self.1.lock().take()?;
        Some(
            futures::stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|()| ((), receiver))
            })
            .boxed(),
        )
    }
}

impl NoLeases for Voice {}

#[tokio::test]
async fn changes_name_their_store_until_the_client_is_dropped() {
    let factory = Talkative::default();
    let senders = Arc::clone(&factory.0);
    let clients = Clients::new(Registry::default().with(factory), measured().metrics.clone(), 16);
    let mut changes = clients.changes();
    assert!(changes.next().now_or_never().is_none(), "nothing is watched yet");
    let (key, config) = (testing::key(), config());
    let get = async |revision: &str| {
        let client = clients.get(&key, revision, &config, Arc::new(NoCredentials));
        drop(client.await.unwrap());
    };
    let speak = async {
        get("1").await;
        let first = senders.lock()[0].clone();
        first.send(()).await.unwrap();
        first
    };
    let (told, first) = tokio::join!(changes.next(), speak);
    assert_eq!(told, Some(testing::key()), "a new client wakes who follows");

    get("2").await;
    for _ in 0..1000 {
        assert!(changes.next().now_or_never().is_none());
        // the cache runs its pending evictions when it is used
        clients.capability(&key).await;
        if first.is_closed() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(first.is_closed(), "the watch of the old client has ended");
    let second = senders.lock()[1].clone();
    second.send(()).await.unwrap();
    assert_eq!(changes.next().await, Some(testing::key()));

    clients.forget(&testing::key()).await;
    // the cache drops a client asynchronously
    for _ in 0..1000 {
        assert!(changes.next().now_or_never().is_none());
        clients.capability(&key).await;
        if second.is_closed() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the watch of a client that was forgotten goes on");
}
