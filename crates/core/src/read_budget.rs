//! Limits the bytes that all readers of a process hold together.
//!
//! A reader waits for room before each poll and reports what it holds afterwards, because the size
//! of the next page is unknown. So the limit is exceeded by what one reader takes at a time, and
//! not by a page for each of many readers that waited together.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use tokio::sync::Notify;

/// A byte budget that all readers share; clones share it, too.
#[derive(Debug, Clone)]
pub struct ReadBudget {
    bytes_max: usize,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    held: AtomicUsize,
    freed: Notify,
}

/// The bytes that one reader holds of a budget, until dropped.
#[derive(Debug)]
pub struct HeldBytes {
    budget: ReadBudget,
    bytes: usize,
}

impl ReadBudget {
    /// A budget of this many bytes.
    pub fn new(bytes_max: usize) -> ReadBudget {
        ReadBudget {
            bytes_max,
            shared: Arc::default(),
        }
    }

    /// Holds this many bytes, even beyond the limit.
    pub fn hold(&self, bytes: usize) -> HeldBytes {
        self.shared.held.fetch_add(bytes, Ordering::AcqRel);
        HeldBytes {
            budget: self.clone(),
            bytes,
        }
    }

    /// Whether more may be read.
    pub fn has_room(&self) -> bool {
        self.shared.held.load(Ordering::Acquire) < self.bytes_max
    }

    /// Polls `read` only while there is room, so it does not finish while there is none. With
    /// `at_least` it is polled in any case: for a reader that holds nothing, so that each makes
    /// progress.
    pub async fn read<T>(&self, at_least: bool, read: impl Future<Output = T>) -> T {
        let mut read = pin!(read);
        let mut freed = pin!(self.shared.freed.notified());
        poll_fn(|cx| {
            while !at_least && !self.has_room() {
                // Registers for the wake-up before it checks again, so that none is missed.
                if freed.as_mut().poll(cx).is_pending() {
                    match self.has_room() {
                        true => break,
                        false => return Poll::Pending,
                    }
                }
                freed.set(self.shared.freed.notified());
            }
            read.as_mut().poll(cx)
        })
        .await
    }
}

impl HeldBytes {
    /// Changes how many bytes are held.
    pub fn set(&mut self, bytes: usize) {
        let held = &self.budget.shared.held;
        if bytes >= self.bytes {
            held.fetch_add(bytes - self.bytes, Ordering::AcqRel);
        } else {
            let freed = self.bytes - bytes;
            let before = held.fetch_sub(freed, Ordering::AcqRel);
            let bytes_max = self.budget.bytes_max;
            if before >= bytes_max && before - freed < bytes_max {
                self.budget.shared.freed.notify_waiters();
            }
        }
        self.bytes = bytes;
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn read_waits_without_room_and_goes_on_once_bytes_are_freed() {
        let budget = ReadBudget::new(10);
        let mut first = budget.hold(9);
        assert_eq!(budget.read(false, async { 1 }).await, 1);
        let second = budget.hold(9);
        let mut read = pin!(budget.read(false, async { 2 }));
        assert!(timeout(SOON, read.as_mut()).await.is_err());
        first.set(3);
        assert!(timeout(SOON, read.as_mut()).await.is_err(), "12 of 10");
        drop(second);
        assert_eq!(read.await, 2);
        assert_eq!(budget.shared.held.load(Ordering::Acquire), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn read_at_least_needs_no_room() {
        let budget = ReadBudget::new(0);
        assert_eq!(budget.read(true, async { 1 }).await, 1);
        let read = budget.read(false, async { 2 });
        assert!(timeout(SOON, read).await.is_err());
    }

    /// However many readers wait, the budget is exceeded by one page only.
    #[tokio::test(start_paused = true)]
    async fn readers_that_wait_together_exceed_the_budget_by_one_page() {
        let budget = ReadBudget::new(10);
        let full = budget.hold(10);
        let (held, mut taken) = mpsc::unbounded_channel();
        for _ in 0..32 {
            let (budget, held) = (budget.clone(), held.clone());
            tokio::spawn(async move {
                // The page is available, but not taken before there is room for it.
                let page = budget.read(false, async { budget.hold(4) }).await;
                let _ = held.send(page);
            });
        }
        drop((full, held));
        let (mut pages, mut most) = (Vec::new(), 0);
        for read in 1..=32 {
            while let Ok(Some(page)) = timeout(SOON, taken.recv()).await {
                pages.push(page);
            }
            most = most.max(pages.len());
            assert!(!pages.is_empty(), "page {read} never came");
            pages.pop();
        }
        assert_eq!(most, 3, "8 of 10 leave room for one more");
        assert!(pages.is_empty());
        assert_eq!(budget.shared.held.load(Ordering::Acquire), 0);
    }
}
