//! A record: the provider's bytes with their place.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use crate::event::json;

/// One record as the provider's log holds it.
///
/// `payload` is always in the provider's own form, whether it came from the live API or from a
/// dump: a CloudWatch event, a Cloud Logging `LogEntry`, a record of an AKS diagnostic setting,
/// each as JSON; or a native audit event; or, when it is none of them, the text as it is. So one
/// converter serves both paths, and the dead letter keeps what `replay` can read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The provider's record.
    pub payload: Bytes,
    /// Where it was found.
    pub origin: Origin,
    /// When the provider's log says it happened, if the place it was read from says so outside
    /// the payload.
    pub time: Option<Timestamp>,
    /// The record came out of a damaged part of its source: if it does not convert, it is no
    /// stranger to be skipped but a loss to be kept.
    pub damaged: bool,
    /// The record is larger than what is read of one; the payload is its beginning.
    pub oversized: bool,
}

impl Record {
    /// A whole record, of a time that only its payload may say.
    pub fn new(payload: impl Into<Bytes>, origin: Origin) -> Record {
        Record {
            payload: payload.into(),
            origin,
            time: None,
            damaged: false,
            oversized: false,
        }
    }

    /// Hands the payload to `read`, as bytes and as text, and says whether bytes in it were no UTF-8
    /// and are U+FFFD now, as Go's decoder reads them.
    pub fn with_text<T>(&self, read: impl FnOnce(&Bytes, &str, bool) -> T) -> T {
        match json::replace_invalid(&self.payload) {
            Cow::Borrowed(text) => read(&self.payload, text, false),
            Cow::Owned(text) => {
                let bytes = Bytes::from(text);
                // The same memory, so that the bytes can be sliced by parts of the text.
                let text = std::str::from_utf8(&bytes).unwrap_or_default();
                read(&bytes, text, true)
            }
        }
    }
}

/// Where a record was found, as the dead letter tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// A saved dump.
    File {
        /// The path as the user gave it, or as found below it; `-` for standard input.
        file: std::sync::Arc<str>,
        /// Which record of the file, from 1.
        record: u64,
    },
    /// A log read live.
    Stream {
        /// The log stream, log, or partition.
        stream: std::sync::Arc<str>,
        /// The provider's identity of the record.
        id: String,
    },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File { file, record } => write!(f, "{file}: record {record}"),
            Origin::Stream { stream, id } => write!(f, "{stream}: {id}"),
        }
    }
}
