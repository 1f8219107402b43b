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

/// What was received and is not settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OpenMessages {
    pub(super) count: usize,
    /// As the service counts them.
    pub(super) bytes: usize,
}

/// A message that is not settled.
#[derive(Debug)]
struct OpenMessage<H> {
    /// One for each time that it came.
    handlers: Vec<H>,
    bytes: usize,
}

/// The messages of a subscription; `H` acknowledges one.
#[derive(Debug)]
pub(super) struct AckLedger<H> {
    /// The number of the last message that was admitted.
    given: u64,
    open: BTreeMap<u64, OpenMessage<H>>,
    open_bytes: usize,
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
            open_bytes: 0,
            numbers: HashMap::new(),
            remembered: VecDeque::new(),
            remembered_max,
        }
    }

    /// Registers a message, unless it is a redelivery.
    pub(super) fn admit(&mut self, identity: Identity, bytes: usize, handler: H) -> Admission<H> {
        if let Some(&number) = self.numbers.get(&identity) {
            return match self.open.get_mut(&number) {
                Some(message) => {
                    message.handlers.push(handler);
                    Admission::Open
                }
                None => Admission::Settled(handler),
            };
        }
        self.given += 1;
        let handlers = vec![handler];
        self.open
            .insert(self.given, OpenMessage { handlers, bytes });
        self.open_bytes += bytes;
        self.numbers.insert(identity, self.given);
        self.remembered.push_back(identity);
        self.forget();
        Admission::New
    }

    /// The number of the last message that was admitted.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// The messages that are not settled.
    pub(super) fn open(&self) -> OpenMessages {
        OpenMessages {
            count: self.open.len(),
            bytes: self.open_bytes,
        }
    }

    /// Settles all messages up to this number; returns their handlers.
    pub(super) fn settle(&mut self, number: u64) -> impl Iterator<Item = H> + use<H> {
        let rest = self.open.split_off(&number.saturating_add(1));
        let settled = std::mem::replace(&mut self.open, rest);
        self.open_bytes = self.open.values().map(|message| message.bytes).sum();
        self.forget();
        settled.into_values().flat_map(|message| message.handlers)
    }

    /// Settles the message of this number, whatever is open before it; returns its handlers.
    pub(super) fn settle_one(&mut self, number: u64) -> Vec<H> {
        let Some(message) = self.open.remove(&number) else {
            return Vec::new();
        };
        self.open_bytes -= message.bytes;
        message.handlers
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
        assert_eq!(ack_ledger.admit(id(1), 9, "1"), Admission::New);
        assert_eq!(ack_ledger.admit(id(2), 9, "2"), Admission::New);
        assert_eq!(ack_ledger.admit(id(1), 9, "1 again"), Admission::Open);
        assert_eq!(ack_ledger.given(), 12);
        assert_eq!(ack_ledger.settle(11).collect::<Vec<_>>(), ["1", "1 again"]);
        assert_eq!(
            ack_ledger.admit(id(1), 9, "late"),
            Admission::Settled("late")
        );
        assert_eq!(ack_ledger.open(), OpenMessages { count: 1, bytes: 9 });
        assert_eq!(ack_ledger.settle(12).collect::<Vec<_>>(), ["2"]);
        assert_eq!(ack_ledger.settle(12).count(), 0);
        assert_eq!(ack_ledger.open(), OpenMessages::default());
        // A position of an earlier process settles nothing.
        assert_eq!(ack_ledger.admit(id(3), 9, "3"), Admission::New);
        assert_eq!(ack_ledger.settle(10).count(), 0);
        assert_eq!(ack_ledger.open(), OpenMessages { count: 1, bytes: 9 });
    }

    #[test]
    fn ack_ledger_message_that_stays_open_holds_no_other() {
        let mut ack_ledger = AckLedger::new(0, 10);
        assert_eq!(ack_ledger.admit(id(0), 9, 0), Admission::New);
        for n in 1..=1000 {
            assert_eq!(ack_ledger.admit(id(n), 9, n), Admission::New);
            assert_eq!(ack_ledger.settle_one(n + 1), [n]);
            assert!(ack_ledger.settle_one(n + 1).is_empty(), "once");
        }
        assert_eq!(ack_ledger.open(), OpenMessages { count: 1, bytes: 9 });
        assert!(ack_ledger.numbers.len() <= 11 && ack_ledger.remembered.len() <= 11);
        assert_eq!(ack_ledger.admit(id(0), 9, 2000), Admission::Open);
        assert_eq!(ack_ledger.admit(id(1000), 9, 7), Admission::Settled(7));
        assert_eq!(ack_ledger.settle(1001).collect::<Vec<_>>(), [0, 2000]);
    }

    #[test]
    fn ack_ledger_settled_is_forgotten_in_time_and_open_is_not() {
        let mut ack_ledger = AckLedger::new(0, 3);
        for n in 1..=10 {
            assert_eq!(ack_ledger.admit(id(n), 9, n), Admission::New);
        }
        assert_eq!(
            ack_ledger.admit(id(1), 9, 101),
            Admission::Open,
            "all are open"
        );
        assert_eq!(ack_ledger.settle(9).count(), 10);
        assert_eq!(ack_ledger.admit(id(10), 9, 110), Admission::Open);
        assert_eq!(ack_ledger.admit(id(8), 9, 108), Admission::Settled(108));
        assert_eq!(ack_ledger.admit(id(7), 9, 107), Admission::New, "forgotten");
        assert!(ack_ledger.numbers.len() <= 4);
    }
}
