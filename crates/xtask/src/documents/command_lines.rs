//! Command lines of `lockstep` and `cargo xtask` on the pages: the programs themselves parse them.

use std::{collections::BTreeMap, process::Command};

use clap::{Parser as _, error::ErrorKind};
use lockstep_testkit::binaries;

use super::{
    blocks::{Block, PROSE},
    shell::Script,
};
use crate::{Arguments, workspace};

/// Faults that are right on a page: the page, part of the fault, and why.
const EXPECTED: [(&str, &str, &str); 1] = [(
    "docs/internals/design.md",
    "lockstep policy",
    "the page lists what does not exist yet",
)];

/// Returns what is wrong with shell in blocks and with command lines in them. Command lines in
/// prose can leave out required arguments and use placeholders such as `NAME`.
fn faults(blocks: &[Block]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut lines: BTreeMap<(Vec<String>, bool), &str> = BTreeMap::new();
    for block in blocks {
        let is_prose = block.language == PROSE;
        let script = if is_prose {
            Ok(Script::parse(&block.text))
        } else if let Some(script) = block.script() {
            script
        } else {
            continue;
        };
        let commands = match script {
            Ok(script) => script.commands,
            Err(error) => {
                faults.push(error);
                continue;
            }
        };
        for mut words in commands {
            let placeholders = words.iter_mut().filter(|word| is_prose && is_placeholder(word));
            placeholders.for_each(|word| word.make_ascii_lowercase());
            lines.entry((words, is_prose)).or_insert(&block.place);
        }
    }
    for ((words, is_prose), place) in lines {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let missing = words.iter().filter(|word| is_missing_example(word));
        faults.extend(missing.map(|word| format!("{place}: {word} does not exist")));
        if let Some(error) = error(&words, is_prose) {
            faults.push(format!("{place}: {}: {error}", words.join(" ")));
        }
    }
    faults
}

fn is_placeholder(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_uppercase())
}

/// Returns whether a word names a file of an example that does not exist.
fn is_missing_example(word: &str) -> bool {
    let path = word.trim_start_matches('@');
    let is_pattern = path.contains(['*', '{', '<', ' ']);
    path.starts_with("examples/") && !is_pattern && !workspace::root().join(path).exists()
}

/// Returns the error of the program for a command line, if it is one of ours.
fn error(words: &[&str], is_prose: bool) -> Option<String> {
    match words {
        ["lockstep", arguments @ ..]
        | [
            "cargo",
            "run",
            "-p" | "--package",
            "lockstep",
            "--",
            arguments @ ..,
        ] => lockstep_error(arguments),
        ["cargo", "xtask", arguments @ ..] => xtask_error(arguments, is_prose),
        _ => None,
    }
}

/// With `--help` at the end, lockstep parses the arguments before it and does nothing else.
fn lockstep_error(arguments: &[&str]) -> Option<String> {
    let output = Command::new(binaries::lockstep().unwrap())
        .args(arguments)
        .arg("--help")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| error.lines().next().unwrap_or_default().to_owned())
}

fn xtask_error(arguments: &[&str], is_prose: bool) -> Option<String> {
    let error = Arguments::try_parse_from([&["xtask"], arguments].concat()).err()?;
    let is_incomplete = matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    let is_fine = matches!(error.kind(), ErrorKind::DisplayHelp) || is_prose && is_incomplete;
    let error = error.to_string();
    (!is_fine).then(|| error.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn every_shell_block_and_command_line_parses() {
    let mut faults = faults(&Block::all());
    for (page, part, _) in EXPECTED {
        let before = faults.len();
        faults.retain(|fault| !(fault.starts_with(page) && fault.contains(part)));
        assert!(faults.len() < before, "{page}: no fault \"{part}\"");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn wrong_command_lines_are_reported_with_their_place() {
    let page = "`lockstep status NAME --wach`, `lockstep history` and `cargo xtask tset`

    lockstep render -f examples/missing --values values | lockstep rendr

text

    if true; then

text

    cargo xtask bench first-sync --objekts 1
";
    let found = faults(&Block::of_page(std::path::Path::new("page.md"), page));
    for expected in [
        "page.md:1: lockstep status name --wach: ",
        "page.md:1: cargo xtask tset: ",
        "page.md:3: examples/missing does not exist",
        "page.md:3: lockstep rendr: ",
        "page.md:7: bash: ",
        "page.md:11: cargo xtask bench first-sync --objekts 1: ",
    ] {
        let is_found = found.iter().any(|fault| fault.starts_with(expected));
        assert!(is_found, "{expected} is not in {found:#?}");
    }
    assert_eq!(found.len(), 6, "{found:#?}");
}
