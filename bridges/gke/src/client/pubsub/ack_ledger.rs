//! Tracks open messages, and recognises redeliveries.
//!
//! Pub/Sub may redeliver a message at any time, if its lease or its acknowledgment was lost. A
//! settled message is acknowledged again at once; one in flight is acknowledged together with its
//! first copy.

use std::collections::{BTreeMap, HashMap, VecDeque};

use audit_bridge_tail::Identity;

/// Whether a message is new or a redelivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission<H> {
    New,
    /// It is in flight already.
    Open,
    /// It was settled before; acknowledge it again with this handler.
    Settled(H),
}

/// The messages of a subscription; `H` acknowledges one.
#[derive(Debug)]
pub(super) struct AckLedger<H> {
    /// The number of the last message that was admitted.
    given: u64,
    open: BTreeMap<u64, Vec<H>>,
    numbers: HashMap<Identity, u64>,
    /// Oldest first.
    remembered: VecDeque<Identity>,
    remembered_max: usize,
}

impl<H> AckLedger<H> {
    /// A ledger that continues counting after `given`, and remembers at most `remembered_max`
    /// messages.
    pub(super) fn new(given: u64, remembered_max: usize) -> AckLedger<H> {
        AckLedger {
            given,
            open: BTreeMap::new(),
            numbers: HashMap::new(),
            remembered: VecDeque::new(),
            remembered_max,
        }
    }

    /// Registers a message, unless it is a redelivery.
    pub(super) fn admit(&mut self, identity: Identity, handler: H) -> Admission<H> {
        if let Some(&number) = self.numbers.get(&identity) {
            return match self.open.get_mut(&number) {
                Some(handlers) => {
                    handlers.push(handler);
                    Admission::Open
                }
                None => Admission::Settled(handler),
            };
        }
        self.given += 1;
        self.open.insert(self.given, vec![handler]);
        self.numbers.insert(identity, self.given);
        self.remembered.push_back(identity);
        self.forget();
        Admission::New
    }

    /// The number of the last message that was admitted.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// The number of messages that are not settled.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Settles all messages up to this number; returns their handlers.
    pub(super) fn settle(&mut self, number: u64) -> impl Iterator<Item = H> + use<H> {
        let rest = self.open.split_off(&number.saturating_add(1));
        let settled = std::mem::replace(&mut self.open, rest);
        self.forget();
        settled.into_values().flatten()
    }

    /// Settles the message of this number, whatever is open before it; returns its handlers.
    pub(super) fn settle_one(&mut self, number: u64) -> Vec<H> {
        self.open.remove(&number).unwrap_or_default()
    }

    /// Forgets the oldest messages above the limit, but none that are open.
    fn forget(&mut self) {
        while self.remembered.len() > self.remembered_max.max(self.open.len())
            && let Some(oldest) = self.remembered.pop_front()
        {
            let number = self.numbers.get(&oldest);
            if number.is_some_and(|number| self.open.contains_key(number)) {
                // It may stay open for long; move it out of the way of those after it.
                self.remembered.push_back(oldest);
            } else {
                self.numbers.remove(&oldest);
            }
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
    fn ack_ledger_redelivered_message_shares_the_first_ones_fate() {
        let mut ack_ledger = AckLedger::new(10, 100);
        assert_eq!(ack_ledger.admit(id(1), "1"), Admission::New);
        assert_eq!(ack_ledger.admit(id(2), "2"), Admission::New);
        assert_eq!(ack_ledger.admit(id(1), "1 again"), Admission::Open);
        assert_eq!(ack_ledger.given(), 12);
        assert_eq!(ack_ledger.settle(11).collect::<Vec<_>>(), ["1", "1 again"]);
        assert_eq!(ack_ledger.admit(id(1), "late"), Admission::Settled("late"));
        assert_eq!(ack_ledger.open(), 1);
        assert_eq!(ack_ledger.settle(12).collect::<Vec<_>>(), ["2"]);
        assert_eq!(ack_ledger.settle(12).count() + ack_ledger.open(), 0);
        // A position of an earlier process settles nothing.
        assert_eq!(ack_ledger.admit(id(3), "3"), Admission::New);
        assert_eq!(ack_ledger.settle(10).count(), 0);
        assert_eq!(ack_ledger.open(), 1);
    }

    #[test]
    fn ack_ledger_message_that_stays_open_holds_no_other() {
        let mut ack_ledger = AckLedger::new(0, 10);
        assert_eq!(ack_ledger.admit(id(0), 0), Admission::New);
        for n in 1..=1000 {
            assert_eq!(ack_ledger.admit(id(n), n), Admission::New);
            assert_eq!(ack_ledger.settle_one(n + 1), [n]);
            assert!(ack_ledger.settle_one(n + 1).is_empty(), "once");
        }
        assert_eq!(ack_ledger.open(), 1);
        assert!(ack_ledger.numbers.len() <= 11 && ack_ledger.remembered.len() <= 11);
        assert_eq!(ack_ledger.admit(id(0), 2000), Admission::Open);
        assert_eq!(ack_ledger.admit(id(1000), 7), Admission::Settled(7));
        assert_eq!(ack_ledger.settle(1001).collect::<Vec<_>>(), [0, 2000]);
    }

    #[test]
    fn ack_ledger_settled_is_forgotten_in_time_and_open_is_not() {
        let mut ack_ledger = AckLedger::new(0, 3);
        for n in 1..=10 {
            assert_eq!(ack_ledger.admit(id(n), n), Admission::New);
        }
        assert_eq!(
            ack_ledger.admit(id(1), 101),
            Admission::Open,
            "all are open"
        );
        assert_eq!(ack_ledger.settle(9).count(), 10);
        assert_eq!(ack_ledger.admit(id(10), 110), Admission::Open);
        assert_eq!(ack_ledger.admit(id(8), 108), Admission::Settled(108));
        assert_eq!(ack_ledger.admit(id(7), 107), Admission::New, "forgotten");
        assert!(ack_ledger.numbers.len() <= 4);
    }
}
