//! The stand-in for Google Cloud: Google's own clients pass against it, and its faults work as
//! described.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use lockstep_testkit::{
    Scratch,
    gcp::{self, Gcp, Trouble, VersionState},
    tools::{Tool, ensure_async},
};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/google/clients.py");
const SUBJECT: &str = "system:serviceaccount:shop:lockstep";

/// Creates a ServiceAccount's token in the format of a cluster. Its signature is not checked.
fn subject_token(audience: &str) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "aud": [audience], "sub": SUBJECT, "exp": 4_000_000_000_u64 });
    format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(&claims))
}

#[tokio::test]
async fn google_clients_pass() -> Result<()> {
    let program = ensure_async(Tool::GoogleClients).await?;
    let gcp = Gcp::start().await?;
    gcp.put_secret("aliased", "behind an alias");
    gcp.alias("aliased", "stable", 1);
    gcp.put_secret("forbidden", "CANARY");
    gcp.deny_name("forbidden");
    let denied_key = gcp.add_kms_key("denied");
    gcp.deny_name(&denied_key);
    gcp.trust_subject(SUBJECT);
    gcp.allow_impersonation(SUBJECT, gcp::SERVICE_ACCOUNT);
    let another: Value = serde_json::from_str(&gcp.service_account_key_of("other@example.com")?)?;
    let settings = json!({
        "address": gcp.address(),
        "project": gcp::PROJECT,
        "projectNumber": gcp::PROJECT_NUMBER,
        "location": gcp::LOCATION,
        "key": serde_json::from_str::<Value>(&gcp.service_account_key()?)?,
        "anotherKey": another["private_key"],
        "node": gcp::NODE,
        "kmsKey": gcp.add_kms_key("app"),
        "otherKmsKey": gcp.add_kms_key("other"),
        "deniedKmsKey": denied_key,
        "workloadIdentityProvider": gcp::WORKLOAD_IDENTITY_PROVIDER,
        "subjectToken": subject_token(&format!("https:{}", gcp::WORKLOAD_IDENTITY_PROVIDER)),
    });
    let folder = Scratch::new("gcp")?;
    let file = folder.path().join("settings.json");
    std::fs::write(&file, settings.to_string())?;

    let output = Command::new(program)
        .arg(CLIENTS)
        .arg(&file)
        .env("GCE_METADATA_HOST", gcp.host())
        .env("NO_GCE_CHECK", "true")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output()
        .await
        .context("start Python")?;
    let (said, complaints) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{complaints}");
    let steps: Vec<&str> = said.lines().collect();
    assert_eq!(steps.len(), 11, "{said}");

    // The clients did what their steps describe, with every way to get a token.
    for action in [
        "ExchangeJwt",
        "ExchangeToken",
        "GenerateAccessToken",
        "MetadataToken",
    ] {
        assert!(gcp.count(action) > 0, "{action}");
    }
    let federated = gcp::principal(SUBJECT);
    for identity in [gcp::SERVICE_ACCOUNT, gcp::NODE, &federated] {
        assert!(gcp.count_of(identity, "AccessSecretVersion") > 0, "{identity}");
    }
    Ok(())
}

/// A caller with or without a token.
struct Caller<'a> {
    gcp: &'a Gcp,
    http: reqwest::Client,
    token: Option<String>,
}

impl<'a> Caller<'a> {
    /// Creates a caller with a token of the metadata server.
    async fn of_node(gcp: &'a Gcp) -> Result<Self> {
        let mut caller = Self::without_token(gcp)?;
        caller.log_in().await?;
        Ok(caller)
    }

    fn without_token(gcp: &'a Gcp) -> Result<Self> {
        lockstep_testkit::init();
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self {
            gcp,
            http,
            token: None,
        })
    }

    async fn log_in(&mut self) -> Result<()> {
        let path = "computeMetadata/v1/instance/service-accounts/default/token";
        let answer = self
            .http
            .get(format!("{}/{path}", self.gcp.address()))
            .header("Metadata-Flavor", "Google")
            .send()
            .await?;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = answer.json().await?;
        assert_eq!(answer["token_type"], "Bearer");
        self.token = answer["access_token"].as_str().map(str::to_owned);
        assert!(self.token.is_some(), "{answer}");
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<Response> {
        let mut request = self
            .http
            .get(format!("{}/v1/projects/{path}", self.gcp.address()));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(request.send().await?)
    }

    async fn access(&self, name: &str) -> Result<Response> {
        self.get(&format!("{}/secrets/{name}/versions/latest:access", gcp::PROJECT))
            .await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Response> {
        let mut request = self.http.post(format!("{}/{path}", self.gcp.address()));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(request.json(body).send().await?)
    }
}

/// Asserts an error in Google's format, whose text no reader may show, and returns the reason of
/// its `ErrorInfo`.
async fn error(answer: Response, code: u16, status: &str) -> Result<Option<String>> {
    assert_eq!(answer.status().as_u16(), code);
    let answer: Value = answer.json().await?;
    assert_eq!(answer["error"]["code"], code);
    assert_eq!(answer["error"]["status"], status);
    let text = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(text.contains("CANARY"), "{text}");
    let details = &answer["error"]["details"][0];
    Ok(details["reason"].as_str().map(str::to_owned))
}

async fn value(answer: Response) -> Result<Value> {
    assert_eq!(answer.status(), StatusCode::OK);
    Ok(answer.json().await?)
}

#[tokio::test]
async fn every_fault_works_as_described() -> Result<()> {
    let gcp = Gcp::start().await?;
    gcp.put_secret("shop", "value");
    let caller = Caller::of_node(&gcp).await?;

    let retry_after = Some(7);
    gcp.trouble(Some(Trouble::Throttled { left: 1, retry_after }));
    let answer = caller.access("shop").await?;
    assert_eq!(answer.headers()["retry-after"], "7");
    let reason = error(answer, 429, "RESOURCE_EXHAUSTED").await?;
    assert_eq!(reason.as_deref(), Some("RATE_LIMIT_EXCEEDED"));
    value(caller.access("shop").await?).await?;
    gcp.trouble(Some(Trouble::Throttled {
        left: 1,
        retry_after: None,
    }));
    let answer = caller.access("shop").await?;
    assert!(!answer.headers().contains_key("retry-after"));

    gcp.trouble(Some(Trouble::EverySecond));
    let mut statuses = BTreeMap::<u16, usize>::new();
    for _ in 0..6 {
        *statuses
            .entry(caller.access("shop").await?.status().as_u16())
            .or_default() += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(200, 3), (429, 3)]));

    gcp.trouble(Some(Trouble::Broken));
    error(caller.access("shop").await?, 503, "UNAVAILABLE").await?;

    gcp.trouble(Some(Trouble::Html { status: 502 }));
    let answer = caller.access("shop").await?;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(answer.text().await?.starts_with("<!DOCTYPE html>"));

    gcp.trouble(Some(Trouble::Cut));
    let answer = caller.access("shop").await?;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(serde_json::from_str::<Value>(&answer.text().await?).is_err());

    gcp.trouble(Some(Trouble::NoPayload));
    assert!(
        value(caller.access("shop").await?)
            .await?
            .get("payload")
            .is_none()
    );

    let checksum = async || -> Result<Value> {
        let answer = value(caller.access("shop").await?).await?;
        Ok(answer["payload"]["dataCrc32c"].clone())
    };
    gcp.trouble(None);
    let right = checksum().await?;
    gcp.trouble(Some(Trouble::WrongChecksum));
    assert_ne!(checksum().await?, right);
    Ok(())
}

#[tokio::test]
async fn tokens_are_required_expire_and_can_be_revoked() -> Result<()> {
    let gcp = Gcp::start().await?;
    gcp.put_secret("shop", "value");
    let mut caller = Caller::without_token(&gcp)?;
    let reason = error(caller.access("shop").await?, 401, "UNAUTHENTICATED").await?;
    assert_eq!(reason.as_deref(), Some("CREDENTIALS_MISSING"));
    caller.token = Some("made-up".to_owned());
    let reason = error(caller.access("shop").await?, 401, "UNAUTHENTICATED").await?;
    assert_eq!(reason.as_deref(), Some("ACCESS_TOKEN_TYPE_UNSUPPORTED"));

    let expired = Some("ACCESS_TOKEN_EXPIRED");
    caller.log_in().await?;
    value(caller.access("shop").await?).await?;
    gcp.revoke_all();
    let reason = error(caller.access("shop").await?, 401, "UNAUTHENTICATED").await?;
    assert_eq!(reason.as_deref(), expired);

    gcp.lifetime(Duration::ZERO);
    caller.log_in().await?;
    let reason = error(caller.access("shop").await?, 401, "UNAUTHENTICATED").await?;
    assert_eq!(reason.as_deref(), expired);
    gcp.lifetime(Duration::from_secs(60));
    caller.log_in().await?;
    value(caller.access("shop").await?).await?;

    // Without its header, the metadata server returns nothing.
    let path = "computeMetadata/v1/instance/service-accounts/default/token";
    let answer = caller
        .http
        .get(format!("{}/{path}", gcp.address()))
        .send()
        .await?;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    Ok(())
}

#[tokio::test]
async fn denials_apply_to_methods_permissions_names_and_identities() -> Result<()> {
    let gcp = Gcp::start().await?;
    let key = gcp.add_kms_key("app");
    for name in ["shop", "bank"] {
        gcp.put_secret(name, "value");
    }
    let caller = Caller::of_node(&gcp).await?;
    let denied = Some("IAM_PERMISSION_DENIED".to_owned());
    let encrypt = async || {
        caller
            .post(&format!("v1/{key}:encrypt"), &json!({ "plaintext": "dmFsdWU=" }))
            .await
    };

    gcp.deny_action_to("someone@example.com", "AccessSecretVersion");
    gcp.deny_name_to(gcp::NODE, "bank");
    value(caller.access("shop").await?).await?;
    assert_eq!(
        error(caller.access("bank").await?, 403, "PERMISSION_DENIED").await?,
        denied
    );

    let sealed = value(encrypt().await?).await?;
    gcp.deny_action_to(gcp::NODE, "Encrypt");
    assert_eq!(error(encrypt().await?, 403, "PERMISSION_DENIED").await?, denied);
    let request = json!({ "ciphertext": sealed["ciphertext"] });
    let opened = value(caller.post(&format!("v1/{key}:decrypt"), &request).await?).await?;
    assert_eq!(opened["plaintext"], "dmFsdWU=");

    gcp.allow_only(&["secretmanager.versions.access"]);
    value(caller.access("shop").await?).await?;
    let list = format!("{}/secrets", gcp::PROJECT);
    error(caller.get(&list).await?, 403, "PERMISSION_DENIED").await?;
    gcp.deny_action("AccessSecretVersion");
    error(caller.access("shop").await?, 403, "PERMISSION_DENIED").await?;
    gcp.allow_action("AccessSecretVersion");
    value(caller.access("shop").await?).await?;
    Ok(())
}

#[tokio::test]
async fn calls_are_counted_by_action_and_identity() -> Result<()> {
    let gcp = Gcp::start().await?;
    gcp.put_secret("shop", "value");
    gcp.put_secret("locations/europe-west3/secrets/near", "other");
    let caller = Caller::of_node(&gcp).await?;
    for _ in 0..3 {
        caller.access("shop").await?;
    }
    let near = format!(
        "{}/locations/europe-west3/secrets/near/versions/1:access",
        gcp::PROJECT_NUMBER
    );
    value(caller.get(&near).await?).await?;
    assert_eq!(gcp.reads(), (4, 2));
    assert_eq!(gcp.count("AccessSecretVersion"), 4);
    assert_eq!(gcp.count_of(gcp::NODE, "AccessSecretVersion"), 4);
    assert_eq!(gcp.count_of(gcp::SERVICE_ACCOUNT, "AccessSecretVersion"), 0);
    let last = gcp.calls().pop().unwrap();
    assert_eq!(last.resource, "locations/europe-west3/secrets/near/versions/1");

    gcp.set_state("shop", 1, VersionState::Disabled);
    error(caller.access("shop").await?, 400, "FAILED_PRECONDITION").await?;
    gcp.delete("shop");
    error(caller.access("shop").await?, 404, "NOT_FOUND").await?;
    gcp.forget_calls();
    assert_eq!(gcp.calls(), []);
    Ok(())
}

#[tokio::test]
async fn gke_federation_tokens_require_its_audiences() -> Result<()> {
    let gcp = Gcp::start().await?;
    gcp.put_secret("shop", "value");
    gcp.trust_subject(SUBJECT);
    let mut caller = Caller::without_token(&gcp)?;
    let gke = format!("identitynamespace:{}:{}", gcp::GKE_POOL, gcp::GKE_CLUSTER);
    let request = |audience: &str, token: &str| {
        json!({
            "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": audience,
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
            "subjectToken": token,
            "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt",
        })
    };
    let good = subject_token(gcp::GKE_POOL);
    for (audience, token, expected) in [
        (
            gke.as_str(),
            subject_token("https://kubernetes.default.svc"),
            "invalid_grant",
        ),
        (gcp::WORKLOAD_IDENTITY_PROVIDER, good.clone(), "invalid_grant"),
        ("//iam.googleapis.com/another", good.clone(), "invalid_target"),
    ] {
        let answer = caller.post("v1/token", &request(audience, &token)).await?;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let answer: Value = answer.json().await?;
        assert_eq!(answer["error"], expected, "{audience}");
        assert!(answer["error_description"].to_string().contains("CANARY"));
    }
    let answer = value(caller.post("v1/token", &request(&gke, &good)).await?).await?;
    caller.token = answer["access_token"].as_str().map(str::to_owned);
    value(caller.access("shop").await?).await?;
    assert_eq!(
        gcp.count_of(&gcp::gke_principal(SUBJECT), "AccessSecretVersion"),
        1
    );

    // It may impersonate a service account only if that was allowed.
    let path = format!(
        "v1/projects/-/serviceAccounts/{}:generateAccessToken",
        gcp::SERVICE_ACCOUNT
    );
    let request = json!({ "scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "600s" });
    error(caller.post(&path, &request).await?, 403, "PERMISSION_DENIED").await?;
    gcp.allow_impersonation(SUBJECT, gcp::SERVICE_ACCOUNT);
    let answer = value(caller.post(&path, &request).await?).await?;
    caller.token = answer["accessToken"].as_str().map(str::to_owned);
    value(caller.access("shop").await?).await?;
    assert_eq!(gcp.count_of(gcp::SERVICE_ACCOUNT, "AccessSecretVersion"), 1);

    gcp.token_trouble(Some(Trouble::Broken));
    error(caller.post(&path, &request).await?, 503, "UNAVAILABLE").await?;
    value(caller.access("shop").await?).await?;
    Ok(())
}
