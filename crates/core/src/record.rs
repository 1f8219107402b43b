//! A record: the provider's bytes and where they came from.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use crate::chain::printable;
use crate::event::json;

/// One record as the provider's log holds it.
///
/// `payload` is always in the provider's own form, whether it came from the live API or from a
/// dump: a CloudWatch event, a Cloud Logging `LogEntry` or a record of an AKS diagnostic setting,
/// as JSON; a native audit event; or else the text as it is. So one converter serves both paths,
/// and `replay` can read the dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub payload: Bytes,
    pub origin: Origin,
    /// The event's time according to the provider's log, if the source states it outside the
    /// payload.
    pub time: Option<Timestamp>,
    /// The record came from a damaged part of its source. If it does not convert, it is rejected as
    /// a loss rather than skipped as foreign.
    pub damaged: bool,
    /// The record exceeds the largest size that is read; the payload is only its beginning.
    pub oversized: bool,
}

impl Record {
    /// A whole record whose time only its payload may state.
    pub fn new(payload: impl Into<Bytes>, origin: Origin) -> Record {
        Record {
            payload: payload.into(),
            origin,
            time: None,
            damaged: false,
            oversized: false,
        }
    }

    /// Hands the payload to `read` as bytes and as text. The flag says whether invalid UTF-8 was
    /// replaced with U+FFFD, as Go's decoder does.
    pub fn with_text<T>(&self, read: impl FnOnce(&Bytes, &str, bool) -> T) -> T {
        match json::replace_invalid(&self.payload) {
            Cow::Borrowed(text) => read(&self.payload, text, false),
            Cow::Owned(text) => {
                let bytes = Bytes::from(text);
                // The text shares the memory of the bytes, so that the bytes can be sliced by parts
                // of the text.
                let text = std::str::from_utf8(&bytes).unwrap_or_default();
                read(&bytes, text, true)
            }
        }
    }
}

/// Where a record was found, as the dead letter writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// A saved dump.
    File {
        /// The path as the user gave it, or as found below it; `-` for standard input.
        file: std::sync::Arc<str>,
        /// The record's number in the file, from 1.
        record: u64,
    },
    /// A log read live.
    Stream {
        /// The log stream, log, or partition.
        stream: std::sync::Arc<str>,
        /// The provider's ID of the record.
        id: String,
    },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File { file, record } => write!(f, "{}: record {record}", printable(file)),
            Origin::Stream { stream, id } => {
                write!(f, "{}: {}", printable(stream), printable(id))
            }
        }
    }
}
