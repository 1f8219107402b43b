//! Distributes the inputs to readers, and counts the records to skip.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::position::InputPartition;

/// The inputs that no reader has taken yet, in their order.
pub(super) struct Queue(Mutex<Waiting>);

struct Waiting {
    inputs: std::vec::IntoIter<InputPartition>,
    /// The number of records to skip, over all inputs in their order.
    skip_records: u64,
}

/// Counts the records to skip. While some are left it holds the lock, so no other input is begun:
/// how many an input uses up is known only when it is read.
pub(super) struct SkipCount<'a>(Option<MutexGuard<'a, Waiting>>);

impl Queue {
    pub(super) fn new(inputs: Vec<InputPartition>, skip_records: u64) -> Queue {
        Queue(Mutex::new(Waiting {
            inputs: inputs.into_iter(),
            skip_records,
        }))
    }

    /// Waits until it is known how many records are skipped in it, and returns the next input.
    pub(super) fn next(&self) -> Option<(InputPartition, SkipCount<'_>)> {
        // A reader that panicked leaves this state consistent.
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let input = waiting.inputs.next()?;
        let skip = (waiting.skip_records > 0).then_some(waiting);
        Some((input, SkipCount(skip)))
    }
}

impl SkipCount<'_> {
    /// Whether one more record is skipped.
    pub(super) fn takes_one(&mut self) -> bool {
        let Some(waiting) = &mut self.0 else {
            return false;
        };
        waiting.skip_records -= 1;
        if waiting.skip_records == 0 {
            self.0 = None;
        }
        true
    }
}
