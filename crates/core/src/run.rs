//! The flow: read → convert → batch → deliver → commit, in one task that owns it all.
//!
//! One loop waits for whatever comes first: a receipt, a page, an event that has waited long
//! enough. It reads only while there is room: no batch waits for a slot and the byte budget is not
//! full. So a webhook that is down stops the reading, and memory stays where it is.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::batch::{self, Batcher, Item};
use crate::commit::Tracker;
use crate::config::chain;
use crate::convert::{self, Convert, Output, RecordId, Reject, Skip};
use crate::dead_letter::DeadLetter;
use crate::deliver::{Delivery, DeliverySettings, Receipt};
use crate::record::Origin;
use crate::sink::Sink;
use crate::source::{Page, Problem, Source};
use crate::tally::Tally;

/// How often progress is shown, held records are looked at, and failures add up to giving up.
const TICK: Duration = Duration::from_millis(250);

/// Told of what happens on the way.
pub trait Observer {
    /// Every now and then: how far it is.
    fn progress(&mut self, tally: &Tally) {
        let _ = tally;
    }

    /// A part of the source was not read.
    fn problem(&mut self, problem: &Problem) {
        let _ = problem;
    }

    /// A record, or an event of it, goes to the dead letter.
    fn reject(&mut self, origin: &Origin, reason: Reject, error: &str) {
        let _ = (origin, reason, error);
    }
}

/// Everything that a run is made of.
pub struct Pipeline<Src, Con, Snk, Obs> {
    /// Where records come from.
    pub source: Src,
    /// What makes events of them.
    pub converter: Con,
    /// Where events go.
    pub sink: Snk,
    /// Where rejects go; without one they are only told to the observer.
    pub dead_letter: Option<DeadLetter>,
    /// Who is told.
    pub observer: Obs,
    /// When a batch is complete.
    pub batch: batch::Limits,
    /// Batches under way at the same time.
    pub in_flight_batches_max: usize,
    /// Bytes of records that are read and not yet settled, and of their events that are under way.
    pub in_flight_bytes_max: usize,
    /// End when nothing was accepted for so long; `None`: never.
    pub give_up_after: Option<Duration>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The source ended and every record is settled.
    Done,
    /// Nothing was accepted for too long: why, and what to do.
    GaveUp(String),
    /// The way out broke: why, and what to do.
    Failed(String),
}

/// What a run came to.
pub struct Outcome<Obs> {
    /// The figures.
    pub tally: Tally,
    /// How it ended.
    pub ended: Ended,
    /// How many records from the first are settled without a gap.
    pub settled_records: u64,
    /// Whom it told.
    pub observer: Obs,
}

/// Runs until the source ends, or until it has to give up.
pub async fn run<Src, Con, Snk, Obs>(pipeline: Pipeline<Src, Con, Snk, Obs>) -> Outcome<Obs>
where
    Src: Source,
    Con: Convert,
    Snk: Sink + 'static,
    Obs: Observer,
{
    let Pipeline {
        mut source,
        converter,
        sink,
        dead_letter,
        observer,
        batch,
        in_flight_batches_max,
        in_flight_bytes_max,
        give_up_after,
    } = pipeline;
    let settings = DeliverySettings {
        in_flight_batches_max,
        ..DeliverySettings::default()
    };
    let mut delivery = Delivery::new(sink, settings, |_, _| {});
    let mut desk = Desk {
        converter,
        out: Output::default(),
        batcher: Batcher::new(batch),
        tracker: Tracker::new(),
        dead_letter,
        unsynced: Vec::new(),
        observer,
        tally: Tally::default(),
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended = false;
    let why = loop {
        while delivery.has_room() {
            let batch = match ended {
                true => desk.batcher.flush(),
                false => desk.batcher.due(Instant::now()),
            };
            let Some(batch) = batch else { break };
            delivery.start(batch);
        }
        if ended && desk.batcher.is_empty() && delivery.is_idle() {
            break desk.done();
        }
        let idle = desk.batcher.is_empty() && delivery.is_idle();
        // An event mostly has bytes of its own, beside its record's, until it is settled.
        let bytes = desk.tracker.open_bytes() + delivery.in_flight_bytes();
        let room = !desk.batcher.has_complete() && (bytes < in_flight_bytes_max || idle);
        let deadline = desk.batcher.deadline().filter(|_| delivery.has_room());
        tokio::select! {
            biased;
            receipt = delivery.next() => {
                if let Err(why) = desk.receipt(receipt) {
                    break Ended::Failed(why);
                }
            }
            page = source.read(), if !ended && room => {
                let result = match page {
                    Some(page) => desk.page(page),
                    None => {
                        ended = true;
                        desk.finish()
                    }
                };
                if let Err(why) = result {
                    break Ended::Failed(why);
                }
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            _ = tick.tick() => {
                desk.observer.progress(&desk.tally);
                let after = give_up_after.unwrap_or(Duration::MAX);
                if let Some(why) = delivery.gave_up(Instant::now(), after) {
                    break Ended::GaveUp(why);
                }
            }
        }
    };
    Outcome {
        settled_records: desk.tracker.watermark(0).settled,
        tally: desk.tally,
        ended: why,
        observer: desk.observer,
    }
}

/// What the loop works on between two waits.
struct Desk<Con, Obs> {
    converter: Con,
    out: Output,
    batcher: Batcher,
    tracker: Tracker,
    dead_letter: Option<DeadLetter>,
    /// In the dead letter, but not yet safe on the disk.
    unsynced: Vec<(RecordId, Settle)>,
    observer: Obs,
    tally: Tally,
}

/// What the safety of a dead letter settles.
#[derive(Clone, Copy)]
enum Settle {
    /// The whole record: it did not convert.
    Record,
    /// One of its events: it was refused.
    Event,
}

impl<Con: Convert, Obs: Observer> Desk<Con, Obs> {
    fn page(&mut self, page: Page) -> Result<(), String> {
        for problem in &page.problems {
            self.observer.problem(problem);
        }
        let now = Instant::now();
        for record in page.records {
            self.tally.records += 1;
            let id = self.tracker.open(0, record);
            if let Some(record) = self.tracker.get(id) {
                self.converter.convert(id, record, &mut self.out);
            }
            self.outcomes(now)?;
        }
        self.sync()
    }

    fn finish(&mut self) -> Result<(), String> {
        self.converter.finish(&mut self.out);
        self.outcomes(Instant::now())?;
        self.sync()
    }

    fn outcomes(&mut self, now: Instant) -> Result<(), String> {
        let mut out = std::mem::take(&mut self.out);
        for outcome in out.drain() {
            match outcome {
                convert::Outcome::Event { event, records } => {
                    for &id in records.as_slice() {
                        self.tracker.add(id, 1);
                        self.tracker.close(id);
                    }
                    self.batcher.push(Item::new(event, records), now);
                }
                convert::Outcome::Skip { record, reason } => self.skip(record, reason)?,
                convert::Outcome::Reject {
                    record,
                    reason,
                    error,
                } => self.reject(record, Settle::Record, reason, &error)?,
            }
        }
        self.out = out;
        Ok(())
    }

    fn skip(&mut self, id: RecordId, reason: Skip) -> Result<(), String> {
        // What was read of it may look like nothing of ours, but nobody has seen the rest.
        if self.tracker.get(id).is_some_and(|record| record.oversized) {
            return self.reject(id, Settle::Record, Reject::TooLarge, "");
        }
        self.tally.skip(reason);
        self.tracker.close(id);
        Ok(())
    }

    fn reject(
        &mut self,
        id: RecordId,
        settle: Settle,
        mut reason: Reject,
        mut error: &str,
    ) -> Result<(), String> {
        let Some(record) = self.tracker.get(id) else {
            return Ok(());
        };
        if record.oversized {
            reason = Reject::TooLarge;
            error = "the record is larger than what is read of one; its beginning is kept";
        }
        self.tally.reject(reason);
        self.observer.reject(&record.origin, reason, error);
        match &mut self.dead_letter {
            Some(dead_letter) => {
                dead_letter
                    .write(reason, error, &record.origin, &record.payload)
                    .map_err(|error| chain(&error))?;
                self.unsynced.push((id, settle));
            }
            None => self.settle(id, settle),
        }
        Ok(())
    }

    fn settle(&mut self, id: RecordId, settle: Settle) {
        match settle {
            Settle::Record => self.tracker.close(id),
            Settle::Event => self.tracker.settle(id),
        };
    }

    fn receipt(&mut self, receipt: Receipt) -> Result<(), String> {
        match receipt {
            Receipt::Delivered { items, bytes, .. } => {
                self.tally.batches += 1;
                self.tally.bytes_out += bytes as u64;
                self.tally.events += items.len() as u64;
                for item in items {
                    self.tally.truncated += u64::from(item.event.truncated());
                    for &id in item.records.as_slice() {
                        self.tracker.settle(id);
                    }
                }
                Ok(())
            }
            Receipt::Refused {
                item,
                status,
                detail,
            } => {
                let error = format!("the webhook answered {status}: {detail}");
                for &id in item.records.as_slice() {
                    self.reject(id, Settle::Event, Reject::Refused, &error)?;
                }
                self.sync()
            }
            Receipt::Room => Ok(()),
            Receipt::Broken { detail, .. } => Err(detail),
        }
    }

    /// Makes the dead letter safe, and with it what stands in it.
    fn sync(&mut self) -> Result<(), String> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        if let Some(dead_letter) = &mut self.dead_letter {
            dead_letter.sync().map_err(|error| chain(&error))?;
        }
        for (id, settle) in std::mem::take(&mut self.unsynced) {
            self.settle(id, settle);
        }
        Ok(())
    }

    /// The end, which must find every record settled.
    fn done(&self) -> Ended {
        match self.tracker.open_records() {
            0 => Ended::Done,
            open => Ended::Failed(format!(
                "{open} records ended as nothing: this is a defect of the converter, please report it"
            )),
        }
    }
}
