//! Unpacks a record of the stream into records of the log, one for each log event.
//!
//! A subscription's record is gzip of `{"messageType":…,"logEvents":[…]}`. That is a dump shape
//! too, so the payloads are made by the code that replay uses. Unlike a dump the whole message is
//! in memory, so members that concern all events may also follow them. A record that is damaged or
//! above the unpacking limit is treated like a dump in which AWS's API carries it in base64: what
//! can be read of it is converted, and the whole packed record goes to the dead letter.

use std::io::{Cursor, Read as _};
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::event::json::{self, Raw};
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::source::{Page, ReadTo};
use audit_bridge_replay::dump::{Dump, PieceContext};
use audit_bridge_replay::read_from;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;

use super::gap_detector::{Fingerprint, GapDetector, KeptPace, SuspectedGap, fingerprint};
use super::position::{ShardPage, ShardPosition};
use crate::client::kinesis::{Packed, SequenceNumber};
use crate::dump::EksDump;
use crate::wire::packed::UNPACKED_BYTES_MAX;

/// A page is cut once it holds this many bytes: a whole record of the stream would overshoot the
/// pipeline's budget.
const PAGE_BYTES: usize = 1 << 20;
/// A gap is told this much longer at both ends: an end of a window is outside of it, and events may
/// be missing that have the time of the last one before the gap. Catching up leaves out what the
/// stream brought.
const GAP_MARGIN_MS: i64 = 1000;
/// Magic number of gzip.
const GZIP: &[u8] = b"\x1f\x8b";

/// Makes pages of a shard's records.
pub(super) struct Unpacker {
    dump: Arc<dyn Dump>,
    /// The shard's index.
    partition: u32,
    /// The shard in the dead letter: `STREAM/SHARD`.
    place: Arc<str>,
    /// A quiet shard is read again within this time.
    again_within: Duration,
    gap_detector: GapDetector,
    /// How the names of the audit log's streams begin.
    stream_prefix: Arc<str>,
    /// The log streams that this shard has brought.
    log_streams: Vec<Fingerprint>,
}

impl Unpacker {
    pub(super) fn new(
        partition: u32,
        place: Arc<str>,
        again_within: Duration,
        gap_detector: GapDetector,
        stream_prefix: Arc<str>,
    ) -> Unpacker {
        Unpacker {
            dump: Arc::new(EksDump),
            partition,
            place,
            again_within,
            gap_detector,
            stream_prefix,
            log_streams: Vec::new(),
        }
    }

    /// The shard's name, for messages.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The log events of a record of the stream, with the position after it on the last page, and a
    /// gap that is suspected before it.
    pub(super) fn pages(&mut self, packed: &Packed) -> (Vec<ShardPage>, Option<SuspectedGap>) {
        let Unpacked {
            mut records,
            suspected_gap,
        } = self.unpacked(packed);
        for (number, record) in (1..).zip(&mut records) {
            record.origin = Origin::Stream {
                stream: Arc::clone(&self.place),
                id: format!("{}:{number}", packed.number),
            };
            record.time = packed.arrived;
        }
        let mut pages = cut(records);
        for page in &mut pages {
            page.partition = self.partition;
        }
        let behind = self.behind(&packed.number, packed.arrived);
        if let Some(last) = pages.last_mut() {
            last.position = Some(behind);
            last.read_to = packed.arrived.map(|time| self.read_to(time));
        }
        (pages, suspected_gap)
    }

    /// A page without records: the new position, if any, and the time up to which the shard is
    /// read.
    pub(super) fn standing(
        &self,
        position: Option<&ShardPosition>,
        read_to: Option<Timestamp>,
    ) -> ShardPage {
        Page {
            partition: self.partition,
            position: position.cloned(),
            read_to: read_to.map(|time| self.read_to(time)),
            ..Page::default()
        }
    }

    /// The position after this record. Everything that the shard held at `read_to` was read.
    pub(super) fn behind(
        &mut self,
        number: &SequenceNumber,
        read_to: Option<Timestamp>,
    ) -> ShardPosition {
        ShardPosition::After {
            sequence_number: number.clone(),
            read_to,
            paces: self.gap_detector.kept(&mut self.log_streams),
        }
    }

    /// Takes over the log streams of a position.
    pub(super) fn resume(&mut self, paces: &[KeptPace]) {
        self.log_streams = self.gap_detector.resume(paces);
    }

    fn read_to(&self, time: Timestamp) -> ReadTo {
        ReadTo {
            time,
            again_within: self.again_within,
        }
    }

    fn unpacked(&mut self, packed: &Packed) -> Unpacked {
        let data = &packed.data;
        if !data.starts_with(GZIP) {
            let read = self.read(data);
            return read.unwrap_or_else(|| vec![self.whole(data.clone())].into());
        }
        let read = unpack(data).and_then(|text| self.read(&text.into()));
        read.unwrap_or_else(|| self.damaged(packed).into())
    }

    /// The records of a text, if it is whole.
    fn read(&mut self, text: &Bytes) -> Option<Unpacked> {
        let json = std::str::from_utf8(text).ok().map(Raw::parse);
        if let Some(Ok(message)) = json
            && let Some(events) = message.get("logEvents")
        {
            return Some(Unpacked {
                records: self.log_events(message, events)?,
                suspected_gap: self.suspected_gap(message, events),
            });
        }
        let content = read_from(&self.dump, &self.place, Cursor::new(text.clone()));
        if content.problem.is_none() && content.records.iter().all(|record| !record.damaged) {
            return Some(content.records.into());
        }
        // Whole JSON that is no log event is of another producer.
        matches!(json, Some(Ok(_))).then(|| vec![self.whole(text.clone())].into())
    }

    /// The log events of a subscription's message.
    fn log_events(&self, message: Raw<'_>, events: Raw<'_>) -> Option<Vec<Record>> {
        let names = self.dump.context_names().iter();
        let said = names.filter_map(|name| Some((*name, message.get(name)?.text().to_owned())));
        let context = PieceContext::new(said);
        let record = |event: Raw<'_>| {
            let payload = self.dump.record(event, &context).ok()?;
            Some(self.whole(payload.into_owned()))
        };
        events.elements()?.map(record).collect()
    }

    /// Whether events of this audit stream seem to be missing before these.
    fn suspected_gap(&mut self, message: Raw<'_>, events: Raw<'_>) -> Option<SuspectedGap> {
        let stream = message.get("logStream")?.as_str()?;
        if !stream.starts_with(&*self.stream_prefix) {
            return None;
        }
        let group = named_group(message)?;
        let time = |event: Raw<'_>| event.get("timestamp")?.as_i64();
        let first = time(events.elements()?.next()?)?;
        let last = events.elements()?.last().and_then(time).unwrap_or(first);
        let log_stream = fingerprint(&group, &stream);
        if !self.log_streams.contains(&log_stream) {
            self.log_streams.push(log_stream);
        }
        let (from, until) = self.gap_detector.record(log_stream, first, last)?;
        Some(SuspectedGap {
            group,
            from: Timestamp::from_millisecond(from.saturating_sub(GAP_MARGIN_MS)).ok()?,
            until: Timestamp::from_millisecond(until.saturating_add(GAP_MARGIN_MS)).ok()?,
        })
    }

    /// One undamaged record with this payload.
    fn whole(&self, payload: impl Into<Bytes>) -> Record {
        Record::new(payload, self.origin())
    }

    /// As replay reads it from an answer of the API.
    fn damaged(&self, packed: &Packed) -> Vec<Record> {
        let mut text = b"{\"Data\":".to_vec();
        json::write_string(&mut text, &STANDARD.encode(&packed.data));
        text.push(b'}');
        let text = Bytes::from(text);
        let content = read_from(&self.dump, &self.place, Cursor::new(text.clone()));
        // What is wrong with it must be among them, or it is lost.
        match content.problem.is_none() && content.records.iter().any(|record| record.damaged) {
            true => content.records,
            false => vec![Record {
                // Unknown content is kept.
                damaged: true,
                ..self.whole(text)
            }],
        }
    }

    fn origin(&self) -> Origin {
        Origin::Stream {
            stream: Arc::clone(&self.place),
            id: String::new(),
        }
    }
}

/// What a record of the stream holds.
struct Unpacked {
    records: Vec<Record>,
    suspected_gap: Option<SuspectedGap>,
}

impl From<Vec<Record>> for Unpacked {
    fn from(records: Vec<Record>) -> Unpacked {
        Unpacked {
            records,
            suspected_gap: None,
        }
    }
}

/// The text, unless it is damaged or too large.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(packed)
        .take(UNPACKED_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .ok()?;
    (text.len() as u64 <= UNPACKED_BYTES_MAX).then_some(text)
}

/// The log group and account of a subscription's message, for people.
pub(crate) fn group_of(packed: &Packed) -> Option<String> {
    let text = String::from_utf8(unpack(&packed.data)?).ok()?;
    let message = Raw::parse(&text).ok()?;
    message.get("logEvents")?;
    Some(named_group(message).unwrap_or_else(|| "CloudWatch's control messages".to_owned()))
}

/// The log group and account that a subscription's message names.
fn named_group(message: Raw<'_>) -> Option<String> {
    let owner = message.get("owner")?.as_str()?;
    let group = message.get("logGroup")?.as_str()?;
    (!group.is_empty()).then(|| format!("{group} ({owner})"))
}

/// Pages of about [`PAGE_BYTES`], at least one.
fn cut(records: Vec<Record>) -> Vec<ShardPage> {
    let mut pages = vec![Page::default()];
    let mut bytes = 0;
    for record in records {
        if bytes >= PAGE_BYTES {
            pages.push(Page::default());
            bytes = 0;
        }
        bytes += record.payload.len();
        if let Some(page) = pages.last_mut() {
            page.records.push(record);
        }
    }
    pages
}

#[cfg(test)]
mod tests;
