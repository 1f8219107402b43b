//! Random schedules of verdicts, delays and poison: whatever happens, every event ends once.

use std::collections::BTreeSet;
use std::time::Duration;

use audit_bridge_core::batch::Batch;
use proptest::prelude::*;

use super::fake::{Fake, accepted, answered, answered_after};
use super::{batch, deliver_all, delivery};

#[derive(Debug, Clone)]
struct Case {
    sizes: Vec<u64>,
    poison_per_mille: u64,
    trouble_per_mille: u64,
    slots: usize,
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    (
        proptest::collection::vec(1_u64..30, 1..20),
        prop_oneof![Just(0_u64), 0_u64..100, 0_u64..900],
        0_u64..800,
        1_usize..6,
        any::<u64>(),
    )
        .prop_map(
            |(sizes, poison_per_mille, trouble_per_mille, slots, seed)| Case {
                sizes,
                poison_per_mille,
                trouble_per_mille,
                slots,
                seed,
            },
        )
}

fn mix(seed: u64, value: u64) -> u64 {
    fastrand::Rng::with_seed(seed ^ value.wrapping_mul(0x9E37_79B9_7F4A_7C15)).u64(..)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn every_event_ends_delivered_or_refused(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(case));
    }
}

async fn check(case: Case) {
    let mut batches: Vec<Batch> = Vec::new();
    let mut next = 0;
    for size in &case.sizes {
        batches.push(batch(next..next + size));
        next += size;
    }
    // The last event is good: proof comes in the end.
    let last = next - 1;
    let (seed, per_mille) = (case.seed, case.poison_per_mille);
    let poisoned = move |id: u64| id != last && mix(seed, id) % 1000 < per_mille;
    let trouble_per_mille = case.trouble_per_mille;
    let (fake, log) = Fake::new(move |request, ids, _| {
        let dice = mix(!seed, request as u64);
        let delay = Duration::from_millis(dice >> 32 & 0x3ff);
        let verdict = if dice % 1000 < trouble_per_mille {
            match dice >> 16 & 7 {
                0 => answered(401),
                1 => answered_after(429, 5),
                2 => answered_after(429, 0),
                _ => answered(503),
            }
        } else if ids.iter().any(|id| poisoned(*id)) {
            answered([400, 413, 422][(dice >> 20 & 3) as usize % 3])
        } else {
            accepted()
        };
        (delay, verdict)
    });
    let mut delivery = delivery(fake, case.slots);
    let ends = deliver_all(&mut delivery, batches).await;
    let in_order = ends.delivered.is_sorted();
    let ends = ends.sorted();
    let (bad, good): (Vec<u64>, Vec<u64>) = (0..=last).partition(|id| poisoned(*id));
    assert_eq!(ends.delivered, good, "each once, and none but the good");
    assert_eq!(ends.refused, bad, "each once, and none but the poisoned");
    let log = log.lock().unwrap();
    assert!(log.at_once_max <= case.slots);
    assert_eq!(
        log.accepted.iter().collect::<BTreeSet<_>>().len(),
        good.len()
    );
    assert!(delivery.is_idle() && delivery.status().outage.is_none());
    // Without parked events one slot keeps the order.
    assert!(case.slots > 1 || !bad.is_empty() || in_order);
}
