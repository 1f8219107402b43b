//! Counters of the dead letter for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one dead letter, shared with the telemetry.
#[derive(Debug, Default)]
pub struct DeadLetterStats {
    bytes: AtomicU64,
    payloads_dropped: AtomicU64,
}

impl DeadLetterStats {
    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self) {
        self.payloads_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Payloads that were not kept whole.
    pub fn payloads_dropped(&self) -> u64 {
        self.payloads_dropped.load(Ordering::Relaxed)
    }
}
