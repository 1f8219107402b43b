//! Joins a tail with a second one over the same log, which looks for what the first cannot find,
//! into one source with the partitions of both.

use audit_bridge_core::source::{Page, PartitionChange, Source, StoredPositions};

/// The first partition of the second source: a tail never has this many cursors.
const SECOND: u32 = 1 << 16;

/// Two sources as one. It ends with the first. The second reports no lag, as the first reads the
/// log's head.
#[derive(Debug)]
pub struct Paired<A, B> {
    first: A,
    second: Option<B>,
    second_ended: bool,
}

impl<A, B> Paired<A, B> {
    /// Pairs two sources, of which the second may be absent.
    pub fn new(first: A, second: Option<B>) -> Paired<A, B> {
        Paired {
            first,
            second,
            second_ended: false,
        }
    }
}

/// Splits a checkpoint's positions between the two.
pub fn split_positions(positions: StoredPositions) -> (StoredPositions, StoredPositions) {
    let (first, second): (StoredPositions, StoredPositions) =
        positions.into_iter().partition(|(at, _)| *at < SECOND);
    let second = second
        .into_iter()
        .map(|(at, position)| (at - SECOND, position));
    (first, second.collect())
}

fn of_second<P>(page: Page<P>) -> Page<P> {
    let partitions = page.partitions.into_iter().map(|change| match change {
        PartitionChange::Announced(at) => PartitionChange::Announced(at + SECOND),
        PartitionChange::Retired(at) => PartitionChange::Retired(at + SECOND),
        PartitionChange::Left(at) => PartitionChange::Left(at + SECOND),
    });
    Page {
        partition: page.partition + SECOND,
        partitions: partitions.collect(),
        read_to: None,
        ..page
    }
}

impl<A: Source, B: Source<Position = A::Position>> Source for Paired<A, B> {
    type Position = A::Position;

    async fn read(&mut self) -> Option<Page<A::Position>> {
        loop {
            let second = self.second.as_mut().filter(|_| !self.second_ended);
            let Some(second) = second else {
                return self.first.read().await;
            };
            // Both reads are cancel-safe.
            tokio::select! {
                page = self.first.read() => return page,
                page = second.read() => match page {
                    Some(page) => return Some(of_second(page)),
                    None => self.second_ended = true,
                },
            }
        }
    }

    fn commit(&mut self, partition: u32, position: &A::Position) {
        match (partition.checked_sub(SECOND), &mut self.second) {
            (None, _) => self.first.commit(partition, position),
            (Some(partition), Some(second)) => second.commit(partition, position),
            (Some(_), None) => {}
        }
    }

    async fn close(&mut self) {
        self.first.close().await;
        if let Some(second) = &mut self.second {
            second.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use audit_bridge_core::source::ReadTo;

    /// Returns this many pages, and then ends or waits for ever.
    struct Toy {
        pages: u32,
        ends: bool,
        committed: Vec<u32>,
    }

    impl Source for Toy {
        type Position = u64;

        async fn read(&mut self) -> Option<Page<u64>> {
            match self.pages.checked_sub(1) {
                Some(left) => self.pages = left,
                None if self.ends => return None,
                None => std::future::pending().await,
            }
            Some(Page {
                partition: 2,
                read_to: Some(ReadTo {
                    time: Timestamp::UNIX_EPOCH,
                    again_within: std::time::Duration::ZERO,
                }),
                partitions: vec![PartitionChange::Retired(3)],
                ..Page::default()
            })
        }

        fn commit(&mut self, partition: u32, _: &u64) {
            self.committed.push(partition);
        }
    }

    fn toy(pages: u32, ends: bool) -> Toy {
        Toy {
            pages,
            ends,
            committed: Vec::new(),
        }
    }

    #[tokio::test]
    async fn paired_sources_have_partitions_of_their_own_and_end_with_the_first() {
        let mut paired = Paired::new(toy(3, false), Some(toy(3, true)));
        let (mut first, mut second) = (0, 0);
        for _ in 0..6 {
            let page = paired.read().await.unwrap();
            match page.partition {
                2 => {
                    first += 1;
                    assert!(page.read_to.is_some());
                }
                partition => {
                    second += 1;
                    assert_eq!(partition, SECOND + 2);
                    assert_eq!(page.read_to, None, "the head of the log is the first's");
                    assert_eq!(page.partitions, [PartitionChange::Retired(SECOND + 3)]);
                }
            }
            paired.commit(page.partition, &1);
        }
        assert_eq!((first, second), (3, 3));
        assert_eq!(paired.first.committed, [2; 3]);
        let second = paired.second.as_ref().map(|it| it.committed.clone());
        assert_eq!(
            second.unwrap_or_default(),
            [2; 3],
            "also what it gave before its end"
        );
        // The end of the second is not the end of the pair.
        let wait = std::time::Duration::from_millis(10);
        assert!(tokio::time::timeout(wait, paired.read()).await.is_err());
        let mut paired = Paired::new(toy(1, true), Some(toy(0, false)));
        assert!(paired.read().await.is_some());
        assert!(paired.read().await.is_none());
    }

    #[test]
    fn positions_of_both_are_told_apart() {
        let positions = [(0, json!(1)), (2, json!(2)), (SECOND, json!(3))];
        let (first, second) = split_positions(positions.into());
        assert_eq!(first, [(0, json!(1)), (2, json!(2))].into());
        assert_eq!(second, [(0, json!(3))].into());
    }
}
