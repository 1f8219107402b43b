//! How many bytes of records are in the process: arithmetic only.
//!
//! A record's bytes are taken before it enters and freed when it is settled; while the budget is
//! full the source is not read. Whoever waits for room must go on listening for receipts, as only
//! they free any.

/// Bytes in flight against a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    limit: usize,
    used: usize,
}

impl Budget {
    /// A budget of so many bytes (`--in-flight-bytes-max`).
    pub fn new(limit: usize) -> Budget {
        Budget { limit, used: 0 }
    }

    /// Takes `bytes` if they fit. A record larger than the whole budget fits when nothing else is
    /// in flight: it must pass, or the stream would hang.
    #[must_use = "when it is false the record must wait"]
    pub fn take(&mut self, bytes: usize) -> bool {
        let fits = self.used == 0
            || self
                .used
                .checked_add(bytes)
                .is_some_and(|used| used <= self.limit);
        if fits {
            self.used += bytes;
        }
        fits
    }

    /// Gives back what was taken.
    pub fn free(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.used, "freed {bytes} of {} bytes", self.used);
        self.used = self.used.saturating_sub(bytes);
    }

    /// Whether nothing more fits at all.
    pub fn is_full(&self) -> bool {
        self.used >= self.limit && self.used > 0
    }

    /// Bytes in flight.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_at_the_limit_and_never_stuck() {
        let mut budget = Budget::new(10);
        assert!(budget.take(6) && !budget.is_full());
        assert!(!budget.take(5), "6 + 5 > 10");
        assert!(budget.take(4) && budget.is_full());
        assert!(!budget.take(1));
        budget.free(10);
        assert_eq!(budget.used(), 0);
        assert!(budget.take(1000), "alone, a giant passes");
        assert!(budget.is_full() && !budget.take(1) && !budget.take(usize::MAX));
        budget.free(1000);
        assert!(!budget.is_full());
    }

    #[test]
    fn a_budget_of_nothing_lets_one_through_at_a_time() {
        let mut budget = Budget::new(0);
        assert!(!budget.is_full() && budget.take(5) && !budget.take(5));
    }
}
