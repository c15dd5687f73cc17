//! What `lockstep render` says of what cannot be taken in, and that it never says a value.

use std::{fs, path::Path};

use crate::{lockstep, text};

const STORE: &str = "
apiVersion: lockstep.dev/v1alpha1
kind: SecretStore
metadata: { name: vault, namespace: shop }
spec:
  provider:
    vault:
      server: http://127.0.0.1:8200
      path: secret
      auth: { kubernetes: { role: shop, serviceAccountRef: { name: shop } } }
";

fn synced(spec: &str) -> String {
    format!(
        "{STORE}---
apiVersion: lockstep.dev/v1alpha1
kind: SyncedSecret
metadata: {{ name: database, namespace: shop }}
spec:
  secretStoreRef: {{ name: vault }}
{spec}"
    )
}

/// Exit code, standard output and standard error of a render of that manifest.
fn render(manifest: &str, values: &[(&str, &[u8])]) -> (i32, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("manifest.yaml"), manifest).expect("a file");
    fs::create_dir(path("values")).expect("a folder");
    for (key, value) in values {
        let file = path("values").join(key);
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/"))).expect("a folder");
        fs::write(file, value).expect("a file");
    }
    let (manifest, values) = (path("manifest.yaml"), path("values"));
    let output = lockstep(&[
        "render",
        "-f",
        manifest.to_str().expect("UTF-8"),
        "--values",
        values.to_str().expect("UTF-8"),
    ]);
    let output = output.get_output();
    (
        output.status.code().expect("an exit code"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_key_begins_no_document_and_acts_on_no_terminal() {
    let key = r"x\n---\nkind: CANARY\e[2J\u202E";
    let rows = [
        (format!("{{ key: \"{key}\" }}"), "spec.data[0].remoteRef.key"),
        (
            format!("{{ key: k, property: \"{key}\" }}"),
            "SyncedSecret shop/database reads",
        ),
    ];
    for (reference, expected) in rows {
        let spec = format!("  data: [{{ secretKey: a, remoteRef: {reference} }}]\n");
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = folder.path().join("manifest.yaml");
        fs::write(&manifest, synced(&spec)).expect("a file");
        let output = lockstep(&["render", "-f", manifest.to_str().expect("UTF-8")]);
        let output = output.get_output();
        let (shown, said) = (text(&output.stdout), text(&output.stderr));
        assert!(
            shown.contains(expected) || said.contains(expected),
            "{shown}{said}"
        );
        for line in shown.lines().chain(said.lines()) {
            assert!(!line.starts_with("kind: CANARY"), "{shown}{said}");
            assert!(!line.contains(['\u{1b}', '\u{202e}']), "{line:?}");
        }
    }
}

#[test]
fn a_name_that_is_none_is_refused_and_shown_as_text() {
    let spec =
        "  data: [{ secretKey: a, remoteRef: { key: k } }]\n  target: { name: \"a\\e[2J; rm -rf ~\" }\n";
    let (code, _, said) = render(&synced(spec), &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("target.name"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn what_admission_would_refuse_is_told_with_the_field() {
    let entry = "  data: [{ secretKey: a, remoteRef: { key: shop/database } }]\n";
    for (spec, wanted) in [
        (
            format!("{entry}  refreshIntervall: 1h\n"),
            "spec.refreshIntervall: unknown field",
        ),
        (
            format!("{entry}  suspend: \"no\"\n"),
            "spec.suspend: must be true or false",
        ),
        (
            format!("{entry}  refreshPolicy: Sometimes\n"),
            "spec.refreshPolicy: must be one of",
        ),
        (
            "  data: [{ secretKey: a, remoteRef: {} }]\n".to_owned(),
            "spec.data[0].remoteRef.key: required",
        ),
        (
            "  data: [{ secretKey: a }]\n".to_owned(),
            "spec.data[0]: an entry of data requires exactly one of remoteRef, ciphertext",
        ),
        ("  data: {}\n".to_owned(), "spec.data: must be a list"),
        (String::new(), "SyncedSecret \"database\""),
    ] {
        let (code, stdout, stderr) = render(&synced(&spec), &[("shop/database", b"{}")]);
        assert_eq!(code, 1, "{spec}: {stderr}");
        assert!(stderr.contains(wanted), "{spec}: {stderr}");
        assert!(
            stderr.contains("manifest.yaml:12: "),
            "the line of the document: {stderr}"
        );
        assert_eq!(stdout, "", "{spec}");
    }
}

#[test]
fn what_would_not_sync_is_told_as_the_status_would() {
    let entry = |remote: &str| {
        synced(&format!(
            "  data: [{{ secretKey: a, remoteRef: {{ {remote} }} }}]\n"
        ))
    };
    for (manifest, wanted) in [
        (entry("key: nowhere"), "SourceNotFound: data[0] (secretKey \"a\")"),
        (
            entry("key: shop/database, property: nothing"),
            "has no property \"nothing\"",
        ),
        (
            entry("key: shop/database").replace(
                "secretStoreRef: { name: vault }",
                "secretStoreRef: { name: other }",
            ),
            "other",
        ),
        (
            entry("key: shop/database")
                + "  rotation: { windows: [{ schedule: \"0 2 30 2 *\", duration: 1h }] }\n",
            "InvalidSpec: rotation.windows[0].schedule: \"0 2 30 2 *\" never matches a date",
        ),
    ] {
        let (code, stdout, stderr) =
            render(&manifest, &[("shop/database", br#"{"password":"canary-7f3a"}"#)]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(wanted), "{stderr}");
        assert!(!format!("{stdout}{stderr}").contains("canary"), "{stderr}");
    }
}

#[test]
fn no_error_says_a_value() {
    let template = |body: &str| {
        synced(&format!(
            "  dataFrom: [{{ extract: {{ key: shop/database }} }}]\n  target:\n    template:\n      data:\n        out: '{body}'\n"
        ))
    };
    let value = br#"{"password":"canary-7f3a"}"#;
    for body in [
        "{{ .password | b64dec }}",
        "{{ .nothing }}",
        "{{ fromJson .password }}",
        "{{ .password | atoi | fail }}",
        "{{ index .password 999 }}",
        "{{ fail .password }}",
    ] {
        let (code, stdout, stderr) = render(&template(body), &[("shop/database", value)]);
        let shown = format!("{stdout}{stderr}");
        assert!(!shown.contains("canary"), "{body}: {shown}");
        assert!(code == 0 || stderr.contains("error: "), "{body}: {shown}");
    }
    for garbage in [
        &b"canary-7f3a"[..],
        b"{\"canary-7f3a",
        b"\xff\xfecanary-7f3a",
        b"[\"canary-7f3a\"]",
    ] {
        let manifest = synced("  dataFrom: [{ extract: { key: shop/database } }]\n");
        let (code, stdout, stderr) = render(&manifest, &[("shop/database", garbage)]);
        assert_eq!(code, 1, "{stderr}");
        assert!(!format!("{stdout}{stderr}").contains("canary"), "{stderr}");
    }
}

#[test]
fn a_version_has_a_file_of_its_own() {
    let manifest = synced("  data: [{ secretKey: a, remoteRef: { key: shop/key, version: \"3\" } }]\n");
    let (code, stdout, _) = render(&manifest, &[("shop/key", b"now"), ("shop/key@3", b"older")]);
    assert_eq!(code, 0);
    assert!(stdout.contains("(5 bytes)"), "{stdout}");
}

#[test]
fn what_cannot_be_read_is_a_wrong_command() {
    for arguments in [
        &["render", "-f", "nowhere.yaml"][..],
        &["render", "-f", "-", "--values", "nowhere"],
    ] {
        let output = lockstep(arguments).code(2);
        assert!(text(&output.get_output().stderr).contains("nowhere"));
    }
}

#[test]
fn yaml_that_is_none_is_told_with_its_line_and_the_rest_is_still_checked() {
    let manifest = format!(
        "a: [\n---\n{}",
        synced("  data: [{ secretKey: a, remoteRef: { key: k } }]\n")
    );
    let (code, stdout, stderr) = render(&manifest, &[("k", b"v")]);
    assert_eq!(code, 1);
    assert!(stderr.contains("manifest.yaml:1: line "), "{stderr}");
    assert!(stdout.contains("kind: Secret"), "{stdout}");
}

#[test]
fn a_credential_that_the_store_makes_is_told_in_a_sentence() {
    let manifest = synced("  dataFrom: [{ generate: { vault: { path: database/creds/shop } } }]");
    let (code, stdout, stderr) = render(&manifest, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains(
            r#"SecretStore/vault: a credential that the store issues at "database/creds/shop" when the operator syncs"#
        ),
        "{stdout}"
    );
    assert!(!stdout.contains("kind: Secret\n"), "{stdout}");
}

#[test]
fn templated_metadata_is_masked_like_values() {
    let manifest = synced(
        "  dataFrom: [{ extract: { key: shop/database } }]
  target:
    template:
      mergePolicy: Merge
      metadata:
        labels: { team: shop, secret: '{{ .password }}' }
        annotations: { note: as it is, secret: 'x {{ .password }}' }
      templateFrom:
        - { target: Labels, literal: 'from: {{ .password }}' }
        - { target: Annotations, literal: '{{ .password }}: {{ .password }}' }
        - { target: Annotations, literal: 'plain: text' }
        - { target: Data, literal: \"fixed: a\\n{{ .password }}: b\" }
",
    );
    for format in ["yaml", "json"] {
        let (code, stdout, stderr) = render_with(&manifest, &["--output", format]);
        assert_eq!(code, 0, "{stderr}");
        assert!(
            !format!("{stdout}{stderr}").contains("canary"),
            "{stdout}{stderr}"
        );
        for shown in ["team", "note", "secret", "managed-by", "lockstep.dev/owner"] {
            assert!(stdout.contains(shown), "{shown}: {stdout}");
        }
        assert!(
            !stdout.contains("as it is"),
            "a template can overwrite it: {stdout}"
        );
        assert!(
            !stdout.contains("(13 bytes)"),
            "a template chooses its length: {stdout}"
        );
        assert!(stdout.contains("●●●●●●●● (keys made by templates)"), "{stdout}");
        let (code, stdout, stderr) = render_with(&manifest, &["--output", format, "--show-values"]);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("x canary-7f3a"), "{stdout}");
        assert!(!stdout.contains("●"), "{stdout}");
    }
    let invalid = synced(
        "  dataFrom: [{ extract: { key: shop/database } }]
  target: { template: { templateFrom: [{ target: Labels, literal: '{{ .password }}: not/allowed' }] } }
",
    );
    let (code, stdout, stderr) = render_with(&invalid, &[]);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        !format!("{stdout}{stderr}").contains("canary"),
        "{stdout}{stderr}"
    );
}

#[test]
fn constant_metadata_is_shown() {
    let manifest = synced(
        "  dataFrom: [{ extract: { key: shop/database } }]
  target:
    template:
      mergePolicy: Merge
      metadata: { annotations: { note: as it is, secret: 'x {{ .password }}' } }
      templateFrom: [{ target: Annotations, literal: 'plain: text' }]
",
    );
    let (code, stdout, stderr) = render_with(&manifest, &[]);
    assert_eq!(code, 0, "{stderr}");
    for shown in ["note: as it is", "plain: text", "secret: ●●●●●●●●\n"] {
        assert!(stdout.contains(shown), "{shown}: {stdout}");
    }
    assert!(!stdout.contains("canary"), "{stdout}");
}

/// A template can choose the number, names and lengths of keys by a value.
#[test]
fn templated_keys_are_masked_as_one() {
    let literals = [
        r#"{{ if eq .password "x" }}a: b{{ end }}"#,
        "{{ .password }}: b",
        "{{ .password }}1: a\n{{ .password }}2: b",
        "{{ \"password\" }}: longer-than-the-password",
        "{{ \"team\" }}: changed",
    ];
    for target in ["Data", "Labels", "Annotations"] {
        for policy in ["Merge", "Replace"] {
            let mut outputs = literals.map(|literal| {
                let manifest = synced(&format!(
                    "  dataFrom: [{{ extract: {{ key: shop/database }} }}]
  target:
    template:
      mergePolicy: {policy}
      data: {{ fixed: text }}
      metadata: {{ labels: {{ team: shop }}, annotations: {{ team: shop }} }}
      templateFrom: [{{ target: {target}, literal: {literal:?} }}]
"
                ));
                let (code, stdout, stderr) = render_with(&manifest, &[]);
                assert_eq!(code, 0, "{literal}: {stderr}");
                assert!(
                    stdout.contains("  ●●●●●●●● (keys made by templates): ●●●●●●●●\n"),
                    "{literal}: {stdout}"
                );
                stdout
            });
            outputs.sort();
            assert_eq!(outputs.first(), outputs.last(), "{target} {policy}");
            assert!(outputs[0].contains("  fixed: ●●●●●●●● (from a template)\n"));
            assert!(outputs[0].contains("  team: "), "{}", outputs[0]);
        }
    }
}

#[test]
fn size_of_a_large_secret_is_not_reported() {
    let manifest = synced(
        "  data: [{ secretKey: a, remoteRef: { key: a } }, { secretKey: b, remoteRef: { key: b } }]\n",
    );
    let half = vec![b'x'; 600_000];
    let (code, _, stderr) = render(&manifest, &[("a", &half), ("b", &half)]);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("TooLarge: the Secret is too large. Kubernetes allows 1048576 bytes\n"),
        "{stderr}"
    );
}

#[test]
fn deep_nesting_is_reported_with_file_and_line() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        for closed in [0, 200_000] {
            let manifest = format!(
                "spec:\n  {}{}\n---\n{}",
                open.repeat(200_000),
                close.repeat(closed),
                synced("  data: [{ secretKey: a, remoteRef: { key: k } }]\n")
            );
            let begun = std::time::Instant::now();
            let (code, stdout, stderr) = render(&manifest, &[("k", b"v")]);
            assert_eq!(code, 1, "{stderr}");
            assert!(
                stderr.contains("manifest.yaml:1: line 2: nested more than 128 levels deep"),
                "{stderr}"
            );
            assert!(stdout.contains("kind: Secret"), "{stdout}");
            assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
        }
    }
}

/// Whoever writes the manifest can also write every text that a value could be.
#[test]
fn text_elsewhere_in_the_manifest_unmasks_nothing() {
    let manifest = synced(
        "  dataFrom: [{ extract: { key: shop/database } }]
  target:
    template:
      mergePolicy: Merge
      metadata: { annotations: { guess: canary-7f3a } }
      templateFrom:
        - { target: Annotations, literal: 'pw: {{ .password }}' }
        - { target: Annotations, literal: 'guess: {{ .password }}' }
        - { target: Annotations, literal: \"plain: text\\n# canary-7f3a: canary-7f3a\" }
",
    );
    let (code, stdout, stderr) = render_with(&manifest, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(!stdout.contains("canary"), "{stdout}");
}

#[cfg(unix)]
#[test]
fn values_outside_of_their_folder_are_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("values")).expect("a folder");
    fs::write(folder.path().join("token"), "canary").expect("a file");
    std::os::unix::fs::symlink("../token", folder.path().join("values/k")).expect("a link");
    let manifest = synced("  data: [{ secretKey: a, remoteRef: { key: k } }]");
    fs::write(folder.path().join("manifest.yaml"), manifest).expect("a file");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let arguments = [
        "render",
        "-f",
        &path("manifest.yaml"),
        "--values",
        &path("values"),
        "--show-values",
    ];
    let output = lockstep(&arguments).code(2);
    let said = text(&output.get_output().stderr);
    assert!(said.contains("leads out of"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

/// A render of a manifest with a password, and more options.
fn render_with(manifest: &str, more: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    fs::write(path("manifest.yaml"), manifest).expect("a file");
    fs::create_dir_all(path("values/shop")).expect("a folder");
    fs::write(path("values/shop/database"), r#"{"password":"canary-7f3a"}"#).expect("a file");
    let (manifest, values) = (path("manifest.yaml"), path("values"));
    let arguments = [&["render", "-f", &manifest, "--values", &values], more].concat();
    let output = lockstep(&arguments).get_output().clone();
    let code = output.status.code().expect("an exit code");
    (code, text(&output.stdout), text(&output.stderr))
}
