//! The stand-in for AWS rejects what AWS would reject, with AWS' own error codes, and its faults
//! work as described.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lockstep_testkit::aws::{ACCESS_KEY_ID, Aws, REGION, Trouble};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

const ROLE: &str = "arn:aws:iam::123456789012:role/shop";
/// An access key whose signatures are not checked.
const ANYBODY: &str = "AKIAANYBODY";

/// A caller over plain HTTP.
struct Caller<'a> {
    aws: &'a Aws,
    http: reqwest::Client,
    authorization: Option<String>,
    token: Option<String>,
}

impl<'a> Caller<'a> {
    fn with(aws: &'a Aws, authorization: Option<String>) -> Result<Self> {
        lockstep_testkit::init();
        Ok(Self {
            aws,
            http: reqwest::Client::builder().no_proxy().build()?,
            authorization,
            token: None,
        })
    }

    /// Creates a caller with this key and an invalid signature.
    fn of(aws: &'a Aws, key: &str) -> Result<Self> {
        let scope = format!("{key}/20261126/{REGION}/service/aws4_request");
        let text = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
        Self::with(aws, Some(text))
    }

    fn request(&self) -> reqwest::RequestBuilder {
        let mut request = self.http.post(self.aws.address());
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        if let Some(token) = &self.token {
            request = request.header("X-Amz-Security-Token", token);
        }
        request
    }

    async fn call(&self, target: &str, body: &Value) -> Result<Response> {
        let request = self.request().header("X-Amz-Target", target);
        Ok(request.body(body.to_string()).send().await?)
    }

    /// Returns the response to a call that must succeed.
    async fn answer(&self, target: &str, body: Value) -> Result<Value> {
        let answer = self.call(target, &body).await?;
        assert_eq!(answer.status(), StatusCode::OK, "{target} {body}");
        Ok(answer.json().await?)
    }

    /// Returns the error code of a call that must fail. Its text is one that no reader may show.
    async fn code(&self, target: &str, body: Value) -> Result<String> {
        let answer = self.call(target, &body).await?;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{target} {body}");
        let answer: Value = answer.json().await?;
        let text = answer["message"].as_str().unwrap_or_default();
        assert!(text.contains("CANARY"), "{text}");
        Ok(answer["__type"].as_str().unwrap_or_default().to_owned())
    }

    /// Calls the token service and returns status and XML.
    async fn sts(&self, form: &str) -> Result<(StatusCode, String)> {
        let answer = self.request().body(form.to_owned()).send().await?;
        Ok((answer.status(), answer.text().await?))
    }
}

/// Returns the text of an XML element.
fn element<'a>(xml: &'a str, name: &str) -> Result<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>")).context("it begins")?;
    let (text, _) = rest.split_once(&format!("</{name}>")).context("it ends")?;
    Ok(text)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("/shop/{number}")).collect()
}

async fn stocked() -> Result<Aws> {
    let aws = Aws::start().await?;
    aws.add_key(ANYBODY);
    for name in names(25) {
        aws.put_secret(&name, "value");
        aws.put_parameter(&name, "value");
    }
    Ok(aws)
}

#[tokio::test]
async fn batch_accepts_at_most_twenty_ids() -> Result<()> {
    let (aws, target) = (stocked().await?, "secretsmanager.BatchGetSecretValue");
    let caller = Caller::of(&aws, ANYBODY)?;
    let answer = caller
        .answer(target, json!({ "SecretIdList": names(20) }))
        .await?;
    assert_eq!(answer["SecretValues"].as_array().map(Vec::len), Some(20));
    for count in [0, 21] {
        let code = caller
            .code(target, json!({ "SecretIdList": names(count) }))
            .await?;
        assert_eq!(code, "ValidationException", "{count} ids");
    }
    Ok(())
}

#[tokio::test]
async fn call_accepts_at_most_ten_parameter_names() -> Result<()> {
    let (aws, target) = (stocked().await?, "AmazonSSM.GetParameters");
    let caller = Caller::of(&aws, ANYBODY)?;
    let answer = caller.answer(target, json!({ "Names": names(10) })).await?;
    assert_eq!(answer["Parameters"].as_array().map(Vec::len), Some(10));
    for count in [0, 11] {
        let code = caller.code(target, json!({ "Names": names(count) })).await?;
        assert_eq!(code, "ValidationException", "{count} names");
    }
    Ok(())
}

#[tokio::test]
async fn pages_have_a_size_and_reject_unknown_tokens() -> Result<()> {
    let aws = stocked().await?;
    let caller = Caller::of(&aws, ANYBODY)?;
    let services = [
        (
            "secretsmanager.ListSecrets",
            "SecretList",
            100,
            "InvalidParameterException",
            "InvalidNextTokenException",
        ),
        (
            "AmazonSSM.GetParametersByPath",
            "Parameters",
            10,
            "ValidationException",
            "InvalidNextToken",
        ),
        (
            "AmazonSSM.DescribeParameters",
            "Parameters",
            50,
            "ValidationException",
            "InvalidNextToken",
        ),
    ];
    for (target, list, most, too_large, bad_token) in services {
        let mut request = json!({ "Path": "/shop", "MaxResults": 7 });
        let mut sizes = Vec::new();
        loop {
            let page = caller.answer(target, request.clone()).await?;
            sizes.push(page[list].as_array().map_or(0, Vec::len));
            match &page["NextToken"] {
                Value::Null => break,
                token => request["NextToken"] = token.clone(),
            }
        }
        assert_eq!(sizes, [7, 7, 7, 4], "{target}");
        for size in [0, most + 1] {
            let request = json!({ "Path": "/shop", "MaxResults": size });
            assert_eq!(caller.code(target, request).await?, too_large, "{target} {size}");
        }
        let request = json!({ "Path": "/shop", "NextToken": "nonsense" });
        assert_eq!(caller.code(target, request).await?, bad_token, "{target}");
    }
    let request = json!({ "SecretIdList": names(2), "NextToken": "nonsense" });
    let code = caller.code("secretsmanager.BatchGetSecretValue", request).await?;
    assert_eq!(code, "InvalidNextTokenException");
    Ok(())
}

#[tokio::test]
async fn missing_or_invalid_signature_is_rejected() -> Result<()> {
    let aws = stocked().await?;
    let incomplete =
        format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/20261126/{REGION}/service/aws4_request");
    for (caller, code, sts_code) in [
        (
            Caller::with(&aws, None)?,
            "MissingAuthenticationTokenException",
            "MissingAuthenticationToken",
        ),
        (
            Caller::with(&aws, Some(incomplete))?,
            "IncompleteSignatureException",
            "IncompleteSignature",
        ),
        (
            Caller::of(&aws, "AKIANOBODY")?,
            "UnrecognizedClientException",
            "InvalidClientTokenId",
        ),
        (
            Caller::of(&aws, ACCESS_KEY_ID)?,
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
        ),
    ] {
        for (target, request) in [
            ("secretsmanager.GetSecretValue", json!({ "SecretId": "/shop/0" })),
            ("AmazonSSM.GetParameters", json!({ "Names": ["/shop/0"] })),
        ] {
            assert_eq!(caller.code(target, request).await?, code, "{target}");
        }
        let (status, xml) = caller.sts("Action=GetCallerIdentity").await?;
        assert_eq!(
            (status, element(&xml, "Code")?),
            (StatusCode::FORBIDDEN, sts_code)
        );
    }
    Ok(())
}

#[tokio::test]
async fn session_needs_its_token_and_secret_and_expires() -> Result<()> {
    let (aws, target) = (stocked().await?, "secretsmanager.GetSecretValue");
    let anybody = Caller::of(&aws, ANYBODY)?;
    let session = async || -> Result<Caller<'_>> {
        let (status, xml) = anybody.sts(&format!("Action=AssumeRole&RoleArn={ROLE}")).await?;
        assert_eq!(status, StatusCode::OK);
        let mut caller = Caller::of(&aws, element(&xml, "AccessKeyId")?)?;
        caller.token = Some(element(&xml, "SessionToken")?.to_owned());
        Ok(caller)
    };
    let request = json!({ "SecretId": "/shop/0" });
    let mut caller = session().await?;
    // The key and the token are known, but the signature is not made with the secret.
    assert_eq!(
        caller.code(target, request.clone()).await?,
        "InvalidSignatureException"
    );
    caller.token = None;
    assert_eq!(
        caller.code(target, request.clone()).await?,
        "UnrecognizedClientException"
    );
    aws.lifetime(Duration::ZERO);
    let caller = session().await?;
    assert_eq!(caller.code(target, request).await?, "ExpiredTokenException");
    let (status, xml) = caller.sts("Action=GetCallerIdentity").await?;
    assert_eq!(
        (status, element(&xml, "Code")?),
        (StatusCode::FORBIDDEN, "ExpiredToken")
    );
    Ok(())
}

/// The test itself adds values, not over HTTP, so a value that the service would not store is a
/// mistake in the test.
#[tokio::test]
async fn oversized_value_fails_the_test_unless_requested() -> Result<()> {
    let (aws, target) = (stocked().await?, "secretsmanager.GetSecretValue");
    let caller = Caller::of(&aws, ANYBODY)?;
    let (largest, larger) = ("x".repeat(65_536), "x".repeat(65_537));
    aws.put_secret("large", &largest);
    let answer = caller.answer(target, json!({ "SecretId": "large" })).await?;
    assert_eq!(answer["SecretString"], largest);
    assert!(catch_unwind(AssertUnwindSafe(|| aws.put_secret("larger", &larger))).is_err());
    assert!(
        catch_unwind(AssertUnwindSafe(
            || aws.put_secret_bytes("larger", larger.as_bytes())
        ))
        .is_err()
    );
    let code = caller.code(target, json!({ "SecretId": "larger" })).await?;
    assert_eq!(code, "ResourceNotFoundException", "nothing was stored");
    aws.put_oversized_secret("larger", &larger);
    let answer = caller.answer(target, json!({ "SecretId": "larger" })).await?;
    assert_eq!(answer["SecretString"], larger);

    aws.put_parameter("large", &larger[..8192]);
    for length in [0, 8193] {
        assert!(catch_unwind(AssertUnwindSafe(|| aws.put_parameter("larger", &larger[..length]))).is_err());
    }
    Ok(())
}

#[tokio::test]
async fn every_fault_works_as_described() -> Result<()> {
    let (aws, target) = (stocked().await?, "secretsmanager.BatchGetSecretValue");
    let caller = Caller::of(&aws, ANYBODY)?;
    let request = json!({ "SecretIdList": names(4) });

    let retry_after = Some(7);
    aws.trouble(Some(Trouble::Throttled { left: 1, retry_after }));
    let answer = caller.call(target, &request).await?;
    assert_eq!(answer.headers()["retry-after"], "7");
    assert_eq!(answer.json::<Value>().await?["__type"], "ThrottlingException");
    caller.answer(target, request.clone()).await?;

    aws.trouble(Some(Trouble::EverySecond));
    let mut refused = 0;
    for _ in 0..6 {
        let answer = caller.call(target, &request).await?;
        refused += usize::from(answer.status() == StatusCode::BAD_REQUEST);
    }
    assert_eq!(refused, 3);

    aws.trouble(Some(Trouble::Broken));
    let answer = caller.call(target, &request).await?;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);

    aws.trouble(Some(Trouble::Xml {
        status: 503,
        code: "SlowDown",
    }));
    let answer = caller.call(target, &request).await?;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(element(&answer.text().await?, "Code")?, "SlowDown");

    aws.trouble(Some(Trouble::Cut));
    let answer = caller.call(target, &request).await?;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(serde_json::from_str::<Value>(&answer.text().await?).is_err());

    aws.trouble(Some(Trouble::Partial));
    let answer = caller.answer(target, request.clone()).await?;
    assert_eq!(answer["SecretValues"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer["Errors"], json!([]));

    aws.trouble(Some(Trouble::NoBatches));
    assert_eq!(
        caller.code(target, request.clone()).await?,
        "UnknownOperationException"
    );
    caller
        .answer("secretsmanager.GetSecretValue", json!({ "SecretId": "/shop/0" }))
        .await?;

    aws.trouble(None);
    aws.refuse_id("/shop/2");
    assert_eq!(caller.code(target, request).await?, "InvalidParameterException");
    let code = caller
        .code("secretsmanager.GetSecretValue", json!({ "SecretId": "/shop/2" }))
        .await?;
    assert_eq!(code, "InvalidParameterException");
    Ok(())
}
