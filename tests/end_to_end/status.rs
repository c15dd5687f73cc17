//! `lockstep status`, of a real cluster.

use std::process::{Output, Stdio};

use lockstep_testkit::binaries;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::shared_cluster::{TestNamespace, shared_cluster};

fn command(test: &TestNamespace, arguments: &[&str]) -> Command {
    command_of("status", test, arguments)
}

fn command_of(name: &str, test: &TestNamespace, arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries::lockstep().unwrap());
    command
        .arg(name)
        .args(arguments)
        .args(["--namespace", &test.namespace, "--kubeconfig"])
        .arg(test.cluster.plane.kubeconfig())
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn status(test: &TestNamespace, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(test, arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn spec(test: &TestNamespace, property: &str) -> Value {
    json!({ "data": [{ "secretKey": "x", "remoteRef": { "key": test.key("a"), "property": property } }] })
}

#[tokio::test]
async fn status_lists_the_synced_secrets_of_the_cluster() {
    let test = shared_cluster().await.test_namespace("status").await;
    let (code, out, _) = status(&test, &[]).await;
    assert_eq!((code, out.as_str()), (0, "No SyncedSecrets found.\n"));

    test.put("a", json!({ "x": "CANARY-of-status" })).await;
    test.declare("fine", spec(&test, "x")).await;
    let fine = test.wait_for_reason("fine", "Synced").await;
    let revision = fine.status.unwrap().target.unwrap().revision;
    let (code, out, _) = status(&test, &[]).await;
    assert_eq!(code, 0, "{out}");
    let line = out.lines().nth(1).unwrap();
    assert!(
        line.contains("fine") && line.contains("Synced") && line.contains(&revision),
        "{out}"
    );

    let history = command_of("history", &test, &["fine"]).output().await.unwrap();
    let history = String::from_utf8(history.stdout).unwrap();
    assert!(
        history.contains(&revision) && history.contains("first sync"),
        "{history}"
    );

    test.declare("broken", spec(&test, "nothing")).await;
    test.wait_for_reason("broken", "SourceNotFound").await;
    let (code, out, _) = status(&test, &[]).await;
    assert_eq!(code, 1, "one is not Ready: {out}");
    assert!(out.contains("SourceNotFound"), "{out}");

    let (code, out, _) = status(&test, &["fine"]).await;
    assert_eq!(code, 0, "{out}");
    let source = format!("SecretStore/vault {}  version 1  ", test.key("a"));
    assert!(out.contains(&source) && out.contains(&revision), "{out}");
    let (code, out, _) = status(&test, &["broken"]).await;
    assert_eq!(code, 1);
    assert!(out.contains("has no property \"nothing\""), "{out}");

    let (code, out, error) = status(&test, &["nobody"]).await;
    let said = format!(
        "error: SyncedSecret \"nobody\" not found in namespace \"{}\"",
        test.namespace
    );
    assert!(code == 1 && out.is_empty() && error.starts_with(&said), "{error}");

    let (_, out, _) = status(&test, &["--output", "json"]).await;
    let all: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(all[1]["name"], "fine");
    assert_eq!(all[1]["secret"]["revision"], json!(revision));
    assert!(!out.contains("CANARY"));
}

#[tokio::test]
async fn status_watch_shows_each_change() {
    let test = shared_cluster().await.test_namespace("status-watch").await;
    test.put("a", json!({ "x": "one" })).await;
    test.declare("s", spec(&test, "x")).await;
    test.wait_for_reason("s", "Synced").await;
    let mut watch = command(&test, &["s", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut until = async |text: &str| {
        let found = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(text) {
                    return;
                }
            }
            panic!("the watch ended before \"{text}\"");
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), found)
            .await
            .unwrap();
    };
    until("version 1 ").await;
    test.put("a", json!({ "x": "two" })).await;
    test.refresh("s", "now").await;
    until("version 2 ").await;
    watch.kill().await.unwrap();
}
