//! Cuts a JSON dump into records by its structure, in constant memory: objects one after the other,
//! arrays of them, and containers that hold them in an array, of any size.
//!
//! The names of its first members show what a top-level object (or array element) is; its end is
//! found by brackets alone ([`Boundary`]). The converter parses it, so a record that is invalid
//! inside costs only that record. Where the structure itself is damaged, the next record is found
//! by how records of this file begin: on a line of their own, no further to the right, or with the
//! same first member.

use std::borrow::Cow;
use std::sync::Arc;

use audit_bridge_core::event::json::{Error, ErrorKind, Raw, Scanner, ValueKind};

use super::boundary::{Boundary, Edge};
use super::dead_letter_form;
use super::dump::{Dump, Piece, PieceContext, Role, Splitter};

mod damage;

use damage::{blanks, glued, next_like, next_line, next_sibling, valid_prefix, violation};

/// The most of an object that is scanned to find out what it is.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How much of it is scanned first.
const HEAD_BYTES_FIRST: usize = 512;

/// The splitter of all JSON shapes.
pub(super) struct JsonSplit {
    dump: Arc<dyn Dump>,
    frames: Vec<Frame>,
    /// The state of dropping the rest of a record that is too large.
    dropping: Option<Dropping>,
    /// The number of blanks before the current position on its line; `None` after other text.
    indent: Option<usize>,
    /// This splits the content of one record, which is not split further.
    nested: bool,
}

/// An open structure around the current position.
#[derive(Debug)]
enum Frame {
    /// An array of records, with the context of its container if it has one.
    Array(PieceContext),
    /// A container object, between its members.
    Container(PieceContext),
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What an object is, according to its first members.
enum Head {
    Record,
    Wrapped,
    /// A container; its records start at this offset, inside their array.
    Container(usize, PieceContext),
    Unknown,
    /// More bytes are needed.
    More,
}

/// The next member of a container, with the offset at which to continue.
enum Member {
    Records(usize),
    Other(usize),
}

/// The result of one step at the front of the buffer.
enum Step {
    /// This many bytes were consumed.
    Took(usize),
    /// More bytes are needed.
    More,
}

impl Splitter for JsonSplit {
    fn split(&mut self, buffer: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> usize {
        let mut at = 0;
        if let Some(dropping) = &mut self.dropping {
            match dropping.end(buffer, last) {
                Ok(end) => at = end,
                Err(taken) => return taken,
            }
            self.dropping = None;
        }
        loop {
            match self.step(&buffer[at..], last, piece) {
                Step::Took(bytes) => at += bytes,
                Step::More => return if last { buffer.len() } else { at },
            }
            if at >= buffer.len() {
                return at;
            }
        }
    }

    fn unfinished(&self) -> Option<&'static str> {
        match self.frames.last()? {
            Frame::Array(_) => Some("inside an array of records"),
            Frame::Container(_) => Some("inside the object around its records"),
        }
    }

    fn overflow(&mut self, buffer: &[u8], piece: &mut dyn FnMut(Piece<'_>)) -> Option<usize> {
        if let Some(next) = violation(buffer).and_then(|at| next_like(buffer, at)) {
            piece(Piece {
                bytes: Cow::Borrowed(&buffer[..next]),
                damaged: true,
                recognised: false,
            });
            return Some(next);
        }
        let mut dropping = Dropping::of(buffer);
        let _ = dropping.end(buffer, false);
        self.dropping = Some(dropping);
        None
    }
}

/// Drops the rest of a record that is too large, up to its end.
enum Dropping {
    /// An object or an array.
    Brackets(Boundary),
    /// A string, and whether the next byte is escaped.
    String(bool),
    /// Text that is no JSON, which ends with its line.
    Line,
}

impl Dropping {
    /// The state at the start of a value.
    fn of(start: &[u8]) -> Dropping {
        match start.first() {
            Some(b'{' | b'[') => Dropping::Brackets(Boundary::default()),
            // The opening quote counts as escaped, because it does not end the string.
            Some(b'"') => Dropping::String(true),
            _ => Dropping::Line,
        }
    }

    /// The offset of its end, or else how many bytes were scanned.
    fn end(&mut self, buffer: &[u8], last: bool) -> Result<usize, usize> {
        match self {
            Dropping::Brackets(boundary) => {
                // The scan may only pause between whole blocks.
                let whole = if last {
                    buffer.len()
                } else {
                    buffer.len() / 64 * 64
                };
                match boundary.feed(&buffer[..whole]) {
                    Edge::End(end) => Ok(end),
                    Edge::Damaged => Ok(next_line(buffer, 0).unwrap_or(whole)),
                    Edge::Open => Err(whole),
                }
            }
            Dropping::String(escaped) => {
                for (at, &byte) in buffer.iter().enumerate() {
                    match (std::mem::take(escaped), byte) {
                        (false, b'"') => return Ok(at + 1),
                        (false, b'\\') => *escaped = true,
                        (_, b'\n') => return Ok(at),
                        _ => {}
                    }
                }
                Err(buffer.len())
            }
            Dropping::Line => memchr::memchr(b'\n', buffer).ok_or(buffer.len()),
        }
    }
}

/// The bytes between two values: whitespace, the commas of arrays, the record separator of RFC
/// 7464, the mark that each of several files began with that were put together, and the zeros that
/// a file system leaves where a machine lost its power.
fn gap(rest: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += match rest.get(at) {
            Some(b' ' | b'\n' | b'\r' | b'\t' | b',' | 0x1e | 0) => 1,
            Some(_) if rest[at..].starts_with(BYTE_ORDER_MARK) => BYTE_ORDER_MARK.len(),
            _ => return at,
        };
    }
}

impl JsonSplit {
    pub(super) fn new(dump: Arc<dyn Dump>) -> JsonSplit {
        JsonSplit {
            dump,
            frames: Vec::new(),
            dropping: None,
            indent: Some(0),
            nested: false,
        }
    }

    fn step(&mut self, rest: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> Step {
        let gap = gap(rest);
        if let Some(Frame::Container(_)) = self.frames.last() {
            return self.member(rest, last);
        }
        if gap > 0 {
            self.indent = match memchr::memrchr(b'\n', &rest[..gap]) {
                Some(newline) => blanks(&rest[newline + 1..gap]),
                None => self.indent.zip(blanks(&rest[..gap])).map(|(a, b)| a + b),
            };
            return Step::Took(gap);
        }
        let Some(&first) = rest.first() else {
            return Step::More;
        };
        if BYTE_ORDER_MARK.starts_with(rest) && !last {
            return Step::More;
        }
        match (first, self.frames.last()) {
            (b']', Some(Frame::Array(_))) => {
                self.frames.pop();
                Step::Took(1)
            }
            (b'{', _) => self.object(rest, last, piece),
            // A top-level array holds records; an inner one is a record (a row).
            (b'[', None) => {
                self.frames.push(Frame::Array(PieceContext::default()));
                Step::Took(1)
            }
            (b'[', Some(_)) => self.whole(rest, last, false, piece),
            (b'"', _) => string(rest, last, &mut |bytes, damaged| {
                self.emit(bytes, damaged, piece);
            }),
            _ => self.junk(rest, last, piece),
        }
    }

    fn object(&mut self, rest: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> Step {
        // Usually the first names are enough.
        let windows = [HEAD_BYTES_FIRST, HEAD_BYTES_MAX].map(|max| rest.len().min(max));
        let mut head = Head::More;
        for window in windows {
            if matches!(head, Head::More) {
                head = self.head(valid_prefix(&rest[..window]));
            }
        }
        let complete = last || rest.len() > HEAD_BYTES_MAX;
        match head {
            Head::Container(at, context) => {
                self.frames.push(Frame::Container(context.clone()));
                self.frames.push(Frame::Array(context));
                Step::Took(at)
            }
            Head::More if !complete => Step::More,
            Head::Record if self.context().is_empty() => self.whole(rest, last, true, piece),
            Head::Record | Head::Wrapped | Head::Unknown | Head::More => {
                self.whole(rest, last, false, piece)
            }
        }
    }

    /// Takes one whole value. `plain`: it is a record in the provider's own form.
    fn whole(
        &mut self,
        rest: &[u8],
        last: bool,
        plain: bool,
        piece: &mut dyn FnMut(Piece<'_>),
    ) -> Step {
        let mut boundary = Boundary::default();
        let (end, damaged) = match boundary.feed(rest) {
            Edge::End(end) => (end, false),
            Edge::Open if !last => return Step::More,
            Edge::Open | Edge::Damaged => {
                let next = glued(rest)
                    .or_else(|| next_sibling(rest, self.indent))
                    .or_else(|| violation(rest).and_then(|at| next_like(rest, at)));
                match next {
                    Some(next) => (next, true),
                    None if last => (rest.len(), true),
                    None => return Step::More,
                }
            }
        };
        self.indent = None;
        let bytes = rest[..end].trim_ascii_end();
        if plain || damaged {
            piece(Piece {
                bytes: Cow::Borrowed(bytes),
                damaged,
                recognised: plain,
            });
        } else {
            self.emit(bytes, false, piece);
        }
        Step::Took(end)
    }

    /// Converts a value into the provider's own form and emits it.
    fn emit(&self, bytes: &[u8], damaged: bool, piece: &mut dyn FnMut(Piece<'_>)) {
        let broken = |damaged| Piece {
            bytes: Cow::Borrowed(bytes),
            damaged,
            recognised: false,
        };
        let raw = match std::str::from_utf8(bytes) {
            Ok(text) if !damaged => Raw::parse(text),
            _ => Err(Error {
                at: 0,
                kind: ErrorKind::Incomplete,
            }),
        };
        let Ok(raw) = raw else {
            return piece(broken(true));
        };
        let own = dead_letter_form(raw);
        let is_dead_letter = own.is_some();
        let payload = match &own {
            Some(payload) => match std::str::from_utf8(payload).ok().map(Raw::parse) {
                Some(Ok(inner)) => inner,
                // Text that was no JSON when it was rejected is emitted unchanged.
                _ => {
                    return piece(Piece {
                        bytes: Cow::Borrowed(payload),
                        damaged: true,
                        recognised: true,
                    });
                }
            },
            None => raw,
        };
        let recognised = is_dead_letter
            || match payload.kind() {
                ValueKind::Object => {
                    matches!(self.head(payload.text()), Head::Record | Head::Wrapped)
                }
                _ => self.dump.recognises(payload),
            };
        match self.dump.record(payload, self.context()) {
            // Records inside a record: packed data, or a list in our dead letter.
            Ok(text) if !self.nested && matches!(self.head(&text), Head::Container(..)) => {
                let mut inner = JsonSplit {
                    nested: true,
                    ..JsonSplit::new(Arc::clone(&self.dump))
                };
                inner.split(text.as_bytes(), true, piece);
                // The content was cut, or only partly unpacked: also keep the original.
                if inner.unfinished().is_some() {
                    piece(Piece {
                        recognised,
                        ..broken(true)
                    });
                }
            }
            Ok(text) => piece(Piece {
                bytes: Cow::Borrowed(text.as_bytes()),
                damaged: is_dead_letter,
                recognised,
            }),
            Err(_) => piece(Piece {
                recognised,
                ..broken(true)
            }),
        }
    }

    fn context(&self) -> &PieceContext {
        static NONE: PieceContext = PieceContext::empty();
        match self.frames.last() {
            Some(Frame::Array(context) | Frame::Container(context)) => context,
            None => &NONE,
        }
    }

    /// Determines what an object is from the members that are available.
    fn head(&self, text: &str) -> Head {
        let mut scanner = Scanner::new(text);
        let mut context = Vec::new();
        let mut walk = || -> Result<Head, Error> {
            scanner.open_object()?;
            while let Some(key) = scanner.key()? {
                match self.role(&key) {
                    Role::Record => return Ok(Head::Record),
                    Role::Wrapped => return Ok(Head::Wrapped),
                    Role::Records => match scanner.peek() {
                        Some(b'[') => {
                            let context = PieceContext::new(std::mem::take(&mut context));
                            return Ok(Head::Container(scanner.at() + 1, context));
                        }
                        Some(_) => {}
                        None => return Ok(Head::More),
                    },
                    Role::Neutral => {}
                }
                let value = scanner.value()?;
                if key == "kind" && value.text() == "\"Event\"" {
                    return Ok(Head::Record);
                }
                let names = self.dump.context_names();
                if let Some(name) = names.iter().find(|name| **name == key) {
                    context.push((*name, value.text().to_owned()));
                }
            }
            Ok(Head::Unknown)
        };
        match walk() {
            Ok(head) => head,
            Err(Error {
                kind: ErrorKind::Incomplete,
                ..
            }) => Head::More,
            Err(_) => Head::Unknown,
        }
    }

    fn role(&self, key: &str) -> Role {
        match key {
            "auditID" | "level" | "stage" | "requestURI" => Role::Record,
            "items" => Role::Records,
            "payload" | "payload_base64" => Role::Wrapped,
            _ => self.dump.role(key),
        }
    }

    /// Handles the next member of a container: enters its records, or skips it.
    fn member(&mut self, rest: &[u8], last: bool) -> Step {
        let text = valid_prefix(rest);
        // A member has the same form after a brace and after a comma.
        let lead = text.len() - text.trim_start_matches([' ', '\n', '\r', '\t', ',']).len();
        if text[lead..].starts_with('}') {
            self.frames.pop();
            return Step::Took(lead + 1);
        }
        match self.next_member(&text[lead..]) {
            Ok(Member::Records(at)) => {
                let context = self.context().clone();
                self.frames.push(Frame::Array(context));
                Step::Took(lead + at)
            }
            Ok(Member::Other(at)) => Step::Took(lead + at),
            Err(Error {
                kind: ErrorKind::Incomplete,
                ..
            }) if !last => Step::More,
            Err(Error {
                kind: ErrorKind::Incomplete,
                ..
            }) => Step::Took(rest.len()),
            // No valid member: the container is broken. Close its frame and parse this place again.
            Err(_) => {
                self.frames.pop();
                Step::Took(lead)
            }
        }
    }

    fn next_member(&self, text: &str) -> Result<Member, Error> {
        let mut scanner = Scanner::new(text);
        let key = scanner.string()?;
        let colon = scanner.at();
        match scanner.peek() {
            Some(b':') => {}
            Some(_) => {
                return Err(Error {
                    at: colon,
                    kind: ErrorKind::Expected("a colon"),
                });
            }
            None => {
                return Err(Error {
                    at: colon,
                    kind: ErrorKind::Incomplete,
                });
            }
        }
        let at = scanner.at() + 1;
        let mut value = Scanner::new(&text[at..]);
        if self.role(&key) == Role::Records && value.peek() == Some(b'[') {
            return Ok(Member::Records(at + value.at() + 1));
        }
        value.value()?;
        // A number may continue beyond these bytes.
        match value.peek() {
            Some(_) => Ok(Member::Other(at + value.at())),
            None => Err(Error {
                at: at + value.at(),
                kind: ErrorKind::Incomplete,
            }),
        }
    }

    /// Emits text where a value is expected: up to the end of its line, or to the next object of an
    /// array.
    fn junk(&mut self, rest: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> Step {
        let end = match self.frames.last() {
            Some(_) => memchr::memchr3(b'\n', b'{', b']', rest),
            None => memchr::memchr(b'\n', rest),
        };
        if end.is_none() && !last {
            return Step::More;
        }
        let end = end.unwrap_or(rest.len()).max(1);
        let bytes = rest[..end].trim_ascii_end();
        piece(Piece {
            bytes: Cow::Borrowed(bytes),
            damaged: true,
            recognised: false,
        });
        Step::Took(end)
    }
}

/// Emits a string that is a record.
fn string(rest: &[u8], last: bool, emit: &mut dyn FnMut(&[u8], bool)) -> Step {
    let mut at = 1;
    while let Some(found) = rest
        .get(at..)
        .and_then(|tail| memchr::memchr3(b'"', b'\\', b'\n', tail))
    {
        at += found;
        match rest[at] {
            b'"' => {
                emit(&rest[..=at], false);
                return Step::Took(at + 1);
            }
            b'\n' => {
                emit(&rest[..at], true);
                return Step::Took(at);
            }
            _ => at += 2,
        }
    }
    if !last {
        return Step::More;
    }
    emit(rest, true);
    Step::Took(rest.len())
}
