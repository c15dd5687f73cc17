//! Templates yield what Go's text/template with Sprig yields. The expectations in `data/go_templates.jsonl` were written
//! by Go; a row with `ours` is a known difference, and says why.

use std::collections::BTreeMap;

use lockstep_core::{remote::SecretValue, template};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    template: String,
    /// What Go writes; null where Go fails.
    output: Option<String>,
    /// What we write where we differ, which `why` says; null where we fail.
    ours: Option<String>,
    why: Option<String>,
}

fn values() -> BTreeMap<String, SecretValue> {
    [
        ("name", "shop"),
        ("user", "admin"),
        ("password", "p@ss w/rd+\"x\""),
        ("empty", ""),
        ("tls.crt", "CERT"),
        ("json", r#"{"host":"db","port":5432,"tags":["a","b"]}"#),
        ("tls", "T"),
    ]
    .map(|(key, value)| (key.to_owned(), SecretValue::from(value)))
    .into()
}

#[test]
fn templates_render_like_go_and_sprig() {
    let rows: Vec<Row> = include_str!("../data/go_templates.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect();
    assert!(rows.len() > 250, "{} rows", rows.len());
    let mut differences = vec![];
    for row in rows {
        assert!(
            row.ours.is_none() || row.why.is_some(),
            "{}: a difference has a reason",
            row.template
        );
        let expected = if row.why.is_some() { row.ours } else { row.output };
        let rendered = template::render(&row.template, &values());
        let found = rendered
            .as_ref()
            .ok()
            .map(|value| value.expose_str().expect("text").to_owned());
        if found != expected {
            let message = rendered.err().map(|error| error.to_string());
            differences.push(format!(
                "{}\n  expected {expected:?}\n  found    {found:?} {message:?}",
                row.template
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn every_example_renders_as_documented() {
    let values: BTreeMap<_, _> = [("name", "shop"), ("json", r#"{"port":5432}"#)]
        .map(|(key, value)| (key.to_owned(), SecretValue::from(value)))
        .into();
    let mut wrong = vec![];
    for function in template::FUNCTIONS {
        match template::render(function.example, &values) {
            Ok(output) if function.result.is_empty() || output.expose() == function.result.as_bytes() => {}
            Ok(output) => wrong.push(format!("{}: {:?}", function.name, output.expose_str())),
            Err(error) => wrong.push(format!("{}: {error}", function.name)),
        }
        assert!(
            function.example.contains(function.name),
            "{}: the example calls the function",
            function.name
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
