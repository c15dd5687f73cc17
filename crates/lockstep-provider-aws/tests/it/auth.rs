//! Tests which credentials are used, how often logins happen, and what happens when they are
//! rejected.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use lockstep_api::StoreKind;
use lockstep_provider::ErrorKind;
use lockstep_testkit::aws::{ACCESS_KEY_ID, Aws};
use serde_json::{Value, json};

use crate::bench::{DIRECTIVES, Objects, Quiet, ROLE, Store, and, objects, spec, text};

/// The role that an annotation names.
const ANNOTATED: &str = "arn:aws:iam::123456789012:role/annotated";
const ANNOTATION: &str = "eks.amazonaws.com/role-arn";
const AUDIENCE: &str = "sts.amazonaws.com";

async fn stocked() -> Aws {
    let aws = Aws::start().await.unwrap();
    aws.put_secret("shop/database", "CANARY-value");
    aws
}

/// Returns `spec.provider.aws` of a store that exchanges the token of ServiceAccount "reader".
fn jwt(aws: &Aws) -> Value {
    let auth = json!({ "jwt": { "serviceAccountRef": { "name": "reader" } } });
    and(spec("SecretsManager", &aws.address()), "auth", auth)
}

fn reader(aws: &Aws, role: &str) -> Objects {
    aws.trust("CANARY.account.token", role);
    Objects::default().with("reader", AUDIENCE, "CANARY.account.token")
}

#[tokio::test]
async fn access_key_is_used_without_its_line_end() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let aws = stocked().await;
    let store = Store::of("SecretsManager", &aws).await;
    assert_eq!(store.read("shop/database").await, "CANARY-value");
    assert_eq!(aws.calls()[0].key.as_deref(), Some(ACCESS_KEY_ID));
    assert_eq!(aws.calls().len(), 1, "no login");
}

#[tokio::test]
async fn thousand_reads_assume_the_role_once() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let aws = stocked().await;
    let spec = and(spec("SecretsManager", &aws.address()), "role", ROLE);
    let store = Store::new(spec, &objects()).await;
    for _ in 0..20 {
        let reads = join_all((0..50).map(|_| store.read("shop/database"))).await;
        assert!(reads.iter().all(|value| value == "CANARY-value"));
    }
    assert_eq!(aws.count("AssumeRole"), 1);
    assert_eq!(aws.count("GetSecretValue"), 1000);
    let last = aws.calls().pop().unwrap();
    assert_eq!(last.role.as_deref(), Some(ROLE), "values are read as the role");
}

#[tokio::test]
async fn session_is_renewed_before_it_expires() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let aws = stocked().await;
    // Sessions are renewed after four fifths of their lifetime.
    aws.lifetime(Duration::from_secs(5));
    let spec = and(spec("SecretsManager", &aws.address()), "role", ROLE);
    let store = Store::new(spec, &objects()).await;
    store.read("shop/database").await;
    let begin = tokio::time::Instant::now();
    while aws.count("AssumeRole") < 2 {
        store.read("shop/database").await;
        assert!(begin.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begin.elapsed() > Duration::from_secs(3), "not at every read");
    store.read("shop/database").await;
}

#[tokio::test]
async fn external_id_and_session_tags_are_sent() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let aws = stocked().await;
    aws.require_external_id(ROLE, "CANARY-4711");
    let spec = and(spec("SecretsManager", &aws.address()), "role", ROLE);
    let refused = Store::new(spec.clone(), &objects())
        .await
        .refuse("shop/database")
        .await;
    assert_eq!(refused.kind, ErrorKind::PermissionDenied);
    assert!(refused.to_string().contains(ROLE), "{refused}");
    let spec = and(spec, "externalID", "CANARY-4711");
    let spec = and(spec, "sessionTags", json!([{ "key": "team", "value": "shop" }]));
    let spec = and(spec, "storeSessionTags", true);
    Store::new(spec, &objects()).await.read("shop/database").await;
    let tags: BTreeMap<_, _> = aws.calls().pop().unwrap().tags;
    let expected = [
        ("lockstep:namespace", "shop"),
        ("lockstep:store", "aws"),
        ("team", "shop"),
    ];
    assert_eq!(
        tags,
        expected
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    );
}

#[tokio::test]
async fn token_is_exchanged_for_the_role_of_the_store() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let aws = stocked().await;
    let objects = reader(&aws, ROLE);
    let store = Store::new(and(jwt(&aws), "role", ROLE), &objects).await;
    store.read("shop/database").await;
    store.read("shop/database").await;
    assert_eq!(aws.count("AssumeRoleWithWebIdentity"), 1);
    assert_eq!(aws.count("AssumeRole"), 0);
    assert_eq!(aws.calls().pop().unwrap().role.as_deref(), Some(ROLE));
}

#[tokio::test]
async fn token_is_exchanged_for_the_role_of_the_annotation() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let aws = stocked().await;
    let objects = reader(&aws, ANNOTATED).with("reader", ANNOTATION, ANNOTATED);
    Store::new(jwt(&aws), &objects).await.read("shop/database").await;
    assert_eq!(aws.calls().pop().unwrap().role.as_deref(), Some(ANNOTATED));
}

#[tokio::test]
async fn session_tags_require_the_role_of_the_annotation_first() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let aws = stocked().await;
    let objects = reader(&aws, ANNOTATED).with("reader", ANNOTATION, ANNOTATED);
    let spec = and(and(jwt(&aws), "role", ROLE), "storeSessionTags", true);
    Store::new(spec, &objects).await.read("shop/database").await;
    let calls = aws.calls();
    let assumed = calls.iter().find(|call| call.action == "AssumeRole").unwrap();
    assert_eq!(assumed.role.as_deref(), Some(ANNOTATED));
    let last = calls.last().unwrap();
    assert_eq!(last.role.as_deref(), Some(ROLE));
    assert_eq!(last.tags["lockstep:namespace"], "shop");
}

#[tokio::test]
async fn missing_role_names_where_it_can_be_set() {
    let aws = stocked().await;
    let objects = reader(&aws, ROLE);
    let error = Store::new(jwt(&aws), &objects)
        .await
        .refuse("shop/database")
        .await;
    assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
    assert!(error.to_string().contains(ANNOTATION), "{error}");
    assert!(error.to_string().contains("spec.provider.aws.role"), "{error}");
    let tagged = and(and(jwt(&aws), "role", ROLE), "storeSessionTags", true);
    let error = Store::new(tagged, &objects).await.refuse("shop/database").await;
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert!(error.to_string().contains(ANNOTATION), "{error}");
}

#[tokio::test]
async fn denied_token_exchange_explains_the_trust_policy() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let aws = stocked().await;
    let objects = reader(&aws, ANNOTATED);
    let store = Store::new(and(jwt(&aws), "role", ROLE), &objects).await;
    let error = store.refuse("shop/database").await;
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(
        error.to_string().contains("trust policy") && error.to_string().contains(AUDIENCE),
        "{error}"
    );
    objects.set("reader", AUDIENCE, "another");
    let error = store.refuse("shop/database").await;
    assert_eq!(error.kind, ErrorKind::Unauthenticated, "{error}");
}

#[tokio::test]
async fn revoked_session_is_replaced_once_without_a_failure() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let aws = stocked().await;
    let objects = reader(&aws, ROLE);
    let store = Store::new(and(jwt(&aws), "role", ROLE), &objects).await;
    store.read("shop/database").await;
    aws.revoke_all();
    let reads = join_all((0..20).map(|_| store.read("shop/database"))).await;
    assert_eq!(reads.len(), 20);
    assert_eq!(
        aws.count("AssumeRoleWithWebIdentity"),
        2,
        "one new login for all of them"
    );
}

#[tokio::test]
async fn access_key_replaced_in_its_secret_is_read_again() {
    let _quiet = Quiet::listen_to(DIRECTIVES);
    let aws = stocked().await;
    let objects = objects();
    let store = Store::new(spec("SecretsManager", &aws.address()), &objects).await;
    store.read("shop/database").await;
    aws.revoke_all();
    let error = store.refuse("shop/database").await;
    assert_eq!(error.kind, ErrorKind::Unauthenticated);
    aws.add_key("AKIANEW");
    objects.set("aws", "id", "AKIANEW");
    store.read("shop/database").await;
    assert_eq!(aws.calls().pop().unwrap().key.as_deref(), Some("AKIANEW"));
}

#[tokio::test]
async fn invalid_credentials_are_named_by_their_source() {
    let aws = stocked().await;
    for (key, value) in [
        ("id", "two words"),
        ("id", ""),
        ("secret", "CANARY\u{e4}"),
        ("secret", "\n"),
    ] {
        let objects = objects();
        objects.set("aws", key, value);
        let store = Store::new(spec("SecretsManager", &aws.address()), &objects).await;
        let error = store.refuse("shop/database").await;
        assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
        assert!(
            error
                .to_string()
                .contains(&format!("Secret \"aws\", key \"{key}\"")),
            "{error}"
        );
    }
    assert!(aws.calls().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn secret_store_without_auth_is_rejected_without_a_request() {
    let aws = stocked().await;
    let spec = and(spec("SecretsManager", &aws.address()), "auth", Value::Null);
    let error = Store::build(spec, &objects(), StoreKind::SecretStore)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert!(error.to_string().contains("ClusterSecretStores only"), "{error}");
    assert!(aws.calls().is_empty());
}

#[tokio::test]
async fn two_identities_share_no_response_and_no_login() {
    let aws = stocked().await;
    let role = |name: &str| format!("arn:aws:iam::123456789012:role/{name}");
    let store = async |name: &str| {
        let spec = and(spec("SecretsManager", &aws.address()), "role", role(name));
        Store::new(spec, &objects()).await
    };
    let (one, two) = (store("one").await, store("two").await);
    let ([one], [two]) = futures::future::join(
        async { <[_; 1]>::try_from(one.fetch_all(&["shop/database"]).await).unwrap() },
        async { <[_; 1]>::try_from(two.fetch_all(&["shop/database"]).await).unwrap() },
    )
    .await;
    assert_eq!(text(&one), text(&two));
    let mut roles: Vec<_> = aws
        .calls()
        .into_iter()
        .filter(|call| call.action == "GetSecretValue")
        .filter_map(|call| call.role)
        .collect();
    roles.sort();
    assert_eq!(roles, [role("one"), role("two")], "each reads as itself");
    assert_eq!(aws.count("AssumeRole"), 2);
}
