//! Remembers the key/value engines that a server has named.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex as SyncMutex;
use tokio::{sync::Mutex, time::Instant};

use crate::{confirm::TRUSTED_FOR, path};

/// Maximum number of remembered mount paths. A malicious server could name a different one for each
/// key.
const MAX_KNOWN: usize = 256;

/// The key/value engines that the server has named to one client. All have the version of the
/// store.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// Mount paths without a trailing slash, and when the lookup of each began.
    known: SyncMutex<BTreeMap<String, Instant>>,
    /// Held during a lookup, so that concurrent reads below one mount path share it.
    pub(crate) asking: Mutex<()>,
}

impl Mounts {
    /// Returns the mount path of the engine that holds a path, if it was looked up at most
    /// `max_age` ago.
    pub(crate) fn holding(&self, path: &str, max_age: Duration) -> Option<String> {
        let known = self.known.lock();
        known
            .iter()
            .find(|(mount, asked)| asked.elapsed() <= max_age && path::below(path, mount).is_some())
            .map(|(mount, _)| mount.clone())
    }

    /// Remembers a mount path. The server has no engine below another, so those above and below it
    /// are removed.
    pub(crate) fn keep(&self, mount: String, asked: Instant) {
        let mut known = self.known.lock();
        known.retain(|other, asked| {
            asked.elapsed() <= TRUSTED_FOR
                && path::below(other, &mount).is_none()
                && path::below(&mount, other).is_none()
        });
        if known.len() < MAX_KNOWN {
            known.insert(mount, asked);
        }
    }

    /// Forgets the engine that held a path.
    pub(crate) fn forget(&self, path: &str) {
        let mut known = self.known.lock();
        known.retain(|mount, _| path::below(path, mount).is_none());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::confirm::RECENT;

    #[tokio::test(start_paused = true)]
    async fn mount_path_expires() {
        let mounts = Mounts::default();
        mounts.keep("team/kv".to_owned(), Instant::now());
        let holding = |max_age| mounts.holding("team/kv/db", max_age);
        advance(RECENT + Duration::from_millis(1)).await;
        assert_eq!(holding(RECENT), None);
        assert_eq!(holding(TRUSTED_FOR).as_deref(), Some("team/kv"));
        advance(TRUSTED_FOR).await;
        assert_eq!(holding(TRUSTED_FOR), None);
    }

    #[tokio::test]
    async fn newer_mount_path_replaces_those_above_and_below() {
        for (old, new) in [("team", "team/kv"), ("team/kv", "team"), ("team", "team")] {
            let mounts = Mounts::default();
            mounts.keep(old.to_owned(), Instant::now());
            mounts.keep("other".to_owned(), Instant::now());
            mounts.keep(new.to_owned(), Instant::now());
            assert_eq!(mounts.holding("team/kv/db", RECENT).as_deref(), Some(new));
            assert!(mounts.holding("other/db", RECENT).is_some());
            mounts.forget("team/kv/db");
            assert_eq!(mounts.holding("team/kv/db", RECENT), None);
        }
    }
}
