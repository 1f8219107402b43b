//! Generated and mutated events: receivers accept everything that a converter emits. `EVENTS=n`
//! sets the number, `SEED=n` the seed.

use audit_bridge_testkit::Generator;
use audit_bridge_testkit::arbitrary::{any_event, any_json};
use audit_bridge_testkit::repeat::{number, times};
use audit_bridge_tests::attacks::event::Draft;
use audit_bridge_tests::judges::{Account, Judges};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::convert::convert;
use crate::event_list;

/// Default number of events.
const EVENTS: u64 = 100_000;
/// The largest number of events in a body.
const BATCH: usize = 400;

#[test]
fn events_generated_and_mutated_are_accepted() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let seed = number("SEED").unwrap_or(0);
    let mut source = Source::new(seed);
    let (mut made, mut emitted) = (0, 0);
    let mut complaints = Vec::new();
    while made < times("EVENTS", EVENTS) {
        let records: Vec<Vec<u8>> = (0..BATCH).map(|_| source.event()).collect();
        made += records.len() as u64;
        let bridge = ["eks", "aks", "gke"][(made / BATCH as u64 % 3) as usize];
        let events = convert(bridge, &records).events;
        emitted += events.len();
        let account = Account::of_bodies(judges, [&*event_list(&events)]);
        if !account.complaints().is_empty() {
            complaints.extend(one_by_one(judges, &events));
        }
        if complaints.len() > 100 {
            break;
        }
    }
    let many = complaints.len();
    complaints.truncate(40);
    assert!(
        complaints.is_empty(),
        "{many} complaints of {emitted} events, seed {seed}:\n{}",
        complaints.join("\n")
    );
    assert!(
        emitted as u64 * 3 > made,
        "{emitted} events of {made} records"
    );
}

fn one_by_one(judges: Judges, events: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for event in events {
        let single = event_list(&[event]);
        let account = Account::of_bodies(judges, [&*single]);
        let mut complaints = account.complaints();
        complaints.retain(|what| !is_about_what_the_api_server_encodes(what, event));
        if !complaints.is_empty() {
            let text = String::from_utf8_lossy(event);
            let start: String = text.chars().take(1_500).collect();
            found.push(format!("{complaints:?} in {start}"));
        }
    }
    found
}

/// Whether the complaint is a duplicate key in an object that the API server encodes itself, from a
/// map. Only the body of a patch is logged as the client wrote it, so only there the bridges check
/// every depth.
fn is_about_what_the_api_server_encodes(complaint: &str, event: &[u8]) -> bool {
    let Some((_, at)) = complaint.split_once("key stands twice: .items[0].") else {
        return false;
    };
    let is_patch = serde_json::from_slice::<serde_json::Value>(event)
        .is_ok_and(|event| event["verb"] == "patch");
    at.starts_with("responseObject") || (at.starts_with("requestObject") && !is_patch)
}

/// Generates events of all kinds.
struct Source {
    dice: fastrand::Rng,
    generator: Generator,
    /// Events and values from a strategy; generating them is slow, so they are reused with
    /// mutations.
    arbitrary: Vec<String>,
    values: Vec<String>,
}

impl Source {
    fn new(seed: u64) -> Source {
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            TestRng::from_seed(RngAlgorithm::ChaCha, &{
                let mut bytes = [7; 32];
                bytes[..8].copy_from_slice(&seed.to_le_bytes());
                bytes
            }),
        );
        let mut events = any_event();
        let arbitrary = (0..2_000).map(|_| any_event_of(&mut events, &mut runner));
        let arbitrary = arbitrary.collect();
        let values = any_json();
        let values = (0..2_000)
            .map(|_| values.new_tree(&mut runner).unwrap().current())
            .collect();
        Source {
            dice: fastrand::Rng::with_seed(seed),
            generator: Generator::new(seed),
            arbitrary,
            values,
        }
    }

    fn event(&mut self) -> Vec<u8> {
        match self.dice.u32(0..10) {
            0 => self.generator.metadata().into_bytes(),
            1 => self.generator.request_response().into_bytes(),
            2 => self.pick_arbitrary().into_bytes(),
            3..6 => self.with_a_member_changed(),
            6 => {
                let event = self.pick_arbitrary().into_bytes();
                self.mutated(event)
            }
            _ => {
                let event = self.generator.metadata().into_bytes();
                self.mutated(event)
            }
        }
    }

    fn pick_arbitrary(&mut self) -> String {
        let at = self.dice.usize(..self.arbitrary.len());
        self.arbitrary[at].clone()
    }

    /// An ordinary event with members that have any value, are duplicate or absent.
    fn with_a_member_changed(&mut self) -> Vec<u8> {
        const MEMBERS: [&str; 18] = [
            "kind",
            "apiVersion",
            "level",
            "auditID",
            "stage",
            "requestURI",
            "verb",
            "user",
            "impersonatedUser",
            "sourceIPs",
            "userAgent",
            "objectRef",
            "responseStatus",
            "requestObject",
            "responseObject",
            "requestReceivedTimestamp",
            "stageTimestamp",
            "annotations",
        ];
        let drafts = [
            Draft::pod,
            Draft::role,
            Draft::exec,
            Draft::refused,
            Draft::config_map,
        ];
        let mut draft = drafts[self.dice.usize(..drafts.len())]();
        for _ in 0..self.dice.u32(1..4) {
            let member = MEMBERS[self.dice.usize(..MEMBERS.len())];
            let value = self.values[self.dice.usize(..self.values.len())].clone();
            draft = match self.dice.u32(0..6) {
                0 | 1 => draft.with(member, &value),
                2 => draft.before(member, member, &value),
                3 => draft.without(member),
                4 => draft.before("annotations", member, &value),
                _ => {
                    // Inside a member that is an object.
                    let old = draft.get(member).to_owned();
                    let key = [
                        "username", "code", "name", "x", "groups", "extra", "details",
                    ];
                    let key = key[self.dice.usize(..key.len())];
                    match old.strip_prefix('{') {
                        Some(rest) if rest.len() > 1 => {
                            draft.with(member, &format!("{{\"{key}\":{value},{rest}"))
                        }
                        _ => draft,
                    }
                }
            };
        }
        draft.bytes()
    }

    /// Changes some bytes.
    fn mutated(&mut self, mut event: Vec<u8>) -> Vec<u8> {
        const PIECES: [&[u8]; 16] = [
            b"\"",
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\\ud800",
            b"\xff",
            b"\xe2\x82",
            b"\\u0000",
            b"0",
            b"null",
            b" ",
            b"[Truncated...]",
        ];
        for _ in 0..self.dice.u32(1..4) {
            let at = self.dice.usize(..event.len());
            match self.dice.u32(0..5) {
                0 => event[at] = self.dice.u8(..),
                1 => drop(event.remove(at)),
                2 => {
                    let piece = PIECES[self.dice.usize(..PIECES.len())];
                    event.splice(at..at, piece.iter().copied());
                }
                3 if self.dice.u32(0..4) == 0 => event.truncate(at.max(1)),
                _ => {
                    // Copies a part of the event elsewhere.
                    let end = (at + self.dice.usize(1..60)).min(event.len());
                    let part = event[at..end].to_vec();
                    let to = self.dice.usize(..event.len());
                    event.splice(to..to, part);
                }
            }
        }
        event
    }
}

fn any_event_of(
    events: &mut impl proptest::strategy::Strategy<Value = String>,
    runner: &mut TestRunner,
) -> String {
    events.new_tree(runner).unwrap().current()
}
