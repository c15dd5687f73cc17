//! Limits how many event connections the stores of one namespace have at the same time.
//!
//! A server can send an unfinished message over each connection and keep it open. The message then
//! occupies memory that no other limit covers. Connections of ClusterSecretStores have no limit,
//! because only administrators create these.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Maximum number of event connections of one namespace.
pub(crate) const MOST: usize = 16;

/// Event connections of the process.
pub(crate) static CONNECTIONS: Connections = Connections::new();

/// The number of connections of each namespace.
pub(crate) struct Connections(Mutex<Option<HashMap<String, usize>>>);

impl Connections {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn counts(&self) -> MutexGuard<'_, Option<HashMap<String, usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection until the result is dropped. Returns `None` if the namespace has the
    /// maximum. A ClusterSecretStore has no namespace.
    pub(crate) fn open(&'static self, namespace: Option<&str>) -> Option<Permit> {
        if let Some(namespace) = namespace {
            let mut counts = self.counts();
            let count = counts
                .get_or_insert_default()
                .entry(namespace.to_owned())
                .or_default();
            if *count >= MOST {
                return None;
            }
            *count += 1;
        }
        Some(Permit {
            connections: self,
            namespace: namespace.map(str::to_owned),
        })
    }
}

/// The right to have one connection, until this is dropped.
pub(crate) struct Permit {
    connections: &'static Connections,
    namespace: Option<String>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(namespace) = &self.namespace else {
            return;
        };
        let mut counts = self.connections.counts();
        let Some(counts) = counts.as_mut() else {
            return;
        };
        if let Some(count) = counts.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                counts.remove(namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_a_namespace_are_limited() {
        static ALL: Connections = Connections::new();
        let shop: Vec<_> = (0..MOST).map(|_| ALL.open(Some("shop")).unwrap()).collect();
        assert!(ALL.open(Some("shop")).is_none());
        assert!(ALL.open(Some("blog")).is_some());
        let cluster: Vec<_> = (0..=MOST).map(|_| ALL.open(None)).collect();
        assert!(cluster.iter().all(Option::is_some));
        drop(shop);
        assert_eq!(ALL.counts().as_ref().map(HashMap::len), Some(0));
        assert!(ALL.open(Some("shop")).is_some());
    }
}
