//! The records of canaries in the `ConfigMap` that canaries patch, by which replicas inform each
//! other.
//!
//! The sender writes the mark's hash ([`Digest`]) and the time; that write is the canary itself.
//! Whoever reads its event, and so knows the mark, writes the mark beside the hash as a proof of
//! arrival. So somebody who can write the object but does not read the log cannot make a canary
//! appear to have arrived. A record that is missing proves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use super::mark::{Digest, Mark};

/// When a canary first arrived, which proves that the log is this cluster's.
pub(super) const ARRIVED: &str = "arrived";

/// The prefix of sender names of `check`, which sends one canary and waits for it itself.
pub(super) const CHECKER: &str = "check-";

/// How many records of canaries that have ended are kept.
const ENDED_MAX: usize = 64;

/// Changes of the object's data: `None` removes a key.
pub(super) type DataChange = BTreeMap<String, Option<String>>;

/// The record of one canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CanaryRecord {
    /// When it was sent, by the sender's clock.
    pub(super) sent: Timestamp,
    /// The process that sent it and waits for it.
    pub(super) by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<SeenProof>,
    /// It is counted as lost. If it arrives late, its latency is still counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) lost: bool,
}

/// Proof that its event was read and reached its end at the webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SeenProof {
    /// Known only to those who have read the event.
    mark: String,
    /// The webhook accepted it; otherwise it is in the dead letter.
    accepted: bool,
}

impl CanaryRecord {
    pub(super) fn new(sent: Timestamp, by: &str) -> CanaryRecord {
        CanaryRecord {
            sent,
            by: by.to_owned(),
            seen: None,
            lost: false,
        }
    }

    /// The same record with the proof that its event was read.
    pub(super) fn with_proof(&self, mark: &Mark, accepted: bool) -> CanaryRecord {
        CanaryRecord {
            seen: Some(SeenProof {
                mark: mark.as_str().to_owned(),
                accepted,
            }),
            ..self.clone()
        }
    }

    /// The same record, counted as lost.
    pub(super) fn with_loss(&self) -> CanaryRecord {
        CanaryRecord {
            lost: true,
            ..self.clone()
        }
    }

    fn is_of_check(&self) -> bool {
        self.by.starts_with(CHECKER)
    }

    pub(super) fn to_text(&self) -> String {
        // Text and times cannot fail to serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The time since it was sent; zero if this clock is behind the sender's.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        now.duration_since(self.sent)
            .try_into()
            .unwrap_or(Duration::ZERO)
    }
}

/// The object as last read.
#[derive(Debug, Clone, Default)]
pub(super) struct CanaryRecords {
    /// Its `resourceVersion`: a change based on this state fails if the object was changed since.
    pub(super) version: Option<String>,
    records: BTreeMap<Digest, CanaryRecord>,
    /// Keys with a digest whose record cannot be parsed.
    unreadable: Vec<String>,
    /// Whether a canary has ever arrived.
    pub(super) arrived: bool,
}

impl CanaryRecords {
    pub(super) fn read(object: &ConfigMap) -> CanaryRecords {
        let mut read = CanaryRecords {
            version: object.metadata.resource_version.clone(),
            ..CanaryRecords::default()
        };
        for (key, text) in object.data.iter().flatten() {
            let Some(digest) = Digest::parse(key) else {
                read.arrived |= key == ARRIVED;
                continue;
            };
            match serde_json::from_str(text) {
                Ok(record) => drop(read.records.insert(digest, record)),
                Err(_) => read.unreadable.push(key.clone()),
            }
        }
        read
    }

    pub(super) fn get(&self, digest: Digest) -> Option<&CanaryRecord> {
        self.records.get(&digest)
    }

    /// Whether a proof says that the canary's event was accepted (`true`) or refused (`false`);
    /// `None` without a proof.
    pub(super) fn proof(&self, digest: Digest) -> Option<bool> {
        let seen = self.records.get(&digest)?.seen.as_ref()?;
        let mark = Mark::parse(&seen.mark)?;
        (mark.digest() == digest).then_some(seen.accepted)
    }

    /// The canaries of other senders that are neither proven nor counted as lost after this time.
    pub(super) fn overdue(
        &self,
        me: &str,
        wait: Duration,
        now: Timestamp,
    ) -> Vec<(Digest, CanaryRecord)> {
        let is_overdue = |digest: Digest, record: &CanaryRecord| {
            record.by != me
                && !record.is_of_check()
                && !record.lost
                && self.proof(digest).is_none()
                && record.age(now) >= wait
        };
        let records = self.records.iter();
        records
            .filter(|(digest, record)| is_overdue(**digest, record))
            .map(|(digest, record)| (*digest, record.clone()))
            .collect()
    }

    /// Another sender of a canary within this time; of several the first by name.
    pub(super) fn other_sender(&self, me: &str, within: Duration, now: Timestamp) -> Option<&str> {
        let is_recent = |record: &&CanaryRecord| {
            let since = now.duration_since(record.sent).unsigned_abs();
            record.by != me && !record.is_of_check() && since <= within
        };
        let recent = self.records.values().filter(is_recent);
        recent.map(|record| record.by.as_str()).min()
    }

    /// Removes records that nobody waits for: proven ones once their sender has seen the proof, and
    /// lost ones older than `keep`.
    pub(super) fn cleaning(&self, me: &str, keep: Duration, now: Timestamp) -> DataChange {
        let mut ended: Vec<(&Digest, &CanaryRecord, bool)> = Vec::new();
        for (digest, record) in &self.records {
            let proven = self.proof(*digest).is_some();
            let is_old = record.age(now) >= keep;
            let is_mine = record.by == me || (is_old && record.is_of_check());
            let is_over = is_old || (proven && is_mine);
            // An old record of our own was never known to have been sent.
            if proven || record.lost || (is_old && is_mine) {
                ended.push((digest, record, is_over));
            }
        }
        ended.sort_by_key(|(_, record, is_over)| (!is_over, record.sent));
        let over = ended.iter().filter(|(_, _, is_over)| *is_over).count();
        let count = over.max(ended.len().saturating_sub(ENDED_MAX));
        let ended = ended.iter().take(count);
        let keys = ended.map(|(digest, ..)| digest.to_string());
        keys.chain(self.unreadable.iter().cloned())
            .map(|key| (key, None))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn object(data: &[(String, String)]) -> ConfigMap {
        ConfigMap {
            data: Some(data.iter().cloned().collect()),
            ..ConfigMap::default()
        }
    }

    fn record(minutes: u32, by: &str) -> (Mark, CanaryRecord) {
        let sent = now() - MINUTE * minutes;
        (Mark::random().unwrap(), CanaryRecord::new(sent, by))
    }

    fn entry(mark: &Mark, record: &CanaryRecord) -> (String, String) {
        (mark.digest().to_string(), record.to_text())
    }

    #[test]
    fn record_written_is_read_again_and_says_nothing_of_the_mark() {
        let (mark, record) = record(3, "me");
        let written = entry(&mark, &record);
        assert!(!written.0.contains(mark.as_str()) && !written.1.contains(mark.as_str()));
        let read = CanaryRecords::read(&object(&[written]));
        assert_eq!(read.get(mark.digest()), Some(&record));
        assert_eq!(read.proof(mark.digest()), None);
        assert!(!read.arrived);
        let arrived = [(ARRIVED.to_owned(), String::new())];
        assert!(CanaryRecords::read(&object(&arrived)).arrived);
    }

    /// Only somebody who has read the event can prove it.
    #[test]
    fn proof_is_the_mark_itself_and_nothing_else() {
        let (mark, record) = record(3, "me");
        let proof = |mark_written: &Mark, accepted| {
            let proven = record.with_proof(mark_written, accepted);
            CanaryRecords::read(&object(&[entry(&mark, &proven)])).proof(mark.digest())
        };
        assert_eq!(proof(&mark, true), Some(true));
        assert_eq!(proof(&mark, false), Some(false));
        assert_eq!(proof(&Mark::random().unwrap(), true), None);
    }

    #[test]
    fn record_overdue_is_one_of_others_that_nobody_proved_or_counted() {
        let (late, mine, young, lost, proven) = (
            record(20, "other"),
            record(20, "me"),
            record(2, "other"),
            record(20, "other"),
            record(20, "other"),
        );
        let read = CanaryRecords::read(&object(&[
            entry(&late.0, &late.1),
            entry(&mine.0, &mine.1),
            entry(&young.0, &young.1),
            entry(&lost.0, &lost.1.with_loss()),
            entry(&proven.0, &proven.1.with_proof(&proven.0, true)),
        ]));
        let overdue = read.overdue("me", MINUTE * 10, now());
        assert_eq!(overdue, [(late.0.digest(), late.1)]);
    }

    #[test]
    fn sender_is_whoever_sent_one_lately_by_either_clock() {
        let (old, young) = (record(5, "a"), record(1, "b"));
        let mut ahead = record(0, "c");
        ahead.1.sent = now() + MINUTE;
        let read = CanaryRecords::read(&object(&[
            entry(&old.0, &old.1),
            entry(&young.0, &young.1),
            entry(&ahead.0, &ahead.1),
        ]));
        assert_eq!(read.other_sender("me", MINUTE * 2, now()), Some("b"));
        assert_eq!(read.other_sender("b", MINUTE * 2, now()), Some("c"));
        assert_eq!(read.other_sender("me", MINUTE / 2, now()), None);
    }

    /// `check` may be killed: its canary then counts neither as lost nor as a sender's.
    #[test]
    fn record_of_a_check_is_its_own_and_goes_in_the_end() {
        let mut check = record(20, &format!("{CHECKER}1"));
        let read = CanaryRecords::read(&object(&[entry(&check.0, &check.1)]));
        assert_eq!(read.overdue("me", MINUTE * 10, now()), []);
        assert_eq!(read.cleaning("me", MINUTE * 30, now()), DataChange::new());
        assert_eq!(read.cleaning("me", MINUTE * 20, now()).len(), 1);
        check.1.sent = now();
        let read = CanaryRecords::read(&object(&[entry(&check.0, &check.1)]));
        assert_eq!(read.other_sender("me", MINUTE, now()), None);
    }

    #[test]
    fn records_kept_are_bounded_and_those_that_are_waited_for_stay() {
        let mut data = vec![("a".repeat(64), "no record".to_owned())];
        let waited_for = record(1, "other");
        data.push(entry(&waited_for.0, &waited_for.1));
        let mine = record(1, "me");
        data.push(entry(&mine.0, &mine.1.with_proof(&mine.0, true)));
        let theirs = record(1, "other");
        data.push(entry(&theirs.0, &theirs.1.with_proof(&theirs.0, true)));
        let read = CanaryRecords::read(&object(&data));
        let gone = read.cleaning("me", MINUTE * 20, now());
        let keys: Vec<&str> = gone.keys().map(String::as_str).collect();
        let mut want = ["a".repeat(64), mine.0.digest().to_string()];
        want.sort();
        assert_eq!(keys, want, "another one's proof is for it to see");
        for _ in 0..200 {
            let lost = record(1, "other");
            data.push(entry(&lost.0, &lost.1.with_loss()));
        }
        let gone = CanaryRecords::read(&object(&data)).cleaning("me", MINUTE * 20, now());
        assert_eq!(data.len() - gone.len(), ENDED_MAX + 1);
        assert!(!gone.contains_key(&waited_for.0.digest().to_string()));
        let later = now() + MINUTE * 30;
        let gone = CanaryRecords::read(&object(&data)).cleaning("me", MINUTE * 20, later);
        assert_eq!(data.len() - gone.len(), 1);
    }
}
