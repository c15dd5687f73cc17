//! The words of documents and of texts that users read are not in the list of common misspellings.

use std::{fs, path::Path};

use unicase::UniCase;

use super::files;
use crate::workspace;

/// Words that the list holds for misspellings, and that are right here.
const EXCEPTIONS: &[&str] = &[
    // names of roles, types and modules
    "Encrypter",
    "PackageId",
    "ser",
    // an escape and a letter or word after it: \nd, \nnumber
    "nd",
    "nnumber",
    // tests misspell these on purpose
    "ba",
    "databse",
    "pasword",
];

/// Returns the misspelt words of a text with their lines and corrections.
fn misspelt(text: &str) -> Vec<(usize, &str, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in line.split(|char: char| !char.is_alphabetic()) {
            let is_exception = EXCEPTIONS.iter().any(|other| other.eq_ignore_ascii_case(word));
            if let Some(corrections) = typos_dict::WORD.find(&UniCase::new(word))
                && !is_exception
            {
                found.push((number + 1, word, corrections.join(" or ")));
            }
        }
    }
    found
}

#[test]
fn no_word_is_misspelt() {
    let root = workspace::root();
    let sources = ["crates", "deploy", "examples", "tests"].map(|folder| root.join(folder));
    let mut paths: Vec<_> = files(root).unwrap();
    for folder in &sources {
        walk(folder, &mut |path| {
            if path
                .extension()
                .is_some_and(|extension| extension == "rs" || extension == "yaml")
            {
                paths.push(path.strip_prefix(root).unwrap().to_owned());
            }
        });
    }
    let mut found = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(root.join(path)).unwrap();
        let words = misspelt(&text).into_iter();
        found.extend(words.map(|(line, word, right)| format!("{}:{line}: {word}: {right}", path.display())));
    }
    assert!(paths.len() > 300, "only {} files", paths.len());
    assert!(found.is_empty(), "correct these words:\n{}", found.join("\n"));
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, visit);
        } else {
            visit(&path);
        }
    }
}

#[test]
fn misspelt_word_is_found_with_its_correction() {
    let word = ["rec", "ieve"].concat();
    let text = format!("a\nIt {word}s it, {word}.");
    let found = misspelt(&text);
    assert_eq!(found.last(), Some(&(2, &*word, "receive".to_owned())));
}
