//! Checks of `examples/` without a cluster: each folder is complete and listed.

use std::fs;

use lockstep_testkit::example;

use crate::workspace;

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
        if !has("values") && !has("unsealed.yaml") {
            found.push(format!("{name}: neither values nor unsealed.yaml"));
        }
        if !index.contains(&format!("]({name})")) {
            found.push(format!("{name}: not listed in examples/README.md"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
