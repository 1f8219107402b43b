//! Composes an event from a format other than the API server's, member by member. What inspection
//! would find is recorded while writing, so the event's text is not read again.

use bytes::Bytes;

use super::super::json::{Findings, Raw, Scanner, ValueKind, push_string, push_written};
use super::inspect::{Inspection, MemberSpan, place_of};
use super::known::{MEMBERS, Member};
use super::{Event, EventContext, EventError, Notes, TRUNCATED};

/// How every event begins.
const HEAD: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1""#;
/// The value of its first member.
const KIND: &str = r#""Event""#;

/// The value of an annotation.
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    /// Plain text.
    Plain(&'a str),
    /// A JSON string as written; a value of another kind is left out.
    Json(Raw<'a>),
}

/// Whether a value's scan included its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// [`Findings::may_repeat_a_key`] is valid.
    Seen,
    /// Nothing is known about duplicate keys.
    NotSeen,
}

/// `objectRef`, with the members of `audit.k8s.io/v1.ObjectReference`; empty ones are left out, as
/// the API server does.
#[derive(Debug, Clone, Copy, Default)]
pub struct ObjectRef<'a> {
    pub resource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub api_group: &'a str,
    pub api_version: &'a str,
    pub resource_version: &'a str,
    pub subresource: &'a str,
}

/// Writes one event, its members in the order of the calls, each at most once.
#[derive(Debug)]
pub struct Composer {
    text: String,
    places: [MemberSpan; MEMBERS],
    findings: Findings,
    /// The verb is one whose request object must be checked for duplicate keys.
    is_patch: bool,
    /// An annotation marks the event as truncated.
    marked: bool,
}

impl Composer {
    /// An event with its kind and version only, and capacity for this many bytes.
    pub fn new(bytes: usize) -> Composer {
        let mut text = String::with_capacity(bytes.max(HEAD.len()));
        text.push_str(HEAD);
        Composer {
            text,
            places: HEAD_PLACES,
            findings: Findings::default(),
            is_patch: false,
            marked: false,
        }
    }

    /// `level`.
    pub fn level(&mut self, level: &'static str) {
        self.plain(Member::Level, level);
    }

    /// `auditID`.
    pub fn audit_id(&mut self, id: &str) {
        self.string(Member::AuditId, id);
    }

    /// `stage`.
    pub fn stage(&mut self, stage: &'static str) {
        self.plain(Member::Stage, stage);
    }

    /// `requestURI`.
    pub fn request_uri(&mut self, write: impl FnOnce(&mut String)) {
        self.member(Member::RequestUri, |out| push_written(out, write));
    }

    /// `verb`; call this before `request_object`.
    pub fn verb(&mut self, verb: &str) {
        // As for native events, a verb with unusual characters is not trusted to differ from
        // `patch`.
        let is_plain = verb.bytes().all(|byte| byte.is_ascii_alphanumeric());
        self.is_patch = verb == "patch" || !is_plain;
        self.string(Member::Verb, verb);
    }

    /// `user`; empty if there is no name.
    pub fn user(&mut self, name: Option<&str>, groups: &[&str]) {
        self.identity(Member::User, name, groups);
    }

    /// `impersonatedUser`.
    pub fn impersonated_user(&mut self, name: &str) {
        self.identity(Member::ImpersonatedUser, Some(name), &[]);
    }

    fn identity(&mut self, member: Member, name: Option<&str>, groups: &[&str]) {
        self.member(member, |out| {
            let Some(name) = name else {
                return out.push_str("{}");
            };
            out.push_str("{\"username\":");
            push_string(out, name);
            if !groups.is_empty() {
                out.push_str(",\"groups\":");
                push_strings(out, groups);
            }
            out.push('}');
        });
    }

    /// `sourceIPs`.
    pub fn source_ips(&mut self, addresses: &[&str]) {
        self.member(Member::SourceIps, |out| push_strings(out, addresses));
    }

    /// `userAgent`.
    pub fn user_agent(&mut self, agent: &str) {
        self.string(Member::UserAgent, agent);
    }

    /// `objectRef`.
    pub fn object_ref(&mut self, object: &ObjectRef<'_>) {
        self.member(Member::ObjectRef, |out| {
            out.push_str("{\"resource\":");
            push_string(out, object.resource);
            for (key, value) in [
                (",\"namespace\":", object.namespace),
                (",\"name\":", object.name),
                (",\"uid\":", object.uid),
                (",\"apiGroup\":", object.api_group),
                (",\"apiVersion\":", object.api_version),
                (",\"resourceVersion\":", object.resource_version),
                (",\"subresource\":", object.subresource),
            ] {
                if !value.is_empty() {
                    out.push_str(key);
                    push_string(out, value);
                }
            }
            out.push('}');
        });
    }

    /// `responseStatus`, a `metav1.Status` whose members must have their types. `found` covers the
    /// values in it that are not plain text.
    pub fn response_status(&mut self, found: Findings, write: impl FnOnce(&mut String)) {
        self.findings = self.findings.and(found.within());
        self.member(Member::ResponseStatus, write);
    }

    /// `requestObject`, made of scanned values with these findings.
    ///
    /// For the verb `patch`, whose object is logged as the client wrote it, duplicate keys must be
    /// known: the object is scanned again unless `keys` says that the findings include them.
    pub fn request_object(&mut self, found: Findings, keys: Keys, write: impl FnOnce(&mut String)) {
        self.object(Member::RequestObject, found, write);
        if self.is_patch && keys == Keys::NotSeen {
            let place = self.places[Member::RequestObject as usize];
            let written = self.text.get(place.value as usize..).unwrap_or_default();
            let keys = Scanner::new(written).value_and_keys();
            let keys = keys.map_or_else(|_| found, Raw::findings);
            self.findings = self.findings.and(keys);
        }
    }

    /// `responseObject`; as [`Composer::request_object`].
    pub fn response_object(&mut self, found: Findings, write: impl FnOnce(&mut String)) {
        self.object(Member::ResponseObject, found, write);
    }

    fn object(&mut self, member: Member, found: Findings, write: impl FnOnce(&mut String)) {
        self.findings = self.findings.and(found);
        self.member(member, write);
    }

    /// `requestReceivedTimestamp`, with six digits.
    pub fn request_received(&mut self, time: &str) {
        self.plain(Member::RequestReceivedTimestamp, time);
    }

    /// `stageTimestamp`, with six digits.
    pub fn stage_timestamp(&mut self, time: &str) {
        self.plain(Member::StageTimestamp, time);
    }

    /// `annotations`, each key once; no member where there are none.
    pub fn annotations<'a>(&mut self, all: impl Iterator<Item = (&'a str, Text<'a>)>) {
        let (mut marked, mut findings, mut is_first) = (false, self.findings, true);
        let before = self.text.len();
        self.member(Member::Annotations, |out| {
            all.for_each(|(key, value)| {
                if matches!(value, Text::Json(raw) if raw.kind() != ValueKind::String) {
                    return;
                }
                out.push(if is_first { '{' } else { ',' });
                is_first = false;
                push_string(out, key);
                out.push(':');
                match value {
                    Text::Plain(text) => push_string(out, text),
                    Text::Json(raw) => {
                        out.push_str(raw.text());
                        findings = findings.and(raw.findings());
                    }
                }
                marked |= key == TRUNCATED;
            });
            out.push('}');
        });
        if is_first {
            self.text.truncate(before);
            self.places[Member::Annotations as usize] = MemberSpan::default();
        }
        (self.marked, self.findings) = (marked, findings);
    }

    fn string(&mut self, name: Member, text: &str) {
        self.member(name, |out| push_string(out, text));
    }

    /// A string member whose text needs no escaping.
    fn plain(&mut self, name: Member, text: &str) {
        self.member(name, |out| {
            out.push('"');
            out.push_str(text);
            out.push('"');
        });
    }

    #[inline]
    fn member(&mut self, name: Member, write: impl FnOnce(&mut String)) {
        let text = &mut self.text;
        let from = text.len() + 1;
        text.push_str(name.led_by_comma());
        let value = text.len();
        write(text);
        let place = &mut self.places[name as usize];
        debug_assert_eq!(place.to, 0, "{} was written already", name.name());
        *place = MemberSpan {
            from: place_of(from),
            value: place_of(value),
            to: place_of(text.len()),
        };
    }

    /// Finishes the event.
    ///
    /// # Errors
    /// See [`EventError`].
    pub fn event(mut self, context: &EventContext<'_>) -> Result<Event, EventError> {
        self.text.push('}');
        // After a replacement the recorded findings are incomplete, so read the text again.
        if context.replaced {
            return super::event(&Bytes::from(self.text), context);
        }
        let seen = Inspection::of_composed(&self.text, self.places, self.findings);
        if !super::is_clean(&seen, context.options) {
            return super::event(&Bytes::from(self.text), context);
        }
        let mut notes = Notes::of(context);
        let changes = super::changes_of(&seen, None, context, &mut notes)?;
        let written = super::finish(&seen, self.marked, &changes, context, &mut notes)?;
        let text = match written {
            Some(text) => text,
            None => self.text,
        };
        Ok(Event {
            text: text.into(),
            notes,
        })
    }
}

/// Where in [`HEAD`] its members are.
const HEAD_PLACES: [MemberSpan; MEMBERS] = {
    let mut places = [MemberSpan {
        from: 0,
        value: 0,
        to: 0,
    }; MEMBERS];
    let kind = Member::Kind.led_by_comma().len() as u32;
    places[Member::Kind as usize] = MemberSpan {
        from: 1,
        value: kind,
        to: kind + KIND.len() as u32,
    };
    let from = kind + KIND.len() as u32 + 1;
    places[Member::ApiVersion as usize] = MemberSpan {
        from,
        value: from - 1 + Member::ApiVersion.led_by_comma().len() as u32,
        to: HEAD.len() as u32,
    };
    places
};

fn push_strings(out: &mut String, all: &[&str]) {
    out.push('[');
    for (at, text) in all.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_string(out, text);
    }
    out.push(']');
}
