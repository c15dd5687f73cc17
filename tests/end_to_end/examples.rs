//! Applies every example to a real API server with a real OpenBao, and compares the result with its `expected.yaml`. A
//! new example needs no code here.

mod expected;
mod unsealed;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use lockstep_api::aws::AwsService;
use lockstep_testkit::{
    ControlPlane, OpenBao, Operator, Scratch,
    aws::{self, Aws},
    example::{
        self, AwsSource, ExpectedObject, ExpectedSecret, GcpSource, Replacements, Request, SecretName, Step,
    },
    gcp::{self, GKE_POOL, Gcp, WORKLOAD_IDENTITY_PROVIDER},
    operator,
    pods::Pods,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::expected::{compare_object, compare_secret};

/// How long an expectation may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);
/// The access key of whoever seals.
const DEVELOPER: &str = "AKIALOCKSTEPTEST0002";
/// The address of the server with a certificate, in the examples.
const TLS: &str = "https://127.0.0.1:8200";

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// Everything that all examples share.
struct Ground {
    client: Client,
    plain: OpenBao,
    tls: OpenBao,
    aws: Aws,
    gcp: Gcp,
    root: Scratch,
    replacements: Replacements,
    _plane: ControlPlane,
    operator: Operator,
}

impl Ground {
    async fn raise() -> Result<Self> {
        let plane = ControlPlane::builder()
            .with_controller_manager()
            .controller("job-controller")
            .start()
            .await?;
        plane.install_crds().await?;
        operator::install(&plane.kubeconfig()).await?;
        let (plain, tls) = tokio::try_join!(OpenBao::start(), OpenBao::builder().tls().start())?;
        let root = Scratch::new("examples")?;
        let (aws, gcp) = tokio::try_join!(Aws::start(), Gcp::start())?;
        aws.add_key(DEVELOPER);
        aws.deny_action_to(DEVELOPER, "Decrypt");
        aws.deny_action_to(aws::ACCESS_KEY_ID, "Encrypt");
        aws.add_kms_key("example");
        gcp.deny_action_to(gcp::NODE, "Decrypt");
        gcp.deny_action_to(gcp::SERVICE_ACCOUNT, "Encrypt");
        gcp.add_kms_key("example");
        let kubeconfig = plane.kubeconfig();
        let federation = format!("https:{WORKLOAD_IDENTITY_PROVIDER}");
        let audiences = ["vault", "openbao", "sts.amazonaws.com", &federation, GKE_POOL];
        allow_audiences(&kubeconfig, &audiences).await?;
        let audiences = audiences.join(",");
        let arguments = [
            "--file-root",
            root.path().to_str().context("UTF-8")?,
            "--token-audiences",
            &audiences,
        ];
        let mut operator = Operator::prepare(&plane, &arguments)
            .await?
            .env("AWS_ACCESS_KEY_ID", aws::ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", aws::SECRET_ACCESS_KEY)
            .env("GCE_METADATA_HOST", &gcp.host());
        operator.run().await?;
        let reviewer =
            fs::read_to_string(operator::repository().join("examples/_shared/vault/reviewer.yaml"))?;
        operator::kubectl(&kubeconfig, &["apply", "-f", "-"], Some(&reviewer)).await?;
        let ask = [
            "create",
            "token",
            "token-reviewer",
            "-n",
            "vault",
            "--duration",
            "1h",
        ];
        let token = operator::kubectl(&kubeconfig, &ask, None).await?;
        let authority = tls.authority().context("an authority")?;
        let identity = authority.client("example", None)?;
        let replacements = Replacements::default()
            .scalar("${KUBERNETES_HOST}", plane.url().to_owned())
            .scalar("${KUBERNETES_CA}", plane.ca().to_owned())
            .scalar("${TOKEN_REVIEWER_JWT}", token.trim().to_owned())
            .scalar(
                "${SERVICE_ACCOUNT_PUBLIC_KEY}",
                fs::read_to_string(plane.folder().join("tokens.pub"))?,
            )
            .scalar(
                "${VAULT_CA}",
                tls.ca().context("a certificate authority")?.to_owned(),
            )
            .scalar("${CLIENT_CA}", authority.pem())
            .scalar("${CLIENT_CERTIFICATE}", identity.certificate)
            .scalar("${CLIENT_KEY}", identity.key)
            .address(example::VAULT, plain.address())
            .scalar("${GCP_SERVICE_ACCOUNT_KEY}", gcp.service_account_key()?)
            .address(example::AWS, aws.address())
            .address(example::GCP, gcp.address())
            .address(TLS, tls.address());
        let ground = Self {
            client: plane.client().await?,
            plain,
            tls,
            aws,
            gcp,
            root,
            replacements,
            _plane: plane,
            operator,
        };
        for bao in [&ground.plain, &ground.tls] {
            let setup = example::vault_requests("examples/_shared/vault/setup.yaml")?;
            ground.prepare(bao, setup).await?;
        }
        Ok(ground)
    }

    /// What a developer has in the environment: rights to encrypt, and none to decrypt.
    async fn developer(&self) -> Result<unsealed::Environment> {
        Ok(vec![
            ("VAULT_TOKEN", self.plain.create_token(&["developer"]).await?),
            // Google's own client finds the developer's identity: here that of a machine
            ("GCE_METADATA_HOST", self.gcp.host()),
            ("AWS_ACCESS_KEY_ID", DEVELOPER.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test-of-a-developer".to_owned()),
        ])
    }

    async fn prepare(&self, bao: &OpenBao, requests: Vec<Request>) -> Result<()> {
        for mut request in requests {
            self.replacements.fill_in(&mut request.body);
            let answer = bao.post(&request.path, request.body).await;
            answer.with_context(|| format!("vault: {}", request.path))?;
        }
        Ok(())
    }

    fn api(&self, kind: &str, api_version: &str, namespace: Option<&str>) -> Result<Api<DynamicObject>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Ok(match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        })
    }

    fn ours(&self, kind: &str, namespace: Option<&str>) -> Result<Api<DynamicObject>> {
        self.api(kind, "lockstep.dev/v1alpha1", namespace)
    }

    async fn apply(&self, manifests: &str) -> Result<()> {
        for document in serde_yaml_ng::Deserializer::from_str(manifests) {
            let mut value = Value::deserialize(document)?;
            self.replacements.fill_in(&mut value);
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (kind, version) = (text(&value["kind"]), text(&value["apiVersion"]));
            let (name, namespace) = (
                text(&value["metadata"]["name"]),
                value["metadata"]["namespace"].clone(),
            );
            let api = self.api(&kind, &version, namespace.as_str())?;
            let params = PatchParams::apply("examples").force();
            api.patch(&name, &params, &Patch::Apply(&value))
                .await
                .with_context(|| format!("apply {kind} {name}"))?;
        }
        Ok(())
    }

    /// One example, from its values to its last step.
    async fn play(&self, folder: &Path) -> Result<()> {
        let example = example::expected(folder)?;
        let manifests = fs::read_to_string(folder.join("manifests.yaml")).context("manifests.yaml")?;
        let bao = if manifests.contains(TLS) {
            &self.tls
        } else {
            &self.plain
        };
        let source = match (&example.files, &example.aws, &example.gcp) {
            (Some(files), ..) => Source::Files(self.root.path().join(files)),
            (None, Some(source), _) => Source::Aws(&self.aws, source),
            (None, None, Some(source)) => Source::Gcp(&self.gcp, source),
            (None, None, None) => Source::Vault(bao),
        };
        for (key, bytes) in values(&folder.join("values"), "")? {
            source.write_file(&key, &bytes).await?;
        }
        self.prepare(bao, example.vault).await?;
        let namespaces = namespaces_of_deployments(&manifests)?;
        let _pods: Vec<_> = namespaces
            .iter()
            .map(|namespace| Pods::play(self.client.clone(), namespace))
            .collect();
        self.apply(&manifests).await?;
        let environment = self.developer().await?;
        if let Some(sealed) = unsealed::seal(folder, &manifests, &self.replacements, &environment).await? {
            self.apply(&sealed).await?;
        }
        self.expect("at first", &example.objects, &example.secrets, &example.absent)
            .await?;
        for (number, step) in example.then.iter().enumerate() {
            self.step(number, step, &source).await?;
            self.expect(&step.what, &step.objects, &step.secrets, &step.absent)
                .await?;
        }
        Ok(())
    }

    async fn step(&self, number: usize, step: &Step, source: &Source<'_>) -> Result<()> {
        for (key, fields) in &step.write {
            source.write(key, fields).await?;
        }
        for key in &step.delete {
            source.delete(key).await?;
        }
        for key in &step.notify {
            source.notify(key)?;
        }
        for change in &step.patch {
            let api = self.ours(change.kind.as_str(), Some(&change.namespace))?;
            let patch = json!({ "spec": change.spec });
            api.patch(&change.name, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
        for object in &step.refresh {
            let (namespace, name) = object.split_once('/').context("namespace/name")?;
            let patch =
                json!({ "metadata": { "annotations": { "lockstep.dev/refresh": number.to_string() } } });
            let api = self.ours("SyncedSecret", Some(namespace))?;
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
        Ok(())
    }

    async fn expect(
        &self,
        what: &str,
        objects: &[ExpectedObject],
        secrets: &[ExpectedSecret],
        absent: &[SecretName],
    ) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.compare(objects, secrets, absent).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error.context(what.to_owned())),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn compare(
        &self,
        objects: &[ExpectedObject],
        secrets: &[ExpectedSecret],
        absent: &[SecretName],
    ) -> Result<()> {
        for expected in objects {
            let api = self.ours(expected.kind.as_str(), expected.namespace.as_deref())?;
            let object = api.get(&expected.name).await?;
            compare_object(expected, &object)?;
        }
        for expected in secrets {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &expected.namespace);
            let secret = api.get(&expected.name).await?;
            compare_secret(expected, &secret).with_context(|| format!("Secret {}", expected.name))?;
        }
        for expected in absent {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &expected.namespace);
            let there = api.get_opt(&expected.name).await?.is_some();
            ensure!(!there, "Secret {} is there", expected.name);
        }
        Ok(())
    }
}

/// Where an example's values are.
enum Source<'a> {
    Vault(&'a OpenBao),
    Files(PathBuf),
    Aws(&'a Aws, &'a AwsSource),
    Gcp(&'a Gcp, &'a GcpSource),
}

impl Source<'_> {
    async fn write_file(&self, key: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Vault(_) => self.write(key, &serde_json::from_slice(bytes)?).await,
            Self::Files(folder) => put_file(&folder.join(key), bytes),
            Self::Aws(aws, source) => {
                let text = std::str::from_utf8(bytes)?;
                let name = format!("{}{key}", source.prefix);
                match source.service {
                    AwsService::SecretsManager => drop(aws.put_secret(&name, text)),
                    AwsService::ParameterStore => drop(aws.put_parameter(&name, text)),
                }
                for (tag, value) in source.tags.get(key).into_iter().flatten() {
                    aws.tag(&name, tag, value);
                }
                for (subject, role) in &source.trust {
                    aws.trust_subject(subject, role);
                }
                Ok(())
            }
            Self::Gcp(gcp, source) => {
                gcp.put_secret_bytes(key, bytes);
                for (label, value) in source.labels.get(key).into_iter().flatten() {
                    gcp.label(key, label, value);
                }
                for subject in &source.trust {
                    gcp.trust_subject(subject);
                }
                Ok(())
            }
        }
    }

    async fn write(&self, key: &str, fields: &Value) -> Result<()> {
        match self {
            Self::Vault(bao) => bao.put_kv2(key, fields.clone()).await.map(drop),
            Self::Files(_) | Self::Aws(..) | Self::Gcp(..) => {
                Box::pin(self.write_file(key, &serde_json::to_vec(fields)?)).await
            }
        }
    }

    /// Sends the event of the service for the current version of a value.
    fn notify(&self, key: &str) -> Result<()> {
        match self {
            Self::Aws(aws, source) => aws.tell(&format!("{}{key}", source.prefix)),
            Self::Gcp(gcp, _) => {
                gcp.tell("SECRET_VERSION_ADD", key, None);
                Ok(())
            }
            Self::Vault(_) | Self::Files(_) => bail!("{key}: this source sends no events"),
        }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self {
            Self::Vault(bao) => bao.delete(&format!("secret/data/{key}")).await.map(drop),
            Self::Files(folder) => Ok(fs::remove_file(folder.join(key))?),
            Self::Aws(aws, source) => {
                aws.delete(&format!("{}{key}", source.prefix));
                Ok(())
            }
            Self::Gcp(gcp, _) => {
                gcp.delete(key);
                Ok(())
            }
        }
    }
}

/// Replaces the audiences on the list of the admission policy, as deploy/kustomize/README.md shows.
async fn allow_audiences(kubeconfig: &Path, audiences: &[&str]) -> Result<()> {
    let list = format!("['{}']", audiences.join("', '"));
    let patch =
        json!([{ "op": "replace", "path": "/spec/variables/3/expression", "value": list }]).to_string();
    let arguments = [
        "patch",
        "validatingadmissionpolicy",
        "lockstep-token-requests",
        "--type=json",
        "--patch",
        &patch,
    ];
    operator::kubectl(kubeconfig, &arguments, None).await.map(drop)
}

/// Writes a file as a careful program does: whole, or not at all.
fn put_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().context("a folder")?;
    fs::create_dir_all(parent)?;
    let beside = parent.join(".writing");
    fs::write(&beside, bytes)?;
    Ok(fs::rename(beside, path)?)
}

/// Returns the namespaces in which manifests have Deployments.
fn namespaces_of_deployments(manifests: &str) -> Result<BTreeSet<String>> {
    let mut namespaces = BTreeSet::new();
    for document in serde_yaml_ng::Deserializer::from_str(manifests) {
        let object = Value::deserialize(document)?;
        if object["kind"] == "Deployment" {
            let namespace = object["metadata"]["namespace"].as_str();
            namespaces.insert(namespace.context("a Deployment without a namespace")?.to_owned());
        }
    }
    Ok(namespaces)
}

/// The files below a folder, by their path in it.
fn values(folder: &Path, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    if !folder.exists() {
        return Ok(all);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        let key = format!("{prefix}{}", name_of(&path));
        if path.is_dir() {
            all.extend(values(&path, &format!("{key}/"))?);
        } else {
            all.insert(key, fs::read(&path)?);
        }
    }
    Ok(all)
}

#[tokio::test]
async fn every_example_matches_its_expected_result() {
    let ground = Ground::raise().await.unwrap();
    let all = example::folders().unwrap();
    let played = join_all(all.iter().map(|folder| ground.play(folder))).await;
    let mut failures = String::new();
    for (folder, result) in all.iter().zip(played) {
        if let Err(error) = result {
            let _ = writeln!(failures, "examples/{}: {error:#}", example::name(folder));
        }
    }
    assert!(failures.is_empty(), "{failures}\n{}", ground.operator.log());
}

#[test]
fn every_login_method_of_the_crds_has_an_example() {
    let read = |path: &Path| -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        serde_yaml_ng::Deserializer::from_str(&text)
            .map(|document| Value::deserialize(document).unwrap())
            .collect()
    };
    let crd = read(&operator::repository().join("crds/lockstep.dev_secretstores.yaml")).remove(0);
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let providers = &schema["properties"]["spec"]["properties"]["provider"]["properties"];
    let stores: Vec<Value> = example::folders()
        .unwrap()
        .iter()
        .flat_map(|folder| read(&folder.join("manifests.yaml")))
        .map(|object| object["spec"]["provider"].clone())
        .collect();
    let mut ways = 0;
    for (provider, schema) in providers.as_object().unwrap() {
        let auth = schema["properties"]["auth"]["properties"].as_object();
        for way in auth.into_iter().flat_map(serde_json::Map::keys) {
            let shows = |store: &&Value| !store[provider]["auth"][way].is_null();
            assert!(stores.iter().any(|store| shows(&store)), "{provider}: auth.{way}");
            ways += 1;
        }
    }
    assert!(ways >= 11, "only {ways} ways are known");
    for provider in ["aws", "gcp"] {
        let is_ambient = |store: &Value| store[provider].is_object() && store[provider]["auth"].is_null();
        assert!(stores.iter().any(is_ambient), "{provider}: no auth");
    }
}
