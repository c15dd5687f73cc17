//! Credentials that OpenBao's database engine makes, over a real PostgreSQL: whoever tries to log in tells whether they work.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use lockstep_api::{ConditionType, LeaseStatus, RolloutPhase, SecretStore, SyncedSecret};
use lockstep_testkit::{OpenBao, PostgreSql, pods::Pods};
use serde_json::{Value, json};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::{
    api_proxy::{Asked, Fault, NAMESPACE, ProxiedCluster},
    shared_cluster::{TestNamespace, eventually, message, shared_cluster, text},
};

static DATABASE: OnceCell<PostgreSql> = OnceCell::const_new();

async fn database() -> &'static PostgreSql {
    DATABASE
        .get_or_init(|| async { PostgreSql::start().await.expect("PostgreSQL") })
        .await
}

const FINALIZER: &str = "lockstep.dev/revoke-lease";

/// What the documentation says that the policy needs, beside reading the credential.
const TOKENS: &str = r#"
path "auth/token/create-orphan" { capabilities = ["update"] }
path "auth/token/renew-accessor" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
"#;

/// A user and its password.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Login {
    user: String,
    password: String,
}

impl Login {
    async fn works(&self) -> bool {
        database().await.takes(&self.user, &self.password).await
    }

    /// Waits until nobody can log in with it any more.
    async fn is_refused(&self) {
        let refused = eventually("the credential is refused", || async {
            ensure!(!self.works().await, "{} can log in", self.user);
            Ok(())
        });
        refused.await.unwrap();
    }
}

/// A namespace with a database engine of its own, and a store that may use it.
struct Bench {
    test: TestNamespace,
    mount: String,
}

impl Bench {
    async fn new(name: &str, ttl: &str, max_ttl: &str) -> Self {
        Self::with_rights(name, ttl, max_ttl, TOKENS).await
    }

    async fn with_rights(name: &str, ttl: &str, max_ttl: &str, rights: &str) -> Self {
        let test = shared_cluster().await.test_namespace(name).await;
        let mount = format!("database-{}", test.namespace);
        let bao = &test.cluster.bao;
        engine(bao, &mount, ttl, max_ttl).await;
        let policy = format!("{}-dynamic", test.namespace);
        let rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\"] }}\n{rights}");
        bao.put_policy(&policy, &rules).await.unwrap();
        let token = bao.create_token(&[&policy, "default"]).await.unwrap();
        test.add_credential("dynamic-token", "token", &token)
            .await
            .unwrap();
        let auth = json!({ "tokenSecretRef": { "name": "dynamic-token", "key": "token" } });
        test.add_store("dynamic", &auth).await.unwrap();
        Self { test, mount }
    }

    fn spec(&self, role: &str) -> Value {
        json!({
            "secretStoreRef": { "name": "dynamic" },
            "dataFrom": [{ "generate": {
                "vault": { "path": format!("{}/creds/{role}", self.mount) }, "revokeAfter": "3s",
            } }],
        })
    }

    async fn declare(&self, spec: Value) -> Login {
        self.test.declare("database", spec).await;
        self.test.wait_for_reason("database", "Synced").await;
        self.login().await
    }

    /// What the Secret holds.
    async fn login(&self) -> Login {
        login(&self.test.secrets().get("database").await.unwrap())
    }

    /// Waits until the Secret holds another credential than that.
    async fn another(&self, than: &Login) -> Login {
        let secret = self
            .test
            .wait_for_secret("database", "another credential", |secret| login(secret) != *than)
            .await;
        login(&secret)
    }

    async fn patch(&self, patch: Value) {
        self.test
            .synced_secrets()
            .patch("database", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    async fn wait(&self, what: &str, is_so: impl Fn(&LeaseStatus) -> bool) -> LeaseStatus {
        let object = self
            .test
            .wait_for("database", what, |object| leases(object).is_some_and(&is_so))
            .await;
        leases(&object).unwrap().clone()
    }

    /// How often the store was asked for this.
    async fn events(&self, reason: &str) -> usize {
        let api: kube::Api<k8s_openapi::api::events::v1::Event> =
            kube::Api::namespaced(self.test.client.clone(), &self.test.namespace);
        let events = api.list(&kube::api::ListParams::default()).await.unwrap();
        let of_reason =
            |event: &&k8s_openapi::api::events::v1::Event| event.reason.as_deref() == Some(reason);
        events.iter().filter(of_reason).count()
    }

    async fn is_gone_within(&self, limit: Duration) {
        let began = Instant::now();
        while self
            .test
            .synced_secrets()
            .get_opt("database")
            .await
            .unwrap()
            .is_some()
        {
            assert!(
                began.elapsed() < limit,
                "the SyncedSecret is held\n{}",
                self.test.cluster.operator.log()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A database engine at that mount path with the roles `shop` and `web`.
async fn engine(bao: &OpenBao, mount: &str, ttl: &str, max_ttl: &str) {
    let database = database().await;
    database.enable_engine(bao, mount).await.unwrap();
    for role in ["shop", "web"] {
        database.add_role(bao, mount, role, ttl, max_ttl).await.unwrap();
    }
}

fn login(secret: &Secret) -> Login {
    Login {
        user: text(secret, "username").unwrap_or_default(),
        password: text(secret, "password").unwrap_or_default(),
    }
}

fn leases(object: &SyncedSecret) -> Option<&LeaseStatus> {
    object.status.as_ref()?.lease.as_ref()
}

fn finalizers(object: &SyncedSecret) -> &[String] {
    object.metadata.finalizers.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn a_credential_is_renewed_and_replaced_when_its_maximum_is_near() {
    let bench = Bench::new("lease", "12s", "40s").await;
    let first = bench.declare(bench.spec("shop")).await;
    assert!(first.works().await);
    let object = bench.test.synced_secrets().get("database").await.unwrap();
    assert_eq!(finalizers(&object), [FINALIZER]);
    let status = object.status.as_ref().unwrap();
    let lease = leases(&object).unwrap().current.as_ref().unwrap();
    assert!(
        lease.id.starts_with(&format!("{}/creds/shop/", bench.mount)),
        "{lease:?}"
    );
    assert_eq!(status.sources[0].version.as_ref(), Some(&lease.id));
    assert_eq!((lease.duration_seconds, lease.renewable), (12, true));
    let told = serde_json::to_string(&object).unwrap();
    assert!(!told.contains(&first.password) && !bench.test.cluster.operator.log().contains(&first.password));

    bench
        .wait("it is renewed", |leases| {
            leases
                .current
                .as_ref()
                .is_some_and(|lease| lease.renewed_time.is_some())
        })
        .await;
    assert_eq!(bench.login().await, first, "a renewal writes nothing");
    let second = bench.another(&first).await;
    assert!(first.works().await, "nobody had time to notice");
    assert!(second.works().await);
    let held = bench.wait("the old one is revoked", |leases| {
        leases.old.is_empty() && leases.current.is_some()
    });
    held.await;
    first.is_refused().await;
    let namespace = format!("namespace=\"{}\"", bench.test.namespace);
    let operator = &bench.test.cluster.operator;
    let expiry = operator
        .metric("lockstep_lease_expiry_timestamp_seconds", &[&namespace])
        .await
        .unwrap();
    assert!(expiry > 1.7e9, "{expiry}");
    for operation in ["mint", "renew", "revoke"] {
        let label = format!("operation=\"{operation}\"");
        let labels = [&*label, "outcome=\"ok\""];
        let count = operator
            .metric("lockstep_lease_operations_total", &labels)
            .await
            .unwrap();
        assert!(count >= 1.0, "{operation}");
    }
    for reason in ["LeaseIssued", "LeaseEnds", "LeaseRevoked"] {
        eventually(reason, || async {
            ensure!(bench.events(reason).await > 0, "no event {reason}");
            Ok(())
        })
        .await
        .unwrap();
    }
    bench
        .test
        .synced_secrets()
        .delete("database", &DeleteParams::default())
        .await
        .unwrap();
    bench.is_gone_within(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn old_credential_is_revoked_when_all_targets_use_the_new_one() {
    let bench = Bench::new("lease-rollout", "1h", "24h").await;
    let pods = Pods::play(bench.test.client.clone(), &bench.test.namespace);
    bench
        .test
        .apply_raw(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": "lockstep-rollouts", "namespace": bench.test.namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lockstep-rollouts" },
            "subjects": [{ "kind": "ServiceAccount", "name": "lockstep", "namespace": "lockstep-system" }],
        }))
        .await
        .unwrap();
    for name in ["api", "worker"] {
        bench
            .test
            .apply_raw(&json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": { "name": name, "namespace": bench.test.namespace },
                "spec": {
                    "selector": { "matchLabels": { "app": name } },
                    "template": {
                        "metadata": { "labels": { "app": name } },
                        "spec": { "containers": [{ "name": "app", "image": "example.org/app" }], "terminationGracePeriodSeconds": 0 },
                    },
                },
            }))
            .await
            .unwrap();
    }
    let targets =
        json!([{ "kind": "Deployment", "name": "api" }, { "kind": "Deployment", "name": "worker" }]);
    let mut spec = bench.spec("shop");
    spec["rotation"] =
        json!({ "rollout": { "targets": targets, "progressDeadline": "10m", "minimumInterval": "0s" } });
    let first = bench.declare(spec).await;
    pods.break_app("worker");
    // another role is another credential
    bench
        .patch(json!({ "spec": { "dataFrom": bench.spec("web")["dataFrom"] } }))
        .await;
    let second = bench.another(&first).await;
    bench
        .test
        .wait_for("database", "a rollout under way", |object| {
            phase(object) == Some(RolloutPhase::Progressing)
        })
        .await;
    // longer than revokeAfter, which is for Secrets without targets
    sleep(Duration::from_secs(5)).await;
    assert!(
        first.works().await && second.works().await,
        "a target still runs on the old one"
    );
    pods.mend_app("worker");
    bench
        .test
        .wait_for("database", "the rollout is complete", |object| {
            phase(object) == Some(RolloutPhase::Complete)
        })
        .await;
    bench
        .wait("the old one is revoked", |leases| leases.old.is_empty())
        .await;
    first.is_refused().await;
    assert!(second.works().await);
}

fn phase(object: &SyncedSecret) -> Option<RolloutPhase> {
    let rotation = object.status.as_ref()?.rotation.as_ref()?;
    Some(rotation.rollout.as_ref()?.phase)
}

#[tokio::test]
async fn deleted_object_or_entry_has_its_lease_revoked() {
    let bench = Bench::new("lease-deletion", "1h", "24h").await;
    let first = bench.declare(bench.spec("shop")).await;
    bench
        .test
        .synced_secrets()
        .delete("database", &DeleteParams::default())
        .await
        .unwrap();
    bench.is_gone_within(Duration::from_secs(30)).await;
    first.is_refused().await;

    let second = bench.declare(bench.spec("shop")).await;
    assert_ne!(first, second);
    bench.test.put("plain", json!({ "x": "y" })).await;
    let plain = json!([{ "secretKey": "x", "remoteRef": { "key": bench.test.key("plain"), "property": "x" }, "secretStoreRef": { "name": "vault" } }]);
    bench
        .patch(json!({ "spec": { "data": plain, "dataFrom": null } }))
        .await;
    second_is_released(&bench).await;
    // five minutes are the default of what is no longer there
    assert!(second.works().await);
}

async fn second_is_released(bench: &Bench) {
    let held = bench
        .wait("the lease is old", |leases| {
            leases.current.is_none() && leases.old.len() == 1
        })
        .await;
    assert!(held.old[0].replaced_time.is_some());
}

#[tokio::test]
async fn missing_permission_is_reported_and_the_lease_expires() {
    let bench = Bench::with_rights("lease-rights", "1h", "24h", "").await;
    bench.test.declare("database", bench.spec("shop")).await;
    let object = bench.test.wait_for_reason("database", "PermissionDenied").await;
    assert!(
        message(&object).contains(r#"path "auth/token/create-orphan" { capabilities = ["update"] }"#),
        "{}",
        message(&object)
    );
    let policy = format!("{}-dynamic", bench.test.namespace);
    let rules = format!(
        "path \"{}/*\" {{ capabilities = [\"read\"] }}\npath \"auth/token/create-orphan\" {{ capabilities = [\"update\"] }}",
        bench.mount
    );
    bench.test.cluster.bao.put_policy(&policy, &rules).await.unwrap();
    bench.test.refresh("database", "1").await;
    bench.test.wait_for_reason("database", "Synced").await;
    let first = bench.login().await;
    bench
        .patch(json!({ "spec": { "dataFrom": bench.spec("web")["dataFrom"] } }))
        .await;
    bench.another(&first).await;
    let object = bench
        .test
        .wait_for("database", "a lease that is left", |object| {
            let status = object.status.as_ref();
            status.is_some_and(|status| status.condition(ConditionType::LeaseUnrevoked).is_some())
        })
        .await;
    let status = object.status.as_ref().unwrap();
    let said = &status.condition(ConditionType::LeaseUnrevoked).unwrap().message;
    assert!(said.contains(r#"path "auth/token/revoke-accessor""#), "{said}");
    assert!(first.works().await);
    // nothing more can be done for it
    bench
        .test
        .synced_secrets()
        .delete("database", &DeleteParams::default())
        .await
        .unwrap();
    bench.is_gone_within(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn forged_lease_revokes_no_token() {
    let bench = Bench::new("lease-forged", "1h", "24h").await;
    let login = bench.declare(bench.spec("shop")).await;
    let bao = &bench.test.cluster.bao;
    let victim = bao
        .post("auth/token/create", json!({ "policies": ["default"] }))
        .await
        .unwrap();
    let accessor = victim["auth"]["accessor"].as_str().unwrap();
    // the store's own login could revoke it, and the policy lets the operator's account write this
    let forged = json!({ "status": { "lease": { "old": [{
        "id": accessor, "accessor": accessor, "store": { "kind": "SecretStore", "name": "dynamic" },
        "path": format!("{}/creds/shop", bench.mount), "request": "forged", "issuedTime": "2026-01-01T00:00:00Z",
        "expirationTime": "2100-01-01T00:00:00Z", "durationSeconds": 60, "replacedTime": "2026-01-01T00:00:00Z", "unwritten": true,
    }] } } });
    let client = crate::rights::as_operator(&bench.test).await;
    let api: kube::Api<SyncedSecret> = kube::Api::namespaced(client, &bench.test.namespace);
    let params = PatchParams {
        field_manager: Some("lockstep".to_owned()),
        ..PatchParams::default()
    };
    api.patch_status("database", &params, &Patch::Merge(forged))
        .await
        .unwrap();
    let object = bench
        .test
        .wait_for("database", "LeaseUnproven", |object| {
            let condition = object
                .status
                .as_ref()
                .and_then(|status| status.condition(ConditionType::LeaseUnrevoked));
            condition.is_some_and(|condition| condition.reason == "LeaseUnproven")
        })
        .await;
    sleep(Duration::from_secs(2)).await;
    bao.post("auth/token/lookup-accessor", json!({ "accessor": accessor }))
        .await
        .expect("the token of somebody else lives");
    let current = leases(&object).and_then(|leases| leases.current.clone()).unwrap();
    assert_eq!(
        (current.revocation_message, current.end_reason),
        (None, None),
        "lockstep's own goes on"
    );
    bench
        .test
        .synced_secrets()
        .delete("database", &DeleteParams::default())
        .await
        .unwrap();
    bench.is_gone_within(Duration::from_secs(30)).await;
    login.is_refused().await;
    bao.post("auth/token/lookup-accessor", json!({ "accessor": accessor }))
        .await
        .expect("it lives after the deletion, too");
}

#[tokio::test]
async fn change_of_another_value_issues_no_new_credential() {
    let bench = Bench::new("lease-beside", "1h", "24h").await;
    bench.test.put("host", json!({ "host": "one" })).await;
    let mut spec = bench.spec("shop");
    spec["refreshInterval"] = json!("1s");
    spec["data"] = json!([{
        "secretKey": "host", "secretStoreRef": { "name": "vault" },
        "remoteRef": { "key": bench.test.key("host"), "property": "host" },
    }]);
    let first = bench.declare(spec).await;
    bench.test.put("host", json!({ "host": "two" })).await;
    bench
        .test
        .wait_for_secret("database", "the other value", |secret| {
            text(secret, "host").as_deref() == Some("two")
        })
        .await;
    assert_eq!(bench.login().await, first);
    // what is deleted is written again, as long as this process has it
    bench
        .test
        .secrets()
        .delete("database", &DeleteParams::default())
        .await
        .unwrap();
    bench
        .test
        .wait_for_secret("database", "the Secret is back", |secret| login(secret) == first)
        .await;
    assert!(first.works().await);
}

#[tokio::test]
async fn static_role_password_follows_its_own_rotation() {
    let bench = Bench::new("lease-static", "1h", "24h").await;
    let user = bench.test.namespace.replace('-', "_");
    let database = database().await;
    database
        .administer(&format!("create role {user} login password 'first'"))
        .await
        .unwrap();
    let role = json!({ "db_name": "postgresql", "username": user, "rotation_period": "8s" });
    let bao = &bench.test.cluster.bao;
    bao.post(&format!("{}/static-roles/app", bench.mount), role)
        .await
        .unwrap();
    let store: SecretStore = serde_json::from_value(json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
        "metadata": { "name": "static", "namespace": bench.test.namespace },
        "spec": { "provider": { "vault": {
            "server": bao.address(), "path": bench.mount, "version": "v1",
            "auth": { "tokenSecretRef": { "name": "dynamic-token", "key": "token" } },
        } } },
    }))
    .unwrap();
    let stores: kube::Api<SecretStore> =
        kube::Api::namespaced(bench.test.client.clone(), &bench.test.namespace);
    stores
        .create(&kube::api::PostParams::default(), &store)
        .await
        .unwrap();
    let spec = json!({
        "secretStoreRef": { "name": "static" }, "refreshInterval": "1h",
        "dataFrom": [{ "extract": { "key": "static-creds/app" } }],
    });
    let first = bench.declare(spec).await;
    assert_eq!(first.user, user);
    let second = bench.another(&first).await;
    assert!(second.works().await && !first.works().await);
}

/// An operator behind a proxy, with a credential of its own.
struct Crashes {
    cluster: ProxiedCluster,
    bao: OpenBao,
    mount: String,
}

impl Crashes {
    async fn set(mount: &str, ttl: &str) -> Self {
        let cluster = ProxiedCluster::set(&[]).await.unwrap();
        let bao = OpenBao::start().await.unwrap();
        engine(&bao, mount, ttl, "24h").await;
        let rules = format!("path \"{mount}/*\" {{ capabilities = [\"read\"] }}\n{TOKENS}");
        bao.put_policy("dynamic", &rules).await.unwrap();
        let token = bao.create_token(&["dynamic", "default"]).await.unwrap();
        let objects = json!([
            {
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "token", "namespace": NAMESPACE },
                "stringData": { "token": token },
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                "metadata": { "name": "token", "namespace": NAMESPACE },
                "rules": [{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["token"], "verbs": ["get", "list", "watch"] }],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": { "name": "token", "namespace": NAMESPACE },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "token" },
                "subjects": [{ "kind": "ServiceAccount", "name": "lockstep", "namespace": "lockstep-system" }],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": { "name": "lockstep-rollouts", "namespace": NAMESPACE },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lockstep-rollouts" },
                "subjects": [{ "kind": "ServiceAccount", "name": "lockstep", "namespace": "lockstep-system" }],
            },
            {
                "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
                "metadata": { "name": "dynamic", "namespace": NAMESPACE },
                "spec": { "provider": { "vault": {
                    "server": bao.address(), "auth": { "tokenSecretRef": { "name": "token", "key": "token" } },
                } } },
            },
        ]);
        for object in objects.as_array().unwrap() {
            cluster.apply(object).await.unwrap();
        }
        Self {
            cluster,
            bao,
            mount: mount.to_owned(),
        }
    }

    fn object(&self, name: &str) -> Value {
        json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": {
                "secretStoreRef": { "name": "dynamic" },
                "dataFrom": [{ "generate": {
                    "vault": { "path": format!("{}/creds/shop", self.mount) }, "revokeAfter": "1s",
                } }],
            },
        })
    }

    async fn declare(&self, name: &str) {
        self.cluster.apply(&self.object(name)).await.unwrap();
    }

    /// The same with a Deployment of that name as its target. It has no pods: to have its turn is all that it needs.
    async fn declare_with_target(&self, name: &str) {
        let labels = json!({ "app": name });
        self.cluster
            .apply(&json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": { "name": name, "namespace": NAMESPACE },
                "spec": {
                    "replicas": 0,
                    "selector": { "matchLabels": labels },
                    "template": {
                        "metadata": { "labels": labels },
                        "spec": { "containers": [{ "name": "app", "image": "example.org/app" }] },
                    },
                },
            }))
            .await
            .unwrap();
        let mut object = self.object(name);
        object["spec"]["rotation"] = json!({ "rollout": { "targets": [{ "kind": "Deployment", "name": name }], "minimumInterval": "0s" } });
        self.cluster.apply(&object).await.unwrap();
    }

    /// The leases that the server holds.
    async fn held(&self) -> Result<Vec<String>> {
        let path = format!("sys/leases/lookup/{}/creds/shop/?list=true", self.mount);
        // there is no list where there is no lease
        let Ok(answer) = self.bao.get(&path).await else {
            return Ok(Vec::new());
        };
        let keys = answer["data"]["keys"].as_array().cloned().unwrap_or_default();
        Ok(keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Waits until the Secret holds a credential that works and nothing else is left.
    async fn settles(&self, name: &str, leases: usize) -> Value {
        let settled = eventually(name, || async {
            let object = self.cluster.get("syncedsecret", name).await;
            let lease = &object["status"]["lease"];
            ensure!(
                lease["current"].is_object()
                    && lease["intent"].is_null()
                    && lease["minted"].is_null()
                    && lease["old"].is_null(),
                "{lease}"
            );
            let held = self.held().await?;
            ensure!(held.len() == leases, "{held:?}");
            Ok(object)
        });
        match settled.await {
            Ok(object) => object,
            Err(error) => panic!("{error:#}\n{}", self.cluster.operator.log()),
        }
    }

    async fn works(&self, name: &str) -> bool {
        use base64::Engine as _;
        let secret = self.cluster.get("secret", name).await;
        let text = |key: &str| {
            let bytes = base64::prelude::BASE64_STANDARD.decode(secret["data"][key].as_str().unwrap());
            String::from_utf8(bytes.unwrap()).unwrap()
        };
        database().await.takes(&text("username"), &text("password")).await
    }
}

#[tokio::test]
async fn kill_at_any_write_leaves_one_working_credential() {
    let mut crashes = Crashes::set("database-crash", "1h").await;
    crashes.cluster.operator.run().await.unwrap();
    let mut leases = 0;
    // The finalizer (the first time the proof before it, which then holds for a while), the intent,
    // the lease, the Secret, the status. The property of the reconcile tries each fault at each.
    for (fault, nth) in [Fault::Hangs, Fault::LosesAnswer].into_iter().cycle().zip(0..5) {
        leases += 1;
        let name = format!("{fault:?}-{nth}").to_lowercase();
        crashes.cluster.proxy.strike(fault, nth, 1, Asked::is_write);
        crashes.declare_with_target(&name).await;
        crashes.cluster.proxy.struck().await;
        crashes.cluster.operator.kill();
        crashes.cluster.proxy.heal();
        crashes.cluster.operator.run().await.unwrap();
        crashes.settles(&name, leases).await;
        assert!(crashes.works(&name).await, "{name}");
    }
    // and a restart makes nothing new
    let before = crashes.held().await.unwrap();
    crashes.cluster.operator.kill();
    crashes.cluster.operator.run().await.unwrap();
    crashes.declare("later").await;
    crashes.settles("later", leases + 1).await;
    let after = crashes.held().await.unwrap();
    assert!(
        before.iter().all(|lease| after.contains(lease)),
        "{before:?} {after:?}"
    );
}

#[tokio::test]
async fn failing_status_write_causes_no_burst_of_renewals() {
    let mut crashes = Crashes::set("database-storm", "6s").await;
    crashes.cluster.operator.run().await.unwrap();
    crashes.declare("storm").await;
    crashes.settles("storm", 1).await;
    crashes
        .cluster
        .proxy
        .strike(Fault::Status(500), 0, usize::MAX, |asked| {
            asked.path.contains("/syncedsecrets/") && asked.path.ends_with("/status")
        });
    let renewals = || async {
        let labels = ["operation=\"renew\"", "outcome=\"ok\""];
        let count = crashes
            .cluster
            .operator
            .metric("lockstep_lease_operations_total", &labels)
            .await;
        count.unwrap_or_default()
    };
    let before = renewals().await;
    eventually("a renewal", || async {
        ensure!(renewals().await > before, "none yet");
        Ok(())
    })
    .await
    .unwrap();
    sleep(Duration::from_secs(3)).await;
    let made = renewals().await - before;
    assert!(made < 8.0, "{made} in three seconds");
    crashes.cluster.proxy.heal();
    // it lives, and is noted in the end
    eventually("it is noted", || async {
        let object = crashes.cluster.get("syncedsecret", "storm").await;
        let current = &object["status"]["lease"]["current"];
        ensure!(current["renewedTime"].is_string(), "{current}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(crashes.works("storm").await);
}

#[tokio::test]
async fn no_credential_is_issued_without_the_finalizer_policy() {
    let mut crashes = Crashes::set("database-policy", "1h").await;
    let gone = [
        "delete",
        "validatingadmissionpolicybinding",
        "lockstep-leases",
        "--wait=true",
    ];
    lockstep_testkit::operator::kubectl(&crashes.cluster.plane.kubeconfig(), &gone, None)
        .await
        .unwrap();
    // the API server takes a moment to know
    sleep(Duration::from_secs(3)).await;
    crashes.cluster.operator.run().await.unwrap();
    crashes.declare("unguarded").await;
    let ready = crashes.cluster.wait_for_reason("unguarded", "WriteFailed").await;
    let said = ready["message"].as_str().unwrap();
    assert!(said.contains("lockstep-leases is not enforced"), "{said}");
    assert_eq!(crashes.held().await.unwrap(), Vec::<String>::new());
    let object = crashes.cluster.get("syncedsecret", "unguarded").await;
    assert!(object["metadata"]["finalizers"].is_null(), "{object}");
    assert!(
        object["metadata"]["labels"].is_null(),
        "it was a dry run: {object}"
    );
}
