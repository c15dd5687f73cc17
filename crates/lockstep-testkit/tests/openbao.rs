//! Tests the OpenBao harness with a real server.

use anyhow::Result;
use lockstep_testkit::OpenBao;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn values_are_written_and_survive_a_restart() -> Result<()> {
    let bao = OpenBao::start().await?;
    assert_eq!(
        bao.put_kv2("shop/database", json!({ "password": "first" }))
            .await?,
        1
    );
    assert_eq!(
        bao.put_kv2("shop/database", json!({ "password": "second" }))
            .await?,
        2
    );
    bao.enable_kv("plain", 1).await?;
    bao.put_kv1("plain/smtp", json!({ "password": "third" })).await?;

    bao.restart().await?;

    let answer = bao.get("secret/data/shop/database").await?;
    assert_eq!(answer.pointer("/data/data/password"), Some(&json!("second")));
    let old = bao.get("secret/data/shop/database?version=1").await?;
    assert_eq!(old.pointer("/data/data/password"), Some(&json!("first")));
    assert_eq!(
        bao.get("plain/smtp").await?.pointer("/data/password"),
        Some(&json!("third"))
    );
    Ok(())
}

#[tokio::test]
async fn sealed_or_stopped_server_serves_nothing_until_it_is_back() -> Result<()> {
    let bao = OpenBao::start().await?;
    bao.put_kv2("shop/database", json!({ "password": "first" }))
        .await?;
    bao.seal().await?;
    let sealed = bao.get("secret/data/shop/database").await.unwrap_err();
    assert!(format!("{sealed:#}").contains("503"), "{sealed:#}");
    bao.unseal().await?;
    bao.get("secret/data/shop/database").await?;

    bao.stop();
    assert!(bao.get("secret/data/shop/database").await.is_err());
    bao.start_sealed().await?;
    assert!(bao.get("secret/data/shop/database").await.is_err());
    bao.unseal().await?;
    bao.get("secret/data/shop/database").await?;
    Ok(())
}

#[tokio::test]
async fn token_reads_only_what_its_policy_allows() -> Result<()> {
    let bao = OpenBao::start().await?;
    bao.put_kv2("shop/database", json!({ "password": "first" }))
        .await?;
    bao.put_kv2("billing/database", json!({ "password": "other" }))
        .await?;
    bao.put_policy("shop", r#"path "secret/data/shop/*" { capabilities = ["read"] }"#)
        .await?;
    let token = bao.create_token(&["shop"]).await?;
    bao.send(Method::GET, "secret/data/shop/database", None, Some(&token))
        .await?;
    let refused = bao
        .send(Method::GET, "secret/data/billing/database", None, Some(&token))
        .await
        .unwrap_err();
    assert!(format!("{refused:#}").contains("403"), "{refused:#}");
    Ok(())
}

#[tokio::test]
async fn client_certificate_logs_in_over_tls() -> Result<()> {
    let bao = OpenBao::builder().tls().start().await?;
    assert!(bao.address().starts_with("https://"));
    let authority = bao.authority().expect("a server with TLS has an authority");
    bao.enable_auth("cert").await?;
    bao.post(
        "auth/cert/certs/shop",
        json!({ "certificate": authority.pem(), "allowed_common_names": ["shop"] }),
    )
    .await?;
    let login = async |common_name: &str| -> Result<reqwest::StatusCode> {
        let client = authority.client(common_name, None)?;
        let identity =
            reqwest::Identity::from_pem(format!("{}{}", client.certificate, client.key).as_bytes())?;
        let trusted = reqwest::Certificate::from_pem(authority.pem().as_bytes())?;
        let http = reqwest::Client::builder()
            .identity(identity)
            .tls_certs_only([trusted])
            .build()?;
        Ok(http
            .post(format!("{}/v1/auth/cert/login", bao.address()))
            .send()
            .await?
            .status())
    };
    assert_eq!(login("shop").await?, 200);
    assert_ne!(login("billing").await?, 200);
    Ok(())
}
