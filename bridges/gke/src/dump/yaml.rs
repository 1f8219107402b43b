//! YAML, which `gcloud` prints by default: documents after `---` lines, or one list.
//!
//! The stream is split at lines, without parsing. `---` in the first column always starts a
//! document (YAML 1.2.2, 9.1.2: not even a block scalar may contain it). In a document that is a
//! list, `- ` in the first column starts an element. Each piece is then parsed separately.

use std::borrow::Cow;

use audit_bridge_core::event::json::Raw;
use audit_bridge_replay::dump::{Piece, Splitter};
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

mod escape;

/// Members by which YAML is recognised as log entries.
const MEMBERS: [&str; 17] = [
    "errorGroups",
    "httpRequest",
    "insertId",
    "jsonPayload",
    "labels",
    "logName",
    "operation",
    "protoPayload",
    "receiveTimestamp",
    "resource",
    "severity",
    "sourceLocation",
    "spanId",
    "split",
    "textPayload",
    "timestamp",
    "trace",
];

/// Deepest nesting that is parsed: protobuf allows 100 levels.
const DEPTH_MAX: usize = 128;

/// Whether the first line with content is a member of a log entry.
pub(super) fn looks_like_entries(head: &str) -> bool {
    head.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim_end)
        .find(|line| !is_blank(line.as_bytes()) && *line != "---")
        .map(|line| line.strip_prefix("- ").unwrap_or(line).trim_start())
        .and_then(|line| line.split_once(':'))
        .is_some_and(|(key, _)| MEMBERS.contains(&key.trim_matches(['"', '\''])))
}

/// Splits a YAML stream into entries, each as JSON.
#[derive(Debug, Default)]
pub(super) struct YamlSplit {
    /// The kind of the document at the buffer's start.
    document: Document,
    /// Bytes of the buffer that were examined.
    scanned: usize,
    /// The buffer starts with the rest of an entry that was too large.
    skipping: bool,
    /// The buffer starts within a line.
    within_line: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Document {
    /// No line of content seen yet.
    #[default]
    Unknown,
    Mapping,
    List,
}

impl Splitter for YamlSplit {
    fn split(&mut self, buffer: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> usize {
        let mut start = 0;
        let mut at = self.scanned.min(buffer.len());
        while let Some(rest) = buffer.get(at..).filter(|rest| !rest.is_empty()) {
            let line = match memchr::memchr(b'\n', rest) {
                Some(end) => rest.get(..=end).unwrap_or(rest),
                None if last => rest,
                None => break,
            };
            if !self.within_line && self.starts_piece(line) {
                self.finish(buffer.get(start..at).unwrap_or_default(), piece);
                start = at;
            }
            self.within_line = false;
            at += line.len();
        }
        if self.skipping {
            // Drop all of it, even an unfinished line, unless that line starts the next piece, or
            // may turn out to.
            self.scanned = 0;
            let open = buffer.get(at..).unwrap_or_default();
            if open.is_empty() {
                return buffer.len();
            }
            if !self.within_line {
                if open.len() < 4 {
                    return at;
                }
                if self.starts_piece(open) {
                    self.skipping = false;
                    return at;
                }
            }
            self.within_line = true;
            return buffer.len();
        }
        if last {
            self.finish(buffer.get(start..).unwrap_or_default(), piece);
            *self = YamlSplit::default();
            return buffer.len();
        }
        self.scanned = at - start;
        start
    }

    fn overflow(&mut self, buffer: &[u8], _: &mut dyn FnMut(Piece<'_>)) -> Option<usize> {
        self.skipping = true;
        self.scanned = 0;
        self.within_line = !buffer.ends_with(b"\n");
        None
    }
}

impl YamlSplit {
    /// Whether this line starts a document or element.
    fn starts_piece(&mut self, line: &[u8]) -> bool {
        let line = line.trim_ascii_end();
        let marks = |mark: &[u8]| {
            line.strip_prefix(mark)
                .is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
        };
        if marks(b"---") {
            self.document = Document::Unknown;
            return true;
        }
        if self.document == Document::Unknown && !is_blank(line) {
            self.document = match marks(b"-") {
                true => Document::List,
                false => Document::Mapping,
            };
        }
        self.document == Document::List && marks(b"-")
    }

    fn finish(&mut self, text: &[u8], piece: &mut dyn FnMut(Piece<'_>)) {
        if std::mem::take(&mut self.skipping) {
            return;
        }
        if text.split(|&byte| byte == b'\n').all(is_separator) {
            return;
        }
        match entries(text) {
            Some(entries) => {
                for entry in entries {
                    let recognised = super::has_entry_member(&entry);
                    piece(Piece {
                        bytes: Cow::Owned(entry.into_bytes()),
                        damaged: false,
                        recognised,
                    });
                }
            }
            None => piece(Piece {
                bytes: Cow::Borrowed(text.trim_ascii()),
                damaged: true,
                recognised: memchr::memmem::find(text, b"protoPayload:").is_some(),
            }),
        }
    }
}

/// Whether a line has no content: it is empty or a comment.
fn is_blank(line: &[u8]) -> bool {
    matches!(line.trim_ascii().first(), None | Some(b'#'))
}

fn is_separator(line: &[u8]) -> bool {
    is_blank(line) || matches!(line.trim_ascii(), b"---" | b"...")
}

/// The entries of one document, as JSON; `None` if it is no YAML.
fn entries(text: &[u8]) -> Option<Vec<String>> {
    let text = escape::escaped(std::str::from_utf8(text).ok()?);
    let mut budget = serde_saphyr::Budget::default();
    budget.max_depth = DEPTH_MAX;
    let options = serde_saphyr::options! {
        budget: Some(budget),
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        // gcloud writes `no` and `0755` unquoted only for text: PyYAML quotes all text that YAML
        // 1.1 takes for something else.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    let mut value: Value = serde_saphyr::from_str_with_options(&text, options).ok()?;
    if matches!(text, Cow::Owned(_)) {
        escape::restore(&mut value);
    }
    let values = match value {
        Value::Array(values) => values,
        Value::Null => Vec::new(),
        value => vec![value],
    };
    values
        .iter()
        .map(|value| {
            let json = value.to_string();
            let unwrapped = super::unwrapped(Raw::parse(&json).ok()?).ok()?;
            Some(unwrapped.into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests;
