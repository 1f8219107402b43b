//! Random schedules of answers, delays, time-outs and poison of every kind: every event ends once,
//! and only poison is given up. `SCHEDULES=n` runs more of them, `SEED=n` one.

use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::sink::{Cause, Verdict};
use audit_bridge_testkit::repeat;
use fastrand::Rng;
use tokio::time::Instant;

use super::fake::{Fake, accepted, answered, answered_after, failed};
use super::{Ends, batch, delivery, receipts_for};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The parameters of a schedule.
#[derive(Debug, Clone, Copy)]
struct Plan {
    seed: u64,
    slots: usize,
    batches: u64,
    batch_events: u64,
    poison_per_mille: u64,
    /// Percentage of requests that fail for no reason, and until when.
    trouble: u64,
    trouble_ends: Duration,
    /// The receiver's time per event while failures last.
    each: Duration,
    /// It accepts empty lists even then.
    probes: bool,
}

impl Plan {
    fn of(seed: u64) -> Plan {
        let mut random = Rng::with_seed(seed);
        Plan {
            seed,
            slots: random.usize(1..6),
            batches: random.u64(1..30),
            batch_events: [1, 7, 40, 400][random.usize(0..4)],
            poison_per_mille: [0, 2, 30, 500][random.usize(0..4)],
            trouble: [0, 0, 20, 60, 90, 100][random.usize(0..6)],
            trouble_ends: Duration::from_secs([30, 600, 7200][random.usize(0..3)]),
            each: Duration::from_millis([0, 0, 1, 30, 1000][random.usize(0..5)]),
            probes: random.bool(),
        }
    }

    fn dice(&self, value: u64) -> u64 {
        Rng::with_seed(self.seed ^ value.wrapping_mul(0x9E37_79B9_7F4A_7C15)).u64(..)
    }

    /// How the receiver fails on this event, if it is poison.
    fn poison(&self, id: u64) -> Option<Verdict> {
        let dice = self.dice(id);
        let statuses = [
            302, 400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504,
        ];
        (id < FILLERS && dice % 1000 < self.poison_per_mille).then(|| match dice >> 32 & 15 {
            at @ 0..=12 => answered(statuses[at as usize]),
            13 => failed(Cause::Other),
            _ => failed(Cause::Timeout),
        })
    }
}

/// Events from this number on are good: they are the ongoing traffic.
const FILLERS: u64 = 1_000_000;

/// How often each state was seen.
#[derive(Debug, Default)]
struct Seen {
    divided: u64,
    parked: u64,
    refused: u64,
    undeliverable: u64,
    shrunk: u64,
    grown: u64,
    outage: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Seen) {
        self.divided += other.divided;
        self.parked += other.parked;
        self.refused += other.refused;
        self.undeliverable += other.undeliverable;
        self.shrunk += other.shrunk;
        self.grown += other.grown;
        self.outage += other.outage;
    }
}

fn receiver(plan: Plan) -> (Fake, Arc<Mutex<super::fake::Log>>) {
    let ends = Instant::now() + plan.trouble_ends;
    Fake::new(move |request, ids, _| {
        if ids.is_empty() && plan.probes {
            return (Duration::from_millis(1), accepted());
        }
        let dice = plan.dice(!(request as u64));
        let trouble = Instant::now() < ends;
        let poison = ids.iter().find_map(|id| plan.poison(*id));
        let took = Duration::from_millis(dice >> 32 & 0xff)
            + match trouble {
                true => plan.each * u32::try_from(ids.len()).unwrap(),
                false => Duration::ZERO,
            };
        let verdict = if trouble && dice % 100 < plan.trouble {
            match dice >> 16 & 7 {
                0 => answered(401),
                1 => answered_after(429, 5),
                2 => answered_after(429, 0),
                3 => failed(Cause::Connect),
                4 => failed(Cause::Timeout),
                5 if ids.len() > 1 => answered(413),
                _ => answered(503),
            }
        } else {
            poison.unwrap_or_else(accepted)
        };
        match took > TIMEOUT || verdict == failed(Cause::Timeout) {
            true => (TIMEOUT, failed(Cause::Timeout)),
            false => (took, verdict),
        }
    })
}

async fn check(plan: Plan) -> Seen {
    let (fake, log) = receiver(plan);
    let mut delivery = delivery(fake, plan.slots);
    let mut ends = Ends::default();
    let mut seen = Seen::default();
    let (mut started, mut fillers, mut order_kept) = (0, 0, true);
    let begin = Instant::now();
    let events = plan.batches * plan.batch_events;
    let ended = |ends: &Ends| ends.refused.len() + ends.undeliverable.len() + ends.delivered.len();
    let mut largest = usize::MAX;
    while (ended(&ends) as u64) < events + fillers {
        assert!(
            begin.elapsed() < Duration::from_secs(48 * 3600),
            "{delivery:?} {ends:?}"
        );
        if delivery.has_room() {
            if started < plan.batches {
                let from = started * plan.batch_events;
                delivery.start(batch(from..from + plan.batch_events));
                started += 1;
            } else if fillers < 50_000 {
                delivery.start(batch([FILLERS + fillers]));
                fillers += 1;
            }
        }
        let wait = match started < plan.batches {
            true => Duration::from_millis(200),
            false => Duration::from_secs(30),
        };
        ends += receipts_for(&mut delivery, wait).await;
        let status = delivery.status();
        seen.parked += u64::from(status.parked.events > 0);
        seen.outage += u64::from(status.outage.is_some());
        seen.shrunk += u64::from(status.request_events_max < largest);
        seen.grown += u64::from(status.request_events_max > largest);
        largest = status.request_events_max;
        order_kept &= status.parked.events == 0;
    }
    let (bad, good): (Vec<u64>, Vec<u64>) = (0..events).partition(|id| plan.poison(*id).is_some());
    if plan.slots == 1 && order_kept && bad.is_empty() && plan.trouble == 0 {
        assert!(ends.delivered.is_sorted(), "one slot keeps the order");
    }
    let mut ends = ends.sorted();
    ends.delivered.retain(|id| *id < FILLERS);
    assert_eq!(ends.delivered, good, "each once, and none but the good");
    seen.refused = ends.refused.len() as u64;
    seen.undeliverable = ends.undeliverable.len() as u64;
    for id in &ends.refused {
        let poison = plan.poison(*id).map(|verdict| verdict.label());
        let label = poison.as_deref();
        assert!(
            matches!(label, Some("400" | "413" | "422")),
            "{id}: {label:?}"
        );
    }
    let mut given_up = [ends.refused, ends.undeliverable].concat();
    given_up.sort_unstable();
    assert_eq!(given_up, bad, "each once, and none but the poison");
    assert!(delivery.is_idle() && delivery.in_flight_bytes() == 0);
    let log = log.lock().unwrap();
    assert!(
        log.at_once_max <= plan.slots * 2,
        "as many more for parked events"
    );
    let distinct: BTreeSet<u64> = log.accepted.iter().copied().collect();
    assert_eq!(distinct.len(), log.accepted.len(), "none was sent again");
    let whole = plan.batch_events.try_into().unwrap();
    let parts = log
        .requests
        .iter()
        .filter(|(_, ids)| ids[0] < FILLERS && ids.len() < whole);
    seen.divided = parts.count() as u64;
    seen
}

#[test]
fn delivery_random_schedule_ends_every_event_where_it_belongs() {
    let seeds = repeat::schedules(300);
    let all = seeds.end - seeds.start;
    let mut seen = Seen::default();
    for seed in seeds {
        let plan = Plan::of(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(check(plan)));
        match std::panic::catch_unwind(run) {
            Ok(of_this) => seen += of_this,
            Err(panic) => {
                println!("SEED={seed} {plan:?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{seen:?}");
    if all >= 300 {
        let Seen {
            divided,
            parked,
            refused,
            undeliverable,
            shrunk,
            grown,
            outage,
        } = seen;
        let least = [
            divided,
            parked,
            refused,
            undeliverable,
            shrunk,
            grown,
            outage,
        ];
        assert!(
            least.iter().all(|times| *times > 20),
            "seldom reached: {seen:?}"
        );
    }
}
