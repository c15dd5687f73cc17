//! `lockstep status`, of a real cluster.

use std::process::{Output, Stdio};

use lockstep_testkit::binaries;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::stage::{Room, stage};

fn command(room: &Room, arguments: &[&str]) -> Command {
    command_of("status", room, arguments)
}

fn command_of(name: &str, room: &Room, arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries::lockstep().unwrap());
    command
        .arg(name)
        .args(arguments)
        .args(["--namespace", &room.namespace, "--kubeconfig"])
        .arg(room.stage.plane.kubeconfig())
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn status(room: &Room, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(room, arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn spec(room: &Room, property: &str) -> Value {
    json!({ "data": [{ "secretKey": "x", "remoteRef": { "key": room.key("a"), "property": property } }] })
}

#[tokio::test]
async fn a_cluster_is_asked_where_its_secrets_stand() {
    let room = stage().await.room("status").await;
    let (code, out, _) = status(&room, &[]).await;
    assert_eq!((code, out.as_str()), (0, "no SyncedSecrets\n"));

    room.put("a", json!({ "x": "CANARY-of-status" })).await;
    room.declare("fine", spec(&room, "x")).await;
    let fine = room.wait_for_reason("fine", "Synced").await;
    let revision = fine.status.unwrap().target.unwrap().revision;
    let (code, out, _) = status(&room, &[]).await;
    assert_eq!(code, 0, "{out}");
    let line = out.lines().nth(1).unwrap();
    assert!(
        line.contains("fine") && line.contains("Synced") && line.contains(&revision),
        "{out}"
    );

    let history = command_of("history", &room, &["fine"]).output().await.unwrap();
    let history = String::from_utf8(history.stdout).unwrap();
    assert!(
        history.contains(&revision) && history.contains("first sync"),
        "{history}"
    );

    room.declare("broken", spec(&room, "nothing")).await;
    room.wait_for_reason("broken", "SourceNotFound").await;
    let (code, out, _) = status(&room, &[]).await;
    assert_eq!(code, 1, "one is not Ready: {out}");
    assert!(out.contains("SourceNotFound"), "{out}");

    let (code, out, _) = status(&room, &["fine"]).await;
    assert_eq!(code, 0, "{out}");
    let source = format!("SecretStore/vault {}  version 1  ", room.key("a"));
    assert!(out.contains(&source) && out.contains(&revision), "{out}");
    let (code, out, _) = status(&room, &["broken"]).await;
    assert_eq!(code, 1);
    assert!(out.contains("has no property \"nothing\""), "{out}");

    let (code, out, error) = status(&room, &["nobody"]).await;
    let said = format!(
        "error: SyncedSecret \"nobody\" does not exist in namespace \"{}\"",
        room.namespace
    );
    assert!(code == 1 && out.is_empty() && error.starts_with(&said), "{error}");

    let (_, out, _) = status(&room, &["--output", "json"]).await;
    let all: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(all[1]["name"], "fine");
    assert_eq!(all[1]["secret"]["revision"], json!(revision));
    assert!(!out.contains("CANARY"));
}

#[tokio::test]
async fn a_watch_shows_each_change() {
    let room = stage().await.room("status-watch").await;
    room.put("a", json!({ "x": "one" })).await;
    room.declare("s", spec(&room, "x")).await;
    room.wait_for_reason("s", "Synced").await;
    let mut watch = command(&room, &["s", "--watch"])
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
    room.put("a", json!({ "x": "two" })).await;
    room.refresh("s", "now").await;
    until("version 2 ").await;
    watch.kill().await.unwrap();
}
