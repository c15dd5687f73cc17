//! Someone holds the operator's token and tries to read a Secret: every verb, form of patch, validation, representation and deletion
//! option, with well-formed and malformed bodies, under exactly the shipped manifests.

mod guesses;

use std::{fmt::Write as _, path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, api::PostParams, client::Body};
use lockstep_testkit::{
    ControlPlane, Scratch,
    operator::{self, NAMESPACE, SERVICE_ACCOUNT, repository},
};
use serde_json::{Value, json};

const CANARY: &str = "canary-5d1f0c7a94e2-must-not-be-read";
/// A value that can be guessed.
const PIN: &str = "4711";
const TENANT: &str = "shop";

/// Every request of the operator's account on Secrets, with the request and the response.
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
  "rules": [
    { "level": "RequestResponse", "users": ["system:serviceaccount:lockstep-system:lockstep"],
      "resources": [{ "group": "", "resources": ["secrets"] }] },
    { "level": "None" }
  ]
}"#;

/// A Secret that is attacked.
struct Target {
    name: &'static str,
    object: Value,
}

fn target(name: &'static str, owner: Option<&'static str>, more: Value) -> Target {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": name, "namespace": TENANT, "annotations": {} },
        "stringData": { "password": CANARY, "pin": PIN },
    });
    if let Some(owner) = owner {
        object["metadata"]["annotations"]["lockstep.dev/owner"] = json!(owner);
    }
    merge(&mut object, more);
    Target { name, object }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn targets() -> Vec<Target> {
    let finalizer = json!({ "metadata": { "finalizers": ["example.org/keep"] } });
    let of_type =
        |name, kind: &str, data: Value| target(name, None, json!({ "type": kind, "stringData": data }));
    let docker = json!({ "auths": { "registry.example.org": { "password": CANARY } } }).to_string();
    let account = json!({
        "type": "kubernetes.io/service-account-token",
        "metadata": { "annotations": { "kubernetes.io/service-account.name": "default" } },
    });
    vec![
        target("foreign", None, json!({})),
        target("foreign-immutable", None, json!({ "immutable": true })),
        target("foreign-finalizer", None, finalizer.clone()),
        target("owned", Some("other"), json!({})),
        target("owned-immutable", Some("other"), json!({ "immutable": true })),
        target("owned-finalizer", Some("other"), finalizer.clone()),
        target("owned-terminating", Some("other"), finalizer),
        target(
            "offered",
            None,
            json!({ "metadata": { "annotations": { "lockstep.dev/adopt": "mine" } } }),
        ),
        target(
            "merged",
            None,
            json!({ "metadata": { "annotations": { "lockstep.dev/merge": "mine, other" } } }),
        ),
        target("account-token", None, account.clone()),
        target("owned-account-token", Some("other"), account),
        of_type("bootstrap", "bootstrap.kubernetes.io/token", json!({})),
        of_type(
            "tls",
            "kubernetes.io/tls",
            json!({ "tls.crt": CANARY, "tls.key": CANARY }),
        ),
        of_type(
            "docker",
            "kubernetes.io/dockerconfigjson",
            json!({ ".dockerconfigjson": docker }),
        ),
        of_type(
            "ssh",
            "kubernetes.io/ssh-auth",
            json!({ "ssh-privatekey": CANARY }),
        ),
        of_type("basic", "kubernetes.io/basic-auth", json!({ "username": "u" })),
    ]
}

/// One request.
#[derive(Debug, Clone)]
struct Attempt {
    method: Method,
    path: String,
    content_type: &'static str,
    accept: &'static str,
    body: String,
}

const JSON: &str = "application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const ACCEPTS: [&str; 6] = [
    JSON,
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/cbor",
    METADATA,
    "application/json;as=Table;g=meta.k8s.io;v=v1",
];

fn collection() -> String {
    format!("/api/v1/namespaces/{TENANT}/secrets")
}

fn reads(name: &str, all: &mut Vec<Attempt>) {
    for accept in ACCEPTS {
        for (method, path) in [
            (Method::GET, format!("/{name}")),
            (Method::HEAD, format!("/{name}")),
            (Method::GET, String::new()),
            (Method::GET, format!("?fieldSelector=metadata.name%3D{name}")),
            (Method::GET, "?watch=true&timeoutSeconds=1".to_owned()),
            (Method::GET, format!("/{name}/status")),
            (Method::GET, format!("/{name}?resourceVersion=0")),
        ] {
            all.push(Attempt {
                method,
                path: format!("{}{path}", collection()),
                content_type: JSON,
                accept,
                body: String::new(),
            });
        }
    }
}

/// Objects to create or replace with: well-formed ones of several owners, and malformed ones.
fn objects(target: &Target) -> Vec<String> {
    let name = target.name;
    let mut bodies = Vec::new();
    for owner in [None, Some("mine"), Some("other")] {
        let mut object =
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "annotations": {} } });
        if let Some(owner) = owner {
            object["metadata"]["annotations"]["lockstep.dev/owner"] = json!(owner);
        }
        let more = [
            json!({}),
            json!({ "type": 5 }),
            json!({ "type": "kubernetes.io/tls" }),
            json!({ "unknown": 1 }),
            json!({ "data": { "password": 5 } }),
            json!({ "data": { "password": "not base64!" } }),
            json!({ "data": 7 }),
            json!({ "immutable": "yes" }),
            json!({ "immutable": true }),
            json!({ "metadata": { "uid": "00000000-0000-0000-0000-000000000000" } }),
            json!({ "metadata": { "resourceVersion": "1" } }),
            json!({ "metadata": { "resourceVersion": "x" } }),
            json!({ "metadata": { "name": "elsewhere" } }),
            json!({ "metadata": { "namespace": "elsewhere" } }),
            json!({ "metadata": { "labels": "x" } }),
            json!({ "metadata": { "managedFields": [{ "manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": { "f:data": {} } }] } }),
            json!({ "metadata": { "finalizers": ["example.org/more"] } }),
            json!({ "metadata": { "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u" }] } }),
            json!({ "metadata": { "annotations": { "lockstep.dev/claim": "mine" } } }),
            json!({ "kind": "ConfigMap" }),
            json!({ "apiVersion": "v2" }),
        ];
        for more in more {
            let mut object = object.clone();
            merge(&mut object, more);
            bodies.push(object.to_string());
        }
    }
    bodies.extend(["", "{", "[]", "null", "5", "{\"kind\":\"Secret\"}"].map(str::to_owned));
    bodies
}

fn writes(target: &Target, all: &mut Vec<Attempt>) {
    let name = target.name;
    let mut push = |method: Method, path: String, content_type, accept, body: &str| {
        all.push(Attempt {
            method,
            path: format!("{}{path}", collection()),
            content_type,
            accept,
            body: body.to_owned(),
        });
    };
    for body in objects(target) {
        for (validation, accept) in [
            ("", JSON),
            ("", METADATA),
            ("&fieldValidation=Strict", JSON),
            ("&fieldValidation=Warn", JSON),
        ] {
            push(
                Method::PUT,
                format!("/{name}?dryRun=All{validation}"),
                JSON,
                accept,
                &body,
            );
            push(
                Method::POST,
                format!("?dryRun=All{validation}"),
                JSON,
                accept,
                &body,
            );
        }
        let manager = "?dryRun=All&fieldManager=lockstep-merge:mine";
        push(Method::PUT, format!("/{name}{manager}"), JSON, JSON, &body);
        push(
            Method::PUT,
            format!("/{name}/status?dryRun=All"),
            JSON,
            JSON,
            &body,
        );
        push(Method::POST, format!("/{name}?dryRun=All"), JSON, JSON, &body);
        push(
            Method::PUT,
            format!("/{name}?dryRun=All"),
            "application/yaml",
            "application/yaml",
            &body,
        );
    }
    let merges = [
        "{}",
        "{\"type\":5}",
        "{\"unknown\":1}",
        "{\"data\":{\"password\":5}}",
        "{\"metadata\":{\"labels\":5}}",
        "{\"metadata\":{\"annotations\":{\"lockstep.dev/owner\":\"other\"}}}",
        "{",
    ];
    let steps = [
        "[]",
        "[{\"op\":\"copy\",\"from\":\"/data/password\",\"path\":\"/metadata/labels\"}]",
        "[{\"op\":\"move\",\"from\":\"/data/password\",\"path\":\"/type\"}]",
        "[{\"op\":\"test\",\"path\":\"/data/password\",\"value\":\"x\"}]",
        "[{\"op\":\"add\",\"path\":\"/type\",\"value\":5}]",
        "[{\"op\":\"add\",\"path\":\"/unknown\",\"value\":5}]",
    ];
    let apply =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": 5 }).to_string();
    let patches = merges
        .iter()
        .flat_map(|body| {
            let kinds = [
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ];
            kinds.map(|kind| (kind, (*body).to_owned()))
        })
        .chain(steps.map(|body| ("application/json-patch+json", body.to_owned())))
        .chain(
            ["application/apply-patch+yaml", "application/apply-patch+cbor"]
                .map(|kind| (kind, apply.clone())),
        );
    for (kind, body) in patches {
        for query in [
            "?dryRun=All",
            "?dryRun=All&fieldValidation=Strict",
            "?dryRun=All&fieldValidation=Warn&fieldManager=lockstep-merge:mine",
            "?dryRun=All&fieldManager=lockstep&force=true",
        ] {
            for accept in [JSON, METADATA] {
                push(Method::PATCH, format!("/{name}{query}"), kind, accept, &body);
            }
        }
    }
}

fn deletions(name: &str, all: &mut Vec<Attempt>) {
    let bodies = [
        json!({}),
        json!({ "gracePeriodSeconds": 0 }),
        json!({ "gracePeriodSeconds": 30 }),
        json!({ "gracePeriodSeconds": -1 }),
        json!({ "propagationPolicy": "Foreground" }),
        json!({ "propagationPolicy": "Orphan" }),
        json!({ "propagationPolicy": "Background" }),
        json!({ "propagationPolicy": "Else" }),
        json!({ "orphanDependents": true }),
        json!({ "orphanDependents": false }),
        json!({ "preconditions": { "uid": "x" } }),
        json!({ "preconditions": { "resourceVersion": "1" } }),
        json!({ "preconditions": {} }),
        json!({ "ignoreStoreReadErrorWithClusterBreakingPotential": true }),
        json!({ "unknown": 1 }),
        json!({ "gracePeriodSeconds": "x" }),
        json!({ "propagationPolicy": "Background", "gracePeriodSeconds": 30 }),
        json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground" }),
        json!([]),
    ];
    let queries = [
        "",
        "&gracePeriodSeconds=30",
        "&propagationPolicy=Foreground",
        "&propagationPolicy=Orphan",
        "&orphanDependents=true",
        "&orphanDependents=false",
        "&ignoreStoreReadErrorWithClusterBreakingPotential=true",
    ];
    for accept in [JSON, METADATA] {
        for body in &bodies {
            let mut body = body.clone();
            if body.is_object() {
                body["dryRun"] = json!(["All"]);
            }
            for query in queries {
                for path in [
                    format!("/{name}?dryRun=All{query}"),
                    format!("?dryRun=All{query}"),
                ] {
                    // a collection at once is refused by the role, whatever its options
                    if path.starts_with('?') && !query.is_empty() {
                        continue;
                    }
                    all.push(Attempt {
                        method: Method::DELETE,
                        path: format!("{}{path}", collection()),
                        content_type: JSON,
                        accept,
                        body: body.to_string(),
                    });
                }
            }
        }
    }
}

/// The canary as it is, and as it appears inside Base64 at each alignment.
fn needles() -> Vec<String> {
    let mut all = vec![CANARY.to_owned()];
    for offset in 0..3 {
        let padded = format!("{}{CANARY}", "x".repeat(offset));
        let encoded = STANDARD.encode(padded);
        all.push(encoded[4..encoded.len() - 4].to_owned());
    }
    all
}

fn leaks(needles: &[String], text: &str) -> bool {
    needles.iter().any(|needle| text.contains(needle.as_str()))
}

/// Sends a request, and returns the status with all of the answer's headers and body.
async fn send(client: &Client, attempt: &Attempt) -> (u16, String) {
    let request = Request::builder()
        .method(attempt.method.clone())
        .uri(&attempt.path)
        .header(header::CONTENT_TYPE, attempt.content_type)
        .header(header::ACCEPT, attempt.accept)
        .body(Body::from(attempt.body.clone().into_bytes()))
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(30), client.send(request))
        .await
        .expect("an answer in time")
        .unwrap();
    let status = answer.status().as_u16();
    let mut text = String::new();
    for (name, value) in answer.headers() {
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    text.push_str(&String::from_utf8_lossy(&body));
    (status, text)
}

async fn attack(client: &Client, all: Vec<Attempt>) -> (usize, Vec<String>) {
    let needles = Arc::new(needles());
    let sent = all.len();
    let found: Vec<Option<String>> = futures::stream::iter(all)
        .map(|attempt| {
            let (client, needles) = (client.clone(), needles.clone());
            async move {
                let (status, answer) = send(&client, &attempt).await;
                leaks(&needles, &answer).then(|| format!("{status} for {attempt:?}"))
            }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    (sent, found.into_iter().flatten().collect())
}

async fn stored(client: &Client) -> Vec<Secret> {
    let api: Api<Secret> = Api::namespaced(client.clone(), TENANT);
    api.list(&kube::api::ListParams::default()).await.unwrap().items
}

async fn create_namespace(admin: &Client) {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": TENANT } });
    Api::all(admin.clone())
        .create(
            &PostParams::default(),
            &serde_json::from_value::<k8s_openapi::api::core::v1::Namespace>(namespace).unwrap(),
        )
        .await
        .unwrap();
}

async fn prepare(plane: &ControlPlane, admin: &Client) {
    create_namespace(admin).await;
    let api: Api<Secret> = Api::namespaced(admin.clone(), TENANT);
    for target in targets() {
        let secret = serde_json::from_value(target.object).unwrap();
        api.create(&PostParams::default(), &secret).await.unwrap();
    }
    api.delete("owned-terminating", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    operator::install(&plane.kubeconfig()).await.unwrap();
}

/// Waits until the policy is in effect, which takes the API server a moment.
async fn policy_is_enforced(client: &Client) {
    let attempt = Attempt {
        method: Method::POST,
        path: format!("{}?dryRun=All", collection()),
        content_type: JSON,
        accept: JSON,
        body: json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "probe" } }).to_string(),
    };
    for _ in 0..300 {
        if send(client, &attempt).await.1.contains("lockstep-secrets") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the policy is not enforced");
}

/// The answer to a dry run names the field manager of each key, and a value that does not change keeps its manager. So no dry run
/// with data may pass, also not on Secrets that the account may write.
async fn no_guess_is_confirmed(token: &Client) {
    for (name, annotations, manager) in [
        ("owned", json!({ "lockstep.dev/owner": "other" }), "thief"),
        ("offered", json!({ "lockstep.dev/owner": "mine" }), "thief"),
        (
            "merged",
            json!({ "lockstep.dev/merge": "mine, other" }),
            "lockstep-merge:mine",
        ),
        (
            "owned",
            json!({ "lockstep.dev/owner": "other", "lockstep.dev/claim": "other" }),
            "thief",
        ),
    ] {
        let data = json!({ "pin": PIN });
        let (status, answer) = send(token, &guess(name, &annotations, manager, &data)).await;
        assert_eq!(status, 403, "{name}: {answer}");
    }
    // a claim without data passes, and must not confirm labels and annotations instead
    let claim = json!({ "lockstep.dev/owner": "other", "lockstep.dev/claim": "other" });
    let (status, answer) = send(token, &guess("owned", &claim, "thief", &json!({}))).await;
    assert_eq!(status, 200, "{answer}");
    let mut with_annotation = claim.clone();
    with_annotation["example.org/pin"] = PIN.into();
    let mut with_label = guess("owned", &claim, "thief", &json!({}));
    with_label.body = with_label
        .body
        .replace("\"annotations\"", "\"labels\":{\"pin\":\"4711\"},\"annotations\"");
    for attempt in [guess("owned", &with_annotation, "thief", &json!({})), with_label] {
        let (status, answer) = send(token, &attempt).await;
        assert_eq!(status, 403, "{}: {answer}", attempt.body);
    }
}

fn guess(name: &str, annotations: &Value, manager: &str, data: &Value) -> Attempt {
    Attempt {
        method: Method::PUT,
        path: format!("{}/{name}?dryRun=All&fieldManager={manager}", collection()),
        content_type: JSON,
        accept: METADATA,
        body: json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": name, "annotations": annotations },
            "stringData": data,
        })
        .to_string(),
    }
}

fn all_attempts() -> Vec<Attempt> {
    let mut all = Vec::new();
    for target in targets() {
        reads(target.name, &mut all);
        writes(&target, &mut all);
        deletions(target.name, &mut all);
    }
    all
}

async fn plane_with_audit(folder: &Path) -> ControlPlane {
    let policy = folder.join("audit-policy.json");
    std::fs::write(&policy, AUDIT_POLICY).unwrap();
    ControlPlane::builder()
        .api_server_flag(format!("--audit-policy-file={}", policy.display()))
        .api_server_flag(format!("--audit-log-path={}", folder.join("audit.log").display()))
        .api_server_flag("--audit-log-mode=blocking")
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn operators_token_reads_no_secret_by_any_request() {
    let folder = Scratch::new("attack").unwrap();
    let plane = plane_with_audit(folder.path()).await;
    let admin = plane.client().await.unwrap();
    plane.install_crds().await.unwrap();
    prepare(&plane, &admin).await;
    let before = stored(&admin).await;
    let token = plane
        .client_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
        .await
        .unwrap();
    policy_is_enforced(&token).await;

    // the search finds what it looks for
    let mut control = Vec::new();
    reads("foreign", &mut control);
    let (_, found) = attack(&admin, control).await;
    assert!(found.len() > 10, "{found:?}");

    no_guess_is_confirmed(&token).await;

    let mut sent = 0;
    // the namespaced overlay has the same policy and other roles: a part of the attempts shows those
    for (manifests, every) in [
        ("deploy/kustomize/base", 1),
        ("deploy/kustomize/overlays/namespaced", 5),
    ] {
        operator::apply_folder(&plane.kubeconfig(), &repository().join(manifests))
            .await
            .unwrap();
        let attempts = all_attempts().into_iter().step_by(every).collect();
        let (count, found) = attack(&token, attempts).await;
        sent += count;
        let shown: Vec<_> = found.iter().take(10).collect();
        assert!(
            found.is_empty(),
            "{manifests}: {} of {count} requests return a stored value, such as {shown:#?}",
            found.len()
        );
    }
    assert!(sent > 15_000, "{sent} requests are few");
    assert_eq!(stored(&admin).await, before, "dry runs change nothing");

    // the same without a dry run, on what belongs to someone else
    let foreign = |attempt: &Attempt| attempt.path.contains("/secrets/foreign");
    let mut real: Vec<_> = all_attempts().into_iter().filter(foreign).collect();
    for attempt in &mut real {
        attempt.path = attempt.path.replace("dryRun=All", "pretty=false");
        attempt.body = attempt
            .body
            .replace("\"dryRun\":[\"All\"]", "\"kind\":\"DeleteOptions\"");
    }
    let (_, found) = attack(&token, real).await;
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(
        stored(&admin).await,
        before,
        "what belongs to someone else is not changed"
    );

    // a part of the attempts again, with the component that denies guesses
    let overlay = repository().join("deploy/kustomize/overlays/deny-guesses");
    operator::apply_folder(&plane.kubeconfig(), &overlay)
        .await
        .unwrap();
    guesses::early_policy_is_enforced(&token).await;
    let attempts = all_attempts().into_iter().step_by(5).collect();
    let (_, found) = attack(&token, attempts).await;
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(stored(&admin).await, before, "dry runs change nothing");

    let needles = needles();
    let audit = std::fs::read_to_string(folder.path().join("audit.log")).unwrap();
    assert!(audit.lines().count() > 15_000);
    let line = audit.lines().find(|line| leaks(&needles, line));
    assert_eq!(line, None, "an audit line holds a stored value");
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::all(admin.clone());
    let events = events.list(&kube::api::ListParams::default()).await.unwrap();
    let events = serde_json::to_string(&events.items).unwrap();
    assert!(!leaks(&needles, &events), "an event holds a stored value");
}
