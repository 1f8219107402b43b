use std::time::Duration;

use audit_bridge_core::deliver::{DeliveryStatus, Outage, ParkedStatus};
use audit_bridge_core::event::conformance::EventOptions;
use audit_bridge_core::frontier::Frontier;
use audit_bridge_core::source::ReadTo;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::time::advance;

use super::*;
use crate::canary::CanaryRequest;

const ME: &str = "system:serviceaccount:audit:bridge";
const WAIT_MAX: Duration = Duration::from_secs(600);

fn watch(deliver: bool) -> (CanaryWatch, Telemetry) {
    let telemetry = Telemetry::new("b", "1");
    let settings = CanarySettings {
        interval: Some(Duration::from_secs(60)),
        wait_max: WAIT_MAX,
        deliver,
    };
    let watch = CanaryWatch::new(settings, telemetry.clone());
    watch.add_log("home", "look at home".to_owned());
    (watch, telemetry)
}

fn begin(watch: &CanaryWatch) -> (Mark, Option<u64>) {
    let mark = Mark::random().unwrap();
    let expected = ExpectedRequest {
        user: Some(ME.to_owned()),
        request: CanaryRequest::Get,
        namespace: "audit".to_owned(),
        name: "b-canary".to_owned(),
    };
    let number = watch.begin(mark.clone(), expected);
    (mark, number)
}

fn json_of(mark: &Mark) -> Value {
    json!({
        "auditID": mark.as_str(), "stage": "ResponseComplete", "verb": "get",
        "requestURI": "/api/v1/namespaces/audit/configmaps/b-canary",
        "user": {"username": ME}, "stageTimestamp": "2026-11-21T00:00:00.000000Z",
        "objectRef": {"resource": "configmaps", "namespace": "audit", "name": "b-canary"},
    })
}

fn event_of(json: &Value) -> Event {
    let text = json.to_string().into_bytes();
    EventOptions::default()
        .event(&text.into(), true, None)
        .unwrap()
}

fn inspect(watch: &CanaryWatch, json: &Value) -> EventHandling {
    watch.inspect("home", &event_of(json))
}

/// A bridge that has settled all up to now, `behind` seconds ago, with so many open records.
fn progress(behind: i64, open_records: usize, outage: bool) -> Progress<'static> {
    let outage = outage.then(|| Outage {
        since: Instant::now(),
        detail: "503".to_owned(),
        remedy: "wait".into(),
        hold: false,
    });
    Progress {
        delivery: DeliveryStatus {
            outage,
            last_accepted: None,
            parked: ParkedStatus::default(),
            request_events_max: 400,
        },
        storage_error: None,
        in_flight_bytes: 0,
        frontier: Frontier {
            to: ReadTo {
                time: Timestamp::now() - SignedDuration::from_secs(behind),
                again_within: Duration::ZERO,
            },
            partition: Some(0),
            settled: 0,
        },
        open_records,
        unsaved_since: None,
        silence: None,
    }
}

fn sample(telemetry: &Telemetry, name: &str) -> u64 {
    let text = telemetry.render();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
        .unwrap_or(0)
}

fn lost(telemetry: &Telemetry, leg: Leg) -> u64 {
    let name = format!("audit_bridge_canary_lost_total{{leg=\"{}\"}}", leg.name());
    sample(telemetry, &name)
}

fn lost_in_all(telemetry: &Telemetry) -> u64 {
    Leg::ALL.iter().map(|leg| lost(telemetry, *leg)).sum()
}

const ARRIVED: &str = "audit_bridge_canary_latency_seconds_count";

#[tokio::test(start_paused = true)]
async fn canary_arrives_when_the_webhook_accepts_it_and_its_mark_is_used_once() {
    let (watch, telemetry) = watch(true);
    let (mark, number) = begin(&watch);
    let json = json_of(&mark);
    assert_eq!(
        inspect(&watch, &json),
        EventHandling::Follow(number.unwrap())
    );
    // A copy of it, whoever made it, changes nothing.
    assert_eq!(inspect(&watch, &json), EventHandling::Deliver);
    advance(Duration::from_secs(7)).await;
    assert_eq!(sample(&telemetry, ARRIVED), 0, "read is not arrived");
    watch.followed(number.unwrap(), true);
    watch.followed(number.unwrap(), true);
    assert_eq!(sample(&telemetry, ARRIVED), 1);
    let sum = telemetry.render();
    assert!(
        sum.contains("audit_bridge_canary_latency_seconds_sum 7.0"),
        "{sum}"
    );
    advance(WAIT_MAX).await;
    watch.count_lost();
    assert_eq!(lost_in_all(&telemetry), 0);
}

/// What somebody else sends with a mark that he has read is delivered, and is no sign of life.
#[tokio::test(start_paused = true)]
async fn forged_canary_neither_counts_nor_is_left_out() {
    for deliver in [true, false] {
        let (watch, telemetry) = watch(deliver);
        let (mark, _) = begin(&watch);
        let mut forged = json_of(&mark);
        forged["user"]["username"] = "mallory".into();
        for _ in 0..3 {
            assert_eq!(inspect(&watch, &forged), EventHandling::Deliver);
        }
        let mut secret = json_of(&mark);
        secret["objectRef"]["resource"] = "secrets".into();
        assert_eq!(inspect(&watch, &secret), EventHandling::Deliver);
        assert_eq!(sample(&telemetry, ARRIVED), 0);
        watch.progressed("home", true, &progress(0, 0, false));
        advance(WAIT_MAX).await;
        watch.progressed("home", true, &progress(0, 0, false));
        watch.count_lost();
        assert_eq!(lost(&telemetry, Leg::SourceWithoutIt), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn canary_left_out_is_one_event_of_each_stage_and_no_more() {
    let (watch, telemetry) = watch(false);
    let (mark, _) = begin(&watch);
    let complete = json_of(&mark);
    let mut received = complete.clone();
    received["stage"] = "RequestReceived".into();
    assert_eq!(inspect(&watch, &received), EventHandling::Skip(CANARY));
    assert_eq!(inspect(&watch, &received), EventHandling::Deliver);
    assert_eq!(inspect(&watch, &complete), EventHandling::Skip(CANARY));
    assert_eq!(sample(&telemetry, ARRIVED), 1);
    assert_eq!(inspect(&watch, &complete), EventHandling::Deliver);
    assert_eq!(inspect(&watch, &received), EventHandling::Deliver);
}

#[tokio::test(start_paused = true)]
async fn earlier_stage_of_a_canary_is_expected_once_and_no_arrival() {
    let (watch, telemetry) = watch(true);
    let (mark, _) = begin(&watch);
    let mut received = json_of(&mark);
    received["stage"] = "RequestReceived".into();
    assert_eq!(inspect(&watch, &received), EventHandling::Expect);
    assert_eq!(inspect(&watch, &received), EventHandling::Deliver);
    assert_eq!(sample(&telemetry, ARRIVED), 0);
}

#[tokio::test(start_paused = true)]
async fn canary_lost_names_the_leg_that_is_silent() {
    // An event was read early, an event was read late, seconds behind, open records, outage.
    for (early, late, behind, open, outage, want) in [
        (false, false, 0, 0, false, Leg::SourceSilent),
        (true, false, 0, 0, false, Leg::SourceSilent),
        (true, true, 0, 0, false, Leg::SourceWithoutIt),
        (false, false, 900, 0, false, Leg::SourceUnread),
        (true, true, 900, 3, false, Leg::Webhook),
        (true, true, 0, 0, true, Leg::Webhook),
        (false, false, 900, 0, true, Leg::Webhook),
    ] {
        let (watch, telemetry) = watch(true);
        begin(&watch);
        advance(Duration::from_secs(1)).await;
        watch.progressed("home", early, &progress(behind, open, outage));
        advance(WAIT_MAX - Duration::from_secs(2)).await;
        watch.progressed("home", late, &progress(behind, open, outage));
        watch.count_lost();
        assert_eq!(lost_in_all(&telemetry), 0, "not yet");
        advance(Duration::from_secs(1)).await;
        for _ in 0..3 {
            watch.count_lost();
        }
        assert_eq!(lost(&telemetry, want), 1, "{want:?}");
        assert_eq!(lost_in_all(&telemetry), 1, "{want:?} alone, and once");
    }
}

#[tokio::test(start_paused = true)]
async fn canary_read_and_not_accepted_is_lost_at_the_webhook_and_counts_when_it_comes_late() {
    let (watch, telemetry) = watch(true);
    let (mark, number) = begin(&watch);
    inspect(&watch, &json_of(&mark));
    advance(WAIT_MAX).await;
    watch.progressed("home", true, &progress(0, 0, false));
    watch.count_lost();
    assert_eq!(lost(&telemetry, Leg::Webhook), 1);
    watch.followed(number.unwrap(), true);
    assert_eq!(sample(&telemetry, ARRIVED), 1, "its true latency");
    assert_eq!(lost_in_all(&telemetry), 1);
}

#[tokio::test(start_paused = true)]
async fn canary_in_the_dead_letter_is_lost_at_once() {
    let (watch, telemetry) = watch(true);
    let (mark, number) = begin(&watch);
    inspect(&watch, &json_of(&mark));
    watch.followed(number.unwrap(), false);
    assert_eq!(lost(&telemetry, Leg::Webhook), 1);
    assert_eq!(sample(&telemetry, ARRIVED), 0);
}

/// The other clusters of a process say nothing about the one that it runs in.
#[tokio::test(start_paused = true)]
async fn leg_is_told_by_the_log_in_which_a_canary_arrived_before() {
    let (watch, telemetry) = watch(true);
    watch.add_log("other", "look at other".to_owned());
    let (mark, number) = begin(&watch);
    inspect(&watch, &json_of(&mark));
    watch.followed(number.unwrap(), true);
    begin(&watch);
    advance(WAIT_MAX).await;
    watch.progressed("home", false, &progress(0, 0, false));
    watch.progressed("other", true, &progress(0, 0, true));
    watch.count_lost();
    assert_eq!(lost(&telemetry, Leg::SourceSilent), 1);
}

#[tokio::test(start_paused = true)]
async fn canaries_kept_are_bounded_and_the_lost_go_first() {
    let (watch, telemetry) = watch(true);
    for _ in 0..CANARIES_MAX {
        assert!(begin(&watch).1.is_some());
    }
    assert_eq!(begin(&watch).1, None, "all are waited for");
    advance(WAIT_MAX).await;
    watch.count_lost();
    assert_eq!(lost_in_all(&telemetry), CANARIES_MAX as u64);
    let numbers: Vec<_> = (0..CANARIES_MAX).map(|_| begin(&watch).1).collect();
    assert!(numbers.iter().all(Option::is_some));
    assert_eq!(watch.state().canaries.len(), CANARIES_MAX);
    watch.withdraw(numbers[0].unwrap());
    assert_eq!(watch.state().canaries.len(), CANARIES_MAX - 1);
}

/// On a quiet cluster the same cut looks like one leg and then like the other.
#[tokio::test(start_paused = true)]
async fn leg_is_warned_about_once_until_a_canary_arrives() {
    let (watch, _) = watch(true);
    let (_, number) = begin(&watch);
    begin(&watch);
    watch.followed(number.unwrap(), false);
    advance(WAIT_MAX).await;
    watch.progressed("home", false, &progress(0, 0, false));
    watch.count_lost();
    let legs = [Leg::SourceSilent, Leg::Webhook];
    assert!(watch.state().lost_on.iter().eq(&legs));
    // Late is no better: whoever is always late is not told so every minute.
    let late = watch.state().canaries[0].number;
    watch.followed(late, true);
    assert!(watch.state().lost_on.iter().eq(&legs));
    // Nor is one that overtakes another: that one is still missing.
    let (_, before) = begin(&watch);
    let (_, number) = begin(&watch);
    watch.followed(number.unwrap(), true);
    assert!(watch.state().lost_on.iter().eq(&legs));
    watch.followed(before.unwrap(), true);
    assert!(watch.state().lost_on.is_empty());
}

/// Who reads again, as another process may have read meanwhile, waits for nothing of before.
#[tokio::test(start_paused = true)]
async fn canaries_forgotten_are_delivered_as_any_event() {
    let (watch, telemetry) = watch(false);
    let (mark, _) = begin(&watch);
    watch.forget();
    assert_eq!(inspect(&watch, &json_of(&mark)), EventHandling::Deliver);
    advance(WAIT_MAX).await;
    watch.count_lost();
    assert_eq!(lost_in_all(&telemetry), 0);
}
