//! A folder of files: each file is a remote value, and its path below the folder is the key.

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

/// The most files and folders that one walk looks at.
pub(super) const MOST_ENTRIES: usize = 100_000;
/// The most keys that one search may find.
const MOST_FOUND: usize = 10_000;
/// The deepest folder that is entered, counted from where the walk begins.
const DEEPEST: usize = 32;
/// How often is read or listed what somebody writes to meanwhile.
const ATTEMPTS: usize = 3;

/// How often a search begins again, and by how much longer it waits before each attempt.
const SEARCHES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(5);

/// Reads keys. All values are from the same state of the folder: when a volume is swapped or a file written meanwhile,
/// they are read anew, so that no new user name comes with an old password.
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
        // every key is looked at, so that the last attempt knows which of them did not settle
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

/// Why the store's folder cannot be told from a volume that is not mounted, if it cannot.
pub(super) fn absence(folder: &Beneath) -> Option<Trouble> {
    match folder.names("") {
        Ok((names, _)) => names.is_empty().then_some(Trouble::Empty),
        Err(trouble) => Some(trouble),
    }
}

fn named(key: &str) -> String {
    format!("key \"{}\"", path::shown(key))
}

/// Reads one key; `None` when somebody writes to it at this moment.
fn read_one(folder: &Beneath, key: &str) -> Result<Option<(RemoteSecret, Facts)>, ProviderError> {
    if let Some(why) = path::flaw(key) {
        return Err(error::flawed(key, why));
    }
    let (file, facts) = folder.file(key).map_err(|trouble| error::of_key(trouble, key))?;
    let Some(file) = file else {
        return Err(no_file(&named(key), facts.kind));
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

/// The keys that a filter lets through, sorted. Nothing is listed but the folders that may hold such keys.
///
/// A search that cannot see everything fails: a result that lacks what is hidden would look as if the rest had been
/// deleted.
///
/// A search whose folders changed while they were read begins again: the swap of a volume must not halve its result.
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

/// One attempt of a search; why it did not settle, if somebody changed a folder meanwhile.
fn find_once(
    folder: &Beneath,
    store: &str,
    filter: &KeyFilter,
    stop: &Stop,
) -> Result<Result<Vec<RemoteMeta>, Trouble>, ProviderError> {
    let mut found = Vec::new();
    let mut listed: Vec<(String, Facts)> = Vec::new();
    let mut unsettled = None;
    // a grant may spell a folder that no key can have
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
            // a name that was listed is gone, or a volume is being swapped
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

/// What a walk comes across.
pub(super) enum Step<'a> {
    /// A file or folder, by its path below the store's folder, links followed.
    Entry(&'a str, &'a Facts),
    /// A folder that is listed.
    Folder(&'a str, &'a Facts),
    /// A folder in which the walk cannot begin.
    Start(&'a str, Trouble),
    /// Something that cannot be looked at.
    Trouble(&'a str, Trouble),
    /// There is more than a walk looks at; it ends here.
    TooMany,
}

/// Looks at everything below these folders, folders before what is in them, otherwise in no order. Names that begin with `..`
/// are the volume's own business; names that are no text are nobody's key. A folder that is reached by a link from
/// within itself is not entered again.
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

/// The names in a folder, all from the same state of it: a volume that is swapped removes its old files one by one.
fn list(folder: &Beneath, path: &str) -> Result<(Vec<String>, Facts), Trouble> {
    for _ in 0..ATTEMPTS {
        let listed = folder.names(path)?;
        if folder.facts(path)? == listed.1 {
            return Ok(listed);
        }
    }
    Err(Trouble::Busy)
}
