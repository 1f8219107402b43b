//! Lines that start with a time: the formats of `aws logs tail`, and the files of an export task.
//!
//! | | a record |
//! |---|---|
//! | tail, detailed | `2026-11-21T18:46:35.975000+00:00 STREAM MESSAGE` |
//! | tail, json | the same, with the message indented over the lines that follow |
//! | tail, short | `2026-11-21T18:46:35 MESSAGE` |
//! | export | `2026-11-21T18:46:35.975Z MESSAGE` |
//!
//! Any other line continues the record before it. Lines are joined without the line end, because
//! JSON has none in a string: it was a terminal that wrapped the line. So text copied from a
//! terminal yields the original event.

use std::borrow::Cow;

use audit_bridge_core::event::json::Raw;
use audit_bridge_core::event::time as event_time;
use audit_bridge_replay::dump::Piece;

use super::groups::{Grammar, Groups};
use super::lines;
use super::piece::{LogEventText, Shown, compact, of_bytes};
use crate::convert::component;

/// Splits before each line that starts with a time.
pub(super) type Entries = Groups<EntryGrammar>;

/// Remembers the form of the times of one file. A time of another form is part of a message, unless
/// the text after it shows a record.
#[derive(Debug, Default)]
pub(super) struct EntryGrammar {
    zone: Option<Zone>,
}

/// How EKS's audit events begin.
const EVENT: &[u8] = b"{\"kind\":\"Event\"";

/// How a time writes its zone; this identifies the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    /// `+00:00`: the stream's name follows.
    Offset,
    /// `Z`
    Zulu,
    /// No zone.
    Absent,
}

/// Whether a line of a file with this start begins with a time. The first lines may be earlier
/// output of the terminal.
pub(super) fn is(head: &str) -> bool {
    head.lines().any(|line| start(line.as_bytes()).is_some())
}

/// The time at the front of a line, and what follows it.
fn start(line: &[u8]) -> Option<(&str, Zone, &[u8])> {
    let line = lines::chomp(line);
    let end = line.iter().take(40).position(|&byte| byte == b' ')?;
    let (time, rest) = (line.get(..end)?, line.get(end + 1..)?);
    if time.get(10) != Some(&b'T') {
        return None;
    }
    let time = std::str::from_utf8(time).ok()?;
    event_time::parse_lenient(time)?;
    let zone = if time.ends_with('Z') {
        Zone::Zulu
    } else if time.get(19..).is_some_and(|tail| tail.contains(['+', '-'])) {
        Zone::Offset
    } else {
        Zone::Absent
    };
    if zone == Zone::Offset {
        let name = rest
            .iter()
            .take_while(|&&byte| in_stream_name(byte))
            .count();
        if name == 0 || rest.get(name).is_some_and(|&byte| byte != b' ') {
            return None;
        }
    }
    Some((time, zone, rest))
}

/// Whether EKS uses this byte in names of log streams.
fn in_stream_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_./#[]$".contains(&byte)
}

impl Grammar for EntryGrammar {
    fn starts(&mut self, line: &[u8]) -> bool {
        match start(line) {
            // Concatenated files are read too: a clear record starts one whatever its time's form.
            Some((_, zone, rest)) => {
                *self.zone.get_or_insert(zone) == zone
                    || zone == Zone::Offset
                    || rest.starts_with(EVENT)
                    || std::str::from_utf8(rest.get(..10).unwrap_or(rest))
                        .is_ok_and(component::is_log_line)
            }
            None => false,
        }
    }

    fn group(&mut self, group: &[u8], piece: &mut dyn FnMut(Piece<'_>)) {
        let first = group
            .split_inclusive(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default();
        let Some((time, zone, _)) = start(first) else {
            // Before the first record: a prompt, or the end of a record whose start is missing.
            let text = group.trim_ascii();
            let shown = match text.windows(2).any(|pair| pair == b"\":") {
                true => Shown::Damaged,
                false => Shown::Unknown,
            };
            return of_bytes(LogEventText::default(), text, shown, piece);
        };
        let joined = join(group.get(time.len() + 1..).unwrap_or_default());
        let mut head = LogEventText::default();
        let mut message = &*joined;
        if zone == Zone::Offset {
            let name = joined
                .iter()
                .take_while(|&&byte| in_stream_name(byte))
                .count();
            let (stream, rest) = joined.split_at(name);
            head.stream(&String::from_utf8_lossy(stream));
            message = rest.strip_prefix(b" ").unwrap_or(rest);
        }
        if let Some(time) = event_time::parse_lenient(time) {
            head.time(time);
        }
        // A time and a text may be of any program's log; only CloudWatch adds a stream's name.
        let known =
            zone == Zone::Offset || std::str::from_utf8(message).is_ok_and(component::is_known);
        let shown = if known { Shown::Known } else { Shown::Unknown };
        if let (Cow::Owned(_), Some(json)) = (&joined, json_of(message)) {
            return of_bytes(head, compact(json).as_bytes(), shown, piece);
        }
        of_bytes(head, message, shown, piece);
    }
}

/// Joins the lines without their ends. A single line is not copied.
fn join(group: &[u8]) -> Cow<'_, [u8]> {
    let group = lines::chomp(group);
    if !group.contains(&b'\n') {
        return Cow::Borrowed(group);
    }
    let mut out = Vec::with_capacity(group.len());
    for line in group.split_inclusive(|&byte| byte == b'\n') {
        out.extend_from_slice(lines::chomp(line));
    }
    Cow::Owned(out)
}

fn json_of(message: &[u8]) -> Option<Raw<'_>> {
    Raw::parse(std::str::from_utf8(message).ok()?).ok()
}
