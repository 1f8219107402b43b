//! Waits, holds, slots, order, and what observers see of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::deliver::{ConcurrencyLimit, Delivery};
use audit_bridge_core::retry;
use audit_bridge_core::sink::Cause;
use tokio::time::Instant;

use super::fake::{Fake, accepted, answered, answered_after, failed};
use super::{Ends, batch, deliver_all, delivery, receipts_for};

#[tokio::test(start_paused = true)]
async fn retry_after_of_one_slot_holds_all_slots() {
    let (fake, log) = Fake::new(|request, _, _| match request {
        0 => (Duration::ZERO, answered_after(429, 20)),
        _ => (Duration::from_millis(1), accepted()),
    });
    let mut delivery = delivery(fake, 2);
    let start = Instant::now();
    delivery.start(batch([0]));
    receipts_for(&mut delivery, Duration::from_secs(1)).await;
    let ends = deliver_all(&mut delivery, [batch([1])]).await.sorted();
    assert_eq!(ends.delivered, [0, 1]);
    let log = log.lock().unwrap();
    assert_eq!(log.requests.len(), 3);
    for (at, ids) in &log.requests[1..] {
        let waited = at.duration_since(start).as_secs_f64();
        assert!((20.0..21.0).contains(&waited), "{ids:?} after {waited}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_continue_for_ever_within_their_bounds() {
    let (fake, log) = Fake::new(|_, _, _| (Duration::ZERO, answered(503)));
    let mut delivery = delivery(fake, 1);
    delivery.start(batch([0]));
    let ends = receipts_for(&mut delivery, Duration::from_secs(7 * 86_400)).await;
    assert_eq!(ends, Ends::default());
    let log = log.lock().unwrap();
    let waits = log.requests.windows(2).map(|two| two[1].0 - two[0].0);
    for (failures, wait) in (1..).zip(waits) {
        let ceiling = retry::ceiling(failures) + Duration::from_millis(2);
        assert!(wait <= ceiling, "{wait:?} after {failures}");
    }
    assert!(log.requests.len() > 20_000);
    let status = delivery.status();
    assert!(!status.outage.expect("nothing is accepted").hold);
    assert!(
        delivery
            .gave_up(Instant::now(), Duration::from_secs(300))
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn recovery_of_receiver_wakes_every_slot() {
    let up_at = Instant::now() + Duration::from_secs(3600);
    let (fake, _) = Fake::new(move |_, _, _| {
        let verdict = match Instant::now() < up_at {
            true => answered(401),
            false => accepted(),
        };
        (Duration::from_millis(1), verdict)
    });
    let mut delivery = delivery(fake, 4);
    (0..4).for_each(|id| delivery.start(batch([id])));
    assert!(!delivery.has_room());
    let ends = receipts_for(&mut delivery, Duration::from_secs(3599)).await;
    assert_eq!(ends, Ends::default());
    let status = delivery.status();
    let outage = status.outage.expect("held");
    assert_eq!(outage.remedy, "check --webhook-token-file");
    assert!(outage.hold);

    let mut ends = Ends::default();
    ends.take(delivery.next().await);
    let first = Instant::now();
    ends.delivered
        .extend(deliver_all(&mut delivery, []).await.delivered);
    assert!(first.elapsed() < Duration::from_millis(100));
    assert_eq!(ends.sorted().delivered, [0, 1, 2, 3]);
    assert_eq!(delivery.status().outage, None);
}

#[tokio::test(start_paused = true)]
async fn slots_bound_requests_and_one_slot_keeps_order() {
    for slots in [1, 3] {
        let (fake, log) = Fake::new(move |request, _, _| {
            let verdict = match request % 4 {
                1 => answered(503),
                2 => answered(403),
                _ => accepted(),
            };
            (Duration::from_millis(20 + request as u64 * 7 % 30), verdict)
        });
        let mut delivery = delivery(fake, slots);
        let ends = deliver_all(&mut delivery, (0..50).map(|n| batch(n * 3..n * 3 + 3))).await;
        let log = log.lock().unwrap();
        assert_eq!(log.at_once_max, slots);
        if slots == 1 {
            assert_eq!(log.accepted, (0..150).collect::<Vec<_>>());
            assert_eq!(ends.delivered, log.accepted);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn delivery_next_dropped_loses_nothing() {
    let (fake, log) = Fake::new(|request, _, _| {
        let verdict = match request % 2 {
            0 => answered(500),
            _ => accepted(),
        };
        (Duration::from_millis(500), verdict)
    });
    let mut delivery = delivery(fake, 1);
    delivery.start(batch([0]));
    let mut ends = Ends::default();
    while !delivery.is_idle() {
        let short = Duration::from_millis(3);
        if let Ok(receipt) = tokio::time::timeout(short, delivery.next()).await {
            ends.take(receipt);
        }
    }
    assert_eq!(ends.delivered, [0]);
    assert_eq!(log.lock().unwrap().requests.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn delivery_next_with_nothing_in_flight_waits() {
    let (fake, _) = Fake::refusing(|_| false);
    let mut delivery = delivery(fake, 1);
    assert!(delivery.is_idle() && delivery.has_room());
    let ends = receipts_for(&mut delivery, Duration::from_secs(86_400)).await;
    assert_eq!(ends, Ends::default());
}

#[tokio::test(start_paused = true)]
async fn give_up_counts_from_last_acceptance_or_first_failure() {
    let (fake, _) = Fake::new(|request, _, _| match request {
        0 => (Duration::ZERO, accepted()),
        _ => (Duration::ZERO, answered(404)),
    });
    let mut delivery = delivery(fake, 1);
    let five = Duration::from_secs(300);
    deliver_all(&mut delivery, [batch([0])]).await;
    receipts_for(&mut delivery, Duration::from_secs(3600)).await;
    assert_eq!(
        delivery.gave_up(Instant::now(), five),
        None,
        "idle is no failure"
    );
    delivery.start(batch([1]));
    receipts_for(&mut delivery, Duration::from_secs(290)).await;
    assert_eq!(delivery.gave_up(Instant::now(), five), None);
    receipts_for(&mut delivery, Duration::from_secs(11)).await;
    let message = delivery.gave_up(Instant::now(), five).expect("over");
    assert!(
        message.contains("301s") && message.contains("404"),
        "{message}"
    );
    assert!(
        message.contains("--webhook-token-file"),
        "the remedy: {message}"
    );
}

#[tokio::test(start_paused = true)]
async fn every_request_is_observed_except_without_token() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (fake, _) = Fake::new(|request, _, _| {
        let verdict = match request {
            0 => failed(Cause::Timeout),
            1 => failed(Cause::Token),
            2 => answered(999),
            _ => accepted(),
        };
        (Duration::from_secs(2), verdict)
    });
    let (log, settings) = (Arc::clone(&seen), ConcurrencyLimit::default());
    let mut delivery = Delivery::new(fake, settings, move |label: &str, seconds| {
        log.lock().unwrap().push((label.to_owned(), seconds));
    });
    deliver_all(&mut delivery, [batch([0])]).await;
    let want = ["timeout", "error", "200"].map(|label| (label.to_owned(), 2.0));
    assert_eq!(*seen.lock().unwrap(), want);
}
