//! What `lockstep plan` counts, against sums made by hand.

use std::fs;

use lockstep_api::ciphertext::CiphertextScope;
use lockstep_core::ciphertext::{Binding, Sealed};
use serde_json::Value;

use crate::{examples, lockstep, text};

const STORES: &str = "
apiVersion: lockstep.dev/v1alpha1
kind: SecretStore
metadata: { name: aws, namespace: shop }
spec:
  provider:
    aws:
      service: SecretsManager
      region: eu-central-1
      kms: { keyId: \"arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab\" }
      auth: { jwt: { serviceAccountRef: { name: reader } } }
---
apiVersion: lockstep.dev/v1alpha1
kind: SecretStore
metadata: { name: parameters, namespace: shop }
spec:
  limits: { requestsPerSecond: 1 }
  provider:
    aws:
      service: ParameterStore
      region: eu-central-1
      auth: { jwt: { serviceAccountRef: { name: reader } } }
---
apiVersion: lockstep.dev/v1alpha1
kind: ClusterSecretStore
metadata: { name: vault }
spec:
  access:
    - { namespaces: { names: [shop, blog] }, keys: [\"shop/**\"] }
  provider:
    vault:
      server: http://127.0.0.1:8200
      path: secret
      auth: { kubernetes: { role: shop, serviceAccountRef: { name: shop } } }
";

fn synced(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: lockstep.dev/v1alpha1
kind: SyncedSecret
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
{spec}"
    )
}

/// Exit code, standard output and standard error of a plan of these manifests.
fn plan(manifests: &[String], more: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("manifests.yaml");
    fs::write(&file, format!("{STORES}{}", manifests.concat())).expect("a file");
    let mut arguments = vec!["plan", "-f", file.to_str().expect("UTF-8")];
    arguments.extend(more);
    let output = lockstep(&arguments);
    let output = output.get_output();
    let code = output.status.code().expect("an exit code");
    (code, text(&output.stdout), text(&output.stderr))
}

fn json(manifests: &[String], more: &[&str]) -> (i32, Value) {
    let arguments = [&["--output", "json"], more].concat();
    let (code, stdout, stderr) = plan(manifests, &arguments);
    let document = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    (code, document)
}

/// Two SyncedSecrets of one store that share a key, every hour, and one that reads the third store as well.
fn a_small_set() -> Vec<String> {
    vec![
        synced(
            "shop",
            "database",
            "  secretStoreRef: { name: aws }
  data:
    - { secretKey: user, remoteRef: { key: shop/database, property: user } }
    - { secretKey: password, remoteRef: { key: shop/database, property: password } }
    - { secretKey: token, remoteRef: { key: shop/token } }
",
        ),
        synced(
            "shop",
            "report",
            "  secretStoreRef: { name: aws }
  data:
    - { secretKey: password, remoteRef: { key: shop/database, property: password } }
    - { secretKey: old, remoteRef: { key: shop/token, version: AWSPREVIOUS } }
",
        ),
        synced(
            "shop",
            "api",
            "  refreshInterval: 10m
  secretStoreRef: { name: vault, kind: ClusterSecretStore }
  dataFrom:
    - extract: { key: shop/api }
    - find: { path: /shop/, name: { regexp: key } }
      secretStoreRef: { name: parameters }
",
        ),
    ]
}

#[test]
fn a_table_tells_calls_and_costs_and_how_they_were_counted() {
    let (code, stdout, stderr) = plan(&a_small_set(), &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    insta::assert_snapshot!(stdout);
}

#[test]
fn the_numbers_are_those_of_the_schedule() {
    let (code, document) = json(&a_small_set(), &[]);
    assert_eq!(code, 0);
    let [vault, aws, parameters] = ["vault", "aws", "parameters"].map(|name| {
        let stores = document["stores"].as_array().expect("stores");
        stores.iter().find(|store| store["name"] == name).expect(name)
    });
    // shop/database and shop/token leave as one batch; the version is a call of its own. Every hour, exactly
    assert_eq!(aws["objects"], 2);
    assert_eq!(aws["references"], 5);
    assert_eq!(aws["keys"], 2);
    assert_eq!(aws["callsARound"]["reads"], 2);
    assert_eq!(aws["callsADay"]["all"], 48);
    assert_eq!(aws["callsAMonth"]["all"], 1440);
    // 1,440 calls at 5 millionths of a dollar, and 2 secrets at 40 cents
    assert_eq!(aws["usdAMonth"], "0.0072");
    assert_eq!(aws["keptUsdAMonth"], "0.80");
    // 2 of the 100 batches of a second
    assert_eq!(aws["peakPercentOfQuota"], "2.0");
    // 5 references × 24 hours × 30 days
    assert_eq!(aws["oneCallForEachReference"]["callsAMonth"]["all"], 3600);
    assert_eq!(aws["oneCallForEachReference"]["usdAMonth"], "0.018");
    // vault has no batches: 10 minutes and 30 seconds on average, 4,320 / 1.05 = 4,114.3 in a month, and no price
    assert_eq!(vault["callsAMonth"]["all"], 4115);
    assert_eq!(vault["callsADay"]["all"], 138);
    assert_eq!(vault["usdAMonth"], Value::Null);
    assert_eq!(vault["peakPercentOfQuota"], Value::Null);
    // it follows vault's refresh schedule: a page of ten names and a batch of the ten parameters each time
    assert_eq!(parameters["callsARound"]["finds"], 1);
    assert_eq!(parameters["callsARound"]["reads"], 1);
    assert_eq!(parameters["callsAMonth"]["all"], 8230);
    assert_eq!(parameters["usdAMonth"], "0.00");
    // a page and a batch share a quota of 40; the store allows itself 2 in the first second
    assert_eq!(parameters["firstSync"]["all"], 2);
    assert_eq!(parameters["peakPercentOfQuota"], "5.0");
    let total = &document["total"];
    assert_eq!(total["objects"], 3);
    assert_eq!(total["callsAMonth"], 1440 + 4115 + 8230);
    assert_eq!(total["usdAMonth"], "0.0072");
    // vault: an extract; parameters: a page and the ten that it finds; each 4,320 times
    assert_eq!(
        total["oneCallForEachReference"]["callsAMonth"],
        3600 + 4320 + 11 * 4320
    );
}

#[test]
fn what_searches_find_can_be_told() {
    let (_, document) = json(&a_small_set(), &["--found", "95"]);
    let parameters = &document["stores"][1];
    assert_eq!(parameters["name"], "parameters");
    // ten pages of ten names, ten batches of ten parameters
    assert_eq!(parameters["callsARound"]["finds"], 10);
    assert_eq!(parameters["callsARound"]["reads"], 10);
}

#[test]
fn batches_make_calls_few() {
    let objects: Vec<_> = (0..60)
        .map(|n| {
            let spec = format!(
                "  secretStoreRef: {{ name: aws }}\n  refreshInterval: 15s\n  data: [{{ secretKey: a, remoteRef: {{ key: shop/{} }} }}]\n",
                n / 2
            );
            synced("shop", &format!("object-{n}"), &spec)
        })
        .collect();
    let (_, document) = json(&objects, &[]);
    // 60 references to 30 keys are 2 batches; 5,760 rounds a day
    let aws = &document["stores"][0];
    assert_eq!(aws["callsARound"]["all"], 2);
    assert_eq!(aws["callsADay"]["all"], 11_520);
    assert_eq!(aws["oneCallForEachReference"]["callsADay"]["all"], 345_600);
    assert_eq!(aws["usdAMonth"], "1.728");
    assert_eq!(aws["oneCallForEachReference"]["usdAMonth"], "51.84");
}

#[test]
fn what_is_not_refreshed_costs_its_first_sync_only() {
    let entry = "  secretStoreRef: { name: aws }\n  data: [{ secretKey: a, remoteRef: { key: shop/a } }]\n";
    let objects = [
        synced("shop", "changed", &format!("{entry}  refreshPolicy: OnChange\n")),
        synced("shop", "once", &format!("{entry}  refreshPolicy: CreatedOnce\n")),
        synced("shop", "off", &format!("{entry}  suspend: true\n")),
    ];
    let (code, document) = json(&objects, &[]);
    assert_eq!(code, 0);
    let aws = &document["stores"][0];
    assert_eq!(aws["objects"], 2);
    assert_eq!(aws["firstSync"]["all"], 1);
    assert_eq!(aws["callsAMonth"]["all"], 0);
    let notes = document["notes"].to_string();
    assert!(notes.contains("2 SyncedSecrets are not refreshed"), "{notes}");
    assert!(notes.contains("1 SyncedSecret is suspended"), "{notes}");
}

#[test]
fn what_would_not_sync_is_told_as_the_status_would_and_left_out() {
    let entry = |store: &str, key: &str| {
        format!("  secretStoreRef: {store}\n  data: [{{ secretKey: a, remoteRef: {{ key: {key} }} }}]\n")
    };
    let vault = "{ name: vault, kind: ClusterSecretStore }";
    let objects = [
        synced("shop", "good", &entry(vault, "shop/a")),
        synced("shop", "denied", &entry(vault, "billing/a")),
        synced("other", "stranger", &entry(vault, "shop/a")),
        synced("shop", "lost", &entry("{ name: nowhere }", "shop/a")),
        synced("shop", "wrong", "  secretStoreRef: { name: aws }\n  data: {}\n"),
    ];
    let (code, stdout, stderr) = plan(&objects, &[]);
    assert_eq!(code, 1, "{stderr}");
    for wanted in [
        "SyncedSecret shop/denied: AccessDenied: ClusterSecretStore/vault does not grant",
        "SyncedSecret other/stranger: AccessDenied:",
        "SyncedSecret shop/lost: StoreNotFound: data[0] (secretKey \"a\"): SecretStore/nowhere does not exist",
        "SyncedSecret \"wrong\": spec.data: must be a list",
        "error: 1 of 4 SyncedSecrets would sync; 1 error in the input",
    ] {
        assert!(stderr.contains(wanted), "{wanted}: {stderr}");
    }
    assert!(stdout.contains("ClusterSecretStore vault"), "{stdout}");
    let (code, document) = json(&objects, &[]);
    assert_eq!(code, 1);
    assert_eq!(document["failed"].as_array().map(Vec::len), Some(3));
    assert_eq!(document["failed"][0]["reason"], "AccessDenied");
    assert_eq!(document["problems"].as_array().map(Vec::len), Some(1));
    assert_eq!(document["total"]["objects"], 1);
}

#[test]
fn what_cannot_be_read_is_a_wrong_command() {
    let output = lockstep(&["plan", "-f", "nowhere.yaml"]).code(2);
    assert!(text(&output.get_output().stderr).contains("nowhere.yaml"));
}

#[test]
fn every_example_can_be_counted() {
    for folder in examples() {
        let manifests = folder.join("manifests.yaml");
        let path = manifests.to_str().expect("UTF-8");
        let output = lockstep(&["plan", "--output", "json", "-f", path]);
        let output = output.get_output();
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{path}: {error}: {}", text(&output.stderr)));
        let failed = document["failed"].as_array().map_or(0, Vec::len);
        assert_eq!(output.status.code(), Some(i32::from(failed > 0)), "{path}");
    }
}

#[test]
fn metadata_is_a_call_of_its_own() {
    let spec = "  secretStoreRef: { name: aws }
  data:
    - { secretKey: value, remoteRef: { key: shop/a } }
    - { secretKey: owner, remoteRef: { key: shop/a, metadataPolicy: Fetch, property: owner } }
    - { secretKey: team, remoteRef: { key: shop/a, metadataPolicy: Fetch, property: team } }
";
    let (_, document) = json(&[synced("shop", "tagged", spec)], &[]);
    let aws = &document["stores"][0];
    assert_eq!(aws["callsARound"]["reads"], 1);
    assert_eq!(aws["callsARound"]["metadata"], 1);
    assert_eq!(aws["oneCallForEachReference"]["callsADay"]["metadata"], 48);
    assert_eq!(aws["keys"], 1);
    assert_eq!(aws["figures"][1]["operation"], "DescribeSecret");
}

#[test]
fn nothing_that_a_manifest_holds_beside_names_is_shown() {
    let objects = [
        synced(
            "shop",
            "database",
            "  secretStoreRef: { name: aws }
  data: [{ secretKey: a, remoteRef: { key: shop/a } }]
  target: { template: { data: { a: \"CANARY {{ .a }}\" } } }
",
        ),
        "---
apiVersion: v1
kind: Secret
metadata: { name: database, namespace: shop }
stringData: { a: CANARY }
---
apiVersion: v1
kind: Secret
metadata: { namespace: shop }
stringData: { a: CANARY }
"
        .to_owned(),
    ];
    for more in [&["--output", "text"][..], &["--output", "json"]] {
        let (code, stdout, stderr) = plan(&objects, more);
        assert_eq!(code, 1, "a Secret has no name: {stderr}");
        assert!(
            !format!("{stdout}{stderr}").contains("CANARY"),
            "{stdout}{stderr}"
        );
    }
}

#[test]
fn a_ciphertext_is_decrypted_once_and_costs_no_call_at_a_refresh() {
    let binding = Binding::new(CiphertextScope::Strict, "shop", "sealed", "token");
    let ciphertext = Sealed::direct("aws", &binding, vec![7; 40]);
    let spec = format!(
        "  secretStoreRef: {{ name: aws }}\n  data:\n    - {{ secretKey: token, ciphertext: \"{ciphertext}\" }}\n"
    );
    let (code, document) = json(&[synced("shop", "sealed", &spec)], &[]);
    assert_eq!(code, 0);
    let aws = &document["stores"][0];
    assert_eq!(aws["references"], 1);
    assert_eq!(aws["firstSync"]["decryptions"], 1);
    assert_eq!(aws["firstSync"]["all"], 1);
    assert_eq!(aws["callsAMonth"]["all"], 0);
    assert_eq!(aws["usdAMonth"], "0.00");
    assert_eq!(aws["figures"][0]["usdForEach"], "0.000003");
    assert!(
        document["notes"]
            .to_string()
            .contains("A ciphertext is decrypted")
    );
}
