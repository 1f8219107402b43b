//! A validating JSON scanner: spans of the text, never a tree.
//!
//! Audit events pass through byte for byte, so what the bridges need of JSON is to know where a
//! member starts and ends, that all of it is valid (one bad event would make a whole batch
//! unreadable), and whether the text *ended* or is *wrong*: a cut event is salvaged, a wrong one is
//! not. Serde's data model answers none of the three. The scanner never recurses, so nesting is a
//! number to compare and not a stack to overflow.
//!
//! Grammar: RFC 8259. A `Raw` slice can be copied into any JSON document as it is.

use std::borrow::Cow;
use std::fmt;

/// Deepest nesting that is accepted. The API server refuses objects far below it, and Go's
/// decoder, which most receivers use, stops at 10,000.
pub const DEPTH_MAX: usize = 1024;

/// Why a text is not JSON, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// Offset into the text, in bytes.
    pub at: usize,
    /// What is wrong there.
    pub kind: ErrorKind,
}

/// What can be wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text ended inside a value: a longer text could be valid.
    Incomplete,
    /// Something else stands where this was expected: no longer text could be valid.
    Expected(&'static str),
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// An escape that names half a UTF-16 pair, where the string had to be decoded.
    LoneSurrogate,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::Incomplete => write!(f, "json ends early, at byte {}", self.at),
            ErrorKind::Expected(what) => write!(f, "expected {what} at byte {}", self.at),
            ErrorKind::TooDeep => {
                write!(
                    f,
                    "nested deeper than {DEPTH_MAX} levels at byte {}",
                    self.at
                )
            }
            ErrorKind::LoneSurrogate => {
                write!(
                    f,
                    "escape of half a utf-16 surrogate pair at byte {}",
                    self.at
                )
            }
        }
    }
}

impl std::error::Error for Error {}

/// The text of one complete, valid JSON value, without space around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    text: &'a str,
    fractional: bool,
}

/// What a JSON value is, told by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// a number
    Number,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Object => "an object",
            Kind::Array => "an array",
            Kind::String => "a string",
            Kind::Number => "a number",
            Kind::Bool => "a boolean",
            Kind::Null => "null",
        })
    }
}

impl<'a> Raw<'a> {
    /// Validates `text` as one JSON value with nothing but space around it.
    ///
    /// # Errors
    /// The first thing that makes it no JSON.
    pub fn parse(text: &'a str) -> Result<Raw<'a>, Error> {
        let mut scanner = Scanner::new(text);
        let raw = scanner.value()?;
        scanner.end()?;
        Ok(raw)
    }

    /// The value's JSON text.
    pub fn text(self) -> &'a str {
        self.text
    }

    /// What the value is.
    pub fn kind(self) -> Kind {
        match self.text.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        }
    }

    /// Whether some number in it is written with a fraction or an exponent.
    pub fn has_fractional(self) -> bool {
        self.fractional
    }

    /// The decoded string, when it is one and names no half surrogate pair.
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        let inner = self.text.strip_prefix('"')?.strip_suffix('"')?;
        if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
            return Some(Cow::Borrowed(inner));
        }
        Scanner::new(self.text).string().ok()
    }

    /// The integer, when it is one in the range of `i64`; a string of digits counts, as the
    /// protobuf JSON mapping writes 64-bit integers so.
    pub fn as_i64(self) -> Option<i64> {
        self.text.trim_matches('"').parse().ok()
    }

    /// The boolean, when it is one; `"true"` and `"false"` count, as some forwarders write them so.
    pub fn as_bool(self) -> Option<bool> {
        match self.text {
            "true" | "\"true\"" => Some(true),
            "false" | "\"false\"" => Some(false),
            _ => None,
        }
    }

    /// Walks the members of an object; `None` when the value is not one.
    pub fn members(self) -> Option<Members<'a>> {
        let mut scanner = Scanner::new(self.text);
        scanner.open_object().ok()?;
        Some(Members { scanner })
    }

    /// Walks the elements of an array; `None` when the value is not one.
    pub fn elements(self) -> Option<Elements<'a>> {
        let mut scanner = Scanner::new(self.text);
        scanner.open_array().ok()?;
        Some(Elements { scanner })
    }

    /// The last member of this name of an object (Go's decoder lets the last one win).
    pub fn get(self, name: &str) -> Option<Raw<'a>> {
        self.members()?
            .filter(|(key, _)| key == name)
            .last()
            .map(|(_, value)| value)
    }
}

/// The members of an object, in the order of the text.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    scanner: Scanner<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.scanner.key().ok()??;
        Some((key, self.scanner.value().ok()?))
    }
}

/// The elements of an array, in order.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    scanner: Scanner<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        if self.scanner.element().ok()? {
            self.scanner.value().ok()
        } else {
            None
        }
    }
}

/// Reads a JSON text from front to back: open a container, walk its keys or elements, and at each
/// value either go in or step over it. Each byte is looked at once.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// A container was just opened: no comma before its first member.
    fresh: bool,
    fractional: bool,
}

impl<'a> Scanner<'a> {
    /// A scanner at the front of `text`.
    pub fn new(text: &'a str) -> Scanner<'a> {
        Scanner {
            text,
            at: 0,
            depth: 0,
            fresh: false,
            fractional: false,
        }
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The first byte of the next value, past space; `None` at the end of the text.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                _ => return Some(byte),
            }
        }
        None
    }

    /// Steps into an object.
    ///
    /// # Errors
    /// When the next value is none.
    pub fn open_object(&mut self) -> Result<(), Error> {
        self.open(b'{', "an object")
    }

    /// Steps into an array.
    ///
    /// # Errors
    /// When the next value is none.
    pub fn open_array(&mut self) -> Result<(), Error> {
        self.open(b'[', "an array")
    }

    fn open(&mut self, bracket: u8, what: &'static str) -> Result<(), Error> {
        match self.peek() {
            Some(byte) if byte == bracket => {
                self.at += 1;
                self.depth += 1;
                self.fresh = true;
                if self.depth > DEPTH_MAX {
                    self.fail(ErrorKind::TooDeep)
                } else {
                    Ok(())
                }
            }
            Some(_) => self.fail(ErrorKind::Expected(what)),
            None => self.fail(ErrorKind::Incomplete),
        }
    }

    /// The next key of the object that was opened last, or `None` at its end, which is stepped over.
    ///
    /// # Errors
    /// When neither a key nor the end comes next.
    pub fn key(&mut self) -> Result<Option<Cow<'a, str>>, Error> {
        let Some(byte) = self.peek() else {
            return self.fail(ErrorKind::Incomplete);
        };
        if byte == b'}' {
            self.close();
            return Ok(None);
        }
        if !self.fresh {
            if byte != b',' {
                return self.fail(ErrorKind::Expected("a comma or the end of the object"));
            }
            self.at += 1;
        }
        self.fresh = false;
        let key = match self.peek() {
            Some(b'"') => self.string()?,
            Some(_) => return self.fail(ErrorKind::Expected("a key")),
            None => return self.fail(ErrorKind::Incomplete),
        };
        self.colon()?;
        Ok(Some(key))
    }

    /// Whether the array that was opened last has another element; its end is stepped over.
    ///
    /// # Errors
    /// When neither an element nor the end comes next.
    pub fn element(&mut self) -> Result<bool, Error> {
        let Some(byte) = self.peek() else {
            return self.fail(ErrorKind::Incomplete);
        };
        if byte == b']' {
            self.close();
            return Ok(false);
        }
        if !self.fresh {
            if byte != b',' {
                return self.fail(ErrorKind::Expected("a comma or the end of the array"));
            }
            self.at += 1;
        }
        self.fresh = false;
        Ok(true)
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth = self.depth.saturating_sub(1);
        self.fresh = false;
    }

    fn colon(&mut self) -> Result<(), Error> {
        match self.peek() {
            Some(b':') => {
                self.at += 1;
                Ok(())
            }
            Some(_) => self.fail(ErrorKind::Expected("a colon")),
            None => self.fail(ErrorKind::Incomplete),
        }
    }

    /// Steps over the next value and returns its text.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn value(&mut self) -> Result<Raw<'a>, Error> {
        self.peek();
        let start = self.at;
        let outer = std::mem::replace(&mut self.fractional, false);
        self.skip()?;
        let raw = Raw {
            text: &self.text[start..self.at],
            fractional: self.fractional,
        };
        self.fractional |= outer;
        Ok(raw)
    }

    /// Decodes the next value, a string; borrowed where it holds no escape.
    ///
    /// # Errors
    /// When it is no string, or names half a surrogate pair.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.fresh = false;
        match self.peek() {
            Some(b'"') => self.at += 1,
            Some(_) => return self.fail(ErrorKind::Expected("a string")),
            None => return self.fail(ErrorKind::Incomplete),
        }
        let start = self.at;
        match self.run()? {
            b'"' => {
                self.at += 1;
                Ok(Cow::Borrowed(&self.text[start..self.at - 1]))
            }
            _ => self.unescape(start).map(Cow::Owned),
        }
    }

    /// Checks that nothing but space follows.
    ///
    /// # Errors
    /// When something does.
    pub fn end(&mut self) -> Result<(), Error> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fail(ErrorKind::Expected("the end of the text")),
        }
    }

    fn fail<T>(&self, kind: ErrorKind) -> Result<T, Error> {
        Err(Error { at: self.at, kind })
    }

    /// Steps over one value without recursion: a bit per level says object or array.
    fn skip(&mut self) -> Result<(), Error> {
        let base = self.depth;
        let mut is_object = [0u64; DEPTH_MAX / 64 + 1];
        'value: loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.skip_string()?;
                }
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.depth += 1;
                    if self.depth > DEPTH_MAX {
                        return self.fail(ErrorKind::TooDeep);
                    }
                    let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
                    if bracket == b'{' {
                        is_object[word] |= bit;
                        match self.peek() {
                            Some(b'}') => {
                                self.at += 1;
                                self.depth -= 1;
                            }
                            _ => {
                                self.skip_key()?;
                                continue 'value;
                            }
                        }
                    } else {
                        is_object[word] &= !bit;
                        match self.peek() {
                            Some(b']') => {
                                self.at += 1;
                                self.depth -= 1;
                            }
                            _ => continue 'value,
                        }
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.skip_number()?,
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                Some(_) => return self.fail(ErrorKind::Expected("a value")),
                None => return self.fail(ErrorKind::Incomplete),
            }
            while self.depth > base {
                let in_object = is_object[self.depth / 64] >> (self.depth % 64) & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if in_object {
                            self.peek();
                            self.skip_key()?;
                        }
                        continue 'value;
                    }
                    Some(b'}') if in_object => {
                        self.at += 1;
                        self.depth -= 1;
                    }
                    Some(b']') if !in_object => {
                        self.at += 1;
                        self.depth -= 1;
                    }
                    Some(_) if in_object => {
                        return self.fail(ErrorKind::Expected("a comma or the end of the object"));
                    }
                    Some(_) => {
                        return self.fail(ErrorKind::Expected("a comma or the end of the array"));
                    }
                    None => return self.fail(ErrorKind::Incomplete),
                }
            }
            self.fresh = false;
            return Ok(());
        }
    }

    fn skip_key(&mut self) -> Result<(), Error> {
        match self.text.as_bytes().get(self.at) {
            Some(b'"') => {
                self.at += 1;
                self.skip_string()?;
                self.colon()
            }
            Some(_) => self.fail(ErrorKind::Expected("a key")),
            None => self.fail(ErrorKind::Incomplete),
        }
    }

    /// Steps over the rest of a string whose opening quote has been read.
    fn skip_string(&mut self) -> Result<(), Error> {
        loop {
            if self.run()? == b'"' {
                self.at += 1;
                return Ok(());
            }
            self.at += 1;
            match self.text.as_bytes().get(self.at) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                Some(b'u') => {
                    self.at += 1;
                    self.hex4()?;
                }
                Some(_) => return self.fail(ErrorKind::Expected("an escape")),
                None => return self.fail(ErrorKind::Incomplete),
            }
        }
    }

    /// Moves to the next quote or backslash and returns it.
    #[inline]
    fn run(&mut self) -> Result<u8, Error> {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        // Eight bytes at a time: names and values in audit events are mostly short.
        while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let special = special_bytes(u64::from_le_bytes(*word));
            if special == 0 {
                at += 8;
                continue;
            }
            at += (special.trailing_zeros() / 8) as usize;
            break;
        }
        loop {
            match bytes.get(at) {
                Some(&byte @ (b'"' | b'\\')) => {
                    self.at = at;
                    return Ok(byte);
                }
                Some(0..0x20) => {
                    self.at = at;
                    return self.fail(ErrorKind::Expected("no control character in a string"));
                }
                Some(_) => at += 1,
                None => {
                    self.at = at;
                    return self.fail(ErrorKind::Incomplete);
                }
            }
        }
    }

    /// Decodes the rest of a string from `start`; the scanner stands on its first backslash.
    fn unescape(&mut self, start: usize) -> Result<String, Error> {
        let bytes = self.text.as_bytes();
        let mut out = Vec::with_capacity((bytes.len() - start).min(4096));
        out.extend_from_slice(&bytes[start..self.at]);
        loop {
            // The scanner stands on a backslash.
            self.at += 1;
            let Some(&escape) = bytes.get(self.at) else {
                return self.fail(ErrorKind::Incomplete);
            };
            self.at += 1;
            match escape {
                b'"' | b'\\' | b'/' => out.push(escape),
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'r' => out.push(b'\r'),
                b'b' => out.push(8),
                b'f' => out.push(12),
                b'u' => {
                    let decoded = self.unicode()?;
                    out.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => {
                    self.at -= 1;
                    return self.fail(ErrorKind::Expected("an escape"));
                }
            }
            // Copy up to the next escape, eight bytes at a time into room that is there.
            loop {
                let Some(word) = bytes
                    .get(self.at..)
                    .and_then(|rest| rest.first_chunk::<8>())
                else {
                    break;
                };
                let special = special_bytes(u64::from_le_bytes(*word));
                out.extend_from_slice(word);
                if special == 0 {
                    self.at += 8;
                    continue;
                }
                let run = (special.trailing_zeros() / 8) as usize;
                out.truncate(out.len() - 8 + run);
                self.at += run;
                break;
            }
            let from = self.at;
            let stop = self.run()?;
            out.extend_from_slice(&bytes[from..self.at]);
            if stop == b'"' {
                self.at += 1;
                // Whole characters were copied and whole characters were decoded.
                return String::from_utf8(out).or_else(|_| self.fail(ErrorKind::Expected("utf-8")));
            }
        }
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(&byte) = self.text.as_bytes().get(self.at) else {
                return self.fail(ErrorKind::Incomplete);
            };
            let Some(digit) = char::from(byte).to_digit(16) else {
                return self.fail(ErrorKind::Expected("four hexadecimal digits"));
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn unicode(&mut self) -> Result<char, Error> {
        let start = self.at;
        let high = self.hex4()?;
        let lone = Err(Error {
            at: start - 2,
            kind: ErrorKind::LoneSurrogate,
        });
        if !(0xD800..0xE000).contains(&high) {
            return char::from_u32(high).map_or(lone, Ok);
        }
        let rest = &self.text.as_bytes()[self.at..];
        if high >= 0xDC00 || !(rest.starts_with(b"\\u") || b"\\u".starts_with(rest)) {
            return lone;
        }
        if rest.len() < 2 {
            self.at = self.text.len();
            return self.fail(ErrorKind::Incomplete);
        }
        self.at += 2;
        let low = self.hex4()?;
        if !(0xDC00..0xE000).contains(&low) {
            return lone;
        }
        char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)).map_or(lone, Ok)
    }

    fn skip_number(&mut self) -> Result<(), Error> {
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            Some(_) => return self.fail(ErrorKind::Expected("a digit")),
            None => return self.fail(ErrorKind::Incomplete),
        }
        if bytes.get(self.at) == Some(&b'.') {
            self.fractional = true;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            self.fractional = true;
            self.at += 1;
            if let Some(b'+' | b'-') = bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Error> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at) {
            Some(b'0'..=b'9') => {}
            Some(_) => return self.fail(ErrorKind::Expected("a digit")),
            None => return self.fail(ErrorKind::Incomplete),
        }
        while let Some(b'0'..=b'9') = bytes.get(self.at) {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Error> {
        let rest = &self.text.as_bytes()[self.at..];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else if word.as_bytes().starts_with(rest) {
            self.at = self.text.len();
            self.fail(ErrorKind::Incomplete)
        } else {
            self.fail(ErrorKind::Expected("a value"))
        }
    }
}

/// Marks the bytes of a little-endian word that end a run inside a string: quote, backslash and
/// control characters. The lowest mark is exact; higher ones may be false (a borrow), so only the
/// lowest may be used.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    let quote = zero(word ^ (ONES * b'"' as u64));
    let backslash = zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & HIGH
}

/// Appends `text` to `out` as a JSON string, quotes included. Only what JSON demands is escaped.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..at]);
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            out.extend_from_slice(b"00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
        start = at + 1;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests;
