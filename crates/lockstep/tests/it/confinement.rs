//! `render`, `plan` and `seal` read below the named folder only, and print nothing of a file that is not a manifest.

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::{lockstep, text};

const SYNCED: &str = "\
apiVersion: lockstep.dev/v1alpha1
kind: SyncedSecret
metadata: { name: database, namespace: shop }
spec:
  secretStoreRef: { name: vault }
  data: [{ secretKey: a, remoteRef: { key: shop/database } }]
";

const STORE: &str = "\
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

/// A home with credentials, and a checked out repository beside them.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().expect("a folder"));
        machine.write("home/token", "hvs.CANARYTOKEN");
        machine.write("home/dup", "hvs.KEYCANARY: a\nhvs.KEYCANARY: b\n");
        machine.write(
            "home/key.pem",
            "-----BEGIN KEY-----\nCANARY/1+a=\n-----END KEY-----\n",
        );
        machine.write("home/list.yaml", "- hvs.CANARY\n");
        machine.write(
            "home/fields.yaml",
            "hvs.CANARY: hvs.CANARY\nresources: hvs.CANARY\n",
        );
        machine.write("home/entries.yaml", "resources: [\"https://hvs.CANARY\"]\n");
        machine.write("home/missing.yaml", "resources: [hvs.CANARY]\n");
        machine.write(
            "home/tree.yaml",
            "hvs.CANARY:\n  CANARY: [a, { CANARY: b, CANARY: c }]\n",
        );
        machine.write("home/typed.yaml", "hvs.CANARY: !!int hvs.CANARY\n");
        machine.write("home/object.yaml", SYNCED);
        machine.write("repository/.git/HEAD", "ref: refs/heads/main\n");
        machine
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    fn link(&self, target: impl AsRef<Path>, name: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a folder");
        let _ = fs::remove_file(&path);
        symlink(target, path).expect("a link");
    }

    /// Exit code and everything that is printed, which never includes a credential.
    fn run(&self, command: &str, file: &str, more: &[&str]) -> (i32, String) {
        let path = self.path(file);
        let mut arguments = vec![command, "-f", path.to_str().expect("UTF-8")];
        arguments.extend_from_slice(more);
        let output = lockstep(&arguments).get_output().clone();
        let printed = text(&output.stdout) + &text(&output.stderr);
        assert!(!printed.contains("CANARY"), "{command} {file}: {printed}");
        (output.status.code().expect("an exit code"), printed)
    }
}

#[test]
fn linked_kustomization_outside_of_the_folder_is_refused() {
    for file in [
        "token",
        "dup",
        "key.pem",
        "list.yaml",
        "fields.yaml",
        "entries.yaml",
    ] {
        let machine = Machine::new();
        for target in [
            format!("../../home/{file}"),
            machine.path("home").join(file).display().to_string(),
        ] {
            machine.link(target, "repository/deploy/kustomization.yaml");
            for command in ["render", "plan"] {
                let (code, printed) = machine.run(command, "repository/deploy", &[]);
                assert_eq!(code, 2, "{printed}");
                assert!(
                    printed.contains("deploy/kustomization.yaml is outside of the folder"),
                    "{printed}"
                );
            }
        }
    }
}

#[test]
fn resources_outside_of_the_folder_are_refused() {
    let machine = Machine::new();
    machine.link("../../home/token", "repository/deploy/link.yaml");
    machine.link("../../home", "repository/deploy/folder");
    machine.write("home/kustomization.yaml", "resources: [object.yaml]\n");
    machine.write("repository/other/manifest.yaml", SYNCED);
    let absolute = machine.path("home/dup").display().to_string();
    for resource in [
        "../../home/dup",
        "../../home/object.yaml",
        "../other/manifest.yaml",
        "link.yaml",
        "folder",
        "folder/token",
        "../../home",
        &absolute,
    ] {
        machine.write(
            "repository/deploy/kustomization.yaml",
            &format!("resources: [{resource}]\n"),
        );
        for command in ["render", "plan"] {
            let (code, printed) = machine.run(command, "repository/deploy", &[]);
            assert_eq!(code, 2, "{resource}: {printed}");
            assert!(printed.contains("resources[0]"), "{resource}: {printed}");
            assert!(printed.contains("--root"), "{resource}: {printed}");
        }
    }
}

#[test]
fn base_of_the_same_repository_is_read() {
    let machine = Machine::new();
    machine.write(
        "repository/base/kustomization.yaml",
        "resources: [synced.yaml, deep/store.yaml]\n",
    );
    machine.write("repository/base/synced.yaml", SYNCED);
    machine.write("repository/base/deep/store.yaml", STORE);
    machine.write(
        "repository/overlays/prod/kustomization.yaml",
        "resources: [../../base]\n",
    );
    for command in ["render", "plan"] {
        let (code, printed) = machine.run(command, "repository/overlays/prod", &[]);
        assert_eq!(code, 0, "{printed}");
    }
    // without a repository, a base must be below the working directory or the named folder
    fs::remove_dir_all(machine.path("repository/.git")).expect("a folder");
    let (code, printed) = machine.run("render", "repository/overlays/prod", &[]);
    assert_eq!(code, 2, "{printed}");
    assert!(
        printed.contains("resources[0]") && printed.contains("--root"),
        "{printed}"
    );
}

#[test]
fn root_allows_everything_below_it_and_nothing_else() {
    let machine = Machine::new();
    machine.write("repository/shared/synced.yaml", SYNCED);
    machine.write("repository/shared/store.yaml", STORE);
    machine.link("../shared/store.yaml", "repository/deploy/store.yaml");
    let list = |resources: &str| {
        let text = format!("resources: [{resources}]\n");
        machine.write("repository/deploy/kustomization.yaml", &text);
    };
    let root = machine.path("repository").display().to_string();
    list("../shared/synced.yaml, store.yaml");
    let (code, printed) = machine.run("render", "repository/deploy", &["--root", &root]);
    assert_eq!(code, 0, "{printed}");
    list("../../home/token");
    let (code, printed) = machine.run("render", "repository/deploy", &["--root", &root]);
    assert_eq!(code, 2, "{printed}");
    let (code, printed) = machine.run("render", "home", &["--root", &root]);
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("is not below --root"), "{printed}");
}

#[test]
fn links_of_a_folder_stay_inside_it() {
    let machine = Machine::new();
    machine.write("repository/deploy/..data/synced.yaml", SYNCED);
    machine.link("..data/synced.yaml", "repository/deploy/synced.yaml");
    machine.write("repository/deploy/store.yaml", STORE);
    for command in ["render", "plan"] {
        let (code, printed) = machine.run(command, "repository/deploy", &[]);
        assert_eq!(code, 0, "{printed}");
    }
    machine.link("../../home/dup", "repository/deploy/x.yaml");
    for arguments in [&["render"][..], &["plan"], &["seal"], &["seal", "--check"]] {
        let (code, printed) = machine.run(arguments[0], "repository/deploy", &arguments[1..]);
        assert_eq!(code, 2, "{arguments:?}: {printed}");
        assert!(
            printed.contains("deploy/x.yaml is outside of the folder"),
            "{printed}"
        );
        assert!(printed.contains("--root"), "{printed}");
    }
}

#[test]
fn named_file_that_is_no_manifest_is_not_quoted() {
    let machine = Machine::new();
    for entry in fs::read_dir(machine.path("home")).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let file = format!("home/{}", name.to_str().expect("UTF-8"));
        if file.ends_with("object.yaml") {
            continue;
        }
        for arguments in [&["render"][..], &["plan"], &["seal"], &["seal", "--check"]] {
            machine.run(arguments[0], &file, &arguments[1..]);
        }
    }
    let (code, printed) = machine.run("render", "home/tree.yaml", &[]);
    assert_eq!(code, 1);
    assert!(
        printed.contains("tree.yaml:1: line 2, column 15: duplicate key in the map that starts here"),
        "{printed}"
    );
}

#[test]
fn kustomization_that_is_none_is_not_quoted() {
    let machine = Machine::new();
    for (file, wanted) in [
        (
            "token",
            "kustomization.yaml:1: must be a map with the fields of a kustomization",
        ),
        ("dup", "line 1, column 1: duplicate key"),
        ("key.pem", "kustomization.yaml"),
        (
            "list.yaml",
            "kustomization.yaml:1: must be a map with the fields of a kustomization",
        ),
        (
            "fields.yaml",
            "kustomization.yaml: resources must be a list of paths",
        ),
        (
            "entries.yaml",
            "kustomization.yaml: resources[0] is not a local path",
        ),
        ("missing.yaml", "kustomization.yaml: resources[0] does not exist"),
        ("tree.yaml", "line 2, column 15: duplicate key"),
        ("typed.yaml", "line 1"),
    ] {
        let content = fs::read_to_string(machine.path("home").join(file)).expect("a file");
        machine.write("repository/deploy/kustomization.yaml", &content);
        for command in ["render", "plan"] {
            let (code, printed) = machine.run(command, "repository/deploy", &[]);
            assert_eq!(code, 2, "{file}: {printed}");
            assert!(printed.contains(wanted), "{file}: {printed}");
        }
    }
    machine.write(
        "repository/deploy/kustomization.yaml",
        "hvs.CANARY: x\nnamePrefix: a-\nresources: []\n",
    );
    let (code, printed) = machine.run("render", "repository/deploy", &[]);
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains("not namePrefix and fields that kustomize does not have"),
        "{printed}"
    );
}
