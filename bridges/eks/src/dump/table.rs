//! The AWS CLI's `--output text`: a line for each event, columns in alphabetical order, separated
//! by tabs.
//!
//! - `filter-log-events`: `EVENTS`, eventId, ingestionTime, logStreamName, message, timestamp
//! - `get-log-events`: `EVENTS`, ingestionTime, message, timestamp
//!
//! Other lines are no events: `SEARCHEDLOGSTREAMS`, tokens, `None`. A message may contain tabs and
//! line ends (klog), so columns are counted from both ends.

use audit_bridge_replay::dump::Piece;
use jiff::Timestamp;

use super::groups::{Grammar, Groups};
use super::lines;
use super::piece::{LogEventText, Shown, of_bytes};

const EVENT: &[u8] = b"EVENTS\t";

/// Splits before each `EVENTS`.
pub(super) type Table = Groups<Row>;

/// An event's line and the lines up to the next event.
#[derive(Debug, Default)]
pub(super) struct Row;

/// Whether a file with this start has such a line.
pub(super) fn is(head: &str) -> bool {
    head.lines().any(|line| line.as_bytes().starts_with(EVENT))
}

impl Grammar for Row {
    fn starts(&mut self, line: &[u8]) -> bool {
        line.starts_with(EVENT)
    }

    fn group(&mut self, group: &[u8], piece: &mut dyn FnMut(Piece<'_>)) {
        let mut end = 0;
        let mut event = None;
        for line in group.split_inclusive(|&byte| byte == b'\n') {
            end += line.len();
            event = group
                .get(..end)
                .and_then(|lines| columns(lines::chomp(lines)));
            if event.is_some() {
                break;
            }
        }
        let rest = match event {
            Some(Columns {
                stream,
                message,
                time,
            }) => {
                let mut head = LogEventText::default();
                head.stream(&String::from_utf8_lossy(stream));
                if let Some(time) = time {
                    head.time(time);
                }
                of_bytes(head, message, Shown::Known, piece);
                group.get(end..).unwrap_or_default()
            }
            // The file ends inside the event.
            None if group.starts_with(EVENT) => {
                return of_bytes(
                    LogEventText::default(),
                    lines::chomp(group),
                    Shown::Damaged,
                    piece,
                );
            }
            None => group,
        };
        for line in rest.split(|&byte| byte == b'\n').map(lines::chomp) {
            if !is_heading(line) {
                of_bytes(LogEventText::default(), line, Shown::Damaged, piece);
            }
        }
    }
}

/// The columns that are used.
struct Columns<'a> {
    stream: &'a [u8],
    message: &'a [u8],
    time: Option<Timestamp>,
}

/// Parses the columns; `None` until the last one, a time in milliseconds, is there.
fn columns(line: &[u8]) -> Option<Columns<'_>> {
    let tab = line.iter().rposition(|&byte| byte == b'\t')?;
    let (line, time) = (line.get(EVENT.len()..tab)?, line.get(tab + 1..)?);
    let time = digits(time).filter(|_| time.len() >= 10)?;
    let mut parts = line.splitn(4, |&byte| byte == b'\t');
    let (stream, message): (&[u8], _) =
        match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
            (id, ingestion, Some(stream), Some(message))
                if id.iter().all(u8::is_ascii_digit) && digits(ingestion).is_some() =>
            {
                (stream, message)
            }
            (ingestion, ..) => (b"", line.get(ingestion.len() + 1..)?),
        };
    Some(Columns {
        stream,
        message,
        time: Timestamp::from_millisecond(time).ok(),
    })
}

fn digits(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Whether a line of the output is no event: a heading with tabs, or a token.
fn is_heading(line: &[u8]) -> bool {
    line.starts_with(b"SEARCHEDLOGSTREAMS\t")
        || line
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || b"-_/+=.\t".contains(&byte))
}
