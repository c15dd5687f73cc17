use lockstep_api::vault::{AppRoleAuth, CertAuth, JwtAuth, KubernetesAuth, KvVersion, UserPassAuth};

use super::*;

fn key(name: &str) -> SecretKeyRef {
    SecretKeyRef {
        name: name.to_owned(),
        key: "key".to_owned(),
    }
}

fn account() -> ServiceAccountRef {
    ServiceAccountRef {
        name: "shop".to_owned(),
        audience: "vault".to_owned(),
    }
}

fn token() -> VaultAuth {
    VaultAuth {
        token_secret_ref: Some(key("token")),
        ..VaultAuth::default()
    }
}

fn spec(server: &str, auth: VaultAuth) -> VaultProvider {
    VaultProvider {
        server: server.to_owned(),
        transit: None,
        path: Some("secret".to_owned()),
        version: KvVersion::V2,
        namespace: None,
        ca_bundle: None,
        ca_provider: None,
        auth,
    }
}

fn refused(spec: &VaultProvider, field: &str) {
    let error = Config::new(spec).unwrap_err();
    assert_eq!(error.kind, ErrorKind::ConfigInvalid, "{error}");
    assert!(
        error
            .message
            .starts_with(&format!("spec.provider.vault.{field} ")),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("canary"), "{error}");
}

#[test]
fn server_gets_the_api_prefix() {
    let cases = [
        ("https://vault.internal:8200", "https://vault.internal:8200/v1/"),
        ("https://vault.internal:8200/", "https://vault.internal:8200/v1/"),
        ("http://127.0.0.1:8200", "http://127.0.0.1:8200/v1/"),
        ("https://[::1]:8200", "https://[::1]:8200/v1/"),
        ("https://proxy/vault/", "https://proxy/vault/v1/"),
    ];
    for (server, want) in cases {
        assert_eq!(Config::new(&spec(server, token())).unwrap().base.as_str(), want);
    }
}

#[test]
fn malformed_server_is_an_error_without_panic() {
    for server in [
        "",
        "vault.internal:8200",
        "vault",
        "//vault",
        "https://",
        "https://:8200",
        "https://vault:99999",
        "https://va ult",
        " https://vault",
        "https://vault\n",
        "https://vault/\tx",
        "ftp://vault",
        "unix:///run/vault.sock",
        "data:text/plain,x",
        "https://user:canary@vault",
        "https://canary@vault",
        "https://@vault",
        "https://vault?canary=1",
        "https://vault/#canary",
        "https://vault/a//b",
        "https://[::1",
        "https://%00",
        "https://xn--\u{0}",
    ] {
        refused(&spec(server, token()), "server");
    }
}

#[test]
fn mount_and_namespace_are_trimmed_and_validated() {
    let mut good = spec("https://vault", token());
    good.path = Some("/team/kv/".to_owned());
    good.namespace = Some("team/shop/".to_owned());
    let config = Config::new(&good).unwrap();
    assert_eq!(config.locator.mount.as_deref(), Some("team/kv"));
    assert_eq!(config.namespace.unwrap().as_bytes(), b"team/shop");

    for bad in [
        "/", "//", "a//b", "..", "a/../b", "a/./b", "a\nb", "a\0b", " a", "a\u{a0}", "a b",
    ] {
        let mut path = spec("https://vault", token());
        path.path = Some(bad.to_owned());
        refused(&path, "path");
        let mut namespace = spec("https://vault", token());
        namespace.namespace = Some(bad.to_owned());
        refused(&namespace, "namespace");
    }
    for reserved in ["sys", "auth/token", "/identity/", "cubbyhole"] {
        let mut path = spec("https://vault", token());
        path.path = Some(reserved.to_owned());
        refused(&path, "path");
    }
    let mut namespace = spec("https://vault", token());
    namespace.namespace = Some("größe".to_owned());
    refused(&namespace, "namespace");
}

fn transit_at(path: &str) -> VaultProvider {
    let transit = VaultTransit {
        path: path.to_owned(),
        key: "shop".to_owned(),
        derived: false,
    };
    VaultProvider {
        transit: Some(transit),
        ..spec("https://vault", token())
    }
}

#[test]
fn transit_path_is_trimmed() {
    for path in ["transit", "/transit/", "team/transit", "authority"] {
        let key = Config::new(&transit_at(path)).unwrap().transit.unwrap();
        assert_eq!(key.mount, path.trim_matches('/'));
    }
}

#[test]
fn transit_path_must_not_be_a_reserved_mount() {
    for reserved in [
        "sys",
        "/sys/",
        "sys/policies/acl",
        "auth",
        "auth/token",
        "identity",
        "/identity/",
        "cubbyhole",
        "cubbyhole/a",
    ] {
        refused(&transit_at(reserved), "transit.path");
    }
    for bad in ["", "/", "a//b", "../sys", "a b"] {
        refused(&transit_at(bad), "transit.path");
    }
}

#[test]
fn empty_mount_or_namespace_is_none() {
    let mut empty = spec("https://vault", token());
    empty.path = Some(String::new());
    empty.namespace = Some(String::new());
    let config = Config::new(&empty).unwrap();
    assert!(config.locator.mount.is_none() && config.namespace.is_none());
}

#[test]
fn ca_bundle_is_base64_of_pem() {
    let mut good = spec("https://vault", token());
    good.ca_bundle = Some("LS0t\nLS1C RUdJTg==\n".to_owned());
    let Authorities::Bundle(pem) = Config::new(&good).unwrap().authorities else {
        panic!("no bundle")
    };
    assert_eq!(pem, b"-----BEGIN");
    for bad in ["-----BEGIN CERTIFICATE-----\ncanary", "canary!", "c"] {
        let mut spec = spec("https://vault", token());
        spec.ca_bundle = Some(bad.to_owned());
        refused(&spec, "caBundle");
    }
}

#[test]
fn auth_requires_exactly_one_method() {
    refused(&spec("https://vault", VaultAuth::default()), "auth");
    let user = UserPassAuth {
        path: "userpass".to_owned(),
        username: "bob".to_owned(),
        secret_ref: key("pw"),
    };
    refused(
        &spec(
            "https://vault",
            VaultAuth {
                user_pass: Some(user),
                ..token()
            },
        ),
        "auth",
    );
}

#[test]
fn auth_methods_are_validated_and_named() {
    let role = || "shop".to_owned();
    let approle = AppRoleAuth {
        path: "approle".to_owned(),
        role_id: Some("canary-id".to_owned()),
        role_ref: None,
        secret_ref: key("s"),
    };
    let kubernetes = KubernetesAuth {
        mount_path: "kubernetes".to_owned(),
        role: role(),
        service_account_ref: account(),
    };
    let jwt = JwtAuth {
        path: "jwt".to_owned(),
        role: None,
        secret_ref: None,
        service_account_ref: Some(account()),
    };
    let cert = CertAuth {
        path: "cert".to_owned(),
        role: Some(role()),
        client_cert: key("c"),
        secret_ref: key("k"),
    };
    let user = UserPassAuth {
        path: "ldap/users/".to_owned(),
        username: "bob".to_owned(),
        secret_ref: key("pw"),
    };
    let none = VaultAuth::default;
    let cases = [
        (token(), "with the token from Secret \"token\""),
        (
            VaultAuth {
                app_role: Some(approle.clone()),
                ..none()
            },
            "as AppRole (auth/approle)",
        ),
        (
            VaultAuth {
                kubernetes: Some(kubernetes.clone()),
                ..none()
            },
            "as role \"shop\" (auth/kubernetes)",
        ),
        (
            VaultAuth {
                jwt: Some(jwt.clone()),
                ..none()
            },
            "as the default role (auth/jwt)",
        ),
        (
            VaultAuth {
                cert: Some(cert.clone()),
                ..none()
            },
            "as role \"shop\" (auth/cert)",
        ),
        (
            VaultAuth {
                user_pass: Some(user.clone()),
                ..none()
            },
            "as user \"bob\" (auth/ldap/users)",
        ),
    ];
    for (auth, want) in cases {
        assert_eq!(
            Config::new(&spec("https://vault", auth))
                .unwrap()
                .method
                .to_string(),
            want
        );
    }

    let both = AppRoleAuth {
        role_ref: Some(key("r")),
        ..approle.clone()
    };
    refused(
        &spec(
            "https://vault",
            VaultAuth {
                app_role: Some(both),
                ..none()
            },
        ),
        "auth.appRole",
    );
    let mount = AppRoleAuth {
        path: "../sys".to_owned(),
        ..approle
    };
    refused(
        &spec(
            "https://vault",
            VaultAuth {
                app_role: Some(mount),
                ..none()
            },
        ),
        "auth.appRole.path",
    );
    let empty = KubernetesAuth {
        role: String::new(),
        ..kubernetes
    };
    refused(
        &spec(
            "https://vault",
            VaultAuth {
                kubernetes: Some(empty),
                ..none()
            },
        ),
        "auth.kubernetes.role",
    );
    let neither = JwtAuth {
        service_account_ref: None,
        ..jwt
    };
    refused(
        &spec(
            "https://vault",
            VaultAuth {
                jwt: Some(neither),
                ..none()
            },
        ),
        "auth.jwt",
    );
    for username in ["../../sys", "a/b", "..", "a\nb", ""] {
        let user = UserPassAuth {
            username: username.to_owned(),
            ..user.clone()
        };
        refused(
            &spec(
                "https://vault",
                VaultAuth {
                    user_pass: Some(user),
                    ..none()
                },
            ),
            "auth.userPass.username",
        );
    }
    refused(
        &spec(
            "http://127.0.0.1",
            VaultAuth {
                cert: Some(cert),
                ..none()
            },
        ),
        "server",
    );
}
