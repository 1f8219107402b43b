//! Limits the bytes held at a time: a reader takes a permit for the largest possible size first,
//! and returns the excess once it knows the size.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes per semaphore permit.
const UNIT_BYTES: usize = 1 << 10;

/// The byte budget that all shards of the process share.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    total: usize,
}

/// Permits to hold bytes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Option<OwnedSemaphorePermit>);

impl Budget {
    pub(crate) fn new(bytes: usize) -> Budget {
        let total = units(bytes);
        Budget {
            units: Arc::new(Semaphore::new(total)),
            total,
        }
    }

    /// Waits until this many bytes may be held; a request above the total takes the total.
    pub(crate) async fn take(&self, bytes: usize) -> Permit {
        let wanted = u32::try_from(units(bytes).min(self.total)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        Permit(
            Arc::clone(&self.units)
                .acquire_many_owned(wanted)
                .await
                .ok(),
        )
    }
}

impl Permit {
    /// Returns what exceeds this many bytes.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            let unneeded = permit.num_permits().saturating_sub(units(bytes));
            drop(permit.split(unneeded));
        }
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn budget_with_shrunk_permit_admits_others() {
        let budget = Budget::new(10 << 20);
        let mut first = budget.take(usize::MAX).await;
        let mut second = std::pin::pin!(budget.take(4 << 20));
        let waits = tokio::time::timeout(std::time::Duration::from_millis(1), second.as_mut());
        assert!(waits.await.is_err());
        first.shrink(6 << 20);
        let second = second.await;
        first.shrink(usize::MAX);
        drop((first, second));
        drop(budget.take(10 << 20).await);
    }
}
