//! A stand-in for Google Cloud on loopback: Secret Manager, Cloud KMS, a Pub/Sub subscription and
//! the token services, as far as a reader of values uses them.
//!
//! # What it enforces, and the sources
//!
//! - Secret Manager v1, global and regional (the REST reference at
//!   `cloud.google.com/secret-manager/docs/reference/rest`, the pages "Filter lists of secrets" and
//!   "Quotas"): names in responses contain the project number, `latest` is the newest version in
//!   any state, a disabled or destroyed version is `FAILED_PRECONDITION`, a payload has at most 64
//!   KiB and must match its CRC32C, lists are newest first and in pages, and `totalSize` is 0 with
//!   a filter.
//! - Cloud KMS v1 (`cloud.google.com/kms/docs/reference/rest`): it really encrypts. Plaintext and
//!   additional authenticated data have at most 64 KiB each, checksums are verified and returned,
//!   and the state of a ciphertext's key version is enforced.
//! - Errors (`cloud.google.com/apis/design/errors`):
//!   `{"error":{"code","message","status","details"}}` with `ErrorInfo`.
//! - Tokens: a service account's JWT, exchanged (RFC 7523) or sent as it is
//!   (`google.aip.dev/auth/4111`), with its signature, issuer, audience, scope and times verified;
//!   Workload Identity Federation of GKE and of other clusters (RFC 8693,
//!   `google.aip.dev/auth/4117`) with the audiences of both; impersonation; the metadata server.
//! - Everyone with a token may do everything, unless a test denies it. Denials accept the name of a
//!   method (`AccessSecretVersion`) or of a permission (`secretmanager.versions.access`).
//!
//! It defines what Google's pages leave open: `name:PART` matches a part of the full name, a
//! missing alias is `NOT_FOUND`, another project is `PERMISSION_DENIED`, a revoked token is
//! `ACCESS_TOKEN_EXPIRED`, and an update with an old etag is `FAILED_PRECONDITION`. A reader must
//! not rely on these.
//!
//! `tests/gcp.rs` shows that it is not tuned to our client: Google's own Python clients pass
//! against it.
//!
//! # How a provider uses it
//!
//! [`Gcp::address`] replaces `https://secretmanager.googleapis.com`,
//! `https://cloudkms.googleapis.com`, `https://sts.googleapis.com`,
//! `https://iamcredentials.googleapis.com` and `http://metadata.google.internal`
//! (`GCE_METADATA_HOST` is [`Gcp::host`]). The `token_uri` of [`Gcp::service_account_key`] already
//! points to it.
//!
//! Every error text that it sends contains `CANARY`: a reader must not show any of them.

#![expect(
    clippy::disallowed_methods,
    reason = "it stands for a server elsewhere, which has a clock and tasks of its own"
)]

mod access;
mod answers;
mod checksum;
mod filter;
mod kms;
mod metadata;
mod pubsub;
mod route;
mod secret_manager;
mod secrets;
mod service_account;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, Uri},
    response::Response,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use self::{
    access::Rights,
    answers::Refusal,
    kms::KmsKey,
    route::{Action, Asked, Service},
    secrets::Secret,
    service_account::Account,
    tokens::Token,
};
pub use self::{
    kms::KeyState,
    pubsub::SUBSCRIPTION,
    secrets::VersionState,
    tokens::{gke_principal, principal},
};
use crate::http;

/// The project of all resources.
pub const PROJECT: &str = "lockstep-test";
/// The number of the project, which names in Secret Manager's responses contain.
pub const PROJECT_NUMBER: &str = "123456789012";
/// The location of the KMS keys.
pub const LOCATION: &str = "europe-west3";
/// The key ring of the KMS keys.
pub const KEY_RING: &str = "lockstep";
/// The service account that exists from the start.
pub const SERVICE_ACCOUNT: &str = "lockstep@lockstep-test.iam.gserviceaccount.com";
/// The service account whose tokens the metadata server returns.
pub const NODE: &str = "node@lockstep-test.iam.gserviceaccount.com";

/// The provider of a workload identity pool that trusts the cluster: the audience of Workload
/// Identity Federation.
pub const WORKLOAD_IDENTITY_PROVIDER: &str = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/lockstep/providers/cluster";
/// The pool of GKE's own federation, which is the audience of a ServiceAccount's token there.
pub const GKE_POOL: &str = "lockstep-test.svc.id.goog";
/// The cluster in that pool. The audience of an exchange is `identitynamespace:POOL:CLUSTER`.
pub const GKE_CLUSTER: &str =
    "https://container.googleapis.com/v1/projects/lockstep-test/locations/europe-west3/clusters/test";

/// A fault of the next calls of Secret Manager and KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The next `left` calls are throttled, optionally with a retry delay.
    Throttled {
        /// The number of calls.
        left: usize,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// Every second call is throttled.
    EverySecond,
    /// An error in HTML, as a gateway sends it.
    Html {
        /// The status of the response.
        status: u16,
    },
    /// The service reports that it is unavailable.
    Broken,
    /// The response is truncated.
    Cut,
    /// The checksum in a response does not match its data.
    WrongChecksum,
    /// A response lacks its data.
    NoPayload,
}

/// A call that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The name of the method, such as `AccessSecretVersion`; `ExchangeJwt`, `ExchangeToken`,
    /// `GenerateAccessToken` and `MetadataToken` for tokens.
    pub action: String,
    /// The caller: the email of a service account or a `principal://…`; `None` if the token was
    /// invalid.
    pub identity: Option<String>,
    /// The resource below the project: `secrets/NAME/versions/latest`.
    pub resource: String,
    /// The query parameters.
    pub query: BTreeMap<String, String>,
    /// The body of the request.
    pub body: String,
}

#[derive(Debug, Default)]
struct World {
    address: String,
    secrets: BTreeMap<String, Secret>,
    kms_keys: BTreeMap<String, KmsKey>,
    subscription: pubsub::Subscription,
    /// Service accounts by their email.
    accounts: BTreeMap<String, Account>,
    tokens: BTreeMap<String, Token>,
    /// JWTs that were sent as they are. `revoke_all` moves them to `revoked`.
    self_signed: BTreeSet<String>,
    revoked: BTreeSet<String>,
    /// Subjects of tokens that may be exchanged.
    subjects: BTreeSet<String>,
    /// Pairs of an identity and a service account that it may impersonate.
    impersonators: BTreeSet<(String, String)>,
    rights: Rights,
    trouble: Option<Trouble>,
    token_trouble: Option<Trouble>,
    latency: Duration,
    calls: Vec<Call>,
    /// The number of calls for values, and the names in them.
    reads: (u64, BTreeSet<String>),
    count: u64,
    /// The lifetime of tokens.
    lifetime: Option<Duration>,
    /// The number of entries on one page of a list.
    page: Option<usize>,
}

/// A running stand-in. Dropping it stops the server.
#[derive(Debug)]
pub struct Gcp {
    address: SocketAddr,
    world: Shared,
    _server: http::Serving,
}

type Shared = Arc<Mutex<World>>;

impl Gcp {
    /// Starts a stand-in with [`SERVICE_ACCOUNT`] and [`NODE`], which may do everything.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start() -> Result<Self> {
        Self::start_on(0).await
    }

    /// Starts a stand-in on this loopback port.
    ///
    /// # Errors
    /// As [`Gcp::start`].
    pub async fn start_on(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("listen")?;
        let address = listener.local_addr().context("ask for the port")?;
        let world = Shared::default();
        world.lock().address = format!("http://{address}");
        for account in [SERVICE_ACCOUNT, NODE] {
            world
                .lock()
                .accounts
                .insert(account.to_owned(), Account::default());
        }
        let router = Router::new().fallback(serve).with_state(Arc::clone(&world));
        Ok(Self {
            address,
            world,
            _server: http::serve(listener, router),
        })
    }

    /// Returns its address, for every endpoint.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns its address without `http://`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Sets the fault of further calls of Secret Manager and KMS. `None` ends it.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        self.world.lock().trouble = trouble;
    }

    /// Sets the fault of further calls for tokens. `None` ends it.
    pub fn token_trouble(&self, trouble: Option<Trouble>) {
        self.world.lock().token_trouble = trouble;
    }

    /// Delays all further responses.
    pub fn latency(&self, latency: Duration) {
        self.world.lock().latency = latency;
    }

    /// Sets the lifetime of new tokens.
    pub fn lifetime(&self, lifetime: Duration) {
        self.world.lock().lifetime = Some(lifetime);
    }

    /// Limits the number of entries on one page of a list.
    pub fn page(&self, page: usize) {
        self.world.lock().page = Some(page);
    }

    /// Returns the calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.world.lock().calls.clone()
    }

    /// Returns the number of calls of this action, such as `AccessSecretVersion`.
    pub fn count(&self, action: &str) -> usize {
        self.world
            .lock()
            .calls
            .iter()
            .filter(|call| call.action == action)
            .count()
    }

    /// Returns the number of calls of this action by this identity.
    pub fn count_of(&self, identity: &str, action: &str) -> usize {
        self.world
            .lock()
            .calls
            .iter()
            .filter(|call| call.action == action && call.identity.as_deref() == Some(identity))
            .count()
    }

    /// Returns the number of calls for values so far, and of different versions in them.
    pub fn reads(&self) -> (u64, usize) {
        let world = self.world.lock();
        (world.reads.0, world.reads.1.len())
    }

    /// Clears the recorded calls.
    pub fn forget_calls(&self) {
        self.world.lock().calls.clear();
    }
}

impl World {
    /// Returns a new number.
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Records a call.
    fn note_call(&mut self, action: &str, identity: Option<String>, asked: &Asked, resource: &str) {
        self.calls.push(Call {
            action: action.to_owned(),
            identity,
            resource: resource.to_owned(),
            query: asked.query.clone(),
            body: asked.body.clone(),
        });
        if action == Action::ACCESS.name {
            self.reads.0 += 1;
            self.reads.1.insert(resource.to_owned());
        }
    }
}

/// Returns the current time as the services write it.
fn now() -> String {
    Timestamp::try_from(SystemTime::now())
        .unwrap_or_default()
        .to_string()
}

/// Returns the path below the project of a name in a test: a secret's id, or everything after the
/// project.
fn below_project(name: &str) -> String {
    if !name.contains('/') {
        return format!("secrets/{name}");
    }
    [PROJECT, PROJECT_NUMBER]
        .into_iter()
        .find_map(|project| name.strip_prefix(&format!("projects/{project}/")))
        .unwrap_or(name)
        .to_owned()
}

async fn serve(
    State(world): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asked = Asked::new(method, &uri, &body);
    let latency = world.lock().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if asked.verb.as_deref() == Some("pull") {
        pubsub::wait(&world).await;
    }
    let world = &mut world.lock();
    if let Some(answer) = metadata::call(world, &asked, &headers) {
        return answer;
    }
    if let Some(answer) = tokens::call(world, &asked, &headers) {
        return answer;
    }
    match route::find(&asked) {
        Some((action, resource)) => api_call(world, &asked, &headers, action, &resource),
        None => answers::no_such_page(),
    }
}

fn api_call(
    world: &mut World,
    asked: &Asked,
    headers: &HeaderMap,
    action: &'static Action,
    resource: &route::Resource,
) -> Response {
    let identity = tokens::bearer(world, headers, action);
    world.note_call(
        action.name,
        identity.as_ref().ok().cloned(),
        asked,
        &resource.path(),
    );
    let calls = world.calls.len();
    if let Some(answer) = answers::in_trouble(world.trouble.as_mut(), calls) {
        return answer;
    }
    let outcome = identity.and_then(|identity| {
        if !resource.is_ours() || world.rights.deny(&identity, action, &resource.holder()) {
            return Err(Refusal::denied(action.permission, &resource.path()));
        }
        match action.service {
            Service::SecretManager => secret_manager::call(world, action, resource, asked),
            Service::Kms => kms::call(world, action, resource, asked),
            Service::PubSub => pubsub::call(world, action, resource, asked),
        }
    });
    answers::answered(world.trouble.as_ref(), asked, outcome)
}
