//! Failures in between never move a cursor.

use std::time::Duration;

use audit_bridge_tail::{QueryError, TailStatus};

use crate::memory_log::{Fault, MemoryLog, Request, denied};
use crate::{at, settings, tail};

fn weather() -> Fault {
    Fault::Error(QueryError::Transient {
        detail: "connection reset".to_owned(),
    })
}

fn throttled(after: Option<Duration>) -> Fault {
    Fault::Error(QueryError::Throttled { after })
}

/// The first requests to a log of ten records in pages of two.
async fn first_requests(script: Vec<Fault>) -> Vec<Request> {
    let log = MemoryLog::millis();
    log.pages_of(2);
    for n in 0..10 {
        log.put_ms(-5_000 + n, 0);
    }
    log.script(script);
    let mut settings = settings();
    settings.revisit_after.clear();
    settings.start = at(-5_000);
    let mut tail = tail(&log, settings);
    tail.run_secs(300).await;
    tail.assert_each_once(0..10);
    assert_eq!(tail.status(), TailStatus::Reading);
    log.requests()
}

fn offsets(requests: &[Request]) -> Vec<&str> {
    let offset = |request: &Request| request.token.as_deref()?.split('@').next().map(str::len);
    requests
        .iter()
        .map(|request| match offset(request) {
            Some(length) => &request.token.as_deref().unwrap_or_default()[..length],
            None => "",
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn pages_empty_are_followed() {
    let script = vec![Fault::Empty, Fault::Empty, Fault::None, Fault::Empty];
    let requests = first_requests(script).await;
    assert_eq!(
        offsets(&requests[..8]),
        ["", "0", "0", "2", "2", "4", "6", "8"]
    );
    assert!(
        requests[..8]
            .iter()
            .all(|request| request.window == requests[0].window)
    );
}

#[tokio::test(start_paused = true)]
async fn query_throttled_keeps_page_token() {
    let script = vec![
        Fault::None,
        throttled(None),
        throttled(Some(Duration::from_secs(3))),
        throttled(None),
    ];
    let requests = first_requests(script).await;
    assert_eq!(offsets(&requests[..6]), ["", "2", "2", "2", "2", "4"]);
}

#[tokio::test(start_paused = true)]
async fn page_token_expired_restarts_the_window() {
    let script = vec![
        Fault::None,
        Fault::None,
        Fault::Error(QueryError::TokenExpired),
    ];
    let requests = first_requests(script).await;
    assert_eq!(offsets(&requests[..5]), ["", "2", "4", "", "2"]);
    assert_eq!(requests[3].window, requests[0].window);
}

#[tokio::test(start_paused = true)]
async fn page_failing_repeatedly_restarts_the_window() {
    let mut script = vec![Fault::None];
    script.extend(std::iter::repeat_n(weather(), 5));
    let requests = first_requests(script).await;
    assert_eq!(
        offsets(&requests[..8]),
        ["", "2", "2", "2", "2", "2", "", "2"]
    );
}

#[tokio::test(start_paused = true)]
async fn query_timeout_and_client_panic_are_retried() {
    let requests = first_requests(vec![Fault::Silence, Fault::Panic, Fault::None]).await;
    assert_eq!(offsets(&requests[..4]), ["", "", "", "2"]);
}

#[tokio::test(start_paused = true)]
async fn scan_failing_for_long_moves_no_position() {
    let log = MemoryLog::millis();
    log.pages_of(3);
    for n in 0..100 {
        log.put_ms(n * 1_000, n * 1_000);
    }
    let mut tail = tail(&log, settings());
    tail.run_secs(20).await;
    let (positions, given) = (tail.positions.clone(), tail.given.len());
    let read_to = tail.stats().read_to;
    log.script(std::iter::repeat_n(weather(), 200));
    tail.run_secs(600).await;
    assert_eq!(tail.positions, positions);
    assert_eq!((tail.given.len(), tail.stats().read_to), (given, read_to));
    assert!(!tail.stats().caught_up);
    assert!(matches!(
        tail.status(),
        TailStatus::Held { remedy: None, .. }
    ));
    log.script([]);
    tail.run_secs(3_600).await;
    tail.assert_each_once(0..100);
    assert_eq!(tail.status(), TailStatus::Reading);
}

#[tokio::test(start_paused = true)]
async fn query_denied_is_held_with_remedy_and_retried_seldom() {
    let log = MemoryLog::millis();
    let id = log.put_ms(1_000, 1_000);
    let mut tail = tail(&log, settings());
    assert_eq!(tail.status(), TailStatus::Starting);
    log.script(std::iter::repeat_n(Fault::Error(denied()), 60));
    tail.run_secs(300).await;
    let TailStatus::Held { detail, remedy, .. } = tail.status() else {
        panic!("{:?}", tail.status());
    };
    assert!(detail.contains("not authorised"), "{detail}");
    assert_eq!(remedy.as_deref(), Some("allow logs:FilterLogEvents"));
    let requests = log.requests().len();
    assert!(requests < 60, "{requests} in five minutes");
    tail.run_secs(3_600).await;
    tail.assert_each_once([id]);
    assert_eq!(tail.status(), TailStatus::Reading);
    let stats = tail.stats();
    assert_eq!((stats.failed, stats.throttled), (60, 0));
}

#[tokio::test(start_paused = true)]
async fn clock_jumping_ahead_and_back_loses_nothing() {
    let log = MemoryLog::millis();
    for n in 0..600 {
        log.put_ms(n * 10_000, n * 10_000 + (n % 5) * 30_000);
    }
    let mut tail = tail(&log, settings());
    tail.run_secs(600).await;
    log.clock().set_wrong_by(3_600_000);
    tail.run_secs(900).await;
    log.clock().set_wrong_by(0);
    tail.run_secs(600).await;
    // Behind the log's: every record is late by this much, but still read.
    log.clock().set_wrong_by(-1_800_000);
    tail.run_secs(2_000).await;
    log.clock().set_wrong_by(0);
    tail.run_secs(6_000).await;
    let ids: Vec<u64> = tail.given.keys().copied().collect();
    assert_eq!(ids, (0..600).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn clock_corrected_slightly_repeats_nothing() {
    let log = MemoryLog::millis();
    for n in 0..1_000 {
        log.put_ms(n * 1_000, n * 1_000);
    }
    let mut tail = tail(&log, settings());
    for round in 0..40 {
        tail.run_secs(30).await;
        log.clock()
            .set_wrong_by(if round % 2 == 0 { -400 } else { 0 });
    }
    tail.run_secs(1_000).await;
    tail.assert_each_once(0..1_000);
}
