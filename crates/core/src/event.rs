//! The vocabulary of Kubernetes auditing: pure, no clock, no I/O, nothing of any provider.

pub mod json;
pub mod list;
pub mod native;
pub mod time;

use bytes::Bytes;

/// One `audit.k8s.io/v1` Event as JSON text, ready to be an item of an `EventList`
/// (Kubernetes: `k8s.io/apiserver/pkg/apis/audit/v1.Event`).
///
/// Whoever makes one answers for it: valid JSON, with `kind`, `apiVersion`, `auditID`, `stage`,
/// `verb` and an RFC 3339 `stageTimestamp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    text: Bytes,
    truncated: bool,
}

impl Event {
    /// An event whose text the caller made and answers for.
    pub fn new(text: impl Into<Bytes>, truncated: bool) -> Event {
        Event {
            text: text.into(),
            truncated,
        }
    }

    /// The event's JSON.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// Whether it carries the mark `audit.k8s.io/truncated`.
    pub fn truncated(&self) -> bool {
        self.truncated
    }
}
