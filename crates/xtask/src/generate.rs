//! `cargo xtask generate`: every file that is made from the code and committed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use lockstep_testkit::progress;

use crate::{crds, workspace};

/// Generated files by their path below the workspace's root.
pub(crate) type Files = BTreeMap<PathBuf, String>;

/// Something that makes files from the code.
pub(crate) struct Generator {
    /// What it makes, for messages.
    pub(crate) name: &'static str,
    /// Folder in which every file with `extension` is the generator's own, so that one that is no longer made is
    /// noticed; `None` when it shares the folder with files that people write.
    pub(crate) owns: Option<(&'static str, &'static str)>,
    /// Makes them.
    pub(crate) make: fn() -> Result<Files>,
}

// A new generator is one line here.
const GENERATORS: &[&Generator] = &[&crds::GENERATOR];

/// Write every file that is made from the code: CustomResourceDefinitions and references
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when a committed file differs from what the code makes
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    run_all(arguments.check)
}

/// Runs every generator.
pub(crate) fn run_all(check: bool) -> Result<()> {
    GENERATORS
        .iter()
        .try_for_each(|generator| run_one(generator, check))
}

/// Runs one generator: writes its files, or only compares them.
pub(crate) fn run_one(generator: &Generator, check: bool) -> Result<()> {
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
                "{} differ from the code: {}. Run `cargo xtask generate`.",
                generator.name,
                changed.join(", ")
            )
        }
    }
    Ok(())
}

/// The files that differ from what is on disk, or should not be there; they are written or removed unless `check`.
fn apply(generator: &Generator, files: &Files, root: &Path, check: bool) -> Result<Vec<String>> {
    let mut differing = Vec::new();
    for (path, content) in files {
        let target = root.join(path);
        if fs::read_to_string(&target).is_ok_and(|present| present == *content) {
            continue;
        }
        differing.push(path.display().to_string());
        if !check {
            if let Some(folder) = target.parent() {
                fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
            }
            fs::write(&target, content).with_context(|| format!("write {}", path.display()))?;
        }
    }
    for path in left_over(generator, files, root)? {
        differing.push(path.display().to_string());
        if !check {
            fs::remove_file(root.join(&path)).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(differing)
}

/// Files in a generator's own folder that it no longer makes.
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
    fn a_check_names_what_differs_and_writes_nothing() {
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
        assert_eq!(differing, ["samples/new.yaml", "samples/old.yaml"]);
        assert!(!samples.join("new.yaml").exists());
        assert!(samples.join("old.yaml").exists());

        apply(&GENERATOR, &files, root.path(), false).unwrap();
        assert_eq!(fs::read_to_string(samples.join("new.yaml")).unwrap(), "c");
        assert!(!samples.join("old.yaml").exists());
        assert!(samples.join("README.md").exists());
        assert!(apply(&GENERATOR, &files, root.path(), true).unwrap().is_empty());
    }
}
