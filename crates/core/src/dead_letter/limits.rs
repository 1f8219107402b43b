//! Limits of the dead letter, and its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What happens when the dead letter is full (`--dead-letter-full`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Payloads are cut, then dropped; delivery goes on.
    #[default]
    Drop,
    /// Nothing is dropped; nothing more is read until there is room.
    Hold,
}

#[derive(Debug, Clone)]
pub struct DeadLetterLimits {
    /// The limit for all files together; `None`: unlimited.
    pub bytes_max: Option<u64>,
    pub when_full: WhenFull,
    /// Metrics of the dead letter.
    pub figures: Arc<DeadLetterStats>,
}

impl DeadLetterLimits {
    /// The default of `--dead-letter-bytes-max`.
    pub const BYTES_MAX: u64 = 256 << 20;
}

impl Default for DeadLetterLimits {
    fn default() -> DeadLetterLimits {
        DeadLetterLimits {
            bytes_max: Some(DeadLetterLimits::BYTES_MAX),
            when_full: WhenFull::default(),
            figures: Arc::default(),
        }
    }
}

/// Metrics of the dead letter.
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
