//! Which messages are open, and which were met before.
//!
//! Pub/Sub may send a message again at any time: its lease was lost, or its acknowledgment. One
//! that is settled is acknowledged at once; one that is still under way shares the fate of its
//! first copy.

use std::collections::{BTreeMap, HashMap, VecDeque};

use audit_bridge_tail::Identity;

/// What became of a message that came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Met<H> {
    /// It is new.
    New,
    /// It is under way already.
    Open,
    /// It was settled before: here is the way to acknowledge it again.
    Settled(H),
}

/// The messages of one subscription; `H` is what acknowledges one.
#[derive(Debug)]
pub(super) struct Ledger<H> {
    /// Messages that were given out, the last one's number.
    given: u64,
    /// All up to this number are settled.
    settled: u64,
    open: BTreeMap<u64, Vec<H>>,
    numbers: HashMap<Identity, u64>,
    /// Oldest first.
    remembered: VecDeque<Identity>,
    remembered_max: usize,
}

impl<H> Ledger<H> {
    /// A ledger that goes on counting from here, and remembers so many messages.
    pub(super) fn new(given: u64, remembered_max: usize) -> Ledger<H> {
        Ledger {
            given,
            settled: given,
            open: BTreeMap::new(),
            numbers: HashMap::new(),
            remembered: VecDeque::new(),
            remembered_max,
        }
    }

    /// Enters a message.
    pub(super) fn meet(&mut self, identity: Identity, handler: H) -> Met<H> {
        if let Some(&number) = self.numbers.get(&identity) {
            return match self.open.get_mut(&number) {
                Some(handlers) => {
                    handlers.push(handler);
                    Met::Open
                }
                None => Met::Settled(handler),
            };
        }
        self.given += 1;
        self.open.insert(self.given, vec![handler]);
        self.numbers.insert(identity, self.given);
        self.remembered.push_back(identity);
        self.forget();
        Met::New
    }

    /// The number of the last message that was given out.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Messages that are not settled.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// All messages up to this number are settled: what acknowledges them.
    pub(super) fn settle(&mut self, number: u64) -> impl Iterator<Item = H> + use<H> {
        self.settled = self.settled.max(number);
        let rest = self.open.split_off(&number.saturating_add(1));
        let settled = std::mem::replace(&mut self.open, rest);
        self.forget();
        settled.into_values().flatten()
    }

    /// Keeps what is remembered within its limit. What is open stays.
    fn forget(&mut self) {
        while self.remembered.len() > self.remembered_max
            && let Some(oldest) = self.remembered.front()
            && self
                .numbers
                .get(oldest)
                .is_none_or(|&number| number <= self.settled)
        {
            self.numbers.remove(oldest);
            self.remembered.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> Identity {
        Identity::of(&[&n.to_le_bytes()])
    }

    #[test]
    fn a_message_that_comes_again_shares_the_fate_of_the_first() {
        let mut ledger = Ledger::new(10, 100);
        assert_eq!(ledger.meet(id(1), "1"), Met::New);
        assert_eq!(ledger.meet(id(2), "2"), Met::New);
        assert_eq!(ledger.meet(id(1), "1 again"), Met::Open);
        assert_eq!(ledger.given(), 12);
        assert_eq!(ledger.settle(11).collect::<Vec<_>>(), ["1", "1 again"]);
        assert_eq!(ledger.meet(id(1), "late"), Met::Settled("late"));
        assert_eq!(ledger.open(), 1);
        assert_eq!(ledger.settle(12).collect::<Vec<_>>(), ["2"]);
        assert_eq!(ledger.settle(12).count() + ledger.open(), 0);
        // A position of an earlier life settles nothing.
        assert_eq!(ledger.meet(id(3), "3"), Met::New);
        assert_eq!(ledger.settle(10).count(), 0);
        assert_eq!(ledger.open(), 1);
    }

    #[test]
    fn what_is_settled_is_forgotten_in_time_and_what_is_open_is_not() {
        let mut ledger = Ledger::new(0, 3);
        for n in 1..=10 {
            assert_eq!(ledger.meet(id(n), n), Met::New);
        }
        assert_eq!(ledger.meet(id(1), 101), Met::Open, "all are open");
        assert_eq!(ledger.settle(9).count(), 10);
        assert_eq!(ledger.meet(id(10), 110), Met::Open);
        assert_eq!(ledger.meet(id(8), 108), Met::Settled(108));
        assert_eq!(ledger.meet(id(7), 107), Met::New, "forgotten");
        assert!(ledger.numbers.len() <= 4);
    }
}
