//! The dump shapes of AKS diagnostic logs. All are JSON that contains the records unchanged.

use std::borrow::Cow;

use audit_bridge_core::event::json::{Raw, ValueKind};
use audit_bridge_replay::dump::{Dump, PieceContext, RecordError, Role, Shape, Splitter};

/// The dump shapes of AKS diagnostic settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct AksDump;

const SHAPES: &[Shape] = &[
    Shape {
        name: "event-hub",
        about: "messages of an event hub, {\"records\":[…]}, one or several",
        json: true,
    },
    Shape {
        name: "archive",
        about: "a storage account's PT1H.json: a record a line",
        json: true,
    },
    Shape {
        name: "records",
        about: "records by themselves, or in an array",
        json: true,
    },
];

impl Dump for AksDump {
    fn shapes(&self) -> &'static [Shape] {
        SHAPES
    }

    fn role(&self, key: &str) -> Role {
        const OF_A_RECORD: [&str; 5] = [
            "properties",
            "category",
            "operationName",
            "resourceId",
            "ccpNamespace",
        ];
        if key.eq_ignore_ascii_case("records") {
            Role::Records
        } else if OF_A_RECORD
            .iter()
            .any(|name| key.eq_ignore_ascii_case(name))
        {
            Role::Record
        } else {
            // A dead letter has `time` too.
            Role::Neutral
        }
    }

    fn record<'a>(
        &self,
        piece: Raw<'a>,
        _context: &PieceContext,
    ) -> Result<Cow<'a, str>, RecordError> {
        match piece.kind() {
            // A log line that was extracted from its record.
            ValueKind::String => piece
                .as_str()
                .ok_or_else(|| "a string with half a utf-16 surrogate pair".into()),
            _ => Ok(Cow::Borrowed(piece.text())),
        }
    }

    fn recognises(&self, piece: Raw<'_>) -> bool {
        piece
            .as_str()
            .is_some_and(|log| log.contains("\"auditID\""))
    }

    fn text_split(&self, _shape: Option<&str>, _head: &str) -> Option<Box<dyn Splitter>> {
        None
    }
}

#[cfg(test)]
mod tests;
