//! An audit event inside a provider's record: most write it as a string, some exports as the object
//! itself.

use std::borrow::Cow;

use bytes::Bytes;

use super::json::{Error, Raw, Scanner};

/// What stands in a record where its audit event, or a log line, should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Embedded<'a> {
    /// A string, decoded.
    Text(Cow<'a, str>),
    /// Some other JSON.
    Json(Raw<'a>),
}

impl<'a> Embedded<'a> {
    /// Reads the value that comes next.
    ///
    /// # Errors
    /// What makes it no JSON.
    pub fn read(scanner: &mut Scanner<'a>) -> Result<Embedded<'a>, Error> {
        match scanner.peek() {
            Some(b'"') => scanner.string().map(Embedded::Text),
            _ => scanner.value().map(Embedded::Json),
        }
    }

    /// The text of it.
    pub fn text(&self) -> &str {
        match self {
            Embedded::Text(text) => text,
            Embedded::Json(raw) => raw.text(),
        }
    }

    /// The same as a text of its own.
    pub fn into_owned(self) -> Embedded<'static> {
        Embedded::Text(Cow::Owned(match self {
            Embedded::Text(text) => text.into_owned(),
            Embedded::Json(raw) => raw.text().to_owned(),
        }))
    }

    /// Its bytes. What was read out of `payload` and did not have to be decoded is not copied.
    pub fn into_bytes(self, payload: &Bytes) -> Bytes {
        match self {
            Embedded::Text(Cow::Owned(text)) => Bytes::from(text),
            Embedded::Text(Cow::Borrowed(text)) => payload.slice_ref(text.as_bytes()),
            Embedded::Json(raw) => payload.slice_ref(raw.text().as_bytes()),
        }
    }
}

/// Whether a member of this name shows that an object is an audit event itself.
pub fn is_event_member(name: &str) -> bool {
    matches!(name, "kind" | "apiVersion" | "auditID" | "stage")
}
