//! The requests that AKS logs twice.
//!
//! `kube-audit` holds every audit event, `kube-audit-admin` all but those of get and list ("Monitor
//! AKS": collect one of the two). Where a diagnostic setting sends both, most requests come twice,
//! and the second copy is a duplicate. The same category telling an event again is the broker's
//! redelivery, and goes on: what it was sent for may have been lost.
//!
//! Two records are one only when cluster and text are the same. Whoever sends requests chooses much
//! of an event (audit ID, URI, user agent), also of one in another cluster of the same hub, but not
//! all of its text, its times least of all: so nobody can send a request that passes for the copy of
//! another. The texts are compared by a hash of 128 bits under a random key, so that nobody can
//! compute two texts of one hash either.
//!
//! As long as only one category arrives, which is what most clusters are set to, nothing is hashed
//! and nothing remembered. So the copies of what came before the first record of the second category
//! are delivered: a few duplicates after a start, which receivers must expect anyway.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};

use siphasher::sip128::{Hasher128, SipHasher13};

/// How many events are remembered: about 4 MiB, eleven minutes of a busy cluster (100 events a
/// second). The two copies are written by one request, so they come within seconds of each other;
/// if they do not (two archives read one after the other) the second copy is delivered.
const EVENTS_MAX: usize = 65_536;

/// Which events one category has delivered, that the other may tell again.
#[derive(Debug)]
pub(crate) struct CategoryDeduplicator {
    arriving: Arriving,
    /// By the hash of cluster and text, the category that delivered it.
    delivered: HashMap<[u8; 16], usize>,
    /// The hashes, oldest first.
    order: VecDeque<[u8; 16]>,
    /// With the key of this process, and nothing written yet.
    hasher: SipHasher13,
}

/// The categories that records came out of so far.
#[derive(Debug, PartialEq, Eq)]
enum Arriving {
    Nothing,
    One(usize),
    Several,
}

impl Default for CategoryDeduplicator {
    fn default() -> CategoryDeduplicator {
        // Seeded by the operating system.
        let random = RandomState::new();
        CategoryDeduplicator {
            arriving: Arriving::Nothing,
            delivered: HashMap::new(),
            order: VecDeque::new(),
            hasher: SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1)),
        }
    }
}

impl CategoryDeduplicator {
    /// Whether a category other than `category` has delivered this event: the same `log`, byte for
    /// byte, of the same `cluster` (a resource ID, which Azure writes in any case).
    ///
    /// If none has, `category` is remembered for it, unless the event is `truncated`: the other copy
    /// may be whole.
    pub(crate) fn is_duplicate(
        &mut self,
        category: usize,
        cluster: Option<&str>,
        log: &[u8],
        truncated: bool,
    ) -> bool {
        match self.arriving {
            Arriving::Nothing => self.arriving = Arriving::One(category),
            Arriving::One(only) if only != category => self.arriving = Arriving::Several,
            Arriving::One(_) | Arriving::Several => {}
        }
        if self.arriving != Arriving::Several {
            return false;
        }
        let hash = self.hash(cluster.unwrap_or_default(), log);
        if let Some(&by) = self.delivered.get(&hash) {
            return by != category;
        }
        if !truncated {
            if self.order.len() == EVENTS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.delivered.remove(&oldest);
            }
            self.delivered.insert(hash, category);
            self.order.push_back(hash);
        }
        false
    }

    fn hash(&self, cluster: &str, log: &[u8]) -> [u8; 16] {
        let mut hasher = self.hasher;
        // Its length tells where the cluster ends and the text begins.
        hasher.write_usize(cluster.len());
        hasher.write(cluster.to_ascii_lowercase().as_bytes());
        hasher.write(log);
        hasher.finish128().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that records of both categories, 0 and 1, have come to.
    fn deduplicator() -> CategoryDeduplicator {
        let mut deduplicator = CategoryDeduplicator::default();
        for category in [0, 1] {
            assert!(!deduplicator.is_duplicate(category, None, b"", true));
        }
        deduplicator
    }

    fn log(id: usize) -> Vec<u8> {
        format!("{{\"auditID\":\"{id}\",\"stage\":\"ResponseComplete\",\"verb\":\"create\"}}\n")
            .into_bytes()
    }

    #[test]
    fn memory_full_forgets_the_oldest() {
        let mut deduplicator = deduplicator();
        for id in 0..EVENTS_MAX + 10 {
            assert!(!deduplicator.is_duplicate(0, Some("c"), &log(id), false));
        }
        assert_eq!(deduplicator.order.len(), EVENTS_MAX);
        assert_eq!(deduplicator.delivered.len(), EVENTS_MAX);
        let mut tell = |id| deduplicator.is_duplicate(1, Some("c"), &log(id), false);
        assert!(!tell(0), "forgotten");
        assert!(tell(EVENTS_MAX), "remembered");
    }

    #[test]
    fn copies_are_of_one_cluster_and_text() {
        let mut deduplicator = deduplicator();
        let id = "/SUBSCRIPTIONS/0/RESOURCEGROUPS/SHOP/PROVIDERS/M/MANAGEDCLUSTERS/PROD";
        assert!(!deduplicator.is_duplicate(0, Some(id), b"text", false));
        for (cluster, log, want) in [
            (Some(id), &b"text"[..], true),
            (Some(&*id.to_ascii_lowercase()), b"text", true),
            // Another cluster of the same name.
            (Some(&*id.replace("SHOP", "BANK")), b"text", false),
            (Some("PROD"), b"text", false),
            (None, b"text", false),
            (Some(id), b"text\n", false),
            (Some(id), b"Text", false),
            (Some(&*format!("{id}t")), b"ext", false),
        ] {
            let is_duplicate = deduplicator.is_duplicate(1, cluster, log, true);
            assert_eq!(is_duplicate, want, "{cluster:?} {log:?}");
        }
        assert!(
            !deduplicator.is_duplicate(0, Some(id), b"text", false),
            "a redelivery"
        );
    }

    #[test]
    fn category_alone_is_not_remembered() {
        let mut deduplicator = CategoryDeduplicator::default();
        for id in 0..100 {
            assert!(!deduplicator.is_duplicate(1, Some("c"), &log(id), false));
        }
        assert_eq!(deduplicator.order.len(), 0);
        // The first of the other category may be a copy of what was not remembered.
        assert!(!deduplicator.is_duplicate(0, Some("c"), &log(99), false));
        assert!(deduplicator.is_duplicate(1, Some("c"), &log(99), false));
        assert!(!deduplicator.is_duplicate(1, Some("c"), &log(100), false));
        assert!(deduplicator.is_duplicate(0, Some("c"), &log(100), false));
    }

    #[test]
    fn key_differs_between_processes() {
        let hash = |deduplicator: CategoryDeduplicator| deduplicator.hash("c", b"text");
        assert_ne!(hash(Default::default()), hash(Default::default()));
    }
}
