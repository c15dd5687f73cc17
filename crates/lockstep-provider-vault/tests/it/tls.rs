//! Tests certificate authorities from the spec, a Secret and a ConfigMap, and servers that cannot
//! be trusted.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lockstep_provider::{ErrorKind, Operation};
use lockstep_testkit::certificates::CertificateAuthority;
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::bench::{Objects, Quiet, Store, and, secure_bao, stocked, token_spec};

#[tokio::test]
async fn authority_may_come_from_spec_secret_or_config_map() {
    let quiet = Quiet::listen();
    let bao = secure_bao().await;
    let (mount, _) = stocked(bao).await;
    let ca = bao.ca().unwrap();
    let another = CertificateAuthority::new("another").unwrap().pem();
    let objects = Objects::default().with("vault", "token", bao.root_token()).with(
        "trust",
        "ca.crt",
        format!("{another}\n{ca}"),
    );
    let spec = token_spec(bao.address(), &mount);
    let provider = |kind: &str| json!({ "type": kind, "name": "trust", "key": "ca.crt" });
    for spec in [
        and(spec.clone(), "caBundle", STANDARD.encode(ca)),
        and(spec.clone(), "caProvider", provider("Secret")),
        and(spec.clone(), "caProvider", provider("ConfigMap")),
    ] {
        let store = Store::new(spec, &objects).await;
        assert_eq!(
            store.read("shop/database").await,
            json!({ "password": "CANARY-value" })
        );
    }
    drop(quiet);
}

#[tokio::test]
async fn server_of_an_unknown_authority_gets_no_token() {
    let quiet = Quiet::listen();
    let bao = secure_bao().await;
    let (mount, _) = stocked(bao).await;
    let objects = Objects::default().with("vault", "token", "s.CANARY");
    let another = CertificateAuthority::new("another").unwrap().pem();
    let spec = and(
        token_spec(bao.address(), &mount),
        "caBundle",
        STANDARD.encode(another),
    );
    let store = Store::new(spec, &objects).await;
    for error in [
        store.refuse("shop/database").await,
        store.check().await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert_eq!(
            error.to_string(),
            format!(
                "{} cannot be trusted: its certificate comes from no known certificate authority. \
                 Set caBundle or caProvider to the authority that signed it",
                bao.address()
            )
        );
    }
    drop(quiet);
}

#[tokio::test]
async fn invalid_authorities_are_rejected_with_their_source() {
    let bao = secure_bao().await;
    let spec = token_spec(bao.address(), "kv");
    let objects = Objects::default()
        .with("vault", "token", "s.CANARY")
        .with("trust", "ca.crt", "CANARY");
    for bundle in ["CANARY!", &STANDARD.encode("CANARY"), bao.ca().unwrap()] {
        let spec = and(spec.clone(), "caBundle", bundle);
        let error = Store::build(spec, &objects).await.unwrap_err();
        assert_eq!(
            (error.kind, error.operation),
            (ErrorKind::ConfigInvalid, Operation::Configure)
        );
        assert!(
            error.message.starts_with("spec.provider.vault.caBundle "),
            "{error}"
        );
    }
    for kind in ["Secret", "ConfigMap"] {
        let provider = json!({ "type": kind, "name": "trust", "key": "ca.crt" });
        let spec = and(spec.clone(), "caProvider", provider);
        let error = Store::build(spec, &objects).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::CredentialsUnavailable, "{error}");
        assert_eq!(
            error.message,
            format!("{kind} \"trust\", key \"ca.crt\" holds no certificate in PEM")
        );
    }
}

#[tokio::test]
async fn certificate_for_another_name_is_reported() {
    let bao = secure_bao().await;
    let (mount, _) = stocked(bao).await;
    let upstream = bao.address().trim_start_matches("https://");
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let objects = Objects::default().with("vault", "token", "s.CANARY");
    let spec = and(
        token_spec(&server, &mount),
        "caBundle",
        STANDARD.encode(bao.ca().unwrap()),
    );
    let store = Store::new(spec, &objects).await;
    let forward = async {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(upstream).await.unwrap();
        // It does not matter how an aborted connection ends.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    };
    let (error, ()) = tokio::join!(store.refuse("shop/database"), forward);
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "{server} cannot be trusted: its certificate is for another name. Use a name of the certificate in server"
        )
    );
}
