//! How much of the dead letter there may be, and what `/metrics` says of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What happens when the dead letter is full (`--dead-letter-full`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Payloads are cut, then left out; the trail goes on.
    #[default]
    Drop,
    /// Nothing is left out; nothing more is read until there is room.
    Hold,
}

/// How much is kept.
#[derive(Debug, Clone)]
pub struct DeadLetterLimits {
    /// Bytes of all files together; `None`: as many as come.
    pub bytes_max: Option<u64>,
    /// What happens then.
    pub when_full: WhenFull,
    /// Where it is counted.
    pub figures: Arc<DeadLetterStats>,
}

impl DeadLetterLimits {
    /// `--dead-letter-bytes-max` where it is not given.
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

/// What `/metrics` says of the dead letter.
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

    /// Payloads of which a part or all was not kept.
    pub fn payloads_dropped(&self) -> u64 {
        self.payloads_dropped.load(Ordering::Relaxed)
    }
}
