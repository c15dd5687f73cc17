use lockstep_api::StoreProvider;
use serde_json::{Value, json};

use super::*;

const AUDIENCE: &str = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/clusters/providers/prod";

fn store(kind: StoreKind) -> StoreKey {
    StoreKey {
        kind,
        namespace: (kind == StoreKind::SecretStore).then(|| "shop".to_owned()),
        name: "gcp".to_owned(),
    }
}

fn key_auth() -> Value {
    json!({ "secretRef": { "secretAccessKeySecretRef": { "name": "gcp", "key": "key.json" } } })
}

fn federation() -> Value {
    json!({ "workloadIdentityFederation": { "audience": AUDIENCE, "serviceAccountRef": { "name": "reader" } } })
}

fn cluster() -> Value {
    json!({ "workloadIdentity": {
        "serviceAccountRef": { "name": "reader" }, "clusterLocation": "europe-west3", "clusterName": "prod",
    } })
}

fn config_of(kind: StoreKind, gcp: &Value) -> Result<Config, ProviderError> {
    let provider: StoreProvider = serde_json::from_value(json!({ "gcp": gcp })).unwrap();
    Config::new(&provider.gcp.unwrap(), &store(kind))
}

fn config(gcp: &Value) -> Result<Config, ProviderError> {
    config_of(StoreKind::SecretStore, gcp)
}

fn exchange(auth: &Value) -> Exchange {
    let config = config(&json!({ "projectID": "shop-prod", "auth": auth })).unwrap();
    match config.login.source {
        Source::Exchange(exchange) => exchange,
        _ => panic!("this exchanges a token"),
    }
}

#[test]
fn regional_secrets_have_their_own_endpoint_and_parent() {
    let project_ref = config(&json!({ "projectID": "shop-prod", "auth": key_auth() }));
    let project_ref = project_ref.unwrap().project_ref.unwrap();
    assert_eq!(project_ref.parent(), "projects/shop-prod");
    assert_eq!(
        project_ref.endpoint.as_str(),
        "https://secretmanager.googleapis.com/"
    );
    let spec = json!({ "projectID": "shop-prod", "location": "europe-west3", "auth": key_auth() });
    let project_ref = config(&spec).unwrap().project_ref.unwrap();
    assert_eq!(project_ref.parent(), "projects/shop-prod/locations/europe-west3");
    assert_eq!(
        project_ref.endpoint.as_str(),
        "https://secretmanager.europe-west3.rep.googleapis.com/"
    );
}

#[test]
fn default_token_audience_is_the_name_of_the_pool_provider() {
    let exchange = exchange(&federation());
    assert_eq!(exchange.token_audience, format!("https:{AUDIENCE}"));
    assert_eq!(exchange.audience, AUDIENCE);
    assert!(matches!(exchange.acts_as, ActsAs::Itself));
}

#[test]
fn audience_and_service_account_email_are_used() {
    let mut auth = federation();
    auth["workloadIdentityFederation"]["serviceAccountRef"]["audience"] = json!("google");
    auth["workloadIdentityFederation"]["serviceAccountEmail"] =
        json!("shop@shop-prod.iam.gserviceaccount.com");
    let exchange = exchange(&auth);
    assert_eq!(exchange.token_audience, "google");
    assert!(matches!(exchange.acts_as, ActsAs::Email(email) if email.starts_with("shop@")));
}

#[test]
fn gke_cluster_uses_the_pool_of_its_project() {
    let exchange = exchange(&cluster());
    assert_eq!(exchange.token_audience, "shop-prod.svc.id.goog");
    assert_eq!(
        exchange.audience,
        "identitynamespace:shop-prod.svc.id.goog:https://container.googleapis.com/v1/projects/shop-prod/locations/europe-west3/clusters/prod"
    );
    let mut other = cluster();
    other["workloadIdentity"]["clusterProjectID"] = json!("clusters");
    assert_eq!(self::exchange(&other).token_audience, "clusters.svc.id.goog");
}

#[test]
fn operator_identity_is_only_for_cluster_stores() {
    let spec = json!({ "projectID": "shop-prod" });
    let error = config(&spec).unwrap_err();
    assert!(error.message.contains("spec.provider.gcp.auth"), "{error}");
    let config = config_of(StoreKind::ClusterSecretStore, &spec).unwrap();
    assert!(matches!(config.login.source, Source::Ambient));
}

#[test]
fn invalid_configuration_names_its_field() {
    let kms = |name: &str| json!({ "kms": { "key": name }, "auth": key_auth() });
    let with = |field: &str, value: Value| {
        let mut spec = json!({ "projectID": "shop-prod", "auth": key_auth() });
        spec[field] = value;
        spec
    };
    let in_auth = |mut auth: Value, pointer: &str, value: &str| {
        *auth.pointer_mut(pointer).unwrap() = json!(value);
        json!({ "projectID": "shop-prod", "auth": auth })
    };
    let mut annotated = federation();
    annotated["workloadIdentityFederation"]["serviceAccountEmail"] = json!("");
    let cases = [
        (json!({ "auth": key_auth() }), "projectID"),
        (with("projectID", json!("shop/prod")), "projectID"),
        (with("projectID", json!("..")), "projectID"),
        (with("location", json!("evil.example/")), "location"),
        (with("endpoint", json!("https://user:pass@host")), "endpoint"),
        (with("endpoint", json!("https://host?a=b")), "endpoint"),
        (with("endpoint", json!("ftp://host")), "endpoint"),
        (with("stsEndpoint", json!("sts.googleapis.com")), "stsEndpoint"),
        (with("iamEndpoint", json!("https://ho st")), "iamEndpoint"),
        (with("auth", json!({})), "auth"),
        (
            with(
                "auth",
                json!({ "secretRef": key_auth()["secretRef"], "workloadIdentity": cluster()["workloadIdentity"] }),
            ),
            "auth",
        ),
        (kms("shop"), "kms.key"),
        (
            kms("projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"),
            "kms.key",
        ),
        (kms("projects/p/locations/l/keyRings/../cryptoKeys/k"), "kms.key"),
        (
            in_auth(
                federation(),
                "/workloadIdentityFederation/audience",
                "https://evil.example",
            ),
            "auth.workloadIdentityFederation.audience",
        ),
        (
            in_auth(
                annotated,
                "/workloadIdentityFederation/serviceAccountEmail",
                "shop@x/../y",
            ),
            "auth.workloadIdentityFederation.serviceAccountEmail",
        ),
        (
            in_auth(cluster(), "/workloadIdentity/clusterName", "a/b"),
            "auth.workloadIdentity.clusterName",
        ),
    ];
    for (spec, field) in cases {
        let error = config(&spec).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid);
        assert!(
            error.message.starts_with(&format!("spec.provider.gcp.{field} ")),
            "{field}: {error}"
        );
    }
}
