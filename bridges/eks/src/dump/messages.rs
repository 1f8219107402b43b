//! Bare messages: `--query 'events[].message' --output text` separates them by tabs, other tools by
//! line ends. JSON contains neither, so no audit event is cut in two.
//!
//! Also reads `aws-logs-write-test`, a file that an export task leaves with its data.

use audit_bridge_replay::dump::{Piece, Splitter};

use super::lines::{self, Lines};
use super::piece::{LogEventText, Shown, of_bytes};
use crate::convert::component;

/// The text with which an export task tests its permission to write.
const WRITE_TEST: &str = "Permission Check Successful";

/// Splits at tabs and line ends.
#[derive(Debug, Default)]
pub(super) struct TabbedLines {
    ends: Lines,
    dropping: bool,
}

/// Whether a file with this start holds messages: audit events separated by tabs, or log lines of a
/// control plane component.
pub(super) fn is(head: &str) -> bool {
    let line = head.lines().next().unwrap_or_default();
    line.trim() == WRITE_TEST
        || line.contains("\t{\"kind\":\"Event\"")
        || line.contains("}\t{")
        || component::is_log_line(line)
}

/// The shape tells nothing, so the message's text decides.
fn shown(message: &[u8]) -> Shown {
    match std::str::from_utf8(message) {
        Ok(text) if text == WRITE_TEST || component::is_known(text) => Shown::Known,
        _ => Shown::Unknown,
    }
}

impl Splitter for TabbedLines {
    fn split(&mut self, buffer: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> usize {
        let mut taken = 0;
        let ends = |byte| matches!(byte, b'\t' | b'\n');
        while let Some(end) = self.ends.end_at(buffer, taken, last, ends) {
            let message = buffer.get(taken..end).unwrap_or_default();
            let message = message.strip_suffix(b"\t").unwrap_or(lines::chomp(message));
            taken = end;
            if !std::mem::take(&mut self.dropping) && !message.trim_ascii().is_empty() {
                of_bytes(LogEventText::default(), message, shown(message), piece);
            }
        }
        if self.dropping {
            taken = buffer.len();
        }
        self.ends.taken(taken);
        taken
    }

    fn overflow(&mut self, _buffer: &[u8], _piece: &mut dyn FnMut(Piece<'_>)) -> Option<usize> {
        self.ends = Lines::default();
        self.dropping = true;
        None
    }
}
