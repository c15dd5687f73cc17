//! Tests which responses mean that a value is gone.

use lockstep_provider::{ErrorKind, FindQuery};
use serde_json::json;

use crate::bench::Scripted;

const SERVICES: [&str; 2] = ["SecretsManager", "ParameterStore"];

#[tokio::test]
async fn undocumented_404_is_malformed() {
    let server = Scripted::start().await;
    for service in SERVICES {
        let store = server.store(service).await;
        for (status, body) in [
            (404, ""),
            (404, "{}"),
            (404, "[]"),
            (404, r#"{"message":"not found"}"#),
            (404, r#"{"error":"no such route"}"#),
            (404, "<html>not found</html>"),
            (404, "<Error><Code>ResourceNotFoundException</Code></Error>"),
            (400, "<Error><Code>ResourceNotFoundException</Code></Error>"),
            (404, r#"{"__type":"UnknownOperationException"}"#),
            (404, r#"{"__type":"NotFound"}"#),
            (404, r#"{"__type":"NotFoundException"}"#),
            (404, r#"{"code":"ResourceNotFoundException"}"#),
            (400, r#"{"code":"ParameterNotFound"}"#),
            (400, r#"{"__type":"NotFoundException"}"#),
            (400, r#"{"__type":"QueueDoesNotExist"}"#),
            (403, r#"{"__type":"ResourceNotFoundException"}"#),
            (200, r#"{"__type":"ResourceNotFoundException"}"#),
        ] {
            server.answer(status, body);
            let error = store.refuse("shop").await;
            assert_eq!(
                error.kind,
                ErrorKind::Malformed,
                "{service} {status} {body}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn documented_codes_are_not_found() {
    let server = Scripted::start().await;
    for (service, code) in [
        ("SecretsManager", "ResourceNotFoundException"),
        (
            "SecretsManager",
            "com.amazonaws.secretsmanager#ResourceNotFoundException",
        ),
        ("ParameterStore", "ParameterNotFound"),
        ("ParameterStore", "ParameterVersionNotFound"),
    ] {
        let store = server.store(service).await;
        // moto returns 404.
        for status in [400, 404] {
            server.answer(
                status,
                &json!({ "__type": code, "Message": "CANARY" }).to_string(),
            );
            let error = store.refuse("shop").await;
            assert_eq!(error.kind, ErrorKind::NotFound, "{code} {status}: {error}");
        }
    }
}

#[tokio::test]
async fn search_never_reports_that_values_are_gone() {
    let server = Scripted::start().await;
    for (service, code) in [
        ("SecretsManager", "ResourceNotFoundException"),
        ("ParameterStore", "ParameterNotFound"),
    ] {
        server.answer(400, &json!({ "__type": code }).to_string());
        let found = server.store(service).await.find(FindQuery::default()).await;
        assert_eq!(found.unwrap_err().kind, ErrorKind::Malformed, "{service}");
    }
}

#[tokio::test]
async fn only_the_sentence_of_the_service_means_marked_for_deletion() {
    let server = Scripted::start().await;
    let store = server.store("SecretsManager").await;
    let sentence = "You can't perform this operation on the secret because it was marked for deletion.";
    for (text, kind) in [
        (sentence.to_owned(), ErrorKind::NotFound),
        (sentence.replace('\'', "\u{2019}"), ErrorKind::NotFound),
        (sentence.to_lowercase(), ErrorKind::ConfigInvalid),
        (
            format!("The secret CANARY is invalid. {sentence}"),
            ErrorKind::ConfigInvalid,
        ),
        (
            "You can't perform this operation on the secret pending deletion.".to_owned(),
            ErrorKind::ConfigInvalid,
        ),
        (
            "The secret shop/marked for deletion has no current version.".to_owned(),
            ErrorKind::ConfigInvalid,
        ),
        ("it was deleted".to_owned(), ErrorKind::ConfigInvalid),
        (String::new(), ErrorKind::ConfigInvalid),
    ] {
        let error = json!({ "__type": "InvalidRequestException", "Message": text });
        server.answer(400, &error.to_string());
        assert_eq!(store.refuse("shop").await.kind, kind, "{text}");
        let error = json!({ "SecretId": "a", "ErrorCode": "InvalidRequestException", "Message": text });
        server.answer(200, &json!({ "SecretValues": [], "Errors": [error] }).to_string());
        let results = store.fetch_all(&["a", "b"]).await;
        assert_eq!(results[0].as_ref().unwrap_err().kind, kind, "{text}");
    }
}
