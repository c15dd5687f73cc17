//! Room for answers: how many bytes of all stores' answers are in memory at the same time.
//!
//! An answer takes its room before it is read, and gives it back when it has been turned into values. Whoever waits for room
//! holds none, so nobody waits for each other. Answers up to [`SMALL`] take none: a store with ordinary values never waits for
//! one with large values.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// Answers up to this length take no room.
pub const SMALL: usize = 16 * 1024;
/// The room of the process, in bytes.
pub const TOTAL: usize = 16 << 20;
/// How long an answer waits for room.
const PATIENCE: Duration = Duration::from_secs(5);
/// The unit in which room is given.
const UNIT: usize = 1024;

static ROOM: Semaphore = Semaphore::const_new(TOTAL / UNIT);

/// Room that an answer takes, until this is dropped.
#[derive(Debug)]
pub struct Room {
    _permit: Option<SemaphorePermit<'static>>,
}

/// Takes room for an answer of this length, which is at most [`TOTAL`]; `None` when there is none within a few seconds. Those
/// who came first are served first.
pub async fn take(bytes: usize) -> Option<Room> {
    if bytes <= SMALL {
        return Some(Room { _permit: None });
    }
    let units = u32::try_from(bytes.min(TOTAL).div_ceil(UNIT)).ok()?;
    let permit = timeout(PATIENCE, ROOM.acquire_many(units)).await;
    Some(Room {
        _permit: Some(permit.ok()?.ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_answers_wait_for_each_other_and_small_ones_for_nobody() {
        let all = take(TOTAL).await.unwrap();
        assert!(take(SMALL).await.is_some());
        assert!(
            take(SMALL + 1).await.is_none(),
            "there is no room, and it does not wait for ever"
        );
        drop(all);
        assert!(take(usize::MAX).await.is_some());
    }
}
