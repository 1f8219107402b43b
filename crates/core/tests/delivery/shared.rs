//! Several pipelines that share a sink.

use std::sync::{Arc, Mutex};

use audit_bridge_core::deliver::DeliveryStatus;
use audit_bridge_core::sink::{Cause, SharedSink};
use tokio::time::Instant;

use super::fake::{Fake, accepted, answered, failed};
use super::*;

#[tokio::test(start_paused = true)]
async fn deliveries_sharing_a_sink_share_its_slots_and_waiting_is_no_request_time() {
    let (fake, log) = Fake::new(|_, _, _| (Duration::from_secs(2), accepted()));
    let sink = SharedSink::new(Arc::new(fake), 3);
    let longest = Arc::new(Mutex::new(0.0_f64));
    let pipelines = (0..8_u64).map(|pipeline| {
        let (sink, longest) = (sink.clone(), Arc::clone(&longest));
        async move {
            let limit = ConcurrencyLimit {
                in_flight_batches_max: 2,
                seed: pipeline,
            };
            let mut delivery = Delivery::new(sink, limit, move |_, seconds| {
                let mut longest = longest.lock().unwrap();
                *longest = longest.max(seconds);
            });
            let batches = (0..5).map(|number| batch([pipeline * 5 + number]));
            deliver_all(&mut delivery, batches).await.sorted().delivered
        }
    });
    let delivered = futures_util::future::join_all(pipelines).await.concat();
    assert_eq!(delivered, (0..40).collect::<Vec<_>>());
    assert_eq!(log.lock().unwrap().at_once_max, 3);
    assert!((2.0..2.1).contains(&*longest.lock().unwrap()));
}

/// A receiver that accepts all but event 7, and two pipelines that deliver to it.
fn two_pipelines() -> [Delivery<SharedSink<Fake>>; 2] {
    let (fake, _) = Fake::new(|_, ids, _| match ids.contains(&7) {
        true => (Duration::from_millis(5), answered(403)),
        false => (Duration::from_millis(5), accepted()),
    });
    let sink = SharedSink::new(Arc::new(fake), 4);
    let limit = |seed| ConcurrencyLimit {
        in_flight_batches_max: 4,
        seed,
    };
    [
        Delivery::new(sink.clone(), limit(1), |_, _| {}),
        Delivery::new(sink, limit(2), |_, _| {}),
    ]
}

/// What the first pipeline comes to in a minute, while the second delivers too.
async fn minute_of<S: Sink + 'static>(quiet: &mut Delivery<S>, busy: &mut Delivery<S>) -> Ends {
    let minute = Duration::from_secs(60);
    tokio::join!(receipts_for(quiet, minute), receipts_for(busy, minute)).0
}

/// The outcome of event 7 in the first pipeline after this many minutes. The second delivers an
/// event in each minute for which `busy_in` is true.
async fn event_alone(minutes: u64, busy_in: impl Fn(u64) -> bool) -> (Ends, DeliveryStatus) {
    let [mut quiet, mut busy] = two_pipelines();
    let mut ends = Ends::default();
    quiet.start(batch([7]));
    for minute in 0..minutes {
        if busy_in(minute) {
            busy.start(batch([1000 + minute]));
        }
        ends += minute_of(&mut quiet, &mut busy).await;
    }
    (ends, quiet.status())
}

#[tokio::test(start_paused = true)]
async fn event_alone_in_its_log_is_given_up_while_another_log_is_accepted() {
    let (ends, status) = event_alone(14, |_| true).await;
    assert!(ends.undeliverable.is_empty(), "it may be a passing trouble");
    assert_eq!(status.parked.events, 1);
    let (ends, _) = event_alone(240, |_| true).await;
    assert_eq!(ends.undeliverable, [7]);
}

/// What other logs deliver shows that the receiver works, but not how often it fails: few
/// acceptances are no proof against a good event.
#[tokio::test(start_paused = true)]
async fn receiver_failing_at_random_gives_up_no_event_of_a_quiet_log() {
    for seed in 0..20 {
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        let hours = Instant::now() + Duration::from_secs(4 * 3600);
        let (fake, _) = Fake::new(move |_, _, _| {
            let fails = Instant::now() < hours && random.lock().unwrap().u32(0..100) < 70;
            let verdict = if fails { answered(503) } else { accepted() };
            (Duration::from_millis(5), verdict)
        });
        let sink = SharedSink::new(Arc::new(fake), 4);
        let [mut quiet, mut busy] = [delivery(sink.clone(), 1), delivery(sink, 1)];
        let mut ends = Ends::default();
        quiet.start(batch(0..100));
        for minute in 0..5 * 60 {
            if busy.has_room() {
                busy.start(batch([1000 + minute]));
            }
            ends += minute_of(&mut quiet, &mut busy).await;
        }
        assert_eq!(ends.delivered.len(), 100, "{:?}", ends.undeliverable);
    }
}

#[tokio::test(start_paused = true)]
async fn event_alone_in_its_log_is_held_while_nothing_is_accepted_anywhere() {
    for busy_in in [|_| false, |minute| minute == 0] {
        let (ends, status) = event_alone(24 * 60, busy_in).await;
        assert!(ends.undeliverable.is_empty() && ends.refused.is_empty());
        assert_eq!(
            status.parked.events, 1,
            "the receiver accepts an empty list"
        );
        assert!(status.outage.is_some());
    }
}

/// Fifty logs, each with events that make the receiver hang.
#[tokio::test(start_paused = true)]
async fn parked_events_of_all_logs_share_their_slots() {
    let (fake, log) = Fake::new(|_, ids, _| match ids.iter().any(|id| id % 10 < 3) {
        true => (Duration::from_secs(10), failed(Cause::Timeout)),
        false => (Duration::from_millis(5), accepted()),
    });
    let sink = SharedSink::new(Arc::new(fake), 4);
    let mut ends = Ends::default();
    let mut logs: Vec<_> = (0..50).map(|_| delivery(sink.clone(), 4)).collect();
    for (number, delivery) in (0..).zip(&mut logs) {
        delivery.start(batch(number * 10..number * 10 + 10));
    }
    for _ in 0..600 {
        for delivery in &mut logs {
            ends += receipts_for(delivery, Duration::from_millis(100)).await;
        }
    }
    assert_eq!(ends.delivered.len(), 350);
    assert!(logs.iter().all(|log| log.status().parked.events == 3));
    let most = log.lock().unwrap().at_once_max;
    assert!(most <= 4 + 4, "{most} at once");
}
