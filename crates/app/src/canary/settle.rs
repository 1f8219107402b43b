//! Decides, from canaries that ended and from the records, which records change and what is counted
//! then. No I/O.
//!
//! Where several replicas may see a canary, the one that changes its record counts it. A change
//! fails if the record is no longer as it was read, so each canary is counted once.

use std::collections::btree_map::Entry;
use std::time::Duration;

use jiff::Timestamp;

use super::mark::{Digest, Mark};
use super::records::{ARRIVED, CanaryRecords, DataChange};

/// What to do about a canary's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordJob {
    /// Its event came to its end; counted once the record says so.
    Seen(SeenCanary),
    /// Remove the record of our own counted canary, which arrived or is in the dead letter.
    Close { digest: Digest, arrived: bool },
    /// Mark the record of our own canary, which is counted as lost.
    Lose(Digest),
}

/// A canary whose event was read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenCanary {
    pub(super) mark: Mark,
    /// The mark's digest.
    pub(super) digest: Digest,
    /// The event's user; empty for our own canary.
    pub(super) user: String,
    pub(super) namespace: String,
    pub(super) log: String,
    /// When the event reached its end at the webhook.
    pub(super) at: Timestamp,
    /// The webhook accepted the event; otherwise it is in the dead letter.
    pub(super) accepted: bool,
    /// Set for our own canary.
    pub(super) own: Option<OwnCanary>,
}

/// What is known of our own canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnCanary {
    pub(super) sent: Timestamp,
    pub(super) latency: Duration,
    /// Whether it is already counted as lost.
    pub(super) lost: bool,
}

impl RecordJob {
    pub(super) fn digest(&self) -> Digest {
        match self {
            RecordJob::Seen(seen) => seen.digest,
            RecordJob::Close { digest, .. } | RecordJob::Lose(digest) => *digest,
        }
    }
}

/// One canary to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CanaryCount {
    pub(super) sent: Timestamp,
    pub(super) end: CanaryEnd,
}

/// How a canary ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CanaryEnd {
    /// The webhook accepted its event, from this log; `late` if it was counted as lost before.
    Arrived {
        log: String,
        latency: Duration,
        late: bool,
    },
    /// Its event went to the dead letter.
    Refused,
    /// Its event has not come.
    Lost,
}

/// The process that settles.
#[derive(Debug)]
pub(super) struct Settler<'a> {
    /// The name under which this process sends.
    pub(super) me: &'a str,
    /// Whether other processes may read the events of canaries and wait for them.
    pub(super) shared: bool,
    /// The time after which canaries of other senders, which may be gone, are counted as lost.
    /// `None`: others do that for now.
    pub(super) wait_for_others: Option<Duration>,
}

/// The record changes to make, and what to count once they are made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) change: DataChange,
    pub(super) counts: Vec<CanaryCount>,
}

impl Settler<'_> {
    pub(super) fn settle(
        &self,
        jobs: &[RecordJob],
        records: &CanaryRecords,
        now: Timestamp,
    ) -> Settlement {
        let mut out = Settlement::default();
        let mut arrived = false;
        for job in jobs {
            let digest = job.digest();
            // Two copies of an event may come at once.
            if out.change.contains_key(&digest.to_string()) {
                continue;
            }
            let record = records.get(digest);
            match (job, record) {
                (RecordJob::Seen(seen), _) => {
                    arrived |= self.see(seen, records, &mut out) && seen.accepted;
                }
                (RecordJob::Close { arrived: it, .. }, record) => {
                    arrived |= *it && record.is_some();
                    if record.is_some() {
                        out.change.insert(digest.to_string(), None);
                    }
                }
                (RecordJob::Lose(_), Some(record)) if !record.lost => {
                    let lost = record.with_loss().to_text();
                    out.change.insert(digest.to_string(), Some(lost));
                }
                (RecordJob::Lose(_), _) => {}
            }
        }
        if arrived && !records.arrived {
            out.change.insert(ARRIVED.to_owned(), Some(now.to_string()));
        }
        self.count_overdue(records, now, &mut out);
        out
    }

    /// Settles a seen event. Returns whether it is a canary's and was not counted before.
    fn see(&self, seen: &SeenCanary, records: &CanaryRecords, out: &mut Settlement) -> bool {
        let digest = seen.digest;
        if records.proof(digest).is_some() {
            // Another replica also received the event and has counted it.
            return false;
        }
        let record = records.get(digest);
        if let Some(record) = record {
            let proven = || record.with_proof(&seen.mark, seen.accepted).to_text();
            let is_known = !self.shared || record.by == self.me;
            let change = (!is_known).then(proven);
            out.change.insert(digest.to_string(), change);
        }
        let count = match (record, &seen.own) {
            (None, None) => return false,
            (_, Some(own)) => seen.count(own),
            (Some(record), None) => seen.count(&OwnCanary {
                sent: record.sent,
                latency: record.age(seen.at),
                lost: record.lost,
            }),
        };
        out.counts.extend(count);
        true
    }

    fn count_overdue(&self, records: &CanaryRecords, now: Timestamp, out: &mut Settlement) {
        let Some(wait) = self.wait_for_others else {
            return;
        };
        for (digest, record) in records.overdue(self.me, wait, now) {
            // One that has just arrived is not overdue.
            if let Entry::Vacant(entry) = out.change.entry(digest.to_string()) {
                entry.insert(Some(record.with_loss().to_text()));
                out.counts.push(CanaryCount {
                    sent: record.sent,
                    end: CanaryEnd::Lost,
                });
            }
        }
    }
}

impl SeenCanary {
    /// The count for our own canary, without any record; `None` for others.
    pub(super) fn count_own(&self) -> Option<CanaryCount> {
        self.own.as_ref().and_then(|own| self.count(own))
    }

    fn count(&self, own: &OwnCanary) -> Option<CanaryCount> {
        let end = match self.accepted {
            true => CanaryEnd::Arrived {
                log: self.log.clone(),
                latency: own.latency,
                late: own.lost,
            },
            false if own.lost => return None,
            false => CanaryEnd::Refused,
        };
        Some(CanaryCount {
            sent: own.sent,
            end,
        })
    }
}

/// Whether the records must be read (again) before these jobs can be settled.
pub(super) fn needs_look(jobs: &[RecordJob], records: Option<&CanaryRecords>) -> bool {
    let is_unknown = |job: &RecordJob| records.is_none_or(|it| it.get(job.digest()).is_none());
    jobs.iter().any(is_unknown)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::super::records::CanaryRecord;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn seen(mark: &Mark, accepted: bool) -> RecordJob {
        RecordJob::Seen(SeenCanary {
            mark: mark.clone(),
            digest: mark.digest(),
            user: String::new(),
            namespace: String::new(),
            log: "home".to_owned(),
            at: now(),
            accepted,
            own: None,
        })
    }

    fn settler(me: &str, shared: bool) -> Settler<'_> {
        Settler {
            me,
            shared,
            wait_for_others: Some(MINUTE * 10),
        }
    }

    /// The object; as at the API server, a change fails if it was changed since it was read.
    #[derive(Default)]
    struct Object {
        object: ConfigMap,
        version: u64,
    }

    impl Object {
        fn look(&self) -> CanaryRecords {
            let mut seen = CanaryRecords::read(&self.object);
            seen.version = Some(self.version.to_string());
            seen
        }

        fn change(&mut self, seen: &CanaryRecords, change: &DataChange) -> bool {
            let is_same = seen.version == Some(self.version.to_string());
            if is_same {
                self.force(change);
            }
            is_same
        }

        fn force(&mut self, change: &DataChange) {
            self.version += 1;
            let data = self.object.data.get_or_insert_default();
            for (key, value) in change {
                match value {
                    Some(value) => drop(data.insert(key.clone(), value.clone())),
                    None => drop(data.remove(key)),
                }
            }
        }
    }

    fn sent(object: &mut Object, by: &str, minutes: u32) -> Mark {
        let mark = Mark::random().unwrap();
        let record = CanaryRecord::new(now() - MINUTE * minutes, by);
        let change = [(mark.digest().to_string(), Some(record.to_text()))];
        object.force(&change.into());
        mark
    }

    #[test]
    fn canary_seen_by_another_replica_is_proven_and_counted_with_its_latency() {
        let mut object = Object::default();
        let mark = sent(&mut object, "sender", 2);
        let records = object.look();
        let done = settler("reader", true).settle(&[seen(&mark, true)], &records, now());
        let latency = MINUTE * 2;
        let (log, late) = ("home".to_owned(), false);
        let arrived = CanaryEnd::Arrived { log, latency, late };
        assert_eq!(done.counts.len(), 1);
        assert_eq!(done.counts[0].end, arrived);
        assert!(object.change(&records, &done.change));
        let records = object.look();
        assert_eq!(records.proof(mark.digest()), Some(true));
        assert!(records.arrived);
        // The event comes again, or to a third replica: it is counted already.
        for me in ["reader", "third", "sender"] {
            let done = settler(me, true).settle(&[seen(&mark, true)], &records, now());
            assert_eq!(done, Settlement::default(), "{me}");
        }
        let gone = object.look().cleaning("sender", MINUTE * 20, now());
        object.force(&gone);
        assert!(object.look().get(mark.digest()).is_none());
    }

    #[test]
    fn forged_mark_changes_and_counts_nothing() {
        let mut object = Object::default();
        sent(&mut object, "sender", 2);
        let jobs: Vec<RecordJob> = (0..100)
            .map(|_| seen(&Mark::random().unwrap(), true))
            .collect();
        for shared in [true, false] {
            let done = settler("reader", shared).settle(&jobs, &object.look(), now());
            assert_eq!(done, Settlement::default());
        }
        assert!(needs_look(&jobs, None) && needs_look(&jobs, Some(&object.look())));
    }

    #[test]
    fn canary_of_a_process_that_died_arrives_or_is_lost() {
        for shared in [true, false] {
            let mut object = Object::default();
            let (arrives, lost) = (sent(&mut object, "dead", 9), sent(&mut object, "dead", 11));
            let records = object.look();
            let next = settler("next", shared);
            let done = next.settle(&[seen(&arrives, true)], &records, now());
            let ends: Vec<bool> = done
                .counts
                .iter()
                .map(|it| it.end == CanaryEnd::Lost)
                .collect();
            assert_eq!(ends, [false, true]);
            assert!(object.change(&records, &done.change));
            assert_eq!(
                next.settle(&[], &object.look(), now()),
                Settlement::default()
            );
            // It arrives after all.
            let done = next.settle(&[seen(&lost, true)], &object.look(), now());
            let is_late = matches!(done.counts[0].end, CanaryEnd::Arrived { late: true, .. });
            assert!(is_late, "{done:?}");
        }
    }

    #[test]
    fn canary_in_the_dead_letter_of_another_replica_is_lost_once() {
        let mut object = Object::default();
        let mark = sent(&mut object, "sender", 1);
        let records = object.look();
        let done = settler("reader", true).settle(&[seen(&mark, false)], &records, now());
        assert_eq!(done.counts[0].end, CanaryEnd::Refused);
        object.change(&records, &done.change);
        assert_eq!(object.look().proof(mark.digest()), Some(false));
        assert!(!object.look().arrived);
        let later = now() + MINUTE * 20;
        let done = settler("third", true).settle(&[], &object.look(), later);
        assert_eq!(done, Settlement::default());
    }

    /// Whatever they see and in whatever order they act: two senders at once, readers, one that
    /// dies.
    #[test]
    fn canary_is_counted_once_by_replicas_that_race() {
        let mut dice = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let mut object = Object::default();
            let marks: Vec<Mark> = (0..dice.u32(1..6))
                .map(|_| {
                    sent(
                        &mut object,
                        ["a", "b", "dead"][dice.usize(..3)],
                        dice.u32(..14),
                    )
                })
                .collect();
            let mut counts = 0;
            let mut seen_by = [object.look(), object.look(), object.look()];
            for _ in 0..40 {
                let who = dice.usize(..3);
                let jobs: Vec<RecordJob> = marks
                    .iter()
                    .filter(|_| dice.bool())
                    .map(|mark| seen(mark, true))
                    .collect();
                let settler = settler(["a", "b", "c"][who], true);
                let done = settler.settle(&jobs, &seen_by[who], now());
                if object.change(&seen_by[who], &done.change) {
                    let late =
                        |it: &&CanaryCount| matches!(it.end, CanaryEnd::Arrived { late: true, .. });
                    counts += done.counts.len() - done.counts.iter().filter(late).count();
                }
                if dice.bool() {
                    seen_by[who] = object.look();
                }
            }
            assert!(counts <= marks.len(), "{counts} of {}", marks.len());
            let known = |mark: &&Mark| object.look().get(mark.digest()).is_some();
            let open = marks.iter().filter(known).filter(|mark| {
                let digest = mark.digest();
                let records = object.look();
                records.proof(digest).is_none() && records.get(digest).is_some_and(|it| !it.lost)
            });
            assert_eq!(counts + open.count(), marks.len());
        }
    }
}
