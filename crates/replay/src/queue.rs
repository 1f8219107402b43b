//! Which input is read next, and which records of all are left out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::position::InputPartition;

/// The inputs that no reader has taken yet, in their order.
pub(super) struct Queue(Mutex<Waiting>);

struct Waiting {
    inputs: std::vec::IntoIter<InputPartition>,
    /// Records to leave out, over all inputs in their order.
    skip_records: u64,
}

/// Records to leave out. While some are left, no other input is begun: how many an input takes of
/// them is known when it is read.
pub(super) struct SkipCount<'a>(Option<MutexGuard<'a, Waiting>>);

impl Queue {
    pub(super) fn new(inputs: Vec<InputPartition>, skip_records: u64) -> Queue {
        Queue(Mutex::new(Waiting {
            inputs: inputs.into_iter(),
            skip_records,
        }))
    }

    /// The next input, once it is known how many records are left out of it.
    pub(super) fn next(&self) -> Option<(InputPartition, SkipCount<'_>)> {
        // A reader that failed left nothing half done here.
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let input = waiting.inputs.next()?;
        let skip = (waiting.skip_records > 0).then_some(waiting);
        Some((input, SkipCount(skip)))
    }
}

impl SkipCount<'_> {
    /// Whether one more record is left out.
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
