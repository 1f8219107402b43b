//! The dump shapes of CloudWatch logs.
//!
//! The shared reader finds records in JSON; this module only converts them to CloudWatch's own
//! form. Text is cut by the splitters below: `entries` (lines that start with a time), `table` (the
//! AWS CLI's `--output text`), `csv` (a Logs Insights export) and `messages` (bare messages).

mod csv;
mod entries;
mod groups;
mod lines;
mod messages;
mod piece;
mod table;

use std::borrow::Cow;

use audit_bridge_core::event::json::{Raw, ValueKind};
use audit_bridge_replay::dump::{Dump, PieceContext, RecordError, Role, Shape, Splitter};

use self::piece::LogEventText;
use crate::convert::component;
use crate::wire::{self, packed};

/// The dump shapes of CloudWatch Logs.
#[derive(Debug, Clone, Copy, Default)]
pub struct EksDump;

const TAIL: &str = "tail";
const EXPORT: &str = "export";
const TABLE: &str = "cli-text";
const CSV: &str = "insights-csv";
const MESSAGES: &str = "messages-text";

const SHAPES: &[Shape] = &[
    Shape {
        name: "filter-log-events",
        about: "aws logs filter-log-events, also one log event after the other",
        json: true,
    },
    Shape {
        name: "get-log-events",
        about: "aws logs get-log-events",
        json: true,
    },
    Shape {
        name: "messages",
        about: "the same with --query 'events[].message': an array of strings",
        json: true,
    },
    Shape {
        name: "subscription",
        about: "what a subscription delivers to Firehose or Kinesis, decompressed",
        json: true,
    },
    Shape {
        name: "live-tail",
        about: "the session updates of a Live Tail",
        json: true,
    },
    Shape {
        name: "insights",
        about: "Logs Insights: aws logs get-query-results, or the console's JSON",
        json: true,
    },
    Shape {
        name: CSV,
        about: "Logs Insights: the console's CSV, with @message among its columns",
        json: false,
    },
    Shape {
        name: TAIL,
        about: "aws logs tail, in each --format, also copied from a terminal",
        json: false,
    },
    Shape {
        name: EXPORT,
        about: "an export task's files on S3: a time and a message a line",
        json: false,
    },
    Shape {
        name: TABLE,
        about: "aws logs filter-log-events or get-log-events with --output text",
        json: false,
    },
    Shape {
        name: MESSAGES,
        about: "messages and nothing else, with tabs or line ends in between",
        json: false,
    },
];

impl Dump for EksDump {
    fn shapes(&self) -> &'static [Shape] {
        SHAPES
    }

    fn role(&self, key: &str) -> Role {
        match key {
            "events" | "logEvents" | "results" | "sessionResults" | "Records" | "records" => {
                Role::Records
            }
            "message" | "logStreamName" | "eventId" | "ingestionTime" => Role::Record,
            "@message" | "@timestamp" | "@ptr" | "@logStream" | "field" | "awslogs" | "kinesis"
            | "Data" | "data" => Role::Wrapped,
            // An old audit event has `timestamp` too, and anything may have an `id`.
            _ => Role::Neutral,
        }
    }

    fn context_names(&self) -> &'static [&'static str] {
        &["messageType", "owner", "logGroup", "logStream"]
    }

    fn record<'a>(
        &self,
        piece: Raw<'a>,
        context: &PieceContext,
    ) -> Result<Cow<'a, str>, RecordError> {
        match piece.kind() {
            ValueKind::String => Ok(LogEventText::of(context).finish(piece).into()),
            ValueKind::Array => {
                Ok(insights_row(piece).map_or(Cow::Borrowed(piece.text()), Cow::Owned))
            }
            ValueKind::Object => object(piece, context),
            ValueKind::Number | ValueKind::Bool | ValueKind::Null => {
                Ok(Cow::Borrowed(piece.text()))
            }
        }
    }

    fn recognises(&self, piece: Raw<'_>) -> bool {
        match piece.kind() {
            ValueKind::String => piece
                .as_str()
                .is_some_and(|message| component::is_known(&message)),
            ValueKind::Array => piece
                .elements()
                .into_iter()
                .flatten()
                .any(|cell| cell.get("field").is_some()),
            _ => false,
        }
    }

    fn text_split(&self, shape: Option<&str>, head: &str) -> Option<Box<dyn Splitter>> {
        match shape {
            Some(TAIL | EXPORT) => Some(Box::new(entries::Entries::default())),
            Some(TABLE) => Some(Box::new(table::Table::default())),
            Some(CSV) => Some(Box::new(csv::Csv::default())),
            Some(MESSAGES) => Some(Box::new(messages::TabbedLines::default())),
            Some(_) => None,
            None if csv::is(head) => Some(Box::new(csv::Csv::default())),
            None if table::is(head) => Some(Box::new(table::Table::default())),
            None if entries::is(head) => Some(Box::new(entries::Entries::default())),
            None if messages::is(head) => Some(Box::new(messages::TabbedLines::default())),
            None => None,
        }
    }
}

/// Converts an object to CloudWatch's form. The first keys decide, so that a log event of the usual
/// shape is not scanned to its end.
fn object<'a>(piece: Raw<'a>, context: &PieceContext) -> Result<Cow<'a, str>, RecordError> {
    for (key, value) in piece.members().into_iter().flatten() {
        if let Some(data) = packed::data(&key, value) {
            return packed::unpack(data).map(Cow::Owned);
        }
        match &*key {
            "logStreamName" => return Ok(Cow::Borrowed(piece.text())),
            "message" | "timestamp" | "eventId" | "id" | "ingestionTime" => {
                return Ok(in_context(piece, context));
            }
            _ => {}
        }
        // A query may name its fields freely, so look for `@message` before the next key.
        if piece.text().contains("\"@message\"") {
            return Ok(insights_object(piece).map_or(Cow::Borrowed(piece.text()), Cow::Owned));
        }
        if key == "kind" || key == "auditID" {
            break;
        }
    }
    Ok(Cow::Borrowed(piece.text()))
}

/// Adds a subscription's log stream and message type, which only the container has, to one of its
/// events. They come first, so that the event's own members win.
fn in_context<'a>(piece: Raw<'a>, context: &PieceContext) -> Cow<'a, str> {
    let head = LogEventText::of(context);
    match piece.text().strip_prefix('{') {
        Some(rest) if !head.is_empty() => Cow::Owned(head.before(rest)),
        _ => Cow::Borrowed(piece.text()),
    }
}

/// A row of `GetQueryResults`: `[{"field":"@message","value":"…"},…]`.
fn insights_row(row: Raw<'_>) -> Option<String> {
    let cell = |wanted: &str| {
        row.elements()?
            .find(|cell| {
                cell.get("field")
                    .and_then(Raw::as_str)
                    .is_some_and(|name| name == wanted)
            })?
            .get("value")
    };
    insights(cell)
}

/// A row of the Insights console's JSON: `{"@message":{…},"@timestamp":"…"}`.
fn insights_object(row: Raw<'_>) -> Option<String> {
    insights(|wanted| row.get(wanted))
}

fn insights<'a>(cell: impl Fn(&str) -> Option<Raw<'a>>) -> Option<String> {
    let message = cell("@message")?;
    let mut text = LogEventText::default();
    if let Some(stream) = cell("@logStream").and_then(Raw::as_str) {
        text.stream(&stream);
    }
    if let Some(time) = cell("@timestamp").and_then(wire::millis) {
        text.time(time);
    }
    Some(text.finish(message))
}

#[cfg(test)]
mod tests;
