//! Where a damaged value ends, and the next one begins.

use audit_bridge_core::event::json::{Error, ErrorKind, Scanner};

use crate::boundary::{Boundary, Edge};

/// The longest prefix that is valid UTF-8.
pub(super) fn valid_prefix(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// The next line that begins with this value's opening bracket, at most as far indented.
pub(super) fn next_sibling(rest: &[u8], indent: Option<usize>) -> Option<usize> {
    let (indent, bracket) = (indent.unwrap_or(0), rest.first()?);
    memchr::memchr_iter(b'\n', rest)
        .map(|newline| newline + 1)
        .find(|&line| {
            let line = &rest[line..];
            let lead = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
            let lead = lead.count();
            lead <= indent && line.get(lead) == Some(bracket)
        })
}

/// The number of bytes, if all are blanks.
pub(super) fn blanks(bytes: &[u8]) -> Option<usize> {
    bytes
        .iter()
        .all(|byte| matches!(byte, b' ' | b'\t'))
        .then_some(bytes.len())
}

pub(super) fn next_line(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(b'\n', &bytes[from..]).map(|at| from + at + 1)
}

/// The offset at which the value at the front violates the grammar; `None` if it is only
/// incomplete.
pub(super) fn violation(rest: &[u8]) -> Option<usize> {
    match Scanner::new(valid_prefix(rest)).value() {
        Err(Error {
            kind: ErrorKind::Expected(_),
            at,
        }) => Some(at),
        _ => None,
    }
}

/// The offset of an object near a violation that begins with the same member as the one at the
/// front: preferably the last one before the violation, because a missing quote shows only in the
/// next record.
pub(super) fn next_like(rest: &[u8], violation: usize) -> Option<usize> {
    let first = first_member(rest)?;
    let mut before = None;
    for at in memchr::memmem::find_iter(&rest[1..], first).map(|at| at + 1) {
        if rest[..at].trim_ascii_end().last() != Some(&b',') {
            continue;
        }
        if at > violation {
            return before.or(Some(at));
        }
        before = Some(at);
    }
    before
}

/// The offset of the record that is glued to a torn one: a writer stopped within the one, and
/// another writer began the other on the same line. The grammar is violated there, or a few bytes
/// off: behind the quote that ends a torn string, or at the start of a torn escape.
pub(super) fn glued(rest: &[u8]) -> Option<usize> {
    const OFF_MAX: usize = 6;
    let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
    let text = valid_prefix(line);
    let violation = match Scanner::new(text).value() {
        Err(Error {
            kind: ErrorKind::Incomplete,
            ..
        }) => Some(text.len()).filter(|&at| at < line.len()),
        Err(Error { at, .. }) => Some(at),
        Ok(_) => None,
    }?;
    let first = first_member(line)?;
    let near = violation.saturating_sub(OFF_MAX).max(1)..=violation + OFF_MAX;
    near.rev().find(|&at| {
        let other = line.get(at..).unwrap_or_default();
        let is_whole = || matches!(Boundary::default().feed(other), Edge::End(_));
        other.starts_with(first) && is_whole()
    })
}

/// An object from its opening bracket to the end of its first key.
fn first_member(object: &[u8]) -> Option<&[u8]> {
    let quote = memchr::memchr(b'"', object)?;
    let end = quote + 2 + memchr::memchr(b'"', &object[quote + 1..])?;
    object.get(..end)
}
