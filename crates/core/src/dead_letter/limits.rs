//! How much of the dead letter there may be.

use std::sync::Arc;

use super::stats::DeadLetterStats;

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
    pub stats: Arc<DeadLetterStats>,
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
            stats: Arc::default(),
        }
    }
}
