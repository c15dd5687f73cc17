//! Noticing that files changed, by looking at their metadata from time to time.
//!
//! Why not inotify: it tells of what this kernel does to this file system, and nothing of what a server does behind NFS or
//! FUSE, on which volumes of CSI drivers often are; it loses a folder that a volume is mounted over; and the number of its
//! instances is limited for each user of a node (128 by default), pods of other people included. A look at the metadata
//! works everywhere and holds nothing open. It takes a few microseconds for a file, and a store is looked at for about a
//! hundredth of the time: a thousand files every second, ten thousand every five, a hundred thousand every fifty. On a
//! file system that is slow, the wait is ten times the look. Of a store with more than a hundred thousand entries only so
//! many are looked at; the others are noticed at the refresh interval.

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

/// The metadata of everything below a path, as two numbers. They hold nothing of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    sum: u64,
    entries: u32,
}

/// How often files are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Between two looks; longer when a look takes long.
    pub(super) look: Duration,
    /// Between looks at something that is changing: it is told of when two such looks are the same.
    pub(super) settle: Duration,
}

/// The wait for each file, so that many files are looked at less often.
const FOR_EACH: Duration = Duration::from_micros(500);
/// How much longer the wait is than the look before it, at least.
const SLOWER: u32 = 10;
/// What does not settle is told of after so many looks all the same.
const MOST_LOOKS: usize = 10;
/// How long the making of a client waits for the first look.
const FIRST: Duration = Duration::from_secs(2);

/// The first look. `None` when it takes too long; then whatever is seen later counts as a change.
pub(super) async fn first(location: Arc<SourceLocation>) -> Option<Fingerprint> {
    timeout(FIRST, look(location)).await.ok().flatten()
}

/// One item for each change, until dropped.
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
    /// How long the last look took, and how much it saw.
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

/// The sum of the hashes of every entry, so that the order in which a folder lists them makes no difference. What cannot
/// be looked at counts with the reason.
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
                // a folder's own times change with files that are no keys, too; what is in it is looked at anyway
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
