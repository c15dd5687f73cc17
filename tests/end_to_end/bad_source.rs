//! Bad input: remote values that are missing or in another form, servers that are sick, and servers that are slow.

use std::time::{Duration, Instant};

use futures::future::join_all;
use lockstep_testkit::gcp::{Gcp, PROJECT, VersionState};
use serde_json::{Value, json};

use crate::{
    bad_input::one,
    faulty_vault::{FaultyVault, Mood},
    shared_cluster::{eventually, message, shared_cluster, text},
};

/// What no log, event, status or metric may hold.
const MARKER: &str = "canary-of-sick-servers-4c1f";
/// As part of a token.
const TOKEN: &str = "hvs.canary-of-sick-servers-4c1f";

fn of_store(store: &str, key: &str) -> Value {
    json!({ "secretStoreRef": { "name": store }, "data": [one("x", key, "x")] })
}

#[tokio::test]
async fn missing_source_is_named_and_heals_when_it_appears() {
    let test = shared_cluster().await.test_namespace("nothere").await;
    let key = test.key("a");
    let place = "data[0] (secretKey \"x\"): SecretStore/vault:";
    let spec = json!({ "refreshInterval": "1s", "data": [one("x", &key, "x")] });
    test.declare("s", spec).await;
    test.fails_at_first(
        "s",
        "SourceNotFound",
        &format!("{place} key \"{key}\" does not exist"),
    )
    .await;
    test.requests_counted("vault", "read", "not_found").await;
    test.put("a", json!({ "x": "1" })).await;
    test.heals("s").await;
    let old = test.whole("s").await;

    let mut third = one("x", &key, "x");
    third["remoteRef"]["version"] = json!("3");
    test.change("s", json!({ "data": [third] })).await;
    test.fails(
        "s",
        &old,
        "SourceNotFound",
        &format!("{place} key \"{key}\" has no version 3"),
    )
    .await;
    test.put("a", json!({ "x": "2" })).await;
    test.put("a", json!({ "x": "3" })).await;
    test.heals("s").await;
    let old = test.whole("s").await;

    let bao = &test.cluster.bao;
    let versions = || Some(json!({ "versions": [3] }));
    bao.post(&format!("secret/delete/{key}"), versions().unwrap())
        .await
        .unwrap();
    let said = format!("{place} version 3 of key \"{key}\" was deleted");
    test.fails("s", &old, "SourceNotFound", &said).await;
    bao.post(&format!("secret/undelete/{key}"), versions().unwrap())
        .await
        .unwrap();
    test.heals("s").await;
    bao.post(&format!("secret/destroy/{key}"), versions().unwrap())
        .await
        .unwrap();
    let said = format!("{place} version 3 of key \"{key}\" was destroyed");
    test.fails("s", &old, "SourceNotFound", &said).await;
    test.change("s", json!({ "data": [one("x", &key, "x")] })).await;
    test.put("a", json!({ "x": "4" })).await;
    test.heals("s").await;
}

#[tokio::test]
async fn property_of_invalid_json_fails_without_showing_the_value() {
    let test = shared_cluster().await.test_namespace("nojson").await;
    let key = test.key("a");
    test.put("a", json!({ "x": { "y": "1" } })).await;
    let old = test.sync("s", json!({ "data": [one("x", &key, "x.y")] })).await;
    let from = json!({ "dataFrom": [{ "extract": { "key": key, "property": "x" } }] });
    let extract = test.sync("extract", from).await;
    test.put("a", json!({ "x": MARKER })).await;
    let said = format!(
        "data[0] (secretKey \"x\"): key \"{key}\" has no property \"x.y\" in store SecretStore/vault; it has 1 property"
    );
    test.fails("s", &old, "SourceNotFound", &said).await;
    let said = format!(
        "dataFrom[0].extract: property \"x\" of key \"{key}\" in store SecretStore/vault: the value is JSON, but not an object, so it has no properties"
    );
    test.fails("extract", &extract, "Malformed", &said).await;
    test.put("a", json!({ "x": { "y": "2" } })).await;
    test.heals("s").await;
    test.heals("extract").await;
    test.tells_nobody(MARKER).await;
}

/// One sick server: what it does, and what is said of it.
struct Sickness {
    name: &'static str,
    mood: Mood,
    reason: &'static str,
    outcome: &'static str,
    said: &'static str,
}

const SICKNESSES: [Sickness; 9] = [
    Sickness {
        name: "html",
        mood: Mood::Html(200),
        reason: "Malformed",
        outcome: "malformed",
        said: "reading \"a\": the response",
    },
    Sickness {
        name: "html-denied",
        mood: Mood::Html(403),
        reason: "Malformed",
        outcome: "malformed",
        said: "reading \"a\": the response is not Vault's JSON (status 403)",
    },
    Sickness {
        name: "html-gone",
        mood: Mood::Html(404),
        reason: "Malformed",
        outcome: "malformed",
        said: "reading \"a\": the response is not Vault's JSON (status 404)",
    },
    Sickness {
        name: "gateway",
        mood: Mood::Html(502),
        reason: "Unavailable",
        outcome: "unavailable",
        said: "the server is unavailable (status 502)",
    },
    Sickness {
        name: "cut",
        mood: Mood::CutJson,
        reason: "Malformed",
        outcome: "malformed",
        said: "reading \"a\": the response",
    },
    Sickness {
        name: "broken",
        mood: Mood::BreaksOff,
        reason: "Unavailable",
        outcome: "unavailable",
        said: "the connection to http://127.0.0.1:",
    },
    Sickness {
        name: "other-form",
        mood: Mood::OtherForm,
        reason: "Malformed",
        outcome: "malformed",
        said: "reading \"a\": the response",
    },
    Sickness {
        name: "endless",
        mood: Mood::Endless,
        reason: "Malformed",
        outcome: "malformed",
        said: "the server's response (status 200) is longer than 2097152 bytes",
    },
    Sickness {
        name: "denied",
        mood: Mood::Denies,
        reason: "PermissionDenied",
        outcome: "permission_denied",
        said: "permission denied reading \"a\" with the token from Secret \"denied-token\". The policy needs: path \"secret/data/a\" { capabilities = [\"read\"] }",
    },
];

#[tokio::test]
async fn faulty_server_is_reported_and_leaks_no_value() {
    let test = shared_cluster().await.test_namespace("sick").await;
    let test = &test;
    join_all(SICKNESSES.iter().map(|sickness| async move {
        let name = sickness.name;
        let vault = FaultyVault::start(TOKEN).await.unwrap();
        vault.put("a", json!({ "x": MARKER }));
        vault
            .add_store(test, name, json!({ "timeout": "2s" }))
            .await
            .unwrap();
        let old = test.sync(name, of_store(name, "a")).await;
        vault.set(sickness.mood);
        let object = test.wait_for_reason(name, sickness.reason).await;
        let said = format!("data[0] (secretKey \"x\"): SecretStore/{name}: {}", sickness.said);
        assert!(message(&object).starts_with(&said), "{}", message(&object));
        let all = message(&object).to_owned();
        let (said, _) = all.split_once(". Secret \"").unwrap();
        test.fails(name, &old, sickness.reason, said).await;
        test.requests_counted(name, "read", sickness.outcome).await;
        vault.put("a", json!({ "x": format!("{MARKER}-healed") }));
        vault.set(Mood::Well);
        test.heals(name).await;
        let healed = format!("{MARKER}-healed");
        test.wait_for_secret(name, "the new value", |secret| {
            text(secret, "x").as_deref() == Some(healed.as_str())
        })
        .await;
    }))
    .await;
    test.tells_nobody(MARKER).await;
}

#[tokio::test]
async fn retry_after_delays_only_its_path() {
    let test = shared_cluster().await.test_namespace("throttle").await;
    let vault = FaultyVault::start(TOKEN).await.unwrap();
    vault.add_store(&test, "busy", json!({})).await.unwrap();
    for key in ["a", "b"] {
        vault.put(key, json!({ "x": MARKER }));
    }
    test.put("a", json!({ "x": "1" })).await;
    let spec = |key: &str| {
        let mut spec = of_store("busy", key);
        spec["refreshInterval"] = json!("1h");
        spec
    };
    let old = test.sync("one", spec("a")).await;
    test.sync("two", spec("b")).await;
    vault.set(Mood::Throttles(20));
    test.refresh("one", "1").await;
    let said = "data[0] (secretKey \"x\"): SecretStore/busy: the server asks to slow down (status 429)";
    test.fails("one", &old, "RateLimited", said).await;
    let held_from = vault.asked("/data/a").last().unwrap().at;
    vault.set(Mood::Well);
    vault.put("b", json!({ "x": "2" }));
    // the path waits, whoever asks
    test.declare("three", spec("a")).await;
    // another path of the store does not
    test.refresh("two", "1").await;
    test.wait_for_secret("two", "the other path", |secret| {
        text(secret, "x").as_deref() == Some("2")
    })
    .await;
    assert!(
        held_from.elapsed() < Duration::from_secs(17),
        "{:?}",
        held_from.elapsed()
    );
    // and neither does another store
    let began = Instant::now();
    test.declare("elsewhere", json!({ "data": [one("x", &test.key("a"), "x")] }))
        .await;
    test.wait_for_reason("elsewhere", "Synced").await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for name in ["one", "two", "three"] {
        test.heals(name).await;
    }
    let asked = vault.asked("/data/a");
    let after = asked.iter().find(|asked| asked.at > held_from).unwrap();
    assert!(
        after.at - held_from >= Duration::from_secs(4),
        "it was asked for {:?} later",
        after.at - held_from
    );
    test.requests_counted("busy", "read", "rate_limited").await;
    test.tells_nobody(MARKER).await;
}

#[tokio::test]
async fn hanging_store_delays_no_other_store_and_heals() {
    let test = shared_cluster().await.test_namespace("hang").await;
    let vault = FaultyVault::start(TOKEN).await.unwrap();
    vault
        .add_store(&test, "hung", json!({ "timeout": "1s" }))
        .await
        .unwrap();
    vault.put("a", json!({ "x": "1" }));
    let old = test.sync("first", of_store("hung", "a")).await;
    test.put("a", json!({ "x": "1" })).await;
    vault.set(Mood::Hangs);
    join_all((0..50).map(|n| {
        let test = &test;
        vault.put(&format!("k{n}"), json!({ "x": MARKER }));
        async move {
            let spec = of_store("hung", &format!("k{n}"));
            test.declare(&format!("hung-{n}"), spec).await;
        }
    }))
    .await;
    let waits: Vec<Duration> = join_all((0..10).map(|n| {
        let test = &test;
        async move {
            let name = format!("prompt-{n}");
            let began = Instant::now();
            test.declare(&name, json!({ "data": [one("x", &test.key("a"), "x")] }))
                .await;
            test.wait_for_reason(&name, "Synced").await;
            began.elapsed()
        }
    }))
    .await;
    let longest = waits.iter().max().unwrap();
    assert!(*longest < Duration::from_secs(5), "a neighbour took {longest:?}");
    let object = test.wait_for_reason("first", "Timeout").await;
    let all = message(&object).to_owned();
    let (said, _) = all.split_once(". Secret \"").unwrap();
    assert!(
        said.starts_with("data[0] (secretKey \"x\"): SecretStore/hung: "),
        "{said}"
    );
    test.fails("first", &old, "Timeout", said).await;
    test.requests_counted("hung", "read", "timeout").await;
    vault.set(Mood::Well);
    join_all((0..50).map(|n| {
        let test = &test;
        async move { test.heals(&format!("hung-{n}")).await }
    }))
    .await;
    test.heals("first").await;
    test.tells_nobody(MARKER).await;
}

#[tokio::test]
async fn slow_server_may_take_up_to_the_timeout_of_the_store() {
    let test = shared_cluster().await.test_namespace("slow").await;
    let vault = FaultyVault::start(TOKEN).await.unwrap();
    vault
        .add_store(&test, "slow", json!({ "timeout": "1s" }))
        .await
        .unwrap();
    vault.put("a", json!({ "x": "1" }));
    vault.set(Mood::Slow(Duration::from_millis(400)));
    let old = test.sync("s", of_store("slow", "a")).await;
    vault.set(Mood::Slow(Duration::from_millis(1500)));
    let object = test.wait_for_reason("s", "Timeout").await;
    let all = message(&object).to_owned();
    let (said, _) = all.split_once(". Secret \"").unwrap();
    test.fails("s", &old, "Timeout", said).await;
    vault.set(Mood::Slow(Duration::from_millis(400)));
    test.heals("s").await;
}

#[tokio::test]
#[should_panic(expected = "tells a secret")]
async fn leak_check_finds_text_in_messages() {
    let test = shared_cluster().await.test_namespace("told").await;
    test.declare("s", of_store("nowhere", "a")).await;
    test.wait_for_reason("s", "StoreNotFound").await;
    // a name is no secret: the search that looks for secrets must find it
    test.tells_nobody(&test.namespace).await;
}

#[tokio::test]
async fn unavailable_gcp_version_deletes_nothing() {
    let test = shared_cluster().await.test_namespace("closed").await;
    let gcp = Gcp::start().await.unwrap();
    gcp.put_secret("database", "1");
    test.add_credential("gcp", "key.json", &gcp.service_account_key().unwrap())
        .await
        .unwrap();
    test.apply_raw(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "SecretStore",
        "metadata": { "name": "gcp", "namespace": test.namespace },
        "spec": { "provider": { "gcp": {
            "projectID": PROJECT, "endpoint": gcp.address(),
            "auth": { "secretRef": { "secretAccessKeySecretRef": { "name": "gcp", "key": "key.json" } } },
        } } },
    }))
    .await
    .unwrap();
    // Both would let go of a value that is missing.
    let spec = json!({
        "secretStoreRef": { "name": "gcp" },
        "target": { "deletionPolicy": "Delete" },
        "data": [{ "secretKey": "x", "remoteRef": { "key": "database" }, "optional": true }],
    });
    let old = test.sync("s", spec).await;
    for (state, said) in [
        (
            VersionState::Disabled,
            "reading \"database\": the version is disabled. Enable the version, or",
        ),
        (
            VersionState::Destroyed,
            "reading \"database\": the version is destroyed. Add a new version, or",
        ),
    ] {
        gcp.set_state("database", 1, state);
        let said = format!(
            "data[0] (secretKey \"x\"): SecretStore/gcp: {said} set secretVersionSelectionPolicy: LatestOrFetch to read the newest version that is enabled"
        );
        // The reason is the same for both: the message tells them apart.
        eventually("the message is about this state", || async {
            let object = test.wait_for_reason("s", "KeyUnavailable").await;
            anyhow::ensure!(message(&object).starts_with(&said), "{}", message(&object));
            Ok(())
        })
        .await
        .unwrap();
        test.fails("s", &old, "KeyUnavailable", &said).await;
    }
    test.requests_counted("gcp", "read", "key_unavailable").await;
    gcp.put_secret("database", "2");
    test.heals("s").await;
    test.wait_for_secret("s", "the value of the new version", |secret| {
        text(secret, "x").as_deref() == Some("2")
    })
    .await;
}
