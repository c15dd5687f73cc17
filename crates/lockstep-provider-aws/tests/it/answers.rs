//! Responses to another request than the one that was sent.

use lockstep_provider::{ErrorKind, ProviderError, RemoteRef, RemoteSecret};
use lockstep_provider_testkit::at;
use serde_json::{Value, json};

use crate::bench::{Scripted, Store, and, objects, spec, text};

const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/db-AbCdEf";

async fn version(store: &Store, key: &str, version: &str) -> Result<String, ErrorKind> {
    let refs = [RemoteRef::version(at(key), version)];
    kind(&store.fetch(&refs).await[0])
}

async fn current(store: &Store, key: &str) -> Result<String, ErrorKind> {
    kind(&store.fetch_all(&[key]).await[0])
}

fn kind(result: &Result<RemoteSecret, ProviderError>) -> Result<String, ErrorKind> {
    match result {
        Ok(_) => Ok(text(result)),
        Err(error) => Err(error.kind),
    }
}

const ONE: &str = "11111111-1111-1111-1111-111111111111";
const TWO: &str = "22222222-2222-2222-2222-222222222222";

fn secret(name: &str, id: &str, stages: &[&str]) -> Value {
    json!({
        "Name": name, "ARN": format!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:{name}-AbCdEf"),
        "VersionId": id, "VersionStages": stages, "SecretString": "CANARY",
    })
}

#[tokio::test]
async fn other_secret_or_version_is_malformed() {
    let server = Scripted::start().await;
    let store = server.store("SecretsManager").await;
    let good = Ok("CANARY".to_owned());
    let bad = Err(ErrorKind::Malformed);
    let name = "shop/db";

    server.answer(200, &secret(name, ONE, &["AWSCURRENT"]).to_string());
    for key in [name, ARN] {
        assert_eq!(current(&store, key).await, good, "{key}");
    }
    let partial = ARN.trim_end_matches("-AbCdEf");
    for key in ["shop", "shop/other", &ARN.replace("db", "other"), partial] {
        assert_eq!(current(&store, key).await, bad, "{key}");
    }
    for (asked, want) in [
        (format!("uuid/{ONE}"), &good),
        (format!("uuid/{ONE}@AWSCURRENT"), &good),
        ("AWSCURRENT".to_owned(), &good),
        (format!("uuid/{TWO}"), &bad),
        (format!("uuid/{ONE}@AWSPREVIOUS"), &bad),
        (format!("uuid/{TWO}@AWSCURRENT"), &bad),
        ("AWSPREVIOUS".to_owned(), &bad),
    ] {
        assert_eq!(&version(&store, name, &asked).await, want, "{asked}");
    }

    for stages in [&["AWSPREVIOUS"][..], &[]] {
        server.answer(200, &secret(name, ONE, stages).to_string());
        assert_eq!(current(&store, name).await, bad, "{stages:?}");
    }
    server.answer(200, r#"{"SecretString":"CANARY"}"#);
    assert_eq!(current(&store, name).await, bad);
}

#[tokio::test]
async fn batch_with_another_version_is_malformed() {
    let server = Scripted::start().await;
    let store = server.store("SecretsManager").await;
    let values = json!([
        secret("a", ONE, &["AWSCURRENT"]),
        secret("b", ONE, &["AWSPREVIOUS"])
    ]);
    server.answer(200, &json!({ "SecretValues": values }).to_string());
    let results = store.fetch_all(&["a", "b"]).await;
    assert_eq!(text(&results[0]), "CANARY");
    assert_eq!(kind(&results[1]), Err(ErrorKind::Malformed));
}

#[tokio::test]
async fn secret_of_another_account_does_not_answer_an_equal_name() {
    let server = Scripted::start().await;
    let store = server.store("SecretsManager").await;
    let other = ARN.replace("123456789012", "210987654321");
    let mut foreign = secret("shop/db", ONE, &["AWSCURRENT"]);
    foreign["ARN"] = json!(other);
    foreign["SecretString"] = json!("CANARY-foreign");
    let own = secret("shop/db", TWO, &["AWSCURRENT"]);
    for values in [json!([foreign, own]), json!([own, foreign])] {
        server.answer(200, &json!({ "SecretValues": values, "Errors": [] }).to_string());
        let results = store.fetch_all(&[&other, "shop/db"]).await;
        assert_eq!(text(&results[0]), "CANARY-foreign");
        // Two secrets have the same name: neither is known to be the right one, and the next
        // response is not a secret.
        assert_eq!(kind(&results[1]), Err(ErrorKind::Malformed));
        let results = store.fetch_all(&["shop/db", "shop/other"]).await;
        assert_eq!(kind(&results[0]), Err(ErrorKind::Malformed));
    }
}

#[tokio::test]
async fn tags_of_another_secret_are_malformed() {
    let server = Scripted::start().await;
    let store = server.store("SecretsManager").await;
    let tags = json!([{ "Key": "team", "Value": "CANARY" }]);
    server.answer(200, &json!({ "Name": "other", "Tags": tags }).to_string());
    let refs = [RemoteRef::current(at("shop")).metadata()];
    assert_eq!(kind(&store.fetch(&refs).await[0]), Err(ErrorKind::Malformed));
}

#[tokio::test]
async fn other_parameter_or_version_is_malformed() {
    let server = Scripted::start().await;
    let store = server.store("ParameterStore").await;
    let parameter = |name: &str, version: u32, selector: Option<&str>| {
        let mut one = json!({ "Name": name, "Version": version, "Value": "CANARY", "Type": "String" });
        if let Some(selector) = selector {
            one["Selector"] = json!(selector);
        }
        json!({ "Parameters": [one] }).to_string()
    };
    let asked = |wanted: &str| RemoteRef::version(at("/db"), wanted);
    for (reference, answer, is_good) in [
        (RemoteRef::current(at("/db")), parameter("/db", 3, None), true),
        (RemoteRef::current(at("/db")), parameter("/other", 3, None), false),
        (
            RemoteRef::current(at("/db")),
            parameter("", 3, Some("/db")),
            false,
        ),
        (
            RemoteRef::current(at("/db")),
            parameter("/db", 3, Some(":3")),
            false,
        ),
        (asked("2"), parameter("/db", 2, Some(":2")), true),
        (asked("2"), parameter("/db", 2, None), true),
        (asked("2"), parameter("/db", 3, None), false),
        (asked("2"), parameter("/db", 3, Some(":2")), false),
        (asked("2"), parameter("/db", 2, Some(":3")), false),
        (asked("stable"), parameter("/db", 2, Some(":stable")), true),
        (asked("stable"), parameter("/db", 2, Some(":next")), false),
        (asked("stable"), parameter("/other", 2, Some(":stable")), false),
    ] {
        server.answer(200, &answer);
        let got = kind(&store.fetch(&[reference]).await[0]);
        let want = if is_good {
            Ok("CANARY".to_owned())
        } else {
            Err(ErrorKind::Malformed)
        };
        assert_eq!(got, want, "{answer}");
    }
}

#[tokio::test]
async fn decryption_with_another_key_is_malformed() {
    let server = Scripted::start().await;
    let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
    let arn = format!("arn:aws:kms:eu-central-1:123456789012:key/{id}");
    let other = arn.replace("1234abcd", "00000000");
    let alias = "arn:aws:kms:eu-central-1:123456789012:alias/shop";
    for (configured, answered, is_good) in [
        (arn.as_str(), json!(arn), true),
        (id, json!(arn), true),
        (id, json!(id), true),
        // The service returns the key, never the alias.
        ("alias/shop", json!(other), true),
        (alias, json!(other), true),
        (arn.as_str(), json!(other), false),
        (id, json!(other), false),
        (&id[1..], json!(arn), false),
        (arn.as_str(), json!(null), false),
        (id, json!(""), false),
    ] {
        let answer = json!({ "Plaintext": "Q0FOQVJZ", "CiphertextBlob": "Q0FOQVJZ", "KeyId": answered });
        server.answer(200, &answer.to_string());
        let kms = crate::kms::spec(server.address(), configured);
        let outcome = crate::kms::round_trip(kms).await;
        let want = if is_good {
            [None; 2]
        } else {
            [Some(ErrorKind::Malformed); 2]
        };
        assert_eq!(outcome, want, "{configured} {answered}");
    }
}

#[tokio::test]
async fn prefixed_name_is_compared_as_a_whole() {
    let server = Scripted::start().await;
    let spec = and(spec("SecretsManager", server.address()), "prefix", "team/");
    let store = Store::new(spec, &objects()).await;
    server.answer(200, &secret("team/db", ONE, &["AWSCURRENT"]).to_string());
    assert_eq!(store.read("db").await, "CANARY");
    server.answer(200, &secret("db", ONE, &["AWSCURRENT"]).to_string());
    assert_eq!(current(&store, "db").await, Err(ErrorKind::Malformed));
}
