use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use crate::{Context, ErrorKind, Operation, ProviderError};

/// Tells blocking work that its result is no longer needed.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    given_up: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Stop {
    /// Creates a signal that is set at the caller's deadline, or when the guard is dropped.
    pub(super) fn new(cx: &Context) -> (Self, Waiting) {
        let given_up = Arc::new(AtomicBool::new(false));
        let stop = Self {
            given_up: Arc::clone(&given_up),
            deadline: cx.deadline,
        };
        (stop, Waiting(given_up))
    }

    /// Checks the signal. Called between two steps of the work.
    ///
    /// # Errors
    /// `Timeout` when the result is no longer needed.
    pub(super) fn check(&self, operation: Operation) -> Result<(), ProviderError> {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if late || self.given_up.load(Ordering::Relaxed) {
            let message = "the files could not be read before the deadline of this request";
            return Err(ProviderError::new(ErrorKind::Timeout, operation, message));
        }
        Ok(())
    }
}

/// The guard of a caller that waits for the work. Dropping it stops the work.
#[derive(Debug)]
pub(super) struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
