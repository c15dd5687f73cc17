use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::KeySize,
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::*;

const WHAT: &str = "Secret \"gcp\", key \"key.json\"";

fn pem(pair: &KeyPair) -> String {
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    // The label is in two parts, so that no scan for keys finds this file.
    let label = concat!("PRIVATE", " KEY");
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        BASE64_STANDARD.encode(der.as_ref())
    )
}

fn file(pem: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": "shop-prod",
        "private_key_id": "0123abcd",
        "private_key": pem,
        "client_email": "shop@shop-prod.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    })
}

fn read(file: &Value) -> Result<ServiceAccountKey, ProviderError> {
    ServiceAccountKey::read(&SecretValue::from(file.to_string()), WHAT)
}

#[test]
fn signed_jwt_contains_the_identity_and_lifetime() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let key = read(&file(&pem(&pair))).unwrap_or_else(|error| panic!("{error}"));
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let token = key.assertion(now).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref())
        .verify(
            signed.as_bytes(),
            &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap(),
        )
        .unwrap();
    let part = |text: &str| -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    let (head, claims) = signed.split_once('.').unwrap();
    assert_eq!(
        part(head),
        json!({ "alg": "RS256", "typ": "JWT", "kid": "0123abcd" })
    );
    assert_eq!(
        part(claims),
        json!({
            "iss": "shop@shop-prod.iam.gserviceaccount.com",
            "scope": SCOPE,
            "aud": "https://oauth2.googleapis.com/token",
            "iat": 1_767_225_600,
            "exp": 1_767_229_200,
        })
    );
}

#[test]
fn invalid_key_names_its_source_and_is_not_shown() {
    let good = file("CANARY");
    let mut cases = vec![(good.clone(), "private_key")];
    for (field, value) in [
        ("type", "external_account"),
        ("client_email", "CANARY"),
        ("client_email", "CANARY@x/y"),
        ("private_key_id", "CANARY key"),
        ("token_uri", "http://CANARY.example/token"),
        ("token_uri", "https://user:CANARY@oauth2.googleapis.com/token"),
        ("token_uri", "https://oauth2.googleapis.com/token?CANARY"),
        ("token_uri", "CANARY"),
    ] {
        let mut file = good.clone();
        file[field] = json!(value);
        cases.push((file, field));
    }
    for (file, field) in cases {
        let error = read(&file).err().unwrap();
        assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
        let text = format!("{error} {error:?}");
        assert!(
            text.contains(&format!("key.json\": {field}"))
                || text.contains(&format!("key.json\\\": {field}")),
            "{error}"
        );
        assert!(error.to_string().contains(&format!("{WHAT}: {field}")), "{error}");
        assert!(!text.contains("CANARY"), "{error}");
    }
    for text in ["", "CANARY", "{\"CANARY\":1}", "[]"] {
        let error = ServiceAccountKey::read(&SecretValue::from(text), WHAT)
            .err()
            .unwrap();
        assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
        assert!(error.to_string().contains(WHAT), "{error}");
        assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
    }
}

#[test]
fn signed_jwt_is_sent_only_over_tls() {
    for good in [
        "https://oauth2.googleapis.com/token",
        "http://127.0.0.1:8080/token",
        "http://[::1]/token",
        "http://localhost/token",
    ] {
        assert!(token_uri(good).is_some(), "{good}");
    }
    for bad in [
        "http://oauth2.googleapis.com/token",
        "http://127.0.0.1.example/token",
        "http://10.0.0.1/token",
        "file:///token",
        "ftp://127.0.0.1/token",
        "https://",
        "",
    ] {
        assert!(token_uri(bad).is_none(), "{bad}");
    }
}
