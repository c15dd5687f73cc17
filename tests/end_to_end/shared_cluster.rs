//! One control plane, one OpenBao and one operator for all tests; each test has a namespace of its own.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use lockstep_api::{ConditionType, SecretStore, SyncedSecret};
use lockstep_testkit::{ControlPlane, OpenBao, Operator, operator};
use serde_json::{Value, json};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct SharedCluster {
    pub(crate) plane: ControlPlane,
    pub(crate) bao: OpenBao,
    pub(crate) operator: Operator,
}

static STAGE: OnceCell<SharedCluster> = OnceCell::const_new();

/// The cluster that all tests share.
pub(crate) async fn shared_cluster() -> &'static SharedCluster {
    STAGE
        .get_or_init(|| async {
            SharedCluster::raise(&["--drift-probe-interval", "2s"])
                .await
                .expect("the stage")
        })
        .await
}

impl SharedCluster {
    /// A cluster of its own, for a test that breaks things.
    pub(crate) async fn raise(arguments: &[&str]) -> Result<Self> {
        let mut cluster = Self::raise_without_operator(arguments).await?;
        cluster.operator.run().await?;
        Ok(cluster)
    }

    /// A cluster whose operator does not run yet.
    pub(crate) async fn raise_without_operator(arguments: &[&str]) -> Result<Self> {
        let plane = ControlPlane::builder()
            .with_controller_manager()
            .controller("statefulset-controller")
            .controller("daemonset-controller")
            .controller("job-controller")
            .controller("endpoints-controller")
            .start()
            .await?;
        plane.install_crds().await?;
        operator::install(&plane.kubeconfig()).await?;
        let bao = OpenBao::start().await?;
        let operator = Operator::prepare(&plane, arguments).await?;
        Ok(Self { plane, bao, operator })
    }

    /// A namespace with a store `vault` that reads what is below a path of the same name.
    pub(crate) async fn test_namespace(&'static self, prefix: &str) -> TestNamespace {
        let namespace = self.plane.namespace(prefix).await.expect("a namespace");
        let client = self.plane.client().await.expect("a client");
        let test = TestNamespace {
            cluster: self,
            namespace,
            client,
        };
        test.add_token_store("vault", &["read", "list"])
            .await
            .expect("a store");
        test
    }
}

/// A namespace of one test.
pub(crate) struct TestNamespace {
    pub(crate) cluster: &'static SharedCluster,
    pub(crate) namespace: String,
    pub(crate) client: Client,
}

impl TestNamespace {
    /// A store that reads below the namespace's own path with a token that may do just that.
    pub(crate) async fn add_token_store(&self, name: &str, rights: &[&str]) -> Result<()> {
        let namespace = &self.namespace;
        let policy = format!("{namespace}-{name}");
        let rights = serde_json::to_string(rights)?;
        let rules = format!(
            "path \"secret/data/{namespace}/*\" {{ capabilities = {rights} }}\npath \"secret/metadata/{namespace}/*\" {{ capabilities = {rights} }}\npath \"secret/metadata/{namespace}\" {{ capabilities = {rights} }}"
        );
        self.cluster.bao.put_policy(&policy, &rules).await?;
        let token = self.cluster.bao.create_token(&[&policy, "default"]).await?;
        self.add_credential(&format!("{name}-token"), "token", &token)
            .await?;
        self.add_store(
            name,
            &json!({ "tokenSecretRef": { "name": format!("{name}-token"), "key": "token" } }),
        )
        .await
    }

    /// A Secret that the operator may read as a credential.
    pub(crate) async fn add_credential(&self, name: &str, key: &str, value: &str) -> Result<()> {
        self.apply_raw(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name, "namespace": self.namespace },
            "stringData": { key: value },
        }))
        .await?;
        self.apply_raw(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": { "name": format!("lockstep-{name}"), "namespace": self.namespace },
            "rules": [{
                "apiGroups": [""], "resources": ["secrets"], "resourceNames": [name],
                "verbs": ["get", "list", "watch"],
            }],
        }))
        .await?;
        self.apply_raw(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": format!("lockstep-{name}"), "namespace": self.namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": format!("lockstep-{name}") },
            "subjects": [{
                "kind": "ServiceAccount", "name": operator::SERVICE_ACCOUNT, "namespace": operator::NAMESPACE,
            }],
        }))
        .await
    }

    /// A store on the cluster's OpenBao.
    pub(crate) async fn add_store(&self, name: &str, auth: &Value) -> Result<()> {
        let store: SecretStore = serde_json::from_value(json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": { "provider": { "vault": {
                "server": self.cluster.bao.address(), "path": "secret", "auth": auth,
            } } },
        }))?;
        let api: Api<SecretStore> = Api::namespaced(self.client.clone(), &self.namespace);
        api.create(&PostParams::default(), &store)
            .await
            .map(drop)
            .context("create the store")
    }

    /// Applies any object, in the namespace that it names or in none.
    pub(crate) async fn apply_raw(&self, object: &Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(object.clone())?;
        let types = object.types.as_ref().context("apiVersion and kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let params = PatchParams::apply("end-to-end").force();
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await
            .map(drop)
            .with_context(|| format!("apply {} {}", types.kind, object.name_any()))
    }

    /// The key of a remote value of this test.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }

    /// Writes a remote value.
    pub(crate) async fn put(&self, name: &str, fields: Value) {
        self.cluster
            .bao
            .put_kv2(&self.key(name), fields)
            .await
            .expect("a value in OpenBao");
    }

    pub(crate) fn synced_secrets(&self) -> Api<SyncedSecret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Declares a SyncedSecret.
    pub(crate) async fn declare(&self, name: &str, spec: Value) -> SyncedSecret {
        let mut spec = spec;
        if spec.get("secretStoreRef").is_none() {
            spec["secretStoreRef"] = json!({ "name": "vault" });
        }
        let object: SyncedSecret = serde_json::from_value(json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": spec,
        }))
        .expect("a SyncedSecret");
        self.synced_secrets()
            .create(&PostParams::default(), &object)
            .await
            .expect("the API server takes it")
    }

    /// Asks for a refresh.
    pub(crate) async fn refresh(&self, name: &str, value: &str) {
        let patch = json!({ "metadata": { "annotations": { "lockstep.dev/refresh": value } } });
        self.synced_secrets()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("the annotation");
    }

    /// Waits until the condition `Ready` has that reason, for this generation.
    pub(crate) async fn wait_for_reason(&self, name: &str, reason: &str) -> SyncedSecret {
        self.wait_for(name, reason, |object| {
            ready(object).is_some_and(|condition| condition.reason == reason)
                && object
                    .status
                    .as_ref()
                    .and_then(|status| status.observed_generation)
                    == object.metadata.generation
        })
        .await
    }

    /// Waits until a SyncedSecret is so.
    pub(crate) async fn wait_for(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&SyncedSecret) -> bool,
    ) -> SyncedSecret {
        let last = eventually(what, || async {
            let object = self.synced_secrets().get(name).await?;
            if is_so(&object) {
                Ok(object)
            } else {
                bail!("{:?}", object.status)
            }
        });
        match last.await {
            Ok(object) => object,
            Err(error) => panic!("{error:#}\n{}", self.cluster.operator.log()),
        }
    }

    /// Waits until a Secret is so.
    pub(crate) async fn wait_for_secret(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&Secret) -> bool,
    ) -> Secret {
        let last = eventually(what, || async {
            let secret = self.secrets().get(name).await?;
            if is_so(&secret) {
                Ok(secret)
            } else {
                bail!("not so at version {:?}", secret.resource_version())
            }
        });
        match last.await {
            Ok(secret) => secret,
            Err(error) => panic!("{error:#}\n{}", self.cluster.operator.log()),
        }
    }
}

/// The condition `Ready`.
pub(crate) fn ready(object: &SyncedSecret) -> Option<&lockstep_api::Condition> {
    object.status.as_ref()?.condition(ConditionType::Ready)
}

/// The message of the condition `Ready`.
pub(crate) fn message(object: &SyncedSecret) -> &str {
    ready(object).map_or("", |condition| condition.message.as_str())
}

/// The text of a key of a Secret.
pub(crate) fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok()
}

/// Tries until it succeeds, within the patience of a test.
pub(crate) async fn eventually<T, F>(what: &str, attempt: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let until = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > until => return Err(error.context(format!("waited for {what}"))),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}
