//! An audit event inside a provider's record: most providers embed it as a string, some exports as
//! an object.

use std::borrow::Cow;

use bytes::Bytes;

use super::json::{Error, Raw, Scanner};

/// The value in a record where its audit event, or a log line, is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Embedded<'a> {
    /// A string, decoded.
    Text(Cow<'a, str>),
    /// Any other JSON value.
    Json(Raw<'a>),
}

impl<'a> Embedded<'a> {
    /// Reads the next value.
    ///
    /// # Errors
    /// The value is not valid JSON.
    pub fn read(scanner: &mut Scanner<'a>) -> Result<Embedded<'a>, Error> {
        match scanner.peek() {
            Some(b'"') => scanner.string().map(Embedded::Text),
            _ => scanner.value().map(Embedded::Json),
        }
    }

    /// The decoded string, or the JSON text.
    pub fn text(&self) -> &str {
        match self {
            Embedded::Text(text) => text,
            Embedded::Json(raw) => raw.text(),
        }
    }

    /// The same as text that borrows nothing.
    pub fn into_owned(self) -> Embedded<'static> {
        Embedded::Text(Cow::Owned(match self {
            Embedded::Text(text) => text.into_owned(),
            Embedded::Json(raw) => raw.text().to_owned(),
        }))
    }

    /// The bytes; text that is a slice of `payload` is not copied.
    pub fn into_bytes(self, payload: &Bytes) -> Bytes {
        match self {
            Embedded::Text(Cow::Owned(text)) => Bytes::from(text),
            Embedded::Text(Cow::Borrowed(text)) => payload.slice_ref(text.as_bytes()),
            Embedded::Json(raw) => payload.slice_ref(raw.text().as_bytes()),
        }
    }
}

/// Whether a member of this name shows that the object itself is an audit event.
pub fn is_event_member(name: &str) -> bool {
    matches!(name, "kind" | "apiVersion" | "auditID" | "stage")
}
