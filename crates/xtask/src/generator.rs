//! Generators of committed files, which write them or compare them with those on disk.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use lockstep_testkit::progress;

use crate::workspace;

/// Generated files by their path relative to the workspace.
pub(crate) type Files = BTreeMap<PathBuf, String>;

/// A generator of files.
pub(crate) struct Generator {
    /// Name of the files, for messages.
    pub(crate) name: &'static str,
    /// Folder and extension of files that only this generator writes, so that obsolete files are
    /// found. `None` if it shares the folder with other files.
    pub(crate) owns: Option<(&'static str, &'static str)>,
    /// Returns the files.
    pub(crate) make: fn() -> Result<Files>,
}

/// Runs one generator, which writes its files or only compares them.
pub(crate) fn run(generator: &Generator, check: bool) -> Result<()> {
    let differing = apply(generator, &(generator.make)()?, workspace::root(), check)?;
    match (check, differing.as_slice()) {
        (_, []) => progress::line(format_args!("  ✓ {} are up to date", generator.name)),
        (false, changed) => progress::line(format_args!(
            "  ✓ {}: wrote {}",
            generator.name,
            changed.join(", ")
        )),
        (true, changed) => {
            bail!(
                "{} differ from the code. Run `cargo xtask generate`.\n  {}",
                generator.name,
                changed.join("\n  ")
            )
        }
    }
    Ok(())
}

/// Returns the files that differ from those on disk or are obsolete. Writes or removes them unless
/// `check` is set.
fn apply(generator: &Generator, files: &Files, root: &Path, check: bool) -> Result<Vec<String>> {
    let mut differing = Vec::new();
    for (path, content) in files {
        let target = root.join(path);
        let present = fs::read_to_string(&target).ok();
        if present.as_ref() == Some(content) {
            continue;
        }
        if check {
            let hint = present.map_or_else(
                || "is missing".to_owned(),
                |present| first_difference(&present, content),
            );
            differing.push(format!("{} {hint}", path.display()));
        } else {
            differing.push(path.display().to_string());
            if let Some(folder) = target.parent() {
                fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
            }
            fs::write(&target, content).with_context(|| format!("write {}", path.display()))?;
        }
    }
    for path in left_over(generator, files, root)? {
        if check {
            differing.push(format!("{} is no longer generated", path.display()));
        } else {
            differing.push(path.display().to_string());
            fs::remove_file(root.join(&path)).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(differing)
}

/// Describes the first line in which two texts differ.
fn first_difference(present: &str, made: &str) -> String {
    let mut number = 1;
    let (mut present, mut made) = (present.lines(), made.lines());
    loop {
        match (present.next(), made.next()) {
            (Some(old), Some(new)) if old == new => number += 1,
            (None, None) => return "differs in its line ends".to_owned(),
            (old, new) => {
                return format!(
                    "line {number}:\n    - {}\n    + {}",
                    old.unwrap_or("(end)"),
                    new.unwrap_or("(end)")
                );
            }
        }
    }
}

/// Returns obsolete files in the generator's own folder.
fn left_over(generator: &Generator, files: &Files, root: &Path) -> Result<Vec<PathBuf>> {
    let Some((folder, extension)) = generator.owns else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    if root.join(folder).is_dir() {
        for entry in fs::read_dir(root.join(folder)).with_context(|| format!("read {folder}"))? {
            let path = Path::new(folder).join(entry?.file_name());
            if path.extension().is_some_and(|found| found == extension) && !files.contains_key(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATOR: Generator = Generator {
        name: "samples",
        owns: Some(("samples", "yaml")),
        make: || Ok(Files::new()),
    };

    #[test]
    fn check_reports_differences_and_writes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let samples = root.path().join("samples");
        fs::create_dir(&samples).unwrap();
        fs::write(samples.join("same.yaml"), "a").unwrap();
        fs::write(samples.join("old.yaml"), "b").unwrap();
        fs::write(samples.join("README.md"), "written by people").unwrap();
        let files = Files::from([
            (PathBuf::from("samples/same.yaml"), "a".to_owned()),
            (PathBuf::from("samples/new.yaml"), "c".to_owned()),
        ]);

        let differing = apply(&GENERATOR, &files, root.path(), true).unwrap();
        assert_eq!(
            differing,
            [
                "samples/new.yaml is missing",
                "samples/old.yaml is no longer generated"
            ]
        );
        assert!(!samples.join("new.yaml").exists());
        assert!(samples.join("old.yaml").exists());

        apply(&GENERATOR, &files, root.path(), false).unwrap();
        assert_eq!(fs::read_to_string(samples.join("new.yaml")).unwrap(), "c");
        assert!(!samples.join("old.yaml").exists());
        assert!(samples.join("README.md").exists());
        assert!(apply(&GENERATOR, &files, root.path(), true).unwrap().is_empty());
    }

    #[test]
    fn difference_shows_its_first_line() {
        assert_eq!(
            first_difference("a\nb\nc", "a\nx\nc"),
            "line 2:\n    - b\n    + x"
        );
        assert_eq!(first_difference("a", "a\nb"), "line 2:\n    - (end)\n    + b");
        assert_eq!(first_difference("a\n", "a"), "differs in its line ends");
    }
}
