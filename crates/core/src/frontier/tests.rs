use proptest::prelude::*;

use super::*;
use crate::convert::RecordId;
use crate::record::{Origin, Record};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn record(seconds: i64) -> Record {
    let origin = Origin::Stream {
        stream: "s".into(),
        id: String::new(),
    };
    Record {
        time: Some(at(seconds)),
        ..Record::new("x", origin)
    }
}

fn to(seconds: i64) -> ReadTo {
    ReadTo {
        time: at(seconds),
        again_within: Duration::from_secs(10),
    }
}

/// A source with its tracker.
struct Source {
    tracker: AckTracker<()>,
    frontier: FrontierTracker,
}

impl Source {
    fn new(seed: i64) -> Source {
        Source {
            tracker: AckTracker::new(),
            frontier: FrontierTracker::new(at(seed)),
        }
    }

    fn read(&mut self, partition: u32, seconds: i64) -> RecordId {
        self.tracker.open(partition, record(seconds))
    }

    fn read_to(&mut self, partition: u32, seconds: i64) {
        self.frontier.read_to(partition, to(seconds), &self.tracker);
    }

    fn time(&mut self) -> Timestamp {
        self.frontier.frontier(&self.tracker).to.time
    }
}

#[test]
fn frontier_follows_oldest_open_record_then_read_to() {
    let mut source = Source::new(-100);
    assert_eq!(source.time(), at(-100), "nothing was read in this life");
    source.read_to(0, 0);
    assert_eq!(source.time(), at(0));
    let (first, second) = (source.read(0, 3), source.read(0, 4));
    source.read_to(0, 10);
    assert_eq!(source.time(), at(3));
    source.tracker.close(second);
    assert_eq!(source.time(), at(3), "the oldest holds");
    source.read_to(0, 20);
    assert_eq!(source.time(), at(3), "nothing more, and one is not settled");
    source.tracker.close(first);
    assert_eq!(source.time(), at(20));
}

#[test]
fn frontier_of_incomplete_page_stays_at_the_previous() {
    let mut source = Source::new(0);
    source.read_to(0, 10);
    let id = source.read(0, 14);
    source.tracker.close(id);
    assert_eq!(
        source.time(),
        at(10),
        "the rest of the window may hold more"
    );
}

#[test]
fn frontier_future_record_does_not_hide_a_stall() {
    let mut source = Source::new(0);
    source.read(0, 1_000_000);
    source.read_to(0, 10);
    assert_eq!(source.time(), at(10));
}

#[test]
fn frontier_held_by_announced_partition_not_by_retired_one() {
    let mut source = Source::new(0);
    source.frontier.announce(0);
    source.frontier.announce(1);
    source.read_to(0, 50);
    assert_eq!(source.time(), at(0), "nobody knows what 1 holds");
    source.read_to(1, 40);
    assert_eq!(source.time(), at(40));
    source.frontier.remove(1);
    assert_eq!(source.time(), at(50));
}

#[test]
fn frontier_ignores_trailing_cursors() {
    let mut source = Source::new(0);
    source.read_to(0, 50);
    source.read(1, 7);
    assert_eq!(source.time(), at(50));
    assert!(!source.frontier.counts(1));
}

#[test]
fn lag_stays_zero_until_source_is_due_then_grows() {
    let mut source = Source::new(0);
    source.read_to(0, 100);
    let lag = |source: &mut Source, now| {
        source
            .frontier
            .frontier(&source.tracker)
            .lag_seconds(at(now))
    };
    assert!(lag(&mut source, 110).abs() < f64::EPSILON);
    assert!((lag(&mut source, 111) - 11.0).abs() < f64::EPSILON);
    assert!(lag(&mut source, 90).abs() < f64::EPSILON, "clocks differ");
    source.read(0, 101);
    assert!(
        (lag(&mut source, 103) - 2.0).abs() < f64::EPSILON,
        "one is open"
    );
}

#[tokio::test(start_paused = true)]
async fn head_unknown_until_every_partition_was_read_to_it() {
    let mut source = Source::new(0);
    let now = |seconds: i64| Timestamp::now() + SignedDuration::from_secs(seconds);
    let read_to = |source: &mut Source, partition, time| {
        let to = ReadTo {
            time,
            again_within: Duration::ZERO,
        };
        source.frontier.read_to(partition, to, &source.tracker);
    };
    assert_eq!(source.frontier.head_at(), None);
    read_to(&mut source, 0, now(0));
    read_to(&mut source, 1, now(-3600));
    assert_eq!(source.frontier.head_at(), None, "1 is an hour behind");
    let first = Instant::now();
    tokio::time::advance(Duration::from_secs(7)).await;
    read_to(&mut source, 1, now(-1));
    assert_eq!(
        source.frontier.head_at(),
        Some(first),
        "the one that was looked at longest ago"
    );
}

/// A random step of a source.
#[derive(Debug, Clone)]
enum Step {
    Read(u32),
    ReadTo(u32),
    /// Settles the open record at this index, modulo their number.
    Settle(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3_u32).prop_map(Step::Read),
        2 => (0..3_u32).prop_map(Step::ReadTo),
        4 => any::<usize>().prop_map(Step::Settle),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Against a model that keeps everything: no record before the frontier is open, in whatever
    /// order, and once all are settled the frontier is where reading is.
    #[test]
    fn frontier_random_steps_have_nothing_open_before_it(steps in steps()) {
        let mut source = Source::new(0);
        let mut clock = 0;
        let mut open: Vec<(RecordId, i64)> = Vec::new();
        let mut read_to = [0; 3];
        for partition in 0..3 {
            source.read_to(partition, 0);
        }
        for step in steps {
            clock += 1;
            match step {
                Step::Read(partition) => open.push((source.read(partition, clock), clock)),
                Step::ReadTo(partition) => {
                    read_to[partition as usize] = clock;
                    source.read_to(partition, clock);
                }
                Step::Settle(place) if !open.is_empty() => {
                    let (id, _) = open.remove(place % open.len());
                    source.tracker.close(id);
                }
                Step::Settle(_) => {}
            }
            let frontier = source.time();
            let oldest = open.iter().map(|(_, time)| at(*time)).min();
            prop_assert!(oldest.is_none_or(|oldest| frontier <= oldest));
        }
        for (id, _) in open {
            source.tracker.close(id);
        }
        prop_assert_eq!(source.time(), at(*read_to.iter().min().unwrap()));
    }
}
