//! Checks of `examples/` without a cluster: each folder is complete, listed and described in the
//! same form.

use std::fs;

use lockstep_testkit::example;
use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};

use crate::workspace;

/// Headings of the README of each example, in this order.
const PARTS: [&str; 4] = ["What", "When to use it", "Apply", "What you should see"];

/// What the first line of each `expected.yaml` begins with. The path of the schema follows.
const SCHEMA: &str = "# yaml-language-server: $schema=";

/// Returns what is wrong with the README of an example.
fn faults(readme: &str) -> Vec<String> {
    let parts = parts(readme);
    let headings: Vec<_> = parts.iter().map(|(heading, _)| heading.as_str()).collect();
    if headings != PARTS {
        return vec![format!("has the headings {headings:?} instead of {PARTS:?}")];
    }
    let empty = parts.iter().filter(|(_, events)| *events == 0);
    empty.map(|(heading, _)| format!("{heading} is empty")).collect()
}

/// Returns the headings of level 2, each with the number of events below it.
fn parts(readme: &str) -> Vec<(String, usize)> {
    let mut parts: Vec<(String, usize)> = Vec::new();
    let mut in_heading = false;
    for event in Parser::new(readme) {
        match (event, parts.last_mut()) {
            (
                Event::Start(Tag::Heading {
                    level: HeadingLevel::H2,
                    ..
                }),
                _,
            ) => {
                parts.push((String::new(), 0));
                in_heading = true;
            }
            (Event::End(TagEnd::Heading(_)), _) => in_heading = false,
            (Event::Text(text), Some((heading, _))) if in_heading => heading.push_str(&text),
            (_, Some((_, events))) => *events += 1,
            (_, None) => {}
        }
    }
    parts
}

#[test]
fn every_example_is_complete_and_listed() {
    let index = fs::read_to_string(workspace::root().join("examples/README.md")).unwrap();
    let mut found = Vec::new();
    for folder in example::folders().unwrap() {
        let name = example::name(&folder);
        let has = |part: &str| folder.join(part).exists();
        for part in ["README.md", "manifests.yaml", "expected.yaml"] {
            if !has(part) {
                found.push(format!("{name}: no {part}"));
            }
        }
        let text = fs::read_to_string(folder.join("expected.yaml")).unwrap_or_default();
        let schema = text.lines().next().and_then(|line| line.strip_prefix(SCHEMA));
        if !schema.is_some_and(has) {
            found.push(format!("{name}: expected.yaml does not begin with {SCHEMA}PATH"));
        }
        if !has("values") && !has("unsealed.yaml") {
            found.push(format!("{name}: neither values nor unsealed.yaml"));
        }
        if !index.contains(&format!("]({name})")) {
            found.push(format!("{name}: not listed in examples/README.md"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_example_has_the_four_parts_in_its_readme() {
    let mut found = Vec::new();
    for folder in example::folders().unwrap() {
        let name = example::name(&folder);
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        found.extend(faults(&readme).iter().map(|fault| format!("{name}: {fault}")));
        if !readme.contains(&format!("examples/{name}")) {
            found.push(format!("{name}: no command names the folder"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn readme_with_a_missing_or_empty_part_is_reported() {
    let complete = "# A\n## What\nx\n## When to use it\nx\n## Apply\nx\n## What you should see\nx\n";
    assert_eq!(faults(complete), Vec::<String>::new());
    assert_eq!(faults(&complete.replace("## Apply\nx\n", "")).len(), 1);
    assert_eq!(
        faults(&complete.replace("## Apply\nx", "## Apply")),
        ["Apply is empty"]
    );
}
