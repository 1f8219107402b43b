//! One pass over an event's text finds its members and whether anything is wrong with it.
//!
//! Nearly every event is as an API server wrote it. So this pass only looks for signs (a scalar
//! that is no string, a key whose fingerprint occurred before); a second, slower pass finds out
//! what they mean. A sign may be false, but its absence is reliable.

use std::borrow::Cow;
use std::collections::HashSet;

use super::super::json::{self, ErrorKind, Findings, Raw, Scanner, ValueKind};
use super::super::time;
use super::known::{self, MEMBERS, Member};
use super::{repair, shape};

/// A member's offsets in the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MemberSpan {
    /// The opening quote of the key.
    pub(super) from: u32,
    pub(super) value: u32,
    /// Behind the value; 0 when the event has no such member.
    pub(super) to: u32,
}

/// The result of one pass. Of duplicate members it knows the last, as Go's decoder does.
#[derive(Debug)]
pub(super) struct Inspection<'a> {
    /// The text, without space behind it if it is whole.
    pub(super) json: &'a str,
    places: [MemberSpan; MEMBERS],
    /// The span of all members, with whitespace and commas between them.
    pub(super) members: (usize, usize),
    /// Combined findings of all values that were scanned by the general scanner.
    pub(super) findings: Findings,
    /// A known member may have a wrong type.
    pub(super) odd_types: bool,
    /// A known member is duplicate, or an unknown one may be.
    repeats: bool,
    /// Both times are present and well-formed.
    pub(super) times_are_good: bool,
}

impl<'a> Inspection<'a> {
    /// Reads an event's text. On an error, returns what was found before it.
    pub(super) fn read(json: &'a str) -> (Inspection<'a>, Result<(), json::Error>) {
        let mut seen = Inspection {
            json,
            places: [MemberSpan::default(); MEMBERS],
            members: (0, 0),
            findings: Findings::default(),
            odd_types: false,
            repeats: false,
            times_are_good: false,
        };
        let end = seen.walk();
        if end.is_ok() {
            seen.json = json.trim_ascii_end();
        }
        (seen, end)
    }

    /// The result for an event composed here, with every member once and of its type, without
    /// reading the text. (A debug build reads it and compares.)
    pub(super) fn of_composed(
        json: &'a str,
        places: [MemberSpan; MEMBERS],
        findings: Findings,
    ) -> Inspection<'a> {
        let is_there = |name: Member| places[name as usize].to != 0;
        let times = [Member::RequestReceivedTimestamp, Member::StageTimestamp];
        let seen = Inspection {
            json,
            places,
            members: (1, json.len().saturating_sub(1)),
            findings,
            odd_types: false,
            repeats: false,
            times_are_good: times.into_iter().all(is_there),
        };
        debug_assert!(seen.is_as_read(), "not what was written: {json}");
        seen
    }

    /// Whether reading the text finds no more problems than recorded.
    fn is_as_read(&self) -> bool {
        let (read, end) = Inspection::read(self.json);
        end.is_ok()
            && read.places == self.places
            && read.members == self.members
            && !read.odd_types
            && [Member::RequestReceivedTimestamp, Member::StageTimestamp]
                .iter()
                .all(|&name| read.text(name).is_none_or(is_time))
            && read.depth() <= self.depth()
            && (self.findings.has_lone_surrogate() || !read.findings.has_lone_surrogate())
            // A possible duplicate key is only a guess if a key is escaped.
            && (self.may_repeat_a_key()
                || !read.may_repeat_a_key()
                || !repair::repairs(self.json, usize::MAX).repeated_key)
    }

    fn walk(&mut self) -> Result<(), json::Error> {
        let json = self.json;
        let mut scanner = Scanner::new(json);
        let mut others: HashSet<&str> = HashSet::new();
        scanner.open_object()?;
        self.members = (scanner.at(), scanner.at());
        while let Some((from, key)) = scanner.raw_member()? {
            let name = Member::of(key).or_else(|| {
                // An escaped key may spell the same name as another.
                let spelled = memchr::memchr(b'\\', key.as_bytes()).is_some();
                self.repeats |= spelled;
                let decoded = spelled.then(|| scanner.decoded_key(from).ok()).flatten()?;
                Member::of(&decoded)
            });
            scanner.peek();
            let start = scanner.at();
            let as_written = name.and_then(|name| shape::end_of(json.as_bytes(), start, name));
            let is_number = match as_written {
                Some(end) => {
                    scanner.resume(end);
                    false
                }
                None => self.look_at(&mut scanner, name)?,
            };
            let to = scanner.at();
            // A number at the very end may have lost digits.
            if to == json.len() && is_number {
                return Err(json::Error {
                    at: to,
                    kind: ErrorKind::Incomplete,
                });
            }
            self.members.1 = to;
            match name {
                Some(name) => {
                    let place = &mut self.places[name as usize];
                    self.repeats |= place.to != 0;
                    *place = MemberSpan {
                        from: place_of(from),
                        value: place_of(start),
                        to: place_of(to),
                    };
                }
                None => {
                    self.repeats |= !others.insert(key);
                }
            }
        }
        scanner.end()
    }

    /// Scans a value that is not in an API server's usual form, or is an object of any shape.
    /// Returns whether it is a number.
    #[inline(never)]
    fn look_at(
        &mut self,
        scanner: &mut Scanner<'a>,
        name: Option<Member>,
    ) -> Result<bool, json::Error> {
        // Only the body of a patch is logged as the client wrote it; the API server encodes the
        // objects of other requests itself. Checking their keys too would cost a quarter of the
        // time for an event with both objects.
        let value = match name {
            Some(Member::ResponseObject) => scanner.value()?,
            Some(Member::RequestObject) if self.is_encoded() => scanner.value()?,
            _ => scanner.value_and_keys()?,
        };
        self.findings = self.findings.and(value.findings());
        self.odd_types |= name.is_some_and(|name| !known::is_typed(value, name.kind()));
        Ok(value.kind() == ValueKind::Number)
    }

    /// Whether the verb implies that the API server encoded the body itself.
    fn is_encoded(&self) -> bool {
        matches!(self.text(Member::Verb), Some(verb) if verb != "\"patch\"" && !verb.contains('\\'))
    }

    /// Every member, known or not, in text order: its key as written with quotes, its name, its
    /// value.
    pub(super) fn members_as_written(
        &self,
    ) -> impl Iterator<Item = (&'a str, Cow<'a, str>, Raw<'a>)> {
        let json = self.json;
        let mut scanner = Scanner::new(json);
        let opened = scanner.open_object().is_ok();
        std::iter::from_fn(move || {
            let (from, key) = scanner.raw_member().ok().flatten().filter(|_| opened)?;
            let name = scanner.decoded_key(from).ok()?;
            let key = json.get(from..from + key.len() + 2)?;
            Some((key, name, scanner.value().ok()?))
        })
    }

    /// The offsets of this member.
    pub(super) fn place(&self, name: Member) -> Option<MemberSpan> {
        let place = self.places[name as usize];
        (place.to != 0).then_some(place)
    }

    /// The JSON text of this member's value.
    pub(super) fn text(&self, name: Member) -> Option<&'a str> {
        let place = self.place(name)?;
        self.json.get(place.value as usize..place.to as usize)
    }

    /// This member's value.
    pub(super) fn value(&self, name: Member) -> Option<Raw<'a>> {
        Raw::parse(self.text(name)?).ok()
    }

    /// The member's decoded string.
    pub(super) fn string(&self, name: Member) -> Option<String> {
        self.value(name)?.as_str().map(Cow::into_owned)
    }

    /// Whether the text itself says that it is an audit event.
    pub(super) fn claims(&self) -> bool {
        self.place(Member::AuditId).is_some() || self.text(Member::Kind) == Some("\"Event\"")
    }

    /// The nesting of the event by itself; see [`Findings::depth`].
    pub(super) fn depth(&self) -> usize {
        // Values in the usual form are no deeper than `user.extra` and its lists.
        self.findings.depth().max(4) + 1
    }

    /// Whether some key may be duplicate, at any depth that was scanned.
    pub(super) fn may_repeat_a_key(&self) -> bool {
        self.repeats || self.findings.may_repeat_a_key()
    }
}

pub(super) fn place_of(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Whether the value is a UTC time written like `metav1.MicroTime`; a quick check.
pub(super) fn is_micro_time(text: &str) -> bool {
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .is_some_and(time::is_micros)
}

/// The same, checked against the calendar.
fn is_time(text: &str) -> bool {
    let text = text.trim_matches('"');
    time::parse(text).is_some_and(|read| time::micros(read) == text)
}
