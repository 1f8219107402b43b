//! One event on which the receiver, or a proxy before it, always fails.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::deliver::{ALONE_FAILURES_MAX, ALONE_TIME_MIN, Delivery, PARKED_BYTES_MAX};
use audit_bridge_core::sink::{Cause, Verdict};
use tokio::time::Instant;

use super::fake::{Fake, Log, accepted, answered, answered_after, failed};
use super::{Ends, batch, deliver_all, delivery, receipts_for};

/// How a receiver may fail on one event, and how long that takes.
fn poisons() -> Vec<(Verdict, Duration)> {
    let quick = Duration::from_millis(5);
    let mut all: Vec<(Verdict, Duration)> = [
        302, 401, 403, 404, 405, 408, 409, 429, 451, 500, 502, 503, 504,
    ]
    .into_iter()
    .map(|status| (answered(status), quick))
    .collect();
    all.push((answered_after(503, 2), quick));
    all.push((failed(Cause::Other), quick));
    all.push((failed(Cause::Timeout), Duration::from_secs(10)));
    all
}

/// A receiver that fails on these events and accepts all others.
fn failing_on(
    poison: impl Fn(u64) -> bool + Send + Sync + 'static,
    (verdict, took): (Verdict, Duration),
) -> (Fake, Arc<Mutex<Log>>) {
    Fake::new(move |_, ids, _| match ids.iter().any(|id| poison(*id)) {
        true => (took, verdict.clone()),
        false => (Duration::from_millis(5), accepted()),
    })
}

/// Sends a batch of ten at intervals, starting with event `from`, for this long.
async fn traffic(delivery: &mut Delivery<Fake>, from: u64, time: Duration) -> Ends {
    let until = Instant::now() + time;
    let mut ends = Ends::default();
    let mut next = from;
    while Instant::now() < until {
        if delivery.has_room() {
            delivery.start(batch(next..next + 10));
            next += 10;
        }
        ends += receipts_for(delivery, Duration::from_secs(5)).await;
    }
    ends
}

#[tokio::test(start_paused = true)]
async fn event_failing_among_400_is_parked_then_undeliverable() {
    for slots in [1, 4] {
        for (place, poison) in poisons().into_iter().enumerate() {
            let culprit = [0, 133, 200, 399][place % 4];
            let (fake, log) = failing_on(move |id| id == culprit, poison.clone());
            let mut delivery = delivery(fake, slots);
            let began = Instant::now();
            delivery.start(batch(0..400));
            let mut ends = traffic(&mut delivery, 1000, Duration::from_secs(300)).await;
            ends.delivered.retain(|id| *id < 1000);
            ends.delivered.sort_unstable();
            let neighbours: Vec<u64> = (0..400).filter(|id| *id != culprit).collect();
            assert_eq!(ends.delivered, neighbours, "{poison:?} at {culprit}");
            assert!(ends.refused.is_empty() && ends.undeliverable.is_empty());
            let status = delivery.status();
            assert_eq!(
                status.parked.events, 1,
                "{poison:?} at {culprit}, {slots} slots"
            );
            assert!(status.parked.bytes > 100 && status.parked.oldest.is_some());
            assert_eq!(status.outage, None, "others are accepted");
            assert!(delivery.has_room(), "it takes no slot");
            assert_eq!(delivery.parked_records().count(), 1);

            let ends = traffic(&mut delivery, 10_000, Duration::from_secs(1500)).await;
            assert_eq!(ends.undeliverable, [culprit], "{poison:?} at {culprit}");
            assert_eq!(delivery.status().parked.events, 0);
            let log = log.lock().unwrap();
            let mut alone = log.requests.iter().filter(|(_, ids)| *ids == [culprit]);
            assert!(alone.clone().count() >= ALONE_FAILURES_MAX as usize);
            assert!(alone.clone().count() < 30, "{}", alone.count());
            let last = alone.next_back().unwrap().0;
            assert!(last.duration_since(began) >= ALONE_TIME_MIN);
            let distinct: BTreeSet<u64> = log.accepted.iter().copied().collect();
            assert_eq!(distinct.len(), log.accepted.len(), "none twice");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn event_failing_neighbours_arrive_within_seconds() {
    for slots in [1, 4] {
        for culprit in [0, 57, 399] {
            let (fake, log) = failing_on(move |id| id == culprit, poisons()[2].clone());
            let mut delivery = delivery(fake, slots);
            delivery.start(batch(0..400));
            let ends = receipts_for(&mut delivery, Duration::from_secs(15)).await;
            assert_eq!(ends.delivered.len(), 399, "at {culprit} in {slots} slots");
            if slots == 1 {
                assert!(ends.delivered.is_sorted(), "one slot keeps the order");
            }
            let requests = log.lock().unwrap().requests.len();
            assert!(requests < 40, "{requests} requests");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn event_with_long_retry_after_does_not_stop_others() {
    let answer = (answered_after(429, 600), Duration::from_millis(5));
    let (fake, _) = failing_on(|id| id == 507, answer);
    let mut delivery = delivery(fake, 4);
    let until = Instant::now() + Duration::from_secs(300);
    let (mut from, mut ends) = (0, Ends::default());
    while Instant::now() < until {
        if delivery.has_room() {
            delivery.start(batch(from..from + 10));
            from += 10;
        }
        ends += receipts_for(&mut delivery, Duration::from_millis(100)).await;
    }
    assert_eq!(ends.delivered.len() as u64, from - 1);
    assert!(from > 20_000 && delivery.status().parked.events == 1);
}

/// Nothing was accepted before, so the answer may concern everything.
#[tokio::test(start_paused = true)]
async fn first_event_with_long_retry_after_holds_others_minutes_at_most() {
    for (size, slots) in [(100, 1), (1, 1), (10, 4)] {
        let answer = (answered_after(503, 600), Duration::from_millis(5));
        let (fake, _) = failing_on(|id| id == 0, answer);
        let mut delivery = delivery(fake, slots);
        let until = Instant::now() + Duration::from_secs(180);
        let (mut from, mut ends) = (0, Ends::default());
        while Instant::now() < until {
            if delivery.has_room() && from < 100 {
                delivery.start(batch(from..from + size));
                from += size;
            }
            ends += receipts_for(&mut delivery, Duration::from_millis(100)).await;
        }
        let delivered = ends.delivered.len();
        assert_eq!(delivered, 99, "{size} events a batch, {slots} slots");
    }
}

#[tokio::test(start_paused = true)]
async fn event_failing_at_first_is_delivered_once_accepted() {
    let until = Instant::now() + Duration::from_secs(600);
    let (fake, _) = Fake::new(move |_, ids, _| {
        let verdict = match ids.contains(&7) && Instant::now() < until {
            true => answered(500),
            false => accepted(),
        };
        (Duration::from_millis(5), verdict)
    });
    let mut delivery = delivery(fake, 2);
    delivery.start(batch(0..20));
    let ends = traffic(&mut delivery, 1000, Duration::from_secs(1200)).await;
    assert!(ends.delivered.contains(&7) && ends.undeliverable.is_empty());
    assert_eq!(delivery.status().parked.events, 0);
}

#[tokio::test(start_paused = true)]
async fn parked_event_stays_while_nothing_is_accepted() {
    let outage_at = Instant::now() + Duration::from_secs(120);
    let back_at = outage_at + Duration::from_secs(86_400);
    let (fake, log) = Fake::new(move |_, ids, _| {
        let outage = (outage_at..back_at).contains(&Instant::now());
        let verdict = match outage || ids.contains(&7) {
            true => answered(403),
            false => accepted(),
        };
        (Duration::from_millis(5), verdict)
    });
    let mut delivery = delivery(fake, 4);
    delivery.start(batch(0..20));
    let ends = traffic(&mut delivery, 1000, Duration::from_secs(110)).await;
    assert_eq!(delivery.status().parked.events, 1);
    assert!(ends.undeliverable.is_empty());
    receipts_for(&mut delivery, Duration::from_secs(20)).await;
    let requests = log.lock().unwrap().requests.len();
    delivery.start(batch(100..110));
    let ends = receipts_for(&mut delivery, Duration::from_secs(80_000)).await;
    assert_eq!(
        ends.undeliverable,
        [] as [u64; 0],
        "nothing is accepted, nothing is given up"
    );
    let requests = log.lock().unwrap().requests.len() - requests;
    assert!(requests < 20_000, "no hammering, but {requests}");
    let outage = delivery.status().outage.expect("nothing is accepted");
    assert_eq!(outage.remedy, "check --webhook-token-file");
    let ends = traffic(&mut delivery, 10_000, Duration::from_secs(10_000)).await;
    assert_eq!(ends.undeliverable, [7]);
    assert!((100..110).all(|id| ends.delivered.contains(&id)));
}

#[tokio::test(start_paused = true)]
async fn parked_events_above_8_mib_the_oldest_goes_at_once() {
    const SIZE: usize = 200_000;
    let (fake, _) = failing_on(|id| id < 100, poisons()[2].clone());
    let mut delivery = delivery(fake, 2);
    let start = Instant::now();
    let mut ends = Ends::default();
    for id in 0..60 {
        while !delivery.has_room() {
            ends.take(delivery.next().await);
        }
        delivery.start(super::batch_of([(id, SIZE), (1000 + id, 10)]));
        ends += receipts_for(&mut delivery, Duration::from_secs(1)).await;
        assert!(delivery.status().parked.bytes <= PARKED_BYTES_MAX);
    }
    ends += receipts_for(&mut delivery, Duration::from_secs(60)).await;
    assert!(start.elapsed() < ALONE_TIME_MIN);
    assert_eq!(ends.sorted().delivered.len(), 60);
    let kept = PARKED_BYTES_MAX / SIZE;
    assert_eq!(delivery.status().parked.events, kept);
    assert_eq!(
        delivery.in_flight_bytes(),
        0,
        "parked bytes are not in flight"
    );
}

/// An empty list that is accepted shows too little to give up an event, whatever the room.
#[tokio::test(start_paused = true)]
async fn receiver_that_accepts_only_empty_lists_loses_nothing() {
    for (status, asks) in [(400, 0), (403, 0), (413, 0), (500, 0), (503, 20)] {
        for slots in [1, 4] {
            let mended_at = Instant::now() + Duration::from_secs(86_400);
            let (fake, log) = Fake::new(move |_, ids, _| {
                let works = ids.is_empty() || Instant::now() >= mended_at;
                let verdict = match works {
                    true => accepted(),
                    false => answered_after(status, asks),
                };
                (Duration::from_millis(5), verdict)
            });
            let mut delivery = delivery(fake, slots);
            let (mut ends, mut from) = (Ends::default(), 0);
            while Instant::now() < mended_at {
                if delivery.has_room() && delivery.in_flight_bytes() < 4 << 20 {
                    delivery.start(super::batch_of((from..from + 40).map(|id| (id, 20_000))));
                    from += 40;
                }
                ends += receipts_for(&mut delivery, Duration::from_secs(10)).await;
                delivery.give_up_culprits(Instant::now(), Duration::from_secs(300));
            }
            let what = format!("{status} in {slots} slots");
            assert_eq!(ends, Ends::default(), "{what}");
            let status = delivery.status();
            let outage = status.outage.expect("nothing is accepted");
            assert!(outage.remedy.contains("empty list"), "{what}: {outage:?}");
            assert!(status.parked.bytes <= PARKED_BYTES_MAX, "{what}");
            let least = PARKED_BYTES_MAX * 9 / 10;
            assert!(
                status.parked.bytes > least,
                "{what}, {}",
                status.parked.bytes
            );
            let five = Duration::from_secs(300);
            assert!(delivery.gave_up(Instant::now(), five).is_some(), "{what}");
            {
                let log = log.lock().unwrap();
                let (requests, probes) = (log.requests.len(), log.probes.len());
                assert!(
                    requests < 100_000 && probes < 10_000,
                    "{requests}, {probes}"
                );
                // It may be overloaded.
                let times: Vec<Instant> = log.requests.iter().map(|(at, _)| *at).collect();
                let seconds = times.windows(300).map(|some| some[299] - some[0]);
                let least = seconds.min().unwrap();
                let politely = Duration::from_secs(if asks > 0 { 10 } else { 1 });
                assert!(least > politely, "{what}: {least:?} for 300");
            }
            ends += receipts_for(&mut delivery, Duration::from_secs(120)).await;
            assert!(delivery.is_idle(), "{what}");
            assert_eq!(ends.sorted().delivered, (0..from).collect::<Vec<_>>());
        }
    }
}

/// The receiver accepts empty lists, and a single request of events now and then.
#[tokio::test(start_paused = true)]
async fn receiver_that_accepts_an_event_in_an_outage_gives_up_few_others() {
    for status in [400, 403, 413, 503] {
        for size in [300, 8000] {
            let begins = Instant::now();
            let last = Mutex::new(0);
            let (fake, _) = Fake::new(move |_, ids, _| {
                let second = begins.elapsed().as_secs();
                let mut last = last.lock().unwrap();
                // Once after 40, and once after 70 seconds.
                let now_and_then = [40, 70].into_iter().filter(|at| *at <= second).max();
                let is_first = now_and_then.is_some_and(|at| at > *last);
                let works = ids.is_empty() || !(3..100).contains(&second) || is_first;
                if is_first && !ids.is_empty() {
                    *last = second;
                }
                let verdict = if works { accepted() } else { answered(status) };
                (Duration::from_millis(5), verdict)
            });
            let mut delivery = delivery(fake, 4);
            let (mut ends, mut started) = (Ends::default(), 0);
            for second in 1..400 {
                while delivery.has_room()
                    && started < second.min(100) * 60
                    && delivery.in_flight_bytes() < 8 << 20
                {
                    let to = (second.min(100) * 60).min(started + 400);
                    delivery.start(super::batch_of((started..to).map(|id| (id, size))));
                    started = to;
                }
                ends += receipts_for(&mut delivery, Duration::from_secs(1)).await;
            }
            let what = format!("{status}, {size}");
            // Just after an acceptance, a few of each batch are given up.
            let given_up = ends.refused.len() + ends.undeliverable.len();
            assert!(given_up <= 300, "{what}: {given_up}");
            assert_eq!(ends.delivered.len() + given_up, 6000, "{what}");
        }
    }
}

/// At the end of a replay, too.
#[tokio::test(start_paused = true)]
async fn receiver_that_refuses_for_a_while_gives_up_no_event_at_the_end_of_a_replay() {
    for status in [400, 413] {
        let begins = Instant::now();
        let (fake, _) = Fake::new(move |_, ids, _| {
            let outage =
                (Duration::from_millis(20)..Duration::from_secs(60)).contains(&begins.elapsed());
            let verdict = match outage && !ids.is_empty() {
                true => answered(status),
                false => accepted(),
            };
            (Duration::from_millis(5), verdict)
        });
        let mut delivery = delivery(fake, 4);
        let (mut ends, mut started) = (Ends::default(), 0);
        while begins.elapsed() < Duration::from_secs(120) {
            while delivery.has_room() && started < 5000 {
                delivery.start(batch(started..started + 50));
                started += 50;
            }
            ends += receipts_for(&mut delivery, Duration::from_millis(250)).await;
            if started == 5000 {
                delivery.give_up_culprits(Instant::now(), Duration::from_secs(300));
            }
        }
        assert_eq!(ends.sorted().delivered, (0..5000).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn events_failing_in_a_row_do_not_stop_others() {
    for slots in [1, 4] {
        // Batches of only such events first, then others between them.
        let (fake, _) = failing_on(|id| id < 1600 || id % 10 == 3, poisons()[2].clone());
        let mut delivery = delivery(fake, slots);
        let mut ends = Ends::default();
        let mut from = 0;
        let start = Instant::now();
        while from < 4000 {
            if delivery.has_room() {
                delivery.start(batch(from..from + 200));
                from += 200;
            }
            ends += receipts_for(&mut delivery, Duration::from_millis(500)).await;
        }
        ends += receipts_for(&mut delivery, Duration::from_secs(600)).await;
        let took = start.elapsed();
        assert!(
            took < Duration::from_secs(3 * 3600),
            "{slots} slots: {took:?}"
        );
        let good = (1600..4000).filter(|id| id % 10 != 3).count();
        assert_eq!(ends.delivered.len(), good, "{slots} slots");
    }
}

#[tokio::test(start_paused = true)]
async fn parked_events_at_end_of_replay_are_given_up() {
    let (fake, _) = failing_on(|id| id == 3, poisons()[2].clone());
    let mut delivery = delivery(fake, 1);
    let five = Duration::from_secs(300);
    delivery.start(batch(0..10));
    let ends = receipts_for(&mut delivery, Duration::from_secs(290)).await;
    assert_eq!(ends.delivered.len(), 9);
    delivery.give_up_culprits(Instant::now(), five);
    assert!(!delivery.is_idle() && delivery.only_parked(), "not yet");
    receipts_for(&mut delivery, Duration::from_secs(20)).await;
    assert_eq!(delivery.gave_up(Instant::now(), five), None);
    delivery.give_up_culprits(Instant::now(), five);
    let ends = deliver_all(&mut delivery, []).await;
    assert_eq!(ends.undeliverable, [3]);
}

#[tokio::test(start_paused = true)]
async fn events_failing_in_a_row_at_end_of_replay_are_given_up() {
    for poison in poisons() {
        let (fake, _) = failing_on(|id| (17..20).contains(&id), poison);
        let mut delivery = delivery(fake, 1);
        let five = Duration::from_secs(300);
        delivery.start(batch(0..20));
        let ends = receipts_for(&mut delivery, Duration::from_secs(1000)).await;
        assert_eq!(ends.delivered, (0..17).collect::<Vec<_>>());
        delivery.give_up_culprits(Instant::now(), five);
        let ends = deliver_all(&mut delivery, []).await;
        assert_eq!(ends.undeliverable.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn events_refused_in_a_row_behind_accepted_ones_are_refused() {
    let (fake, _) = Fake::refusing(|id| (17..20).contains(&id));
    let mut delivery = delivery(fake, 1);
    delivery.start(batch(0..20));
    let ends = receipts_for(&mut delivery, Duration::from_secs(15)).await;
    assert!(delivery.is_idle());
    assert_eq!(ends.refused.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn last_batch_of_replay_refused_whole_is_given_up_soon() {
    let (fake, _) = Fake::refusing(|id| id >= 17);
    let mut delivery = delivery(fake, 1);
    let five = Duration::from_secs(300);
    let mut ends = Ends::default();
    for batch in [batch(0..17), batch(17..20)] {
        delivery.start(batch);
        ends += receipts_for(&mut delivery, Duration::from_secs(15)).await;
    }
    assert_eq!(ends.delivered.len(), 17);
    delivery.give_up_culprits(Instant::now(), five);
    let ends = deliver_all(&mut delivery, []).await;
    assert_eq!(ends.refused.len(), 3);
}

/// The slot never waits meanwhile: each refusal is compared with another at once.
#[tokio::test(start_paused = true)]
async fn last_batch_of_replay_refused_slowly_says_what_the_receiver_said() {
    let (fake, _) = Fake::new(|_, ids, _| match ids[0] >= 17 {
        true => (Duration::from_secs(3), answered(400)),
        false => (Duration::from_millis(5), accepted()),
    });
    let mut delivery = delivery(fake, 1);
    deliver_all(&mut delivery, [batch(0..17)]).await;
    delivery.start(batch(17..20));
    receipts_for(&mut delivery, Duration::from_secs(16)).await;
    delivery.give_up_culprits(Instant::now(), Duration::from_secs(300));
    // Which looks at the text of each.
    let ends = deliver_all(&mut delivery, []).await;
    assert_eq!(ends.refused.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn outage_at_end_of_replay_gives_up_no_event() {
    let (fake, _) = Fake::new(|request, _, _| match request < 3 {
        true => (Duration::from_millis(5), accepted()),
        false => (Duration::from_millis(5), answered(503)),
    });
    let mut delivery = delivery(fake, 1);
    let five = Duration::from_secs(300);
    deliver_all(&mut delivery, (0..3).map(|id| batch([id]))).await;
    delivery.start(batch([3]));
    let ends = receipts_for(&mut delivery, Duration::from_secs(1000)).await;
    assert_eq!(ends, Ends::default());
    delivery.give_up_culprits(Instant::now(), five);
    assert!(!delivery.only_parked());
    assert!(delivery.gave_up(Instant::now(), five).is_some());
}

#[tokio::test(start_paused = true)]
async fn receiver_failing_at_random_loses_nothing() {
    // Each request fails with this probability, regardless of its events.
    for percent in [20, 50, 80] {
        let (fake, _) = Fake::new(move |request, _, _| {
            let dice = fastrand::Rng::with_seed(request as u64 * 7919).u32(0..100);
            let verdict = match dice < percent {
                true => answered(502),
                false => accepted(),
            };
            (Duration::from_millis(20), verdict)
        });
        let mut delivery = delivery(fake, 4);
        let batches = (0..50).map(|at| batch(at * 100..at * 100 + 100));
        let ends = deliver_all(&mut delivery, batches).await;
        assert_eq!(ends.delivered.len(), 5000, "{percent} %");
    }
}

/// Somebody writes as many events that the receiver never takes as others do, or many more.
#[tokio::test(start_paused = true)]
async fn events_failing_in_numbers_do_not_hold_up_the_others() {
    for (status, good_of_256) in [
        (403, 128),
        (403, 26),
        (500, 64),
        (400, 192),
        (400, 128),
        (400, 26),
        (413, 128),
    ] {
        for slots in [1, 4] {
            let hash = |id: u64| id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let is_good = move |id: u64| (hash(id) & 0xff) < good_of_256;
            let poison = (answered(status), Duration::from_millis(5));
            let (fake, _) = failing_on(move |id| !is_good(id), poison);
            let mut delivery = delivery(fake, slots);
            let (mut ends, began) = (Ends::default(), Instant::now());
            let mut batches = (0..10).map(|number| batch(number * 400..(number + 1) * 400));
            let good = (0..4000).filter(|id| is_good(*id)).count();
            while ends.delivered.len() < good {
                while delivery.has_room()
                    && let Some(batch) = batches.next()
                {
                    delivery.start(batch);
                }
                ends += receipts_for(&mut delivery, Duration::from_millis(100)).await;
                let (took, there) = (began.elapsed(), ends.delivered.len());
                assert!(
                    took < Duration::from_secs(300),
                    "{status} in {slots} slots: {there} of {good} after {took:?}"
                );
            }
        }
    }
}

/// The same, live: for a minute somebody writes twenty for each event of others, or thousands. The
/// others go on.
#[tokio::test(start_paused = true)]
async fn events_failing_in_a_stream_do_not_hold_up_the_others() {
    for (status, millis, a_second, for_each) in [
        (403, 1, 210, 21),
        (500, 5, 210, 21),
        (403, 5, 50, 500),
        (500, 20, 20, 1200),
        (403, 5, 210, 2100),
        (400, 5, 210, 2100),
        (413, 5, 210, 2100),
    ] {
        let poison_until = 60 * a_second;
        let hash = |id: u64| id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let is_good = move |id: u64| id >= poison_until || hash(id) % for_each == 0;
        let (took, failed) = (Duration::from_millis(millis), answered(status));
        let (fake, _) = Fake::new(move |_, ids, _| match ids.iter().all(|id| is_good(*id)) {
            true => (took, accepted()),
            false => (took, failed.clone()),
        });
        let mut delivery = delivery(fake, 4);
        let (mut started, mut delivered) = (0_u64, 0);
        let began = Instant::now();
        for second in 1..=90 {
            let now = began.elapsed().as_secs();
            let written = now.min(60) * a_second + now.saturating_sub(60) * 10;
            while delivery.has_room() && written > started {
                let len = (written - started).min(400);
                delivery.start(batch(started..started + len));
                started += len;
            }
            let ends = receipts_for(&mut delivery, Duration::from_secs(1)).await;
            let mut given_up = ends.undeliverable.iter().chain(&ends.refused);
            assert!(given_up.all(|id| !is_good(*id)));
            delivered += ends.delivered.len();
            let good = (0..written).filter(|id| is_good(*id)).count();
            let most = match second {
                ..75 if for_each < 100 => 200,
                ..75 => 100,
                _ => 30,
            };
            let late = good - delivered;
            assert!(
                late <= most,
                "{status}, {a_second} a second, one of {for_each}: {late} late at {second} s"
            );
        }
    }
}

/// Each attempt takes ten seconds: one at a time, sixty events would not be given up for hours, and
/// would hold the position as long.
#[tokio::test(start_paused = true)]
async fn many_events_timing_out_are_undeliverable_within_the_hour() {
    let (fake, log) = failing_on(|id| id < 60, poisons().pop().unwrap());
    let mut delivery = delivery(fake, 4);
    delivery.start(batch(0..60));
    let ends = traffic(&mut delivery, 1000, Duration::from_secs(3600)).await;
    assert_eq!(ends.sorted().undeliverable, (0..60).collect::<Vec<_>>());
    let log = log.lock().unwrap();
    assert!(log.at_once_max <= 4 + 4, "{} at once", log.at_once_max);
}
