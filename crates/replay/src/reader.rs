//! Reads one file into pieces: the buffer, its limits, and the detection of the file's shape.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::Arc;

use super::dump::{Dump, Piece, Shape, Splitter};
use super::json_split::JsonSplit;

/// Bytes read at a time; the buffer grows for larger records.
const BUFFER_BYTES: usize = 256 << 10;
/// The largest record that is read. Providers limit theirs to 1 MiB or less; a saved native event
/// with a large list in it can be larger, and is sent without its objects.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;
/// How many pieces may pass unrecognised before the file's shape counts as unknown.
const UNRECOGNISED_PIECES_MAX: usize = 64;
/// How much of a file is read to detect its shape. If that does not suffice, twice as much, up to
/// the whole buffer: always the same for the same file, however it arrives.
const HEAD_BYTES: usize = 8 << 10;

/// Why a file, or the rest of it, was not read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// Reading failed.
    Io(io::Error),
    /// The shape is unknown: a description of what was seen.
    Shape(String),
    /// The file ends before its records do: where.
    Cut(&'static str),
    /// The receiver wants no more records.
    Closed,
}

/// One piece, or a placeholder for a record that is too large.
pub(super) enum Found<'a> {
    Piece(Piece<'a>),
    /// The record's first bytes.
    TooLarge(&'a [u8]),
}

/// Receives a file's content in order.
pub(super) trait Receive {
    /// The next bytes of the content. All bytes up to the end of a piece are passed before the
    /// piece; if its end is not known exactly, more than those.
    fn passed(&mut self, bytes: &[u8]);

    /// The next piece. `ended`: the content ended behind it, or reading failed there. `false` stops
    /// reading.
    fn found(&mut self, found: Found<'_>, ended: bool) -> bool;
}

/// Receives only the pieces.
struct Pieces<F>(F);

impl<F: FnMut(Found<'_>) -> bool> Receive for Pieces<F> {
    fn passed(&mut self, _: &[u8]) {}

    fn found(&mut self, found: Found<'_>, _: bool) -> bool {
        (self.0)(found)
    }
}

/// Reads `content` to its end and passes its pieces to `found`, which returns `false` to stop.
pub(super) fn read(
    content: Box<dyn Read + Send>,
    dump: &Arc<dyn Dump>,
    shape: Option<&Shape>,
    found: impl FnMut(Found<'_>) -> bool,
) -> Result<(), Unreadable> {
    read_into(content, dump, shape, &mut Pieces(found))
}

/// Reads `content` to its end and passes on its pieces, and the bytes that they are made of.
pub(super) fn read_into(
    content: Box<dyn Read + Send>,
    dump: &Arc<dyn Dump>,
    shape: Option<&Shape>,
    receive: &mut impl Receive,
) -> Result<(), Unreadable> {
    read_from(Input::new(content, RECORD_BYTES_MAX), dump, shape, receive)
}

fn read_from(
    mut input: Input,
    dump: &Arc<dyn Dump>,
    shape: Option<&Shape>,
    receive: &mut impl Receive,
) -> Result<(), Unreadable> {
    let mut head = HEAD_BYTES;
    let (bom, mut split) = loop {
        input.fill(head);
        let read = input.bytes();
        let bom = if read.starts_with(b"\xef\xbb\xbf") {
            3
        } else {
            0
        };
        if input.ended() && read[bom..].iter().all(u8::is_ascii_whitespace) {
            receive.passed(read);
            return input
                .failure
                .map_or(Ok(()), |error| Err(Unreadable::Io(error)));
        }
        let has_more = read.len() > head || !input.ended();
        match splitter(&read[bom..read.len().min(head)], dump, shape) {
            Err(_) if has_more && head < BUFFER_BYTES => head *= 2,
            split => break (bom, split?),
        }
    };
    let mut sniff = ShapeDetector::default();
    receive.passed(&input.bytes()[..bom]);
    let mut start = bom;
    // How much of the rest of the buffer was already passed on.
    let mut ahead = 0;
    let mut open = true;
    loop {
        let ended = input.ended();
        let part = &input.bytes()[start..];
        let taken = split.split(part, ended, &mut |piece| {
            let end = end_within(&piece, part).unwrap_or(part.len());
            if end > ahead {
                receive.passed(&part[ahead..end]);
                ahead = end;
            }
            open = open && sniff.pass(piece, ended, receive);
        });
        if taken > ahead {
            receive.passed(&part[ahead..taken]);
            ahead = taken;
        }
        ahead -= taken;
        start += taken;
        if !open {
            return Err(Unreadable::Closed);
        }
        if let Some(seen) = sniff.unknown(ended) {
            return Err(Unreadable::Shape(seen));
        }
        if ended {
            break;
        }
        input.forget(start);
        start = 0;
        if input.filled == input.record_bytes_max {
            // Nothing of a full buffer was taken.
            let read = input.bytes();
            receive.passed(&read[ahead..]);
            let taken = split.overflow(read, &mut |piece| {
                open = open && sniff.pass(piece, ended, receive);
            });
            if taken.is_none() {
                sniff.recognised = true;
                open = open
                    && sniff.release(ended, receive)
                    && receive.found(Found::TooLarge(read), ended);
            }
            start = taken.unwrap_or(read.len());
            ahead = read.len() - start;
            continue;
        }
        input.shrink();
        // Read more at once for a large record, so that it is not scanned again for every few
        // bytes.
        let enough = match input.filled {
            filled if filled > 1 << 20 => filled * 2,
            filled => filled + 1,
        };
        input.fill(enough);
    }
    match (input.failure, split.unfinished()) {
        (Some(error), _) => Err(Unreadable::Io(error)),
        (None, Some(place)) => Err(Unreadable::Cut(place)),
        (None, None) => Ok(()),
    }
}

/// The end of a piece in `part`, if known: a piece may be a copy, and the end of a damaged one
/// depends on what follows.
fn end_within(piece: &Piece<'_>, part: &[u8]) -> Option<usize> {
    let Cow::Borrowed(bytes) = &piece.bytes else {
        return None;
    };
    let begin = bytes.as_ptr().addr().checked_sub(part.as_ptr().addr())?;
    let end = begin.checked_add(bytes.len())?;
    (!piece.damaged && end <= part.len()).then_some(end)
}

/// The content and what was read of it and not yet forgotten.
struct Input {
    content: Box<dyn Read + Send>,
    /// The largest record that is read.
    record_bytes_max: usize,
    buffer: Vec<u8>,
    filled: usize,
    last: bool,
    failure: Option<io::Error>,
}

impl Input {
    fn new(content: Box<dyn Read + Send>, record_bytes_max: usize) -> Input {
        Input {
            content,
            record_bytes_max,
            buffer: vec![0; BUFFER_BYTES.min(record_bytes_max)],
            filled: 0,
            last: false,
            failure: None,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Whether nothing more can be read.
    fn ended(&self) -> bool {
        self.last || self.failure.is_some()
    }

    /// Reads until so many bytes are here, or more, or a record's limit is reached, or the content
    /// ends.
    fn fill(&mut self, enough: usize) {
        let enough = enough.min(self.record_bytes_max);
        while self.filled < enough && !self.ended() {
            if self.filled == self.buffer.len() {
                let larger = (self.buffer.len() * 2).min(self.record_bytes_max);
                self.buffer.resize(larger, 0);
            }
            match self.content.read(&mut self.buffer[self.filled..]) {
                Ok(0) => self.last = true,
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failure = Some(error),
            }
        }
    }

    /// Drops so many bytes at the front.
    fn forget(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }

    /// Gives back the memory that a large record took.
    fn shrink(&mut self) {
        if self.buffer.len() > BUFFER_BYTES && self.filled < BUFFER_BYTES / 2 {
            self.buffer.truncate(BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
    }
}

/// Chooses the splitter for the file.
fn splitter(
    head: &[u8],
    dump: &Arc<dyn Dump>,
    shape: Option<&Shape>,
) -> Result<Box<dyn Splitter>, Unreadable> {
    let json = || Box::new(JsonSplit::new(Arc::clone(dump))) as Box<dyn Splitter>;
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    match shape {
        Some(shape) if shape.json => return Ok(json()),
        Some(shape) => {
            return dump
                .text_split(Some(shape.name), text)
                .ok_or_else(|| Unreadable::Shape(see(head)));
        }
        None => {}
    }
    let opens = |line: &str| {
        line.trim_start_matches(|c: char| c.is_whitespace() || c == '\x1e')
            .starts_with(['{', '['])
    };
    if opens(text) {
        return Ok(json());
    }
    if let Some(split) = dump.text_split(None, text) {
        return Ok(split);
    }
    // JSON lines after a line or two of something else, or an array without its bracket.
    if text.lines().take(20).any(opens) || text.trim_start().starts_with('"') {
        return Ok(json());
    }
    Err(Unreadable::Shape(see(head)))
}

/// Holds back the first pieces of a file until one shows that its shape is known.
#[derive(Default)]
struct ShapeDetector {
    recognised: bool,
    held: Vec<Piece<'static>>,
}

impl ShapeDetector {
    fn pass(&mut self, piece: Piece<'_>, ended: bool, receive: &mut impl Receive) -> bool {
        if !self.recognised {
            // Ignore what follows, even if it is already in memory: how a file is read must not
            // depend on the chunks in which it arrives.
            if self.held.len() >= UNRECOGNISED_PIECES_MAX {
                return true;
            }
            if !piece.recognised {
                let bytes = piece.bytes.into_owned().into();
                self.held.push(Piece { bytes, ..piece });
                return true;
            }
        }
        self.recognised = true;
        self.release(ended, receive) && receive.found(Found::Piece(piece), ended)
    }

    fn release(&mut self, ended: bool, receive: &mut impl Receive) -> bool {
        let mut held = self.held.drain(..);
        held.all(|piece| receive.found(Found::Piece(piece), ended))
    }

    /// A description of the file, if its shape is unknown.
    fn unknown(&self, ended: bool) -> Option<String> {
        let enough = ended || self.held.len() >= UNRECOGNISED_PIECES_MAX;
        (enough && !self.recognised)
            .then(|| self.held.first().map(|piece| see(&piece.bytes)))
            .flatten()
    }
}

/// Describes these bytes for people.
fn see(bytes: &[u8]) -> String {
    use audit_bridge_core::event::json::Raw;

    let start = bytes.trim_ascii_start();
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return "UTF-16 text; save it as UTF-8".to_owned();
    }
    let raw = std::str::from_utf8(start)
        .ok()
        .and_then(|text| Raw::parse(text.trim_end()).ok());
    if let Some(members) = raw.and_then(Raw::members) {
        let names: Vec<_> = members
            .take(8)
            .map(|(key, _)| format!("{key:.40?}"))
            .collect();
        return match names.is_empty() {
            true => "an empty json object".to_owned(),
            false => format!("a json object with {}", names.join(", ")),
        };
    }
    if let Some(raw) = raw {
        return format!("{} where a json object should stand", raw.kind());
    }
    let shown = &start[..start.len().min(40)];
    match std::str::from_utf8(shown) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !c.is_whitespace()) => {
            format!("text that begins with {text:?}")
        }
        _ => {
            let hex: Vec<_> = bytes
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("binary data that begins with {}", hex.join(" "))
        }
    }
}

#[cfg(test)]
mod tests;
