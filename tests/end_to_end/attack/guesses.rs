//! Someone holds the operator's token and tests guesses of stored values with dry runs and with requests that fail.
//!
//! A request can claim a field manager for each value. The API server keeps the claim only if the value does not change, and object
//! validation rejects a manager whose name is too long. It runs before the policy `lockstep-secrets`.

use super::*;

/// Stands for the guess in answers that quote it.
const GUESS: &str = "guess";

/// A pair of requests that differ in the guess only: right and wrong.
struct Guess {
    what: &'static str,
    requests: [Attempt; 2],
    /// The right and the wrong text. An answer can quote it.
    texts: [&'static str; 2],
}

/// Answers that differ only in the quoted guess are equal.
async fn reveals(client: &Client, guess: &Guess) -> bool {
    let mut answers = Vec::new();
    for (request, text) in guess.requests.iter().zip(guess.texts) {
        let (status, answer) = send(client, request).await;
        let varies = |line: &&str| !line.starts_with("date:") && !line.starts_with("audit-id:");
        let answer: Vec<_> = answer.lines().filter(varies).collect();
        answers.push((status, answer.join("\n").replace(text, GUESS)));
    }
    answers[0] != answers[1]
}

fn request(name: &str, query: &str, metadata: Value, data: &Value, fields: &Value) -> Attempt {
    let mut body = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": name,
            "managedFields": [{
                "manager": "x".repeat(200), "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
                "fieldsType": "FieldsV1", "fieldsV1": fields,
            }],
        },
        "data": data,
    });
    merge(&mut body["metadata"], metadata);
    Attempt {
        method: Method::PUT,
        path: format!("{}/{name}?{query}", collection()),
        content_type: JSON,
        accept: JSON,
        body: body.to_string(),
    }
}

/// Every kind of guess about one Secret, in the name of that owner.
fn guesses(name: &str, query: &str, annotations: &Value, labels: &Value) -> Vec<Guess> {
    let metadata = json!({ "annotations": annotations, "labels": labels });
    let value = |value: &str| STANDARD.encode(value);
    let field = |field: &str| json!({ "f:data": { format!("f:{field}"): {} } });
    let about = |what, texts: [&'static str; 2], build: &dyn Fn(&str) -> (Value, Value, Value)| Guess {
        what,
        requests: texts.map(|text| {
            let (more, data, fields) = build(text);
            let mut metadata = metadata.clone();
            merge(&mut metadata, more);
            request(name, query, metadata, &data, &fields)
        }),
        texts,
    };
    vec![
        about("value", [PIN, "0000"], &|text| {
            (json!({}), json!({ "pin": value(text) }), field("pin"))
        }),
        about("empty value", ["password", "username"], &|text| {
            (json!({}), json!({ text: "" }), field(text))
        }),
        about("key name", ["pin", "zip"], &|text| {
            (json!({}), json!({}), field(text))
        }),
        about("annotation", ["internal", "public"], &|text| {
            let fields = json!({ "f:metadata": { "f:annotations": { "f:note": {} } } });
            (json!({ "annotations": { "note": text } }), json!({}), fields)
        }),
        about("label", ["gold", "lead"], &|text| {
            let fields = json!({ "f:metadata": { "f:labels": { "f:tier": {} } } });
            (json!({ "labels": { "tier": text } }), json!({}), fields)
        }),
        about("whole data", [PIN, "0000"], &|text| {
            (
                json!({}),
                json!({ "pin": value(text), "password": "" }),
                field("pin"),
            )
        }),
    ]
}

/// The Secrets that are guessed about, with their annotations.
fn secrets() -> Vec<(&'static str, Value, bool)> {
    vec![
        ("foreign", json!({}), false),
        ("foreign-immutable", json!({}), true),
        ("owned", json!({ "lockstep.dev/owner": "other" }), false),
        ("offered", json!({ "lockstep.dev/adopt": "mine" }), false),
        ("merged", json!({ "lockstep.dev/merge": "mine" }), false),
    ]
}

fn all_guesses(name: &str) -> Vec<Guess> {
    let mut all = Vec::new();
    let claim = json!({ "lockstep.dev/owner": "other", "lockstep.dev/claim": "other" });
    for annotations in [
        json!({}),
        json!({ "lockstep.dev/owner": "mine" }),
        json!({ "lockstep.dev/owner": "other" }),
        claim,
    ] {
        for (query, labels) in [
            ("dryRun=All&fieldManager=thief", json!({})),
            ("dryRun=All&fieldManager=lockstep-merge:mine", json!({})),
            // not a dry run, but validation rejects it
            ("fieldManager=thief", json!({ "not a label": "" })),
        ] {
            all.extend(guesses(name, query, &annotations, &labels));
        }
    }
    all
}

async fn revealing(client: &Client) -> Vec<String> {
    let mut found = Vec::new();
    for (name, _, _) in secrets() {
        for guess in all_guesses(name) {
            if reveals(client, &guess).await {
                found.push(format!("{} of {name}", guess.what));
            }
        }
    }
    found.dedup();
    found
}

#[tokio::test]
async fn guesses_are_answered_alike_with_the_component() {
    let plane = ControlPlane::start().await.unwrap();
    plane.install_crds().await.unwrap();
    let admin = plane.client().await.unwrap();
    create_namespace(&admin).await;
    let api: Api<Secret> = Api::namespaced(admin.clone(), TENANT);
    for (name, annotations, immutable) in secrets() {
        let mut secret = json!({
            "metadata": { "name": name, "annotations": { "note": "internal" }, "labels": { "tier": "gold" } },
            "immutable": immutable, "stringData": { "pin": PIN, "password": "" },
        });
        merge(&mut secret["metadata"]["annotations"], annotations);
        let secret = serde_json::from_value(secret).unwrap();
        api.create(&PostParams::default(), &secret).await.unwrap();
    }
    operator::install(&plane.kubeconfig()).await.unwrap();
    let token = plane
        .client_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
        .await
        .unwrap();
    policy_is_enforced(&token).await;
    let before = stored(&admin).await;

    // what the documentation says of the base
    let found = revealing(&token).await;
    for (name, _, immutable) in secrets() {
        for what in ["value", "key name", "annotation", "label"] {
            if !immutable || what != "value" {
                assert!(
                    found.contains(&format!("{what} of {name}")),
                    "{what} of {name}: {found:?}"
                );
            }
        }
    }
    assert!(
        found.contains(&"whole data of foreign-immutable".to_owned()),
        "{found:?}"
    );

    operator::apply_folder(
        &plane.kubeconfig(),
        &repository().join("deploy/kustomize/overlays/deny-guesses"),
    )
    .await
    .unwrap();
    early_policy_is_enforced(&token).await;
    assert_eq!(revealing(&token).await, Vec::<String>::new());
    assert_eq!(stored(&admin).await, before, "a guess changes nothing");
}

pub(super) async fn early_policy_is_enforced(client: &Client) {
    let attempt = request("foreign", "dryRun=All", json!({}), &json!({}), &json!({}));
    for _ in 0..300 {
        if send(client, &attempt).await.1.contains("lockstep-deny-guesses") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the component is not enforced");
}
