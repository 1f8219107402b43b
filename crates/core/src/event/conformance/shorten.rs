//! Shortens an event that is too large for receivers.
//!
//! In this order, each step only as far as needed: the members outside the objects are cut to a
//! budget each (lists to their first and last elements, the URI by `uri`); then `shrink` reduces
//! responseObject, then requestObject. Neither object is removed altogether. An annotation lists
//! what was shortened with its length and SHA-256, so that it can be told from others and found
//! again in the provider's log.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::super::json::{Raw, ValueKind};
use super::assemble::json_string;
use super::inspect::Inspection;
use super::known::Member;
use super::notes::{GivenUp, Notes};
use super::shrink::{Essential, ends_of_string, essential_bytes, shrink};
use super::{EventError, SHORTENED, TRUNCATED, uri};

/// The budget of each member outside the objects when an event is too large.
const MEMBER_BYTES_MAX: usize = 8 << 10;
/// The same for the URI.
const URI_BYTES_MAX: usize = 32 << 10;
/// The size of an event without its members and the list of shortened ones.
const AROUND: usize =
    "{},\"annotations\":{\"audit.k8s.io/truncated\":\"true\",\"audit-bridge/shortened\":\"\"}"
        .len();
/// The approximate size of the list's entry for one member.
const NOTE_BYTES: usize = 128;
/// What responseObject keeps before requestObject is shortened.
const RESPONSE_BYTES_MIN: usize = 2 << 10;

/// The parts of requestObject that detection rules read, which are the `ka.req.*` fields of Falco's
/// k8saudit plugin (`plugins/k8saudit/pkg/k8saudit/extract.go`), and those that name the object.
const REQUEST_OBJECT: Essential = Essential::Members(&[
    ("kind", Essential::All),
    ("apiVersion", Essential::All),
    ("metadata", NAMES),
    ("subjects", Essential::All),
    ("roleRef", Essential::All),
    ("rules", Essential::All),
    ("data", Essential::All),
    ("spec", SPEC),
]);

const NAMES: Essential = Essential::Members(&[
    ("name", Essential::All),
    ("generateName", Essential::All),
    ("namespace", Essential::All),
    ("uid", Essential::All),
]);

const SPEC: Essential = Essential::Members(&[
    ("hostPID", Essential::All),
    ("hostIPC", Essential::All),
    ("hostNetwork", Essential::All),
    ("type", Essential::All),
    ("ports", Essential::All),
    ("containers", Essential::Elements(&CONTAINER)),
    ("initContainers", Essential::Elements(&CONTAINER)),
    ("ephemeralContainers", Essential::Elements(&CONTAINER)),
    ("volumes", Essential::Elements(&VOLUME)),
    (
        "securityContext",
        Essential::Members(&[
            ("runAsUser", Essential::All),
            ("runAsGroup", Essential::All),
            ("fsGroup", Essential::All),
            ("supplementalGroups", Essential::All),
        ]),
    ),
    ("serviceAccountName", Essential::All),
    ("nodeName", Essential::All),
]);

const CONTAINER: Essential = Essential::Members(&[
    ("name", Essential::All),
    ("image", Essential::All),
    (
        "ports",
        Essential::Elements(&Essential::Members(&[("hostPort", Essential::All)])),
    ),
    (
        "securityContext",
        Essential::Members(&[
            ("privileged", Essential::All),
            ("allowPrivilegeEscalation", Essential::All),
            ("readOnlyRootFilesystem", Essential::All),
            ("runAsUser", Essential::All),
            ("runAsGroup", Essential::All),
            ("procMount", Essential::All),
            (
                "capabilities",
                Essential::Members(&[("add", Essential::All)]),
            ),
        ]),
    ),
]);

const VOLUME: Essential = Essential::Keys(&[
    ("name", Essential::All),
    ("hostPath", Essential::Members(&[("path", Essential::All)])),
    (
        "flexVolume",
        Essential::Members(&[("driver", Essential::All)]),
    ),
]);

const RESPONSE_OBJECT: Essential = Essential::Members(&[
    ("kind", Essential::All),
    ("apiVersion", Essential::All),
    ("metadata", NAMES),
]);

/// `extra` is shortened before groups, and other groups before Kubernetes' own (`system:`).
const USER_AND_GROUPS: Essential = Essential::Members(&[
    ("username", Essential::All),
    ("uid", Essential::All),
    ("groups", Essential::All),
]);
const USER_AND_SYSTEM_GROUPS: Essential = Essential::Members(&[
    ("username", Essential::All),
    ("uid", Essential::All),
    ("groups", Essential::SystemGroups),
]);

const STATUS: Essential = Essential::Members(&[
    ("metadata", Essential::All),
    ("status", Essential::All),
    ("reason", Essential::All),
    ("code", Essential::All),
]);

/// Annotations of the API server and its plugins, and our own.
const ANNOTATIONS: Essential = Essential::Prefixes(&[
    "authorization.k8s.io/",
    "authentication.k8s.io/",
    "pod-security.kubernetes.io/",
    "validation.policy.admission.k8s.io/",
    "audit-bridge/",
]);

/// Shortens an event that exceeds `max` bytes to at most `max`.
pub(super) fn shorten(json: &str, max: usize, notes: &mut Notes) -> Result<String, EventError> {
    let (seen, _) = Inspection::read(json);
    let mut least = json.len();
    for halvings in 0..6 {
        let mut shortened = Shortened::of(&seen, max, halvings);
        shortened.shrink_objects(max);
        let text = shortened.text();
        if text.len() <= max {
            for what in shortened.given_up {
                notes.give_up(what);
            }
            return Ok(text);
        }
        least = least.min(text.len());
    }
    Err(EventError::TooLarge { bytes: least, max })
}

/// The budgets of members outside the objects.
struct Budgets {
    member: usize,
    uri: usize,
    /// For a user with all of Kubernetes' own groups.
    system_groups: usize,
}

impl Budgets {
    fn of(max: usize, halvings: u32) -> Budgets {
        Budgets {
            member: MEMBER_BYTES_MAX.min(max / 25) >> halvings,
            uri: URI_BYTES_MAX.min(max / 7) >> halvings,
            system_groups: (max / 4) >> halvings,
        }
    }
}

/// One member of the event.
struct Part<'a> {
    member: Option<Member>,
    /// With quotes; a known member's key is spelled as Kubernetes does.
    key: Cow<'a, str>,
    value: Cow<'a, str>,
    /// The original value, if it was shortened.
    before: Option<&'a str>,
}

struct Shortened<'a> {
    parts: Vec<Part<'a>>,
    given_up: Vec<GivenUp>,
    /// How many members unknown to Kubernetes were dropped.
    others: usize,
}

impl<'a> Shortened<'a> {
    /// The event's members, those outside the objects shortened to their budgets.
    fn of(seen: &Inspection<'a>, max: usize, halvings: u32) -> Shortened<'a> {
        let budgets = Budgets::of(max, halvings);
        let budget = budgets.member;
        let mut shortened = Shortened {
            parts: Vec::new(),
            given_up: Vec::new(),
            others: 0,
        };
        let mut others_left = 2 * budget;
        for (key, name, value) in seen.members_as_written() {
            let member = Member::of(&name);
            if member.is_none() {
                let bytes = key.len() + value.text().len().min(budget) + 2;
                match others_left.checked_sub(bytes) {
                    Some(left) => others_left = left,
                    None => {
                        shortened.others += 1;
                        continue;
                    }
                }
            }
            let value_text = match member {
                Some(Member::RequestObject | Member::ResponseObject) => None,
                member => shortened_member(member, value, &budgets),
            };
            let key = match (member, name) {
                // The key was written with an escape.
                (Some(member), Cow::Owned(_)) => Cow::Owned(json_string(member.name())),
                _ => Cow::Borrowed(key),
            };
            shortened.parts.push(Part {
                member,
                key,
                before: value_text.is_some().then(|| value.text()),
                value: value_text.map_or(Cow::Borrowed(value.text()), Cow::Owned),
            });
        }
        let is_shortened = shortened.parts.iter().any(|part| part.before.is_some());
        if is_shortened || shortened.others > 0 {
            shortened.given_up.push(GivenUp::Identity);
        }
        shortened
    }

    fn shrink_objects(&mut self, max: usize) {
        self.shrink_object(
            Member::ResponseObject,
            GivenUp::ResponseObject,
            RESPONSE_BYTES_MIN.min(max / 25),
            &RESPONSE_OBJECT,
            max,
        );
        self.shrink_object(
            Member::RequestObject,
            GivenUp::RequestObject,
            2,
            &REQUEST_OBJECT,
            max,
        );
    }

    /// Shortens an object by the event's excess, but leaves at least `least` bytes.
    fn shrink_object(
        &mut self,
        name: Member,
        what: GivenUp,
        least: usize,
        essential: &'static Essential,
        max: usize,
    ) {
        let bytes = self.bytes() + self.note().len();
        let Some(part) = self.parts.iter_mut().find(|part| part.member == Some(name)) else {
            return;
        };
        let Some(excess) = bytes.checked_sub(max).filter(|excess| *excess > 0) else {
            return;
        };
        let excess = excess + NOTE_BYTES;
        let Part {
            value: Cow::Borrowed(text),
            ..
        } = part
        else {
            return;
        };
        let text = *text;
        let Ok(raw) = Raw::parse(text) else { return };
        let bytes_max = text.len().saturating_sub(excess).max(least);
        if text.len() <= bytes_max {
            return;
        }
        part.before = Some(text);
        part.value = Cow::Owned(shrink(raw, bytes_max, Some(essential)));
        self.given_up.push(what);
    }

    /// The event's current size, without the list of shortened members.
    fn bytes(&self) -> usize {
        let parts = self
            .parts
            .iter()
            .map(|part| part.key.len() + part.value.len() + 2);
        parts.sum::<usize>() + AROUND
    }

    /// The list of shortened members for the annotation: `requestURI 262144 bytes sha256:…`.
    fn note(&self) -> String {
        let mut out = String::new();
        for part in &self.parts {
            let Some(before) = part.before else { continue };
            let comma = if out.is_empty() { "" } else { ", " };
            let name = part.member.map_or("another member", Member::name);
            let digest = hex::encode(Sha256::digest(before.as_bytes()));
            let bytes = before.len();
            out.push_str(&format!("{comma}{name} {bytes} bytes sha256:{digest}"));
        }
        if self.others > 0 {
            let comma = if out.is_empty() { "" } else { ", " };
            out.push_str(&format!("{comma}{} unknown members left out", self.others));
        }
        out
    }

    fn text(&self) -> String {
        let note = self.note();
        let mut out = String::with_capacity(self.bytes() + note.len() + 256);
        let mut annotated = false;
        for part in &self.parts {
            out.push(if out.is_empty() { '{' } else { ',' });
            out.push_str(&part.key);
            out.push(':');
            if part.member == Some(Member::Annotations) {
                annotated = true;
                push_annotations(&mut out, &part.value, &note);
            } else {
                out.push_str(&part.value);
            }
        }
        if !annotated {
            out.push_str(",\"annotations\":");
            push_annotations(&mut out, "{}", &note);
        }
        out.push('}');
        out
    }
}

/// Writes the annotations with the two about the shortening.
fn push_annotations(out: &mut String, had: &str, note: &str) {
    let new = [(TRUNCATED, "true"), (SHORTENED, note)];
    let had = Raw::parse(had).ok().and_then(Raw::members);
    out.push('{');
    for (key, value) in had.into_iter().flatten() {
        if new.iter().all(|(name, _)| key != *name) {
            out.push_str(&json_string(&key));
            out.push(':');
            out.push_str(value.text());
            out.push(',');
        }
    }
    for (at, (key, value)) in new.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        out.push_str(&format!(
            "{comma}{}:{}",
            json_string(key),
            json_string(value)
        ));
    }
    out.push('}');
}

/// A URI as a JSON string of at most `budget` bytes.
fn shortened_uri(text: &str, budget: usize) -> String {
    let mut room = budget.saturating_sub(2);
    // Escaping (of a quote, a control character) may make it longer again.
    for _ in 0..4 {
        let uri = json_string(&uri::shorten(text, room));
        if uri.len() <= budget {
            return uri;
        }
        room = room * budget / (uri.len() + 1);
    }
    let uri = json_string(&uri::shorten(text, room));
    let inner = uri.get(1..uri.len() - 1).unwrap_or_default();
    ends_of_string(inner, budget)
}

/// Shortens a member outside the objects to its budget; `None` when it fits.
fn shortened_member(member: Option<Member>, value: Raw<'_>, budgets: &Budgets) -> Option<String> {
    let mut budget = match member {
        Some(Member::RequestUri) => budgets.uri,
        _ => budgets.member,
    };
    let user_budget = budgets.system_groups;
    if value.text().len() <= budget {
        return None;
    }
    let essential: Option<&'static Essential> = match member {
        Some(Member::RequestUri) if value.kind() == ValueKind::String => {
            let text = value.as_str()?;
            return Some(shortened_uri(&text, budget));
        }
        Some(Member::User | Member::ImpersonatedUser) => {
            let groups = value.get("groups");
            let small = groups.is_none_or(|groups| groups.text().len() <= budget / 2);
            Some(match small {
                true => &USER_AND_GROUPS,
                false => {
                    // Impersonating many groups must not hide the group that matters.
                    let least = essential_bytes(value, &USER_AND_SYSTEM_GROUPS);
                    // Plus the share that `shrink` leaves to other parts.
                    budget = budget.max((least + least / 8).min(user_budget));
                    &USER_AND_SYSTEM_GROUPS
                }
            })
        }
        Some(Member::ResponseStatus) => Some(&STATUS),
        Some(Member::Annotations) => Some(&ANNOTATIONS),
        Some(Member::ObjectRef) => Some(&Essential::All),
        _ => None,
    };
    Some(shrink(value, budget, essential))
}
