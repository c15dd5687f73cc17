//! A stand-in for AWS on loopback: Secrets Manager, Parameter Store, KMS, a queue of SQS and the token service, as far as a
//! reader of values sees them.
//!
//! It enforces what moto, the usual emulator, does not: signatures, 20 ids and 10 names in one call, pages, rights, tokens that
//! end, throttling; and it can be slow, broken and a liar. Values come from a test: one that the service would not store
//! (64 KiB in Secrets Manager, 8 KiB in Parameter Store) fails the test, unless the test says that it wants a lie. What it answers follows AWS' API
//! references of Secrets Manager, Systems Manager and STS; that it does is shown by the provider's behaviour suite, which
//! passes against it and against moto.
//!
//! Every text of an error that it sends contains `CANARY`: a reader may show none of them. The text of a secret that is marked
//! for deletion is the exception: a reader compares it as a whole.

#![expect(
    clippy::disallowed_methods,
    reason = "it stands for a server elsewhere, which has a clock and tasks of its own"
)]

mod kms;
mod parameter_store;
mod secrets_manager;
mod signature;
mod sqs;
mod sts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

pub use self::kms::KeyState;
use self::signature::{Authorization, Signed};
pub(crate) use self::{kms::KmsKey, parameter_store::Parameter, secrets_manager::Secret};

/// The account that everything belongs to.
pub const ACCOUNT: &str = "123456789012";
/// The region that it serves.
pub const REGION: &str = "eu-central-1";
/// The access key that is there from the start.
pub const ACCESS_KEY_ID: &str = "AKIALOCKSTEPTEST0001";
/// Its secret.
pub const SECRET_ACCESS_KEY: &str = "CANARY-secret-access-key";

/// The audience of tokens that it exchanges.
pub const AUDIENCE: &str = "sts.amazonaws.com";

/// What happens to the next calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// They are throttled, `left` of them, with the time to come back if there is one.
    Throttled {
        /// How many.
        left: usize,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// Every second call is throttled.
    EverySecond,
    /// An error in XML, as what stands before a service sends it.
    Xml {
        /// The status.
        status: u16,
        /// The code.
        code: &'static str,
    },
    /// The service says that it cannot serve.
    Broken,
    /// The answer breaks off in the middle.
    Cut,
    /// The answer to a batch leaves out every second id.
    Partial,
    /// Secrets Manager knows no batches, as older emulators and endpoints.
    NoBatches,
}

/// Who a session token belongs to, and until when.
#[derive(Debug, Clone, Default)]
struct Key {
    /// What it must sign with; `None` where any secret is good.
    secret: Option<String>,
    token: Option<String>,
    /// The role, where it was assumed.
    role: Option<String>,
    tags: BTreeMap<String, String>,
    ends: Option<Instant>,
}

/// A call that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Such as `GetSecretValue`.
    pub action: String,
    /// The access key id that signed it; `None` where none did.
    pub key: Option<String>,
    /// The role of that key.
    pub role: Option<String>,
    /// The tags of that key's session.
    pub tags: BTreeMap<String, String>,
    /// What was asked for.
    pub body: String,
}

#[derive(Debug, Default)]
struct World {
    secrets: BTreeMap<String, Secret>,
    parameters: BTreeMap<String, Parameter>,
    kms_keys: BTreeMap<String, KmsKey>,
    queue: sqs::Queue,
    keys: BTreeMap<String, Key>,
    /// ServiceAccount tokens that may be exchanged, and for which role.
    web: BTreeMap<String, String>,
    /// Subjects of tokens that may be exchanged, and for which role.
    subjects: BTreeMap<String, String>,
    external_ids: BTreeMap<String, String>,
    denied_names: BTreeSet<String>,
    /// Ids of secrets that are not taken, alone or with others.
    refused_ids: BTreeSet<String>,
    denied_actions: BTreeSet<String>,
    /// Where it is set, all other actions are denied, but for those of the token service.
    allowed_actions: Option<BTreeSet<String>>,
    /// Actions that one access key may not do.
    denied_to_key: BTreeSet<(String, String)>,
    trouble: Option<Trouble>,
    latency: Duration,
    /// Calls that are not answered yet, and the most that ever were.
    in_flight: (usize, usize),
    calls: Vec<Call>,
    /// Calls that ask for values, and the names in them.
    reads: (u64, BTreeSet<String>),
    count: u64,
    /// How long sessions live.
    lifetime: Option<Duration>,
    /// How many values one page of a batch holds.
    page: Option<usize>,
}

/// A running stand-in. It ends with this value.
#[derive(Debug)]
pub struct Aws {
    address: SocketAddr,
    world: Shared,
    task: AbortHandle,
}

type Shared = Arc<Mutex<World>>;

impl Drop for Aws {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Aws {
    /// Starts one that knows one access key, which may do everything.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let address = listener.local_addr().context("ask for the port")?;
        let world = Shared::default();
        let key = Key {
            secret: Some(SECRET_ACCESS_KEY.to_owned()),
            ..Key::default()
        };
        lock(&world).keys.insert(ACCESS_KEY_ID.to_owned(), key);
        let router = Router::new().fallback(serve).with_state(Arc::clone(&world));
        let task = tokio::spawn(async move {
            // An error ends the test's requests, which says enough.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            world,
            task: task.abort_handle(),
        })
    }

    /// Its address, for `endpoint` and `stsEndpoint`.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on calls have this trouble; `None` ends it.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        lock(&self.world).trouble = trouble;
    }

    /// From now on every answer takes so long.
    pub fn latency(&self, latency: Duration) {
        lock(&self.world).latency = latency;
    }

    /// From now on sessions live for so long.
    pub fn lifetime(&self, lifetime: Duration) {
        lock(&self.world).lifetime = Some(lifetime);
    }

    /// From now on one page of a batch holds at most so many values.
    pub fn page(&self, page: usize) {
        lock(&self.world).page = Some(page);
    }

    /// From now on nobody may read this name.
    pub fn deny_name(&self, name: &str) {
        lock(&self.world).denied_names.insert(name.to_owned());
    }

    /// From now on Secrets Manager does not take this id, nor a batch that holds it.
    pub fn refuse_id(&self, id: &str) {
        lock(&self.world).refused_ids.insert(id.to_owned());
    }

    /// From now on nobody may do this, such as `BatchGetSecretValue`.
    pub fn deny_action(&self, action: &str) {
        lock(&self.world).denied_actions.insert(action.to_owned());
    }

    /// From now on nobody may do anything but this, and log in.
    pub fn allow_only(&self, actions: &[&str]) {
        let actions = actions.iter().map(ToString::to_string).collect();
        lock(&self.world).allowed_actions = Some(actions);
    }

    /// From now on the owner of this access key may not do this.
    pub fn deny_action_to(&self, key: &str, action: &str) {
        let denied = (key.to_owned(), action.to_owned());
        lock(&self.world).denied_to_key.insert(denied);
    }

    /// From now on everybody may do this again.
    pub fn allow_action(&self, action: &str) {
        lock(&self.world).denied_actions.remove(action);
    }

    /// Adds an access key, whose owner may sign with any secret.
    pub fn add_key(&self, id: &str) {
        lock(&self.world).keys.insert(id.to_owned(), Key::default());
    }

    /// Forgets every session and every access key: what is signed with them is refused.
    pub fn revoke_all(&self) {
        lock(&self.world).keys.clear();
    }

    /// A ServiceAccount's token that may be exchanged for a role.
    pub fn trust(&self, token: &str, role: &str) {
        lock(&self.world).web.insert(token.to_owned(), role.to_owned());
    }

    /// A ServiceAccount, `system:serviceaccount:NAMESPACE:NAME`, whose tokens may be exchanged for a role. Their
    /// signatures are not checked.
    pub fn trust_subject(&self, subject: &str, role: &str) {
        lock(&self.world)
            .subjects
            .insert(subject.to_owned(), role.to_owned());
    }

    /// From now on this role can be assumed only with this external id.
    pub fn require_external_id(&self, role: &str, id: &str) {
        lock(&self.world)
            .external_ids
            .insert(role.to_owned(), id.to_owned());
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.world).calls.clone()
    }

    /// How often this was called.
    pub fn count(&self, action: &str) -> usize {
        lock(&self.world)
            .calls
            .iter()
            .filter(|call| call.action == action)
            .count()
    }

    /// How many calls asked for values so far, and for how many different names.
    pub fn reads(&self) -> (u64, usize) {
        let world = lock(&self.world);
        (world.reads.0, world.reads.1.len())
    }

    /// The most calls that were ever in flight at once.
    pub fn most_in_flight(&self) -> usize {
        lock(&self.world).in_flight.1
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        lock(&self.world).calls.clear();
    }
}

fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Notes a call that arrived, signed with that key.
    fn note_call(&mut self, action: &str, signed: Option<(String, Key)>, text: &str) {
        let (key, session) = signed.unzip();
        let session = session.unwrap_or_default();
        self.calls.push(Call {
            action: action.to_owned(),
            key,
            role: session.role,
            tags: session.tags,
            body: text.to_owned(),
        });
    }

    /// Notes a call that asks for values.
    fn note_reads(&mut self, action: &str, text: &str) {
        let list = match action {
            "GetSecretValue" => "SecretId",
            "BatchGetSecretValue" => "SecretIdList",
            "GetParameters" => "Names",
            _ => return,
        };
        let request: Value = serde_json::from_str(text).unwrap_or_default();
        self.reads.0 += 1;
        self.reads.1.extend(strings(&request[list]));
        self.reads.1.extend(request[list].as_str().map(str::to_owned));
    }

    /// Whether the owner of an access key may not do this.
    fn denies(&self, key: &str, action: &str) -> bool {
        // one right is for one message and for ten
        let action = if action == "DeleteMessageBatch" {
            "DeleteMessage"
        } else {
            action
        };
        let allowed = self.allowed_actions.as_ref();
        self.denied_actions.contains(action)
            || allowed.is_some_and(|allowed| !allowed.contains(action))
            || self.denied_to_key.contains(&(key.to_owned(), action.to_owned()))
    }

    /// A number that was not given before.
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}

/// An answer that is not the one that was hoped for.
struct Refusal {
    code: &'static str,
    text: String,
}

impl Refusal {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    fn status(&self) -> StatusCode {
        match self.code {
            "InternalServiceError" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Seconds, as the services write times.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A call in flight, until dropped.
struct InFlight<'a>(&'a Shared);

impl<'a> InFlight<'a> {
    fn new(shared: &'a Shared) -> Self {
        let (now, most) = &mut lock(shared).in_flight;
        *now += 1;
        *most = (*now).max(*most);
        Self(shared)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(self.0).in_flight.0 -= 1;
    }
}

async fn serve(
    State(world): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = String::from_utf8_lossy(&body).into_owned();
    let target = headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .map(str::to_owned);
    let _in_flight = InFlight::new(&world);
    let latency = lock(&world).latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let signed = Signed {
        method: &method,
        uri: &uri,
        headers: &headers,
        body: &body,
    };
    if target.as_deref() == Some("AmazonSQS.ReceiveMessage") {
        sqs::wait(&world, &text).await;
    }
    match target {
        Some(target) => json_call(&world, &signed, &target, &text),
        None => sts::call(&world, &signed, &text),
    }
}

/// Why a signature is not taken, in the words of the services that speak JSON.
#[derive(Debug, Clone, Copy)]
enum Unsigned {
    Incomplete,
    UnknownKey,
    Expired,
    WrongSignature,
}

impl Unsigned {
    fn refusal(self) -> Refusal {
        Refusal::new(
            match self {
                Self::Incomplete => "IncompleteSignatureException",
                Self::UnknownKey => "UnrecognizedClientException",
                Self::Expired => "ExpiredTokenException",
                Self::WrongSignature => "InvalidSignatureException",
            },
            "the signature or token CANARY is not valid",
        )
    }
}

/// The access key that signed a request, if it is a good one.
fn signer(world: &World, signed: &Signed<'_>) -> Result<Option<(String, Key)>, Unsigned> {
    let text = |name: &str| signed.headers.get(name).and_then(|value| value.to_str().ok());
    let Some(authorization) = text("authorization") else {
        return Ok(None);
    };
    let authorization = Authorization::parse(authorization).ok_or(Unsigned::Incomplete)?;
    let key = world.keys.get(authorization.key).ok_or(Unsigned::UnknownKey)?;
    if key.token.as_deref() != text("x-amz-security-token") {
        return Err(Unsigned::UnknownKey);
    }
    if key.ends.is_some_and(|ends| Instant::now() >= ends) {
        return Err(Unsigned::Expired);
    }
    let is_of = |secret: &String| authorization.is_of(secret, signed);
    if !key.secret.as_ref().is_none_or(is_of) {
        return Err(Unsigned::WrongSignature);
    }
    Ok(Some((authorization.key.to_owned(), key.clone())))
}

fn json_call(shared: &Shared, signed: &Signed<'_>, target: &str, text: &str) -> Response {
    let mut world = lock(shared);
    let action = target.rsplit('.').next().unwrap_or_default().to_owned();
    let signed = signer(&world, signed).map_err(Unsigned::refusal);
    world.note_call(&action, signed.as_ref().ok().cloned().flatten(), text);
    world.note_reads(&action, text);
    if let Some(answer) = in_trouble(&mut world, false) {
        return answer;
    }
    let outcome = signed.and_then(|key| {
        let (id, _) = key.ok_or_else(|| Refusal::new("MissingAuthenticationTokenException", "CANARY"))?;
        if world.denies(&id, &action) {
            let text = format!("User CANARY is not authorized to perform: {action}");
            return Err(Refusal::new("AccessDeniedException", text));
        }
        let request: Value = serde_json::from_str(text)
            .map_err(|_| Refusal::new("SerializationException", "CANARY is not JSON"))?;
        match target.split('.').next().unwrap_or_default() {
            "secretsmanager" => secrets_manager::call(&mut world, &action, &request),
            "AmazonSSM" => parameter_store::call(&mut world, &action, &request),
            "TrentService" => kms::call(&mut world, &action, &request),
            "AmazonSQS" => sqs::call(&mut world, &action, &request),
            _ => Err(Refusal::new("UnknownOperationException", "CANARY")),
        }
    });
    let cut = world.trouble == Some(Trouble::Cut);
    match outcome {
        Ok(answer) => answered(StatusCode::OK, &answer, cut),
        Err(refusal) => {
            let answer = json!({ "__type": refusal.code, "Message": refusal.text, "message": refusal.text });
            answered(refusal.status(), &answer, cut)
        }
    }
}

fn answered(status: StatusCode, answer: &Value, cut: bool) -> Response {
    let mut text = answer.to_string();
    if cut {
        text.truncate(text.len() / 2);
    }
    let headers = [(header::CONTENT_TYPE, "application/x-amz-json-1.1")];
    (status, headers, text).into_response()
}

/// The answer of a service that cannot serve now.
fn in_trouble(world: &mut World, speaks_xml: bool) -> Option<Response> {
    let calls = world.calls.len();
    let refused = |status: StatusCode, code: &str, retry_after: Option<u64>| {
        let mut response = if speaks_xml {
            xml(status, code)
        } else {
            answered(status, &json!({ "__type": code, "message": "CANARY" }), false)
        };
        if let Some(value) = retry_after.and_then(|after| after.to_string().parse().ok()) {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        Some(response)
    };
    let throttled = |retry_after| refused(StatusCode::BAD_REQUEST, "ThrottlingException", retry_after);
    match world.trouble.as_mut()? {
        Trouble::Throttled { left: 0, .. } | Trouble::Cut | Trouble::Partial | Trouble::NoBatches => None,
        Trouble::Throttled { left, retry_after } => {
            *left -= 1;
            throttled(*retry_after)
        }
        Trouble::EverySecond => calls.is_multiple_of(2).then(|| throttled(None)).flatten(),
        Trouble::Xml { status, code } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
            Some(xml(status, code))
        }
        Trouble::Broken => refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalServiceError", None),
    }
}

fn xml(status: StatusCode, code: &str) -> Response {
    let text =
        format!("<ErrorResponse><Error><Code>{code}</Code><Message>CANARY</Message></Error></ErrorResponse>");
    (status, [(header::CONTENT_TYPE, "text/xml")], text).into_response()
}

/// The strings in a list of a request.
fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// What a service calls a wrong page.
struct PageCodes {
    size: &'static str,
    token: &'static str,
}

/// One page of a listing: what begins at the token, and the token of the next.
fn page<T>(
    all: Vec<T>,
    request: &Value,
    most: usize,
    codes: &PageCodes,
) -> Result<(Vec<T>, Option<String>), Refusal> {
    let size = request["MaxResults"]
        .as_u64()
        .map_or(most, |size| usize::try_from(size).unwrap_or(most));
    if size == 0 || size > most {
        return Err(Refusal::new(codes.size, format!("MaxResults is {size} CANARY")));
    }
    let begin = match request["NextToken"].as_str() {
        None => 0,
        Some(token) => token
            .strip_prefix("token-")
            .and_then(|number| number.parse::<usize>().ok())
            .ok_or_else(|| Refusal::new(codes.token, "CANARY"))?,
    };
    let end = begin.saturating_add(size);
    let next = (end < all.len()).then(|| format!("token-{end}"));
    Ok((all.into_iter().skip(begin).take(size).collect(), next))
}
