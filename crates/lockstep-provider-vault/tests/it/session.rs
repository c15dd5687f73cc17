//! Tests the lifecycle of a token: one login per store identity, renewal before expiry, and a new
//! login when the server no longer accepts the token.

use std::time::Duration;

use lockstep_provider::{Context, ErrorKind, FindQuery, Operation, RemoteRef};
use lockstep_provider_testkit::at;
use lockstep_testkit::{
    OpenBao,
    proxy::{Fate, Proxy},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::bench::{Objects, Quiet, Store, app_role, app_role_auth, bao, later, spec, stocked, token_spec};

/// A store that logs in as an AppRole through a proxy.
struct Bench {
    bao: &'static OpenBao,
    proxy: Proxy,
    mount: String,
    method: String,
    policy: String,
    objects: Objects,
    store: Store,
}

impl Bench {
    /// Creates the store. The settings apply to the role's tokens; the policy is added.
    async fn new(mut settings: Value) -> Self {
        let bao = bao().await;
        let (mount, policy) = stocked(bao).await;
        settings["token_policies"] = json!([policy]);
        let (method, role_id) = app_role(bao, "CANARY-id", settings).await;
        let proxy = Proxy::start(bao.address()).await;
        let objects = Objects::default().with("approle", "secret-id", "CANARY-id");
        let spec = spec(proxy.address(), &mount, app_role_auth(&method, &role_id));
        let store = Store::new(spec, &objects).await;
        Self {
            bao,
            proxy,
            mount,
            method,
            policy,
            objects,
            store,
        }
    }

    fn logins(&self) -> usize {
        self.proxy.count("/login")
    }

    fn renewals(&self) -> usize {
        self.proxy.count("/renew-self")
    }

    async fn reads(&self) {
        assert_eq!(
            self.store.read("shop/database").await,
            json!({ "password": "CANARY-value" })
        );
    }

    /// Sends this many reads at the same time. All must succeed.
    async fn reads_at_once(&self, count: usize) {
        let refs = vec![RemoteRef::current(at("shop/database")); count];
        let cx = Context::default();
        let (one, two) = tokio::join!(self.store.0.fetch(&cx, &refs), self.store.0.fetch(&cx, &refs));
        for result in one.into_iter().chain(two) {
            result.unwrap();
        }
    }

    /// Returns the token of the last request that carried one.
    fn token(&self) -> String {
        let requests = self.proxy.requests();
        let token = |head: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix("x-vault-token: "));
            line.map(str::to_owned)
        };
        requests
            .iter()
            .rev()
            .find_map(|request| token(&request.head))
            .unwrap()
    }

    async fn revoke(&self) {
        let token = json!({ "token": self.token() });
        self.bao.post("auth/token/revoke", token).await.unwrap();
    }
}

#[tokio::test]
async fn store_logs_in_once_for_all_requests() {
    let quiet = Quiet::listen();
    let bench = Bench::new(json!({ "token_ttl": "1h" })).await;
    bench.reads_at_once(30).await;
    bench.store.check().await.unwrap();
    bench.store.find(FindQuery::default()).await.unwrap();
    bench.reads().await;
    assert_eq!(bench.logins(), 1);
    assert_eq!(bench.renewals(), 0);
    assert_eq!(bench.objects.reads(), 1);
    quiet.never(&bench.token());
}

#[tokio::test]
async fn one_of_many_requests_renews_the_token_before_expiry() {
    let bench = Bench::new(json!({ "token_ttl": "6s" })).await;
    bench.reads().await;
    let first = bench.token();
    sleep(Duration::from_millis(4200)).await;
    bench.reads_at_once(10).await;
    assert_eq!((bench.logins(), bench.renewals()), (1, 1));
    // Without the renewal, the token would have expired by now.
    sleep(Duration::from_millis(2200)).await;
    bench.reads().await;
    assert_eq!(bench.logins(), 1);
    assert_eq!(bench.token(), first);
}

#[tokio::test]
async fn unrenewable_token_is_replaced_before_expiry() {
    let bench = Bench::new(json!({ "token_ttl": "1h", "token_type": "batch" })).await;
    bench.reads().await;
    let first = bench.token();
    later(41).await;
    bench.reads_at_once(10).await;
    assert_eq!((bench.logins(), bench.renewals()), (2, 0));
    bench.reads().await;
    assert_ne!(bench.token(), first);
}

#[tokio::test]
async fn expired_token_is_replaced_by_one_login() {
    let bench = Bench::new(json!({ "token_ttl": "2s" })).await;
    bench.reads().await;
    sleep(Duration::from_millis(2300)).await;
    bench.reads_at_once(10).await;
    assert_eq!(bench.logins(), 2);
}

#[tokio::test]
async fn revoked_token_is_replaced_by_one_login() {
    let quiet = Quiet::listen();
    let bench = Bench::new(json!({ "token_ttl": "1h" })).await;
    bench.reads().await;
    bench.revoke().await;
    bench.reads_at_once(8).await;
    assert_eq!(bench.logins(), 2);
    bench.revoke().await;
    bench.store.find(FindQuery::default()).await.unwrap();
    assert_eq!(bench.logins(), 3);
    bench.revoke().await;
    bench.store.check().await.unwrap();
    assert_eq!(bench.logins(), 4);
    quiet.never(&bench.token());
}

#[tokio::test]
async fn login_after_a_revocation_uses_the_current_credential() {
    let bench = Bench::new(json!({ "token_ttl": "1h" })).await;
    bench.reads().await;
    bench.objects.set("approle", "secret-id", "CANARY-other");
    bench.reads().await;
    bench.revoke().await;
    let error = bench.store.refuse("shop/database").await;
    assert_eq!(error.kind, ErrorKind::Unauthenticated, "{error}");
    assert_eq!(error.operation, Operation::Login);
    bench.objects.set("approle", "secret-id", "CANARY-id\n");
    bench.reads().await;
}

#[tokio::test]
async fn requests_that_wait_for_one_login_share_its_failure() {
    let bench = Bench::new(json!({ "token_ttl": "1h" })).await;
    bench.objects.set("approle", "secret-id", "CANARY-wrong");
    let refs = vec![RemoteRef::current(at("shop/database")); 8];
    for result in bench.store.0.fetch(&Context::default(), &refs).await {
        assert_eq!(result.unwrap_err().kind, ErrorKind::Unauthenticated);
    }
    assert_eq!(bench.logins(), 1);
}

#[tokio::test]
async fn denial_by_a_policy_causes_no_new_login() {
    let bench = Bench::new(json!({ "token_ttl": "1h" })).await;
    bench.reads().await;
    let foreign = stocked(bench.bao).await.0;
    let store = Store::new(
        json!({
            "server": bench.proxy.address(),
            "auth": { "tokenSecretRef": { "name": "vault", "key": "token" } },
        }),
        &Objects::default().with("vault", "token", bench.token()),
    )
    .await;
    for _ in 0..3 {
        let error = store.refuse(&format!("{foreign}/shop/database")).await;
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    }
    assert_eq!(bench.logins(), 1);
    assert!(
        bench.proxy.count("lookup-self") <= 1,
        "denials are looked into once"
    );
    bench.reads().await;
}

#[tokio::test]
async fn denial_after_a_revocation_does_not_hide_the_next_one() {
    let bench = Bench::new(json!({ "token_ttl": "1h" })).await;
    let denied = "denied";
    let rules = format!(
        "path \"{}/data/shop/*\" {{ capabilities = [\"read\"] }}",
        bench.mount
    );
    bench.bao.put_policy(&bench.policy, &rules).await.unwrap();
    bench.reads().await;
    for logins in [2, 3] {
        bench.revoke().await;
        let error = bench.store.refuse(denied).await;
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
        assert_eq!(bench.logins(), logins);
    }
    bench.revoke().await;
    bench.reads().await;
    assert_eq!(bench.logins(), 4);
}

#[tokio::test]
async fn unreliable_lookups_do_not_cause_repeated_logins() {
    let bench = Bench::new(json!({ "token_ttl": "1h" })).await;
    bench.proxy.rule(|request| {
        let denied = request.target.contains("lookup-self") || request.target.contains("denied");
        if denied {
            Fate::answer(403, &[], r#"{"errors":["CANARY"]}"#)
        } else {
            Fate::Pass
        }
    });
    for _ in 0..5 {
        let error = bench.store.refuse("shop/denied").await;
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    }
    assert_eq!(bench.logins(), 2);
    bench.reads().await;
}

#[tokio::test]
async fn token_near_its_maximum_lifetime_is_replaced() {
    let bench = Bench::new(json!({ "token_ttl": "1h" })).await;
    bench.reads().await;
    let first = bench.token();
    // So a renewal yields less than half of the lease.
    let role = format!("auth/{}/role/shop", bench.method);
    bench
        .bao
        .post(&role, json!({ "token_max_ttl": "20m", "token_ttl": "20m" }))
        .await
        .unwrap();
    later(41).await;
    bench.reads_at_once(5).await;
    assert_eq!((bench.logins(), bench.renewals()), (2, 1));
    bench.reads().await;
    assert_ne!(bench.token(), first);
}

#[tokio::test]
async fn failed_renewal_does_not_stop_reads() {
    let bench = Bench::new(json!({ "token_ttl": "1h" })).await;
    bench.reads().await;
    bench.proxy.rule(|request| {
        if request.target.contains("renew-self") {
            Fate::answer(500, &[], "<html>CANARY</html>")
        } else {
            Fate::Pass
        }
    });
    later(41).await;
    bench.reads_at_once(5).await;
    assert_eq!((bench.logins(), bench.renewals()), (1, 1));
    later(20).await;
    bench.reads().await;
    assert_eq!(bench.logins(), 2);
}

#[tokio::test]
async fn revoked_static_token_is_reported_until_it_is_replaced() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let token = bao.create_token(&[&policy]).await.unwrap();
    let objects = Objects::default().with("vault", "token", token.as_str());
    let store = Store::new(token_spec(bao.address(), &mount), &objects).await;
    store.read("shop/database").await;
    bao.post("auth/token/revoke", json!({ "token": token }))
        .await
        .unwrap();
    for error in [
        store.refuse("shop/database").await,
        store.check().await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Unauthenticated, "{error}");
        assert!(!error.to_string().contains(&token));
    }
    objects.set("vault", "token", bao.create_token(&[&policy]).await.unwrap());
    store.read("shop/database").await;
    store.check().await.unwrap();
}
