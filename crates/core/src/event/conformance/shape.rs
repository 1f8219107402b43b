//! Fast parsers for the members outside the objects in the form that an API server writes: each
//! validates a value and checks types and duplicate keys in one step.
//!
//! Each function takes the start of a value and returns its end, or `None` if the value has any
//! other form: an escape, whitespace, another order of keys. Such a value may still be valid; the
//! general scanner then reads it.

use super::super::json::plain_string_end;
use super::known::Member;

/// The end of the value at `at`, if it is written as an API server writes this member.
#[inline(always)]
pub(super) fn end_of(bytes: &[u8], at: usize, name: Member) -> Option<usize> {
    match name {
        Member::Kind
        | Member::ApiVersion
        | Member::Level
        | Member::AuditId
        | Member::Stage
        | Member::RequestUri
        | Member::Verb
        | Member::UserAgent
        | Member::RequestReceivedTimestamp
        | Member::StageTimestamp => string_end(bytes, at),
        Member::User | Member::ImpersonatedUser => user_end(bytes, at),
        Member::SourceIps => strings_end(bytes, at),
        Member::ObjectRef => reference_end(bytes, at),
        Member::ResponseStatus => status_end(bytes, at),
        Member::Annotations => map_end(bytes, at, string_end),
        Member::AuthenticationMetadata
        | Member::RequestObject
        | Member::ResponseObject
        | Member::Metadata
        | Member::Timestamp => None,
    }
}

/// The offset behind `text`, if `text` is at `at`.
#[inline(always)]
fn behind(bytes: &[u8], at: usize, text: &[u8]) -> Option<usize> {
    bytes
        .get(at..)
        .is_some_and(|rest| rest.starts_with(text))
        .then_some(at + text.len())
}

/// A string without escapes.
#[inline(always)]
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at) {
        Some(b'"') => plain_string_end(bytes, at + 1),
        _ => None,
    }
}

/// A non-empty list of such strings.
#[inline(always)]
fn strings_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = behind(bytes, at, b"[")?;
    loop {
        at = string_end(bytes, at)?;
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b']') => return Some(at + 1),
            _ => return None,
        }
    }
}

/// A map whose keys ascend, as Go writes it, so that none is duplicate.
#[inline(always)]
fn map_end(
    bytes: &[u8],
    at: usize,
    value_end: impl Fn(&[u8], usize) -> Option<usize>,
) -> Option<usize> {
    let mut at = behind(bytes, at, b"{")?;
    let mut before: &[u8] = b"";
    loop {
        let end = string_end(bytes, at)?;
        let key = bytes.get(at..end)?;
        if key <= before {
            return None;
        }
        before = key;
        at = value_end(bytes, behind(bytes, end, b":")?)?;
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => return Some(at + 1),
            _ => return None,
        }
    }
}

/// `authentication/v1.UserInfo`.
#[inline(always)]
fn user_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = plain_string_end(bytes, behind(bytes, at, b"{\"username\":\"")?)?;
    if let Some(uid) = behind(bytes, at, b",\"uid\":\"") {
        at = plain_string_end(bytes, uid)?;
    }
    if let Some(groups) = behind(bytes, at, b",\"groups\":") {
        at = strings_end(bytes, groups)?;
    }
    if let Some(extra) = behind(bytes, at, b",\"extra\":") {
        at = map_end(bytes, extra, strings_end)?;
    }
    behind(bytes, at, b"}")
}

/// `audit/v1.ObjectReference`.
#[inline(always)]
fn reference_end(bytes: &[u8], at: usize) -> Option<usize> {
    const KEYS: [&[u8]; 8] = [
        b"\"resource\":\"",
        b"\"namespace\":\"",
        b"\"name\":\"",
        b"\"uid\":\"",
        b"\"apiGroup\":\"",
        b"\"apiVersion\":\"",
        b"\"resourceVersion\":\"",
        b"\"subresource\":\"",
    ];
    let mut at = behind(bytes, at, b"{")?;
    for key in KEYS {
        if let Some(value) = behind(bytes, at, key) {
            at = plain_string_end(bytes, value)?;
            match bytes.get(at) {
                Some(b',') => at += 1,
                Some(b'}') => return Some(at + 1),
                _ => return None,
            }
        }
    }
    None
}

/// The `metav1.Status` of a successful request.
#[inline(always)]
fn status_end(bytes: &[u8], at: usize) -> Option<usize> {
    let code = behind(bytes, at, b"{\"metadata\":{},\"code\":")?;
    let digits = bytes.get(code..code + 3)?;
    let is_code = digits.iter().all(u8::is_ascii_digit) && digits.first() != Some(&b'0');
    behind(bytes, code + 3, b"}").filter(|_| is_code)
}
