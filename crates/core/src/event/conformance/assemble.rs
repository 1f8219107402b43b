//! Rewrites an event with some members changed; unchanged members keep their bytes, whitespace
//! included.

use std::borrow::Cow;

use super::super::json::{self, Raw, Scanner};
use super::inspect::Inspection;
use super::known::{MEMBERS, Member};

/// The changes to an event.
#[derive(Debug, Default)]
pub(super) struct EventChanges<'a> {
    gone: [bool; MEMBERS],
    /// Members with their new values as JSON, in the order in which to write them.
    set: Vec<(Member, String)>,
    /// Annotations to set; each key once.
    annotations: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> EventChanges<'a> {
    /// Removes the member.
    pub(super) fn remove(&mut self, name: Member) {
        self.gone[name as usize] = true;
    }

    /// Sets the member to this value, a JSON text.
    pub(super) fn set(&mut self, name: Member, value: impl Into<String>) {
        self.gone[name as usize] = true;
        self.set.retain(|(had, _)| *had != name);
        self.set.push((name, value.into()));
    }

    /// Sets the member to this string.
    pub(super) fn set_string(&mut self, name: Member, text: &str) {
        self.set(name, json_string(text));
    }

    /// Sets this annotation.
    pub(super) fn annotate(
        &mut self,
        key: impl Into<Cow<'a, str>>,
        value: impl Into<Cow<'a, str>>,
    ) {
        let key = key.into();
        self.annotations.retain(|(had, _)| *had != key);
        self.annotations.push((key, value.into()));
    }

    /// Whether nothing changes.
    pub(super) fn none(&self) -> bool {
        self.annotations.is_empty() && self.set.is_empty() && !self.gone.contains(&true)
    }

    /// Writes the event with the changes.
    pub(super) fn apply(&self, seen: &Inspection<'_>) -> String {
        let annotates = !self.annotations.is_empty();
        let mut gone: Vec<_> = Member::ALL
            .iter()
            .filter(|&&name| self.gone[name as usize] || (annotates && name == Member::Annotations))
            .filter_map(|&name| seen.place(name))
            .collect();
        gone.sort_unstable_by_key(|place| place.from);
        let json = seen.json;
        let new = self.set.iter().map(|(_, value)| value.len() + 32);
        let notes = self.annotations.iter().map(|(k, v)| k.len() + v.len() + 16);
        let room = json.len() + new.sum::<usize>() + notes.sum::<usize>() + 64;
        let mut out = String::with_capacity(room);
        out.push('{');
        let is_head = |name: Member| matches!(name, Member::Kind | Member::ApiVersion);
        self.push_set(&mut out, is_head);
        let (mut from, end) = seen.members;
        for place in &gone {
            push_members(
                &mut out,
                json.get(from..place.from as usize).unwrap_or_default(),
            );
            from = place.to as usize;
        }
        push_members(&mut out, json.get(from..end).unwrap_or_default());
        self.push_set(&mut out, |name| !is_head(name));
        if annotates {
            push_members(&mut out, "\"annotations\":{");
            self.push_annotations(&mut out, seen.value(Member::Annotations));
            out.push('}');
        }
        out.push('}');
        out
    }

    fn push_set(&self, out: &mut String, wanted: impl Fn(Member) -> bool) {
        for (name, value) in self.set.iter().filter(|(name, _)| wanted(*name)) {
            push_members(out, &format!("\"{}\":", name.name()));
            out.push_str(value);
        }
    }

    /// Keeps existing annotations as written, except those that are set.
    fn push_annotations(&self, out: &mut String, had: Option<Raw<'_>>) {
        let had = had.map_or("{}", Raw::text);
        let mut scanner = Scanner::new(had);
        if scanner.open_object().is_ok() {
            while let Ok(Some((from, key))) = scanner.member()
                && scanner.value().is_ok()
            {
                if self.annotations.iter().all(|(name, _)| *name != key) {
                    push_members(out, had.get(from..scanner.at()).unwrap_or_default());
                }
            }
        }
        for (key, value) in &self.annotations {
            if !out.ends_with('{') {
                out.push(',');
            }
            json::push_string(out, key);
            out.push(':');
            json::push_string(out, value);
        }
    }
}

/// The text as a JSON string.
pub(super) fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    json::push_string(&mut out, text);
    out
}

/// Appends zero or more members to an object, without the whitespace and commas around them.
fn push_members(out: &mut String, text: &str) {
    let text = text.trim_matches([',', ' ', '\n', '\r', '\t']);
    if text.is_empty() {
        return;
    }
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push_str(text);
}
