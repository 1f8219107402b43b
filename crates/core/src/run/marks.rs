//! Which positions are reached: those whose records, and all before them, are settled.

use std::collections::VecDeque;

use crate::source::Position;

/// The positions that pages brought, waiting for their records.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// By partition.
    partitions: Vec<Partition>,
}

#[derive(Debug, Default)]
struct Partition {
    /// Records that were read so far.
    records: u64,
    /// How many records must be settled, and the position that is reached then.
    waiting: VecDeque<(u64, Position)>,
}

impl Marks {
    /// A page came, with so many records and perhaps a position behind them.
    pub(super) fn page(&mut self, partition: u32, records: u64, position: Option<Position>) {
        let index = partition as usize;
        if index >= self.partitions.len() {
            self.partitions.resize_with(index + 1, Partition::default);
        }
        let place = &mut self.partitions[index];
        place.records += records;
        if let Some(position) = position {
            // Nothing came in between: the newer position holds for the same records.
            if place
                .waiting
                .back()
                .is_some_and(|(after, _)| *after == place.records)
            {
                place.waiting.pop_back();
            }
            place.waiting.push_back((place.records, position));
        }
    }

    /// The newest position of every partition that is reached, given how many of its records are
    /// settled without a gap.
    pub(super) fn reached(&mut self, settled: impl Fn(u32) -> u64) -> Vec<(u32, Position)> {
        let mut reached = Vec::new();
        for (partition, place) in (0..).zip(&mut self.partitions) {
            if place.waiting.is_empty() {
                continue;
            }
            let settled = settled(partition);
            let mut newest = None;
            while let Some((after, _)) = place.waiting.front()
                && *after <= settled
            {
                newest = place.waiting.pop_front().map(|(_, position)| position);
            }
            reached.extend(newest.map(|position| (partition, position)));
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_reached_when_all_before_it_is_settled() {
        let mut marks = Marks::default();
        marks.page(1, 3, Some("a".into()));
        marks.page(1, 2, None);
        marks.page(1, 1, Some("b".into()));
        marks.page(1, 0, Some("c".into()));
        marks.page(0, 0, Some("z".into()));
        let settled = |count| move |partition| if partition == 1 { count } else { 0 };
        assert_eq!(
            marks.reached(settled(2)),
            [(0, "z".into())],
            "nothing had to be settled"
        );
        assert_eq!(marks.reached(settled(5)), [(1, "a".into())]);
        assert_eq!(
            marks.reached(settled(6)),
            [(1, "c".into())],
            "the newest of two"
        );
        assert_eq!(marks.reached(settled(6)), []);
        marks.page(1, 0, Some("d".into()));
        assert_eq!(
            marks.reached(settled(6)),
            [(1, "d".into())],
            "an idle partition moves on"
        );
    }
}
