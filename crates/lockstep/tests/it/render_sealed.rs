//! What `lockstep render` makes of values that are sealed: there is no KMS.

use std::fs;

use serde_json::Value;

use crate::{lockstep, text};

const STORE: &str = "
apiVersion: lockstep.dev/v1alpha1
kind: SecretStore
metadata: { name: kms, namespace: shop }
spec: { provider: { vault: { server: 'http://127.0.0.1:8200', path: secret, transit: { key: shop },
  auth: { kubernetes: { role: shop, serviceAccountRef: { name: shop } } } } } }
---
apiVersion: lockstep.dev/v1alpha1
kind: SyncedSecret
metadata: { name: database, namespace: shop }
spec:
  secretStoreRef: { name: kms }
  data:
    - { secretKey: user, remoteRef: { key: shop/user } }
    - { secretKey: password, ciphertext: CIPHERTEXT }
";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ciphertext = include_str!("seal/ciphertext.txt").trim();
        let manifest = STORE.replace("CIPHERTEXT", ciphertext) + more;
        fs::write(folder.path().join("manifest.yaml"), manifest).expect("a file");
        for (name, value) in [
            ("values/shop/user", "app"),
            ("sealed/shop/database/password", "CANARY"),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, value).expect("a file");
        }
        Self(folder)
    }

    /// Exit code, standard output and standard error; `@` stands for the folder.
    fn render(&self, arguments: &[&str]) -> (i32, String, String) {
        let folder = self.0.path().to_str().expect("UTF-8");
        let manifest = format!("{folder}/manifest.yaml");
        let arguments: Vec<_> = arguments
            .iter()
            .map(|argument| argument.replace('@', folder))
            .collect();
        let mut all = vec!["render", "-f", &manifest];
        all.extend(arguments.iter().map(String::as_str));
        let output = lockstep(&all).get_output().clone();
        let code = output.status.code().expect("an exit code");
        (code, text(&output.stdout), text(&output.stderr))
    }
}

#[test]
fn a_sealed_key_is_shown_as_sealed() {
    let folder = Folder::new("");
    let (code, stdout, stderr) = folder.render(&["--values", "@/values"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("password: ●●●●●●●● (sealed)") && stdout.contains("user: ●●●●●●●● (3 bytes)"),
        "{stdout}"
    );
    let (_, stdout, _) = folder.render(&["--values", "@/values", "--output", "json"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(
        json["results"][0]["secret"]["data"]["password"],
        "●●●●●●●● (sealed)"
    );
}

#[test]
fn without_values_the_ciphertext_is_listed_with_what_is_read() {
    let (code, stdout, _) = Folder::new("").render(&[]);
    assert_eq!(code, 0);
    assert!(
        stdout
            .contains("#   SecretStore/kms: \"shop/user\"\n#   SecretStore/kms: the ciphertext of data[1]\n"),
        "{stdout}"
    );
}

#[test]
fn with_a_value_for_it_the_secret_is_whole() {
    let folder = Folder::new("  target: { template: { data: { url: 'x:{{ .user }}:{{ .password }}' } } }\n");
    let with = ["--values", "@/values", "--sealed-values", "@/sealed"];
    let (code, stdout, stderr) = folder.render(&with);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("url: ●●●●●●●● (from a template)"), "{stdout}");
    assert!(!(stdout + &stderr).contains("CANARY"));
    let (_, stdout, _) = folder.render(&[&with[..], &["--show-values"]].concat());
    assert!(stdout.contains("url: eDphcHA6Q0FOQVJZ"), "{stdout}");
}

#[test]
fn what_needs_a_sealed_value_is_not_shown_and_says_so() {
    let template = "  target: { template: { data: { url: 'x:{{ .user }}' } } }\n";
    for (more, arguments) in [
        (template, &["--values", "@/values"][..]),
        ("", &["--values", "@/values", "--show-values"]),
        (template, &["--values", "@/values", "--sealed-values", "@/values"]),
    ] {
        let folder = Folder::new(more);
        let (code, stdout, stderr) = folder.render(arguments);
        assert_eq!(code, 0, "{stderr}");
        assert!(!stdout.contains("kind: Secret"), "{stdout}");
        let note = "not shown, because the value of \"password\" is sealed. Provide it with --sealed-values";
        assert!(stdout.contains(note) && stderr.contains(note), "{stdout}{stderr}");
        let (_, stdout, _) = folder.render(&[arguments, &["--output", "json"]].concat());
        let json: Value = serde_json::from_str(&stdout).expect("JSON");
        assert_eq!(json["results"][0]["outcome"], "Sealed");
        assert_eq!(json["results"][0]["sealedKeys"][0], "password");
    }
}

#[test]
fn what_is_not_sealed_yet_is_told_to_be_sealed() {
    let folder = Folder::new(
        "    - { secretKey: a, plaintext: CANARY }\n    - { secretKey: b, plaintextFile: b.pem }\n",
    );
    let (code, stdout, stderr) = folder.render(&["--values", "@/values"]);
    assert_eq!(code, 1);
    for field in ["spec.data[2].plaintext", "spec.data[3].plaintextFile"] {
        assert!(
            stderr.contains(&format!("{field}: not sealed. Run lockstep seal")),
            "{stderr}"
        );
    }
    assert!(!(stdout + &stderr).contains("CANARY"));
}
