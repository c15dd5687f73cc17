//! Checks that all provider crates have the files that `CONTRIBUTING.md` lists.

use std::{collections::BTreeSet, fs, path::Path};

type Files = BTreeSet<String>;

/// Returns the source files of a crate, without folders and unit tests.
fn files(source: &Path) -> Files {
    fs::read_dir(source)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !name.ends_with("_tests.rs"))
        .collect()
}

/// Returns the files in the table of `CONTRIBUTING.md`.
fn listed() -> Files {
    let text = fs::read_to_string("../CONTRIBUTING.md").unwrap();
    let (_, section) = text.split_once("\n## Add a provider\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let file = |line: &str| Some(line.strip_prefix("| `")?.split_once(".rs`")?.0.to_owned() + ".rs");
    section.lines().filter_map(file).collect()
}

#[test]
fn provider_crates_have_the_documented_files() {
    let mut crates = Vec::new();
    for entry in fs::read_dir("../crates").unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("lockstep-provider-") && name != "lockstep-provider-testkit" {
            crates.push((name, files(&folder.join("src"))));
        }
    }
    assert!(crates.len() >= 3, "{crates:?}");
    let listed = listed();
    for (name, files) in &crates {
        let missing: Vec<_> = listed.difference(files).collect();
        assert!(missing.is_empty(), "{name} has no {missing:?}");
    }
    let shared = crates.iter().map(|(_, files)| files.clone());
    let shared = shared.reduce(|one, other| &one & &other).unwrap();
    let unlisted: Vec<_> = shared.difference(&listed).collect();
    assert!(
        unlisted.is_empty(),
        "CONTRIBUTING.md does not list {unlisted:?}, which every provider crate has"
    );
}
