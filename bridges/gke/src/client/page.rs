//! Cuts an answer of `entries.list` into its entries.
//!
//! Each entry keeps its original bytes. Nothing is decoded and re-encoded, so live records equal
//! those of a saved answer. Only strings and brackets are scanned to find the end of an entry. An
//! entry with invalid JSON inside, or no entry at all, becomes a record like the others and ends in
//! the dead letter, without stopping the page.

use std::ops::Range;

use audit_bridge_core::event::json::{self, Error, Scanner, ValueKind};
use audit_bridge_tail::Identity;
use bytes::Bytes;
use jiff::Timestamp;

/// Why a body is no answer of `entries.list`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("it is not the JSON of one: {want} should stand at byte {at}")]
    Type { want: &'static str, at: usize },
    #[error("its nextPageToken is no string")]
    Token,
    /// An error sent with status 200; it must not be taken for an empty log.
    #[error("it holds an error")]
    Error,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EntriesAnswer {
    /// The text of each entry.
    pub(super) entries: Vec<Bytes>,
    /// The token of the next page.
    pub(super) next: Option<String>,
}

impl EntriesAnswer {
    /// Cuts the body of an answer.
    ///
    /// # Errors
    /// The body is no object with optional members `entries` and `nextPageToken`.
    pub(super) fn read(body: &Bytes) -> Result<EntriesAnswer, AnswerError> {
        let mut answer = EntriesAnswer::default();
        let mut cut = Cut { bytes: body, at: 0 };
        cut.expect(b'{', "{")?;
        if !cut.takes(b'}') {
            loop {
                let key = cut.value()?;
                cut.expect(b':', ":")?;
                match body.get(key).unwrap_or_default() {
                    b"\"entries\"" if cut.takes(b'[') => {
                        if !cut.takes(b']') {
                            loop {
                                answer.entries.push(body.slice(cut.value()?));
                                if !cut.more(b']')? {
                                    break;
                                }
                            }
                        }
                    }
                    b"\"nextPageToken\"" => {
                        let token = body.get(cut.value()?).unwrap_or_default();
                        let token: String =
                            serde_json::from_slice(token).map_err(|_| AnswerError::Token)?;
                        answer.next = Some(token).filter(|token| !token.is_empty());
                    }
                    b"\"error\"" => return Err(AnswerError::Error),
                    _ => {
                        cut.value()?;
                    }
                }
                if !cut.more(b'}')? {
                    break;
                }
            }
        }
        match cut.peek() {
            None => Ok(answer),
            Some(_) => Err(cut.type_error("its end")),
        }
    }
}

/// Steps over JSON without decoding it.
struct Cut<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cut<'_> {
    fn peek(&mut self) -> Option<u8> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
        self.at += blank.count();
        self.bytes.get(self.at).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, byte: u8, name: &'static str) -> Result<(), AnswerError> {
        match self.takes(byte) {
            true => Ok(()),
            false => Err(self.type_error(name)),
        }
    }

    /// Whether a comma follows, rather than the end.
    fn more(&mut self, end: u8) -> Result<bool, AnswerError> {
        if self.takes(end) {
            return Ok(false);
        }
        self.expect(b',', ",").map(|()| true)
    }

    fn type_error(&self, want: &'static str) -> AnswerError {
        AnswerError::Type { want, at: self.at }
    }

    /// Steps over a value and returns its range.
    fn value(&mut self) -> Result<Range<usize>, AnswerError> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => self.string()?,
            Some(b'{' | b'[') => {
                let mut depth = 0_usize;
                loop {
                    match self.bytes.get(self.at) {
                        Some(b'"') => {
                            self.string()?;
                            continue;
                        }
                        Some(b'{' | b'[') => depth += 1,
                        Some(b'}' | b']') => depth -= 1,
                        Some(_) => {}
                        None => return Err(self.type_error("a closing bracket")),
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            _ => {
                let ends = |byte: &u8| b",]} \t\r\n".contains(byte);
                let rest = self.bytes.get(self.at..).unwrap_or_default();
                let length = rest.iter().position(ends).unwrap_or(rest.len());
                if length == 0 {
                    return Err(self.type_error("a value"));
                }
                self.at += length;
            }
        }
        Ok(start..self.at)
    }

    /// Steps over a string, from its opening quote.
    fn string(&mut self) -> Result<(), AnswerError> {
        match json::closing_quote(self.bytes, self.at + 1) {
            Some(end) => {
                self.at = end + 1;
                Ok(())
            }
            None => {
                self.at = self.bytes.len();
                Err(self.type_error("a closing quote"))
            }
        }
    }
}

/// An entry, and the members that identify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentifiedEntry {
    /// The original bytes.
    pub(crate) text: Bytes,
    /// `logName`; empty if absent.
    pub(crate) log: String,
    /// `insertId`; empty if absent.
    pub(crate) insert_id: String,
    /// `timestamp`; `None` if it is absent or invalid.
    pub(crate) time: Option<Timestamp>,
    /// `receiveTimestamp`; `None` if it is absent or invalid.
    pub(crate) received: Option<Timestamp>,
    /// The JSON is damaged.
    pub(crate) damaged: bool,
}

impl IdentifiedEntry {
    /// Decodes the envelope, as far as possible.
    pub(crate) fn read(text: Bytes) -> IdentifiedEntry {
        let mut entry = IdentifiedEntry {
            text: Bytes::new(),
            log: String::new(),
            insert_id: String::new(),
            time: None,
            received: None,
            damaged: false,
        };
        let read = std::str::from_utf8(&text).is_ok_and(|text| entry.envelope(text).is_ok());
        entry.damaged = !read || entry.time.is_none();
        entry.text = text;
        entry
    }

    fn envelope(&mut self, text: &str) -> Result<(), Error> {
        let mut s = Scanner::new(text);
        s.open_object()?;
        while let Some(key) = s.key()? {
            let value = s.value()?;
            let text = || match value.kind() {
                ValueKind::String => value.as_str().unwrap_or_default().into_owned(),
                _ => String::new(),
            };
            match key.as_ref() {
                "logName" => self.log = text(),
                "insertId" => self.insert_id = text(),
                "timestamp" => self.time = text().parse().ok(),
                "receiveTimestamp" => self.received = text().parse().ok(),
                _ => {}
            }
        }
        s.end()
    }

    /// Log, time and insert ID, by which Cloud Logging itself recognises duplicates; the bytes if
    /// one of them is missing.
    pub(crate) fn identity(&self) -> Identity {
        match self.time {
            Some(time) if !self.damaged && !self.log.is_empty() && !self.insert_id.is_empty() => {
                let time = time.as_nanosecond().to_le_bytes();
                Identity::of(&[self.log.as_bytes(), &time, self.insert_id.as_bytes()])
            }
            _ => Identity::of(&[&self.text]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(body: &str, entries: &[&str], next: Option<&str>) {
        let answer = EntriesAnswer::read(&Bytes::copy_from_slice(body.as_bytes())).unwrap();
        assert_eq!(answer.entries, entries, "{body}");
        assert_eq!(answer.next.as_deref(), next, "{body}");
    }

    #[test]
    fn page_answer_is_split_and_keeps_its_bytes() {
        check("{}", &[], None);
        check(" { } \n", &[], None);
        check(r#"{"nextPageToken":"t\u0041"}"#, &[], Some("tA"));
        check(r#"{"entries":[],"nextPageToken":""}"#, &[], None);
        check(r#"{"entries":null}"#, &[], None);
        check(
            "{\n  \"entries\": [\n    {\"a\": [1.50, \"}\\\"]\"]},\n {} ],\n \"other\": [{}],\n \
             \"nextPageToken\": \"x\"\n}\n",
            &["{\"a\": [1.50, \"}\\\"]\"]}", "{}"],
            Some("x"),
        );
    }

    #[test]
    fn page_invalid_entry_costs_only_itself() {
        check(
            "{\"entries\":[7,null,\"x\",[1],{\"a\":tru},{\"a\" 1},{\"a\":\"\u{1}\\q\"},{\"b\":2}]}",
            &[
                "7",
                "null",
                "\"x\"",
                "[1]",
                "{\"a\":tru}",
                "{\"a\" 1}",
                "{\"a\":\"\u{1}\\q\"}",
                "{\"b\":2}",
            ],
            None,
        );
    }

    #[test]
    fn page_invalid_answer_is_refused() {
        for body in [
            "",
            "<html>",
            "[]",
            "null",
            "{",
            r#"{"entries":[{}"#,
            r#"{"entries":[{"a":"b}]}"#,
            r#"{"entries":[{}]} {}"#,
            r#"{"entries":[{},]}"#,
            r#"{"nextPageToken":7}"#,
            r#"{"error":{"code":500}}"#,
            r#"{"entries" []}"#,
        ] {
            let read = EntriesAnswer::read(&Bytes::copy_from_slice(body.as_bytes()));
            assert!(read.is_err(), "{body}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn page_any_bytes_are_split_or_refused(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "{", "}", "[", "]", "\"", "\\", ",", ":", " ", "7", "\"entries\":[", "{}",
                    "\"nextPageToken\":\"t\"", "\"a\":1", "ä",
                ]),
                0..40,
            ),
        ) {
            let body = Bytes::from(words.concat());
            let Ok(answer) = EntriesAnswer::read(&body) else { return Ok(()) };
            for entry in answer.entries {
                // Each entry is a piece of the answer, without surplus commas or brackets.
                prop_assert!(!entry.is_empty());
                prop_assert_eq!(entry.trim_ascii(), &entry[..]);
                let _ = IdentifiedEntry::read(entry).identity();
            }
        }
    }

    #[test]
    fn entry_identity_is_log_time_and_insert_id() {
        let read = |text: &str| IdentifiedEntry::read(Bytes::copy_from_slice(text.as_bytes()));
        let one =
            read(r#"{"logName":"l","timestamp":"2026-11-21T10:00:00Z","insertId":"i","x":1}"#);
        let same = read(r#"{"insertId":"i","timestamp":"2026-11-21T10:00:00.000Z","logName":"l"}"#);
        assert_eq!(one.identity(), same.identity());
        assert!(!one.damaged);
        for other in [
            r#"{"logName":"l","timestamp":"2026-11-21T10:00:00.000000001Z","insertId":"i"}"#,
            r#"{"logName":"l","timestamp":"2026-11-21T10:00:00Z","insertId":"j"}"#,
            r#"{"logName":"m","timestamp":"2026-11-21T10:00:00Z","insertId":"i"}"#,
            r#"{"logName":"l","timestamp":"2026-11-21T10:00:00Z"}"#,
        ] {
            assert_ne!(one.identity(), read(other).identity(), "{other}");
            assert!(!read(other).damaged, "{other}");
        }
        for damaged in [
            "7",
            "{",
            r#"{"timestamp":"then"}"#,
            r#"{"timestamp":7,"insertId":"i"}"#,
        ] {
            let entry = read(damaged);
            assert!(entry.damaged, "{damaged}");
            assert_eq!(entry.identity(), Identity::of(&[damaged.as_bytes()]));
        }
        assert!(IdentifiedEntry::read(Bytes::from_static(b"{\"a\":\"\xff\"}")).damaged);
    }
}
