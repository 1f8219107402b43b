//! A slow receiver; the sink times out after ten seconds, like the webhook client.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_core::sink::{Cause, Verdict};
use tokio::time::Instant;

use super::fake::{Fake, Log, accepted, failed};
use super::{batch, deliver_all, delivery, receipts_for};

const TIMEOUT: Duration = Duration::from_secs(10);

fn in_time(took: Duration) -> (Duration, Verdict) {
    match took > TIMEOUT {
        true => (TIMEOUT, failed(Cause::Timeout)),
        false => (took, accepted()),
    }
}

/// A receiver that needs this long per event, one request after the other.
fn slow(each: Duration) -> (Fake, Arc<Mutex<Log>>) {
    Fake::new(move |_, ids, _| in_time(each * u32::try_from(ids.len()).unwrap()))
}

#[tokio::test(start_paused = true)]
async fn receiver_needing_30_ms_an_event_gets_everything() {
    for slots in [1, 4] {
        let (fake, log) = slow(Duration::from_millis(30));
        let mut delivery = delivery(fake, slots);
        let start = Instant::now();
        let batches = (0..50).map(|at| batch(at * 400..at * 400 + 400));
        let ends = deliver_all(&mut delivery, batches).await;
        assert_eq!(ends.delivered.len(), 20_000);
        if slots == 1 {
            assert!(ends.delivered.is_sorted());
        }
        let log = log.lock().unwrap();
        let late = log.requests.iter().filter(|(_, ids)| ids.len() > 333);
        assert!(
            late.count() <= slots * 2,
            "it settles after a few time-outs"
        );
        let settled = log.requests.last().unwrap().1.len();
        assert!((100..=333).contains(&settled), "at {settled} events");
        let least = Duration::from_millis(30) * 20_000 / u32::try_from(slots).unwrap();
        assert!(start.elapsed() < least * 3 / 2, "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn receiver_working_one_request_at_a_time_gets_everything() {
    // The receiver still works on a request that timed out, and later requests wait for it.
    let free_at = Arc::new(Mutex::new(Instant::now()));
    let (fake, log) = Fake::new(move |_, ids, _| {
        let now = Instant::now();
        let mut free_at = free_at.lock().unwrap();
        *free_at =
            (*free_at).max(now) + Duration::from_millis(30) * u32::try_from(ids.len()).unwrap();
        in_time(free_at.duration_since(now))
    });
    let mut delivery = delivery(fake, 4);
    let start = Instant::now();
    let batches = (0..50).map(|at| batch(at * 400..at * 400 + 400));
    let ends = deliver_all(&mut delivery, batches).await;
    assert_eq!(ends.delivered.len(), 20_000);
    assert!(ends.undeliverable.is_empty() && delivery.status().parked.events == 0);
    let sent: usize = log
        .lock()
        .unwrap()
        .requests
        .iter()
        .map(|it| it.1.len())
        .sum();
    assert!(sent < 40_000, "{sent} events were sent for 20,000");
    let least = Duration::from_millis(30) * 20_000;
    assert!(start.elapsed() < least * 3, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn receiver_recovering_speed_gets_larger_requests() {
    let quick_at = Instant::now() + Duration::from_secs(600);
    let (fake, log) = Fake::new(move |_, ids, _| {
        let each = match Instant::now() < quick_at {
            true => Duration::from_secs(3),
            false => Duration::from_millis(1),
        };
        in_time(each * u32::try_from(ids.len()).unwrap())
    });
    let mut delivery = delivery(fake, 2);
    let batches = (0..100).map(|at| batch(at * 400..at * 400 + 400));
    let ends = deliver_all(&mut delivery, batches).await;
    assert_eq!(ends.delivered.len(), 40_000);
    let log = log.lock().unwrap();
    assert!(log.requests.iter().any(|(_, ids)| ids.len() <= 3));
    assert_eq!(log.requests.last().unwrap().1.len(), 400);
}

#[tokio::test(start_paused = true)]
async fn time_out_of_one_event_keeps_its_objects() {
    let (fake, _) = Fake::new(|request, _, _| match request < 40 {
        true => (TIMEOUT, failed(Cause::Timeout)),
        false => (Duration::from_millis(5), accepted()),
    });
    let mut delivery = delivery(fake, 2);
    let ends = deliver_all(&mut delivery, [batch(0..400)]).await;
    assert_eq!((ends.delivered.len(), ends.stripped), (400, 0));
}

#[tokio::test(start_paused = true)]
async fn event_timing_out_leaves_request_size_of_others() {
    let (fake, log) = Fake::new(|_, ids, _| match ids.contains(&7) {
        true => (TIMEOUT, failed(Cause::Timeout)),
        false => (Duration::from_millis(20), accepted()),
    });
    let mut delivery = delivery(fake, 4);
    let batches = (0..2000).map(|at| batch(at * 400..at * 400 + 400));
    let mut sent = 0;
    for batch in batches {
        while !delivery.has_room() {
            if let audit_bridge_core::deliver::Receipt::Delivered { items, .. } =
                delivery.next().await
            {
                sent += items.len();
            }
        }
        delivery.start(batch);
    }
    assert!(sent > 790_000, "{sent}");
    let log = log.lock().unwrap();
    let small = log
        .requests
        .iter()
        .filter(|(_, ids)| ids.len() < 400)
        .count();
    assert!(small < 40, "{small} of {}", log.requests.len());
}

/// Sends a batch of 400 a second, for ten minutes, and returns what was not delivered of them.
async fn late_of_a_batch_a_second(fake: Fake, slots: usize) -> u64 {
    let mut delivery = delivery(fake, slots);
    let began = Instant::now();
    let (mut started, mut delivered) = (0, 0);
    while began.elapsed() < Duration::from_secs(600) {
        let due = began.elapsed().as_secs() + 1;
        while started < due && delivery.has_room() {
            delivery.start(batch(started * 400..started * 400 + 400));
            started += 1;
        }
        let ends = receipts_for(&mut delivery, Duration::from_millis(100)).await;
        delivered += ends.delivered.len() as u64;
    }
    600 * 400 - delivered
}

#[tokio::test(start_paused = true)]
async fn events_timing_out_every_10_seconds_do_not_hold_up_others() {
    let (fake, log) = Fake::new(
        move |_, ids, _| match ids.iter().any(|id| id % 4_000 == 133) {
            true => (TIMEOUT, failed(Cause::Timeout)),
            false => (Duration::from_millis(20), accepted()),
        },
    );
    let late = late_of_a_batch_a_second(fake, 4).await;
    assert!(late < 2_000, "{late} events wait");
    // Each is in three requests that time out until it is parked: its batch, a part of it, alone.
    let log = log.lock().unwrap();
    let hanging = |ids: &&Vec<u64>| ids.iter().any(|id| id % 4_000 == 133);
    let requests = log.requests.iter().map(|(_, ids)| ids).filter(hanging);
    let with_others = requests.filter(|ids| ids.len() > 1).count();
    assert!(with_others <= 2 * 60, "{with_others} for 60 events");
}

/// One of three servers behind the webhook's address hangs, whatever it gets: to divide what timed
/// out into many parts would only meet it more often.
#[tokio::test(start_paused = true)]
async fn server_hanging_beside_two_that_work_does_not_stop_them() {
    let (fake, _) = Fake::new(|request, _, _| {
        match fastrand::Rng::with_seed(request as u64 * 7919).u32(0..3) {
            0 => (TIMEOUT, failed(Cause::Timeout)),
            _ => (Duration::from_millis(20), accepted()),
        }
    });
    let late = late_of_a_batch_a_second(fake, 4).await;
    assert!(late < 160_000, "{late} of 240,000 events wait");
}

#[tokio::test(start_paused = true)]
async fn many_events_timing_out_in_a_batch_cost_two_time_outs_each() {
    // All of them are in one batch, which is alone in one slot.
    let (fake, log) = Fake::new(move |_, ids, _| match ids.iter().any(|id| id % 50 == 7) {
        true => (TIMEOUT, failed(Cause::Timeout)),
        false => (Duration::from_millis(20), accepted()),
    });
    let mut delivery = delivery(fake, 1);
    delivery.start(batch(0..400));
    let ends = receipts_for(&mut delivery, Duration::from_secs(300)).await;
    let log = log.lock().unwrap();
    assert_eq!(ends.delivered.len(), 392);
    let late = log.requests.iter().filter(|(_, ids)| ids.len() > 1);
    let late = late.filter(|(_, ids)| ids.iter().any(|id| id % 50 == 7));
    let late = late.count();
    assert!(
        late <= 2 * 8 + 1,
        "{late} time-outs with others, of 8 events"
    );
}
