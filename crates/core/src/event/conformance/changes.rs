//! Finds the changes to an event whose text is sound: its version, its times, what was cut off, and
//! the configured annotations.

use super::super::json::{self, Raw};
use super::super::request_info::{Extent, RequestInfo};
use super::super::time;
use super::assemble::{self, EventChanges};
use super::cut::Completed;
use super::inspect::{self, Inspection};
use super::known::Member;
use super::notes::{GivenUp, Notes, Repair};
use super::{
    API_VERSION, EventContext, EventError, RECEIVED_TIMESTAMP, STAGE_TIMESTAMP, TRUNCATED, uri,
};

/// The `stageTimestamp` of a cut event that has no time left: the Unix epoch.
const NO_TIME: &str = "1970-01-01T00:00:00.000000Z";
/// The second of Go's zero time, `0001-01-01T00:00:00Z`: a time that was never set.
const GO_ZERO_SECOND: i64 = -62_135_596_800;

/// Collects the changes to make to the event.
pub(super) fn changes_of<'a>(
    seen: &Inspection<'_>,
    completed: Option<&Completed>,
    context: &EventContext<'a>,
    notes: &mut Notes,
) -> Result<EventChanges<'a>, EventError> {
    let claimed = context.claimed || seen.claims();
    let mut changes = EventChanges::default();
    set_kind(seen, claimed, &mut changes, notes)?;
    for (name, needed) in [
        (Member::AuditId, true),
        (Member::Stage, true),
        (Member::Verb, false),
    ] {
        let text = seen.text(name);
        // The verb is empty for an unknown method and for OPTIONS.
        let there = text.is_some_and(|text| {
            text.starts_with('"') && !(needed && text == "\"\"" && completed.is_none())
        });
        match there {
            true => {}
            false if completed.is_none() => {
                return Err(EventError::of(claimed, format!("no {}", name.name())));
            }
            false if name == Member::AuditId && claimed => {
                return Err(EventError::Truncated("auditID"));
            }
            false if name == Member::AuditId => {
                return Err(EventError::of(claimed, format!("no {}", name.name())));
            }
            false => changes.set_string(name, ""),
        }
    }
    set_api_version(seen, claimed, &mut changes, notes)?;
    for (key, value) in &context.options.annotations {
        changes.annotate(key.as_str(), value.as_str());
    }
    if !seen.times_are_good {
        set_times(seen, completed.is_some(), context, &mut changes, notes)?;
    }
    if let Some(completed) = completed {
        notes.give_up(add_what_follows_from_the_uri(seen, completed, &mut changes));
        changes.annotate(TRUNCATED, "true");
    } else if notes.truncated() {
        changes.annotate(TRUNCATED, "true");
    }
    Ok(changes)
}

/// Ensures the `kind` that every event has.
fn set_kind(
    seen: &Inspection<'_>,
    claimed: bool,
    changes: &mut EventChanges<'_>,
    notes: &mut Notes,
) -> Result<(), EventError> {
    let text = seen.text(Member::Kind);
    match text {
        Some("\"Event\"") => {}
        None | Some("null" | "\"\"") => {
            changes.set_string(Member::Kind, "Event");
            notes.repair(Repair::Version);
        }
        Some(_) if seen.string(Member::Kind).as_deref() == Some("Event") => {}
        Some(other) => {
            let what = format!("kind is {}, not \"Event\"", abbreviate(other));
            return Err(EventError::of(claimed, what));
        }
    }
    Ok(())
}

/// Ensures the `apiVersion` that every event has; removes v1beta1's members that v1 does not have.
fn set_api_version(
    seen: &Inspection<'_>,
    claimed: bool,
    changes: &mut EventChanges<'_>,
    notes: &mut Notes,
) -> Result<(), EventError> {
    let text = seen.text(Member::ApiVersion);
    if text == Some("\"audit.k8s.io/v1\"") {
        return Ok(());
    }
    match (text, seen.string(Member::ApiVersion).as_deref()) {
        (_, Some(API_VERSION)) => {}
        (None | Some("null"), _)
        | (_, Some("" | "audit.k8s.io/v1beta1" | "audit.k8s.io/v1alpha1")) => {
            upgrade_version(changes, notes);
        }
        (Some(other), _) => {
            let what = format!("apiVersion is {}, not {API_VERSION}", abbreviate(other));
            return Err(EventError::of(claimed, what));
        }
    }
    Ok(())
}

fn upgrade_version(changes: &mut EventChanges<'_>, notes: &mut Notes) {
    changes.set_string(Member::ApiVersion, API_VERSION);
    changes.remove(Member::Metadata);
    changes.remove(Member::Timestamp);
    notes.repair(Repair::Version);
}

/// How a time member is written.
enum Stamp {
    /// Missing, or never set.
    Absent,
    /// In the form that receivers read.
    Good,
    /// A time in another form.
    Time(String),
    /// Not a time.
    Unreadable,
}

impl Stamp {
    fn of(seen: &Inspection<'_>, name: Member) -> Stamp {
        let Some(text) = seen.text(name).filter(|text| *text != "null") else {
            return Stamp::Absent;
        };
        if inspect::is_micro_time(text) {
            return Stamp::Good;
        }
        let read = seen.string(name).and_then(|text| time::parse(&text));
        let Some(read) = read else {
            return Stamp::Unreadable;
        };
        if read.as_second() == GO_ZERO_SECOND {
            return Stamp::Absent;
        }
        let micros = time::micros(read);
        match (
            micros.len() == time::MICROS_LEN,
            text.trim_matches('"') == micros,
        ) {
            (true, true) => Stamp::Good,
            (true, false) => Stamp::Time(micros),
            (false, _) => Stamp::Unreadable,
        }
    }

    /// The time in the form that receivers read.
    fn text(self, seen: &Inspection<'_>, name: Member) -> Option<String> {
        match self {
            Stamp::Good => seen.string(name),
            Stamp::Time(text) => Some(text),
            Stamp::Absent | Stamp::Unreadable => None,
        }
    }
}

/// Ensures times with six digits. A missing `stageTimestamp`, for which Falco drops an event, is
/// taken from `requestReceivedTimestamp`, from v1beta1's `timestamp`, or from the provider's
/// record.
fn set_times(
    seen: &Inspection<'_>,
    is_cut: bool,
    context: &EventContext<'_>,
    changes: &mut EventChanges<'_>,
    notes: &mut Notes,
) -> Result<(), EventError> {
    let received = Stamp::of(seen, Member::RequestReceivedTimestamp);
    let stage = Stamp::of(seen, Member::StageTimestamp);
    if matches!(
        (&received, &stage),
        (Stamp::Good | Stamp::Absent, Stamp::Good)
    ) && seen
        .text(Member::RequestReceivedTimestamp)
        .is_none_or(is_null_or_micro)
    {
        return Ok(());
    }
    match &received {
        Stamp::Good => {}
        Stamp::Absent => {
            // Write Go's zero time as null.
            if !seen
                .text(Member::RequestReceivedTimestamp)
                .is_none_or(is_null_or_micro)
            {
                changes.set(Member::RequestReceivedTimestamp, "null");
                notes.repair(Repair::Time);
            }
        }
        Stamp::Time(text) => {
            changes.set_string(Member::RequestReceivedTimestamp, text);
            notes.repair(Repair::Time);
        }
        Stamp::Unreadable => {
            match context.record_time {
                Some(time) => {
                    changes.set_string(Member::RequestReceivedTimestamp, &time::micros(time));
                    changes.annotate(RECEIVED_TIMESTAMP, "record");
                }
                None => changes.remove(Member::RequestReceivedTimestamp),
            }
            notes.repair(Repair::Time);
        }
    }
    let unreadable = matches!(stage, Stamp::Unreadable);
    match stage {
        Stamp::Good => return Ok(()),
        Stamp::Time(text) => changes.set_string(Member::StageTimestamp, &text),
        Stamp::Absent | Stamp::Unreadable => {
            let of_event = received
                .text(seen, Member::RequestReceivedTimestamp)
                .or_else(|| Stamp::of(seen, Member::Timestamp).text(seen, Member::Timestamp));
            match (of_event, context.record_time) {
                (Some(text), _) => changes.set_string(Member::StageTimestamp, &text),
                (None, Some(time)) => {
                    changes.set_string(Member::StageTimestamp, &time::micros(time));
                    changes.annotate(STAGE_TIMESTAMP, "record");
                }
                // The event had a time, but it is lost; the epoch is a placeholder.
                (None, None) if is_cut => {
                    changes.set_string(Member::StageTimestamp, NO_TIME);
                    changes.annotate(STAGE_TIMESTAMP, "unknown");
                }
                (None, None) => {
                    let what = match seen.text(Member::StageTimestamp) {
                        Some(text) if unreadable => {
                            format!("stageTimestamp is {}", abbreviate(text))
                        }
                        _ => "no stageTimestamp".to_owned(),
                    };
                    return Err(EventError::Unparsable(format!(
                        "{what} and no other time to take instead"
                    )));
                }
            }
            // A time that was only cut off needs no `Repair::Time` note.
            if is_cut && !unreadable {
                return Ok(());
            }
        }
    }
    notes.repair(Repair::Time);
    Ok(())
}

fn is_null_or_micro(text: &str) -> bool {
    text == "null" || inspect::is_micro_time(text)
}

/// Derives `objectRef` from the path, as the API server does, for an event that was cut before its
/// `objectRef` was whole. Returns what is missing.
fn add_what_follows_from_the_uri(
    seen: &Inspection<'_>,
    completed: &Completed,
    changes: &mut EventChanges<'_>,
) -> GivenUp {
    let within = completed.within.as_deref();
    let behind = [
        Member::ResponseStatus,
        Member::RequestObject,
        Member::ResponseObject,
        Member::RequestReceivedTimestamp,
        Member::StageTimestamp,
        Member::Annotations,
    ];
    // A member behind the identity, whole or cut, proves that the identity is complete.
    let is_identified = behind
        .iter()
        .any(|&name| seen.place(name).is_some() || within == Some(name.name()));
    if is_identified {
        return GivenUp::ProviderObjects;
    }
    let is_whole =
        seen.place(Member::ObjectRef).is_some() && within != Some(Member::ObjectRef.name());
    let Some(uri) = seen.string(Member::RequestUri).filter(|_| !is_whole) else {
        return GivenUp::ProviderIdentity;
    };
    let extent = match within == Some(Member::RequestUri.name()) {
        true => Extent::Cut,
        false => Extent::Whole,
    };
    if extent == Extent::Cut {
        let whole = uri::without_cut_escape(&uri);
        if whole.len() < uri.len() {
            changes.set_string(Member::RequestUri, whole);
        }
    }
    let verb = seen.string(Member::Verb);
    if let Some(info) = RequestInfo::of(&uri, extent, verb.as_deref()) {
        let had = seen
            .value(Member::ObjectRef)
            .filter(|raw| raw.kind() == json::ValueKind::Object);
        let text = object_ref(&info, had);
        changes.set(Member::ObjectRef, text);
    }
    GivenUp::ProviderIdentity
}

/// An `objectRef` with the members left of the event's own, and those that the path implies.
fn object_ref(info: &RequestInfo, had: Option<Raw<'_>>) -> String {
    let mut out = String::from("{");
    for (key, value) in had.and_then(Raw::members).into_iter().flatten() {
        let comma = if out.len() > 1 { "," } else { "" };
        out.push_str(&format!(
            "{comma}{}:{}",
            assemble::json_string(&key),
            value.text()
        ));
    }
    for (key, value) in [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.api_group),
        ("apiVersion", &info.api_version),
        ("subresource", &info.subresource),
    ] {
        if !value.is_empty() && had.and_then(|had| had.get(key)).is_none() {
            let comma = if out.len() > 1 { "," } else { "" };
            out.push_str(&format!(
                "{comma}\"{key}\":{}",
                assemble::json_string(value)
            ));
        }
    }
    out.push('}');
    out
}

/// A value short enough for a message.
fn abbreviate(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
