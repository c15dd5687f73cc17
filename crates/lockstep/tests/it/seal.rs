//! `lockstep seal` as people type it, as far as no KMS is asked.

use std::fs;

use predicates::str::contains;
use serde_json::Value;

use crate::{lockstep, lockstep_with, text};

const MANIFEST: &str = "\
apiVersion: lockstep.dev/v1alpha1
kind: SyncedSecret
metadata: { name: database, namespace: shop }
spec:
  secretStoreRef: { name: kms }
  data:
    - secretKey: password
      plaintext: CANARY-plain
    - secretKey: key.pem
      plaintextFile: key.pem
    - secretKey: user
      remoteRef: { key: shop/database }
";

/// A ciphertext of the place shop/database/password, Strict, by a KMS that there is not.
const CIPHERTEXT: &str = include_str!("seal/ciphertext.txt");
/// A ciphertext of form 2, whose data key is not bound to its envelope.
const OLD_ENVELOPE: &str =
    "lockstep:v1:AgNhd3MK5WYGoBf9WQAAAAR3cmFwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAOJAid0";

fn sealed_manifest() -> String {
    MANIFEST
        .replace(
            "plaintext: CANARY-plain",
            &format!("ciphertext: {}", CIPHERTEXT.trim()),
        )
        .replace("    - secretKey: key.pem\n      plaintextFile: key.pem\n", "")
}

/// A folder with files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    folder
}

/// Exit code and findings of a check, which says no value.
fn check(files: &[(&str, &str)]) -> (i32, Vec<Value>) {
    let folder = folder(files);
    let path = folder.path().to_str().expect("UTF-8");
    let plain = lockstep(&["seal", "--check", "-f", path]).get_output().clone();
    let json = lockstep(&["seal", "--check", "-f", path, "--output", "json"])
        .get_output()
        .clone();
    let all = [&plain.stdout, &plain.stderr, &json.stdout, &json.stderr].map(|bytes| text(bytes));
    assert!(!all.concat().contains("CANARY"), "{all:?}");
    assert_eq!(plain.status.code(), json.status.code());
    let document: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let findings = document["findings"].as_array().expect("a list").clone();
    assert_eq!(text(&plain.stdout).lines().count(), findings.len(), "{all:?}");
    for (name, was) in files {
        assert_eq!(
            &fs::read_to_string(folder.path().join(name)).expect("a file"),
            was
        );
    }
    (json.status.code().expect("an exit code"), findings)
}

#[test]
fn a_check_finds_everything_that_is_plaintext_and_names_the_line() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: { name: s }\ndata:\n  a: Q0FOQVJZ\n  empty: \"\"\nstringData:\n  b: |\n    CANARY\n";
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: { name: s, namespace: x }\n  stringData: { c: CANARY }\n";
    let kustomization = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nsecretGenerator:\n- name: s\n  literals:\n  - password=CANARY\n";
    let (code, findings) = check(&[
        ("a.yaml", MANIFEST),
        ("deep/er/b.yml", &format!("# c\n---\n{secret}---\n{list}")),
        ("deep/kustomization.yaml", kustomization),
        (".hidden/c.yaml", secret),
        ("README.md", secret),
        ("values.yaml", "password: CANARY\n"),
    ]);
    assert_eq!(code, 1);
    let all: Vec<_> = findings
        .iter()
        .map(|finding| {
            let file = finding["file"]
                .as_str()
                .expect("a file")
                .rsplit('/')
                .next()
                .expect("a name");
            format!(
                "{file}:{} {} {}",
                finding["line"], finding["object"], finding["field"]
            )
            .replace('"', "")
        })
        .collect();
    assert_eq!(
        all,
        [
            "a.yaml:8 SyncedSecret shop/database spec.data[0].plaintext",
            "a.yaml:10 SyncedSecret shop/database spec.data[1].plaintextFile",
            "b.yml:7 Secret s data.a",
            "b.yml:10 Secret s stringData.b",
            "b.yml:19 Secret x/s stringData.c",
            "kustomization.yaml:5 Kustomization secretGenerator[0].literals",
        ]
    );
}

#[test]
fn a_check_finds_ciphertexts_that_are_none_or_belong_elsewhere() {
    let good = sealed_manifest();
    assert_eq!(check(&[("a.yaml", &good)]), (0, Vec::new()));
    for (text, wanted) in [
        (good.replace("lockstep:v1:", "CANARY"), "It may be plaintext"),
        (good.replace("lockstep:v1:", "lockstep:v1:A"), "is not whole"),
        (
            good.replace(CIPHERTEXT.trim(), OLD_ENVELOPE),
            "is an envelope in an old form, which lockstep no longer opens. Seal the value again",
        ),
        (
            good.replace("secretKey: password", "secretKey: other"),
            "was sealed for another place",
        ),
        (
            good.replace("namespace: shop", "namespace: blog"),
            "was sealed for another place",
        ),
        (
            good.replace("name: database", "name: smtp"),
            "was sealed for another place",
        ),
        (
            good.replace(
                "- secretKey: password",
                "- secretKey: password\n      ciphertextScope: Cluster",
            ),
            "was sealed for another place",
        ),
    ] {
        let (code, findings) = check(&[("a.yaml", &text)]);
        let message = findings[0]["message"].as_str().expect("a text");
        assert!(
            code == 1 && findings.len() == 1 && message.contains(wanted),
            "{findings:?}"
        );
        assert_eq!(findings[0]["field"], "spec.data[0].ciphertext");
    }
    // the namespace comes from elsewhere, and is not known: the rest is still checked
    let nowhere = good.replace(", namespace: shop", "");
    assert_eq!(check(&[("a.yaml", &nowhere)]).0, 0);
}

#[test]
fn a_check_lets_pass_what_is_encrypted_or_empty() {
    let sops = "apiVersion: v1\nkind: Secret\nmetadata: { name: s }\nstringData: { a: \"ENC[AES256_GCM,data:x]\" }\nsops: { version: 3.9.0 }\n";
    let empty =
        "apiVersion: v1\nkind: Secret\nmetadata: { name: s, annotations: { lockstep.dev/adopt: s } }\n";
    let template = "{{- if .Values.x }}\na: {{ .Values.y }}\n{{- end }}\n";
    assert_eq!(
        check(&[
            ("a.yaml", sops),
            ("b.yaml", empty),
            ("c.yaml", template),
            ("d.json", "{}")
        ]),
        (0, Vec::new())
    );
    // half of it is no encryption
    let half = sops.replace("a: \"ENC", "b: CANARY, a: \"ENC");
    assert_eq!(check(&[("a.yaml", &half)]).1.len(), 1);
    // nor is a file that nobody can read
    let (code, findings) = check(&[("a.yaml", &format!("{MANIFEST}  data: {{\n"))]);
    assert_eq!((code, findings.len()), (1, 1), "{findings:?}");
}

#[test]
fn without_a_store_nothing_is_sealed_and_the_file_stays() {
    let folder = folder(&[("a.yaml", MANIFEST), ("key.pem", "CANARY-key")]);
    let path = folder.path().join("a.yaml");
    let output = lockstep(&["seal", "-f", path.to_str().expect("UTF-8")]).code(1);
    let said = text(&output.get_output().stdout) + &text(&output.get_output().stderr);
    assert!(said.contains("a.yaml:8: SyncedSecret shop/database: spec.data[0].plaintext: SecretStore/kms in namespace \"shop\" not found in the files. Add its file with --store"), "{said}");
    assert!(
        said.contains("error: 0 of 2 values were sealed; 2 errors"),
        "{said}"
    );
    assert!(!said.contains("CANARY"), "{said}");
    assert_eq!(fs::read_to_string(path).expect("a file"), MANIFEST);
}

#[test]
fn standard_input_goes_to_standard_output() {
    let sealed = sealed_manifest();
    let output = lockstep_with(&["seal", "-f", "-"], &sealed).success();
    assert_eq!(text(&output.get_output().stdout), sealed);
    let output = lockstep_with(&["seal", "-f", "-"], MANIFEST).code(1);
    assert_eq!(
        text(&output.get_output().stdout),
        "",
        "what could not be sealed goes nowhere"
    );
    assert!(!text(&output.get_output().stderr).contains("CANARY"));
    lockstep_with(&["seal", "-f", "-", "--output", "json"], MANIFEST)
        .code(2)
        .stderr(contains("standard output"));
}

#[test]
fn a_wrong_command_says_what_is_wrong_and_no_token() {
    for (arguments, wanted) in [
        (&["seal"][..], "--file"),
        (&["seal", "-f", "nowhere"], "nowhere cannot be read"),
        (
            &["seal", "-f", "x", "--check", "--store", "y"],
            "cannot be used with",
        ),
        (
            &["seal", "-f", "x", "--check", "--dry-run"],
            "cannot be used with",
        ),
        (&["seal", "-f", "x", "--namespace", "Shop"], "--namespace"),
        (
            &["seal", "-f", "/dev/null", "--token-file", "nowhere"],
            "nowhere cannot be read",
        ),
        (
            &["seal", "-f", "/dev/null", "--ca-file", "nowhere"],
            "nowhere cannot be read",
        ),
    ] {
        let arguments = [arguments, &["--vault-token", "CANARY"]].concat();
        let output = lockstep(&arguments).code(2).stderr(contains(wanted));
        let output = output.get_output();
        assert!(!(text(&output.stdout) + &text(&output.stderr)).contains("CANARY"));
    }
    assert!(!text(&lockstep(&["seal", "--help"]).get_output().stdout).contains("CANARY"));
}
