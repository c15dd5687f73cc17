use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{ErrorKind, Operation, ProviderError};

/// Faults to inject, and counters of requests.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) latency: Duration,
    requests: VecDeque<Fault>,
    keys: BTreeMap<String, VecDeque<Fault>>,
    pub(super) calls: BTreeMap<Operation, u64>,
    pub(super) reads: BTreeMap<String, u64>,
    pub(super) in_flight: usize,
    pub(super) most_in_flight: usize,
    pub(super) largest_batch: usize,
    /// Whether every second request is throttled.
    pub(super) every_second: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) retry_after: Option<Duration>,
    /// Whether the login that the request needs fails.
    pub(super) in_login: bool,
}

impl Fault {
    pub(super) fn error(self, operation: Operation) -> ProviderError {
        let operation = if self.in_login {
            Operation::Login
        } else {
            operation
        };
        let error = ProviderError::new(self.kind, operation, "the backend was told to fail");
        match self.retry_after {
            Some(after) => error.with_retry_after(after),
            None => error,
        }
    }
}

impl Faults {
    pub(super) fn add(&mut self, count: usize, fault: Fault) {
        self.requests.extend(std::iter::repeat_n(fault, count));
    }

    pub(super) fn add_for_key(&mut self, key: &str, count: usize, fault: Fault) {
        self.keys
            .entry(key.to_owned())
            .or_default()
            .extend(std::iter::repeat_n(fault, count));
    }

    pub(super) fn next(&mut self) -> Option<Fault> {
        let count: u64 = self.calls.values().sum();
        let throttled = Fault {
            kind: ErrorKind::RateLimited,
            retry_after: None,
            in_login: false,
        };
        let ordered = self.requests.pop_front();
        ordered.or_else(|| (self.every_second && count.is_multiple_of(2)).then_some(throttled))
    }

    pub(super) fn next_for_key(&mut self, key: &str) -> Option<Fault> {
        self.keys.get_mut(key).and_then(VecDeque::pop_front)
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.keys.clear();
        self.latency = Duration::ZERO;
        self.every_second = false;
    }
}
