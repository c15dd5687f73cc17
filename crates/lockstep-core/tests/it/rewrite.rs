//! Renaming keys.

use std::collections::BTreeMap;

use lockstep_api::{
    Rewrite, RewriteMerge, RewriteMergeConflictPolicy, RewriteMergePriorityPolicy, RewriteMergeStrategy,
    RewriteRegexp, RewriteTransform,
};
use lockstep_core::{remote::SecretValue, rewrite::rewrite, template::Budget};
use proptest::prelude::*;

use RewriteMergeConflictPolicy::{Error, Ignore};
use RewriteMergePriorityPolicy::{IgnoreNotFound, Strict};

fn regexp(source: &str, target: &str) -> Rewrite {
    let regexp = RewriteRegexp {
        source: source.to_owned(),
        target: target.to_owned(),
    };
    Rewrite {
        regexp: Some(regexp),
        ..Rewrite::default()
    }
}

fn transform(template: &str) -> Rewrite {
    let transform = RewriteTransform {
        template: template.to_owned(),
    };
    Rewrite {
        transform: Some(transform),
        ..Rewrite::default()
    }
}

fn merge(merge: RewriteMerge) -> Rewrite {
    Rewrite {
        merge: Some(merge),
        ..Rewrite::default()
    }
}

fn entries(pairs: &[(&str, &str)]) -> BTreeMap<String, SecretValue> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), SecretValue::from(*value)))
        .collect()
}

fn run(steps: &[Rewrite], pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
    let renamed = rewrite(steps, entries(pairs), Budget::begin()).map_err(|error| error.to_string())?;
    Ok(renamed
        .into_iter()
        .map(|(key, value)| (key, value.expose_str().expect("text").to_owned()))
        .collect())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn steps_rename_in_order() {
    let steps = [
        regexp("^shop/(.*)$", "$1"),
        regexp("[^a-z]", "_"),
        transform("{{ .value | upper }}"),
    ];
    assert_eq!(
        run(&steps, &[("shop/a-b", "1"), ("other", "2")]),
        Ok(pairs(&[("A_B", "1"), ("OTHER", "2")]))
    );
    assert_eq!(
        run(&[regexp("(?P<n>.)$", "${n}x")], &[("ab", "1")]),
        Ok(pairs(&[("abx", "1")]))
    );
    assert_eq!(
        run(&[regexp("a", "")], &[("banana", "1")]),
        Ok(pairs(&[("bnn", "1")]))
    );
    assert_eq!(run(&[], &[("a", "1")]), Ok(pairs(&[("a", "1")])));
}

#[test]
fn keys_that_collide_after_renaming_are_an_error() {
    assert_eq!(
        run(
            &[regexp("x", "x"), regexp("[0-9]", "")],
            &[("key1", "canary"), ("key2", "canary")]
        ),
        Err("rewrite[1]: two of 2 keys would get the same name".to_owned())
    );
    assert!(run(&[transform("same")], &[("a", "1"), ("b", "2")]).is_err());
}

#[test]
fn errors_name_the_step() {
    for (step, beginning) in [
        (
            regexp("(", ""),
            "rewrite[0]: regexp.source \"(\" is not a valid regular expression",
        ),
        (regexp("((a{1000}){1000}){1000}", ""), "rewrite[0]: regexp.source"),
        (
            transform("{{ .key }}"),
            "rewrite[0]: transform.template for the only key: line 1, column 4: \".key\" is not a key",
        ),
        (
            transform("{{ range 100 }}{{ repeat 1000 $.value }}{{ end }}"),
            "rewrite[0]: the only key would become longer",
        ),
        (
            regexp("", &"x".repeat(1024).repeat(8)),
            "rewrite[0]: the only key would become longer",
        ),
    ] {
        let error = run(&[step], &[("a", "canary")]).expect_err("an error");
        assert!(
            error.starts_with(beginning) && !error.contains("canary"),
            "{error}"
        );
    }
}

#[test]
fn merge_extracts_the_fields_of_all_values() {
    let values = [("a", r#"{"x":"1","y":1.10}"#), ("b", r#"{"z":{"w": 2}}"#)];
    assert_eq!(
        run(&[merge(RewriteMerge::default())], &values),
        Ok(pairs(&[("x", "1"), ("y", "1.10"), ("z", r#"{"w":2}"#)]))
    );
    let into = RewriteMerge {
        strategy: RewriteMergeStrategy::Json,
        into: Some("all".to_owned()),
        ..RewriteMerge::default()
    };
    assert_eq!(
        run(&[merge(into)], &values),
        Ok(pairs(&[("all", r#"{"x":"1","y":1.10,"z":{"w":2}}"#)]))
    );
}

#[test]
fn priority_and_policies_decide_conflicts() {
    let values = [
        ("a", r#"{"x":"a"}"#),
        ("b", r#"{"x":"b"}"#),
        ("c", r#"{"x":"c"}"#),
    ];
    let with = |priority: &[&str], conflict_policy, priority_policy| {
        let priority = priority.iter().map(|key| (*key).to_owned()).collect();
        run(
            &[merge(RewriteMerge {
                priority,
                conflict_policy,
                priority_policy,
                ..RewriteMerge::default()
            })],
            &values,
        )
    };
    let conflict = with(&[], Error, Strict).expect_err("a conflict");
    assert!(
        conflict.starts_with("rewrite[0]: two of the 3 values contain the same field"),
        "{conflict}"
    );
    assert_eq!(with(&[], Ignore, Strict), Ok(pairs(&[("x", "c")])));
    assert_eq!(with(&["b", "a"], Ignore, Strict), Ok(pairs(&[("x", "a")])));
    assert_eq!(with(&["a", "b", "c"], Error, Strict), Ok(pairs(&[("x", "c")])));
    assert_eq!(with(&["c", "b", "a"], Error, Strict), Ok(pairs(&[("x", "a")])));
    assert_eq!(
        with(&["nope"], Ignore, Strict),
        Err("rewrite[0]: merge.priority: no key \"nope\" exists".to_owned())
    );
    assert_eq!(with(&["nope"], Ignore, IgnoreNotFound), Ok(pairs(&[("x", "c")])));
}

#[test]
fn only_objects_are_merged_and_errors_show_no_value() {
    for value in ["canary", "[\"canary\"]", "\"canary\"", "{\"canary\":"] {
        let error = run(&[merge(RewriteMerge::default())], &[("a", value)]).expect_err("no object");
        assert_eq!(
            error,
            "rewrite[0]: the value of the only key is not a JSON object, which merge requires"
        );
    }
}

#[test]
fn errors_contain_only_keys_from_the_spec() {
    const KEYS: [(&str, &str); 3] = [
        ("canary-a", r#"{"canary-field":"canary"}"#),
        ("canary-b", r#"{"canary-field":"canary"}"#),
        ("other", "canary"),
    ];
    let objects = &KEYS[..2];
    let json = RewriteMerge {
        strategy: RewriteMergeStrategy::Json,
        ..RewriteMerge::default()
    };
    let with_priority = |key: &str| RewriteMerge {
        priority: vec![key.to_owned()],
        ..RewriteMerge::default()
    };
    let long = "x".repeat(5000);
    let long_key = format!("canary{long}");
    for (steps, values, expected) in [
        (
            vec![regexp("(", "")],
            &KEYS[..],
            "is not a valid regular expression",
        ),
        (
            vec![regexp(".*", &long)],
            &KEYS,
            "one of 3 keys would become longer than 4096 bytes",
        ),
        (
            vec![regexp("-.*", "")],
            &KEYS,
            "two of 3 keys would get the same name",
        ),
        (
            vec![regexp("$", "!"), transform("{{ .vale }}")],
            &KEYS,
            "rewrite[1]: transform.template for one of 3 keys: line 1, column 4: \".vale\"",
        ),
        (
            vec![transform("{{ fail .value }}")],
            &KEYS,
            "fail: the template calls fail",
        ),
        (vec![transform("{{ fromJson .value }}")], &KEYS, "is not JSON"),
        (vec![transform("{{ .value.x }}")], &KEYS, "\".value.x\""),
        (
            vec![transform("{{ required .value .nope }}")],
            &KEYS,
            "one of 3 keys: ",
        ),
        (vec![transform("{{")], &KEYS, "one of 3 keys: "),
        (
            vec![transform("{{ range 100 }}{{ repeat 1000 $.value }}{{ end }}")],
            &KEYS,
            "one of 3 keys would become longer",
        ),
        (
            vec![transform("same")],
            &KEYS,
            "two of 3 keys would get the same name",
        ),
        (
            vec![regexp("a", "b")],
            &[(long_key.as_str(), "canary")],
            "the only key is longer than 4096 bytes",
        ),
        (
            vec![merge(RewriteMerge::default())],
            objects,
            "two of the 2 values contain the same field",
        ),
        (
            vec![merge(RewriteMerge {
                conflict_policy: Ignore,
                ..RewriteMerge::default()
            })],
            &KEYS,
            "the value of one of 3 keys is not a JSON object",
        ),
        (
            vec![merge(with_priority("missing"))],
            &KEYS,
            "no key \"missing\" exists",
        ),
        (
            vec![merge(with_priority("other"))],
            &KEYS[2..],
            "the value of key \"other\" is not a JSON object",
        ),
        (vec![merge(json)], &objects[..1], "merge.into: is required"),
    ] {
        let error = run(&steps, values).expect_err(expected);
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!error.contains("canary"), "{error}");
    }
}

proptest! {
    #[test]
    fn rewriting_never_panics(source in "\\PC{0,12}", target in "[a-z${}0-9]{0,10}", template in "\\PC{0,30}", key in "\\PC{0,12}") {
        let _ = rewrite(&[regexp(&source, &target)], entries(&[(&key, "v"), ("b", "{}")]), Budget::begin());
        let _ = rewrite(&[transform(&template), merge(RewriteMerge::default())], entries(&[(&key, "{}")]), Budget::begin());
    }
}
