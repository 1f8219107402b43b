//! A validating JSON scanner that returns slices of the text and builds no tree.
//!
//! Audit events pass through byte for byte. So the bridges need to know where a member starts and
//! ends, that all of it is valid (one bad event would make a whole batch unreadable), and whether
//! the text *ended* too early or is *wrong*: a cut event is salvaged, a wrong one is not. Serde's
//! data model answers none of the three. The scanner never recurses, so it takes any depth, and
//! reports it ([`Findings`]).
//!
//! Grammar: RFC 8259. A `Raw` slice is valid JSON by itself. Whether an event may leave (nesting,
//! duplicate keys, lone surrogates) is decided in `conformance`.
//!
//! A lone UTF-16 surrogate (`\ud800`) decodes to U+FFFD, as Go's decoder reads it.

mod edit;
mod findings;
mod number;
mod skip;
mod string;
mod utf8;
mod walk;

use std::borrow::Cow;
use std::fmt;

pub(crate) use edit::Edits;
pub use findings::Findings;
use findings::{KeyFingerprints, NoKeyVisitor};
pub use number::integral;
pub use skip::closing_quote;
pub(crate) use skip::plain_string_end;
pub(crate) use string::{ends_of, surrogate};
pub use string::{push_string, push_written, write_string};
pub use utf8::replace_invalid;
pub(crate) use walk::{Visit, walk};

/// Why a text is not JSON, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// Offset into the text, in bytes.
    pub at: usize,
    pub kind: ErrorKind,
}

/// What can be wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text ends inside a value: a longer text could be valid.
    Incomplete,
    /// Something other than this was found: no longer text could be valid.
    Expected(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::Incomplete => write!(f, "json ends early, at byte {}", self.at),
            ErrorKind::Expected(what) => write!(f, "expected {what} at byte {}", self.at),
        }
    }
}

impl std::error::Error for Error {}

/// The text of one complete, valid JSON value, without whitespace around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    text: &'a str,
    findings: Findings,
}

/// The kind of a JSON value, determined by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
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

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueKind::Object => "an object",
            ValueKind::Array => "an array",
            ValueKind::String => "a string",
            ValueKind::Number => "a number",
            ValueKind::Bool => "a boolean",
            ValueKind::Null => "null",
        })
    }
}

impl<'a> Raw<'a> {
    /// Validates `text` as one JSON value with nothing but whitespace around it.
    ///
    /// # Errors
    /// The first thing that makes it invalid.
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

    pub fn kind(self) -> ValueKind {
        match self.text.as_bytes().first() {
            Some(b'{') => ValueKind::Object,
            Some(b'[') => ValueKind::Array,
            Some(b'"') => ValueKind::String,
            Some(b't' | b'f') => ValueKind::Bool,
            Some(b'n') => ValueKind::Null,
            _ => ValueKind::Number,
        }
    }

    /// Whether a number in it is written with a fraction or an exponent.
    pub fn has_fractional(self) -> bool {
        self.findings.fractional
    }

    /// What the scan of the value found.
    pub fn findings(self) -> Findings {
        self.findings
    }

    /// The decoded string, if it is one.
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        let inner = self.text.strip_prefix('"')?.strip_suffix('"')?;
        if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
            return Some(Cow::Borrowed(inner));
        }
        Scanner::new(self.text).string().ok()
    }

    /// The decoded string, if it is a non-empty one.
    pub fn as_text(self) -> Option<Cow<'a, str>> {
        self.as_str().filter(|text| !text.is_empty())
    }

    /// The integer, if it is one in the range of `i64`; also from a string of digits, since the
    /// protobuf JSON mapping writes 64-bit integers so.
    pub fn as_i64(self) -> Option<i64> {
        self.text.trim_matches('"').parse().ok()
    }

    /// The boolean, if it is one; also from `"true"` and `"false"`, since some forwarders write
    /// them so.
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

    /// The last member of an object with this name (Go's decoder lets the last one win).
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
/// value either enter or skip it. Each byte is scanned once.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// A container was just opened, so its first member has no comma before it.
    fresh: bool,
    /// A decoded string contained a lone surrogate.
    replaced: bool,
}

impl<'a> Scanner<'a> {
    /// A scanner at the front of `text`.
    pub fn new(text: &'a str) -> Scanner<'a> {
        Scanner {
            text,
            at: 0,
            fresh: false,
            replaced: false,
        }
    }

    /// Whether a decoded string contained a lone surrogate, which is U+FFFD now.
    pub fn replaced(&self) -> bool {
        self.replaced
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The first byte of the next value, after whitespace; `None` at the end of the text.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        self.at = skip::space_end(bytes, self.at);
        bytes.get(self.at).copied()
    }

    /// Enters an object.
    ///
    /// # Errors
    /// The next value is not an object.
    pub fn open_object(&mut self) -> Result<(), Error> {
        self.open(b'{', "an object")
    }

    /// Enters an array.
    ///
    /// # Errors
    /// The next value is not an array.
    pub fn open_array(&mut self) -> Result<(), Error> {
        self.open(b'[', "an array")
    }

    fn open(&mut self, bracket: u8, what: &'static str) -> Result<(), Error> {
        match self.peek() {
            Some(byte) if byte == bracket => {
                self.at += 1;
                self.fresh = true;
                Ok(())
            }
            Some(_) => self.fail(ErrorKind::Expected(what)),
            None => self.fail(ErrorKind::Incomplete),
        }
    }

    /// The next key of the innermost open object, or `None` at its end, which is consumed.
    ///
    /// # Errors
    /// Neither a key nor the end comes next.
    #[inline(always)]
    pub fn key(&mut self) -> Result<Option<Cow<'a, str>>, Error> {
        match self.plain_key() {
            Some(key) => Ok(Some(Cow::Borrowed(key))),
            None if self.text.as_bytes().get(self.at) == Some(&b'}') => {
                self.close();
                Ok(None)
            }
            None => self.any_key(),
        }
    }

    /// The next key in any notation.
    #[inline(never)]
    fn any_key(&mut self) -> Result<Option<Cow<'a, str>>, Error> {
        if !self.key_start()? {
            return Ok(None);
        }
        let key = self.string()?;
        self.colon()?;
        Ok(Some(key))
    }

    /// The next key, if it is written without escapes or whitespace around it.
    #[inline(always)]
    fn plain_key(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let quote = match self.fresh {
            true => self.at,
            false if bytes.get(self.at) == Some(&b',') => self.at + 1,
            false => return None,
        };
        if bytes.get(quote) != Some(&b'"') {
            return None;
        }
        let end = string::run_end(bytes, quote + 1);
        if bytes.get(end..)?.first_chunk() != Some(b"\":") {
            return None;
        }
        self.at = end + 2;
        self.fresh = false;
        self.text.get(quote + 1..end)
    }

    /// The next key with its offset; see [`Scanner::key`].
    pub(super) fn member(&mut self) -> Result<Option<(usize, Cow<'a, str>)>, Error> {
        if !self.key_start()? {
            return Ok(None);
        }
        let start = self.at;
        let key = self.string()?;
        self.colon()?;
        Ok(Some((start, key)))
    }

    /// The next key with its offset, as written between its quotes.
    #[inline(always)]
    pub(super) fn raw_member(&mut self) -> Result<Option<(usize, &'a str)>, Error> {
        if !self.key_start()? {
            return Ok(None);
        }
        let start = self.at;
        let bytes = self.text.as_bytes();
        let end = skip::string_end(bytes, start + 1, &mut Findings::default())
            .inspect_err(|error| self.at = error.at)?;
        self.at = end;
        self.colon()?;
        Ok(Some((start, &self.text[start + 1..end - 1])))
    }

    /// Continues at an offset up to which the text is known to be valid.
    #[inline(always)]
    pub(super) fn resume(&mut self, at: usize) {
        self.at = at;
        self.fresh = false;
    }

    /// The key at this offset, decoded.
    pub(super) fn decoded_key(&self, at: usize) -> Result<Cow<'a, str>, Error> {
        let mut key = self.clone();
        key.at = at;
        key.string()
    }

    /// Moves to the quote of the next key and returns true, or consumes the end of the object.
    fn key_start(&mut self) -> Result<bool, Error> {
        let Some(byte) = self.peek() else {
            return self.fail(ErrorKind::Incomplete);
        };
        if byte == b'}' {
            self.close();
            return Ok(false);
        }
        if !self.fresh {
            if byte != b',' {
                return self.fail(ErrorKind::Expected("a comma or the end of the object"));
            }
            self.at += 1;
        }
        self.fresh = false;
        match self.peek() {
            Some(b'"') => Ok(true),
            Some(_) => self.fail(ErrorKind::Expected("a key")),
            None => self.fail(ErrorKind::Incomplete),
        }
    }

    /// Whether the innermost open array has another element; consumes its end if not.
    ///
    /// # Errors
    /// Neither an element nor the end comes next.
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

    /// Skips the next value and returns its text.
    ///
    /// # Errors
    /// The value is not valid.
    pub fn value(&mut self) -> Result<Raw<'a>, Error> {
        self.value_with(&mut NoKeyVisitor)
    }

    /// The same, and looks for duplicate keys at every depth: see [`Findings::may_repeat_a_key`].
    ///
    /// # Errors
    /// The value is not valid.
    pub fn value_and_keys(&mut self) -> Result<Raw<'a>, Error> {
        self.value_with(&mut KeyFingerprints::default())
    }

    #[inline(always)]
    fn value_with(&mut self, prints: &mut impl findings::KeyVisitor) -> Result<Raw<'a>, Error> {
        self.peek();
        let start = self.at;
        let mut findings = Findings::default();
        self.fresh = false;
        match skip::value_end(self.text.as_bytes(), start, &mut findings, prints) {
            Ok(end) => {
                self.at = end;
                let text = &self.text[start..end];
                Ok(Raw { text, findings })
            }
            Err(error) => {
                self.at = error.at;
                Err(error)
            }
        }
    }

    /// Decodes the next value, a string; borrowed if it contains no escape.
    ///
    /// # Errors
    /// The value is not a string.
    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        match self.plain_string() {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => self.any_string(),
        }
    }

    /// Decodes the next value if it is a string, and skips any other.
    ///
    /// # Errors
    /// The value is not valid.
    #[inline]
    pub fn string_or_skip(&mut self) -> Result<Option<Cow<'a, str>>, Error> {
        if let Some(text) = self.plain_string() {
            return Ok(Some(Cow::Borrowed(text)));
        }
        match self.peek() {
            Some(b'"') => self.any_string().map(Some),
            _ => self.value().map(|_| None),
        }
    }

    /// The next value, if it is a string without escapes or space before it.
    #[inline(always)]
    fn plain_string(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        let from = self.at + 1;
        let end = string::run_end(bytes, from);
        if bytes.get(end) != Some(&b'"') {
            return None;
        }
        self.at = end + 1;
        self.fresh = false;
        self.text.get(from..end)
    }

    /// The next value, a string in any notation.
    #[inline(never)]
    fn any_string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.fresh = false;
        match self.peek() {
            Some(b'"') => self.at += 1,
            Some(_) => return self.fail(ErrorKind::Expected("a string")),
            None => return self.fail(ErrorKind::Incomplete),
        }
        self.string_rest()
    }

    /// Checks that only whitespace follows.
    ///
    /// # Errors
    /// Something else follows.
    pub fn end(&mut self) -> Result<(), Error> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fail(ErrorKind::Expected("the end of the text")),
        }
    }

    fn fail<T>(&self, kind: ErrorKind) -> Result<T, Error> {
        Err(Error { at: self.at, kind })
    }
}

#[cfg(test)]
mod tests;
