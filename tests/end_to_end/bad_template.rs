//! Bad input: templates and regular expressions that do not work, or want too much.

use std::time::{Duration, Instant};

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::{
    bad_input::one,
    shared_cluster::{TestNamespace, message, shared_cluster, text},
};

/// How long a first sync may take while somebody else's template or pattern wants too much.
const PROMPT: Duration = Duration::from_secs(15);

fn with_template(test: &TestNamespace, template: &str) -> Value {
    json!({
        "data": [one("x", &test.key("a"), "x")],
        "target": { "template": { "data": { "t": template } } },
    })
}

/// A SyncedSecret that is declared now is synced promptly.
async fn neighbour_is_prompt(test: &TestNamespace, name: &str) {
    let began = Instant::now();
    test.declare(name, json!({ "data": [one("x", &test.key("a"), "x")] }))
        .await;
    test.wait_for_reason(name, "Synced").await;
    assert!(began.elapsed() < PROMPT, "{name} took {:?}", began.elapsed());
}

#[tokio::test]
async fn template_error_has_a_location_and_an_explanation() {
    let test = shared_cluster().await.test_namespace("templates").await;
    test.put("a", json!({ "x": "canary-of-templates" })).await;
    let old = test.sync("s", with_template(&test, "{{ .x }}")).await;
    let cases = [
        ("{{ .x ", "line 1, column 1: \"{{\" is not closed by \"}}\""),
        (
            "{{ if .x }}",
            "line 1, column 1: {{ if }} is not closed by {{ end }}",
        ),
        (
            "a\n{{ .y }}",
            "line 2, column 4: \".y\" is not a key of this Secret. Available keys: x",
        ),
        (
            "{{ getHostByName .x }}",
            "line 1, column 4: \"getHostByName\" is not a function of lockstep's templates. Templates can read only the keys of the Secret",
        ),
        (
            "{{ atoi .x | printf \"%d\" }}{{ index .x 99 }}",
            "line 1, column 31: index: the index lies outside of the text",
        ),
        (
            "{{ fromJson .x }}",
            "line 1, column 4: fromJson: the text is not JSON",
        ),
        ("{{ fail .x }}", "line 1, column 4: fail: the template calls fail"),
    ];
    for (template, said) in cases {
        test.change(
            "s",
            json!({ "target": { "template": { "data": { "t": template } } } }),
        )
        .await;
        let said = format!("target.template.data[\"t\"] {said}");
        test.fails("s", &old, "TemplateFailed", &said).await;
    }
    test.change(
        "s",
        json!({ "target": { "template": { "data": { "t": "{{ upper .x }}" } } } }),
    )
    .await;
    test.wait_for_secret("s", "the good template", |secret| {
        text(secret, "t").as_deref() == Some("CANARY-OF-TEMPLATES")
    })
    .await;
    test.heals("s").await;
    test.tells_nobody("canary-of-templates").await;
    test.tells_nobody("CANARY-OF-TEMPLATES").await;
}

#[tokio::test]
async fn template_heals_when_its_key_returns_at_the_source() {
    let test = shared_cluster().await.test_namespace("keyback").await;
    test.put("a", json!({ "x": "1" })).await;
    let spec = json!({
        "dataFrom": [{ "extract": { "key": test.key("a") } }],
        "target": { "template": { "data": { "t": "{{ .x }}" } } },
    });
    let old = test.sync("s", spec).await;
    test.put("a", json!({ "z": "1" })).await;
    let said = "target.template.data[\"t\"] line 1, column 4: \".x\" is not a key of this Secret. 1 key of dataFrom is available";
    test.fails("s", &old, "TemplateFailed", said).await;
    test.put("a", json!({ "x": "2" })).await;
    test.heals("s").await;
}

#[tokio::test]
async fn expensive_template_is_stopped_and_blocks_nobody() {
    let test = shared_cluster().await.test_namespace("greedy").await;
    test.put("a", json!({ "x": "1" })).await;
    let old = test.sync("s", with_template(&test, "{{ .x }}")).await;
    let cases = [
        (
            "{{ define \"r\" }}{{ template \"r\" . }}{{ end }}{{ template \"r\" . }}",
            "line 1, column 17: a template calls itself, or templates are nested more than 32 deep",
        ),
        (
            "{{ range 10000 }}{{ range 10000 }}{{ range 10000 }}{{ end }}{{ end }}{{ end }}",
            "line 1, column 44: the loops have more than 100000 iterations in total",
        ),
        (
            "{{ range 100 }}{{ repeat 1000000 \"x\" }}{{ end }}",
            "line 1, column 10: the output would be larger than 1 MiB",
        ),
        (
            "{{ range 10000 }}{{ bcrypt \"p\" }}{{ end }}",
            "line 1, column 21: the template did not finish within 1 s",
        ),
        (
            "{{ regexMatch \"((a{1000}){1000}){1000}\" .x }}",
            "line 1, column 4: regexMatch: the regular expression is not valid, or too large",
        ),
    ];
    for (number, (template, said)) in cases.into_iter().enumerate() {
        test.change(
            "s",
            json!({ "target": { "template": { "data": { "t": template } } } }),
        )
        .await;
        neighbour_is_prompt(&test, &format!("neighbour-{number}")).await;
        let said = format!("target.template.data[\"t\"] {said}");
        test.fails("s", &old, "TemplateFailed", &said).await;
    }
    test.change("s", with_template(&test, "{{ .x }}")).await;
    test.heals("s").await;
}

#[tokio::test]
async fn many_slow_templates_are_stopped_and_block_nobody() {
    let test = shared_cluster().await.test_namespace("many").await;
    test.put("a", json!({ "x": "1" })).await;
    // each stays within its own limits; together they would take minutes
    let slow = "{{ range 9 }}{{ range 10000 }}{{ end }}{{ end }}";
    let templates: Value = (0..2000).map(|n| (format!("t{n}"), json!(slow))).collect();
    let spec = json!({
        "data": [one("x", &test.key("a"), "x")],
        "target": { "template": { "data": templates } },
    });
    for copy in 0..3 {
        test.declare(&format!("slow-{copy}"), spec.clone()).await;
    }
    neighbour_is_prompt(&test, "neighbour").await;
    let began = Instant::now();
    let (status, _) = test.cluster.operator.get("livez").await.unwrap();
    assert_eq!(status, 200);
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    for copy in 0..3 {
        let object = test
            .wait_for_reason(&format!("slow-{copy}"), "TemplateFailed")
            .await;
        let said = "the templates of this Secret took longer than 2 s in total";
        assert!(message(&object).contains(said), "{}", message(&object));
        test.synced_secrets()
            .delete(&format!("slow-{copy}"), &DeleteParams::default())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn exploding_pattern_is_rejected_and_none_backtracks() {
    let test = shared_cluster().await.test_namespace("patterns").await;
    test.put("a", json!({ "x": "1" })).await;
    let long = "a".repeat(200);
    test.put(&format!("many/{long}b"), json!({ "v": "1" })).await;
    let find = |regexp: &str| json!({ "path": test.key("many"), "name": { "regexp": regexp } });
    let explosive = "((a{1000}){1000}){1000}";
    let spec = json!({ "data": [one("x", &test.key("a"), "x")] });
    let old = test.sync("s", spec).await;

    test.change("s", json!({ "dataFrom": [{ "find": find(explosive) }] }))
        .await;
    neighbour_is_prompt(&test, "neighbour-1").await;
    let said = format!(
        "dataFrom[0].find: SecretStore/vault: find.name.regexp \"{explosive}\" is not a regular expression that can be used. Use RE2 syntax (no look-around, no back-references). The compiled expression must be at most 1 MiB"
    );
    test.fails("s", &old, "ConfigInvalid", &said).await;

    let rewrite = |source: &str, target: &str| {
        json!({ "dataFrom": [{
            "extract": { "key": test.key("a") },
            "rewrite": [{ "regexp": { "source": source, "target": target } }],
        }] })
    };
    test.change("s", rewrite(explosive, "y")).await;
    neighbour_is_prompt(&test, "neighbour-2").await;
    let said = format!(
        "dataFrom[0].rewrite[0]: regexp.source \"{explosive}\" is not a valid regular expression, or is too large"
    );
    test.fails("s", &old, "RewriteFailed", &said).await;

    // (a+)+$ takes for ever where a pattern is tried by going back; here it just does not match
    let harmless = json!({ "dataFrom": [{ "find": find("(a+)+$") }] });
    test.change("s", harmless).await;
    test.heals("s").await;
    let secret = test.secrets().get("s").await.unwrap();
    assert_eq!(secret.data.unwrap().into_keys().collect::<Vec<_>>(), ["x"]);
    test.change("s", rewrite("^(x+x+)+$", "y$1")).await;
    test.wait_for_secret("s", "the next spec", |secret| text(secret, "x").is_some())
        .await;
}
