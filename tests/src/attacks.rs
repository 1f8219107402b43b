//! Hostile batches as data: what attackers write into a request to hide it, or to spoil the trail
//! of others. Each is placed among innocent neighbours in a provider's form, together with what a
//! receiver must still see.
//!
//! The attacks follow the table of the promise that nothing in an event can hide it.
//! `tests/conformance/hostile.rs` runs them and judges the output.

pub mod carrier;
mod cut;
mod depth;
pub mod event;
mod gke;
mod outside;
mod padding;
mod repair;
mod values;

use audit_bridge_testkit::Generator;
use serde_json::Value;

use carrier::Carrier;

/// Number of innocent neighbours of a hostile event.
const NEIGHBOURS: usize = 6;

/// Records of one bridge, some of them hostile.
#[derive(Debug, Clone)]
pub struct HostileBatch {
    /// The attack, the form and the number, for failure messages.
    pub name: String,
    /// The bridge that reads it.
    pub bridge: &'static str,
    /// The records, in order.
    pub records: Vec<Vec<u8>>,
    /// The neighbours' events, in order; they must leave unchanged.
    pub neighbours: Vec<String>,
    /// The other events that must come out, in order.
    pub expected: Vec<Expected>,
}

/// A hostile input in the form in which a bridge receives it.
#[derive(Debug, Clone)]
pub struct Attack {
    /// The promise that it attacks, and how.
    pub name: String,
    /// The bridge that reads it.
    pub bridge: &'static str,
    pub records: Vec<Vec<u8>>,
    /// The events that must come out, in order.
    pub expected: Vec<Expected>,
}

/// What must hold for a hostile event's output.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The event that a receiver should see, as JSON that every receiver accepts.
    pub reference: String,
    /// Places (JSON pointers) where it may differ; all other important places must be equal.
    pub rules: Vec<(String, Rule)>,
    /// Whether it is marked as truncated; `None`: either.
    pub marked: Option<bool>,
    /// Whether it must leave byte for byte like the reference.
    pub untouched: bool,
    /// Whether an annotation names what was shortened.
    pub noted: bool,
    /// The Falco fields that must equal those of the reference.
    pub falco: Falco,
    /// Values that list fields of Falco must contain.
    pub contains: Vec<(&'static str, &'static str)>,
    /// The URI up to its last complete segment, from which the `objectRef` must be derived.
    pub object_ref_of: Option<String>,
    /// The event may instead be rejected, if the error names this member.
    pub or_reject_naming: Option<&'static str>,
}

/// How a place may differ from the reference.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// It must not differ.
    Equal,
    /// It is shortened: a string keeps its beginning, a list its first and last elements and every
    /// group that starts with `system:`.
    Shortened,
    /// It is cut: a beginning of the reference's value, or absent.
    Part,
    /// It has this value.
    Is(Value),
    /// It is not compared here.
    Any,
}

/// Which of Falco's fields are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Falco {
    /// All except these.
    AllBut(Vec<&'static str>),
    /// Those whose names start with this.
    Only(&'static str),
}

impl Expected {
    /// An event that equals a reference in everything that matters.
    pub fn equal_to(reference: &event::Draft) -> Expected {
        Expected {
            reference: reference.text(),
            rules: Vec::new(),
            marked: None,
            untouched: false,
            noted: false,
            falco: Falco::AllBut(vec!["jevt.value[/annotations/audit.k8s.io~1truncated]"]),
            contains: Vec::new(),
            object_ref_of: None,
            or_reject_naming: None,
        }
    }

    fn marked(mut self, marked: bool) -> Expected {
        self.marked = Some(marked);
        self
    }

    fn untouched(mut self) -> Expected {
        self.untouched = true;
        self.marked(false)
    }

    fn rule(mut self, place: &str, rule: Rule) -> Expected {
        self.rules.push((place.to_owned(), rule));
        self
    }

    fn without_falco(mut self, fields: &[&'static str]) -> Expected {
        if let Falco::AllBut(except) = &mut self.falco {
            except.extend(fields);
        }
        self
    }

    fn only_falco(mut self, prefix: &'static str) -> Expected {
        self.falco = Falco::Only(prefix);
        self
    }

    fn contains(mut self, field: &'static str, value: &'static str) -> Expected {
        self.contains.push((field, value));
        self
    }

    fn or_reject(mut self, member: &'static str) -> Expected {
        self.or_reject_naming = Some(member);
        self
    }
}

/// An event in every form that carries it whole.
fn whole(name: &str, event: &[u8], expected: &Expected) -> Vec<Attack> {
    let plain = ["eks", "aks", "gke"][name.len() % 3];
    [Carrier::Eks, Carrier::Aks, Carrier::Plain(plain)]
        .into_iter()
        .map(|carrier| Attack {
            name: format!("{name} ({})", carrier.name()),
            bridge: carrier.bridge(),
            records: vec![carrier.record(event)],
            expected: vec![expected.clone()],
        })
        .collect()
}

/// All attacks, each in every form in which it can arrive.
pub fn all() -> Vec<Attack> {
    let mut attacks = depth::attacks();
    attacks.extend(cut::attacks());
    attacks.extend(padding::attacks());
    attacks.extend(outside::attacks());
    attacks.extend(repair::attacks());
    attacks.extend(values::attacks());
    attacks.extend(gke::attacks());
    attacks
}

/// Places an attack among neighbours. The same seed gives the same batch.
pub fn among_neighbours(attack: &Attack, seed: u64) -> HostileBatch {
    let mut generator = Generator::new(seed);
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut neighbours = Vec::new();
    let mut records = Vec::new();
    for n in 0..NEIGHBOURS {
        let event = match n % 3 {
            0 => generator.request_response(),
            _ => generator.metadata(),
        };
        records.push(match attack.bridge {
            "eks" => generator.cloudwatch(&event).into_bytes(),
            "aks" => generator.diagnostic(&event).into_bytes(),
            _ => event.clone().into_bytes(),
        });
        neighbours.push(event);
    }
    let at = dice.usize(0..=records.len());
    records.splice(at..at, attack.records.iter().cloned());
    HostileBatch {
        name: format!("{}, seed {seed}", attack.name),
        bridge: attack.bridge,
        records,
        neighbours,
        expected: attack.expected.clone(),
    }
}
