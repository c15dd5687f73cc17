//! A folder of files: each file is a remote value, and its path below the folder is the key.

use std::{
    fs::File,
    io::{self, Read as _},
};

use super::{
    MOST_BYTES,
    beneath::{Beneath, Facts, Kind, Trouble},
    error, path,
    stop::Stop,
};
use crate::{ErrorKind, KeyFilter, Operation, ProviderError, RemoteMeta, RemoteSecret, SecretValue};

/// The most files and folders that one walk looks at.
pub(super) const MOST_ENTRIES: usize = 100_000;
/// The most keys that one search may find.
const MOST_FOUND: usize = 10_000;
/// The deepest folder that is entered, counted from where the walk begins.
const DEEPEST: usize = 32;
/// How often a file is read anew that is written to meanwhile.
const ATTEMPTS: usize = 3;

/// Reads one key.
pub(super) fn read(folder: &Beneath, key: &str) -> Result<RemoteSecret, ProviderError> {
    if let Some(why) = path::flaw(key) {
        return Err(error::flawed(key, why));
    }
    let what = format!("key \"{}\"", path::shown(key));
    for _ in 0..ATTEMPTS {
        let (file, facts) = folder.file(key).map_err(|trouble| error::of_key(trouble, key))?;
        let Some(file) = file else {
            return Err(no_file(&what, facts.kind));
        };
        if let Some(value) = content(file, &facts, &what, Operation::Read)?
            && folder.facts(key) == Ok(facts)
        {
            return Ok(RemoteSecret {
                value,
                version: Some(facts.version()),
                created: facts.modified(),
            });
        }
    }
    Err(error::unsettled(&what, Operation::Read))
}

fn no_file(what: &str, kind: Kind) -> ProviderError {
    let (kind, message) = if kind == Kind::Folder {
        (ErrorKind::NotFound, format!("{what} is a folder and not a file"))
    } else {
        (
            ErrorKind::PermissionDenied,
            format!("{what} is a device, pipe or socket and not a file"),
        )
    };
    ProviderError::new(kind, Operation::Read, message)
}

/// The content of a file; `None` when it is not as long as it was said to be, because somebody is writing to it.
pub(super) fn content(
    file: File,
    facts: &Facts,
    what: &str,
    operation: Operation,
) -> Result<Option<SecretValue>, ProviderError> {
    if facts.length > MOST_BYTES {
        return Err(error::too_large(what, operation));
    }
    // one byte of room more than there should be, so that the buffer is never moved and leaves no copy behind
    let room = usize::try_from(facts.length).unwrap_or(0) + 1;
    let mut bytes = Vec::with_capacity(room);
    let read = file.take(facts.length + 1).read_to_end(&mut bytes);
    let value = SecretValue::new(bytes);
    read.map_err(|failure| unreadable(&failure, what, operation))?;
    Ok((value.len() as u64 == facts.length).then_some(value))
}

fn unreadable(failure: &io::Error, what: &str, operation: Operation) -> ProviderError {
    let number = failure.raw_os_error().unwrap_or_default();
    let message = format!("{what} cannot be read (error {number} of the operating system)");
    ProviderError::new(ErrorKind::Unavailable, operation, message)
}

/// The keys below `start` that a filter lets through, sorted.
///
/// A search that cannot see everything fails: a result that lacks what is hidden would look as if the rest had been
/// deleted.
pub(super) fn find(
    folder: &Beneath,
    start: &str,
    filter: &KeyFilter,
    stop: &Stop,
) -> Result<Vec<RemoteMeta>, ProviderError> {
    let mut found = Vec::new();
    walk(folder, start, |step| {
        stop.check(Operation::Find)?;
        match step {
            Step::Entry(key, facts) => {
                if facts.kind == Kind::File && path::flaw(key).is_none() && filter.matches_key(key) {
                    found.push(RemoteMeta { key: key.to_owned() });
                }
                if found.len() > MOST_FOUND {
                    return Err(too_many(MOST_FOUND));
                }
                Ok(())
            }
            Step::Trouble(Trouble::Missing | Trouble::LeadsOut | Trouble::Circles) => Ok(()),
            Step::Trouble(Trouble::Denied) => {
                let message = "the operator's user may not list a folder below the store's";
                Err(ProviderError::new(
                    ErrorKind::PermissionDenied,
                    Operation::Find,
                    message,
                ))
            }
            Step::Trouble(trouble) => Err(error::of_store(trouble, start, Operation::Find)),
            Step::TooMany => Err(too_many(MOST_ENTRIES)),
        }
    })?;
    found.sort();
    Ok(found)
}

fn too_many(most: usize) -> ProviderError {
    let message = format!("there are more than {most} files");
    ProviderError::new(ErrorKind::Malformed, Operation::Find, message)
        .with_hint("Narrow find.path, or split the store.")
}

/// What a walk comes across.
pub(super) enum Step<'a> {
    /// A file or folder, by its path below the store's folder, links followed.
    Entry(&'a str, &'a Facts),
    /// Something that cannot be looked at.
    Trouble(Trouble),
    /// There is more than a walk looks at; it ends here.
    TooMany,
}

/// Looks at everything below `start`, folders before what is in them, otherwise in no order. Names that begin with `..`
/// are the volume's own business; names that are no text are nobody's key. A folder that is reached by a link from
/// within itself is not entered again.
pub(super) fn walk<E>(
    folder: &Beneath,
    start: &str,
    mut each: impl FnMut(Step<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut seen = 0;
    let mut folders: Vec<(String, Vec<(u64, u64)>)> = vec![(start.to_owned(), Vec::new())];
    while let Some((path, mut above)) = folders.pop() {
        let (names, facts) = match folder.names(&path) {
            Ok(listed) => listed,
            Err(trouble) => {
                each(Step::Trouble(trouble))?;
                continue;
            }
        };
        if above.contains(&facts.id) && facts.id != (0, 0) {
            continue;
        }
        above.push(facts.id);
        for name in names.iter().filter(|name| !name.starts_with("..")) {
            seen += 1;
            if seen > MOST_ENTRIES {
                return each(Step::TooMany);
            }
            let key = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}/{name}")
            };
            match folder.facts(&key) {
                Ok(facts) => {
                    each(Step::Entry(&key, &facts))?;
                    if facts.kind == Kind::Folder && above.len() < DEEPEST {
                        folders.push((key, above.clone()));
                    }
                }
                Err(trouble) => each(Step::Trouble(trouble))?,
            }
        }
    }
    Ok(())
}
