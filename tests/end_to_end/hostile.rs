//! Input that any tenant can send, each of which once stopped everybody: under the shipped limit of memory, a quiet namespace keeps
//! being synced, and the operator keeps answering.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kube::api::{DeleteParams, ListParams};
use lockstep_testkit::operator;
use serde_json::{Value, json};

use crate::{
    bad_input::one,
    faulty_vault::{FaultyVault, Mood},
    shared_cluster::{SharedCluster, TestNamespace, text},
};

/// The limit of `deploy/`.
const MEMORY: u64 = 256 << 20;
/// How long a new value of the quiet namespace may take. It is refreshed every second, by an operator without optimisation that
/// shares its processors with the servers of this test.
const PROMPT: Duration = Duration::from_secs(30);
/// How long `/livez` may take.
const ALIVE: Duration = Duration::from_secs(10);

/// A group of processes with that limit, where this machine lets the test make one.
struct MemoryLimit(PathBuf);

impl MemoryLimit {
    fn set(pid: u32) -> Option<Self> {
        let folder = Path::new("/sys/fs/cgroup/memory").join(format!("lockstep-test-{pid}"));
        fs::create_dir(&folder).ok()?;
        let limit = Self(folder);
        let write = |file: &str, text: String| fs::write(limit.0.join(file), text).ok();
        write("memory.limit_in_bytes", MEMORY.to_string())?;
        write("cgroup.procs", pid.to_string())?;
        Some(limit)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // the operator outlives the test by a moment, and a group with a process in it stays
        let processes = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for process in processes.lines() {
            let _ = fs::write(self.0.with_file_name("cgroup.procs"), process);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// What was seen of the operator while it was attacked.
#[derive(Debug, Default)]
struct Seen {
    memory: u64,
    slowest: Duration,
    silent: Option<String>,
}

/// Looks at the operator until it is dropped.
struct Watcher {
    seen: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
}

impl Watcher {
    fn start(cluster: &'static SharedCluster) -> Self {
        let (seen, ended) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let pid = cluster.operator.pid().expect("it runs");
        let watcher = Self {
            seen: Arc::clone(&seen),
            ended: Arc::clone(&ended),
        };
        let note = move |change: &dyn Fn(&mut Seen)| {
            change(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
        };
        let (still, stops) = (note.clone(), Arc::clone(&ended));
        let memory = move || {
            while !stops.load(Ordering::Relaxed) {
                let now = anonymous_memory(pid);
                still(&|seen| seen.memory = seen.memory.max(now));
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        std::thread::spawn(memory);
        let livez = async move {
            while !ended.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = tokio::time::timeout(ALIVE, cluster.operator.get("livez")).await;
                let took = began.elapsed();
                match answer {
                    Ok(Ok((200, _))) => note(&|seen| seen.slowest = seen.slowest.max(took)),
                    other => {
                        let said = format!("{other:?} after {took:?}");
                        note(&|seen| seen.silent = Some(said.clone()));
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's own runtime")]
        tokio::spawn(livez);
        watcher
    }

    /// Fails where the operator was silent or needed too much since the last time.
    fn check(&self, attack: &str) {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(seen.silent.is_none(), "{attack}: /livez: {seen:?}");
        assert!(seen.memory < MEMORY, "{attack}: {} MiB", seen.memory >> 20);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// The memory of a process that no file backs, in bytes.
fn anonymous_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() << 10
}

/// The namespace that nobody may harm.
struct Quiet {
    test: TestNamespace,
    turn: u32,
}

impl Quiet {
    /// Changes the value, and waits until it has arrived.
    async fn is_synced(&mut self, attack: &str) {
        self.turn += 1;
        let value = self.turn.to_string();
        self.test.put("a", json!({ "x": value })).await;
        let began = Instant::now();
        self.test
            .wait_for_secret("s", attack, |secret| {
                text(secret, "x").as_deref() == Some(value.as_str())
            })
            .await;
        assert!(began.elapsed() < PROMPT, "{attack}: {:?}", began.elapsed());
    }
}

/// Waits until each SyncedSecret of a namespace has failed for that reason, while the quiet namespace goes on.
async fn all_fail(test: &TestNamespace, reason: &str, said: &str) {
    let objects = test.synced_secrets().list(&ListParams::default()).await.unwrap();
    for object in objects.items {
        let name = object.metadata.name.unwrap();
        let object = test.wait_for_reason(&name, reason).await;
        let message = crate::shared_cluster::message(&object);
        assert!(message.contains(said), "{message}");
    }
}

async fn remove_all(test: &TestNamespace) {
    test.synced_secrets()
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
}

fn literal(text: &str) -> Value {
    json!({ "templateFrom": [{ "literal": text }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_input_does_not_affect_others() {
    let mut cluster = SharedCluster::raise_without_operator(&[]).await.unwrap();
    cluster.operator.run().await.unwrap();
    let _limit = MemoryLimit::set(cluster.operator.pid().unwrap());
    let cluster: &'static SharedCluster = Box::leak(Box::new(cluster));
    let hostile = cluster.test_namespace("hostile").await;
    let mut quiet = Quiet {
        test: cluster.test_namespace("quiet").await,
        turn: 0,
    };
    quiet.test.put("a", json!({ "x": "0" })).await;
    let data = json!({ "data": [one("x", &quiet.test.key("a"), "x")] });
    quiet.test.sync("s", data).await;
    let watcher = Watcher::start(cluster);
    quiet.is_synced("nothing").await;
    watcher.check("nothing");

    aliases(&hostile, &mut quiet).await;
    watcher.check("aliases");
    properties(&hostile, &mut quiet).await;
    watcher.check("properties");
    searches(&hostile, &mut quiet).await;
    watcher.check("searches");
    large_values(&hostile, &mut quiet).await;
    watcher.check("large values");
    one_throttled_path(&hostile, &quiet.test).await;
    quiet.is_synced("the end").await;
    watcher.check("one throttled path");
}

async fn aliases(test: &TestNamespace, quiet: &mut Quiet) {
    let bomb = "a: &a \"{{ repeat 500000 \"x\" }}\"\n{{ range $i := until 10000 }}k{{ $i }}: *a\n{{ end }}";
    let within = "{{ $t := print \"a: &a \" (repeat 500000 \"x\") }}{{ range $i := until 10000 }}{{ $t = print $t \"\\nk\" $i \": *a\" }}{{ end }}{{ fromYaml $t }}";
    let laughs = "{{ fromYaml \"a: &a [x,x,x,x,x,x,x,x,x]\\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\" }}";
    test.put("a", json!({ "x": "1" })).await;
    for (name, template) in [
        ("bomb", literal(bomb)),
        ("within", json!({ "data": { "y": within } })),
        ("laughs", json!({ "data": { "y": laughs } })),
    ] {
        let spec = json!({
            "refreshInterval": "1s", "data": [one("x", &test.key("a"), "x")], "target": { "template": template },
        });
        test.declare(name, spec).await;
    }
    quiet.is_synced("aliases").await;
    all_fail(test, "TemplateFailed", "").await;
    remove_all(test).await;
}

async fn properties(test: &TestNamespace, quiet: &mut Quiet) {
    let fields: serde_json::Map<String, Value> =
        (0..100_000).map(|n| (format!("f{n}"), json!("v"))).collect();
    let vault = FaultyVault::start("hvs.hostile").await.unwrap();
    vault.put("document", Value::Object(fields));
    vault.add_store(test, "documents", json!({})).await.unwrap();
    for object in 0..4 {
        let data: Vec<_> = (0..2000)
            .map(|n| one(&format!("k{n}"), "document", &format!("f{}", n * 50 + object)))
            .collect();
        let spec = json!({
            "refreshInterval": "1s", "secretStoreRef": { "name": "documents" }, "data": data,
        });
        test.declare(&format!("p{object}"), spec).await;
    }
    quiet.is_synced("properties").await;
    for object in 0..4 {
        test.wait_for_reason(&format!("p{object}"), "Synced").await;
    }
    quiet.is_synced("properties, again").await;
    remove_all(test).await;
    quiet.is_synced("properties, gone").await;
}

async fn searches(test: &TestNamespace, quiet: &mut Quiet) {
    let text = "(repeat 1000000 \"a\")";
    for n in 0..20 {
        let template = match n % 4 {
            0 => format!("{{{{ regexFindAll \"a*x|a\" {text} -1 }}}}"),
            1 => format!("{{{{ regexSplit \"a*x|a\" {text} -1 }}}}"),
            _ => format!("{{{{ regexReplaceAll \"a*x|a\" {text} \"\" }}}}"),
        };
        let spec = json!({
            "refreshInterval": "1s", "data": [one("x", &test.key("a"), "x")],
            "target": { "template": { "data": { "t": template } } },
        });
        test.declare(&format!("r{n}"), spec).await;
    }
    quiet.is_synced("searches").await;
    quiet.is_synced("searches, again").await;
    all_fail(
        test,
        "TemplateFailed",
        "it did not finish within the second that a template may take",
    )
    .await;
    remove_all(test).await;
}

async fn large_values(test: &TestNamespace, quiet: &mut Quiet) {
    let vault = FaultyVault::start("hvs.hostile").await.unwrap();
    for n in 0..100 {
        vault.put(&format!("huge/{n}"), json!({}));
        vault.put(&format!("large/{n}"), json!({}));
    }
    vault.set_for("huge/", Mood::Large(3_900_000));
    vault.set_for("large/", Mood::Large(1_000_000));
    for n in 0..10 {
        let (name, path) = (format!("s{n}"), if n < 5 { "huge" } else { "large" });
        vault.add_store(test, &name, json!({})).await.unwrap();
        let spec = json!({
            "refreshInterval": "1s", "secretStoreRef": { "name": name },
            "dataFrom": [{ "find": { "path": path }, "rewrite": [{ "regexp": { "source": "/", "target": "-" } }] }],
        });
        test.declare(&name, spec).await;
    }
    quiet.is_synced("large values").await;
    quiet.is_synced("large values, again").await;
    for n in 0..10 {
        let (reason, said) = if n < 5 {
            ("Malformed", "is longer than 2097152 bytes")
        } else {
            ("TooLarge", "exceed 4 MiB in total")
        };
        let object = test.wait_for_reason(&format!("s{n}"), reason).await;
        let message = crate::shared_cluster::message(&object);
        assert!(message.contains(said), "{message}");
    }
    remove_all(test).await;
}

async fn one_throttled_path(hostile: &TestNamespace, quiet: &TestNamespace) {
    let vault = FaultyVault::start("hvs.shared").await.unwrap();
    vault.put("hostile", json!({ "x": "1" }));
    vault.put("quiet", json!({ "x": "1" }));
    vault.set_for("hostile", Mood::Throttles(600));
    let name = "shared";
    quiet
        .apply_raw(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name, "namespace": operator::NAMESPACE }, "stringData": { "token": "hvs.shared" },
        }))
        .await
        .unwrap();
    let everybody = [&hostile.namespace, &quiet.namespace];
    quiet
        .apply_raw(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "ClusterSecretStore", "metadata": { "name": name },
            "spec": {
                "provider": { "vault": {
                    "server": vault.address(), "path": "secret",
                    "auth": { "tokenSecretRef": { "name": name, "key": "token" } },
                } },
                "access": [{ "namespaces": { "names": everybody }, "keys": ["hostile", "quiet"] }],
            },
        }))
        .await
        .unwrap();
    let spec = |key: &str| {
        json!({
            "refreshInterval": "1s", "secretStoreRef": { "name": name, "kind": "ClusterSecretStore" },
            "data": [one("x", key, "x")],
        })
    };
    hostile.declare("throttled", spec("hostile")).await;
    hostile.wait_for_reason("throttled", "RateLimited").await;
    quiet.sync("shared", spec("quiet")).await;
    vault.put("quiet", json!({ "x": "2" }));
    let began = Instant::now();
    quiet
        .wait_for_secret("shared", "the other path", |secret| {
            text(secret, "x").as_deref() == Some("2")
        })
        .await;
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert!(
        vault.asked("/data/hostile").len() <= 2,
        "the throttled path is left alone"
    );
}
