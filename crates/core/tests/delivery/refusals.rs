//! Refused bodies: delivery finds the refused event, and gives it up only if others are accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::fake::{Fake, accepted, answered};
use super::{Ends, batch, deliver_all, delivery, receipts_for};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn bisection_isolates_poison_and_delivers_others_once(
        poison in proptest::collection::btree_set(0_u64..400, 0..20),
        slots in 1_usize..5,
        size in 1_u64..400,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let set = poison.clone();
            let (fake, log) = Fake::refusing(move |id| set.contains(&id));
            let mut delivery = delivery(fake, slots);
            let batches = (0..=400).step_by(usize::try_from(size).unwrap());
            let batches = batches.map(|from| batch(from..(from + size).min(401)));
            // Other events arrive later, so that bad events can be told from a bad receiver.
            let mut ends = Ends::default();
            for batch in batches.chain((401..406).map(|id| batch([id]))) {
                while !delivery.has_room() {
                    ends.take(delivery.next().await);
                }
                let last = batch.items.len() == 1;
                delivery.start(batch);
                if last {
                    ends += receipts_for(&mut delivery, Duration::from_secs(60)).await;
                }
            }
            ends += deliver_all(&mut delivery, []).await;
            let ends = ends.sorted();
            let good: Vec<u64> = (0..406).filter(|id| !poison.contains(id)).collect();
            assert_eq!(ends.delivered, good);
            assert_eq!(ends.refused, poison.into_iter().collect::<Vec<_>>());
            let log = log.lock().unwrap();
            assert!(log.at_once_max <= slots);
            assert_eq!(log.accepted.len(), good.len(), "each exactly once");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn bisection_of_k_in_n_takes_about_k_log_n_requests() {
    let (fake, log) = Fake::refusing(|id| [3, 77, 78, 399].contains(&id));
    let mut delivery = delivery(fake, 1);
    let ends = deliver_all(&mut delivery, [batch(0..400)]).await;
    assert_eq!(ends.refused.len(), 4);
    let expected: Vec<u64> = (0..400)
        .filter(|id| ![3, 77, 78, 399].contains(id))
        .collect();
    assert_eq!(ends.delivered, expected, "one slot keeps the order");
    assert_eq!(log.lock().unwrap().accepted, expected, "each exactly once");
    let requests = log.lock().unwrap().requests.len();
    assert!(requests <= 4 * 2 * 9 + 1, "{requests}");
}

#[tokio::test(start_paused = true)]
async fn receiver_refusing_everything_is_held_and_loses_nothing() {
    let mended = Arc::new(AtomicBool::new(false));
    let works = Arc::clone(&mended);
    let (fake, log) = Fake::refusing(move |_| !works.load(Ordering::Relaxed));
    let mut delivery = delivery(fake, 4);
    for from in [0, 100, 200] {
        delivery.start(batch(from..from + 100));
    }
    let ends = receipts_for(&mut delivery, Duration::from_secs(86_400)).await;
    assert_eq!(ends, Ends::default(), "a day, and nothing was dropped");
    assert!(delivery.status().outage.expect("it holds").hold);
    assert_eq!(
        delivery.status().parked.events,
        300,
        "an empty list is accepted"
    );
    assert!(
        delivery.has_room(),
        "another batch may be the first to get through"
    );
    let (requests, probes) = {
        let log = log.lock().unwrap();
        (log.requests.len(), log.probes.len())
    };
    assert!(requests < 12_000, "no hammering, but {requests} in a day");
    assert!(probes < 10, "only while a batch is in flight, but {probes}");
    let message = delivery
        .gave_up(tokio::time::Instant::now(), Duration::from_secs(300))
        .expect("long enough");
    assert!(message.contains("400"), "{message}");

    mended.store(true, Ordering::Relaxed);
    let before = tokio::time::Instant::now();
    let ends = deliver_all(&mut delivery, []).await.sorted();
    assert_eq!(ends.delivered, (0..300).collect::<Vec<_>>());
    assert!(before.elapsed() < Duration::from_secs(60));
    assert_eq!(delivery.status().outage, None);
}

#[tokio::test(start_paused = true)]
async fn stream_of_poison_only_waits_for_an_acceptance() {
    for slots in [1, 4] {
        let (fake, log) = Fake::refusing(|id| id < 10);
        let mut delivery = delivery(fake, slots);
        for id in 0..10 {
            while !delivery.has_room() {
                receipts_for(&mut delivery, Duration::from_millis(10)).await;
            }
            delivery.start(batch([id]));
        }
        let ends = receipts_for(&mut delivery, Duration::from_secs(3600)).await;
        assert_eq!(ends, Ends::default());
        assert!(delivery.status().outage.is_some());

        let before = tokio::time::Instant::now();
        let ends = deliver_all(&mut delivery, [batch([10])]).await.sorted();
        assert_eq!(ends.delivered, [10]);
        assert_eq!(ends.refused, (0..10).collect::<Vec<_>>());
        assert!(
            before.elapsed() < Duration::from_secs(1),
            "proof is used at once"
        );
        assert_eq!(delivery.status().outage, None);
        // Each was retried after another event was accepted.
        let log = log.lock().unwrap();
        let proof = log
            .requests
            .iter()
            .position(|(_, ids)| ids == &[10])
            .unwrap();
        for id in 0..10 {
            let again = log.requests[proof..]
                .iter()
                .filter(|(_, ids)| ids.contains(&id));
            assert!(again.count() > 0, "{id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn parked_events_do_not_block_others() {
    let (fake, _) = Fake::new(|request, ids, _| {
        let verdict = match ids.contains(&0) || request < 3 {
            true => answered(422),
            false => accepted(),
        };
        (Duration::from_millis(1), verdict)
    });
    let mut delivery = delivery(fake, 1);
    let ends = deliver_all(&mut delivery, (0..5).map(|id| batch([id])))
        .await
        .sorted();
    assert_eq!(ends.refused, [0]);
    assert_eq!(ends.delivered, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn last_event_of_quiet_stream_refused_waits_for_next_one() {
    let (fake, log) = Fake::refusing(|id| id == 5);
    let mut delivery = delivery(fake, 1);
    let mut ends = Ends::default();
    for id in 0..6 {
        delivery.start(batch([id]));
        ends += receipts_for(&mut delivery, Duration::from_secs(600)).await;
    }
    assert_eq!(ends.delivered, [0, 1, 2, 3, 4]);
    assert!(delivery.has_room() && delivery.status().outage.is_some());
    let ends = deliver_all(&mut delivery, [batch([6])]).await;
    assert_eq!((ends.delivered, ends.refused), (vec![6], vec![5]));
    assert_eq!(
        log.lock().unwrap().accepted,
        [0, 1, 2, 3, 4, 6],
        "none twice"
    );
}

#[tokio::test(start_paused = true)]
async fn receiver_turning_bad_is_not_judged_by_old_acceptance() {
    // Works for ten requests, then refuses everything.
    let (fake, _) = Fake::new(|request, _, _| {
        let verdict = match request < 10 {
            true => accepted(),
            false => answered(400),
        };
        (Duration::from_millis(1 + request as u64 % 3), verdict)
    });
    let mut delivery = delivery(fake, 4);
    let mut ends = Ends::default();
    for from in (0..40).step_by(2) {
        while !delivery.has_room() {
            ends.take(delivery.next().await);
        }
        delivery.start(batch(from..from + 2));
        ends += receipts_for(&mut delivery, Duration::from_millis(5)).await;
    }
    let more = receipts_for(&mut delivery, Duration::from_secs(86_400)).await;
    assert_eq!(ends.delivered.len(), 20);
    assert!(ends.refused.is_empty() && more == Ends::default());
    assert!(delivery.status().outage.is_some());
}

#[tokio::test(start_paused = true)]
async fn event_too_large_alone_goes_without_its_objects() {
    let (fake, _) = Fake::new(|_, ids, events| {
        let objects = |text: &[u8]| text.windows(13).any(|part| part == b"requestObject");
        let large = ids.iter().zip(events).any(|(id, event)| match id {
            2 => objects(event.text()),
            3 => true,
            _ => false,
        });
        let verdict = if large { answered(413) } else { accepted() };
        (Duration::ZERO, verdict)
    });
    let mut delivery = delivery(fake, 1);
    let ends = deliver_all(&mut delivery, [batch(0..5)]).await;
    assert_eq!(ends.delivered, [0, 1, 2, 4]);
    assert_eq!(ends.refused, [3]);
    assert_eq!(ends.stripped, 1);
}
