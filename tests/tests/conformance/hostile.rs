//! Hostile batches: nothing is refused, no neighbour is changed, and the hostile event is present,
//! with who, what, where and when. `TIMES=n` runs every attack with this many sets of neighbours,
//! `SEED=n` with others, `ATTACK=text` only those whose name contains the text.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use audit_bridge_testkit::repeat::{number, times};
use audit_bridge_tests::attacks::{self, Attack, Expected, Falco, HostileBatch, Rule};
use audit_bridge_tests::judges::{FalcoItem, Judges};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::convert::convert;
use crate::event_list;

/// The default of `--event-bytes-max`.
const EVENT_BYTES_MAX: usize = 250 << 10;
/// The default of `--event-depth-max`, counted in the `EventList`.
const DEPTH_MAX: usize = 250;
/// Default number of sets of neighbours per attack.
const TIMES: u64 = 2;

/// Places that must equal the reference unless the attack says otherwise.
const IMPORTANT: [&str; 10] = [
    "/auditID",
    "/stage",
    "/verb",
    "/user",
    "/impersonatedUser",
    "/objectRef",
    "/sourceIPs",
    "/userAgent",
    "/responseStatus/code",
    "/stageTimestamp",
];

static ATTACKS: LazyLock<Vec<Attack>> = LazyLock::new(attacks::all);

/// Kinds of attacks; each has a test.
const KINDS: [&str; 18] = [
    "untouched",
    "depth",
    "cut",
    "padding",
    "outside",
    "verb",
    "encoding",
    "surrogates",
    "escaped",
    "borrowed",
    "v1beta1",
    "twice",
    "time",
    "type",
    "impersonated",
    "exec",
    "names",
    "status",
];

fn kind(attack: &Attack) -> &str {
    attack.name.split(':').next().unwrap_or_default()
}

/// Runs the attacks of some kinds; fails with all complaints.
fn run(kinds: &[&str]) {
    let Some(judges) = Judges::start() else {
        return;
    };
    let only = std::env::var("ATTACK").unwrap_or_default();
    let mut complaints = Vec::new();
    let (mut batches, mut bad) = (0, 0);
    for (index, attack) in ATTACKS.iter().enumerate() {
        if !kinds.contains(&kind(attack)) || !attack.name.contains(&only) {
            continue;
        }
        for time in 0..times("TIMES", TIMES) {
            let seed = number("SEED").unwrap_or(0) ^ (time << 32) ^ index as u64;
            let batch = attacks::among_neighbours(attack, seed);
            let found = judge(judges, &batch);
            batches += 1;
            bad += usize::from(!found.is_empty());
            complaints.extend(
                found
                    .into_iter()
                    .map(|what| format!("{}: {what}", batch.name)),
            );
        }
    }
    assert!(batches > 0 || !only.is_empty(), "no attack of {kinds:?}");
    assert!(
        complaints.is_empty(),
        "{bad} of {batches} batches:\n{}",
        complaints.join("\n")
    );
}

#[test]
fn attacks_are_all_run() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for attack in ATTACKS.iter() {
        *counts.entry(kind(attack)).or_default() += 1;
    }
    let mut kinds = KINDS.to_vec();
    kinds.sort_unstable();
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), kinds);
    assert!(ATTACKS.len() as u64 * TIMES >= 480, "{counts:?}");
    let names: std::collections::BTreeSet<_> = ATTACKS.iter().map(|attack| &attack.name).collect();
    assert_eq!(names.len(), ATTACKS.len(), "two attacks of one name");
}

#[test]
fn event_nested_loses_only_what_lies_too_deep() {
    run(&["depth"]);
}

#[test]
fn event_cut_keeps_what_precedes_the_cut() {
    run(&["cut"]);
}

#[test]
fn object_padded_keeps_what_rules_read() {
    run(&["padding"]);
}

#[test]
fn member_padded_keeps_its_ends() {
    run(&["outside"]);
}

#[test]
fn member_spelled_oddly_is_repaired() {
    run(&["verb", "encoding", "surrogates", "escaped", "v1beta1"]);
}

#[test]
fn event_odd_but_valid_leaves_unchanged() {
    run(&["untouched"]);
}

#[test]
fn audit_id_borrowed_makes_no_duplicate() {
    run(&["borrowed"]);
}

#[test]
fn key_duplicate_leaves_once_with_the_last_value() {
    run(&["twice"]);
}

#[test]
fn time_odd_leaves_with_six_digits() {
    run(&["time"]);
}

#[test]
fn member_of_wrong_type_is_repaired_or_rejected_by_name() {
    run(&["type"]);
}

#[test]
fn gke_entries_hostile_are_detected() {
    run(&["impersonated", "exec", "names", "status"]);
}

/// All complaints about a bridge's output for a batch.
fn judge(judges: Judges, batch: &HostileBatch) -> Vec<String> {
    let converted = convert(batch.bridge, &batch.records);
    let mut found = Vec::new();
    let mut expected: Vec<&Expected> = batch.expected.iter().collect();
    for other in &converted.others {
        let allowed = expected.iter().position(|one| {
            one.or_reject_naming
                .is_some_and(|name| other.contains(name))
        });
        match allowed {
            Some(at) if other.starts_with("rejected") => drop(expected.remove(at)),
            _ => found.push(other.clone()),
        }
    }
    let body = event_list(&converted.events);
    let decoded = judges.decode(&body);
    found.extend(decoded.complaints());
    if decoded.depth > DEPTH_MAX {
        found.push(format!("{} levels", decoded.depth));
    }
    let verdict = judges.falco(&body);
    if let Some(why) = verdict.refused {
        found.push(format!("falco lost the whole POST: {why}"));
    }
    let mut neighbours = batch.neighbours.iter();
    let mut hostile = Vec::new();
    let mut items = verdict.items.into_iter();
    for event in &converted.events {
        let item = items.next();
        if batch.neighbours.iter().any(|one| one.as_bytes() == event) {
            if neighbours.next().map(String::as_bytes) != Some(event) {
                found.push("neighbours out of order".to_owned());
            }
        } else {
            hostile.push((event, item));
        }
    }
    if neighbours.next().is_some() {
        found.push("a neighbour is missing or changed".to_owned());
    }
    if hostile.len() != expected.len() {
        let (got, wanted) = (hostile.len(), expected.len());
        found.push(format!("{got} hostile events came out, not {wanted}"));
    }
    for ((event, item), expected) in hostile.into_iter().zip(expected) {
        found.extend(compare(judges, event, item.as_ref(), expected));
    }
    found
}

/// The members of an event, as raw values: its objects may be nested deeper than a parsed value may
/// be.
fn members(event: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_slice(event).unwrap_or_default()
}

/// The value at a pointer.
fn at(members: &BTreeMap<String, Box<RawValue>>, pointer: &str) -> Value {
    let mut steps = pointer[1..].splitn(2, '/');
    let member = steps.next().and_then(|name| members.get(name));
    let value: Value = member
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    match steps.next() {
        Some(rest) => value
            .pointer(&format!("/{rest}"))
            .cloned()
            .unwrap_or_default(),
        None => value,
    }
}

fn compare(
    judges: Judges,
    event: &[u8],
    item: Option<&FalcoItem>,
    expected: &Expected,
) -> Vec<String> {
    let mut found = Vec::new();
    if event.len() > EVENT_BYTES_MAX {
        found.push(format!("{} bytes", event.len()));
    }
    let (delivered, reference) = (members(event), members(expected.reference.as_bytes()));
    // Of the URI the path matters, and that its query can be parsed: see Falco's fields.
    let own = expected
        .rules
        .iter()
        .map(|(place, rule)| (place.as_str(), rule));
    let has_rule = |place: &str| expected.rules.iter().any(|(own, _)| own == place);
    let important = IMPORTANT.iter().filter(|place| {
        let root = place.split('/').nth(1).unwrap_or_default();
        !has_rule(place) && !has_rule(&format!("/{root}"))
    });
    for (place, rule) in important.map(|place| (*place, &Rule::Equal)).chain(own) {
        let (is, was) = (at(&delivered, place), at(&reference, place));
        let holds = match rule {
            Rule::Equal => is == was,
            Rule::Shortened => is_shortened(&is, &was),
            Rule::Part => is_part(&is, &was),
            Rule::Is(value) => is == *value,
            Rule::Any => true,
        };
        if !holds {
            found.push(format!(
                "{place} is {}, of {} ({rule:?})",
                brief(&is),
                brief(&was)
            ));
        }
    }
    if !has_rule("/requestURI") || expected.object_ref_of.is_none() {
        let path = |members| {
            let uri = at(members, "/requestURI");
            uri.as_str()
                .map(|uri| uri.split('?').next().unwrap_or_default().to_owned())
        };
        let (is, was) = (path(&delivered), path(&reference));
        let cut = expected.rules.iter().any(|(place, rule)| {
            place == "/requestURI" && matches!(rule, Rule::Shortened | Rule::Part)
        });
        if is != was && !cut && !has_rule("/requestURI") {
            found.push(format!("the path of the URI is {}", brief(&is.into())));
        }
    }
    if let Some(marked) = expected.marked {
        let mark = at(&delivered, "/annotations/audit.k8s.io~1truncated");
        if (mark == "true") != marked {
            found.push(format!("the mark is {mark}, not {marked}"));
        }
    }
    if expected.untouched && event != expected.reference.as_bytes() {
        found.push("it was changed".to_owned());
    }
    if expected.noted && at(&delivered, "/annotations/audit-bridge~1shortened").is_null() {
        found.push("no annotation says what was shortened".to_owned());
    }
    if let Some(uri) = &expected.object_ref_of {
        let info = judges.request_info(uri, "get");
        let derived = at(&delivered, "/objectRef");
        let wanted = info.object_ref();
        if !is_shortened(&derived, &wanted) {
            found.push(format!(
                "objectRef is {}, not {}",
                brief(&derived),
                brief(&wanted)
            ));
        }
    }
    match item {
        None => {}
        Some(FalcoItem {
            lost: Some(why), ..
        }) => found.push(format!("falco lost it: {why}")),
        Some(item) => found.extend(compare_fields(judges, item, expected)),
    }
    found
}

fn compare_fields(judges: Judges, item: &FalcoItem, expected: &Expected) -> Vec<String> {
    let mut found = Vec::new();
    let reference = judges.falco(expected.reference.as_bytes());
    let reference = reference.items.first().cloned().unwrap_or_default();
    let compared = |name: &str| match &expected.falco {
        Falco::AllBut(except) => !except.contains(&name),
        Falco::Only(prefix) => name.starts_with(prefix),
    };
    let names = reference.fields.keys().chain(item.fields.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names.into_iter().filter(|name| compared(name)) {
        let (is, was) = (item.fields.get(name), reference.fields.get(name));
        if is != was {
            let text = |value: Option<&Value>| value.map_or("not there".to_owned(), brief);
            found.push(format!("{name} is {}, was {}", text(is), text(was)));
        }
    }
    for (field, value) in &expected.contains {
        let list = item.fields.get(*field).unwrap_or(&Value::Null);
        let there = match (list, value.split_once('=')) {
            (Value::Object(map), Some((key, value))) => map.get(key).is_some_and(|is| is == value),
            (Value::Array(list), _) => list.iter().any(|one| one == value),
            _ => false,
        };
        if !there {
            found.push(format!("{field} has no {value}: {}", brief(list)));
        }
    }
    found
}

/// Whether a value was shortened as allowed: a string keeps its beginning, a list its first and
/// last elements and all system groups, an object only members that it had.
fn is_shortened(is: &Value, was: &Value) -> bool {
    const KEPT: usize = 1_000;
    match (is, was) {
        (Value::String(is), Value::String(was)) => {
            is == was || {
                let kept = was.char_indices().nth(KEPT).map_or(was.len(), |(at, _)| at);
                is.starts_with(&was[..kept]) && is.len() < was.len()
            }
        }
        (Value::Array(is), Value::Array(was)) => {
            let system = |list: &[Value]| {
                let is_system = |one: &&Value| {
                    let text = one.as_str().unwrap_or_default();
                    text.starts_with("system:")
                };
                list.iter().filter(is_system).cloned().collect::<Vec<_>>()
            };
            is == was
                || (is.len() < was.len()
                    && is.first() == was.first()
                    && is.last() == was.last()
                    && system(is) == system(was))
        }
        (Value::Object(is), Value::Object(was)) => {
            is.iter()
                .all(|(key, is)| was.get(key).is_some_and(|was| is_shortened(is, was)))
                && was
                    .keys()
                    .filter(|key| *key != "extra")
                    .all(|key| is.contains_key(key))
        }
        (is, was) => is == was,
    }
}

/// Whether `is` is a beginning of `was`.
fn is_part(is: &Value, was: &Value) -> bool {
    match (is, was) {
        (Value::Null, _) => true,
        (Value::String(is), Value::String(was)) => {
            was.starts_with(is.as_str()) || is_shortened(&is.as_str().into(), &was.as_str().into())
        }
        (Value::Array(is), Value::Array(was)) => {
            is.len() <= was.len() && is.iter().zip(was).all(|(is, was)| is_part(is, was))
        }
        (Value::Object(is), Value::Object(was)) => is
            .iter()
            .all(|(key, is)| was.get(key).is_some_and(|was| is_part(is, was))),
        (is, was) => is == was,
    }
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    let mut short: String = text.chars().take(120).collect();
    if short.len() < text.len() {
        short.push_str(&format!("… ({} bytes)", text.len()));
    }
    short
}
