//! Outages whose cause is not the source.

#![expect(clippy::unwrap_used, reason = "it serves tests")]

use audit_bridge_testkit::WebhookAnswer;

use super::{OutageRun, STALL, Trail};
use crate::live::wait;

/// Payloads that did not fit into the dead letter.
const DROPPED: &str = "audit_bridge_dead_letter_payloads_dropped_total";
/// Records that are in the dead letter or on their way there.
const REJECTED: &str = "audit_bridge_records_dead_lettered_total";
const SILENCE: &str = "audit_bridge_silence_seconds";

/// The receiver answers 503 to everything.
///
/// # Panics
/// The outage is not visible, or does not end.
pub fn receiver_is_down(trail: &impl Trail) {
    let mut outage = OutageRun::of(trail, &[]);
    trail.webhook().set_answer(WebhookAnswer::status(503));
    outage.put();
    outage.bridge.until_not_ready("webhook", "503");
    outage.until_still("a record is read and not settled");
    outage.observe("audit_bridge_webhook_requests_total", 1.0, |_| {});
    trail.webhook().accept();
    outage.passes(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeWebhookFailing",
    ]);
}

/// The receiver answers 500 to one event, and accepts all others.
///
/// # Panics
/// The outage is not visible, delays other events, or does not end.
pub fn one_event_is_answered_500(trail: &impl Trail) {
    let mut outage = OutageRun::of(trail, &["--batch-events-max=2"]);
    let culprit = trail.audit_id(outage.put);
    trail.webhook().poison(&culprit, 500);
    outage.put();
    let parked = wait(|| {
        outage.put();
        (outage.bridge.metric("audit_bridge_parked_events") > 0.0).then_some(())
    });
    assert!(parked.is_some(), "{}", outage.bridge.log());
    let why = outage.until_still("read and not settled");
    assert!(why.contains("events that the webhook fails on"), "{why}");
    outage.observe("audit_bridge_events_delivered_total", 3.0, OutageRun::put);
    trail.webhook().accept_event(&culprit);
    outage.passes(&[
        "AuditBridgeLagging",
        "AuditBridgeNotReady",
        "AuditBridgeEventsParked",
    ]);
}

/// The audit log is switched off at the provider; `put_other` writes other content of the log. The
/// bridge stays ready, and reports silence, even after a restart.
///
/// # Panics
/// The silence is not visible, or does not end.
pub fn log_is_switched_off(trail: &impl Trail, put_other: impl Fn(), remedy: &str) {
    let flags = ["--silence-max=6s"];
    let mut outage = OutageRun::of(trail, &flags);
    let silent = wait(|| {
        put_other();
        (outage.bridge.metric(SILENCE) > 6.0).then_some(())
    });
    assert!(silent.is_some(), "no silence\n{}", outage.bridge.log());
    outage.observe(SILENCE, 2.0, |_| put_other());
    let (status, body) = outage.bridge.get("/readyz");
    assert_eq!(
        status, 200,
        "a quiet log is no reason to be restarted: {body}"
    );
    assert!(body.contains(remedy), "{body}");
    outage.bridge.until_metric("audit_bridge_lag_seconds", 0.0);
    let log = outage.bridge.log();
    assert_eq!(log.matches("no audit record arrives").count(), 1, "{log}");

    outage.bridge.signal("KILL");
    outage.bridge.until_end();
    outage.bridge = trail.start(&[STALL, flags[0]]);
    let said = wait(|| {
        put_other();
        let body = outage.bridge.get("/readyz").1;
        body.contains("silent").then_some(())
    });
    assert!(said.is_some(), "{}", outage.bridge.log());
    assert!(outage.bridge.metric(SILENCE) > 6.0);
    outage.passes(&["AuditBridgeSilent"]);
}

/// Writes a record that is no event, of 200 kB that do not compress.
pub fn put_garbage(trail: &impl Trail) {
    let text = std::iter::repeat_with(fastrand::alphanumeric);
    trail.put_garbage(&text.take(200_000).collect::<String>());
}

/// Records that are no events fill the dead letter, and the trail continues.
///
/// # Panics
/// It is not visible, or delays anything.
pub fn dead_letter_is_full(trail: &impl Trail) {
    let mut outage = OutageRun::of(trail, &["--dead-letter-bytes-max=1MiB"]);
    let full = wait(|| {
        put_garbage(trail);
        (outage.bridge.metric(DROPPED) > 0.0).then_some(())
    });
    assert!(full.is_some(), "{}", outage.bridge.log());
    outage.observe_all(&[DROPPED, REJECTED], 1.0, |_| put_garbage(trail));
    outage.passes(&["AuditBridgeDeadLetterFull", "AuditBridgeDeadLetters"]);
}

/// The same if the trail is to stop: it continues after space was freed.
///
/// # Panics
/// The outage is not visible, or does not end.
pub fn dead_letter_is_full_and_holds(trail: &impl Trail) {
    let flags = ["--dead-letter-bytes-max=1MiB", "--dead-letter-full=hold"];
    let mut outage = OutageRun::of(trail, &flags);
    let why = "--dead-letter-bytes-max";
    // One after the other: those that wait are written too once there is space.
    for number in 1..30 {
        put_garbage(trail);
        let seen = wait(|| {
            let held = outage.bridge.not_ready()["checkpoint"].is_string();
            let counted = outage.bridge.metric(REJECTED) >= f64::from(number);
            (held || counted).then_some(held)
        });
        match seen {
            Some(true) => break,
            Some(false) => {}
            None => unreachable!("{}", outage.bridge.log()),
        }
    }
    outage.bridge.until_not_ready("checkpoint", why);
    outage.put();
    outage.until_still("read and not settled");
    outage.observe("audit_bridge_lag_seconds", 3.0, |_| {});
    assert_eq!(outage.bridge.get("/livez").0, 200);
    let files = std::fs::read_dir(trail.state()).unwrap();
    let files = files.map(|file| file.unwrap());
    let packed = files.filter(|it| it.file_name().as_encoded_bytes().ends_with(b".zst"));
    let taken = packed.map(|it| std::fs::remove_file(it.path()).unwrap());
    assert!(taken.count() > 2);
    outage.passes(&["AuditBridgeLagging", "AuditBridgeNotReady"]);
}
