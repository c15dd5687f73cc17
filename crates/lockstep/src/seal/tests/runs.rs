use std::{fs, path::Path, sync::atomic::Ordering};

use clap::Parser as _;
use lockstep_api::{CiphertextScope, StoreKind};
use lockstep_core::ciphertext::{Binding, Sealed};
use lockstep_provider::{Context, ErrorKind, MemoryBackend, Registry, SecretValue};

use super::{super::run, kms::Kms};
use crate::{
    cli::{Cli, Command, SealArguments},
    seal::report::Report,
};

const STORES: &str = "
apiVersion: lockstep.dev/v1alpha1
kind: SecretStore
metadata: { name: kms, namespace: shop }
spec:
  provider:
    aws:
      region: eu-central-1
      role: arn:aws:iam::123456789012:role/operator
      externalID: operator
      kms: { keyId: alias/shop }
      auth: { jwt: { serviceAccountRef: { name: shop } } }
---
apiVersion: lockstep.dev/v1alpha1
kind: ClusterSecretStore
metadata: { name: transit }
spec:
  provider:
    vault:
      server: https://vault.vault.svc:8200
      caProvider: { type: ConfigMap, name: ca, key: ca.crt }
      transit: { key: shop }
      auth: { kubernetes: { role: operator, serviceAccountRef: { name: lockstep } } }
---
apiVersion: lockstep.dev/v1alpha1
kind: ClusterSecretStore
metadata: { name: keyless }
spec:
  provider:
    aws: { region: eu-central-1, service: SecretsManager }
";

/// A SyncedSecret of that name with those entries, whose store is that.
fn object(name: &str, store: &str, entries: &[&str]) -> String {
    let entries = format!("  - {}\n", entries.join("\n  - "));
    format!(
        "# {name}\napiVersion: lockstep.dev/v1alpha1\nkind: SyncedSecret\nmetadata: {{ name: {name}, namespace: shop }}\nspec:\n  secretStoreRef: {store}\n  data:\n{entries}"
    )
}

/// A folder with the stores, and those files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("stores.yaml"), STORES).unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn arguments(folder: &Path, more: &[&str]) -> SealArguments {
    let folder = folder.to_str().unwrap();
    let line = ["lockstep", "seal", "-f", folder, "--home", folder].into_iter();
    match Cli::try_parse_from(line.chain(more.iter().copied()))
        .unwrap()
        .command
    {
        Command::Seal(arguments) => arguments,
        _ => panic!("seal is a command"),
    }
}

fn seal_with(folder: &Path, more: &[&str], kms: &Kms) -> Report {
    let report = run(&arguments(folder, more), &Registry::default().with(kms.clone())).unwrap();
    let output = [
        report.lines(),
        report.json().unwrap(),
        report.summary(),
        report.notes.concat(),
        format!("{report:?}"),
    ];
    assert!(!output.concat().contains("CANARY"), "{output:?}");
    report
}

fn faults(report: &Report) -> Vec<String> {
    report.faults.iter().map(ToString::to_string).collect()
}

/// Returns the value of a ciphertext in a file.
fn unsealed(folder: &Path, file: &str, pointer: &str, binding: &Binding) -> SecretValue {
    let text = fs::read_to_string(folder.join(file)).unwrap();
    let value: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
    let sealed = Sealed::parse(value.pointer(pointer).unwrap().as_str().unwrap()).unwrap();
    let ciphertext = sealed.ciphertext(binding.clone()).unwrap();
    let provider = MemoryBackend::new().provider();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let context = Context::default();
    let decrypted = runtime.block_on(provider.decrypt(&context, &ciphertext)).unwrap();
    sealed.open(&decrypted, binding).unwrap()
}

#[test]
fn sealed_folder_can_be_decrypted_by_the_operator() {
    let long = "CANARY".repeat(20_000);
    let entries = [
        "{ secretKey: short, plaintext: CANARY-short }",
        "{ secretKey: file, plaintextFile: long.pem, ciphertextScope: Namespace }",
        "{ secretKey: empty, plaintext: \"\", ciphertextScope: Cluster }",
    ];
    let text = object("database", "{ name: kms }", &entries);
    let folder = folder(&[("deploy/database.yaml", &text), ("deploy/long.pem", &long)]);
    let kms = Kms::new("aws");
    let report = seal_with(folder.path(), &[], &kms);
    assert_eq!(faults(&report), [""; 0]);
    assert_eq!((report.sealed.len(), kms.calls()), (3, 3));
    let lines = report.lines();
    assert!(lines.contains("database.yaml:8: SyncedSecret shop/database: spec.data[0].plaintext: scope Strict, with SecretStore/kms (aws eu-central-1 alias/shop)\n"), "{lines}");
    assert!(lines.contains("spec.data[1].plaintextFile: scope Namespace, with SecretStore/kms (aws eu-central-1 alias/shop), in an envelope\n"), "{lines}");
    assert!(
        report
            .notes
            .concat()
            .contains("long.pem still contains the plaintext"),
        "{:?}",
        report.notes
    );
    for (index, scope, key, value) in [
        (0, CiphertextScope::Strict, "short", "CANARY-short"),
        (1, CiphertextScope::Namespace, "file", long.as_str()),
        (2, CiphertextScope::Cluster, "empty", ""),
    ] {
        let binding = Binding::new(scope, "shop", "database", key);
        let pointer = format!("/spec/data/{index}/ciphertext");
        let opened = unsealed(folder.path(), "deploy/database.yaml", &pointer, &binding);
        assert_eq!(opened.expose_str(), Some(value), "{key}");
    }
    let after = fs::read_to_string(folder.path().join("deploy/database.yaml")).unwrap();
    assert!(after.starts_with("# database\n") && !after.contains("CANARY") && !after.contains("plaintext"));

    // and there is nothing left to do
    let again = seal_with(folder.path(), &[], &kms);
    assert_eq!((again.total, kms.calls()), (0, 3));
    assert_eq!(again.lines(), "nothing to seal\n");
    assert_eq!(
        fs::read_to_string(folder.path().join("deploy/database.yaml")).unwrap(),
        after
    );
}

#[test]
fn operator_credentials_are_never_used() {
    let files = [
        (
            "a.yaml",
            object("a", "{ name: kms }", &["{ secretKey: a, plaintext: CANARY }"]),
        ),
        (
            "b.yaml",
            object(
                "b",
                "{ name: transit, kind: ClusterSecretStore }",
                &["{ secretKey: a, plaintext: CANARY }"],
            ),
        ),
    ];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let folder = folder(&files);
    fs::write(folder.path().join(".vault-token"), "CANARY-of-the-home\n").unwrap();
    fs::write(folder.path().join("ca.pem"), "CERTIFICATE").unwrap();
    let (aws, vault) = (Kms::new("aws"), Kms::new("vault"));
    let ca = folder.path().join("ca.pem");
    let more = [
        "--ca-file",
        ca.to_str().unwrap(),
        "--vault-address",
        "https://127.0.0.1:8200",
        "--vault-token",
        "CANARY-typed",
    ];
    let arguments = arguments(folder.path(), &more);
    assert!(!format!("{arguments:?}").contains("CANARY"));
    let report = run(
        &arguments,
        &Registry::default().with(aws.clone()).with(vault.clone()),
    )
    .unwrap();
    assert_eq!(faults(&report), [""; 0]);
    let (config, _) = aws.configs.lock().unwrap().pop().unwrap();
    let spec = config.provider.aws.unwrap();
    assert!(spec.auth.is_none() && spec.role.is_none() && spec.external_id.is_none());
    assert_eq!(config.key.kind, StoreKind::ClusterSecretStore);
    let (config, token) = vault.configs.lock().unwrap().pop().unwrap();
    let spec = config.provider.vault.unwrap();
    assert!(spec.auth.kubernetes.is_none() && spec.ca_provider.is_none() && spec.ca_bundle.is_some());
    assert_eq!(spec.server, "https://127.0.0.1:8200");
    assert_eq!(token.unwrap().expose_str(), Some("CANARY-typed"));
}

#[test]
fn manifest_certificates_are_not_trusted_for_the_given_server() {
    let store = "{ name: transit, kind: ClusterSecretStore }";
    let text = object("b", store, &["{ secretKey: a, plaintext: CANARY }"]);
    let provided = "caProvider: { type: ConfigMap, name: ca, key: ca.crt }";
    let bundled = "caBundle: Q0VSVElGSUNBVEU=\n      namespace: team";
    let own = ["--vault-address", "https://127.0.0.1:8200"];
    let trusted = ["--trust-endpoint", "vault.vault.svc:8200"];
    let bundle = "Q0VSVElGSUNBVEU=";
    for (certificates, address, server, wanted) in [
        (provided, own, "https://127.0.0.1:8200", None),
        (bundled, own, "https://127.0.0.1:8200", None),
        (bundled, trusted, "https://vault.vault.svc:8200", Some(bundle)),
    ] {
        let folder = folder(&[("b.yaml", &text)]);
        let stores = STORES.replace(provided, certificates);
        fs::write(folder.path().join("stores.yaml"), stores).unwrap();
        let more = [&["--vault-token", "CANARY-typed"][..], &address].concat();
        let vault = Kms::new("vault");
        assert_eq!(faults(&seal_with(folder.path(), &more, &vault)), [""; 0]);
        let (config, _) = vault.configs.lock().unwrap().pop().unwrap();
        let spec = config.provider.vault.unwrap();
        assert_eq!(spec.server, server);
        assert_eq!(spec.ca_bundle.as_deref(), wanted, "{certificates}");
        assert!(spec.ca_provider.is_none(), "{certificates}");
        let namespace = (certificates == bundled).then_some("team");
        assert_eq!(spec.namespace.as_deref(), namespace, "{certificates}");
    }
}

#[test]
fn vault_login_token_is_the_last_resort() {
    let store = "{ name: transit, kind: ClusterSecretStore }";
    let text = object("b", store, &["{ secretKey: a, plaintext: CANARY }"]);
    let folder = folder(&[("b.yaml", &text), ("ca.pem", "CERTIFICATE")]);
    let ca = folder.path().join("ca.pem");
    let more = [
        "--ca-file",
        ca.to_str().unwrap(),
        "--vault-token",
        "",
        "--trust-endpoint",
        "vault.vault.svc:8200",
    ];
    let vault = Kms::new("vault");
    let report = seal_with(folder.path(), &more, &vault);
    let output = faults(&report).concat();
    assert!(
        output.contains("no Vault token. Run vault login, or set VAULT_TOKEN"),
        "{output}"
    );
    assert_eq!(fs::read_to_string(folder.path().join("b.yaml")).unwrap(), text);

    fs::write(folder.path().join("token"), "CANARY-in-a-file\n").unwrap();
    let token = folder.path().join("token");
    let more = [
        "--ca-file",
        ca.to_str().unwrap(),
        "--token-file",
        token.to_str().unwrap(),
        "--trust-endpoint",
        "vault.vault.svc:8200",
    ];
    assert_eq!(faults(&seal_with(folder.path(), &more, &vault)), [""; 0]);
    let (_, token) = vault.configs.lock().unwrap().pop().unwrap();
    assert_eq!(token.unwrap().expose_str(), Some("CANARY-in-a-file"));
}

#[test]
fn file_with_an_error_is_unchanged_and_others_are_sealed() {
    let secret = "{ secretKey: a, plaintext: CANARY }";
    for (bad, wanted) in [
        (
            object("b", "{ name: nowhere }", &[secret]),
            "SecretStore/nowhere in namespace \"shop\" not found in the files",
        ),
        (
            object("b", "{ name: keyless, kind: ClusterSecretStore }", &[secret]),
            "ClusterSecretStore/keyless: no encryption key. Set spec.provider.aws.kms.keyId",
        ),
        (
            object("b", "{ name: transit, kind: ClusterSecretStore }", &[secret]),
            "Provide the certificates with --ca-file",
        ),
        (
            object(
                "b",
                "{ name: kms }",
                &[secret, "{ secretKey: b, plaintextFile: nowhere.pem }"],
            ),
            "nowhere.pem does not exist",
        ),
        (
            object(
                "b",
                "{ name: kms }",
                &[secret, "{ secretKey: b, plaintextFile: huge.pem }"],
            ),
            "huge.pem is larger than the maximum of 1 MiB",
        ),
        (
            object("b", "{ name: kms }", &[secret, "{ secretKey: b, plaintext: 7 }"]),
            "quote it",
        ),
        (
            object("b", "{ name: kms }", &[secret]) + "  no such: x\n",
            "unknown field",
        ),
        (
            object("b", "{ name: kms }", &[secret]) + "---\na: [\n",
            "not YAML",
        ),
    ] {
        let good = object("a", "{ name: kms }", &[secret]);
        let folder = folder(&[
            ("a.yaml", &good),
            ("b.yaml", &bad),
            ("c.yaml", &good.replace("name: a", "name: c")),
        ]);
        fs::write(folder.path().join("huge.pem"), vec![b'x'; (1 << 20) + 1]).unwrap();
        let kms = Kms::new("aws");
        let report = seal_with(folder.path(), &[], &kms);
        let output = faults(&report);
        assert!(
            output
                .iter()
                .any(|fault| fault.contains(wanted) && fault.contains("b.yaml:")),
            "{wanted}: {output:#?}"
        );
        assert!(!output.concat().contains("CANARY"), "{output:?}");
        assert_eq!((report.sealed.len(), kms.calls()), (2, 2), "{output:#?}");
        let now = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(now("b.yaml"), bad);
        assert!(
            now("a.yaml").contains("ciphertext: lockstep:v1:")
                && now("c.yaml").contains("ciphertext: lockstep:v1:")
        );
    }
}

#[test]
fn one_rejected_value_leaves_its_file_unchanged() {
    let entries = [
        "{ secretKey: a, plaintext: CANARY1 }",
        "{ secretKey: b, plaintext: CANARY2 }",
    ];
    let text = object("a", "{ name: kms }", &entries);
    let folder = folder(&[("a.yaml", &text)]);
    let mut kms = Kms::new("aws");
    kms.fail = |number| (number == 1).then_some(ErrorKind::PermissionDenied);
    let report = seal_with(folder.path(), &[], &kms);
    assert_eq!(faults(&report).len(), 1);
    let name = folder.path().join("a.yaml").display().to_string();
    assert_eq!(
        faults(&report)[0],
        format!("{name}:9: SyncedSecret shop/a: spec.data[1].plaintext: SecretStore/kms: the key says no")
    );
    assert_eq!(report.summary(), "0 of 2 values were sealed; 1 error");
    assert_eq!(fs::read_to_string(folder.path().join("a.yaml")).unwrap(), text);
    assert_eq!(kms.calls(), 2, "what is refused is not tried again");
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "no file is left behind: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn transient_kms_errors_are_retried_up_to_a_limit() {
    let binding = Binding::new(CiphertextScope::Strict, "shop", "a", "a");
    let mut kms = Kms::new("aws");
    kms.fail = |number| (number < 3).then_some(ErrorKind::RateLimited);
    let text = crate::seal::encrypt::seal(&kms, &"CANARY".into(), &binding)
        .await
        .unwrap();
    assert!(Sealed::parse(&text).is_ok());
    assert_eq!(kms.calls(), 4);
    let mut kms = Kms::new("aws");
    kms.fail = |_| Some(ErrorKind::Unavailable);
    let error = crate::seal::encrypt::seal(&kms, &"CANARY".into(), &binding)
        .await
        .unwrap_err();
    assert_eq!((error.message.as_str(), kms.calls()), ("the key says no", 5));
    assert!(error.of_any);
}

#[test]
fn concurrent_requests_are_limited() {
    let entries: Vec<_> = (0..100)
        .map(|at| format!("{{ secretKey: k{at}, plaintext: CANARY{at} }}"))
        .collect();
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    let folder = folder(&[("a.yaml", &object("a", "{ name: kms }", &entries))]);
    let kms = Kms::new("aws");
    let report = seal_with(folder.path(), &[], &kms);
    assert_eq!((report.sealed.len(), kms.calls()), (100, 100));
    assert_eq!(kms.most_in_flight.load(Ordering::SeqCst), 8);
    for at in [0, 57, 99] {
        let binding = Binding::new(CiphertextScope::Strict, "shop", "a", &format!("k{at}"));
        let opened = unsealed(
            folder.path(),
            "a.yaml",
            &format!("/spec/data/{at}/ciphertext"),
            &binding,
        );
        assert_eq!(opened.expose_str(), Some(format!("CANARY{at}").as_str()));
    }
}

#[test]
fn missing_key_is_not_used_for_every_value() {
    let entries: Vec<_> = (0..100)
        .map(|at| format!("{{ secretKey: k{at}, plaintext: CANARY{at} }}"))
        .collect();
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    let folder = folder(&[("a.yaml", &object("a", "{ name: kms }", &entries))]);
    let mut kms = Kms::new("aws");
    kms.fail = |_| Some(ErrorKind::KeyUnavailable);
    let report = seal_with(folder.path(), &[], &kms);
    assert_eq!(report.faults.len(), 100);
    // those that were under way when the first one came back
    assert!(kms.calls() <= 16, "{} calls", kms.calls());
}

#[test]
fn untrusted_endpoint_gets_no_credentials_and_no_plaintext() {
    let vault = "{ name: transit, kind: ClusterSecretStore }";
    let entries = ["{ secretKey: a, plaintext: CANARY }"];
    let text = object("a", "{ name: kms }", &entries);
    let transit = object("b", vault, &entries);
    let folder = folder(&[("a.yaml", &text), ("b.yaml", &transit), ("ca.pem", "CERTIFICATE")]);
    let endpoint = "keyId: alias/shop, endpoint: https://kms.evil.example.org";
    let stores = STORES.replace("keyId: alias/shop", endpoint);
    fs::write(folder.path().join("stores.yaml"), stores).unwrap();
    fs::write(folder.path().join(".vault-token"), "CANARY-of-the-home\n").unwrap();
    let ca = folder.path().join("ca.pem");
    let run_with = |more: &[&str]| {
        let (aws, vault) = (Kms::new("aws"), Kms::new("vault"));
        let more = [&["--ca-file", ca.to_str().unwrap()], more].concat();
        let registry = Registry::default().with(aws.clone()).with(vault.clone());
        let report = run(&arguments(folder.path(), &more), &registry).unwrap();
        let asked = [aws, vault].map(|kms| kms.configs.lock().unwrap().len());
        (faults(&report).join("\n"), asked)
    };
    for more in [&[][..], &["--dry-run"]] {
        let (output, asked) = run_with(more);
        assert_eq!(asked, [0, 0], "{output}");
        for wanted in [
            "SecretStore/kms: spec.provider.aws.kms.endpoint: host \"kms.evil.example.org\" does not belong to AWS KMS",
            "add --trust-endpoint kms.evil.example.org",
            "spec.provider.vault.server: host \"vault.vault.svc:8200\"",
        ] {
            assert!(output.contains(wanted), "{wanted}: {output}");
        }
        assert!(!output.contains("CANARY"), "{output}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("a.yaml")).unwrap(), text);
    let (output, asked) = run_with(&[
        "--trust-endpoint",
        "kms.evil.example.org",
        "--vault-address",
        "https://127.0.0.1:8200",
    ]);
    assert_eq!((output.as_str(), asked), ("", [1, 1]));
}

#[test]
fn vault_address_is_trusted_for_vault_only() {
    let text = object("a", "{ name: kms }", &["{ secretKey: a, plaintext: CANARY }"]);
    let folder = folder(&[("a.yaml", &text)]);
    let address = ["--vault-address", "https://127.0.0.1:8200"];
    for endpoint in [
        "https://127.0.0.1:8200",
        "https://127.0.0.1:9999",
        "https://127.0.0.1",
    ] {
        let named = format!("keyId: alias/shop, endpoint: \"{endpoint}\"");
        let stores = STORES.replace("keyId: alias/shop", &named);
        fs::write(folder.path().join("stores.yaml"), stores).unwrap();
        let aws = Kms::new("aws");
        let output = faults(&seal_with(folder.path(), &address, &aws)).concat();
        assert!(
            output.contains("spec.provider.aws.kms.endpoint: host"),
            "{output}"
        );
        assert!(aws.configs.lock().unwrap().is_empty(), "{endpoint}");
    }
}

#[test]
fn plaintext_file_must_be_in_the_manifest_folder() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("id_rsa"), "CANARY").unwrap();
    let folder = outer.path().join("repository");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("../id_rsa", folder.join("link.pem")).unwrap();
    fs::write(folder.join("stores.yaml"), STORES).unwrap();
    let absolute = outer.path().join("id_rsa").display().to_string();
    for path in ["../id_rsa", "link.pem", absolute.as_str()] {
        let entry = format!("{{ secretKey: a, plaintextFile: {path} }}");
        let text = object("a", "{ name: kms }", &[&entry]);
        fs::write(folder.join("a.yaml"), &text).unwrap();
        let kms = Kms::new("aws");
        let report = seal_with(&folder, &[], &kms);
        let output = faults(&report).concat();
        assert!(
            output.contains("plaintextFile must be in the manifest's folder"),
            "{output}"
        );
        assert_eq!(
            (kms.calls(), fs::read_to_string(folder.join("a.yaml")).unwrap()),
            (0, text)
        );
    }
}

#[test]
fn plaintext_file_must_not_be_hidden() {
    let outer = tempfile::tempdir().unwrap();
    // the name of the manifest's folder does not matter
    let folder = outer.path().join(".deploy");
    for file in [".env", ".git/config", "app/.config/token", "visible.d/tls.key"] {
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "CANARY").unwrap();
    }
    for (target, link) in [
        (".env", "link.pem"),
        (".git", "folder"),
        ("visible.d/tls.key", ".link"),
    ] {
        std::os::unix::fs::symlink(target, folder.join(link)).unwrap();
    }
    fs::write(folder.join("stores.yaml"), STORES).unwrap();
    let seal = |path: &str| {
        let entry = format!("{{ secretKey: a, plaintextFile: {path} }}");
        let text = object("a", "{ name: kms }", &[&entry]);
        fs::write(folder.join("a.yaml"), &text).unwrap();
        let kms = Kms::new("aws");
        let report = seal_with(&folder, &[], &kms);
        let is_unchanged = fs::read_to_string(folder.join("a.yaml")).unwrap() == text;
        (faults(&report).concat(), kms.calls(), is_unchanged)
    };
    for path in [
        ".env",
        "./.env",
        "app/../.env",
        ".git/config",
        "app/.config/token",
        "link.pem",
        "folder/config",
        ".link",
    ] {
        let (output, calls, is_unchanged) = seal(path);
        assert!(output.contains("must not start with a dot"), "{path}: {output}");
        assert_eq!((calls, is_unchanged), (0, true), "{path}");
    }
    for path in ["visible.d/tls.key", "./visible.d/../visible.d/tls.key"] {
        assert_eq!(seal(path), (String::new(), 1, false), "{path}");
    }
}

#[test]
fn dry_run_changes_nothing_and_calls_no_kms() {
    let text = object("a", "{ name: kms }", &["{ secretKey: a, plaintext: CANARY }"]);
    let folder = folder(&[("a.yaml", &text)]);
    let kms = Kms::new("aws");
    let report = seal_with(folder.path(), &["--dry-run"], &kms);
    assert!(report.lines().starts_with("would seal "), "{}", report.lines());
    assert_eq!(
        (
            faults(&report).len(),
            kms.calls(),
            kms.configs.lock().unwrap().len()
        ),
        (0, 0, 0)
    );
    assert_eq!(fs::read_to_string(folder.path().join("a.yaml")).unwrap(), text);
}

#[test]
fn duplicate_store_input_is_read_once_and_errors_are_shown() {
    let text = object("a", "{ name: kms }", &["{ secretKey: a, plaintext: CANARY }"]);
    let folder = folder(&[("a.yaml", &text)]);
    let stores = folder.path().join("stores.yaml");
    let kms = Kms::new("aws");
    let report = seal_with(folder.path(), &["--store", stores.to_str().unwrap()], &kms);
    assert_eq!((faults(&report), report.sealed.len()), (Vec::new(), 1));

    fs::write(folder.path().join("a.yaml"), &text).unwrap();
    fs::write(
        &stores,
        STORES.replace("keyId: alias/shop", "keyId: alias/shop, x: y"),
    )
    .unwrap();
    let output = faults(&seal_with(folder.path(), &[], &kms)).concat();
    assert!(
        output.contains("SecretStore/kms cannot be used: ") && output.contains("kms.x: unknown field"),
        "{output}"
    );
}

#[cfg(unix)]
#[test]
fn permissions_links_and_byte_order_marks_are_kept() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let text = object("a", "{ name: kms }", &["{ secretKey: a, plaintext: CANARY }"]).replace('\n', "\r\n");
    let folder = folder(&[("real/a.txt", &format!("\u{feff}{text}"))]);
    let real = folder.path().join("real/a.txt");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&real, folder.path().join("a.yaml")).unwrap();
    let report = seal_with(folder.path(), &[], &Kms::new("aws"));
    assert_eq!((faults(&report), report.sealed.len()), (Vec::new(), 1));
    let after = fs::read_to_string(&real).unwrap();
    assert!(
        after.starts_with("\u{feff}# a\r\napiVersion") && after.contains("ciphertext: lockstep:v1:"),
        "{after}"
    );
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(folder.path().join("a.yaml").is_symlink());
}

#[test]
fn concurrent_change_is_not_overwritten() {
    let folder = folder(&[("a.yaml", "new")]);
    let path = folder.path().join("a.yaml");
    let error = crate::seal::write::replace(&path, "old", "sealed").unwrap_err();
    assert!(error.contains("was changed by another program"), "{error}");
    assert_eq!(fs::read_to_string(path).unwrap(), "new");
}
