//! Detects changed files by polling their metadata.
//!
//! Reasons against inotify: it reports what this kernel does to a file system, but not what a
//! server does behind NFS or FUSE, which volumes of CSI drivers often use. It loses a folder when a
//! volume is mounted over it. The number of its instances is limited per user of a node (128 by
//! default), shared with other pods. Polling the metadata works everywhere and keeps nothing open.
//! It takes a few microseconds per file, and a store is polled for about a hundredth of the time: a
//! thousand files every second, ten thousand every five seconds, a hundred thousand every fifty. On
//! a slow file system, the wait is ten times the duration of the poll. In a store with more than a
//! hundred thousand entries only that many are polled; changes of the others are picked up at the
//! refresh interval.

use std::{
    collections::hash_map::DefaultHasher,
    convert::Infallible,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::{
    facts::{Kind, Trouble},
    folder::{self, Step},
    source_location::SourceLocation,
};

/// A hash of the metadata of everything below a path. It contains nothing of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    sum: u64,
    entries: u32,
}

/// The polling intervals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The interval between two polls. It is longer if a poll takes long.
    pub(super) look: Duration,
    /// The interval while something is changing. A change is reported when two such polls are
    /// equal.
    pub(super) settle: Duration,
}

/// The minimum interval per file, so that many files are polled less often.
const FOR_EACH: Duration = Duration::from_micros(500);
/// The interval is at least this many times the duration of the previous poll.
const SLOWER: u32 = 10;
/// A change that does not settle is reported after this many polls.
const MOST_LOOKS: usize = 10;
/// How long building a client waits for the first poll.
const FIRST: Duration = Duration::from_secs(2);

/// Runs the first poll. Returns `None` if it takes too long; the next poll then counts as a change.
pub(super) async fn first(location: Arc<SourceLocation>) -> Option<Fingerprint> {
    timeout(FIRST, look(location)).await.ok().flatten()
}

/// Returns a stream with one item per change. It ends when it is dropped.
pub(super) fn changes(
    location: Arc<SourceLocation>,
    seen: Option<Fingerprint>,
    pace: Pace,
) -> BoxStream<'static, ()> {
    let watch = Watch {
        location,
        seen,
        pace,
        took: Duration::ZERO,
        entries: seen.map_or(0, |seen| seen.entries),
    };
    let next = |mut watch: Watch| async move {
        watch.next().await;
        Some(((), watch))
    };
    stream::unfold(watch, next).boxed()
}

struct Watch {
    location: Arc<SourceLocation>,
    seen: Option<Fingerprint>,
    pace: Pace,
    /// The duration of the last poll, and the number of entries it saw.
    took: Duration,
    entries: u32,
}

impl Watch {
    async fn next(&mut self) {
        loop {
            let long = (self.took * SLOWER).max(FOR_EACH * self.entries);
            sleep(self.pace.look.max(long)).await;
            let mut now = self.look().await;
            if now.is_none() || now == self.seen {
                continue;
            }
            for _ in 0..MOST_LOOKS {
                sleep(self.pace.settle.max(self.took)).await;
                let again = self.look().await;
                let settled = again == now;
                now = again.or(now);
                if settled {
                    break;
                }
            }
            self.seen = now;
            return;
        }
    }

    async fn look(&mut self) -> Option<Fingerprint> {
        let start = Instant::now();
        let seen = look(Arc::clone(&self.location)).await;
        self.took = start.elapsed();
        self.entries = seen.map_or(0, |seen| seen.entries);
        seen
    }
}

async fn look(location: Arc<SourceLocation>) -> Option<Fingerprint> {
    spawn_blocking(move || fingerprint(&location)).await.ok()
}

/// Computes the sum of the hashes of all entries, so that the order in which a folder lists them
/// does not matter. An entry whose metadata cannot be read counts with the reason.
fn fingerprint(location: &SourceLocation) -> Fingerprint {
    let mut print = Fingerprint { sum: 0, entries: 0 };
    let mut add = |entry: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        entry(&mut hasher);
        print.sum = print.sum.wrapping_add(hasher.finish());
        print.entries = print.entries.saturating_add(1);
    };
    let trouble = |trouble: Trouble| move |hasher: &mut DefaultHasher| trouble.hash(hasher);
    let opened = location.find();
    let folder = match opened {
        Err(failed) => {
            add(&trouble(failed));
            None
        }
        Ok((_, _, facts)) if facts.kind != Kind::Folder => {
            add(&|hasher| facts.hash(hasher));
            None
        }
        Ok((parent, name, _)) => parent
            .folder(name)
            .inspect_err(|failed| add(&trouble(*failed)))
            .ok(),
    };
    if let Some(folder) = folder {
        let walked: Result<(), Infallible> = folder::walk(&folder, vec![String::new()], |step| {
            match step {
                // a folder's own times also change with files that are not keys; its content is
                // polled anyway
                Step::Entry(path, facts) if facts.kind == Kind::Folder => add(&|hasher| path.hash(hasher)),
                Step::Entry(path, facts) => add(&|hasher| (path, facts).hash(hasher)),
                Step::Start(_, failed) | Step::Trouble(_, failed) => add(&trouble(failed)),
                Step::Folder(..) | Step::TooMany => {}
            }
            Ok(())
        });
        let Ok(()) = walked;
    }
    print
}
