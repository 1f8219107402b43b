//! Entries that Cloud Logging cut into parts.
//!
//! An audit entry above the size limit arrives as several entries with the same `split.uid`. Only
//! `protoPayload.request`, `.response` and `.metadata` are divided; each part repeats the rest
//! (Google: "Split audit log entries"). Parts are held until all are present, with limits on time
//! and memory, and then joined: objects by the union of their keys, strings by concatenation, lists
//! element by element (an empty string stands for an element that is in another part). Any other
//! value is in one part only.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use audit_bridge_core::convert::RecordId;
use audit_bridge_core::event::json::{Raw, ValueKind, push_string};
use bytes::Bytes;

use crate::wire;

/// How long a part waits for the others.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);
/// Bytes of all parts that are held.
pub(crate) const HELD_BYTES_MAX: usize = 8 << 20;
/// Held parts at most: a queue sends nothing more once too many messages are open, and small parts
/// take few bytes.
const HELD_PARTS_MAX: usize = 2_000;
/// More parts than this are no split entry: 512 KiB each.
const PARTS_MAX: i64 = 10_000;
/// What a held part takes besides its bytes, roughly.
const PART_OVERHEAD_BYTES: usize = 256;
/// Deepest nesting that is joined; protobuf itself stops at 100.
const DEPTH_MAX: usize = 128;

/// The entry's `split` member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SplitPart<'a> {
    /// It is no part, or the only one.
    Whole,
    /// One of several.
    Part {
        /// Identifies the entry.
        uid: &'a str,
        /// From 0.
        index: i64,
        /// How many there are.
        total: i64,
    },
    /// A part whose others cannot be found: it has no uid, or invalid numbers.
    Stray {
        /// Whether it has the members that all parts repeat, and may stand for the entry.
        first: bool,
    },
}

impl<'a> SplitPart<'a> {
    pub(crate) fn of(split: Option<&'a wire::LogSplit<'_>>) -> SplitPart<'a> {
        let Some(split) = split else {
            return SplitPart::Whole;
        };
        match (split.uid.as_deref(), split.index, split.total) {
            (_, 0, 1) | (None, 0, 0) => SplitPart::Whole,
            (Some(uid), index, total)
                if (0..total).contains(&index) && (2..=PARTS_MAX).contains(&total) =>
            {
                SplitPart::Part { uid, index, total }
            }
            (_, index, _) => SplitPart::Stray { first: index == 0 },
        }
    }
}

/// The parts of one entry.
#[derive(Debug, Default)]
pub(crate) struct SplitEntry {
    uid: String,
    total: i64,
    parts: BTreeMap<i64, Bytes>,
    /// Every record that was held, also a part that came twice.
    pub(crate) records: Vec<RecordId>,
    held_bytes: usize,
    /// Another text came for a part that is there: one of the two is forged.
    contradicted: bool,
    /// When it was first seen waiting.
    since: Option<Duration>,
}

impl SplitEntry {
    /// The parts' texts, in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.values()
    }

    /// The part that may stand for the entry when others are missing.
    pub(crate) fn first(&self) -> Option<&Bytes> {
        self.parts.get(&0)
    }

    /// Whether it is as it was written, as far as can be told.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_complete() && !self.contradicted
    }

    /// Which parts are there, for a person.
    pub(crate) fn describe(&self) -> String {
        format!(
            "split entry {}: {} of {} parts",
            self.uid,
            self.parts.len(),
            self.total
        )
    }

    fn is_complete(&self) -> bool {
        i64::try_from(self.parts.len()).is_ok_and(|parts| parts >= self.total)
    }
}

/// What became of a part.
#[derive(Debug)]
pub(crate) enum Added {
    /// It waits for the others.
    Held,
    /// All parts of the entry are there.
    Complete(SplitEntry),
    /// The part is there already, with another text: it is not held.
    Contradicts,
}

/// The entries that wait for parts, oldest first.
#[derive(Debug, Default)]
pub(crate) struct PendingSplits {
    groups: BTreeMap<u64, SplitEntry>,
    by_uid: HashMap<String, u64>,
    next: u64,
    bytes: usize,
    parts: usize,
}

impl PendingSplits {
    /// Holds a part, until all of its entry are there.
    pub(crate) fn add(
        &mut self,
        (uid, index, total): (&str, i64, i64),
        record: RecordId,
        payload: &Bytes,
    ) -> Added {
        let key = match self.by_uid.get(uid) {
            Some(&key) => key,
            None => {
                self.next += 1;
                self.by_uid.insert(uid.to_owned(), self.next);
                self.next
            }
        };
        let group = self.groups.entry(key).or_insert_with(|| SplitEntry {
            uid: uid.to_owned(),
            ..SplitEntry::default()
        });
        if group
            .parts
            .get(&index)
            .is_some_and(|there| there != payload)
        {
            group.contradicted = true;
            return Added::Contradicts;
        }
        // If parts contradict each other, the larger number counts.
        group.total = group.total.max(total);
        group.parts.entry(index).or_insert_with(|| payload.clone());
        group.records.push(record);
        self.parts += 1;
        let bytes = payload.len() + PART_OVERHEAD_BYTES;
        group.held_bytes += bytes;
        self.bytes += bytes;
        let complete = group.is_complete();
        match complete.then(|| self.take(key)).flatten() {
            Some(group) => Added::Complete(group),
            None => Added::Held,
        }
    }

    /// The oldest entry, if the held parts exceed the limit.
    pub(crate) fn pop_surplus(&mut self) -> Option<SplitEntry> {
        if self.bytes <= HELD_BYTES_MAX && self.parts <= HELD_PARTS_MAX {
            return None;
        }
        self.oldest()
    }

    /// An entry that has waited too long. Without a clock here, its wait starts with the first call
    /// that finds it.
    pub(crate) fn overdue(&mut self, now: Duration) -> Option<SplitEntry> {
        let mut late = None;
        for (&key, group) in &mut self.groups {
            let since = *group.since.get_or_insert(now);
            if late.is_none() && now.saturating_sub(since) >= WAIT_MAX {
                late = Some(key);
            }
        }
        self.take(late?)
    }

    /// Whether a part that this record brought waits here.
    pub(crate) fn holds(&self, record: RecordId) -> bool {
        self.groups
            .values()
            .any(|group| group.records.contains(&record))
    }

    /// The oldest entry that waits.
    pub(crate) fn oldest(&mut self) -> Option<SplitEntry> {
        let key = *self.groups.keys().next()?;
        self.take(key)
    }

    fn take(&mut self, key: u64) -> Option<SplitEntry> {
        let group = self.groups.remove(&key)?;
        self.by_uid.remove(&group.uid);
        self.bytes = self.bytes.saturating_sub(group.held_bytes);
        self.parts = self.parts.saturating_sub(group.records.len());
        Some(group)
    }
}

/// Joins the parts of one value, given in the order of their index.
pub(crate) fn merge(out: &mut String, values: &[Raw<'_>]) {
    merge_at(out, values, 0);
}

fn merge_at(out: &mut String, values: &[Raw<'_>], depth: usize) {
    let says_something = |raw: &&Raw<'_>| !matches!(raw.text(), "\"\"" | "null");
    let Some(first) = values.iter().find(says_something).or(values.first()) else {
        out.push_str("null");
        return;
    };
    let of_kind: Vec<Raw<'_>> = values
        .iter()
        .filter(|raw| raw.kind() == first.kind())
        .copied()
        .collect();
    match first.kind() {
        _ if of_kind.len() == 1 || depth >= DEPTH_MAX => {
            out.push_str(first.text());
        }
        ValueKind::Object => merge_objects(out, &of_kind, depth),
        ValueKind::Array => merge_arrays(out, &of_kind, depth),
        ValueKind::String => {
            // The texts between the quotes: escapes stay as they are.
            out.push('"');
            for raw in &of_kind {
                let inner = raw.text().strip_prefix('"');
                let inner = inner.and_then(|text| text.strip_suffix('"'));
                out.push_str(inner.unwrap_or_default());
            }
            out.push('"');
        }
        ValueKind::Number | ValueKind::Bool | ValueKind::Null => out.push_str(first.text()),
    }
}

fn merge_objects(out: &mut String, objects: &[Raw<'_>], depth: usize) {
    // Members in the order in which they first appear.
    let mut members: Vec<(Cow<'_, str>, Vec<Raw<'_>>, usize)> = Vec::new();
    let mut places: HashMap<Cow<'_, str>, usize> = HashMap::new();
    for (part, object) in objects.iter().enumerate() {
        for (key, value) in object.members().into_iter().flatten() {
            let place = *places.entry(key.clone()).or_insert(members.len());
            match members.get_mut(place) {
                Some((_, values, last_part)) => {
                    // A name repeated within one part: the last wins, as everywhere.
                    if *last_part == part {
                        values.pop();
                    }
                    values.push(value);
                    *last_part = part;
                }
                None => members.push((key, vec![value], part)),
            }
        }
    }
    out.push('{');
    for (at, (key, values, _)) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_string(out, key);
        out.push(':');
        match values.as_slice() {
            // A type that each part repeats is not a divided string.
            [first, rest @ ..]
                if matches!(key.as_ref(), "@type" | "kind" | "apiVersion")
                    && rest.iter().all(|value| value.text() == first.text()) =>
            {
                out.push_str(first.text());
            }
            values => merge_at(out, values, depth + 1),
        }
    }
    out.push('}');
}

fn merge_arrays(out: &mut String, arrays: &[Raw<'_>], depth: usize) {
    let mut parts: Vec<_> = arrays.iter().filter_map(|raw| raw.elements()).collect();
    out.push('[');
    for at in 0.. {
        let values: Vec<Raw<'_>> = parts.iter_mut().filter_map(Iterator::next).collect();
        if values.is_empty() {
            break;
        }
        if at > 0 {
            out.push(',');
        }
        merge_at(out, &values, depth + 1);
    }
    out.push(']');
}

#[cfg(test)]
mod tests;
