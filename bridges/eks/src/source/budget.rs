//! How many bytes may be held at a time: a permit is taken before they come, and given back as far
//! as they turn out to be fewer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A permit counts these.
const UNIT_BYTES: usize = 1 << 10;

/// Bytes that all shards of the process share.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    total: usize,
}

/// The right to hold so many bytes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Option<OwnedSemaphorePermit>);

impl Budget {
    /// So many bytes.
    pub(crate) fn new(bytes: usize) -> Budget {
        let total = units(bytes);
        Budget {
            units: Arc::new(Semaphore::new(total)),
            total,
        }
    }

    /// Waits until so many bytes may be held; more than all counts as all.
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
    /// They are no more than so many.
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
