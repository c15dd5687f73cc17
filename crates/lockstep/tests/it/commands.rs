use predicates::str::contains;

use crate::{lockstep, text};

#[test]
fn every_command_has_help_with_examples() {
    for command in [
        "run",
        "status",
        "render",
        "plan",
        "seal",
        "crds",
        "completions",
        "version",
    ] {
        lockstep(&[command, "--help"])
            .success()
            .stdout(contains("Examples:"));
    }
    lockstep(&["--help"]).success().stdout(contains("Exit code:"));
}

#[test]
fn help_shows_the_long_description() {
    for (command, text) in [
        ("run", "Connects to the cluster"),
        ("render", "Masking protects against accidents"),
        ("seal", "Replaces each `plaintext`"),
    ] {
        lockstep(&[command, "--help"]).success().stdout(contains(text));
    }
}

#[test]
fn a_wrong_command_ends_with_2_and_says_what_is_wrong() {
    lockstep(&["rendr"]).code(2).stderr(contains("render"));
    lockstep(&["render"]).code(2).stderr(contains("--file"));
    lockstep(&["plan"]).code(2).stderr(contains("--file"));
    lockstep(&["plan", "-f", "x", "--found", "many"])
        .code(2)
        .stderr(contains("--found"));
    lockstep(&["render", "-f", "x", "--show-values"])
        .code(2)
        .stderr(contains("--values"));
}

#[test]
fn there_are_completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        lockstep(&["completions", shell])
            .success()
            .stdout(contains("lockstep"));
    }
}

#[test]
fn the_version_is_told_to_people_and_to_machines() {
    lockstep(&["version"])
        .success()
        .stdout(contains("providers  aws, file, gcp, vault"));
    let output = lockstep(&["version", "--output", "json"]).success();
    let json: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).expect("JSON");
    assert_eq!(json["apiVersion"], "lockstep.dev/v1alpha1");
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        json["rustVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with("1."))
    );
}

#[test]
fn the_crds_are_printed_as_a_stream_of_yaml() {
    let output = lockstep(&["crds"]).success();
    let kinds: Vec<_> = serde_yaml_ng::Deserializer::from_str(&text(&output.get_output().stdout))
        .map(|document| {
            let crd: serde_json::Value = serde::Deserialize::deserialize(document).expect("YAML");
            assert_eq!(crd["kind"], "CustomResourceDefinition");
            crd["spec"]["names"]["kind"].as_str().expect("a kind").to_owned()
        })
        .collect();
    assert_eq!(kinds, ["ClusterSecretStore", "SecretStore", "SyncedSecret"]);
}
