//! Tests every auth method against a real server: a successful login, and the message of a rejected
//! one.

use lockstep_provider::{ErrorKind, Operation};
use lockstep_testkit::{OpenBao, certificates::CertificateAuthority};
use serde_json::json;

use crate::{
    bench::{Objects, Quiet, Store, app_role, app_role_auth, auth_method, bao, secure_bao, spec, stocked},
    jwt::{Issuer, LONG_AGO, NEVER},
    login::Login,
};

#[tokio::test]
async fn token_from_a_secret_works_and_a_wrong_one_names_it() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let token = bao.create_token(&[&policy]).await.unwrap();
    Login {
        bao,
        mount: &mount,
        auth: json!({ "tokenSecretRef": { "name": "vault", "key": "token" } }),
        objects: Objects::default().with("vault", "token", token),
        place: ("vault", "token"),
        wrong: "s.CANARYwrong",
    }
    .works_and_is_refused(
        "the server rejected the token from Secret \"vault\", key \"token\"",
        "The token expired, was revoked, or belongs to another server or namespace. Put a valid token into the Secret",
    )
    .await;
}

#[tokio::test]
async fn app_role_works_and_a_wrong_secret_id_is_rejected() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let (method, role_id) = app_role(bao, "CANARY-id", json!({ "token_policies": policy })).await;
    Login {
        bao,
        mount: &mount,
        auth: app_role_auth(&method, &role_id),
        objects: Objects::default().with("approle", "secret-id", "CANARY-id"),
        place: ("approle", "secret-id"),
        wrong: "CANARY-wrong",
    }
    .works_and_is_refused(
        &format!("the server refused the login as AppRole (auth/{method}) (status 400)"),
        "Check the role ID, and that the secret ID in Secret \"approle\", key \"secret-id\" is still valid",
    )
    .await;
}

#[tokio::test]
async fn role_id_of_an_app_role_may_come_from_a_secret() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let (method, role_id) = app_role(bao, "CANARY-id", json!({ "token_policies": policy })).await;
    let secret = |key: &str| json!({ "name": "approle", "key": key });
    Login {
        bao,
        mount: &mount,
        auth: json!({ "appRole": {
            "path": method, "roleRef": secret("role-id"), "secretRef": secret("secret-id")
        } }),
        objects: Objects::default().with("approle", "role-id", role_id).with(
            "approle",
            "secret-id",
            "CANARY-id\n",
        ),
        place: ("approle", "role-id"),
        wrong: "CANARY-no-role",
    }
    .works_and_is_refused(
        &format!("the server refused the login as AppRole (auth/{method}) (status 400)"),
        "Check the role ID, and that the secret ID in Secret \"approle\", key \"secret-id\" is still valid",
    )
    .await;
}

#[tokio::test]
async fn user_pass_works_and_a_wrong_password_is_rejected() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let method = auth_method(bao, "userpass").await;
    let user = json!({ "password": " CANARY größe ", "token_policies": policy });
    bao.post(&format!("auth/{method}/users/shop"), user)
        .await
        .unwrap();
    let secret = json!({ "name": "login", "key": "password" });
    Login {
        bao,
        mount: &mount,
        auth: json!({ "userPass": { "path": method, "username": "shop", "secretRef": secret } }),
        objects: Objects::default().with("login", "password", " CANARY größe "),
        place: ("login", "password"),
        wrong: "CANARY größe",
    }
    .works_and_is_refused(
        &format!("the server refused the login as user \"shop\" (auth/{method}) (status 400)"),
        "Check the user name and the password in Secret \"login\", key \"password\"",
    )
    .await;
}

/// Enables an auth method "jwt" with a role "shop" that trusts this issuer and the audience
/// "vault".
async fn jwt_method(bao: &OpenBao, policy: &str, issuer: &Issuer) -> String {
    let method = auth_method(bao, "jwt").await;
    let config = json!({ "jwt_validation_pubkeys": [issuer.public_key()], "default_role": "shop" });
    bao.post(&format!("auth/{method}/config"), config).await.unwrap();
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": policy
    });
    bao.post(&format!("auth/{method}/role/shop"), role).await.unwrap();
    method
}

#[tokio::test]
async fn jwt_from_a_secret_works_and_an_expired_one_is_rejected() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let issuer = Issuer::new();
    let method = jwt_method(bao, &policy, &issuer).await;
    let secret = json!({ "name": "identity", "key": "jwt" });
    Login {
        bao,
        mount: &mount,
        auth: json!({ "jwt": { "path": method, "role": "shop", "secretRef": secret } }),
        objects: Objects::default().with("identity", "jwt", issuer.token("vault", NEVER)),
        place: ("identity", "jwt"),
        wrong: &issuer.token("vault", LONG_AGO),
    }
    .works_and_is_refused(
        &format!("the server refused the login as role \"shop\" (auth/{method}) (status 400)"),
        "Check that the JWT in Secret \"identity\", key \"jwt\" is still valid and fits the role's bound claims",
    )
    .await;
}

#[tokio::test]
async fn service_account_token_needs_the_right_key_and_audience() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let issuer = Issuer::new();
    let method = jwt_method(bao, &policy, &issuer).await;
    for wrong in [
        Issuer::new().token("vault", NEVER),
        issuer.token("another", NEVER),
    ] {
        Login {
            bao,
            mount: &mount,
            auth: json!({ "jwt": { "path": method, "serviceAccountRef": { "name": "shop" } } }),
            objects: Objects::default().with("shop", "vault", issuer.token("vault", NEVER)),
            place: ("shop", "vault"),
            wrong: &wrong,
        }
        .works_and_is_refused(
            &format!("the server refused the login as the default role (auth/{method}) (status 400)"),
            "The role \"default_role\" must be bound to ServiceAccount \"shop\" of the store's namespace and to the \
             audience \"vault\", and the auth method must be able to check the cluster's tokens",
        )
        .await;
    }
}

#[tokio::test]
async fn client_certificate_logs_in_with_the_named_role_only() {
    let bao = secure_bao().await;
    let (mount, policy) = stocked(bao).await;
    let authority = bao.authority().unwrap();
    let method = auth_method(bao, "cert").await;
    for (role, name, policies) in [("shop", "shop", policy.as_str()), ("blog", "blog", "default")] {
        let role_settings = json!({
            "certificate": authority.pem(), "allowed_common_names": name, "token_policies": policies
        });
        bao.post(&format!("auth/{method}/certs/{role}"), role_settings)
            .await
            .unwrap();
    }
    let secret = |key: &str| json!({ "name": "client", "key": key });
    let auth = |role: &str| {
        json!({ "cert": {
            "path": method, "role": role, "clientCert": secret("tls.crt"), "secretRef": secret("tls.key")
        } })
    };
    let objects = |identity: &lockstep_testkit::certificates::Identity| {
        Objects::default()
            .with("client", "tls.crt", identity.certificate.as_str())
            .with("client", "tls.key", identity.key.as_str())
    };
    let ours = authority.client("shop", None).unwrap();
    let login = |role, objects| Login {
        bao,
        mount: &mount,
        auth: auth(role),
        objects,
        place: ("client", "tls.crt"),
        wrong: "",
    };
    let quiet = Quiet::listen();
    quiet.never(ours.key.lines().nth(1).unwrap());

    let login_as_shop = login("shop", objects(&ours));
    let store = Store::new(login_as_shop.spec(), &login_as_shop.objects).await;
    assert_eq!(
        store.read("shop/database").await,
        json!({ "password": "CANARY-value" })
    );
    store.check().await.unwrap();

    // The certificate belongs to "shop". The role "blog" rejects it, although another role would
    // accept it.
    let login_as_blog = login("blog", objects(&ours));
    let store = Store::new(login_as_blog.spec(), &login_as_blog.objects).await;
    let error = store.refuse("shop/database").await;
    assert_eq!(error.kind, ErrorKind::Unauthenticated, "{error}");
    assert!(
        error
            .message
            .contains(&format!("as role \"blog\" (auth/{method})")),
        "{error}"
    );

    // A certificate of an authority that the server does not know.
    let foreign = CertificateAuthority::new("another")
        .unwrap()
        .client("shop", None)
        .unwrap();
    let foreign = login("shop", objects(&foreign));
    let store = Store::new(foreign.spec(), &foreign.objects).await;
    let error = store.refuse("shop/database").await;
    assert_eq!(error.kind, ErrorKind::Unauthenticated, "{error}");
    assert!(
        error
            .message
            .contains(&format!("as role \"shop\" (auth/{method})")),
        "{error}"
    );

    // A certificate with another certificate's key cannot be used at all.
    let other = authority.client("shop", None).unwrap();
    let mixed = login("shop", objects(&ours).with("client", "tls.key", other.key));
    let error = Store::build(mixed.spec(), &mixed.objects).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
}

#[tokio::test]
async fn missing_auth_method_is_reported_with_its_mount_path() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
    let store = Store::new(
        spec(bao.address(), &mount, app_role_auth("nowhere", "CANARY-role")),
        &objects,
    )
    .await;
    let error = store.refuse("shop/database").await;
    // The server rejects it as if the credential were wrong.
    assert_eq!(
        (error.kind, error.operation),
        (ErrorKind::Unauthenticated, Operation::Login)
    );
    assert!(error.message.contains("(auth/nowhere)"), "{error}");
    assert!(
        error
            .hint
            .is_some_and(|hint| hint.contains("no auth method has that mount path"))
    );
}

#[tokio::test]
async fn invalid_credential_is_rejected_before_any_request() {
    let bao = bao().await;
    let (mount, _) = stocked(bao).await;
    let quiet = Quiet::listen();
    for token in ["s.CANARY\nX-Evil: 1", "s.CANARY\0", "\n", "", "s.CANARY größe"] {
        let store = Store::with_token(bao.address(), &mount, token).await;
        for error in [
            store.refuse("shop/database").await,
            store.check().await.unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::CredentialsUnavailable, "{error}");
            assert!(
                error.message.contains("Secret \"vault\", key \"token\""),
                "{error}"
            );
        }
    }
    drop(quiet);
}
