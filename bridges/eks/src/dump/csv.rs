//! The CSV export of the Logs Insights console: a row for each result, with the query's fields as
//! columns, one of them `@message`.

use audit_bridge_replay::dump::{Piece, Splitter};
use csv_core::{ReadRecordResult, Reader};

use super::piece::{LogEventText, Shown, of_bytes};
use crate::wire;

/// Buffer capacity that is kept between rows, in bytes: most rows need less.
const ROOM_KEPT: usize = 1 << 20;

/// Reads CSV row by row; a row may continue in a later chunk.
#[derive(Debug, Default)]
pub(super) struct Csv {
    columns: Option<Columns>,
    row: Row,
    /// How many bytes of the buffer belong to the unfinished row.
    scanned: usize,
    dropping: bool,
}

/// The index of each column that is used.
#[derive(Debug, Clone, Copy)]
struct Columns {
    stream: Option<usize>,
    time: Option<usize>,
    message: Option<usize>,
}

impl Columns {
    fn of(header: &Row) -> Columns {
        let at = |name: &str| header.cells().position(|cell| cell == name.as_bytes());
        Columns {
            stream: at("@logStream"),
            time: at("@timestamp"),
            message: at("@message"),
        }
    }
}

/// Whether a file with this start is CSV with a column of messages.
pub(super) fn is(head: &str) -> bool {
    let line = head.lines().next().unwrap_or_default();
    let mut row = Row::default();
    let (_, ended) = row.read(line.as_bytes());
    (ended || row.end().is_some()) && Columns::of(&row).message.is_some()
}

impl Splitter for Csv {
    fn split(&mut self, buffer: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> usize {
        let mut taken = 0;
        loop {
            let rest = buffer.get(taken + self.scanned..).unwrap_or_default();
            let (read, ended) = self.row.read(rest);
            self.scanned += read;
            if !ended {
                break;
            }
            taken += std::mem::take(&mut self.scanned);
            self.emit(Shown::Known, piece);
        }
        if !last && !self.dropping {
            return taken;
        }
        if last && let Some(shown) = self.row.end() {
            self.emit(shown, piece);
        }
        self.row.clear();
        self.scanned = 0;
        buffer.len()
    }

    fn overflow(&mut self, buffer: &[u8], _piece: &mut dyn FnMut(Piece<'_>)) -> Option<usize> {
        let rest = buffer.get(self.scanned..).unwrap_or_default();
        self.row.read(rest);
        self.row.clear();
        self.scanned = 0;
        self.dropping = true;
        None
    }
}

impl Csv {
    /// Emits the completed row and clears it.
    fn emit(&mut self, shown: Shown, piece: &mut dyn FnMut(Piece<'_>)) {
        let row = &self.row;
        match self.columns {
            _ if std::mem::take(&mut self.dropping) => {}
            None => self.columns = Some(Columns::of(row)),
            Some(columns) => {
                let cell = |index: Option<usize>| {
                    let cell = index.and_then(|index| row.cells().nth(index));
                    cell.and_then(|cell| std::str::from_utf8(cell).ok())
                };
                let mut head = LogEventText::default();
                if let Some(stream) = cell(columns.stream) {
                    head.stream(stream);
                }
                if let Some(time) = cell(columns.time).and_then(wire::date_or_millis) {
                    head.time(time);
                }
                match columns.message.and_then(|index| row.cells().nth(index)) {
                    Some(message) => of_bytes(head, message, shown, piece),
                    None => of_bytes(LogEventText::default(), row.text(), Shown::Damaged, piece),
                }
            }
        }
        self.row.clear();
    }
}

/// The parsed part of a row, and buffers with free space for the rest.
#[derive(Debug)]
struct Row {
    reader: Reader,
    /// The cells without their quotes, concatenated.
    text: Vec<u8>,
    text_len: usize,
    /// Where in `text` each cell ends.
    ends: Vec<usize>,
    cells: usize,
}

impl Default for Row {
    fn default() -> Row {
        Row {
            // `Reader::default` knows no grammar.
            reader: Reader::new(),
            text: Vec::new(),
            text_len: 0,
            ends: Vec::new(),
            cells: 0,
        }
    }
}

impl Row {
    /// Parses input: returns the bytes consumed, and whether they complete the row. Empty input
    /// does not end the file.
    fn read(&mut self, input: &[u8]) -> (usize, bool) {
        let mut read = 0;
        while let Some(rest) = input.get(read..).filter(|rest| !rest.is_empty()) {
            let (bytes, ended) = self.step(rest);
            read += bytes;
            if ended {
                return (read, true);
            }
        }
        (read, false)
    }

    /// Ends the file: returns the state of the last row, damaged if it ends inside quotes.
    fn end(&mut self) -> Option<Shown> {
        let before = self.text_len;
        if self.read(b"\n").1 {
            return Some(Shown::Known);
        }
        // Inside quotes, the line end became text.
        let in_quotes = self.text_len > before;
        if !in_quotes {
            return None;
        }
        self.ends.resize(self.cells + 1, 0);
        self.step(b"");
        // Leaves that line end out of the last cell.
        self.text_len = before;
        if let Some(end) = self.ends.last_mut() {
            *end = before;
        }
        Some(Shown::Damaged)
    }

    /// Parses as much as the buffers have space for, and grows them. Empty input ends the file.
    fn step(&mut self, input: &[u8]) -> (usize, bool) {
        let text = self.text.get_mut(self.text_len..).unwrap_or_default();
        let ends = self.ends.get_mut(self.cells..).unwrap_or_default();
        let (result, read, written, cells) = self.reader.read_record(input, text, ends);
        self.text_len += written;
        self.cells += cells;
        match result {
            ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2 + 1024, 0),
            ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2 + 16, 0),
            ReadRecordResult::InputEmpty | ReadRecordResult::Record | ReadRecordResult::End => {}
        }
        (read, result == ReadRecordResult::Record)
    }

    fn text(&self) -> &[u8] {
        self.text.get(..self.text_len).unwrap_or_default()
    }

    fn cells(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.ends.get(..self.cells).unwrap_or_default();
        let mut start = 0;
        ends.iter().map(move |&end| {
            let cell = self.text.get(start..end).unwrap_or_default();
            start = end;
            cell
        })
    }

    /// Drops the cells, but keeps the parser's state, and the buffer unless a large row grew it.
    fn clear(&mut self) {
        (self.text_len, self.cells) = (0, 0);
        if self.text.len() > ROOM_KEPT {
            self.text = Vec::new();
        }
    }
}
