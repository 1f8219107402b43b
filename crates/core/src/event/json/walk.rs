//! A walk through a whole text that reports every token: for repairs, where speed matters less than
//! in [`super::Scanner::value`].

use super::skip::{Containers, colon_end, fail, literal_end, number_end, space_end, string_end};
use super::{Error, ErrorKind, Findings};

/// Receives the tokens of a text in order; positions are byte offsets.
pub(crate) trait Visit {
    /// A container begins with its bracket at `at`.
    fn open(&mut self, at: usize, is_object: bool);
    /// The innermost container ends before `end`.
    fn close(&mut self, end: usize);
    /// A key of the innermost object, quotes included.
    fn key(&mut self, from: usize, to: usize);
    /// A string, number, boolean or null.
    fn scalar(&mut self, from: usize, to: usize);
}

/// Walks through one JSON value and returns its end.
///
/// # Errors
/// The first thing that makes it invalid; tokens before that were reported.
pub(crate) fn walk(text: &str, visit: &mut impl Visit) -> Result<usize, Error> {
    let bytes = text.as_bytes();
    let mut containers = Containers::default();
    let mut at = 0;
    'value: loop {
        at = space_end(bytes, at);
        match bytes.get(at) {
            Some(bracket @ (b'{' | b'[')) => {
                let is_object = *bracket == b'{';
                visit.open(at, is_object);
                containers.push(is_object);
                at = space_end(bytes, at + 1);
                // In ASCII both closing brackets are two behind their opening ones.
                if bytes.get(at) != Some(&(bracket + 2)) {
                    if is_object {
                        at = key(bytes, at, visit)?;
                    }
                    continue 'value;
                }
            }
            Some(_) => {
                let end = scalar_end(bytes, at)?;
                visit.scalar(at, end);
                at = end;
            }
            None => return fail(at, ErrorKind::Incomplete),
        }
        while containers.level > 0 {
            at = space_end(bytes, at);
            let in_object = containers.in_object();
            match bytes.get(at) {
                Some(b',') => {
                    at += 1;
                    if in_object {
                        at = key(bytes, space_end(bytes, at), visit)?;
                    }
                    continue 'value;
                }
                Some(&byte) if byte == if in_object { b'}' } else { b']' } => {
                    at += 1;
                    containers.pop();
                    visit.close(at);
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

/// The end of the key at `at` with its colon.
fn key(bytes: &[u8], at: usize, visit: &mut impl Visit) -> Result<usize, Error> {
    match bytes.get(at) {
        Some(b'"') => {
            let end = string_end(bytes, at + 1, &mut Findings::default())?;
            visit.key(at, end);
            colon_end(bytes, end)
        }
        Some(_) => fail(at, ErrorKind::Expected("a key")),
        None => fail(at, ErrorKind::Incomplete),
    }
}

fn scalar_end(bytes: &[u8], at: usize) -> Result<usize, Error> {
    match bytes.get(at) {
        Some(b'"') => string_end(bytes, at + 1, &mut Findings::default()),
        Some(b'-' | b'0'..=b'9') => number_end(bytes, at, &mut false),
        Some(b't') => literal_end(bytes, at, "true"),
        Some(b'f') => literal_end(bytes, at, "false"),
        Some(b'n') => literal_end(bytes, at, "null"),
        _ => fail(at, ErrorKind::Expected("a value")),
    }
}
