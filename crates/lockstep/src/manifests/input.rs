//! The texts to read: files, folders and standard input, all of them bounded.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use lockstep_core::text::shell_quote;
use lockstep_provider::file::ReadBelowError;

use super::{
    confine::Confined,
    kustomization::{self, Kustomization},
};

/// How large all texts together may be, in bytes. The API server takes 1.5 MiB an object.
const MAX_BYTES: u64 = 32 << 20;
/// How many files are read.
const MAX_FILES: usize = 10_000;
/// How deep kustomizations may list each other.
const MAX_DEPTH: usize = 32;

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

/// Reads what the paths name; `-` is standard input. Links and kustomizations of a folder must stay inside it, or below `root`.
///
/// # Errors
/// A sentence that says what cannot be read. It quotes nothing from a file.
pub(crate) fn read(
    paths: &[PathBuf],
    root: Option<&Path>,
    folders: Folders,
    command: &'static str,
) -> Result<Input, String> {
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
        } else if !is_folder(path)? {
            reader.named(path)?;
        } else if reader.folders == Folders::Everything {
            reader.everything(&Confined::new(path, root)?, path, 0)?;
        } else {
            reader.folder(&Confined::new(path, root)?, 0)?;
        }
    }
    Ok(reader.input)
}

impl Reader {
    fn folder(&mut self, folder: &Confined, depth: usize) -> Result<(), String> {
        let shown = folder.shown.display();
        if depth > MAX_DEPTH {
            return Err(format!(
                "{shown}: kustomizations list each other more than {MAX_DEPTH} levels deep"
            ));
        }
        let kustomization = kustomization::NAMES
            .into_iter()
            .find(|name| folder.shown.join(name).is_file());
        if let Some(name) = kustomization {
            return self.kustomization(folder, name, depth);
        }
        if depth > 0 {
            return Err(format!(
                "{shown} is listed as a resource, and has no kustomization.yaml"
            ));
        }
        list(&folder.shown)?
            .iter()
            .filter(|path| is_manifest(path))
            .try_for_each(|path| self.found(folder, path))
    }

    fn everything(&mut self, named: &Confined, folder: &Path, depth: usize) -> Result<(), String> {
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
                self.everything(named, &path, depth + 1)?;
            } else if is_manifest(&path) {
                self.found(named, &path)?;
            }
        }
        Ok(())
    }

    fn kustomization(&mut self, folder: &Confined, name: &str, depth: usize) -> Result<(), String> {
        let path = folder.shown.join(name);
        let Some(real) = self.first_time(&path)? else {
            return Ok(());
        };
        let name = path.display().to_string();
        let text = self.below(folder, &real, &name)?;
        let Kustomization { resources, ignored } = kustomization::parse(&text, &name)?;
        let made = format!(
            "kubectl kustomize {} | lockstep {} -f -",
            shell_quote(&folder.shown.display().to_string()),
            self.command
        );
        if let Some(ignored) = ignored {
            self.input.notes.push(format!(
                "{name}: only its resources are read, not {ignored}. What it makes: {made}"
            ));
        }
        for (index, resource) in resources.iter().enumerate() {
            let entry = format!("{name}: resources[{index}]");
            if resource.contains("://") || resource.contains("?ref=") || resource.starts_with("git@") {
                return Err(format!("{entry} is not on this machine. Use: {made}"));
            }
            self.resource(folder, resource, &entry, depth)?;
        }
        Ok(())
    }

    /// Reads one entry of `resources`, which messages name by its index.
    fn resource(
        &mut self,
        folder: &Confined,
        resource: &str,
        entry: &str,
        depth: usize,
    ) -> Result<(), String> {
        let path = folder.shown.join(resource);
        let real = fs::canonicalize(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{entry} does not exist"),
            _ => format!("{entry} cannot be read"),
        })?;
        if real.is_dir() {
            let base = folder.base(path, real);
            let base = base.ok_or_else(|| {
                format!(
                    "{entry} is a folder outside of the repository and the working directory. {}",
                    folder.advice()
                )
            })?;
            return self.folder(&base, depth + 1);
        }
        if !self.seen.insert(real.clone()) {
            return Ok(());
        }
        let text = self.below(folder, &real, entry)?;
        self.push(path.display().to_string(), Some(path), true, text)
    }

    /// Reads a file that was named on the command line, wherever it is.
    fn named(&mut self, path: &Path) -> Result<(), String> {
        if self.first_time(path)?.is_none() {
            return Ok(());
        }
        let name = path.display().to_string();
        let file = fs::File::open(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
        let text = self.text(file, &name)?;
        self.push(name, Some(path.to_owned()), true, text)
    }

    /// Reads a file that was found in a folder.
    fn found(&mut self, folder: &Confined, path: &Path) -> Result<(), String> {
        let Some(real) = self.first_time(path)? else {
            return Ok(());
        };
        let name = path.display().to_string();
        let text = self.below(folder, &real, &name)?;
        self.push(name, Some(path.to_owned()), false, text)
    }

    /// Returns the text of a file of a folder, given its real path.
    fn below(&mut self, folder: &Confined, real: &Path, name: &str) -> Result<String, String> {
        let bytes = folder.read(real, self.left).map_err(|error| match error {
            ReadBelowError::TooLong(_) => too_large(name),
            ReadBelowError::Outside => format!("{name} {error}. {}", folder.advice()),
            error => format!("{name} {error}"),
        })?;
        self.text(bytes.as_slice(), name)
    }

    /// Returns the real path of a file that was not read yet: one that two folders list is one file.
    fn first_time(&mut self, path: &Path) -> Result<Option<PathBuf>, String> {
        let real =
            fs::canonicalize(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        Ok(self.seen.insert(real.clone()).then_some(real))
    }

    fn text(&mut self, from: impl io::Read, name: &str) -> Result<String, String> {
        let mut bytes = Vec::new();
        let read = from.take(self.left + 1).read_to_end(&mut bytes);
        let read = read.map_err(|error| format!("{name} cannot be read: {error}"))?;
        self.left = u64::try_from(read)
            .ok()
            .and_then(|read| self.left.checked_sub(read))
            .ok_or_else(|| too_large(name))?;
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

fn is_folder(path: &Path) -> Result<bool, String> {
    let metadata =
        fs::metadata(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Ok(metadata.is_dir())
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

fn too_large(name: &str) -> String {
    format!(
        "{name}: all files together have more than {} MiB, which is the limit",
        MAX_BYTES >> 20
    )
}

fn too_many() -> String {
    format!("there are more than {MAX_FILES} files, which is the limit")
}
