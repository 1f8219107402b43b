//! Skips a value while validating it: most bytes that a bridge moves are read only here.
//!
//! The offset is a local (`at`) that each helper takes and returns, so that it stays in a register.
//! Whitespace is looked for only if the next byte is no larger than a space, because API servers
//! write none.

use super::findings::{Findings, KeyVisitor};
use super::string::{self, BlockMasks, hex4};
use super::{Error, ErrorKind};

pub(super) fn fail<T>(at: usize, kind: ErrorKind) -> Result<T, Error> {
    Err(Error { at, kind })
}

/// The kinds of the open containers, one bit each: set for an object. The innermost 64 are in a
/// register; audit events stay below that, and deeper levels go to `outer`.
#[derive(Default)]
pub(super) struct Containers {
    inner: u64,
    pub(super) level: usize,
    outer: Vec<u64>,
}

impl Containers {
    #[inline(always)]
    pub(super) fn push(&mut self, is_object: bool) {
        if self.level.is_multiple_of(64) && self.level > 0 {
            self.outer.push(self.inner);
        }
        self.level += 1;
        self.inner = self.inner << 1 | u64::from(is_object);
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) {
        self.inner >>= 1;
        self.level -= 1;
        if self.level.is_multiple_of(64) && self.level > 0 {
            self.inner = self.outer.pop().unwrap_or_default();
        }
    }

    #[inline(always)]
    pub(super) fn in_object(&self) -> bool {
        self.inner & 1 == 1
    }
}

/// The end of the value that starts at `at`, after optional whitespace.
#[inline(always)]
pub(super) fn value_end(
    bytes: &[u8],
    mut at: usize,
    findings: &mut Findings,
    prints: &mut impl KeyVisitor,
) -> Result<usize, Error> {
    let mut containers = Containers::default();
    'value: loop {
        at = space_end(bytes, at);
        match bytes.get(at) {
            Some(b'"') => at = string_end(bytes, at + 1, findings)?,
            Some(bracket @ (b'{' | b'[')) => {
                at += 1;
                let is_object = *bracket == b'{';
                at = space_end(bytes, at);
                // In ASCII both closing brackets are two behind their opening ones.
                if bytes.get(at) == Some(&(bracket + 2)) {
                    at += 1;
                } else {
                    containers.push(is_object);
                    findings.note_depth(containers.level);
                    prints.open();
                    if is_object {
                        at = key_end(bytes, at, findings, prints)?;
                    }
                    continue 'value;
                }
            }
            Some(b'-' | b'0'..=b'9') => {
                at = number_end(bytes, at, &mut findings.fractional)?;
            }
            Some(b't') => at = literal_end(bytes, at, "true")?,
            Some(b'f') => at = literal_end(bytes, at, "false")?,
            Some(b'n') => at = literal_end(bytes, at, "null")?,
            Some(_) => return fail(at, ErrorKind::Expected("a value")),
            None => return fail(at, ErrorKind::Incomplete),
        }
        while containers.level > 0 {
            at = space_end(bytes, at);
            let in_object = containers.in_object();
            match bytes.get(at) {
                Some(b',') => {
                    at += 1;
                    if in_object {
                        at = key_end(bytes, space_end(bytes, at), findings, prints)?;
                    }
                    continue 'value;
                }
                Some(&byte) if byte == if in_object { b'}' } else { b']' } => {
                    at += 1;
                    containers.pop();
                    prints.close();
                }
                Some(_) if in_object => {
                    return fail(at, ErrorKind::Expected("a comma or the end of the object"));
                }
                Some(_) => {
                    return fail(at, ErrorKind::Expected("a comma or the end of the array"));
                }
                None => return fail(at, ErrorKind::Incomplete),
            }
        }
        return Ok(at);
    }
}

/// The first byte at or after `at` that is not whitespace.
#[inline(always)]
pub(super) fn space_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(0..=b' ') => spaces_end(bytes, at),
        _ => at,
    }
}

#[inline(never)]
fn spaces_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The end of the key at `at` with its colon.
#[inline(always)]
fn key_end(
    bytes: &[u8],
    at: usize,
    findings: &mut Findings,
    prints: &mut impl KeyVisitor,
) -> Result<usize, Error> {
    match bytes.get(at) {
        Some(b'"') => {
            let end = string::run_end(bytes, at + 1);
            if bytes.get(end) == Some(&b'"') {
                prints.key(bytes, at + 1, end, findings);
                return colon_end(bytes, end + 1);
            }
            prints.escaped_key(findings);
            colon_end(bytes, escaped_string_end(bytes, end, findings)?)
        }
        Some(_) => fail(at, ErrorKind::Expected("a key")),
        None => fail(at, ErrorKind::Incomplete),
    }
}

#[inline(always)]
pub(super) fn colon_end(bytes: &[u8], at: usize) -> Result<usize, Error> {
    let at = space_end(bytes, at);
    match bytes.get(at) {
        Some(b':') => Ok(at + 1),
        Some(_) => fail(at, ErrorKind::Expected("a colon")),
        None => fail(at, ErrorKind::Incomplete),
    }
}

/// The end of the string whose opening quote is just before `at`.
#[inline(always)]
pub(super) fn string_end(bytes: &[u8], at: usize, findings: &mut Findings) -> Result<usize, Error> {
    let at = string::run_end(bytes, at);
    match bytes.get(at) {
        Some(b'"') => Ok(at + 1),
        _ => escaped_string_end(bytes, at, findings),
    }
}

/// The end of a string, if it contains no escape.
#[inline(always)]
pub(crate) fn plain_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let at = string::run_end(bytes, at);
    (bytes.get(at) == Some(&b'"')).then_some(at + 1)
}

/// The offset of the closing quote of a string whose text begins at `at`. Validates nothing: for
/// text that is known to be JSON, or that matters only up to there.
pub fn closing_quote(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        match bytes.get(at) {
            Some(b'"') => return Some(at),
            _ => at += 2,
        }
    }
}

/// The end of a string from its first escape on. Escapes seldom come alone, so this reads 64 bytes
/// at once.
#[inline(never)]
fn escaped_string_end(
    bytes: &[u8],
    mut at: usize,
    findings: &mut Findings,
) -> Result<usize, Error> {
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let marks = match rest.first_chunk() {
            Some(block) => BlockMasks::of(block),
            None => BlockMasks::of(&string::padded(rest)),
        };
        let stop = marks.stop();
        at += stop;
        if stop == 64 {
            continue;
        }
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => {
                at += 1;
                match bytes.get(at) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 1,
                    Some(b'u') => {
                        let start = at - 1;
                        let (end, code) = hex4(bytes, at + 1)?;
                        at = end;
                        if (0xD800..0xE000).contains(&code) {
                            at = surrogate_end(bytes, start, code, findings);
                        }
                    }
                    Some(_) => return fail(at, ErrorKind::Expected("an escape")),
                    None => return fail(at, ErrorKind::Incomplete),
                }
            }
            Some(_) => return fail(at, string::CONTROL),
            None => return fail(at, ErrorKind::Incomplete),
        }
    }
}

/// The end of the surrogate escape at `start`, and of its other half if that follows.
fn surrogate_end(bytes: &[u8], start: usize, code: u32, findings: &mut Findings) -> usize {
    let other = bytes
        .get(start + 6..)
        .filter(|rest| code < 0xDC00 && rest.starts_with(b"\\u"))
        .and_then(|_| hex4(bytes, start + 8).ok());
    match other {
        Some((end, 0xDC00..0xE000)) => end,
        _ => {
            findings.lone_surrogate = true;
            start + 6
        }
    }
}

pub(super) fn number_end(
    bytes: &[u8],
    mut at: usize,
    fractional: &mut bool,
) -> Result<usize, Error> {
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        _ => digits_end(bytes, at)?,
    };
    if bytes.get(at) == Some(&b'.') {
        *fractional = true;
        at = digits_end(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        *fractional = true;
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        at = digits_end(bytes, at)?;
    }
    Ok(at)
}

/// The end of one or more digits.
#[inline(always)]
fn digits_end(bytes: &[u8], mut at: usize) -> Result<usize, Error> {
    match bytes.get(at) {
        Some(b'0'..=b'9') => at += 1,
        Some(_) => return fail(at, ErrorKind::Expected("a digit")),
        None => return fail(at, ErrorKind::Incomplete),
    }
    while let Some(b'0'..=b'9') = bytes.get(at) {
        at += 1;
    }
    Ok(at)
}

#[inline(always)]
pub(super) fn literal_end(bytes: &[u8], at: usize, word: &'static str) -> Result<usize, Error> {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.starts_with(word.as_bytes()) {
        Ok(at + word.len())
    } else if word.as_bytes().starts_with(rest) {
        fail(bytes.len(), ErrorKind::Incomplete)
    } else {
        fail(at, ErrorKind::Expected("a value"))
    }
}
