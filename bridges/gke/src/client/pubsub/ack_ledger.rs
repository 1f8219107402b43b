//! Which messages are open, and which were met before.
//!
//! Pub/Sub may send a message again at any time: its lease was lost, or its acknowledgment. One
//! that is settled is acknowledged at once; one that is still under way shares the fate of its
//! first copy.

use std::collections::{BTreeMap, HashMap, VecDeque};

use audit_bridge_tail::Identity;

/// Whether a message is new or a redelivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission<H> {
    New,
    /// It is under way already.
    Open,
    /// It was settled before: here is the way to acknowledge it again.
    Settled(H),
}

/// A message that is not settled.
#[derive(Debug)]
struct OpenMessage<H> {
    /// What acknowledges each of its copies.
    handlers: Vec<H>,
    bytes: usize,
}

/// The messages of one subscription; `H` is what acknowledges one.
#[derive(Debug)]
pub(super) struct AckLedger<H> {
    /// Messages that were given out, the last one's number.
    given: u64,
    /// All up to this number are settled.
    settled: u64,
    open: BTreeMap<u64, OpenMessage<H>>,
    open_bytes: usize,
    numbers: HashMap<Identity, u64>,
    /// Oldest first.
    remembered: VecDeque<Identity>,
    remembered_max: usize,
}

impl<H> AckLedger<H> {
    /// A ledger that goes on counting from here, and remembers so many messages.
    pub(super) fn new(given: u64, remembered_max: usize) -> AckLedger<H> {
        AckLedger {
            given,
            settled: given,
            open: BTreeMap::new(),
            open_bytes: 0,
            numbers: HashMap::new(),
            remembered: VecDeque::new(),
            remembered_max,
        }
    }

    /// Registers a message of so many bytes, unless it is a redelivery.
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

    /// The number of the last message that was given out.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Messages that are not settled.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Their bytes.
    pub(super) fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// All messages up to this number are settled: what acknowledges them.
    pub(super) fn settle(&mut self, number: u64) -> impl Iterator<Item = H> + use<H> {
        self.settled = self.settled.max(number);
        let rest = self.open.split_off(&number.saturating_add(1));
        let settled = std::mem::replace(&mut self.open, rest);
        self.open_bytes -= settled.values().map(|message| message.bytes).sum::<usize>();
        self.forget();
        settled.into_values().flat_map(|message| message.handlers)
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
    fn ack_ledger_redelivered_message_shares_the_first_ones_fate() {
        let mut ack_ledger = AckLedger::new(10, 100);
        assert_eq!(ack_ledger.admit(id(1), 100, "1"), Admission::New);
        assert_eq!(ack_ledger.admit(id(2), 100, "2"), Admission::New);
        assert_eq!(ack_ledger.admit(id(1), 100, "1 again"), Admission::Open);
        assert_eq!((ack_ledger.given(), ack_ledger.open_bytes()), (12, 200));
        assert_eq!(ack_ledger.settle(11).collect::<Vec<_>>(), ["1", "1 again"]);
        assert_eq!(
            ack_ledger.admit(id(1), 100, "late"),
            Admission::Settled("late")
        );
        assert_eq!(ack_ledger.open(), 1);
        assert_eq!(ack_ledger.settle(12).collect::<Vec<_>>(), ["2"]);
        assert_eq!(ack_ledger.settle(12).count() + ack_ledger.open(), 0);
        assert_eq!(ack_ledger.open_bytes(), 0);
        // A position of an earlier life settles nothing.
        assert_eq!(ack_ledger.admit(id(3), 100, "3"), Admission::New);
        assert_eq!(ack_ledger.settle(10).count(), 0);
        assert_eq!(ack_ledger.open(), 1);
    }

    #[test]
    fn ack_ledger_settled_is_forgotten_in_time_and_open_is_not() {
        let mut ack_ledger = AckLedger::new(0, 3);
        for n in 1..=10 {
            assert_eq!(ack_ledger.admit(id(n), 100, n), Admission::New);
        }
        assert_eq!(
            ack_ledger.admit(id(1), 100, 101),
            Admission::Open,
            "all are open"
        );
        assert_eq!(ack_ledger.settle(9).count(), 10);
        assert_eq!(ack_ledger.admit(id(10), 100, 110), Admission::Open);
        assert_eq!(ack_ledger.admit(id(8), 100, 108), Admission::Settled(108));
        assert_eq!(
            ack_ledger.admit(id(7), 100, 107),
            Admission::New,
            "forgotten"
        );
        assert!(ack_ledger.numbers.len() <= 4);
    }
}
