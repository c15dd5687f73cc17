//! Limits how many bytes of all stores' responses are in memory at the same time.
//!
//! A response reserves memory as its bytes arrive, at most twice as much as has arrived, and
//! releases it once it has been converted to values. A server that announces a long response and
//! stalls therefore holds little. Responses up to [`SMALL`] reserve none: a store with ordinary
//! values never waits for one with large values.
//!
//! A response waits for its client's share before it reserves any memory, and holds nothing in the
//! meantime. It can wait for more while it holds some. Such a wait ends within seconds, so
//! responses that wait for each other fail and are read again.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::timeout,
};

/// Responses up to this length reserve nothing.
pub const SMALL: usize = 16 * 1024;
/// The memory of the process for responses, in bytes.
pub const TOTAL: usize = 16 << 20;
/// How much of it the responses of one client can reserve together. A single longer response may
/// reserve more if it is alone.
const SHARE: usize = 4 << 20;
/// How long a response waits for memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// The unit of reservations, in bytes.
const UNIT: usize = 1024;

static ROOM: Semaphore = Semaphore::const_new(TOTAL / UNIT);

/// One client's share of the memory for responses. Clones refer to the same share.
#[derive(Debug, Clone)]
pub struct Share(Arc<Semaphore>);

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARE / UNIT)))
    }
}

impl Share {
    /// Waits for a part of this share.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = units(bytes.min(SHARE))?;
        let permit = timeout(PATIENCE, Arc::clone(&self.0).acquire_many_owned(units)).await;
        permit.ok()?.ok()
    }
}

/// Memory that a response has reserved, until this is dropped.
#[derive(Debug, Default)]
pub struct Room {
    bytes: usize,
    total: Option<SemaphorePermit<'static>>,
    share: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Returns how many bytes the reservation covers.
    pub const fn bytes(&self) -> usize {
        if self.bytes > SMALL { self.bytes } else { SMALL }
    }

    /// Reserves more memory if `arrived` bytes need it, for a response that should have `expected`
    /// bytes. Returns `None` if no memory becomes free within a few seconds; the existing
    /// reservation is then released. Waiting responses are served in order.
    pub async fn grow(mut self, share: &Share, arrived: usize, expected: usize) -> Option<Self> {
        if arrived <= self.bytes() {
            return Some(self);
        }
        let expected = expected.max(arrived);
        if self.share.is_none() {
            self.share = Some(share.take(expected).await?);
        }
        let wanted = arrived.saturating_mul(2).min(expected).min(TOTAL);
        let more = units(wanted)?.saturating_sub(units(self.bytes)?);
        let more = timeout(PATIENCE, ROOM.acquire_many(more)).await.ok()?.ok()?;
        match &mut self.total {
            Some(total) => total.merge(more),
            None => self.total = Some(more),
        }
        self.bytes = wanted;
        Some(self)
    }
}

fn units(bytes: usize) -> Option<u32> {
    u32::try_from(bytes.div_ceil(UNIT)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn grown(share: &Share, arrived: usize, expected: usize) -> Option<Room> {
        Room::default().grow(share, arrived, expected).await
    }

    /// This is one test, because all tests of the process share the memory.
    #[tokio::test(start_paused = true)]
    async fn reservation_grows_with_arrived_bytes() {
        let free = || ROOM.available_permits() * UNIT;

        // small responses reserve nothing, whatever is announced
        let small = grown(&Share::default(), SMALL, TOTAL).await.unwrap();
        assert_eq!((small.bytes(), free()), (SMALL, TOTAL));

        // others reserve at most twice what arrived, and at most what is announced
        let room = small.grow(&Share::default(), 20 << 10, 8 << 20).await.unwrap();
        assert_eq!((room.bytes(), free()), (40 << 10, TOTAL - (40 << 10)));
        let room = room.grow(&Share::default(), 40 << 10, 8 << 20).await.unwrap();
        assert_eq!(room.bytes(), 40 << 10, "there was room already");
        let room = room.grow(&Share::default(), 41 << 10, 50 << 10).await.unwrap();
        assert_eq!((room.bytes(), free()), (50 << 10, TOTAL - (50 << 10)));
        drop(room);
        assert_eq!(free(), TOTAL);

        // responses of one client wait for its share
        let share = Share::default();
        let first = grown(&share, 20 << 10, 3 << 20).await.unwrap();
        let before = free();
        assert!(grown(&share, 20 << 10, 2 << 20).await.is_none());
        assert_eq!(free(), before, "it holds nothing while it waits");
        assert!(grown(&share, 20 << 10, 1 << 20).await.is_some());
        assert!(grown(&Share::default(), 20 << 10, 8 << 20).await.is_some());
        drop(first);

        // a response that exceeds the share takes all of it
        let long = grown(&share, 8 << 20, 8 << 20).await.unwrap();
        assert_eq!(free(), TOTAL - (8 << 20));
        assert!(grown(&share, SMALL + 1, SMALL + 1).await.is_none());

        // no response waits forever, and small responses never wait
        let rest = grown(&Share::default(), 8 << 20, 8 << 20).await.unwrap();
        assert_eq!(free(), 0);
        assert!(grown(&Share::default(), SMALL + 1, TOTAL).await.is_none());
        assert!(grown(&Share::default(), SMALL, TOTAL).await.is_some());
        drop((long, rest));
        assert_eq!(free(), TOTAL);
    }
}
