use serde_json::json;

use super::*;

const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/database-AbCdEf";
const ID: &str = "EXAMPLE1-90ab-cdef-fedc-ba987EXAMPLE";

fn event(source: &str, kind: &str, detail: &Value) -> Value {
    json!({
        "version": "0", "id": "1", "account": "123456789012", "region": "eu-central-1", "resources": [],
        "source": source, "detail-type": kind, "time": "2026-11-27T07:00:00Z", "detail": detail,
    })
}

fn secret(event: &Value) -> EventKind {
    parse(&event.to_string(), AwsService::SecretsManager, "shop/").kind
}

fn call(name: &str, detail: Value) -> Value {
    let mut detail = detail;
    detail["eventName"] = name.into();
    detail["eventSource"] = "secretsmanager.amazonaws.com".into();
    event("aws.secretsmanager", "AWS API Call via CloudTrail", &detail)
}

fn keys(kind: &EventKind) -> Vec<&str> {
    let mut keys: Vec<&str> = kind.keys().iter().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn version(kind: &EventKind) -> Option<&str> {
    match kind {
        EventKind::VersionChanged(pin) => Some(&pin.version),
        _ => None,
    }
}

#[test]
fn secrets_manager_event_names_the_secret_and_its_version() {
    let detail = json!({ "name": "shop/database", "labelUpdated": "AWSCURRENT", "versionId": ID });
    let mut updated = event("aws.secretsmanager", "Secret Label Updated", &detail);
    let kind = secret(&updated);
    assert_eq!(keys(&kind), ["database"]);
    let pinned = format!("uuid/{ID}@AWSCURRENT");
    assert_eq!(version(&kind), Some(pinned.as_str()));
    updated["resources"] = json!([ARN]);
    let kind = secret(&updated);
    // with its suffix, the name could be that of another secret
    assert_eq!(keys(&kind), [ARN.trim_end_matches("-AbCdEf"), ARN, "database"]);
    let at = parse(&updated.to_string(), AwsService::SecretsManager, "").at;
    assert_eq!(at, Some("2026-11-27T07:00:00Z".parse().unwrap()));
}

#[test]
fn text_that_is_no_version_is_ignored() {
    let parsed = |id: &str| {
        let detail = json!({ "name": "shop/database", "labelUpdated": "AWSCURRENT", "versionId": id });
        secret(&event("aws.secretsmanager", "Secret Label Updated", &detail))
    };
    assert!(version(&parsed(ID)).is_some());
    for id in ["other@AWSPREVIOUS", "a/b", "", &"a".repeat(65)] {
        assert_eq!(version(&parsed(id)), None, "{id}");
        assert_eq!(keys(&parsed(id)), ["database"], "{id}");
    }
}

#[test]
fn custom_label_is_a_change_without_a_version_hint() {
    let detail = json!({ "name": "shop/database", "labelUpdated": "blue", "versionId": ID });
    let kind = secret(&event("aws.secretsmanager", "Secret Label Updated", &detail));
    assert_eq!((keys(&kind), version(&kind)), (vec!["database"], None));
}

#[test]
fn cloud_trail_call_names_the_secret_by_name_or_arn() {
    let response = json!({ "arn": ARN, "name": "shop/database", "versionId": ID });
    for asked in ["shop/database", ARN, ARN.trim_end_matches("-AbCdEf")] {
        let put = call(
            "PutSecretValue",
            json!({ "requestParameters": { "secretId": asked }, "responseElements": response }),
        );
        let kind = secret(&put);
        assert!(keys(&kind).contains(&"database"), "{asked}: {kind:?}");
        assert!(keys(&kind).contains(&ARN), "{asked}: {kind:?}");
        assert!(version(&kind).is_some_and(|version| version.contains(ID)));
    }
    let rotated = json!({ "eventName": "RotationSucceeded", "additionalEventData": { "SecretId": ARN } });
    let rotated = event("aws.secretsmanager", "AWS Service Event via CloudTrail", &rotated);
    let kind = secret(&rotated);
    assert!(keys(&kind).contains(&"database"), "{kind:?}");
    let moved = call(
        "UpdateSecretVersionStage",
        json!({ "requestParameters": { "secretId": ARN, "versionStage": "AWSCURRENT", "moveToVersionId": ID } }),
    );
    assert!(version(&secret(&moved)).is_some_and(|version| version.contains(ID)));
    let old_spelling = call("UpdateSecret", json!({ "responseElements": { "aRN": ARN } }));
    assert!(keys(&secret(&old_spelling)).contains(&"database"));
}

#[test]
fn pending_versions_failed_calls_and_reads_are_no_change() {
    let pending = json!({ "requestParameters": { "secretId": ARN, "versionStages": ["AWSPENDING"] } });
    let failed = json!({ "requestParameters": { "secretId": ARN }, "errorCode": "AccessDenied" });
    for untold in [
        call("PutSecretValue", pending),
        call("PutSecretValue", failed),
        // CloudTrail also records lockstep's own reads. If they woke objects, reads would never
        // end.
        call(
            "GetSecretValue",
            json!({ "requestParameters": { "secretId": ARN } }),
        ),
        call(
            "BatchGetSecretValue",
            json!({ "requestParameters": { "secretId": ARN } }),
        ),
        call(
            "DescribeSecret",
            json!({ "requestParameters": { "secretId": ARN } }),
        ),
        event(
            "aws.ssm",
            "Parameter Store Change",
            &json!({ "name": "/shop/database" }),
        ),
        event(
            "aws.secretsmanager",
            "Something New",
            &json!({ "name": "shop/database" }),
        ),
        // Outside of the store's prefix.
        event(
            "aws.secretsmanager",
            "Secret Label Updated",
            &json!({ "name": "other/database", "labelUpdated": "AWSCURRENT", "versionId": ID }),
        ),
    ] {
        assert_eq!(secret(&untold), EventKind::Irrelevant, "{untold}");
    }
}

#[test]
fn text_that_is_no_event_is_malformed() {
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"text\"",
        "{}",
        r#"{"source":"aws.secretsmanager"}"#,
        r#"{"source":"aws.ec2","detail-type":"EC2 Instance State-change Notification","detail":{}}"#,
        r#"{"source":"aws.secretsmanager","detail-type":"Secret Label Updated"}"#,
        r#"{"source":"aws.secretsmanager","detail-type":"AWS API Call via CloudTrail","detail":{}}"#,
        r#"{"source":1,"detail-type":[],"detail":"x"}"#,
    ] {
        let event = parse(body, AwsService::SecretsManager, "");
        assert_eq!(event.kind, EventKind::Malformed, "{body}");
    }
    let long = format!("{{\"source\":\"{}\"}}", "a".repeat(LONGEST));
    assert_eq!(
        parse(&long, AwsService::SecretsManager, "").kind,
        EventKind::Malformed
    );
    // Names with characters that the service does not allow are cut only at character boundaries.
    let odd = json!({ "eventName": "PutSecretValue", "requestParameters": { "secretId": "arn:aws:x:secret:\u{e4}\u{e4}\u{e4}\u{e4}" } });
    let odd = event("aws.secretsmanager", "AWS API Call via CloudTrail", &odd);
    parse(&odd.to_string(), AwsService::SecretsManager, "");
}

#[test]
fn parameters_are_named_by_name_and_arn() {
    let arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/shop/database";
    let parameter =
        |event: &Value, prefix: &str| parse(&event.to_string(), AwsService::ParameterStore, prefix).kind;
    let detail = json!({ "operation": "Update", "name": "/shop/database", "type": "SecureString" });
    let mut change = event("aws.ssm", "Parameter Store Change", &detail);
    assert_eq!(keys(&parameter(&change, "/shop/")), ["database"]);
    assert_eq!(keys(&parameter(&change, "")), ["/shop/database"]);
    change["resources"] = json!([arn]);
    assert_eq!(keys(&parameter(&change, "/shop/")), [arn, "database"]);
    let mut put = event(
        "aws.ssm",
        "AWS API Call via CloudTrail",
        &json!({ "eventName": "PutParameter", "requestParameters": { "name": "/shop/database" } }),
    );
    assert_eq!(keys(&parameter(&put, "/shop/")), ["database"]);
    put["detail"]["eventName"] = "GetParameters".into();
    assert_eq!(parameter(&put, "/shop/"), EventKind::Irrelevant);
    let gone =
        json!({ "eventName": "DeleteParameters", "requestParameters": { "names": ["/shop/a", "/shop/b"] } });
    let gone = event("aws.ssm", "AWS API Call via CloudTrail", &gone);
    assert_eq!(keys(&parameter(&gone, "/shop/")), ["a", "b"]);
}
