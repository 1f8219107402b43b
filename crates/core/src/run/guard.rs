//! Limits a converter's panic to the record at which it happens.
//!
//! A panic is a bug of ours. It is caught at its record, which goes to the dead letter as `defect`,
//! so that a crafted record cannot stop the audit trail of others.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::chain::panic_text;
use crate::convert::{Convert, Output, RecordId, Reject};
use crate::record::Record;

/// A converter whose panics are caught.
pub(super) struct Guarded<Con> {
    converter: Con,
    /// Records about which nothing is decided yet.
    held: BTreeSet<RecordId>,
}

impl<Con: Convert> Guarded<Con> {
    pub(super) fn new(converter: Con) -> Guarded<Con> {
        Guarded {
            converter,
            held: BTreeSet::new(),
        }
    }

    /// See [`Convert::convert`].
    pub(super) fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        let converter = &mut self.converter;
        let caught = catch(|| converter.convert(id, record, out));
        if let Err(panic) = caught {
            out.reject(id, Reject::DEFECT, panic.to_string());
            self.give_up_what_is_lost(&panic, out);
        }
        if !out.decides(id) {
            self.held.insert(id);
        }
        self.forget_decided(out);
    }

    /// See [`Convert::overdue`].
    pub(super) fn overdue(&mut self, now: Duration, out: &mut Output) {
        let converter = &mut self.converter;
        if let Err(panic) = catch(|| converter.overdue(now, out)) {
            self.give_up_what_is_lost(&panic, out);
        }
        self.forget_decided(out);
    }

    /// See [`Convert::finish`].
    pub(super) fn finish(&mut self, out: &mut Output) {
        let converter = &mut self.converter;
        // Try again after a panic, as long as each attempt decides about at least one record.
        while let Err(panic) = catch(|| converter.finish(out)) {
            let before = self.held.len();
            self.held.retain(|id| !out.decides(*id));
            self.held.retain(|id| {
                let is_held = converter.is_holding(*id);
                if !is_held {
                    out.reject(*id, Reject::DEFECT, panic.to_string());
                }
                is_held
            });
            if self.held.len() == before {
                break;
            }
        }
        self.forget_decided(out);
    }

    /// Rejects held records that the converter dropped without a decision.
    fn give_up_what_is_lost(&mut self, panic: &ConverterPanic, out: &mut Output) {
        self.forget_decided(out);
        let converter = &self.converter;
        let lost = self.held.iter().filter(|id| !converter.is_holding(**id));
        for id in lost.copied().collect::<Vec<_>>() {
            out.reject(id, Reject::DEFECT, panic.to_string());
        }
    }

    fn forget_decided(&mut self, out: &Output) {
        if !self.held.is_empty() {
            self.held.retain(|id| !out.decides(*id));
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the converter failed, please report this record: {0}")]
struct ConverterPanic(String);

fn catch(work: impl FnOnce()) -> Result<(), ConverterPanic> {
    // Unwind-safe: the converter's state is queried after a panic, not trusted.
    let caught = catch_unwind(AssertUnwindSafe(work));
    caught.map_err(|panic| ConverterPanic(panic_text(&*panic)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{Outcome, Skip};
    use crate::record::Origin;

    /// Holds records until another record or the end releases them.
    #[derive(Default)]
    struct Holding(Vec<RecordId>);

    impl Convert for Holding {
        fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
            match &*record.payload {
                b"hold" => self.0.push(id),
                b"panic" => panic!("at {}", id.0),
                b"lose" => {
                    self.0.remove(0);
                    panic!("lost one");
                }
                _ => out.skip(id, Skip::NOT_AUDIT),
            }
        }

        fn is_holding(&self, id: RecordId) -> bool {
            self.0.contains(&id)
        }

        fn finish(&mut self, _out: &mut Output) {
            if self.0.pop().is_some() {
                panic!("at the end");
            }
        }
    }

    fn run(payloads: &[&'static str]) -> Vec<(u64, String)> {
        let mut guarded = Guarded::new(Holding::default());
        let mut out = Output::default();
        let mut ended = Vec::new();
        let mut take = |out: &mut Output| {
            ended.extend(out.drain().map(|outcome| match outcome {
                Outcome::Skip { record, .. } => (record.0, "skipped".to_owned()),
                Outcome::Reject {
                    record,
                    reason: Reject::DEFECT,
                    error,
                } => (
                    record.0,
                    error.rsplit(": ").next().unwrap_or_default().to_owned(),
                ),
                other => panic!("{other:?}"),
            }));
        };
        for (id, payload) in payloads.iter().enumerate() {
            let origin = Origin::File {
                file: "x".into(),
                record: id as u64,
            };
            guarded.convert(
                RecordId(id as u64),
                &Record::new(*payload, origin),
                &mut out,
            );
            take(&mut out);
        }
        guarded.finish(&mut out);
        take(&mut out);
        ended.sort();
        ended
    }

    fn ended(all: &[(u64, &str)]) -> Vec<(u64, String)> {
        all.iter()
            .map(|(id, how)| (*id, (*how).to_owned()))
            .collect()
    }

    #[test]
    fn converter_panic_costs_its_record_only() {
        let got = run(&["a", "panic", "b"]);
        assert_eq!(got, ended(&[(0, "skipped"), (1, "at 1"), (2, "skipped")]));
    }

    #[test]
    fn converter_panic_rejects_records_it_held() {
        let got = run(&["hold", "hold", "lose", "a"]);
        let want = [
            (0, "lost one"),
            (1, "at the end"),
            (2, "lost one"),
            (3, "skipped"),
        ];
        assert_eq!(got, ended(&want));
    }
}
