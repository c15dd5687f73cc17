//! Reads a folder of files. Each file is a remote value, and its path below the folder is the key.

use std::{
    fs::File,
    io::{self, Read as _},
    time::Duration,
};

use super::{
    MOST_BYTES,
    beneath::Beneath,
    error,
    facts::{Facts, Kind, Trouble},
    path,
    stop::Stop,
};
use crate::{ErrorKind, KeyFilter, Operation, ProviderError, RemoteMeta, RemoteSecret, SecretValue};

/// Maximum number of files and folders that one walk visits.
pub(super) const MOST_ENTRIES: usize = 100_000;
/// Maximum number of keys that one search may find.
const MOST_FOUND: usize = 10_000;
/// Maximum depth of folders, counted from the start of the walk.
const DEEPEST: usize = 32;
/// Number of attempts to read or list something that is being written to.
const ATTEMPTS: usize = 3;

/// Number of attempts of a search. The pause before each attempt is longer by `PAUSE`.
const SEARCHES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(5);

/// Reads keys. All values come from the same state of the folder: if a volume is swapped or a file
/// is written in the meantime, they are read again. A new user name is therefore never paired with
/// an old password.
pub(super) fn read(
    folder: &Beneath,
    store: &str,
    keys: &[&str],
    stop: &Stop,
) -> Vec<Result<RemoteSecret, ProviderError>> {
    let mut results = Vec::new();
    for _ in 0..ATTEMPTS {
        results = keys
            .iter()
            .map(|key| {
                stop.check(Operation::Read)?;
                read_one(folder, key)
            })
            .collect();
        let settled = keys.iter().zip(&mut results).map(|(key, result)| {
            let same = match &*result {
                Ok(Some((_, facts))) => folder.facts(key) == Ok(*facts),
                Ok(None) => false,
                Err(_) => true,
            };
            if !same {
                *result = Ok(None);
            }
            same
        });
        // checks every key, so that the last attempt knows which ones did not settle
        if settled.filter(|same| !same).count() == 0 {
            break;
        }
    }
    if results.iter().any(is_missing)
        && let Some(trouble) = absence(folder)
    {
        let error = error::of_store(trouble, store, Operation::Read);
        return keys.iter().map(|_| Err(error.clone())).collect();
    }
    keys.iter()
        .zip(results)
        .map(|(key, result)| match result? {
            Some((secret, _)) => Ok(secret),
            None => Err(error::of_key(Trouble::Busy, key)),
        })
        .collect()
}

fn is_missing<T>(result: &Result<T, ProviderError>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind == ErrorKind::NotFound)
}

/// Returns why the store's folder may be a volume that is not mounted, or `None` if it is not.
pub(super) fn absence(folder: &Beneath) -> Option<Trouble> {
    match folder.names("") {
        Ok((names, _)) => names.is_empty().then_some(Trouble::Empty),
        Err(trouble) => Some(trouble),
    }
}

fn named(key: &str) -> String {
    format!("key \"{}\"", path::shown(key))
}

/// Reads one key. Returns `None` if it is being written to at the moment.
fn read_one(folder: &Beneath, key: &str) -> Result<Option<(RemoteSecret, Facts)>, ProviderError> {
    if let Some(why) = path::flaw(key) {
        return Err(error::flawed(key, why));
    }
    let (file, facts) = folder.file(key).map_err(|trouble| error::of_key(trouble, key))?;
    let Some(file) = file else {
        return Err(not_a_file_error(&named(key), facts.kind));
    };
    let value = content(file, &facts, &named(key), Operation::Read)?;
    Ok(value.map(|value| {
        let secret = RemoteSecret {
            value,
            version: Some(facts.version()),
            created: facts.modified(),
            fresh_for: None,
        };
        (secret, facts)
    }))
}

fn not_a_file_error(what: &str, kind: Kind) -> ProviderError {
    let (kind, message) = if kind == Kind::Folder {
        (ErrorKind::NotFound, format!("{what} is a folder, not a file"))
    } else {
        (
            ErrorKind::PermissionDenied,
            format!("{what} is a device, pipe or socket, not a file"),
        )
    };
    ProviderError::new(kind, Operation::Read, message)
}

/// Returns the content of a file, or `None` if its length differs from its metadata because it is
/// being written to.
pub(super) fn content(
    file: File,
    facts: &Facts,
    what: &str,
    operation: Operation,
) -> Result<Option<SecretValue>, ProviderError> {
    if facts.length > MOST_BYTES {
        return Err(error::too_large(what, operation));
    }
    // one spare byte, so that the buffer is never reallocated and leaves no copy behind
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

/// Returns the keys that match a filter, sorted. Lists only folders that may contain such keys.
///
/// A search that cannot see everything fails. If it left out what it cannot see, those keys would
/// look deleted.
///
/// A search starts again if its folders change while it reads them: a volume that is swapped must
/// not halve the result.
pub(super) fn find(
    folder: &Beneath,
    store: &str,
    filter: &KeyFilter,
    stop: &Stop,
) -> Result<Vec<RemoteMeta>, ProviderError> {
    let mut unsettled = Trouble::Busy;
    for attempt in 0..SEARCHES {
        std::thread::sleep(PAUSE * attempt);
        match find_once(folder, store, filter, stop)? {
            Ok(found) => return Ok(found),
            Err(trouble) => unsettled = trouble,
        }
    }
    Err(error::of_search(unsettled))
}

/// Runs one attempt of a search. Returns why it did not settle if a folder changed in the meantime.
fn find_once(
    folder: &Beneath,
    store: &str,
    filter: &KeyFilter,
    stop: &Stop,
) -> Result<Result<Vec<RemoteMeta>, Trouble>, ProviderError> {
    let mut found = Vec::new();
    let mut listed: Vec<(String, Facts)> = Vec::new();
    let mut unsettled = None;
    // a grant may name a folder that no key can have
    let starts = filter.folders().into_iter();
    let starts = starts.filter(|start| start.is_empty() || path::flaw(start).is_none());
    walk(folder, starts.collect(), |step| {
        stop.check(Operation::Find)?;
        match step {
            Step::Entry(key, facts) => {
                if facts.kind == Kind::File && !path::is_hidden(key) && filter.matches_key(key)? {
                    found.push(crate::found(key)?);
                }
                if found.len() > MOST_FOUND {
                    return Err(too_many(MOST_FOUND));
                }
            }
            Step::Folder(path, facts) => listed.push((path.to_owned(), *facts)),
            Step::Start(_, trouble @ (Trouble::Busy | Trouble::Dangling)) => unsettled = Some(trouble),
            Step::Start(start, trouble) => return Err(error::of_start(trouble, start, store)),
            // a listed name no longer exists, or a volume is being swapped
            Step::Trouble(key, trouble @ (Trouble::Missing | Trouble::Dangling | Trouble::Busy)) => {
                if filter.reaches(&format!("{key}/")) || filter.matches_key(key)? {
                    unsettled = Some(if trouble == Trouble::Missing {
                        Trouble::Busy
                    } else {
                        trouble
                    });
                }
            }
            Step::Trouble(_, Trouble::Link | Trouble::LeadsOut | Trouble::Circles) => {}
            Step::Trouble(_, trouble) => return Err(error::of_search(trouble)),
            Step::TooMany => return Err(too_many(MOST_ENTRIES)),
        }
        Ok(())
    })?;
    for (path, facts) in &listed {
        stop.check(Operation::Find)?;
        if unsettled.is_none() && folder.facts(path) != Ok(*facts) {
            unsettled = Some(Trouble::Busy);
        }
    }
    found.sort();
    Ok(unsettled.map_or(Ok(found), Err))
}

fn too_many(most: usize) -> ProviderError {
    let message = format!("there are more than {most} files");
    ProviderError::new(ErrorKind::Malformed, Operation::Find, message)
        .with_hint("Narrow find.path, or split the store.")
}

/// One step of a walk.
pub(super) enum Step<'a> {
    /// A file or folder, by its path below the store's folder, after following links.
    Entry(&'a str, &'a Facts),
    /// A folder that is about to be listed.
    Folder(&'a str, &'a Facts),
    /// A folder in which the walk cannot begin.
    Start(&'a str, Trouble),
    /// An entry whose metadata cannot be read.
    Trouble(&'a str, Trouble),
    /// There are more entries than a walk visits. The walk ends here.
    TooMany,
}

/// Visits everything below these folders. A folder comes before its content; otherwise there is no
/// particular order. Skips names that begin with `..`, which belong to the volume, and names that
/// are not UTF-8, which cannot be keys. Does not enter a folder again through a link inside it.
pub(super) fn walk<E>(
    folder: &Beneath,
    starts: Vec<String>,
    mut each: impl FnMut(Step<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut seen = 0;
    let mut folders: Vec<(String, Vec<(u64, u64)>)> =
        starts.into_iter().map(|start| (start, Vec::new())).collect();
    while let Some((path, mut above)) = folders.pop() {
        let (names, facts) = match list(folder, &path) {
            Ok(listed) => listed,
            Err(trouble) if above.is_empty() => {
                each(Step::Start(&path, trouble))?;
                continue;
            }
            Err(trouble) => {
                each(Step::Trouble(&path, trouble))?;
                continue;
            }
        };
        if names.is_empty() && above.is_empty() {
            each(Step::Start(&path, Trouble::Empty))?;
        }
        each(Step::Folder(&path, &facts))?;
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
                Err(trouble) => each(Step::Trouble(&key, trouble))?,
            }
        }
    }
    Ok(())
}

/// Lists the names in a folder, all from the same state of it: a volume that is swapped removes its
/// old files one by one.
fn list(folder: &Beneath, path: &str) -> Result<(Vec<String>, Facts), Trouble> {
    for _ in 0..ATTEMPTS {
        let listed = folder.names(path)?;
        if folder.facts(path)? == listed.1 {
            return Ok(listed);
        }
    }
    Err(Trouble::Busy)
}
