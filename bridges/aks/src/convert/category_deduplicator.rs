//! Recognises requests that AKS logs twice.
//!
//! `kube-audit` has every audit event, `kube-audit-admin` all but those of get and list ("Monitor
//! AKS": collect one of the two). If a diagnostic setting sends both, most requests come twice, and
//! the second copy is a duplicate. A repetition within one category is the broker's redelivery, and
//! is delivered: the first delivery may have been lost.
//!
//! Two records are the same only if cluster and text are. A client chooses much of an event (audit
//! ID, URI, user agent), in another cluster of the same hub too, but not all of its text, least of
//! all its times. So nobody can send a request that passes for the copy of another. Texts are
//! compared by a 128-bit authentication tag with a random key (GMAC), for which nobody can compute
//! two texts with the same tag. It costs a tenth of a conversion; a hash of that strength in
//! software would cost half of one.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Most events that are remembered: about 4 MiB, eleven minutes of a busy cluster (100 events a
/// second). Both copies are written by one request, so they arrive within seconds of each other; if
/// they do not (two archives read one after the other), the second copy is delivered.
const EVENTS_MAX: usize = 65_536;

/// The hash of a cluster and the tag of a text.
type Fingerprint = (u64, [u8; 16]);

/// Remembers which category delivered an event first.
#[derive(Debug)]
pub(crate) struct CategoryDeduplicator {
    /// The category that delivered each event.
    delivered: HashMap<Fingerprint, usize>,
    /// Oldest first.
    order: VecDeque<Fingerprint>,
    clusters: RandomState,
    /// `None` if the system has no randomness: then no event is recognised.
    texts: Option<LessSafeKey>,
}

impl Default for CategoryDeduplicator {
    fn default() -> CategoryDeduplicator {
        let mut secret = [0; 16];
        let key = aws_lc_rs::rand::fill(&mut secret)
            .and_then(|()| UnboundKey::new(&AES_128_GCM, &secret));
        CategoryDeduplicator {
            delivered: HashMap::new(),
            order: VecDeque::new(),
            clusters: RandomState::new(),
            texts: key.ok().map(LessSafeKey::new),
        }
    }
}

impl CategoryDeduplicator {
    /// Whether another category has delivered this event: the same `log`, byte for byte, of the
    /// same `cluster` (a resource ID, whose case Azure varies).
    ///
    /// If not, remembers `category` for it, unless the event is `truncated`: the other copy may be
    /// whole.
    pub(crate) fn is_duplicate(
        &mut self,
        category: usize,
        cluster: Option<&str>,
        log: &[u8],
        truncated: bool,
    ) -> bool {
        let Some(fingerprint) = self.fingerprint(cluster.unwrap_or_default(), log) else {
            return false;
        };
        if let Some(&by) = self.delivered.get(&fingerprint) {
            return by != category;
        }
        if !truncated {
            if self.order.len() == EVENTS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.delivered.remove(&oldest);
            }
            self.delivered.insert(fingerprint, category);
            self.order.push_back(fingerprint);
        }
        false
    }

    fn fingerprint(&self, cluster: &str, log: &[u8]) -> Option<Fingerprint> {
        let key = self.texts.as_ref()?;
        // Nothing is encrypted, and tags stay within the process, so one nonce can be reused.
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(log), &mut [])
            .ok()?;
        let cluster = self.clusters.hash_one(cluster.to_ascii_lowercase());
        Some((cluster, tag.as_ref().try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(id: usize) -> Vec<u8> {
        format!("{{\"auditID\":\"{id}\",\"stage\":\"ResponseComplete\",\"verb\":\"create\"}}\n")
            .into_bytes()
    }

    #[test]
    fn deduplicator_full_forgets_the_oldest() {
        let mut deduplicator = CategoryDeduplicator::default();
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
    fn deduplicator_copy_needs_same_cluster_and_text() {
        let mut deduplicator = CategoryDeduplicator::default();
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
    fn deduplicator_hash_key_differs_between_processes() {
        let tag = || CategoryDeduplicator::default().fingerprint("c", b"text");
        assert!(tag().is_some());
        assert_ne!(tag().map(|(_, tag)| tag), tag().map(|(_, tag)| tag));
    }
}
