use lockstep_provider::ErrorKind;
use serde_json::{Value, json};

use super::*;

fn store(kind: StoreKind) -> StoreKey {
    StoreKey {
        kind,
        namespace: (kind == StoreKind::SecretStore).then(|| "shop".to_owned()),
        name: "aws".to_owned(),
    }
}

fn spec(more: &Value) -> AwsProvider {
    let key = |key: &str| json!({ "name": "aws", "key": key });
    let mut spec = json!({
        "service": "SecretsManager",
        "region": "eu-central-1",
        "auth": { "secretRef": { "accessKeyIDSecretRef": key("id"), "secretAccessKeySecretRef": key("secret") } },
    });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

fn config(more: &Value) -> Result<Config, ProviderError> {
    Config::new(&spec(more), &store(StoreKind::SecretStore))
}

const ROLE: &str = "arn:aws:iam::123456789012:role/team/shop";

#[test]
fn invalid_configuration_names_its_field() {
    let cases = [
        (json!({ "region": "eu.evil.example" }), "region"),
        (json!({ "region": "s3" }), "region"),
        (json!({ "region": "s3-us-west-2" }), "region"),
        (json!({ "region": "" }), "region"),
        (json!({ "role": "shop" }), "role"),
        (json!({ "role": "arn:aws:iam::123456789012:user/shop" }), "role"),
        (json!({ "role": "arn:aws:iam::12345:role/shop" }), "role"),
        (json!({ "externalID": "4711" }), "role"),
        (
            json!({ "sessionTags": [{ "key": "team", "value": "shop" }] }),
            "role",
        ),
        (json!({ "storeSessionTags": true }), "role"),
        (
            json!({ "role": ROLE, "sessionTags": [{ "key": "LockStep:namespace", "value": "other" }] }),
            "sessionTags",
        ),
        (
            json!({ "role": ROLE, "sessionTags": [{ "key": "loc\u{212a}step:namespace", "value": "other" }] }),
            "sessionTags",
        ),
        (
            json!({ "role": ROLE, "sessionTags": [{ "key": "a", "value": "1" }, { "key": "a", "value": "2" }] }),
            "sessionTags",
        ),
        (json!({ "endpoint": "ftp://host" }), "endpoint"),
        (json!({ "endpoint": "https://" }), "endpoint"),
        (json!({ "endpoint": "https://canary:canary@host" }), "endpoint"),
        (json!({ "endpoint": "https://host?query" }), "endpoint"),
        (json!({ "endpoint": "https://ho st" }), "endpoint"),
        (json!({ "stsEndpoint": "host" }), "stsEndpoint"),
        (json!({ "prefix": "a\nb" }), "prefix"),
        (json!({ "auth": {} }), "auth"),
        (json!({ "auth": null }), "auth"),
    ];
    for (more, field) in cases {
        let error = config(&more).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{more}");
        let begins = format!("spec.provider.aws.{field} ");
        assert!(error.message.starts_with(&begins), "{more}: {error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn operator_identity_is_only_for_cluster_stores() {
    let spec = spec(&json!({ "auth": null }));
    assert!(Config::new(&spec, &store(StoreKind::SecretStore)).is_err());
    let config = Config::new(&spec, &store(StoreKind::ClusterSecretStore)).unwrap();
    assert!(matches!(config.login.source, Source::Ambient));
}

#[test]
fn store_session_tags_are_added_on_request() {
    let tags = |kind| {
        let spec = spec(&json!({
            "role": ROLE,
            "sessionTags": [{ "key": "team", "value": "shop" }],
            "storeSessionTags": true,
        }));
        Config::new(&spec, &store(kind)).unwrap().login.tags
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        tags(StoreKind::SecretStore),
        [
            pair("team", "shop"),
            pair("lockstep:namespace", "shop"),
            pair("lockstep:store", "aws")
        ]
    );
    assert_eq!(
        tags(StoreKind::ClusterSecretStore),
        [pair("team", "shop"), pair("lockstep:store", "aws")]
    );
}

#[test]
fn session_is_named_after_the_store() {
    assert_eq!(config(&json!({})).unwrap().login.session, "lockstep-shop-aws");
    let long = StoreKey {
        name: "a".repeat(253),
        ..store(StoreKind::ClusterSecretStore)
    };
    let name = session_name(&long);
    assert!(name.starts_with("lockstep-cluster-aaa") && name.len() == 64);
}

#[test]
fn trailing_slash_of_an_endpoint_is_removed() {
    let endpoint = |text: &str| config(&json!({ "endpoint": text })).unwrap().endpoint;
    assert_eq!(
        endpoint("http://127.0.0.1:4566/").as_deref(),
        Some("http://127.0.0.1:4566")
    );
    assert_eq!(endpoint("https://host/aws/").as_deref(), Some("https://host/aws"));
    assert_eq!(endpoint(""), None);
}

#[test]
fn debug_shows_location_and_identity_but_no_credential() {
    let config = config(&json!({ "role": ROLE, "externalID": "canary" })).unwrap();
    let text = format!("{config:?}");
    assert!(text.contains(ROLE) && text.contains("eu-central-1"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}
