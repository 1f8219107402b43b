use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::record::Origin;

fn record(number: u64) -> Record {
    Record::new(
        number.to_string(),
        Origin::Stream {
            stream: "s".into(),
            id: number.to_string(),
        },
    )
}

/// A record in the naive model.
#[derive(Debug, Clone, Copy)]
struct Model {
    partition: u32,
    outstanding: u32,
    closed: bool,
}

impl Model {
    fn settled(self) -> bool {
        self.closed && self.outstanding == 0
    }
}

fn naive(model: &BTreeMap<RecordId, Model>, partition: u32) -> Watermark {
    let mut watermark = Watermark::default();
    for (id, record) in model.iter().filter(|(_, r)| r.partition == partition) {
        if !record.settled() {
            break;
        }
        watermark.settled += 1;
        watermark.last = Some(*id);
    }
    watermark
}

#[derive(Debug, Clone)]
enum Step {
    Open(u32),
    Add(usize, u32),
    Settle(usize),
    Close(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u32..3).prop_map(Step::Open),
        2 => (any::<usize>(), 0_u32..3).prop_map(|(at, n)| Step::Add(at, n)),
        3 => any::<usize>().prop_map(Step::Settle),
        3 => any::<usize>().prop_map(Step::Close),
    ]
}

proptest! {
    #[test]
    fn ack_tracker_random_steps_agree_with_naive_model(steps in proptest::collection::vec(step(), 0..300)) {
        let mut tracker = AckTracker::<u64>::new();
        let mut model: BTreeMap<RecordId, Model> = BTreeMap::new();
        let mut read = 0;
        for step in steps {
            let open: Vec<RecordId> =
                model.iter().filter(|(_, r)| !r.settled()).map(|(id, _)| *id).collect();
            let pick = |at: usize| (!open.is_empty()).then(|| open[at % open.len()]);
            match step {
                Step::Open(partition) => {
                    let id = tracker.open(partition, record(read));
                    prop_assert!(model.keys().last().is_none_or(|last| *last < id));
                    read += 1;
                    model.insert(id, Model { partition, outstanding: 0, closed: false });
                }
                Step::Add(at, events) => if let Some(id) = pick(at) {
                    tracker.add(id, events);
                    model.get_mut(&id).expect("known").outstanding += events;
                },
                Step::Settle(at) => if let Some(id) = pick(at)
                    && model[&id].outstanding > 0
                {
                    let want = cost(tracker.get(id).expect("open"));
                    let freed = tracker.settle(id);
                    let known = model.get_mut(&id).expect("known");
                    known.outstanding -= 1;
                    prop_assert_eq!(freed, if known.settled() { want } else { 0 });
                },
                Step::Close(at) => if let Some(id) = pick(at) {
                    let want = cost(tracker.get(id).expect("open"));
                    let freed = tracker.close(id);
                    let known = model.get_mut(&id).expect("known");
                    known.closed = true;
                    prop_assert_eq!(freed, if known.settled() { want } else { 0 });
                },
            }
            for partition in 0..4 {
                prop_assert_eq!(tracker.watermark(partition), naive(&model, partition));
            }
            let open = model.values().filter(|r| !r.settled()).count();
            prop_assert_eq!(tracker.open_records(), open);
            prop_assert_eq!(tracker.open_records() == 0, tracker.open_bytes() == 0);
            for (id, known) in &model {
                prop_assert_eq!(tracker.get(*id).is_some(), !known.settled());
            }
        }
    }
}

#[test]
fn ack_tracker_record_stays_open_memory_stays_flat() {
    let mut tracker = AckTracker::<u64>::new();
    let stuck = [tracker.open(0, record(0)), tracker.open(1, record(1))];
    for number in 2..100_000 {
        let id = tracker.open(0, record(number));
        tracker.add(id, 1);
        tracker.close(id);
        assert!(tracker.settle(id) > 0);
    }
    assert_eq!(tracker.open_records(), 2);
    assert!(
        tracker.queue.len() <= QUEUE_LEN_MIN,
        "{}",
        tracker.queue.len()
    );
    assert_eq!(tracker.watermark(0), Watermark::default());
    assert_eq!(tracker.get(stuck[0]), Some(&record(0)));
    tracker.close(stuck[0]);
    assert_eq!(tracker.watermark(0).settled, 99_999);
    assert_eq!(tracker.watermark(0).last, Some(RecordId(99_999)));
    assert_eq!(tracker.watermark(1).settled, 0);
    tracker.close(stuck[1]);
    assert_eq!(tracker.watermark(1).last, Some(stuck[1]));
    assert!(tracker.open_records() == 0 && tracker.open_bytes() == 0);
}

#[test]
fn ack_tracker_long_window_settled_backwards_reaches_the_end() {
    let mut tracker = AckTracker::<u64>::new();
    let ids: Vec<RecordId> = (0..20_000_u64)
        .map(|n| tracker.open(u32::from(n % 2 == 1), record(n)))
        .collect();
    for id in ids.iter().skip(1).rev() {
        assert!(tracker.close(*id) > 0);
    }
    assert_eq!(tracker.watermark(0).settled, 0);
    assert_eq!(tracker.watermark(1).settled, 10_000);
    tracker.close(ids[0]);
    assert_eq!(tracker.watermark(0).settled, 10_000);
    assert_eq!(tracker.watermark(0).last, Some(RecordId(19_998)));
}

#[test]
#[should_panic(expected = "settled without an outstanding event")]
#[cfg(debug_assertions)]
fn ack_tracker_record_settled_twice_panics() {
    let mut tracker = AckTracker::<u64>::new();
    let id = tracker.open(0, record(0));
    tracker.add(id, 1);
    tracker.settle(id);
    tracker.settle(id);
}

#[test]
#[should_panic(expected = "which is not open")]
#[cfg(debug_assertions)]
fn ack_tracker_unknown_id_panics() {
    AckTracker::<u64>::new().close(RecordId(3));
}

/// Opens this many records of a partition.
fn open(tracker: &mut AckTracker<u64>, partition: u32, records: u64) -> Vec<RecordId> {
    (0..records)
        .map(|number| tracker.open(partition, record(number)))
        .collect()
}

#[test]
fn position_reached_once_all_before_it_is_settled() {
    use PartitionProgress::{Announced, Reached};
    let mut tracker = AckTracker::<u64>::new();
    let ids = open(&mut tracker, 1, 3);
    tracker.take_position(1, 30);
    let more = open(&mut tracker, 1, 3);
    tracker.take_position(1, 60);
    tracker.take_position(1, 61);
    tracker.take_position(0, 7);
    let started = [Announced(1), Announced(0), Reached(0, 7)];
    assert_eq!(tracker.progress(), started, "nothing had to be settled");
    tracker.close(ids[1]);
    tracker.close(ids[2]);
    assert_eq!(tracker.progress(), []);
    assert_eq!(tracker.settled()[&1], 0);
    tracker.close(ids[0]);
    assert_eq!(tracker.progress(), [Reached(1, 30)]);
    assert_eq!(tracker.settled()[&1], 3);
    more.into_iter().for_each(|id| {
        tracker.close(id);
    });
    assert_eq!(tracker.progress(), [Reached(1, 61)], "the newest of two");
    assert_eq!(tracker.progress(), []);
    tracker.take_position(1, 62);
    assert_eq!(tracker.progress(), [Reached(1, 62)], "an idle one moves on");
    assert_eq!(tracker.settled()[&1], 6);
}

#[test]
fn positions_behind_a_record_that_stays_open_are_bounded_and_the_newest_stays() {
    let mut tracker = AckTracker::<u64>::new();
    let first = open(&mut tracker, 0, 1)[0];
    for number in 1..=10_001 {
        for id in open(&mut tracker, 0, 1) {
            tracker.close(id);
        }
        tracker.take_position(0, number);
        assert!(tracker.partitions[&0].waiting.len() <= POSITIONS_WAITING_MAX);
    }
    let reached = |progress: Vec<PartitionProgress<u64>>| {
        let reached = |it: &PartitionProgress<u64>| matches!(it, PartitionProgress::Reached(..));
        progress.into_iter().filter(reached).collect::<Vec<_>>()
    };
    assert!(reached(tracker.progress()).is_empty());
    tracker.close(first);
    let newest = PartitionProgress::Reached(0, 10_001);
    assert_eq!(reached(tracker.progress()), [newest]);
}

#[test]
fn record_settled_is_told_whatever_is_open_before_it() {
    let mut tracker = AckTracker::<u64>::new();
    let untold = open(&mut tracker, 0, 1)[0];
    tracker.close(untold);
    assert!(tracker.take_settled().is_empty(), "nobody asked");
    tracker.tell_each();
    let ids = open(&mut tracker, 0, 3);
    let other = open(&mut tracker, 7, 1)[0];
    tracker.add(ids[2], 2);
    tracker.close(ids[2]);
    tracker.close(other);
    tracker.close(ids[1]);
    tracker.settle(ids[2]);
    assert_eq!(tracker.take_settled(), [(7, 0), (0, 2)]);
    tracker.settle(ids[2]);
    assert_eq!(tracker.take_settled(), [(0, 3)]);
    assert!(tracker.take_settled().is_empty());
}

#[test]
fn partition_retired_stays_until_all_of_it_is_settled() {
    use PartitionProgress::{Announced, Reached, Retired};
    let mut tracker = AckTracker::<u64>::new();
    let ids = open(&mut tracker, 3, 2);
    tracker.take_position(3, 1);
    tracker.retire(3);
    assert_eq!(tracker.progress(), [Announced(3)]);
    tracker.close(ids[0]);
    assert_eq!(tracker.progress(), []);
    tracker.close(ids[1]);
    assert_eq!(tracker.progress(), [Reached(3, 1), Retired(3)]);
    // A retired partition may come back, and announcing one cancels its retirement.
    let id = open(&mut tracker, 3, 1)[0];
    tracker.retire(3);
    tracker.announce(3);
    tracker.close(id);
    assert_eq!(tracker.progress(), [Announced(3)]);
}

proptest! {
    /// Partitions come and go, and records settle in any order: progress is never ahead of what is
    /// settled, and at the end all of it is reached and retired.
    #[test]
    fn ack_tracker_progress_is_never_ahead_of_settled_records(
        steps in prop::collection::vec((0_u8..5, 0_u32..4, any::<prop::sample::Index>()), 1..200),
    ) {
        let mut tracker = AckTracker::<u64>::new();
        // Per partition, the IDs since its last retirement, in order.
        let mut lives = BTreeMap::<u32, Vec<RecordId>>::new();
        let mut open = Vec::new();
        let mut retired = BTreeSet::new();
        let check = |tracker: &mut AckTracker<u64>,
                         lives: &mut BTreeMap<u32, Vec<RecordId>>,
                         retired: &mut BTreeSet<u32>| {
            for progress in tracker.progress() {
                match progress {
                    PartitionProgress::Announced(_) => {}
                    PartitionProgress::Reached(partition, upto) => {
                        let all = lives.entry(partition).or_default();
                        for id in &all[..usize::try_from(upto).unwrap()] {
                            assert!(tracker.get(*id).is_none(), "{id:?} is open");
                        }
                    }
                    PartitionProgress::Retired(partition) => {
                        assert!(retired.remove(&partition));
                        let all = lives.remove(&partition).unwrap_or_default();
                        assert!(all.iter().all(|id| tracker.get(*id).is_none()));
                    }
                }
            }
        };
        for (step, partition, index) in steps {
            match step {
                0 | 1 => {
                    let id = tracker.open(partition, record(0));
                    open.push(id);
                    lives.entry(partition).or_default().push(id);
                }
                2 => {
                    let opened = lives.entry(partition).or_default().len() as u64;
                    tracker.take_position(partition, opened);
                }
                3 if !open.is_empty() => {
                    let id = open.swap_remove(index.index(open.len()));
                    tracker.close(id);
                }
                4 => {
                    tracker.retire(partition);
                    retired.insert(partition);
                }
                _ => {}
            }
            check(&mut tracker, &mut lives, &mut retired);
        }
        for id in open {
            tracker.close(id);
        }
        check(&mut tracker, &mut lives, &mut retired);
        prop_assert!(retired.is_empty() && tracker.open_records() == 0);
    }
}
