//! The CSV that the Logs Insights console exports: a row for each result, the query's fields as
//! columns, among them `@message`.
//!
//! A record ends at a line end outside quotes, which only a scan from the front can tell; the
//! `csv` crate then reads whole records.

use audit_bridge_replay::dump::{Piece, Splitter};

use super::piece::{LogEventText, Shown, of_bytes};
use crate::wire;

/// Cuts at line ends outside quotes.
#[derive(Debug, Default)]
pub(super) struct Csv {
    columns: Option<Columns>,
    scanned: usize,
    place: Place,
    dropping: bool,
}

/// Where in a record the scan is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    FieldStart,
    Field,
    Quoted,
    /// After a quote inside quotes: the end, or the first half of a doubled one.
    Quote,
}

/// Which column is what.
#[derive(Debug, Clone, Copy)]
struct Columns {
    stream: Option<usize>,
    time: Option<usize>,
    message: Option<usize>,
}

impl Columns {
    fn of(header: &csv::ByteRecord) -> Columns {
        let at = |name: &str| header.iter().position(|cell| cell == name.as_bytes());
        Columns {
            stream: at("@logStream"),
            time: at("@timestamp"),
            message: at("@message"),
        }
    }
}

/// Whether a file that starts so is CSV with messages.
pub(super) fn is(head: &str) -> bool {
    let line = head.lines().next().unwrap_or_default();
    records(line.as_bytes())
        .next()
        .is_some_and(|header| Columns::of(&header).message.is_some())
}

fn records(text: &[u8]) -> impl Iterator<Item = csv::ByteRecord> {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text)
        .into_byte_records()
        // Reading a slice of bytes cannot fail.
        .map_while(Result::ok)
}

impl Splitter for Csv {
    fn split(&mut self, buffer: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> usize {
        let mut end = 0;
        while let Some(&byte) = buffer.get(self.scanned) {
            self.scanned += 1;
            if self.step(byte) {
                if std::mem::take(&mut self.dropping) {
                    end = self.scanned;
                    self.scanned = 0;
                    return end;
                }
                end = self.scanned;
            }
        }
        if self.dropping {
            self.scanned = 0;
            return buffer.len();
        }
        for record in records(buffer.get(..end).unwrap_or_default()) {
            self.emit(&record, Shown::Known, piece);
        }
        if last {
            let shown = match self.place {
                Place::Quoted => Shown::Damaged,
                _ => Shown::Known,
            };
            for record in records(buffer.get(end..).unwrap_or_default()) {
                self.emit(&record, shown, piece);
            }
            end = buffer.len();
        }
        self.scanned -= end.min(self.scanned);
        end
    }

    fn overflow(&mut self, buffer: &[u8], _piece: &mut dyn FnMut(Piece<'_>)) -> Option<usize> {
        for &byte in buffer.get(self.scanned..).unwrap_or_default() {
            self.step(byte);
        }
        self.scanned = 0;
        self.dropping = true;
        None
    }
}

impl Csv {
    /// Moves over one byte; whether it ends a record.
    fn step(&mut self, byte: u8) -> bool {
        self.place = match (self.place, byte) {
            (Place::Quoted, b'"') => Place::Quote,
            (Place::Quoted, _) | (Place::FieldStart | Place::Quote, b'"') => Place::Quoted,
            (_, b',') => Place::FieldStart,
            (_, b'\n') => {
                self.place = Place::FieldStart;
                return true;
            }
            _ => Place::Field,
        };
        false
    }

    fn emit(&mut self, record: &csv::ByteRecord, shown: Shown, piece: &mut dyn FnMut(Piece<'_>)) {
        let Some(columns) = self.columns else {
            self.columns = Some(Columns::of(record));
            return;
        };
        let cell = |index: Option<usize>| {
            index
                .and_then(|index| record.get(index))
                .and_then(|cell| std::str::from_utf8(cell).ok())
        };
        let mut head = LogEventText::default();
        if let Some(stream) = cell(columns.stream) {
            head.stream(stream);
        }
        if let Some(time) = cell(columns.time).and_then(wire::date_or_millis) {
            head.time(time);
        }
        match columns.message.and_then(|index| record.get(index)) {
            Some(message) => of_bytes(head, message, shown, piece),
            None => of_bytes(
                LogEventText::default(),
                record.as_slice(),
                Shown::Damaged,
                piece,
            ),
        }
    }
}
