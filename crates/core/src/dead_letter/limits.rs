//! Limits of the dead letter.

use std::sync::Arc;

use super::stats::DeadLetterStats;

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
    pub stats: Arc<DeadLetterStats>,
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
            stats: Arc::default(),
        }
    }
}
