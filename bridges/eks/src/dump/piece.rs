//! Writes a log event in CloudWatch's own form.

use std::borrow::Cow;

use audit_bridge_core::event::json::{self, Raw, ValueKind};
use audit_bridge_replay::dump::{Piece, PieceContext};
use jiff::Timestamp;

use crate::wire;

/// The JSON text of a log event, as far as it is written: the members before its message.
#[derive(Debug, Clone, Default)]
pub(super) struct LogEventText(Vec<u8>);

impl LogEventText {
    /// What a subscription's message says of all its events.
    pub(super) fn of(context: &PieceContext) -> LogEventText {
        let mut text = LogEventText::default();
        if context.str("messageType").as_deref() == Some(wire::CONTROL_MESSAGE) {
            text.member("messageType", wire::CONTROL_MESSAGE);
        }
        for name in ["owner", "logGroup"] {
            if let Some(value) = context.str(name).filter(|value| !value.is_empty()) {
                text.member(name, &value);
            }
        }
        if let Some(stream) = context.str("logStream") {
            text.stream(&stream);
        }
        text
    }

    /// Whether nothing is known yet.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The log stream; an empty name is none.
    pub(super) fn stream(&mut self, name: &str) {
        if !name.is_empty() {
            self.member("logStreamName", name);
        }
    }

    /// The event's time.
    pub(super) fn time(&mut self, time: Timestamp) {
        self.key("timestamp");
        let ms = time.as_millisecond().to_string();
        self.0.extend_from_slice(ms.as_bytes());
    }

    /// The whole event, with a message that is JSON already.
    pub(super) fn finish(mut self, message: Raw<'_>) -> String {
        self.key("message");
        match message.kind() {
            ValueKind::Object => self.0.extend_from_slice(compact(message).as_bytes()),
            _ => self.0.extend_from_slice(message.text().as_bytes()),
        }
        self.end()
    }

    /// The whole event, with a message that is text.
    pub(super) fn finish_text(mut self, message: &str) -> String {
        self.0.reserve(message.len() + message.len() / 4);
        self.member("message", message);
        self.end()
    }

    /// The members in front of those of another object, which is given without its bracket.
    pub(super) fn before(mut self, rest: &str) -> String {
        if !rest.trim_ascii_start().starts_with('}') {
            self.0.push(b',');
        }
        self.0.extend_from_slice(rest.as_bytes());
        self.string()
    }

    fn member(&mut self, name: &str, value: &str) {
        self.key(name);
        json::write_string(&mut self.0, value);
    }

    fn key(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        json::write_string(&mut self.0, name);
        self.0.push(b':');
    }

    fn end(mut self) -> String {
        self.0.push(b'}');
        self.string()
    }

    fn string(self) -> String {
        // Only strings went in: nothing is lost here.
        String::from_utf8(self.0)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// What the text around a message shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// It is a CloudWatch event.
    Known,
    /// Nothing: it could be of any program.
    Unknown,
    /// It is one that lacks its start or its end.
    Damaged,
}

/// A piece with a message that is nothing but bytes of a file. Those that are no text stay as they
/// are, so that what is kept of them is what was there.
pub(super) fn of_bytes(
    head: LogEventText,
    message: &[u8],
    shown: Shown,
    piece: &mut dyn FnMut(Piece<'_>),
) {
    let text = std::str::from_utf8(message);
    piece(Piece {
        damaged: shown == Shown::Damaged || text.is_err(),
        recognised: shown == Shown::Known,
        bytes: match text {
            Ok(text) => Cow::Owned(head.finish_text(text).into_bytes()),
            Err(_) => Cow::Borrowed(message),
        },
    });
}

/// JSON without the space between its tokens. Some formats indent the events that they hold, which
/// can make one twice as large as it was, and too large.
pub(super) fn compact(json: Raw<'_>) -> String {
    let (text, bytes) = (json.text(), json.text().as_bytes());
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b'"' => json::closing_quote(bytes, at + 1).map_or(bytes.len(), |quote| quote + 1),
            _ => at + 1,
        };
        if !byte.is_ascii_whitespace() {
            out.push_str(text.get(at..end).unwrap_or_default());
        }
        at = end;
    }
    out
}
