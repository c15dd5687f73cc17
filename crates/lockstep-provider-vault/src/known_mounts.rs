//! The key/value engines that a server has named.

use std::{
    collections::BTreeSet,
    sync::{Mutex as StdMutex, PoisonError},
};

use tokio::sync::Mutex;

use crate::path;

/// Mount paths that are kept at most. A server that lies could name another one for each key.
const MAX_KNOWN: usize = 256;

/// The key/value engines that the server has named to one client, all of the version of the store.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// Mount paths without a slash at the end.
    known: StdMutex<BTreeSet<String>>,
    /// Held during a request, so that concurrent reads below one mount path make one.
    pub(crate) asking: Mutex<()>,
}

impl Mounts {
    /// The mount path of the engine that holds a path.
    pub(crate) fn holding(&self, path: &str) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .find(|mount| path::below(path, mount).is_some())
            .cloned()
    }

    pub(crate) fn keep(&self, mount: String) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_KNOWN {
            known.insert(mount);
        }
    }
}
