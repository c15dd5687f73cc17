//! The stand-in for Google Cloud: Google's own clients pass against it, and its troubles are what they say.

use std::time::Duration;

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

/// A ServiceAccount's token as a cluster writes it; nobody checks the signature.
fn subject_token(audience: &str) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "aud": [audience], "sub": SUBJECT, "exp": 4_000_000_000_u64 });
    format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(&claims))
}

#[tokio::test]
async fn googles_own_clients_pass() -> Result<()> {
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

    // the clients did what their steps say, over every way to a token
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
