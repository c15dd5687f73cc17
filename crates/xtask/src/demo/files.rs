//! A folder of files, with the example of the file store.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{show::Show, story::Story};
use crate::workspace;

const CHANGED: &str = "shop/database.json";

pub(crate) const STORY: Story = Story {
    example: "examples/sources/file-store",
    namespace: "example-file-store",
    synced_secret: "files",
    secret: "files",
    key: "password",
    first: "test-password",
    second: "rotated-by-the-demo",
};

/// Returns the folder below which the operator reads files.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    pub(crate) fn below(folder: &Path) -> Result<Self> {
        let root = folder.join("files");
        fs::create_dir(&root).with_context(|| format!("create {}", root.display()))?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn store(&self) -> PathBuf {
        self.root.join("file-store")
    }

    pub(super) fn prepare(&self, show: &Show) -> Result<()> {
        let values = format!("{}/values", STORY.example);
        show.does(&format!("cp -r {values} {}", self.store().display()));
        copy(&workspace::root().join(values), &self.store())
    }

    pub(super) fn change(&self, show: &Show) -> Result<()> {
        let path = self.store().join(CHANGED);
        let content = json!({ "password": STORY.second }).to_string();
        show.does(&format!("echo '{content}' > {}", path.display()));
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    pub(super) fn commands(&self) -> Vec<String> {
        let path = self.store().join(CHANGED);
        vec![format!("echo '{{\"password\":\"mine\"}}' > {}", path.display())]
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_matches_the_demo() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::below(folder.path()).unwrap();
        copy(
            &workspace::root().join(STORY.example).join("values"),
            &files.store(),
        )
        .unwrap();
        let text = fs::read_to_string(files.store().join(CHANGED)).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            json!({ "password": STORY.first })
        );
    }
}
