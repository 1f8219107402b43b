//! The simulated receiver: it fails, is slow, loses answers, and always fails on some events.

use std::time::Duration;

use audit_bridge_core::event::Event;
use audit_bridge_core::sink::{Cause, RequestFailure, Sink, Verdict};

use super::log::kind;
use super::plan::{Plan, Poison};
use super::world::{Shared, World};

/// The webhook client's time-out.
const TIMEOUT_MS: u64 = 10_000;

pub(crate) struct Receiver(pub(crate) Shared);

fn text_of(event: &Event) -> String {
    String::from_utf8(event.text().to_vec()).unwrap()
}

/// The audit ID in an event's text.
pub(crate) fn audit_id(text: &str) -> &str {
    let id = text.split("auditID\":\"").nth(1);
    id.and_then(|id| id.split('"').next()).unwrap()
}

impl Sink for Receiver {
    async fn send(&self, events: &[Event]) -> Verdict {
        let ids: Vec<String> = events
            .iter()
            .map(|event| audit_id(&text_of(event)).to_owned())
            .collect();
        if self.0.lock().unwrap().crashed {
            return std::future::pending().await;
        }
        let (wait, late, fate) = {
            let mut world = self.0.lock().unwrap();
            world.note(|| format!("request {ids:?}"));
            match ids.first() {
                Some(first) => {
                    let before = world.failed.get(first).copied().unwrap_or(0);
                    if before > events.len() {
                        world.saw("halved");
                    }
                    world.at_once += 1;
                }
                None => world.saw("empty list"),
            }
            world.at_once_max = world.at_once_max.max(world.at_once);
            let (wait, faults) = (world.dice.below(400), world.plan.faults);
            let fails = world.faulty && world.dice.chance(faults);
            let each = if world.faulty { world.plan.each } else { 0 };
            let wait = wait + each * events.len() as u64;
            let late = wait > TIMEOUT_MS;
            let fate = fails.then(|| world.dice.below(7));
            (wait.min(TIMEOUT_MS), late, fate)
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        if self.0.lock().unwrap().crashed {
            return std::future::pending().await;
        }
        let mut world = self.0.lock().unwrap();
        world.at_once -= usize::from(!ids.is_empty());
        let verdict = answer(&mut world, events, &ids, late, fate);
        world.note(|| format!("answer {ids:?} {verdict:?}"));
        match &verdict {
            Verdict::Failed(_) => {
                if let Some(first) = ids.first() {
                    world.failed.insert(first.clone(), events.len());
                }
            }
            _ => ids.iter().for_each(|id| world.settle(id)),
        }
        verdict
    }
}

fn answer(
    world: &mut World,
    events: &[Event],
    ids: &[String],
    late: bool,
    fate: Option<u64>,
) -> Verdict {
    let poison = ids.iter().find_map(|id| poison(&world.plan, id));
    match fate {
        _ if late => return failed(Cause::Timeout, 0),
        Some(0) => return failed(Cause::Status(503), 2),
        Some(1) => return failed(Cause::Status(429), 0),
        Some(2) => return failed(Cause::Connect, 0),
        Some(3) => return failed(Cause::Status(401), 0),
        Some(4) if events.len() > 1 => return failed(Cause::Status(413), 0),
        Some(5) if world.plan.lost_answers => {
            if poison.is_none() {
                world.saw("answer lost");
                world.accepted.extend(events.iter().map(text_of));
            }
            return failed(Cause::Timeout, 0);
        }
        Some(_) => return failed(Cause::Status(500), 0),
        None => {}
    }
    if let Some((cause, name)) = poison {
        world.saw(name);
        return failed(cause, 0);
    }
    world.accepted.extend(events.iter().map(text_of));
    Verdict::Accepted { status: 200 }
}

fn failed(cause: Cause, seconds: u64) -> Verdict {
    Verdict::Failed(RequestFailure {
        cause,
        detail: "the webhook failed".to_owned(),
        remedy: None,
        after: (seconds > 0).then(|| Duration::from_secs(seconds)),
    })
}

/// How the receiver always fails on this event, if it is poison.
fn poison(plan: &Plan, audit_id: &str) -> Option<(Cause, &'static str)> {
    let (partition, index) = audit_id[1..].split_once('-').unwrap();
    let (partition, index): (u64, u64) = (partition.parse().unwrap(), index.parse().unwrap());
    (plan.poison != Poison::None && kind(index) == "poison").then(|| {
        let kinds = if plan.poison == Poison::All { 9 } else { 3 };
        match (partition * 7 + index / 17) % kinds {
            0 => (Cause::Status(400), "poison: 400"),
            1 => (Cause::Status(413), "poison: 413"),
            2 => (Cause::Status(422), "poison: 422"),
            3 => (Cause::Status(403), "poison: 403"),
            4 => (Cause::Status(302), "poison: 302"),
            5 => (Cause::Status(500), "poison: 500"),
            6 => (Cause::Status(429), "poison: 429"),
            7 => (Cause::Other, "poison: reset"),
            _ => (Cause::Timeout, "poison: time-out"),
        }
    })
}
