//! A stand-in for AWS on loopback: Secrets Manager, Parameter Store, KMS, an SQS queue and the
//! token service, as far as a reader of values uses them.
//!
//! It enforces what moto, the usual emulator, does not: signatures, 20 ids and 10 names in one
//! call, pages, permissions, tokens that expire, throttling. It can also be slow, broken or return
//! false data. Tests add the values. A value that the service would not store (64 KiB in Secrets
//! Manager, 8 KiB in Parameter Store) fails the test unless the test asks for an oversized one. Its
//! responses follow AWS' API references of Secrets Manager, Systems Manager and STS. The provider's
//! behaviour suite shows that they do: it passes against the stand-in and against moto.
//!
//! Every error text that it sends contains `CANARY`: a reader must not show any of them. The text
//! for a secret that is marked for deletion is the exception, because a reader compares it as a
//! whole.

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
    sync::Arc,
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
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use self::kms::KeyState;
use self::signature::{Authorization, Signed};
pub(crate) use self::{kms::KmsKey, parameter_store::Parameter, secrets_manager::Secret};
use crate::http;

/// The account of all resources.
pub const ACCOUNT: &str = "123456789012";
/// The region of all resources.
pub const REGION: &str = "eu-central-1";
/// The access key that exists from the start.
pub const ACCESS_KEY_ID: &str = "AKIALOCKSTEPTEST0001";
/// The secret of [`ACCESS_KEY_ID`].
pub const SECRET_ACCESS_KEY: &str = "CANARY-secret-access-key";

/// The audience of tokens that it exchanges.
pub const AUDIENCE: &str = "sts.amazonaws.com";

/// A fault of the next calls.
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
    /// An error in XML, as a gateway sends it.
    Xml {
        /// The status of the response.
        status: u16,
        /// The error code.
        code: &'static str,
    },
    /// The service reports that it is unavailable.
    Broken,
    /// The response is truncated.
    Cut,
    /// The response to a batch omits every second id.
    Partial,
    /// Secrets Manager does not support batches, like older emulators and endpoints.
    NoBatches,
}

/// An access key or session, and when it expires.
#[derive(Debug, Clone, Default)]
struct Key {
    /// The secret that it must sign with. `None` accepts any secret.
    secret: Option<String>,
    token: Option<String>,
    /// The role, if it was assumed.
    role: Option<String>,
    tags: BTreeMap<String, String>,
    ends: Option<Instant>,
}

/// A call that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The action, such as `GetSecretValue`.
    pub action: String,
    /// The access key id that signed it, or `None` if it was not signed.
    pub key: Option<String>,
    /// The role of that key.
    pub role: Option<String>,
    /// The tags of that key's session.
    pub tags: BTreeMap<String, String>,
    /// The body of the request.
    pub body: String,
}

#[derive(Debug, Default)]
struct World {
    secrets: BTreeMap<String, Secret>,
    parameters: BTreeMap<String, Parameter>,
    kms_keys: BTreeMap<String, KmsKey>,
    queue: sqs::Queue,
    keys: BTreeMap<String, Key>,
    /// ServiceAccount tokens that may be exchanged, with the role of each.
    web: BTreeMap<String, String>,
    /// Subjects of tokens that may be exchanged, with the role of each.
    subjects: BTreeMap<String, String>,
    external_ids: BTreeMap<String, String>,
    denied_names: BTreeSet<String>,
    /// Ids of secrets that are rejected, alone or in a batch.
    refused_ids: BTreeSet<String>,
    denied_actions: BTreeSet<String>,
    /// If set, all other actions are denied, except those of the token service.
    allowed_actions: Option<BTreeSet<String>>,
    /// Actions that are denied to one access key.
    denied_to_key: BTreeSet<(String, String)>,
    trouble: Option<Trouble>,
    latency: Duration,
    /// Calls in flight, and their maximum so far.
    in_flight: (usize, usize),
    calls: Vec<Call>,
    /// The number of calls for values, and the names in them.
    reads: (u64, BTreeSet<String>),
    count: u64,
    /// The lifetime of sessions.
    lifetime: Option<Duration>,
    /// The number of values on one page of a batch.
    page: Option<usize>,
}

/// A running stand-in. Dropping it stops the server.
#[derive(Debug)]
pub struct Aws {
    address: SocketAddr,
    world: Shared,
    _server: http::Serving,
}

type Shared = Arc<Mutex<World>>;

impl Aws {
    /// Starts a stand-in with one access key, which may do everything.
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
        world.lock().keys.insert(ACCESS_KEY_ID.to_owned(), key);
        let router = Router::new().fallback(serve).with_state(Arc::clone(&world));
        Ok(Self {
            address,
            world,
            _server: http::serve(listener, router),
        })
    }

    /// Returns its address, for `endpoint` and `stsEndpoint`.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the fault of further calls. `None` ends it.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        self.world.lock().trouble = trouble;
    }

    /// Delays all further responses.
    pub fn latency(&self, latency: Duration) {
        self.world.lock().latency = latency;
    }

    /// Sets the lifetime of new sessions.
    pub fn lifetime(&self, lifetime: Duration) {
        self.world.lock().lifetime = Some(lifetime);
    }

    /// Limits the number of values on one page of a batch.
    pub fn page(&self, page: usize) {
        self.world.lock().page = Some(page);
    }

    /// Denies all reads of this name.
    pub fn deny_name(&self, name: &str) {
        self.world.lock().denied_names.insert(name.to_owned());
    }

    /// Makes Secrets Manager reject this id, and every batch that contains it.
    pub fn refuse_id(&self, id: &str) {
        self.world.lock().refused_ids.insert(id.to_owned());
    }

    /// Denies this action to everyone, such as `BatchGetSecretValue`.
    pub fn deny_action(&self, action: &str) {
        self.world.lock().denied_actions.insert(action.to_owned());
    }

    /// Denies everything except these actions and logins.
    pub fn allow_only(&self, actions: &[&str]) {
        let actions = actions.iter().map(ToString::to_string).collect();
        self.world.lock().allowed_actions = Some(actions);
    }

    /// Denies this action to the owner of this access key.
    pub fn deny_action_to(&self, key: &str, action: &str) {
        let denied = (key.to_owned(), action.to_owned());
        self.world.lock().denied_to_key.insert(denied);
    }

    /// Allows this action to everyone again.
    pub fn allow_action(&self, action: &str) {
        self.world.lock().denied_actions.remove(action);
    }

    /// Adds an access key whose owner may sign with any secret.
    pub fn add_key(&self, id: &str) {
        self.world.lock().keys.insert(id.to_owned(), Key::default());
    }

    /// Removes every session and every access key, so that their signatures are rejected.
    pub fn revoke_all(&self) {
        self.world.lock().keys.clear();
    }

    /// Lets a ServiceAccount's token be exchanged for a role.
    pub fn trust(&self, token: &str, role: &str) {
        self.world.lock().web.insert(token.to_owned(), role.to_owned());
    }

    /// Lets the tokens of a ServiceAccount, `system:serviceaccount:NAMESPACE:NAME`, be exchanged
    /// for a role. Their signatures are not checked.
    pub fn trust_subject(&self, subject: &str, role: &str) {
        self.world
            .lock()
            .subjects
            .insert(subject.to_owned(), role.to_owned());
    }

    /// Requires this external id to assume this role.
    pub fn require_external_id(&self, role: &str, id: &str) {
        self.world
            .lock()
            .external_ids
            .insert(role.to_owned(), id.to_owned());
    }

    /// Returns the calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.world.lock().calls.clone()
    }

    /// Returns the number of calls of this action.
    pub fn count(&self, action: &str) -> usize {
        self.world
            .lock()
            .calls
            .iter()
            .filter(|call| call.action == action)
            .count()
    }

    /// Returns the number of calls for values so far, and of different names in them.
    pub fn reads(&self) -> (u64, usize) {
        let world = self.world.lock();
        (world.reads.0, world.reads.1.len())
    }

    /// Returns the maximum number of concurrent calls so far.
    pub fn most_in_flight(&self) -> usize {
        self.world.lock().in_flight.1
    }

    /// Clears the recorded calls.
    pub fn forget_calls(&self) {
        self.world.lock().calls.clear();
    }
}

impl World {
    /// Records a call that was signed with this key.
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

    /// Records a call for values.
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

    /// Whether this action is denied to the owner of an access key.
    fn denies(&self, key: &str, action: &str) -> bool {
        // One permission covers one message and ten.
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

    /// Returns a new number.
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}

/// An error response.
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

/// Returns a time in seconds, as the services write it.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A call in flight until it is dropped.
struct InFlight<'a>(&'a Shared);

impl<'a> InFlight<'a> {
    fn new(shared: &'a Shared) -> Self {
        let (now, most) = &mut shared.lock().in_flight;
        *now += 1;
        *most = (*now).max(*most);
        Self(shared)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight.0 -= 1;
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
    let latency = world.lock().latency;
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

/// The reason why a signature is rejected, as the JSON services name it.
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

/// Returns the access key that signed a request, if it is valid.
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
    let mut world = shared.lock();
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

/// Returns the response of a service with a fault.
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

/// Returns the strings in a list of a request.
fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// The error codes for an invalid page.
struct PageCodes {
    size: &'static str,
    token: &'static str,
}

/// Returns the page of a listing that starts at the token, and the token of the next one.
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
