//! `lockstep seal` with a KMS: what is too long for it, what is no text, and what it refuses.

use std::{fs, path::Path, process::Stdio};

use lockstep_testkit::{Scratch, binaries};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    ciphertext::{MARKER, add_aws_store, developer, kms, trust},
    shared_cluster::shared_cluster,
};

/// Exit code and what the command says; it never says the marker.
async fn lockstep(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binaries::lockstep().unwrap())
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .envs(developer())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.contains(MARKER), "the command line shows a value");
    (output.status.code(), said)
}

/// A folder with the store, a long value and a file that is no text.
fn folder(store: &Value, namespace: &str) -> (Scratch, String, Vec<u8>) {
    let folder = Scratch::new("seal").unwrap();
    let lines: Vec<_> = (0..600)
        .map(|line| format!("        {MARKER} {line}\n"))
        .collect();
    let long = lines.concat();
    let binary: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let manifest = format!(
        "# the database\napiVersion: lockstep.dev/v1alpha1\nkind: SyncedSecret\nmetadata: {{ name: s, namespace: {namespace} }}\nspec:\n  secretStoreRef: {{ name: kms }}\n  data:\n    - secretKey: long # much\n      plaintext: |\n{long}    - {{ secretKey: keystore, plaintextFile: keystore.p12, ciphertextScope: Namespace }}\n"
    );
    fs::write(folder.path().join("secret.yaml"), &manifest).unwrap();
    fs::write(folder.path().join("keystore.p12"), &binary).unwrap();
    let store = serde_yaml_ng::to_string(store).unwrap();
    fs::write(folder.path().join("store.yaml"), store).unwrap();
    (folder, manifest, binary)
}

#[tokio::test]
async fn long_values_and_files_are_sealed_in_envelopes() {
    let test = shared_cluster().await.test_namespace("envelopes").await;
    let (aws, key) = kms().await;
    let store = add_aws_store(&test, &aws, &key).await;
    let trust = trust(&store).concat();
    let (folder, manifest, binary) = folder(&store, &test.namespace);
    let (code, said) = lockstep(folder.path(), &["seal", "--check", "-f", "."]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("secret.yaml:9: ") && said.contains("spec.data[0].plaintext"),
        "{said}"
    );

    let (code, said) = lockstep(
        folder.path(),
        &["seal", "-f", "secret.yaml", "--store", "store.yaml", &trust],
    )
    .await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        aws.count("Encrypt"),
        2,
        "one request for each value, whatever its length"
    );
    assert!(
        said.contains(&format!("with SecretStore/kms (aws {key}), in an envelope")),
        "{said}"
    );
    let (code, said) = lockstep(folder.path(), &["seal", "--check", "-f", "."]).await;
    assert_eq!(code, Some(0), "{said}");

    let sealed = fs::read_to_string(folder.path().join("secret.yaml")).unwrap();
    assert!(sealed.starts_with("# the database\n") && sealed.contains("secretKey: long # much\n"));
    let object: Value = serde_yaml_ng::from_str(&sealed).unwrap();
    test.apply_raw(&object).await.unwrap();
    let before: Value = serde_yaml_ng::from_str(&manifest).unwrap();
    let long = before["spec"]["data"][0]["plaintext"]
        .as_str()
        .unwrap()
        .to_owned();
    test.wait_for_secret("s", "both values", |secret| {
        let data = secret.data.clone().unwrap_or_default();
        data.get("long").is_some_and(|value| value.0 == long.as_bytes())
            && data.get("keystore").is_some_and(|value| value.0 == binary)
    })
    .await;
    let mut copy = object.clone();
    copy["metadata"]["name"] = json!("copy");
    test.apply_raw(&copy).await.unwrap();
    test.wait_for_reason("copy", "DecryptFailed").await;
    test.tells_nobody(MARKER).await;
}

#[tokio::test]
async fn seal_without_encrypt_permission_changes_no_file() {
    let test = shared_cluster().await.test_namespace("refused").await;
    let (aws, key) = kms().await;
    let store = add_aws_store(&test, &aws, &key).await;
    let trust = trust(&store).concat();
    let (folder, manifest, _) = folder(&store, &test.namespace);
    aws.deny_action("Encrypt");
    let (code, said) = lockstep(folder.path(), &["seal", "-f", ".", &trust]).await;
    assert_eq!(code, Some(1), "{said}");
    for wanted in [
        "secret.yaml:9: SyncedSecret",
        "spec.data[0].plaintext: SecretStore/kms: ",
        "kms:Encrypt",
        "0 of 2 values were sealed",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert_eq!(
        fs::read_to_string(folder.path().join("secret.yaml")).unwrap(),
        manifest
    );
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "nothing is left behind: {names:?}");

    aws.allow_action("Encrypt");
    let (code, said) = lockstep(folder.path(), &["seal", "-f", ".", &trust, "--output", "json"]).await;
    assert_eq!(code, Some(0), "{said}");
}
