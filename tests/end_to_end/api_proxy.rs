//! What stands between the operator and the API server: it writes down every request, and answers badly on demand.

use std::{
    fs,
    future::pending,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
};
use lockstep_testkit::{ControlPlane, Operator, Scratch, operator};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, time::sleep};

use crate::shared_cluster::eventually;

/// One request of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) accept: String,
}

impl Asked {
    /// A request for Secrets, one or many.
    pub(crate) fn is_of_secrets(&self) -> bool {
        self.path.split('/').any(|part| part == "secrets")
    }

    /// A request that changes something other than an event, and is asked for by a SyncedSecret.
    pub(crate) fn is_write(&self) -> bool {
        let created = self.path.ends_with("/secrets") && !self.path.contains("/lockstep-system/");
        let object = created || self.path.contains("/secrets/") || self.path.contains("/syncedsecrets/");
        self.method != Method::GET && object
    }
}

/// How a request is answered in place of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// With this status, and nothing reaches the API server.
    Status(u16),
    /// Never, and nothing reaches the API server.
    Hangs,
    /// Never, but the API server does what is asked.
    LosesAnswer,
    /// Well, but not before everything is answered well again.
    Waits,
}

type Matcher = Box<dyn Fn(&Asked) -> bool + Send>;

struct Rule {
    matches: Matcher,
    fault: Fault,
    /// How many requests pass before.
    skip: usize,
    /// How many requests are answered so.
    left: usize,
}

#[derive(Default)]
struct Inner {
    asked: Vec<Asked>,
    answered: Vec<(Asked, u16)>,
    rules: Vec<Rule>,
}

/// The proxy. It ends with the test.
#[derive(Clone)]
pub(crate) struct ApiProxy {
    pub(crate) address: String,
    upstream: String,
    client: reqwest::Client,
    inner: Arc<Mutex<Inner>>,
    struck: Arc<Notify>,
    healed: Arc<Notify>,
}

impl ApiProxy {
    pub(crate) async fn start(plane: &ControlPlane) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let trusted = reqwest::Certificate::from_pem(plane.ca().as_bytes())?;
        let proxy = Self {
            address: format!("http://{}", listener.local_addr()?),
            upstream: plane.url().to_owned(),
            client: reqwest::Client::builder()
                .tls_certs_only([trusted])
                .no_proxy()
                .build()?,
            inner: Arc::default(),
            struck: Arc::default(),
            healed: Arc::default(),
        };
        let router = Router::new().fallback(forward).with_state(proxy.clone());
        let serve = async move { axum::serve(listener, router).await };
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's own runtime")]
        tokio::spawn(serve);
        Ok(proxy)
    }

    /// Answers `left` matching requests badly, after `skip` good ones.
    pub(crate) fn strike(
        &self,
        fault: Fault,
        skip: usize,
        left: usize,
        matches: impl Fn(&Asked) -> bool + Send + 'static,
    ) {
        self.lock().rules.push(Rule {
            matches: Box::new(matches),
            fault,
            skip,
            left,
        });
    }

    /// Waits until a request was answered badly; for a lost answer, until the API server has done what was asked.
    pub(crate) async fn struck(&self) {
        let waited = tokio::time::timeout(Duration::from_secs(60), self.struck.notified()).await;
        waited.expect("a request that the fault is for");
    }

    /// Answers everything well from now on.
    pub(crate) fn heal(&self) {
        self.lock().rules.clear();
        self.healed.notify_waiters();
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    /// How the API server answered every request that came to it, in the order of its answers.
    pub(crate) fn answered(&self) -> Vec<(Asked, u16)> {
        self.lock().answered.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request down; answers what is wrong with it.
    fn note(&self, asked: Asked) -> Option<Fault> {
        let mut inner = self.lock();
        let rule = inner
            .rules
            .iter_mut()
            .find(|rule| rule.left > 0 && (rule.matches)(&asked));
        let fault = match rule {
            Some(rule) if rule.skip > 0 => {
                rule.skip -= 1;
                None
            }
            Some(rule) => {
                rule.left -= 1;
                Some(rule.fault)
            }
            None => None,
        };
        inner.asked.push(asked);
        fault
    }
}

async fn forward(State(proxy): State<ApiProxy>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let text = |name| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    // from here on no healing is missed
    let healed = proxy.healed.notified();
    let asked = Asked {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        accept: text(header::ACCEPT).to_owned(),
    };
    let fault = proxy.note(asked.clone());
    match fault {
        Some(Fault::Hangs) => {
            proxy.struck.notify_one();
            return pending().await;
        }
        Some(Fault::Status(code)) => {
            proxy.struck.notify_one();
            return failure(code);
        }
        Some(Fault::Waits) => {
            proxy.struck.notify_one();
            healed.await;
        }
        Some(Fault::LosesAnswer) | None => {}
    }
    let Ok(body) = axum::body::to_bytes(body, 16 << 20).await else {
        return failure(400);
    };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut headers: HeaderMap = parts.headers.clone();
    for hop in [header::HOST, header::CONTENT_LENGTH, header::ACCEPT_ENCODING] {
        headers.remove(hop);
    }
    let answer = proxy
        .client
        .request(parts.method, format!("{}{target}", proxy.upstream))
        .headers(headers)
        .body(body)
        .send()
        .await;
    let Ok(answer) = answer else {
        return failure(502);
    };
    proxy.lock().answered.push((asked, answer.status().as_u16()));
    if fault == Some(Fault::LosesAnswer) {
        proxy.struck.notify_one();
        return pending().await;
    }
    let mut response = Response::builder().status(answer.status());
    if let Some(kind) = answer.headers().get(header::CONTENT_TYPE) {
        response = response.header(header::CONTENT_TYPE, kind);
    }
    response
        .body(Body::from_stream(answer.bytes_stream()))
        .expect("a response")
}

/// A refusal in Kubernetes' own form.
fn failure(code: u16) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": "Injected", "message": "injected by the test",
    });
    let builder = Response::builder()
        .status(StatusCode::from_u16(code).expect("a status"))
        .header(header::CONTENT_TYPE, "application/json");
    let builder = if code == 429 {
        builder.header(header::RETRY_AFTER, "1")
    } else {
        builder
    };
    builder.body(Body::from(status.to_string())).expect("a response")
}

/// A control plane, the proxy before it, an operator behind that, and a store of files.
pub(crate) struct ProxiedCluster {
    pub(crate) plane: ControlPlane,
    pub(crate) proxy: ApiProxy,
    pub(crate) operator: Operator,
    root: Scratch,
}

/// The namespace of a cluster's objects.
pub(crate) const NAMESPACE: &str = "scene";

impl ProxiedCluster {
    /// Everything but a running operator.
    pub(crate) async fn set(arguments: &[&str]) -> Result<Self> {
        let plane = ControlPlane::builder().with_controller_manager().start().await?;
        plane.install_crds().await?;
        operator::install(&plane.kubeconfig()).await?;
        let proxy = ApiProxy::start(&plane).await?;
        let root = Scratch::new("scene")?;
        fs::create_dir_all(root.path().join("team"))?;
        let folder = root.path().to_str().context("UTF-8")?;
        let arguments = [&["--file-root", folder], arguments].concat();
        let operator = Operator::prepare_through(&plane, &proxy.address, &arguments).await?;
        let store = json!([
            { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } },
            {
                "apiVersion": "lockstep.dev/v1alpha1", "kind": "ClusterSecretStore", "metadata": { "name": "files" },
                "spec": {
                    "provider": { "file": { "path": "team" } },
                    "access": [{ "namespaces": { "names": [NAMESPACE, "default"] }, "keys": ["*"] }],
                },
            },
        ]);
        let cluster = Self {
            plane,
            proxy,
            operator,
            root,
        };
        for object in store.as_array().context("objects")? {
            cluster.apply(object).await?;
        }
        Ok(cluster)
    }

    /// The folder below which the file store reads.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Applies an object with all rights, past the proxy.
    pub(crate) async fn apply(&self, object: &Value) -> Result<()> {
        let apply = ["apply", "-f", "-"];
        operator::kubectl(&self.plane.kubeconfig(), &apply, Some(&object.to_string()))
            .await
            .map(drop)
    }

    /// Writes a remote value, whole or not at all.
    pub(crate) fn put(&self, key: &str, value: &str) {
        let path = self.root.path().join("team").join(key);
        let beside = self.root.path().join(".writing");
        fs::write(&beside, value).expect("a file");
        fs::rename(beside, Path::new(&path)).expect("a file");
    }

    /// Declares a SyncedSecret that copies the remote value of its own name to the key `value`.
    pub(crate) async fn declare(&self, name: &str) -> Result<()> {
        self.declare_in(NAMESPACE, name).await
    }

    /// The same in another namespace.
    pub(crate) async fn declare_in(&self, namespace: &str, name: &str) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "secretStoreRef": { "name": "files", "kind": "ClusterSecretStore" },
                "refreshInterval": "1s",
                "data": [{ "secretKey": "value", "remoteRef": { "key": name } }],
            },
        }))
        .await
    }

    /// Reads one object's JSON; `null` where there is none.
    pub(crate) async fn get(&self, kind: &str, name: &str) -> Value {
        let ask = [
            "get",
            kind,
            name,
            "-n",
            NAMESPACE,
            "-o",
            "json",
            "--ignore-not-found",
        ];
        let text = operator::kubectl(&self.plane.kubeconfig(), &ask, None).await;
        text.ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// Waits until the Secret of that name holds that value and its SyncedSecret says so; answers the Secret.
    pub(crate) async fn synced(&self, name: &str, value: &str) -> Value {
        use base64::Engine as _;
        let wanted = base64::prelude::BASE64_STANDARD.encode(value);
        let attempt = eventually(name, || async {
            let secret = self.get("secret", name).await;
            anyhow::ensure!(secret["data"]["value"] == *wanted, "Secret {name} is {secret}");
            let object = self.get("syncedsecret", name).await;
            let ready = object["status"]["conditions"]
                .as_array()
                .and_then(|all| all.iter().find(|condition| condition["type"] == "Ready").cloned());
            let told = ready.is_some_and(|ready| ready["reason"] == "Synced");
            let version = &object["status"]["target"]["resourceVersion"];
            anyhow::ensure!(
                told && *version == secret["metadata"]["resourceVersion"],
                "{}",
                object["status"]
            );
            Ok(secret)
        });
        match attempt.await {
            Ok(secret) => secret,
            Err(error) => panic!("{error:#}\n{}", self.operator.log()),
        }
    }

    /// The condition Ready of a SyncedSecret; `null` where there is none.
    pub(crate) async fn ready(&self, name: &str) -> Value {
        let object = self.get("syncedsecret", name).await;
        let conditions = object["status"]["conditions"].as_array();
        let ready = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
        ready.cloned().unwrap_or_default()
    }

    /// Waits until the condition Ready of a SyncedSecret has that reason, and answers it.
    pub(crate) async fn wait_for_reason(&self, name: &str, reason: &str) -> Value {
        let attempt = eventually(name, || async {
            let ready = self.ready(name).await;
            anyhow::ensure!(ready["reason"] == reason, "{ready} is not {reason}");
            Ok(ready)
        });
        match attempt.await {
            Ok(ready) => ready,
            Err(error) => panic!("{error:#}\n{}", self.operator.log()),
        }
    }

    /// Waits until a metric has reached a figure.
    pub(crate) async fn metric_reaches(&self, name: &str, labels: &[&str], figure: f64) {
        for _ in 0..600 {
            if self
                .operator
                .metric(name, labels)
                .await
                .is_ok_and(|value| value >= figure)
            {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "{name} {labels:?} did not reach {figure}\n{}",
            self.operator.log()
        );
    }
}
