//! Checks of the documents: links lead to files and headings, every page of `docs/` links back to
//! the index, no text that users read uses words of the old style, code blocks are valid, and
//! examples are complete.

mod blocks;
mod command_lines;
mod examples;
mod shell;
mod spelling;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::workspace;

/// Words that mark sentences which a reader has to read twice. `CONTRIBUTING.md` says what to write instead.
const OLD_STYLE: [&str; 9] = [
    "so-manieth",
    "whoever",
    "anew",
    "seldom",
    "comes to",
    "come to",
    "is had",
    "in the place of",
    "tells",
];

/// The page that every page of `docs/` links to.
const INDEX: &str = "docs/index.md";

/// Content of a page that the checks need.
#[derive(Debug, Default)]
struct Page {
    links: Vec<String>,
    anchors: BTreeSet<String>,
}

/// Checks every Markdown file of the repository.
///
/// # Errors
/// Names each broken link and its file.
pub(crate) fn check() -> Result<()> {
    let root = workspace::root();
    let mut pages = BTreeMap::new();
    for path in files(root)? {
        let text =
            fs::read_to_string(root.join(&path)).with_context(|| format!("read {}", path.display()))?;
        pages.insert(path, parse(&text));
    }
    let broken = broken(&pages, |path| root.join(path).exists());
    ensure!(broken.is_empty(), "broken links:\n  {}", broken.join("\n  "));
    Ok(())
}

/// Returns the Markdown files that git tracks or would add.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.md"])
        .current_dir(root)
        .output()
        .context("run git ls-files")?;
    ensure!(output.status.success(), "git ls-files failed");
    let listed = String::from_utf8(output.stdout).context("git ls-files")?;
    Ok(listed
        .lines()
        .map(PathBuf::from)
        .filter(|path| root.join(path).exists())
        .collect())
}

/// The words of the old style in the prose of a page, with their lines.
fn old_style(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(_)) => in_code = true,
            Event::End(TagEnd::CodeBlock) => in_code = false,
            Event::Text(prose) if !in_code => {
                let line = 1 + text[..range.start].matches('\n').count();
                found.extend(words_of_the_old_style(&prose).map(|word| (line, word)));
            }
            _ => {}
        }
    }
    found
}

fn words_of_the_old_style(prose: &str) -> impl Iterator<Item = &'static str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '-';
    let prose = format!(" {} ", prose.to_lowercase().replace(|c| !is_word(c), " "));
    OLD_STYLE
        .into_iter()
        .filter(move |word| prose.contains(&format!(" {word} ")))
}

fn parse(text: &str) -> Page {
    let mut page = Page::default();
    let mut heading: Option<String> = None;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default());
                let count = counts.entry(anchor.clone()).or_default();
                page.anchors.insert(match *count {
                    0 => anchor,
                    number => format!("{anchor}-{number}"),
                });
                *count += 1;
            }
            _ => {}
        }
    }
    page
}

/// Returns the anchor that GitHub generates for a heading.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Returns each broken link as `file: link`.
fn broken(pages: &BTreeMap<PathBuf, Page>, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, page) in pages {
        let mut links_to_index = path == Path::new(INDEX);
        for link in page.links.iter().filter(|link| is_relative(link)) {
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if target.is_empty() {
                path.clone()
            } else {
                normal(&path.parent().unwrap_or(Path::new("")).join(target))
            };
            links_to_index |= target == Path::new(INDEX);
            let has_anchor = |page: &Page| anchor.is_empty() || page.anchors.contains(anchor);
            let leads = match pages.get(&target) {
                Some(page) => has_anchor(page),
                None => anchor.is_empty() && exists(&target),
            };
            if !leads {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
        if path.starts_with("docs") && !links_to_index {
            broken.push(format!("{}: no link to {INDEX}", path.display()));
        }
    }
    broken
}

fn is_relative(link: &str) -> bool {
    !link.contains("://") && !link.starts_with("mailto:")
}

/// Returns the path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_uses_the_old_style() {
        let root = workspace::root();
        let mut found = Vec::new();
        for path in files(root).unwrap() {
            let text = fs::read_to_string(root.join(&path)).unwrap();
            let words = old_style(&text);
            found.extend(
                words
                    .into_iter()
                    .map(|(line, word)| format!("{}:{line}: {word}", path.display())),
            );
        }
        assert!(found.is_empty(), "rewrite these sentences:\n{}", found.join("\n"));
    }

    #[test]
    fn no_field_description_uses_the_old_style() {
        for entry in fs::read_dir(workspace::root().join("crds")).unwrap() {
            let path = entry.unwrap().path();
            let words: Vec<_> = words_of_the_old_style(&fs::read_to_string(&path).unwrap()).collect();
            assert!(words.is_empty(), "{}: {words:?}", path.display());
        }
    }

    #[test]
    fn old_style_is_found_in_prose_and_not_in_code() {
        let page = "# Page\n\nIt tells.\n\n    it tells\n\nSee `tells`. A store-tells.\n";
        assert_eq!(old_style(page), [(3, "tells")]);
    }

    fn broken_of(pages: &[(&str, &str)]) -> Vec<String> {
        let pages = pages
            .iter()
            .map(|(path, text)| (PathBuf::from(path), parse(text)))
            .collect();
        broken(&pages, |path| path == Path::new("examples/a"))
    }

    #[test]
    fn repository_has_no_broken_links() {
        check().unwrap();
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let index = (
            "docs/index.md",
            "# Index\n[a](guides/a.md#two-words) [b](../examples/a) [c](https://example.org/x)",
        );
        let guide = (
            "docs/guides/a.md",
            "# A\n[index](../index.md)\n## Two `words`\n## Two words\n[self](#two-words-1)",
        );
        assert_eq!(broken_of(&[index, guide]), Vec::<String>::new());
    }

    #[test]
    fn broken_link_is_reported() {
        let page = (
            "docs/index.md",
            "[a](missing.md) [b](#nothing) [c](../examples/b)",
        );
        assert_eq!(
            broken_of(&[page]),
            [
                "docs/index.md: missing.md",
                "docs/index.md: #nothing",
                "docs/index.md: ../examples/b"
            ]
        );
    }

    #[test]
    fn page_without_index_link_is_reported() {
        let page = ("docs/guides/a.md", "# A");
        assert_eq!(broken_of(&[page]), ["docs/guides/a.md: no link to docs/index.md"]);
    }
}
