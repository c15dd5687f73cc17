//! Tests which credentials are used, how often logins happen, and what happens when they are
//! rejected.

use std::{process::Stdio, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::future::join_all;
use lockstep_api::StoreKind;
use lockstep_provider::ErrorKind;
use lockstep_testkit::{
    gcp::{
        GKE_POOL, Gcp, NODE, SERVICE_ACCOUNT, Trouble, WORKLOAD_IDENTITY_PROVIDER, gke_principal, principal,
    },
    proxy::{Fate, Proxy},
};
use serde_json::{Value, json};

use crate::bench::{Objects, Quiet, Store, and, objects, spec};

const SUBJECT: &str = "system:serviceaccount:shop:reader";
const EMAIL: &str = "shop@lockstep-test.iam.gserviceaccount.com";
const ANNOTATION: &str = "iam.gke.io/gcp-service-account";

async fn stocked() -> Gcp {
    let gcp = Gcp::start().await.unwrap();
    gcp.put_secret("database", "CANARY-value");
    gcp
}

/// Creates a ServiceAccount's token in the format of the API server. Its signature is not checked.
fn token(audience: &str) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "iss": "https://cluster", "sub": SUBJECT, "aud": [audience], "jti": "CANARY" });
    format!("{}.{}.CANARY", part(&json!({ "alg": "RS256" })), part(&claims))
}

/// Returns ServiceAccount "reader" with a token for this audience.
fn reader(gcp: &Gcp, audience: &str) -> Objects {
    gcp.trust_subject(SUBJECT);
    Objects::default().with("reader", audience, token(audience))
}

fn pool_audience() -> String {
    format!("https:{WORKLOAD_IDENTITY_PROVIDER}")
}

/// Returns a store that exchanges the token of ServiceAccount "reader" through a pool.
fn federated(gcp: &Gcp) -> Value {
    let auth = json!({ "workloadIdentityFederation": {
        "audience": WORKLOAD_IDENTITY_PROVIDER, "serviceAccountRef": { "name": "reader" },
    } });
    and(spec(&gcp.address()), "auth", auth)
}

/// Returns a store that uses the pool of a GKE cluster.
fn of_cluster(gcp: &Gcp) -> Value {
    let auth = json!({ "workloadIdentity": {
        "serviceAccountRef": { "name": "reader" }, "clusterLocation": "europe-west3", "clusterName": "test",
    } });
    and(spec(&gcp.address()), "auth", auth)
}

fn last_reader(gcp: &Gcp) -> String {
    gcp.calls().pop().unwrap().identity.unwrap()
}

#[tokio::test]
async fn service_account_key_logs_in_as_the_service_account() {
    let quiet = Quiet::listen();
    quiet.never("ya29.");
    let gcp = stocked().await;
    let store = Store::of(&gcp).await;
    assert_eq!(store.read("database").await, "CANARY-value");
    assert_eq!(last_reader(&gcp), SERVICE_ACCOUNT);
    assert_eq!(gcp.count("ExchangeJwt"), 1);
}

#[tokio::test]
async fn thousand_reads_log_in_once() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let store = Store::of(&gcp).await;
    for _ in 0..20 {
        let reads = join_all((0..50).map(|_| store.read("database"))).await;
        assert!(reads.iter().all(|value| value == "CANARY-value"));
    }
    assert_eq!(gcp.count("ExchangeJwt"), 1);
    assert_eq!(gcp.count("AccessSecretVersion"), 1000);
}

#[tokio::test]
async fn login_is_renewed_before_it_expires() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    // Logins are renewed after four fifths of their lifetime.
    gcp.lifetime(Duration::from_secs(5));
    let store = Store::of(&gcp).await;
    store.read("database").await;
    let begin = tokio::time::Instant::now();
    while gcp.count("ExchangeJwt") < 2 {
        store.read("database").await;
        assert!(begin.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begin.elapsed() > Duration::from_secs(3), "not at every read");
    store.read("database").await;
}

#[tokio::test]
async fn token_reads_as_a_principal_of_the_pool() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let store = Store::new(federated(&gcp), &reader(&gcp, &pool_audience())).await;
    store.read("database").await;
    store.read("database").await;
    assert_eq!(last_reader(&gcp), principal(SUBJECT));
    assert_eq!(gcp.count("ExchangeToken"), 1);
    assert_eq!(gcp.count("GenerateAccessToken"), 0);
}

#[tokio::test]
async fn store_can_set_the_audience_of_the_token() {
    let gcp = stocked().await;
    let mut spec = federated(&gcp);
    spec["auth"]["workloadIdentityFederation"]["serviceAccountRef"]["audience"] =
        json!(WORKLOAD_IDENTITY_PROVIDER);
    let objects = reader(&gcp, WORKLOAD_IDENTITY_PROVIDER);
    Store::new(spec, &objects).await.read("database").await;
}

#[tokio::test]
async fn store_with_an_email_impersonates_the_service_account() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    gcp.allow_impersonation(SUBJECT, EMAIL);
    let mut spec = federated(&gcp);
    spec["auth"]["workloadIdentityFederation"]["serviceAccountEmail"] = json!(EMAIL);
    let store = Store::new(spec, &reader(&gcp, &pool_audience())).await;
    store.read("database").await;
    store.read("database").await;
    assert_eq!(last_reader(&gcp), EMAIL);
    assert_eq!(gcp.count("GenerateAccessToken"), 1);
}

#[tokio::test]
async fn denied_impersonation_names_the_missing_role() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let mut spec = federated(&gcp);
    spec["auth"]["workloadIdentityFederation"]["serviceAccountEmail"] = json!(EMAIL);
    let store = Store::new(spec, &reader(&gcp, &pool_audience())).await;
    let error = store.refuse("database").await;
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    for part in [EMAIL, "\"reader\"", "roles/iam.workloadIdentityUser"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn oversized_login_response_is_named_by_its_request() {
    let gcp = stocked().await;
    let proxy = Proxy::start(&gcp.address()).await;
    let limit = 2 << 20;
    proxy.all(Fate::answer(200, &[], &"x".repeat(limit + 1)));
    let spec = and(federated(&gcp), "stsEndpoint", proxy.address());
    let store = Store::new(spec, &reader(&gcp, &pool_audience())).await;
    let error = store.refuse("database").await;
    assert_eq!(error.kind, ErrorKind::Malformed);
    assert_eq!(
        error.message,
        format!(
            "exchanging the token of ServiceAccount \"reader\": the response is longer than {limit} bytes (status 200)"
        )
    );
}

#[tokio::test]
async fn gke_token_reads_as_itself_or_as_its_annotation() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let objects = reader(&gcp, GKE_POOL);
    Store::new(of_cluster(&gcp), &objects)
        .await
        .read("database")
        .await;
    assert_eq!(last_reader(&gcp), gke_principal(SUBJECT));
    gcp.allow_impersonation(SUBJECT, EMAIL);
    objects.set("reader", ANNOTATION, EMAIL);
    Store::new(of_cluster(&gcp), &objects)
        .await
        .read("database")
        .await;
    assert_eq!(last_reader(&gcp), EMAIL);
    objects.set("reader", ANNOTATION, "shop@x/../../y");
    let error = Store::new(of_cluster(&gcp), &objects)
        .await
        .0
        .check(&lockstep_provider::Context::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert!(error.to_string().contains(ANNOTATION), "{error}");
}

#[tokio::test]
async fn untrusted_token_is_reported_with_its_audience() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let objects = Objects::default().with("reader", &pool_audience(), token(&pool_audience()));
    let error = Store::new(federated(&gcp), &objects)
        .await
        .refuse("database")
        .await;
    assert_eq!(error.kind, ErrorKind::Unauthenticated);
    assert!(error.to_string().contains(&pool_audience()), "{error}");
}

#[tokio::test]
async fn revoked_login_is_replaced_once_without_a_failure() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let store = Store::of(&gcp).await;
    store.read("database").await;
    gcp.revoke_all();
    let reads = join_all((0..20).map(|_| store.read("database"))).await;
    assert_eq!(reads.len(), 20);
    assert_eq!(gcp.count("ExchangeJwt"), 2, "one new login for all of them");
}

#[tokio::test]
async fn deleted_key_is_reported_and_its_successor_is_read() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let objects = objects(&gcp);
    let store = Store::new(spec(&gcp.address()), &objects).await;
    store.read("database").await;
    gcp.delete_service_account_key(SERVICE_ACCOUNT);
    gcp.revoke_all();
    let error = store.refuse("database").await;
    assert_eq!(error.kind, ErrorKind::Unauthenticated);
    assert!(error.to_string().contains("Secret \"gcp\""), "{error}");
    objects.set("gcp", "key.json", gcp.service_account_key().unwrap());
    store.read("database").await;
}

#[tokio::test]
async fn invalid_key_is_named_by_its_source_without_a_request() {
    let gcp = stocked().await;
    for text in [
        "",
        "CANARY",
        "{\"type\":\"authorized_user\",\"refresh_token\":\"CANARY\"}",
    ] {
        let objects = Objects::default().with("gcp", "key.json", text);
        let store = Store::new(spec(&gcp.address()), &objects).await;
        let error = store.refuse("database").await;
        assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
        assert!(
            error.to_string().contains("Secret \"gcp\", key \"key.json\""),
            "{error}"
        );
    }
    let far = gcp
        .service_account_key()
        .unwrap()
        .replace("127.0.0.1", "canary.example");
    let objects = Objects::default().with("gcp", "key.json", far);
    let error = Store::new(spec(&gcp.address()), &objects)
        .await
        .refuse("database")
        .await;
    assert!(error.to_string().contains("token_uri"), "{error}");
    assert!(gcp.calls().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn failing_token_service_is_reported_by_its_failure() {
    let _quiet = Quiet::listen();
    let gcp = stocked().await;
    let objects = reader(&gcp, &pool_audience()).with("gcp", "key.json", gcp.service_account_key().unwrap());
    for spec in [spec(&gcp.address()), federated(&gcp)] {
        let store = Store::new(spec, &objects).await;
        for (trouble, kind) in [
            (Trouble::Broken, ErrorKind::Unavailable),
            (Trouble::Cut, ErrorKind::Malformed),
            (Trouble::Html { status: 200 }, ErrorKind::Malformed),
            (Trouble::Html { status: 404 }, ErrorKind::Malformed),
            (
                Trouble::Throttled {
                    left: 1,
                    retry_after: Some(3),
                },
                ErrorKind::RateLimited,
            ),
        ] {
            gcp.token_trouble(Some(trouble.clone()));
            assert_eq!(store.check().await.unwrap_err().kind, kind, "{trouble:?}");
        }
        gcp.token_trouble(None);
        store.check().await.unwrap();
    }
    assert_eq!(
        gcp.count("AccessSecretVersion"),
        2,
        "nothing is asked without a login"
    );
}

#[tokio::test]
async fn secret_store_without_auth_is_rejected_without_a_request() {
    let gcp = stocked().await;
    let spec = and(spec(&gcp.address()), "auth", Value::Null);
    let error = Store::build(spec, &objects(&gcp), StoreKind::SecretStore)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert!(error.to_string().contains("ClusterSecretStores only"), "{error}");
    assert!(gcp.calls().is_empty());
}

#[tokio::test]
async fn two_identities_share_no_response_and_no_login() {
    let gcp = stocked().await;
    let other = "other@lockstep-test.iam.gserviceaccount.com";
    let objects = objects(&gcp).with("other", "key.json", gcp.service_account_key_of(other).unwrap());
    let mut second = spec(&gcp.address());
    second["auth"]["secretRef"]["secretAccessKeySecretRef"]["name"] = json!("other");
    let one = Store::new(spec(&gcp.address()), &objects).await;
    let two = Store::new(second, &objects).await;
    let reads = join_all([one.read("database"), two.read("database")]).await;
    assert_eq!(reads, ["CANARY-value", "CANARY-value"]);
    for identity in [SERVICE_ACCOUNT, other] {
        assert_eq!(gcp.count_of(identity, "ExchangeJwt"), 1);
        assert_eq!(
            gcp.count_of(identity, "AccessSecretVersion"),
            1,
            "each reads as itself"
        );
    }
    gcp.deny_name_to(other, "database");
    assert_eq!(one.read("database").await, "CANARY-value");
    assert_eq!(two.refuse("database").await.kind, ErrorKind::PermissionDenied);
}

/// Google's library finds the operator's own identity through the environment. So the test starts a
/// process with its own environment.
#[tokio::test]
async fn cluster_store_reads_with_the_operator_identity() {
    let gcp = stocked().await;
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "auth::read_with_the_operators_own_identity",
            "--ignored",
        ])
        .env_remove("GOOGLE_APPLICATION_CREDENTIALS")
        .env("HOME", "/nonexistent")
        .env("GCE_METADATA_HOST", gcp.host())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    assert_eq!(last_reader(&gcp), NODE);
    assert_eq!(gcp.count("AccessSecretVersion"), 20);
    assert_eq!(gcp.count("MetadataToken"), 1);
}

#[tokio::test]
#[ignore = "cluster_store_reads_with_the_operator_identity runs it"]
#[expect(clippy::disallowed_methods, reason = "the environment is what this is about")]
async fn read_with_the_operators_own_identity() {
    let _quiet = Quiet::listen();
    let address = format!("http://{}", std::env::var("GCE_METADATA_HOST").unwrap());
    let spec = and(spec(&address), "auth", Value::Null);
    let store = Store::build(spec, &Objects::default(), StoreKind::ClusterSecretStore)
        .await
        .unwrap();
    let reads = join_all((0..20).map(|_| store.read("database"))).await;
    assert!(reads.iter().all(|value| value == "CANARY-value"));
}
