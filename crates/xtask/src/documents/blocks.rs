//! Code blocks of the pages. An indented block is shell; every other block has a language.

use std::{fs, path::Path, process::Command};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use serde_json::Value;

use super::{files, shell::Script};
use crate::workspace;

/// Languages of blocks that are not checked, and why.
const UNCHECKED: [(&str, &str); 3] = [
    (
        "hcl",
        "Terraform and policies of Vault: the workspace has no parser for them",
    ),
    ("promql", "the workspace has no parser for it"),
    ("text", "diagrams and output"),
];

/// Language of code in prose.
pub(super) const PROSE: &str = "prose";

/// A code block, or code in prose.
#[derive(Debug)]
pub(super) struct Block {
    /// Page and line.
    pub(super) place: String,
    pub(super) language: String,
    pub(super) text: String,
}

impl Block {
    /// Returns all blocks of the repository.
    pub(super) fn all() -> Vec<Self> {
        let root = workspace::root();
        let pages = files(root).unwrap().into_iter();
        pages
            .flat_map(|page| Self::of_page(&page, &fs::read_to_string(root.join(&page)).unwrap()))
            .collect()
    }

    /// Returns the blocks of a page.
    pub(super) fn of_page(page: &Path, text: &str) -> Vec<Self> {
        let mut blocks: Vec<Self> = Vec::new();
        let mut in_block = false;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = 1 + text[..range.start].matches('\n').count();
            let block = |language: &str, text: &str| Self {
                place: format!("{}:{line}", page.display()),
                language: language.to_owned(),
                text: text.to_owned(),
            };
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    in_block = true;
                    blocks.push(match kind {
                        CodeBlockKind::Indented => block("sh", ""),
                        CodeBlockKind::Fenced(language) => block(&language, ""),
                    });
                }
                Event::End(TagEnd::CodeBlock) => in_block = false,
                Event::Text(text) if in_block => {
                    if let Some(block) = blocks.last_mut() {
                        block.text.push_str(&text);
                    }
                }
                Event::Code(code) => blocks.push(block(PROSE, &code)),
                _ => {}
            }
        }
        blocks
    }

    /// Returns the commands of the block if it is shell.
    ///
    /// # Errors
    /// bash cannot parse it.
    pub(super) fn script(&self) -> Option<Result<Script, String>> {
        // a text that begins with a hyphen would be an option
        let text = format!("\n{}", self.shell()?);
        let output = Command::new("bash").args(["-n", "-c", &text]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        Some(if output.status.success() {
            Ok(Script::parse(&text))
        } else {
            Err(format!("{}: {}", self.place, error.trim()))
        })
    }

    fn shell(&self) -> Option<String> {
        match self.language.as_str() {
            "sh" => Some(self.text.clone()),
            "console" => Some(without_output(&self.text)),
            // examples of `--help`
            "text" if self.place.starts_with("docs/reference/cli.md") => {
                let commands = self.text.lines().filter_map(|line| line.strip_prefix("    "));
                Some(commands.collect::<Vec<_>>().join("\n"))
            }
            _ => None,
        }
    }
}

/// Returns the commands of a session: lines after a prompt, and the indented lines that continue
/// them.
fn without_output(session: &str) -> String {
    let mut commands = String::new();
    for line in session.lines() {
        let command = line
            .strip_prefix("$ ")
            .or_else(|| line.starts_with("  ").then_some(line));
        commands.extend(command.into_iter().flat_map(|line| [line, "\n"]));
    }
    commands
}

/// Returns the blocks whose language is unknown.
fn unknown_languages(blocks: &[Block]) -> Vec<String> {
    let known = ["console", "json", "sh", "yaml", PROSE].into_iter();
    let known: Vec<_> = known.chain(UNCHECKED.map(|(language, _)| language)).collect();
    let unknown = blocks
        .iter()
        .filter(|block| !known.contains(&block.language.as_str()));
    unknown
        .map(|block| format!("{}: unknown language \"{}\"", block.place, block.language))
        .collect()
}

/// Returns the JSON blocks that do not parse. A block can be one field of an object.
fn malformed_json(blocks: &[Block]) -> Vec<String> {
    let parses = |text: &str| serde_json::from_str::<Value>(text).is_ok();
    let json = blocks.iter().filter(|block| block.language == "json");
    json.filter(|block| !parses(&block.text) && !parses(&format!("{{{}}}", block.text)))
        .map(|block| format!("{}: not JSON", block.place))
        .collect()
}

#[test]
fn every_block_has_a_known_language() {
    let faults = unknown_languages(&Block::all());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_json_block_parses() {
    let faults = malformed_json(&Block::all());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_unchecked_language_is_used() {
    let blocks = Block::all();
    for (language, _) in UNCHECKED {
        let is_used = blocks.iter().any(|block| block.language == language);
        assert!(is_used, "no block is {language}");
    }
}

#[test]
fn unknown_language_and_malformed_json_are_reported() {
    let page = "```toml\n```\n\n```json\n{ \"a\": }\n```\n\n```json\n\"a\": 1\n```\n";
    let blocks = Block::of_page(Path::new("page.md"), page);
    assert_eq!(
        unknown_languages(&blocks),
        ["page.md:1: unknown language \"toml\""]
    );
    assert_eq!(malformed_json(&blocks), ["page.md:4: not JSON"]);
}

#[test]
fn session_is_read_without_its_output() {
    let page = "```console\n$ a \\\n    b\nx (\n$ c\n```\n";
    let blocks = Block::of_page(Path::new("page.md"), page);
    let script = blocks[0].script().unwrap().unwrap();
    assert_eq!(script.commands, [vec!["a", "b"], vec!["c"]]);
}
