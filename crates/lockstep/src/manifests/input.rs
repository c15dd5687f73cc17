//! The texts to read: files, folders and standard input, all of them bounded.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use lockstep_core::text::shell_quote;
use serde::Deserialize;

/// How large all texts together may be, in bytes. The API server takes 1.5 MiB an object.
const MAX_BYTES: u64 = 32 << 20;
/// How many files are read.
const MAX_FILES: usize = 10_000;
/// How deep kustomizations may list each other.
const MAX_DEPTH: usize = 32;
/// The names of a kustomization, as kustomize looks for them.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// The fields of a kustomization that change nothing about its resources.
const HARMLESS_FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "resources"];

/// One text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The file as it was named, or `standard input`.
    pub(crate) name: String,
    /// The file; `None` for standard input.
    pub(crate) path: Option<PathBuf>,
    /// Whether the file itself was named, so that everything in it has to be an object.
    pub(crate) named: bool,
    /// What it holds, without a byte order mark.
    pub(crate) text: String,
}

/// A manifest that is to be sealed holds secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("named", &self.named)
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// The texts, in the order in which they were named; of a folder, by name.
    pub(crate) sources: Vec<Source>,
    /// What the user should know although nothing is wrong.
    pub(crate) notes: Vec<String>,
}

/// What of a folder is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folders {
    /// What its kustomization lists, or else its own files: what would be applied.
    Applied,
    /// Every file below it, except for what is hidden: what stands in Git.
    Everything,
}

/// What is read, and how much of it is left.
struct Reader {
    /// The command that reads, for messages.
    command: &'static str,
    input: Input,
    folders: Folders,
    seen: BTreeSet<PathBuf>,
    left: u64,
}

#[derive(Deserialize)]
struct Kustomization {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(flatten)]
    rest: std::collections::BTreeMap<String, serde_json::Value>,
}

/// Reads what the paths name; `-` is standard input.
///
/// # Errors
/// A sentence that says what cannot be read.
pub(crate) fn read(paths: &[PathBuf], folders: Folders, command: &'static str) -> Result<Input, String> {
    let mut reader = Reader {
        command,
        input: Input::default(),
        folders,
        seen: BTreeSet::new(),
        left: MAX_BYTES,
    };
    for path in paths {
        if path.as_os_str() == "-" {
            if !reader.seen.insert(path.clone()) {
                return Err("standard input can be read only once".to_owned());
            }
            let text = reader.text(io::stdin().lock(), "standard input")?;
            reader.push("standard input".to_owned(), None, true, text)?;
        } else if !metadata(path)?.is_dir() {
            reader.file(path, true)?;
        } else if reader.folders == Folders::Everything {
            reader.everything(path, 0)?;
        } else {
            reader.folder(path, 0)?;
        }
    }
    Ok(reader.input)
}

impl Reader {
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!(
                "{}: kustomizations list each other more than {MAX_DEPTH} levels deep",
                folder.display()
            ));
        }
        let kustomization = KUSTOMIZATIONS
            .iter()
            .map(|name| folder.join(name))
            .find(|path| path.is_file());
        if let Some(path) = kustomization {
            return self.kustomization(folder, &path, depth);
        }
        if depth > 0 {
            return Err(format!(
                "{} is listed as a resource, and has no kustomization.yaml",
                folder.display()
            ));
        }
        list(folder)?
            .iter()
            .filter(|path| is_manifest(path))
            .try_for_each(|path| self.file(path, false))
    }

    fn everything(&mut self, folder: &Path, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!(
                "{}: more than {MAX_DEPTH} folders deep",
                folder.display()
            ));
        }
        for path in list(folder)? {
            let hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden {
                continue;
            }
            // a link to a folder may go round in a circle
            if path.is_dir() && !path.is_symlink() {
                self.everything(&path, depth + 1)?;
            } else if is_manifest(&path) {
                self.file(&path, false)?;
            }
        }
        Ok(())
    }

    fn kustomization(&mut self, folder: &Path, path: &Path, depth: usize) -> Result<(), String> {
        if !self.first_time(path)? {
            return Ok(());
        }
        let name = path.display().to_string();
        let file = fs::File::open(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
        let text = self.text(file, &name)?;
        let kustomization: Kustomization =
            serde_yaml_ng::from_str(&text).map_err(|error| format!("{name} is no kustomization: {error}"))?;
        let ignored: Vec<_> = kustomization
            .rest
            .keys()
            .map(String::as_str)
            .filter(|field| !HARMLESS_FIELDS.contains(field))
            .collect();
        if !ignored.is_empty() {
            self.input.notes.push(format!(
                "{name}: only its resources are read, not {}. What it makes: kubectl kustomize {} | lockstep {} -f -",
                ignored.join(", "),
                shell_quote(&folder.display().to_string()),
                self.command
            ));
        }
        for resource in &kustomization.resources {
            if resource.contains("://") || resource.contains("?ref=") || resource.starts_with("git@") {
                return Err(format!(
                    "{name}: {resource} is not on this machine. Use: kubectl kustomize {} | lockstep {} -f -",
                    shell_quote(&folder.display().to_string()),
                    self.command
                ));
            }
            let path = folder.join(resource);
            if metadata(&path)
                .map_err(|error| format!("{name}: {error}"))?
                .is_dir()
            {
                self.folder(&path, depth + 1)?;
            } else {
                self.file(&path, true)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, named: bool) -> Result<(), String> {
        if !self.first_time(path)? {
            return Ok(());
        }
        let name = path.display().to_string();
        let file = fs::File::open(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
        let text = self.text(file, &name)?;
        self.push(name, Some(path.to_owned()), named, text)
    }

    /// Whether a file was not read yet: one that two folders list is one file.
    fn first_time(&mut self, path: &Path) -> Result<bool, String> {
        let real =
            fs::canonicalize(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        Ok(self.seen.insert(real))
    }

    fn text(&mut self, from: impl io::Read, name: &str) -> Result<String, String> {
        let mut bytes = Vec::new();
        let read = from.take(self.left + 1).read_to_end(&mut bytes);
        let read = read.map_err(|error| format!("{name} cannot be read: {error}"))?;
        self.left = u64::try_from(read)
            .ok()
            .and_then(|read| self.left.checked_sub(read))
            .ok_or_else(|| {
                format!(
                    "{name}: all files together have more than {} MiB, which is the limit",
                    MAX_BYTES >> 20
                )
            })?;
        // the text of the error of from_utf8 would be harmless, its bytes would not
        let text = String::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8 text"))?;
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }

    fn push(&mut self, name: String, path: Option<PathBuf>, named: bool, text: String) -> Result<(), String> {
        self.input.sources.push(Source {
            name,
            path,
            named,
            text,
        });
        if self.input.sources.len() > MAX_FILES {
            return Err(too_many());
        }
        Ok(())
    }
}

fn metadata(path: &Path) -> Result<fs::Metadata, String> {
    fs::metadata(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// What is in a folder, by name.
fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: io::Error| format!("{} cannot be listed: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        paths.push(entry.map_err(unreadable)?.path());
        if paths.len() > MAX_FILES {
            return Err(too_many());
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_manifest(path: &Path) -> bool {
    let ending = path
        .extension()
        .is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
    ending && path.is_file()
}

fn too_many() -> String {
    format!("there are more than {MAX_FILES} files, which is the limit")
}
