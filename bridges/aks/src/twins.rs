//! The requests that AKS logs twice.
//!
//! `kube-audit` holds every audit event, `kube-audit-admin` all but those of get and list ("Monitor
//! AKS": collect one of the two). Where a diagnostic setting sends both, most requests come twice,
//! and the second is a *twin*, not news. The same category telling an event again is the broker's
//! redelivery, and goes on: what it was sent for may have been lost.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use audit_bridge_core::event::Event;
use audit_bridge_core::event::json::{Raw, Scanner};

/// How many events are remembered: about 3 MiB, eleven minutes of a busy cluster (100 events a
/// second). The two copies are written by one request, so they come within seconds of each other;
/// if they do not (two archives read one after the other) the twin is delivered, which receivers
/// must expect anyway.
const EVENTS_MAX: usize = 65_536;

/// Which events one category has delivered, that the other may tell again.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    /// By [`Twins::key`], the category that delivered it.
    delivered: HashMap<u64, usize>,
    /// The keys, oldest first.
    order: VecDeque<u64>,
    /// Clients can choose an audit ID, so the hash must not be one that they can compute.
    hasher: RandomState,
}

impl Twins {
    /// Whether a category other than `category` has delivered this event. If none has, `category`
    /// is remembered for it, unless the event is a truncated one: the other copy may be whole.
    pub(crate) fn is_twin(&mut self, category: usize, event: &Event) -> bool {
        let Some(key) = self.key(event) else {
            return false;
        };
        if let Some(&by) = self.delivered.get(&key) {
            return by != category;
        }
        if !event.truncated() {
            if self.order.len() == EVENTS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.delivered.remove(&oldest);
            }
            self.delivered.insert(key, category);
            self.order.push_back(key);
        }
        false
    }

    /// Audit ID and stage name an event. Verb and URI go with them: a client may send one audit ID
    /// with several requests, and a read, which `kube-audit-admin` never tells, must not pass for
    /// the twin of a write. The API server writes the four in front, so this reads no further.
    fn key(&self, event: &Event) -> Option<u64> {
        let text = std::str::from_utf8(event.text()).ok()?;
        let mut found = [None::<Raw<'_>>; 4];
        let mut scanner = Scanner::new(text);
        scanner.open_object().ok()?;
        while found.iter().any(Option::is_none) {
            let Ok(Some(key)) = scanner.key() else { break };
            let value = scanner.value().ok()?;
            let names = ["auditID", "stage", "verb", "requestURI"];
            if let Some(slot) = names
                .iter()
                .position(|&name| name == key)
                .and_then(|index| found.get_mut(index))
            {
                *slot = Some(value);
            }
        }
        Some(self.hasher.hash_one(found.map(|raw| raw.map(Raw::text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: usize) -> Event {
        Event::new(
            format!("{{\"auditID\":\"{id}\",\"stage\":\"ResponseComplete\",\"verb\":\"create\"}}"),
            false,
        )
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let mut twins = Twins::default();
        for id in 0..EVENTS_MAX + 10 {
            assert!(!twins.is_twin(0, &event(id)));
        }
        assert_eq!(twins.order.len(), EVENTS_MAX);
        assert_eq!(twins.delivered.len(), EVENTS_MAX);
        assert!(!twins.is_twin(1, &event(0)), "forgotten");
        assert!(twins.is_twin(1, &event(EVENTS_MAX)), "remembered");
    }
}
