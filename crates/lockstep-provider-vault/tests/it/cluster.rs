//! Tests the `kubernetes` method with a real API server that issues and reviews the tokens.

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRoleBinding, RoleRef, Subject},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use lockstep_testkit::ControlPlane;
use serde_json::json;

use crate::{
    bench::{Objects, auth_method, bao, stocked},
    jwt::{Issuer, NEVER},
    login::Login,
};

/// Creates a ServiceAccount.
async fn account(accounts: &Api<ServiceAccount>, name: &str) {
    let account = ServiceAccount {
        metadata: named(name),
        ..ServiceAccount::default()
    };
    accounts.create(&PostParams::default(), &account).await.unwrap();
}

/// Returns a token of a ServiceAccount for one audience, requested like lockstep does.
async fn token(accounts: &Api<ServiceAccount>, name: &str, audience: &str) -> String {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            expiration_seconds: Some(600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .unwrap();
    answer.status.unwrap().token
}

/// Allows a ServiceAccount to review tokens.
async fn may_review(client: &Client, namespace: &str, name: &str) {
    let binding = ClusterRoleBinding {
        metadata: named("vault-reviews-tokens"),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: "system:auth-delegator".to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.to_owned(),
            namespace: Some(namespace.to_owned()),
            ..Subject::default()
        }]),
    };
    Api::all(client.clone())
        .create(&PostParams::default(), &binding)
        .await
        .unwrap();
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

#[tokio::test]
async fn only_valid_tokens_of_the_service_account_log_in() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client().await.unwrap();
    let namespace = plane.namespace("shop").await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    for name in ["reviewer", "shop", "blog"] {
        account(&accounts, name).await;
    }
    may_review(&client, &namespace, "reviewer").await;

    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let method = auth_method(bao, "kubernetes").await;
    let config = json!({
        "kubernetes_host": plane.url(),
        "kubernetes_ca_cert": plane.ca(),
        "token_reviewer_jwt": token(&accounts, "reviewer", "https://kubernetes.default.svc").await,
        "disable_local_ca_jwt": true,
    });
    bao.post(&format!("auth/{method}/config"), config).await.unwrap();
    let role = json!({
        "bound_service_account_names": "shop", "bound_service_account_namespaces": namespace,
        "audience": "vault", "token_policies": policy,
    });
    bao.post(&format!("auth/{method}/role/shop"), role).await.unwrap();

    let account = json!({ "name": "shop" });
    let auth = json!({ "kubernetes": { "mountPath": method, "role": "shop", "serviceAccountRef": account } });
    for wrong in [
        token(&accounts, "blog", "vault").await,
        token(&accounts, "shop", "another").await,
        Issuer::new().token("vault", NEVER),
    ] {
        let token = token(&accounts, "shop", "vault").await;
        Login {
            bao,
            mount: &mount,
            auth: auth.clone(),
            objects: Objects::default().with("shop", "vault", token),
            place: ("shop", "vault"),
            wrong: &wrong,
        }
        .works_and_is_refused(
            &format!("the server refused the login as role \"shop\" (auth/{method}) (status 403)"),
            "The role \"shop\" must be bound to ServiceAccount \"shop\" of the store's namespace and to the \
             audience \"vault\", and the auth method must be able to check the cluster's tokens. The server also \
             returns this status if no auth method has that mount path",
        )
        .await;
    }
}
