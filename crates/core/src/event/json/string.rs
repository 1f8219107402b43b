//! Finds the end of strings, decodes and writes them.
//!
//! Sixteen bytes are compared at once (SSE2 and NEON, through `wide`). Where escapes are dense, as
//! in an event that a provider embedded in a string, 64 bytes become three words of one bit per
//! byte: a branch per escape would usually be mispredicted, which costs as much as copying a
//! hundred bytes.

use std::borrow::Cow;

use wide::u8x16;

use super::{Error, ErrorKind, Scanner};

pub(super) const CONTROL: ErrorKind = ErrorKind::Expected("no control character in a string");

/// The bytes read per block: 64, and more so that pieces can be copied with a fixed width.
const WINDOW: usize = 64 + 32;
/// The room that a block needs in the output: its 64 bytes, and the excess of fixed-width copies.
const ROOM: usize = 128;
/// The initial room: most audit events fit.
const ROOM_FIRST: usize = 4096;

/// The first quote, backslash or control character at or after `at`, or the end of the text.
#[inline(always)]
pub(super) fn run_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let chunk = u8x16::new(*chunk);
        let special = (quotes(chunk) | backslashes(chunk) | controls(chunk)).to_bitmask();
        if special != 0 {
            return at + special.trailing_zeros() as usize;
        }
        at += 16;
    }
    short_run_end(bytes, at)
}

/// The same for fewer than sixteen remaining bytes: reads the last sixteen of the text, if it is
/// that long.
#[inline]
fn short_run_end(bytes: &[u8], at: usize) -> usize {
    if let (Some(&chunk), Some(left)) = (bytes.last_chunk(), bytes.len().checked_sub(at)) {
        let chunk = u8x16::new(chunk);
        let special = (quotes(chunk) | backslashes(chunk) | controls(chunk)).to_bitmask();
        let seen = special.checked_shr(16 - left as u32).unwrap_or(0);
        return at + left.min(seen.trailing_zeros() as usize);
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let run = rest
        .iter()
        .take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20));
    at + run.count()
}

#[inline(always)]
fn quotes(chunk: u8x16) -> u8x16 {
    chunk.simd_eq(u8x16::splat(b'"'))
}

#[inline(always)]
fn backslashes(chunk: u8x16) -> u8x16 {
    chunk.simd_eq(u8x16::splat(b'\\'))
}

#[inline(always)]
fn controls(chunk: u8x16) -> u8x16 {
    chunk.min(u8x16::splat(0x1f)).simd_eq(chunk)
}

/// The special bytes in 64 bytes of a string, one bit per byte, the first byte lowest. The block
/// starts outside any escape.
pub(super) struct BlockMasks {
    quotes: u64,
    backslashes: u64,
    controls: u64,
}

impl BlockMasks {
    #[inline(always)]
    pub(super) fn of(block: &[u8; 64]) -> BlockMasks {
        let mut marks = BlockMasks {
            quotes: 0,
            backslashes: 0,
            controls: 0,
        };
        for (n, chunk) in block.as_chunks::<16>().0.iter().enumerate() {
            let chunk = u8x16::new(*chunk);
            marks.quotes |= u64::from(quotes(chunk).to_bitmask()) << (16 * n);
            marks.backslashes |= u64::from(backslashes(chunk).to_bitmask()) << (16 * n);
            marks.controls |= u64::from(controls(chunk).to_bitmask()) << (16 * n);
        }
        marks
    }

    /// The backslashes that start an escape, and the bytes that they escape. In a row of
    /// backslashes every other one starts an escape, beginning with the first. The subtraction
    /// borrows through a row and so distinguishes rows that start at odd offsets from those at even
    /// ones (simdjson's `json_escape_scanner`).
    #[inline(always)]
    fn escapes(&self) -> (u64, u64) {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let after = self.backslashes << 1;
        let both = (after | ODD).wrapping_sub(self.backslashes) ^ ODD;
        (both & self.backslashes, both ^ self.backslashes)
    }

    /// The length of the prefix that consists of plain text and escapes of a quote or a backslash.
    /// Behind it comes the closing quote, another escape or a control character. It is 64 if none
    /// of these comes, and 63 if the last byte is a backslash whose escaped byte is in the next
    /// block.
    #[inline(always)]
    pub(super) fn stop(&self) -> usize {
        self.stop_after(self.escapes())
    }

    #[inline(always)]
    fn stop_after(&self, (starts, escaped): (u64, u64)) -> usize {
        let other_escapes = (escaped & !(self.quotes | self.backslashes)) >> 1;
        let stops = self.quotes & !escaped | other_escapes | self.controls | starts & 1 << 63;
        stops.trailing_zeros() as usize
    }
}

/// The last bytes of a text, filled up to a whole block with zeros, which read as control
/// characters.
#[inline(always)]
pub(super) fn padded<const N: usize>(rest: &[u8]) -> [u8; N] {
    let mut block = [0; N];
    let len = rest.len().min(N);
    block[..len].copy_from_slice(&rest[..len]);
    block
}

impl<'a> Scanner<'a> {
    /// Decodes the rest of a string whose opening quote has been read.
    #[inline]
    pub(super) fn string_rest(&mut self) -> Result<Cow<'a, str>, Error> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        self.at = run_end(bytes, start);
        match bytes.get(self.at) {
            Some(b'"') => {
                self.at += 1;
                Ok(Cow::Borrowed(&self.text[start..self.at - 1]))
            }
            Some(b'\\') => self.unescape(start).map(Cow::Owned),
            Some(_) => self.fail(CONTROL),
            None => self.fail(ErrorKind::Incomplete),
        }
    }

    /// Decodes the rest of a string from `start`; the scanner is at its first backslash.
    ///
    /// The most frequent escapes are decoded by dropping the backslash. So a block is copied piece
    /// by piece between the dropped backslashes, each piece with a fixed width: the excess is
    /// overwritten by the next piece.
    #[inline(never)]
    fn unescape(&mut self, start: usize) -> Result<String, Error> {
        let bytes = self.text.as_bytes();
        let mut out = vec![0; (bytes.len() - self.at).min(ROOM_FIRST) + (self.at - start) + ROOM];
        let mut len = self.at - start;
        out[..len].copy_from_slice(&bytes[start..self.at]);
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let end;
            let window: &[u8; WINDOW] = match rest.first_chunk() {
                Some(window) => window,
                None => {
                    end = padded(rest);
                    &end
                }
            };
            if out.len() < len + ROOM {
                out.resize(2 * out.len() + ROOM, 0);
            }
            let (stop, copied) = match out.get_mut(len..).and_then(|room| room.first_chunk_mut()) {
                Some(room) => unescape_block(window, room),
                None => (0, 0),
            };
            self.at += stop;
            len += copied;
            if stop == 64 {
                continue;
            }
            match bytes.get(self.at) {
                Some(b'"') => break,
                // The escaped byte is beyond the block: the next block starts with this escape.
                Some(b'\\') if stop == 63 => {}
                Some(b'\\') => {
                    let decoded = self.escape()?;
                    // The decoded character fits: a block that stops early leaves at least that
                    // much room.
                    len += decoded.encode_utf8(&mut out[len..]).len();
                }
                Some(_) => return self.fail(CONTROL),
                None => return self.fail(ErrorKind::Incomplete),
            }
        }
        self.at += 1;
        out.truncate(len);
        if out.capacity() > 2 * len + ROOM {
            out.shrink_to_fit();
        }
        // Only whole characters were copied and decoded.
        String::from_utf8(out).or_else(|_| self.fail(ErrorKind::Expected("utf-8")))
    }

    /// Decodes one escape; the scanner is at its backslash.
    fn escape(&mut self) -> Result<char, Error> {
        self.at += 1;
        let decoded = match self.text.as_bytes().get(self.at) {
            Some(&byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            Some(_) => return self.fail(ErrorKind::Expected("an escape")),
            None => return self.fail(ErrorKind::Incomplete),
        };
        self.at += 1;
        Ok(decoded)
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let (at, code) = hex4(self.text.as_bytes(), self.at)?;
        self.at = at;
        Ok(code)
    }

    /// The character that a `\u` escape names. A lone surrogate becomes U+FFFD, and what follows it
    /// is read separately.
    fn unicode(&mut self) -> Result<char, Error> {
        let high = self.hex4()?;
        if !(0xD800..0xE000).contains(&high) {
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if high >= 0xDC00 || !(rest.starts_with(b"\\u") || b"\\u".starts_with(rest)) {
            self.replaced = true;
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        if rest.len() < 2 {
            self.at = self.text.len();
            return self.fail(ErrorKind::Incomplete);
        }
        let (end, low) = hex4(self.text.as_bytes(), self.at + 2)?;
        if !(0xDC00..0xE000).contains(&low) {
            self.replaced = true;
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        self.at = end;
        let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
        Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

/// Decodes a block up to its [`BlockMasks::stop`]; returns that, and how many bytes it wrote.
///
/// The masks on the indices change nothing (a block has 64 bytes); they prove to the compiler that
/// all copies are within their arrays.
#[inline(always)]
fn unescape_block(window: &[u8; WINDOW], room: &mut [u8; ROOM]) -> (usize, usize) {
    let Some(block) = window.first_chunk() else {
        return (0, 0);
    };
    let marks = BlockMasks::of(block);
    let (starts, escaped) = marks.escapes();
    let stop = marks.stop_after((starts, escaped));
    let mut dropped = starts & u64::MAX.checked_shr(64 - stop as u32).unwrap_or(0);
    let (mut from, mut to) = (0, 0);
    loop {
        let end = stop.min(dropped.trailing_zeros() as usize);
        let (r, w) = (from & 63, to & 63);
        room[w..w + 32].copy_from_slice(&window[r..r + 32]);
        let len = end - from;
        if len > 32 {
            let r = from & 31;
            room[w + 32..w + 64].copy_from_slice(&window[r + 32..r + 64]);
        }
        to += len;
        if dropped == 0 {
            return (stop, to);
        }
        dropped &= dropped - 1;
        from = end + 1;
    }
}

/// Appends `text` to `out` as a JSON string with quotes. Escapes only what JSON requires.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    escaped(text, |piece| out.extend_from_slice(piece.as_bytes()));
    out.push(b'"');
}

/// The same for a `String`.
#[inline]
pub fn push_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    match is_plain(text.as_bytes()) {
        true => out.push_str(text),
        false => push_escaped(out, text),
    }
    out.push('"');
}

/// The same of what `write` appends, which seldom has anything to escape.
#[inline]
pub fn push_written(out: &mut String, write: impl FnOnce(&mut String)) {
    out.push('"');
    let from = out.len();
    write(out);
    let written = out.get(from..).unwrap_or_default();
    if !is_plain(written.as_bytes()) {
        let written = written.to_owned();
        out.truncate(from);
        push_escaped(out, &written);
    }
    out.push('"');
}

/// Whether a string stands in JSON as it is.
#[inline(always)]
fn is_plain(bytes: &[u8]) -> bool {
    // The first and the last bytes, which may be the same.
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        return match bytes.len() {
            ..=16 => !(has_special(first) | has_special(last)),
            _ => run_end(bytes, 0) == bytes.len(),
        };
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return !has_special(u64::from(first) << 32 | u64::from(last));
    }
    !bytes
        .iter()
        .any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
}

/// Whether one of eight bytes is a quote, a backslash or a control character.
#[inline(always)]
fn has_special(bytes: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    // The high bit of the first byte below `limit`, which is 128 at most; 0 where there is none.
    let below = |bytes: u64, limit: u64| bytes.wrapping_sub(limit * ONES) & !bytes & HIGH;
    let equal = |bytes: u64, byte: u8| below(bytes ^ (u64::from(byte) * ONES), 1);
    equal(bytes, b'"') | equal(bytes, b'\\') | below(bytes, 0x20) != 0
}

#[inline(never)]
fn push_escaped(out: &mut String, text: &str) {
    escaped(text, |piece| out.push_str(piece));
}

/// Passes `text` to `put` piece by piece, escaped for a JSON string.
#[inline(always)]
fn escaped(text: &str, mut put: impl FnMut(&str)) {
    const HEX: [&str; 16] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f",
    ];
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        let end = run_end(bytes, at);
        put(&text[at..end]);
        let Some(&byte) = bytes.get(end) else { break };
        match byte {
            b'"' => put("\\\""),
            b'\\' => put("\\\\"),
            b'\n' => put("\\n"),
            b'\r' => put("\\r"),
            b'\t' => put("\\t"),
            _ => {
                put("\\u00");
                put(HEX[usize::from(byte >> 4)]);
                put(HEX[usize::from(byte & 15)]);
            }
        }
        at = end + 1;
    }
}

/// The front and the back of a JSON string's inner text, at most `front_max` and `back_max` bytes.
/// Never cuts inside a character, an escape or a surrogate pair. If the whole text fits, it is the
/// front.
pub(crate) fn ends_of(inner: &str, front_max: usize, back_max: usize) -> (&str, &str) {
    if inner.len() <= front_max.saturating_add(back_max) {
        return (inner, "");
    }
    (
        &inner[..unit_start(inner, front_max)],
        &inner[unit_end(inner, inner.len() - back_max)..],
    )
}

/// The last offset at or before `at` where a character or an escape starts.
fn unit_start(inner: &str, at: usize) -> usize {
    let at = inner.floor_char_boundary(at);
    let from = at.saturating_sub(ESCAPED_PAIR);
    match unit_around(inner, from, at) {
        Some((start, _)) => start,
        None => at,
    }
}

/// The first offset at or after `at` where a character or an escape starts.
fn unit_end(inner: &str, at: usize) -> usize {
    let at = inner.ceil_char_boundary(at);
    let from = at.saturating_sub(ESCAPED_PAIR);
    match unit_around(inner, from, at) {
        Some((_, end)) => end,
        None => at,
    }
}

/// The length of an escaped surrogate pair.
const ESCAPED_PAIR: usize = "\\ud83d\\ude00".len();

/// The escape, or pair of escapes, that `at` is inside of.
fn unit_around(inner: &str, from: usize, at: usize) -> Option<(usize, usize)> {
    let bytes = inner.as_bytes();
    // In a row of backslashes every other one starts an escape, beginning with the first.
    let mut start = from;
    while start > 0 && bytes.get(start - 1) == Some(&b'\\') {
        start -= 1;
    }
    while start < at {
        let end = match (bytes.get(start), bytes.get(start + 1)) {
            (Some(b'\\'), Some(b'u')) => start + 6,
            (Some(b'\\'), _) => start + 2,
            _ => start + 1,
        };
        let end = match (surrogate(bytes, start), surrogate(bytes, end)) {
            (Some(0xD800..0xDC00), Some(0xDC00..0xE000)) => end + 6,
            _ => end,
        };
        if end > at && end - start > 1 {
            return Some((start, end.min(inner.len())));
        }
        start = end;
    }
    None
}

/// Parses four hexadecimal digits; returns their end and their value.
pub(super) fn hex4(bytes: &[u8], mut at: usize) -> Result<(usize, u32), Error> {
    let fail = |at: usize, kind: ErrorKind| Err(Error { at, kind });
    let mut code = 0;
    for _ in 0..4 {
        let Some(&byte) = bytes.get(at) else {
            return fail(at, ErrorKind::Incomplete);
        };
        let Some(digit) = char::from(byte).to_digit(16) else {
            return fail(at, ErrorKind::Expected("four hexadecimal digits"));
        };
        code = code * 16 + digit;
        at += 1;
    }
    Ok((at, code))
}

/// The surrogate that the escape at `at` names.
pub(crate) fn surrogate(bytes: &[u8], at: usize) -> Option<u32> {
    if !bytes.get(at..)?.starts_with(b"\\u") {
        return None;
    }
    let (_, code) = hex4(bytes, at + 2).ok()?;
    (0xD800..0xE000).contains(&code).then_some(code)
}
