//! Converts the bodies `protoPayload.request` and `.response` to `requestObject` and
//! `responseObject`.
//!
//! Both are `google.protobuf.Struct`s: the Kubernetes object and an `@type` that Google added.
//! Their text is copied, except that `@type` is removed, a missing `kind` and `apiVersion` are
//! derived from it, and integers that a double turned into fractions or exponents are written as
//! integers again (receivers compare the raw text, of `runAsUser` for example).

use std::borrow::Cow;
use std::ops::Range;

use audit_bridge_core::event::conformance::Keys;
use audit_bridge_core::event::json::{
    self, Error, Findings, Raw, Scanner, ValueKind, integral, push_string,
};

use super::names::{is_version, short_group};
use crate::wire;

/// The `@type` of a patch; the other members are the patch itself.
const PATCH: &str = "k8s.io/Patch";

/// Which body of the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Its metadata names the requested object.
    Request,
    /// Its metadata is not needed, and skipped.
    Response,
}

/// A body, and those of its members that tell something of the request.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    /// The text of the whole object.
    pub(crate) text: &'a str,
    /// `@type`.
    pub(crate) type_url: Option<Cow<'a, str>>,
    /// The ranges of the `@type` members in the text, each with the comma before it.
    cuts: Vec<Range<usize>>,
    /// Findings of the scan over its members.
    findings: Findings,
    /// Whether the findings cover keys.
    keys: Keys,
    /// Number of members besides `@type`.
    others: usize,
    /// The list that may be a patch of type `application/json-patch+json`, by its name.
    list: Option<Raw<'a>>,
    pub(crate) kind: Option<Raw<'a>>,
    pub(crate) api_version: Option<Raw<'a>>,
    /// `metadata.name`, `.uid`, `.resourceVersion`.
    pub(crate) name: Option<Raw<'a>>,
    pub(crate) uid: Option<Raw<'a>>,
    pub(crate) resource_version: Option<Raw<'a>>,
    /// The members of a `metav1.Status`.
    pub(crate) status: Option<Raw<'a>>,
    pub(crate) message: Option<Raw<'a>>,
    pub(crate) reason: Option<Raw<'a>>,
    pub(crate) details: Option<Raw<'a>>,
    pub(crate) code: Option<Raw<'a>>,
    /// Of `metav1.DeleteOptions`.
    pub(crate) orphan_dependents: Option<Raw<'a>>,
}

impl<'a> Object<'a> {
    fn new(keys: Keys) -> Object<'a> {
        Object {
            text: "{}",
            type_url: None,
            cuts: Vec::new(),
            // What `write` adds nests no deeper.
            findings: Findings::default().within(),
            keys,
            others: 0,
            list: None,
            kind: None,
            api_version: None,
            name: None,
            uid: None,
            resource_version: None,
            status: None,
            message: None,
            reason: None,
            details: None,
            code: None,
            orphan_dependents: None,
        }
    }

    /// Reads the next value of `s`, which scans `text`, and checks its keys if `keys` says so.
    /// `None` if it is no object.
    pub(crate) fn read(
        s: &mut Scanner<'a>,
        text: &'a str,
        side: Side,
        keys: Keys,
    ) -> Result<Option<Object<'a>>, Error> {
        s.peek();
        let start = s.at();
        let mut object = Object::new(keys);
        let mut names = Names::default();
        let mut from = start + 1;
        let is_object = wire::object(s, |s, key| {
            let plain = match key {
                Cow::Borrowed(plain) => Some(plain),
                Cow::Owned(_) => None,
            };
            if object.keys == Keys::Seen && !names.are_without(plain) {
                object.findings = object.findings.with_repeated_key();
            }
            match key.as_ref() {
                "metadata" if side == Side::Request => object.read_metadata(s)?,
                "@type" => {
                    let value = s.value()?;
                    object.type_url = value.as_str();
                    object.cuts.push(from - start..s.at() - start);
                    from = s.at();
                    return Ok(());
                }
                key => {
                    let value = object.step_over(s)?;
                    object.findings = object.findings.and(value.findings().within());
                    object.member(key, value);
                }
            }
            object.others += 1;
            from = s.at();
            Ok(())
        })?;
        object.text = text.get(start..s.at()).unwrap_or("{}");
        Ok(is_object.then_some(object))
    }

    /// Parses a text that is one object.
    pub(crate) fn parse(text: &'a str) -> Option<Object<'a>> {
        let mut scanner = Scanner::new(text);
        Object::read(&mut scanner, text, Side::Request, Keys::NotSeen).ok()?
    }

    fn step_over(&self, s: &mut Scanner<'a>) -> Result<Raw<'a>, Error> {
        match self.keys {
            Keys::Seen => s.value_and_keys(),
            Keys::NotSeen => s.value(),
        }
    }

    /// Findings of the scan over the object.
    pub(crate) fn findings(&self) -> Findings {
        self.findings
    }

    /// Whether [`Object::findings`] covers its keys.
    pub(crate) fn keys(&self) -> Keys {
        self.keys
    }

    pub(crate) fn raw(&self) -> Option<Raw<'a>> {
        Raw::parse(self.text).ok()
    }

    fn member(&mut self, key: &str, value: Raw<'a>) {
        let slot = match key {
            "kind" => &mut self.kind,
            "apiVersion" => &mut self.api_version,
            "status" => &mut self.status,
            "message" => &mut self.message,
            "reason" => &mut self.reason,
            "details" => &mut self.details,
            "code" => &mut self.code,
            "orphanDependents" => &mut self.orphan_dependents,
            "value" | "items" | "patch" if value.kind() == ValueKind::Array => &mut self.list,
            _ => return,
        };
        *slot = Some(value);
    }

    fn read_metadata(&mut self, s: &mut Scanner<'a>) -> Result<(), Error> {
        (self.name, self.uid, self.resource_version) = (None, None, None);
        if s.peek() != Some(b'{') {
            self.findings = self.findings.and(self.step_over(s)?.findings().within());
            return Ok(());
        }
        let mut names = Names::default();
        wire::object(s, |s, key| {
            let plain = match key {
                Cow::Borrowed(plain) => Some(plain),
                Cow::Owned(_) => None,
            };
            if self.keys == Keys::Seen && !names.are_without(plain) {
                self.findings = self.findings.with_repeated_key();
            }
            let value = self.step_over(s)?;
            self.findings = self.findings.and(value.findings().within().within());
            match key.as_ref() {
                "name" => self.name = Some(value),
                "uid" => self.uid = Some(value),
                "resourceVersion" => self.resource_version = Some(value),
                _ => {}
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Whether it is a `metav1.Status`.
    pub(crate) fn is_status(&self) -> bool {
        self.kind.is_some_and(|kind| kind.text() == "\"Status\"")
            || self
                .type_url
                .as_deref()
                .is_some_and(|url| url.ends_with("/v1.Status"))
    }

    /// Writes the Kubernetes object.
    pub(crate) fn write(&self, out: &mut String) {
        if self.type_url.as_deref() == Some(PATCH) {
            // A JSON patch is a list, which a Struct cannot be.
            match self.list {
                Some(list) if self.others == 1 => write_value(out, list),
                _ => self.write_members(out, &[]),
            }
            return;
        }
        let typed = self.type_url.as_deref().and_then(Typed::parse);
        let Some(typed) = typed else {
            return self.write_members(out, &[]);
        };
        let kind = Some(("kind", Cow::Borrowed(typed.kind))).filter(|_| self.kind.is_none());
        let version = typed.api_version().map(|version| ("apiVersion", version));
        let version = version.filter(|_| self.api_version.is_none());
        match (kind, version) {
            (Some(kind), Some(version)) => self.write_members(out, &[kind, version]),
            (Some(member), None) | (None, Some(member)) => self.write_members(out, &[member]),
            (None, None) => self.write_members(out, &[]),
        }
    }

    fn write_members(&self, out: &mut String, added: &[(&str, Cow<'_, str>)]) {
        out.push('{');
        let start = out.len();
        for (key, value) in added {
            if out.len() > start {
                out.push(',');
            }
            push_string(out, key);
            out.push(':');
            push_string(out, value);
        }
        let comma = out.len() > start;
        let rewrite = self.findings.has_fractional() || has_lines(self.text);
        // The text between the cuts, without the braces; each piece but the first starts with a
        // comma.
        let mut from = 1;
        let mut first = true;
        let end = self.text.len().saturating_sub(1);
        let ends = self.cuts.iter().map(|cut| (cut.start, cut.end));
        for (stop, next) in ends.chain([(end, end)]) {
            let mut piece = self.text.get(from..stop).unwrap_or_default();
            from = next;
            if first {
                piece = piece.trim_ascii_start();
                piece = piece.strip_prefix(',').unwrap_or(piece);
                if piece.trim_ascii().is_empty() {
                    continue;
                }
                first = false;
                if comma {
                    out.push(',');
                }
            }
            if rewrite {
                normalise(out, piece);
            } else {
                out.push_str(piece);
            }
        }
        out.push('}');
    }
}

/// The keys seen so far of the object that is being read.
#[derive(Default)]
struct Names<'a> {
    all: [&'a str; NAMES_MAX],
    count: usize,
}

/// Number of keys to remember; an object with more may have duplicates.
const NAMES_MAX: usize = 16;

impl<'a> Names<'a> {
    /// Whether this key is new; never wrong if true. `None` is a key with escapes, which is not
    /// compared.
    fn are_without(&mut self, key: Option<&'a str>) -> bool {
        let Some(key) = key else {
            return false;
        };
        let known = self.all.get(..self.count).unwrap_or_default();
        if known.contains(&key) {
            return false;
        }
        let Some(slot) = self.all.get_mut(self.count) else {
            return false;
        };
        *slot = key;
        self.count += 1;
        true
    }
}

/// An `@type` such as `apps.k8s.io/v1.Deployment`.
struct Typed<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

impl Typed<'_> {
    fn parse(type_url: &str) -> Option<Typed<'_>> {
        let (group, rest) = type_url.rsplit_once('/')?;
        let (version, kind) = rest.split_once('.')?;
        let whole = !group.is_empty() && !kind.is_empty();
        whole.then_some(Typed {
            group,
            version,
            kind,
        })
    }

    /// `None` for the internal version, which no object has.
    fn api_version(&self) -> Option<Cow<'static, str>> {
        if !is_version(self.version) {
            return None;
        }
        Some(match short_group(self.group) {
            "" => self.version.to_owned().into(),
            group => format!("{group}/{}", self.version).into(),
        })
    }
}

/// Whether the text spans several lines. Events are written on one line.
fn has_lines(text: &str) -> bool {
    memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_some()
}

/// Writes a value, with numbers as the API server writes them.
pub(crate) fn write_value(out: &mut String, value: Raw<'_>) {
    if value.has_fractional() || has_lines(value.text()) {
        normalise(out, value.text());
    } else {
        out.push_str(value.text());
    }
}

/// Copies valid JSON, or a part of it that starts and ends outside a string, without whitespace
/// between tokens and with integers written as such.
fn normalise(out: &mut String, text: &str) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let len = match byte {
            b'"' => json::closing_quote(bytes, at + 1).map_or(bytes.len(), |end| end + 1) - at,
            b'-' | b'0'..=b'9' => bytes
                .iter()
                .skip(at)
                .take_while(|b| number_byte(**b))
                .count(),
            _ => 1,
        };
        let token = text.get(at..at + len).unwrap_or_default();
        match byte {
            b'-' | b'0'..=b'9' => out.push_str(&integral(token)),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => out.push_str(token),
        }
        at += len.max(1);
    }
}

fn number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

#[cfg(test)]
mod tests;
