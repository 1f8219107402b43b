//! The identities seen so far, grouped by the time under which the log files them.
//!
//! An entry's time never changes, so an identity is looked up only among those of the same few
//! seconds, and a whole bucket is forgotten once every cursor has passed it. A bucket is a sorted
//! list with a small set of newcomers beside it: 8 bytes an identity once the newcomers are merged
//! in, at most some 13 while the bucket still fills.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use jiff::Timestamp;

use super::identity::Identity;

/// The time that one bucket spans.
pub(super) const BUCKET_SECONDS: i64 = 16;

/// Up to this many newcomers stay in their set, however short the list.
const NEWCOMERS_MIN: usize = 64;

/// The bucket of a time.
pub(super) fn bucket_of(time: Timestamp) -> i64 {
    time.as_second().div_euclid(BUCKET_SECONDS)
}

/// The identities seen, up to a limit.
#[derive(Debug)]
pub(super) struct SeenIdentities {
    buckets: BTreeMap<i64, Bucket>,
    len: usize,
    len_max: usize,
}

#[derive(Debug, Default)]
struct Bucket {
    sorted: Vec<u64>,
    newcomers: HashSet<u64, BuildHasherDefault<AsIs>>,
}

impl SeenIdentities {
    pub(super) fn new(len_max: usize) -> SeenIdentities {
        SeenIdentities {
            buckets: BTreeMap::new(),
            len: 0,
            len_max: len_max.max(1),
        }
    }

    /// Adds an identity; returns false if it is known already.
    pub(super) fn insert(&mut self, bucket: i64, identity: Identity) -> bool {
        let new = self.buckets.entry(bucket).or_default().insert(identity.0);
        self.len += usize::from(new);
        new
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Forgets the buckets that end at or before `horizon`, and merges those before `edge`, which
    /// seldom grow any more.
    pub(super) fn forget(&mut self, horizon: Timestamp, edge: Timestamp) {
        let keep = self.buckets.split_off(&bucket_of(horizon));
        let gone = std::mem::replace(&mut self.buckets, keep);
        self.len -= gone.values().map(Bucket::len).sum::<usize>();
        for bucket in self.buckets.range_mut(..bucket_of(edge)) {
            bucket.1.merge();
        }
    }

    /// Forgets the oldest buckets until the limit holds. Returns the newest forgotten one: records
    /// in it that are read again will be delivered again.
    pub(super) fn shrink(&mut self) -> Option<i64> {
        let mut last = None;
        while self.len > self.len_max && self.buckets.len() > 1 {
            let (bucket, gone) = self.buckets.pop_first()?;
            self.len -= gone.len();
            last = Some(bucket);
        }
        last
    }
}

impl Bucket {
    fn len(&self) -> usize {
        self.sorted.len() + self.newcomers.len()
    }

    fn insert(&mut self, identity: u64) -> bool {
        if self.sorted.binary_search(&identity).is_ok() || !self.newcomers.insert(identity) {
            return false;
        }
        // At a quarter, each identity is moved about five times in all, and few are in the larger
        // set.
        if self.newcomers.len() > NEWCOMERS_MIN.max(self.sorted.len() / 4) {
            self.merge();
        }
        true
    }

    fn merge(&mut self) {
        if self.newcomers.is_empty() {
            return;
        }
        self.sorted.reserve_exact(self.newcomers.len());
        self.sorted.extend(std::mem::take(&mut self.newcomers));
        self.sorted.sort_unstable();
    }
}

/// Uses identities as their own hashes.
#[derive(Debug, Clone, Copy, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> Identity {
        Identity::of(&[&number.to_le_bytes()])
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn seen_identity_is_new_once() {
        let mut seen = SeenIdentities::new(1 << 20);
        for round in 0..2 {
            for number in 0..5000 {
                let bucket = bucket_of(at(number as i64 / 50));
                assert_eq!(seen.insert(bucket, id(number)), round == 0, "{number}");
            }
        }
        assert_eq!(seen.len(), 5000);
        seen.forget(at(32), at(64));
        assert_eq!(seen.len(), 5000 - 32 * 50);
        assert!(seen.insert(bucket_of(at(31)), id(31 * 50)), "forgotten");
        assert!(!seen.insert(bucket_of(at(32)), id(32 * 50)), "kept");
    }

    #[test]
    fn seen_identities_above_limit_forget_the_oldest() {
        let mut seen = SeenIdentities::new(100);
        for number in 0..150 {
            seen.insert(number / 10, id(number as u64));
        }
        assert_eq!(seen.shrink(), Some(4));
        assert_eq!(seen.len(), 100);
        assert_eq!(seen.shrink(), None);
        assert!(!seen.insert(5, id(50)) && seen.insert(4, id(40)));
    }

    #[test]
    fn seen_negative_time_has_a_bucket() {
        assert_eq!(bucket_of(at(-1)), -1);
        assert_eq!(bucket_of(at(0)), 0);
        assert_eq!(bucket_of(at(15)), 0);
        assert_eq!(bucket_of(at(16)), 1);
    }
}
