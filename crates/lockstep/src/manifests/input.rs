//! Reads files, folders and standard input, with limits on all of them.

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

/// Maximum size of all texts together in bytes. The API server accepts 1.5 MiB per object.
const MAX_BYTES: u64 = 32 << 20;
/// Maximum number of files.
const MAX_FILES: usize = 10_000;
/// Maximum depth of kustomizations that list each other, and of folders.
const MAX_DEPTH: usize = 32;

/// A text and its origin.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The file as given on the command line, or `standard input`.
    pub(crate) name: String,
    /// The file; `None` for standard input.
    pub(crate) path: Option<PathBuf>,
    /// Whether the file itself was named, so everything in it must be an object.
    pub(crate) named: bool,
    /// Content without a byte order mark.
    pub(crate) text: String,
}

/// Omits the text: a manifest that is not yet sealed contains secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("named", &self.named)
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// All texts that were read.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Texts in the order in which they were named, sorted by name within a folder.
    pub(crate) sources: Vec<Source>,
    /// Notes for the user that are not errors.
    pub(crate) notes: Vec<String>,
}

/// Which files of a folder are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folders {
    /// The resources of its kustomization, or its own files if it has none: what would be applied.
    Applied,
    /// Every file below it that is not hidden: what is in Git.
    Everything,
}

/// State of a read, and how many bytes may still be read.
struct Reader {
    /// Name of the command, for messages.
    command: &'static str,
    input: Input,
    folders: Folders,
    seen: BTreeSet<PathBuf>,
    left: u64,
}

/// Reads the named paths; `-` is standard input. Links and kustomizations of a folder must stay
/// inside it, or below `root`.
///
/// # Errors
/// Describes what cannot be read, without quoting file content.
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
                return Err("-f -: standard input can be read only once".to_owned());
            }
            let text = reader.text(io::stdin().lock(), "standard input")?;
            reader.push("standard input".to_owned(), None, true, text)?;
        } else if !is_folder(path)? {
            reader.named(path)?;
        } else if reader.folders == Folders::Everything {
            reader.everything(&Confined::new(path, root)?, path, 0)?;
        } else {
            reader.read_folder(&Confined::new(path, root)?, 0)?;
        }
    }
    Ok(reader.input)
}

impl Reader {
    fn read_folder(&mut self, folder: &Confined, depth: usize) -> Result<(), String> {
        let shown = folder.shown.display();
        if depth > MAX_DEPTH {
            return Err(format!(
                "{shown}: kustomizations are nested more than {MAX_DEPTH} levels deep"
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
                "{shown} is listed as a resource but has no kustomization.yaml"
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
                "{}: folders are nested more than {MAX_DEPTH} levels deep",
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
            // a link to a folder can form a cycle
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
        let text = self.read_confined(folder, &real, &name)?;
        let Kustomization { resources, ignored } = kustomization::parse(&text, &name)?;
        let made = format!(
            "kubectl kustomize {} | lockstep {} -f -",
            shell_quote(&folder.shown.display().to_string()),
            self.command
        );
        if let Some(ignored) = ignored {
            self.input.notes.push(format!(
                "{name}: only its resources are read, not {ignored}. To read its full output, run: {made}"
            ));
        }
        for (index, resource) in resources.iter().enumerate() {
            let entry = format!("{name}: resources[{index}]");
            if resource.contains("://") || resource.contains("?ref=") || resource.starts_with("git@") {
                return Err(format!("{entry} is not a local path. Run: {made}"));
            }
            self.read_resource(folder, resource, &entry, depth)?;
        }
        Ok(())
    }

    /// Reads one file or folder of `resources`. Messages call it `entry`, which contains its index.
    fn read_resource(
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
                    "{entry} is a folder outside the repository and the working directory. {}",
                    folder.advice()
                )
            })?;
            return self.read_folder(&base, depth + 1);
        }
        if !self.seen.insert(real.clone()) {
            return Ok(());
        }
        let text = self.read_confined(folder, &real, entry)?;
        self.push(path.display().to_string(), Some(path), true, text)
    }

    /// Reads a file named on the command line, wherever it is.
    fn named(&mut self, path: &Path) -> Result<(), String> {
        if self.first_time(path)?.is_none() {
            return Ok(());
        }
        let name = path.display().to_string();
        let file = fs::File::open(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
        let text = self.text(file, &name)?;
        self.push(name, Some(path.to_owned()), true, text)
    }

    /// Reads a file found in a folder.
    fn found(&mut self, folder: &Confined, path: &Path) -> Result<(), String> {
        let Some(real) = self.first_time(path)? else {
            return Ok(());
        };
        let name = path.display().to_string();
        let text = self.read_confined(folder, &real, &name)?;
        self.push(name, Some(path.to_owned()), false, text)
    }

    /// Returns the text of a file in a folder, given its real path.
    fn read_confined(&mut self, folder: &Confined, real: &Path, name: &str) -> Result<String, String> {
        let bytes = folder.read(real, self.left).map_err(|error| match error {
            ReadBelowError::TooLong(_) => too_large(name),
            ReadBelowError::Outside => format!("{name} {error}. {}", folder.advice()),
            error => format!("{name} {error}"),
        })?;
        self.text(bytes.as_slice(), name)
    }

    /// Returns the real path of a file, or `None` if it was read before.
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
        // the error's message would be harmless, but the error contains the bytes
        let text = String::from_utf8(bytes).map_err(|_| format!("{name} is not valid UTF-8"))?;
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

/// Lists a folder, sorted by name.
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
        "{name}: all files together are larger than the maximum of {} MiB",
        MAX_BYTES >> 20
    )
}

fn too_many() -> String {
    format!("the input has more than the maximum of {MAX_FILES} files")
}
