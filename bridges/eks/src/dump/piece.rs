//! Writes a log event in CloudWatch's own form.

use std::borrow::Cow;

use audit_bridge_core::event::json::{self, Raw, ValueKind};
use audit_bridge_replay::dump::{Piece, PieceContext};
use jiff::Timestamp;

use crate::wire;

/// The members of a log event's JSON that precede its message.
#[derive(Debug, Clone, Default)]
pub(super) struct LogEventText(Vec<u8>);

impl LogEventText {
    /// The members that a subscription's message has in common for its events.
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

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the log stream, unless its name is empty.
    pub(super) fn stream(&mut self, name: &str) {
        if !name.is_empty() {
            self.member("logStreamName", name);
        }
    }

    /// Adds the event's time.
    pub(super) fn time(&mut self, time: Timestamp) {
        self.key("timestamp");
        let ms = time.as_millisecond().to_string();
        self.0.extend_from_slice(ms.as_bytes());
    }

    /// Completes the event with a message that is JSON already.
    pub(super) fn finish(mut self, message: Raw<'_>) -> String {
        self.key("message");
        match message.kind() {
            ValueKind::Object => self.0.extend_from_slice(compact(message).as_bytes()),
            _ => self.0.extend_from_slice(message.text().as_bytes()),
        }
        self.end()
    }

    /// Completes the event with a message that is text.
    pub(super) fn finish_text(mut self, message: &str) -> String {
        self.0.reserve(message.len() + message.len() / 4);
        self.member("message", message);
        self.end()
    }

    /// Puts the members in front of another object's, whose text is given without the opening
    /// brace.
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
        // Only strings went in, so this loses nothing.
        String::from_utf8(self.0)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// What the text around a message tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// It is a CloudWatch event.
    Known,
    /// Nothing: any program could have written it.
    Unknown,
    /// It is a CloudWatch event whose start or end is missing.
    Damaged,
}

/// Emits a piece whose message is bytes of a file. Bytes that are no text stay unchanged, so that
/// the dead letter keeps the original.
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

/// JSON without whitespace between its tokens. Some formats indent events, which can double their
/// size and push them over the limit.
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
