//! Limits the memory of messages and receipts.

use std::collections::{BTreeSet, VecDeque};

/// Bounds for the messages and receipts that are kept.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Maximum number of messages of each store.
    pub messages: usize,
    /// Approximate maximum size of the messages and receipts of all stores together: their texts,
    /// [`MESSAGE_BYTES`] for each, and [`OBJECT_BYTES`] for each object they wait for.
    pub bytes: usize,
}

/// Approximate size of a message without its texts and objects.
pub const MESSAGE_BYTES: usize = 512;
/// Approximate size of the record that a message waits for an object.
pub const OBJECT_BYTES: usize = 128;

/// The capacity that a store uses.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Its messages, the oldest first.
    pub(super) numbers: BTreeSet<u64>,
    /// Its receipts to acknowledge, the oldest first.
    pub(super) receipts: VecDeque<String>,
    /// The size of both.
    pub(super) bytes: usize,
}

impl Usage {
    pub(super) fn push_receipt(&mut self, receipt: String) {
        self.bytes += receipt_size(&receipt);
        self.receipts.push_back(receipt);
    }

    pub(super) fn pop_receipt(&mut self) -> Option<String> {
        let receipt = self.receipts.pop_front()?;
        self.bytes = self.bytes.saturating_sub(receipt_size(&receipt));
        Some(receipt)
    }
}

pub(super) fn receipt_size(receipt: &str) -> usize {
    size_of::<String>() + receipt.len()
}
