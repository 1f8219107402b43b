use std::time::Duration;

use audit_bridge_core::deliver::{DeliveryStatus, Outage, ParkedStatus};
use audit_bridge_core::event::conformance::EventOptions;
use audit_bridge_core::frontier::Frontier;
use audit_bridge_core::source::ReadTo;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use tokio::time::advance;

use super::super::records::{ARRIVED as ARRIVED_KEY, CanaryRecord};
use super::*;

const ME: &str = "system:serviceaccount:audit:bridge";
const WAIT_MAX: Duration = Duration::from_secs(600);

fn watch(deliver: bool) -> (CanaryWatch, Telemetry) {
    watch_of(deliver, false)
}

/// `shared`: other replicas may receive the events of canaries.
fn watch_of(deliver: bool, shared: bool) -> (CanaryWatch, Telemetry) {
    let telemetry = Telemetry::new("b", "1");
    let settings = CanarySettings {
        interval: Some(Duration::from_secs(60)),
        wait_max: WAIT_MAX,
        deliver,
        shared,
    };
    let watch = CanaryWatch::new(settings, "b-canary".to_owned(), telemetry.clone());
    watch.add_log("home", "look at home".to_owned());
    (watch, telemetry)
}

fn begin(watch: &CanaryWatch) -> (Mark, Option<u64>) {
    let mark = Mark::random().unwrap();
    let number = watch.begin(mark.clone(), expected(), Timestamp::now());
    (mark, number)
}

fn expected() -> ExpectedRequest {
    ExpectedRequest {
        user: Some(ME.to_owned()),
        namespace: "audit".to_owned(),
        name: "b-canary".to_owned(),
    }
}

fn json_of(mark: &Mark) -> Value {
    json!({
        "auditID": mark.as_str(), "stage": "ResponseComplete", "verb": "patch",
        "requestURI": "/api/v1/namespaces/audit/configmaps/b-canary",
        "user": {"username": ME}, "userAgent": format!("b/1 canary/{}", mark.as_str()), "stageTimestamp": "2026-11-21T00:00:00.000000Z",
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

/// The progress of a bridge whose frontier is `behind` seconds ago, with this many open records.
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
    // A copy of the event, whoever made it, changes nothing.
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

/// An event that somebody else sends with a mark they have read is delivered, and does not count.
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
    // Whether an event was read early, whether one was read late, seconds behind, open records,
    // outage.
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

/// Other clusters' logs of a process say nothing about the cluster that it runs in.
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

/// On a quiet cluster the same failure looks like one leg and then like the other.
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
    // A late canary does not end the warning: otherwise constant lateness would warn every minute.
    let late = watch.state().canaries[0].number;
    watch.followed(late, true);
    assert!(watch.state().lost_on.iter().eq(&legs));
    // Nor does one that overtakes another, which is still missing.
    let (_, before) = begin(&watch);
    let (_, number) = begin(&watch);
    watch.followed(number.unwrap(), true);
    assert!(watch.state().lost_on.iter().eq(&legs));
    watch.followed(before.unwrap(), true);
    assert!(watch.state().lost_on.is_empty());
}

/// A process that reads again forgets its earlier canaries, since another process may have read
/// meanwhile: only the records know of them.
#[tokio::test(start_paused = true)]
async fn canaries_forgotten_are_delivered_as_those_of_others() {
    let (watch, telemetry) = watch(false);
    let (mark, _) = begin(&watch);
    watch.forget();
    let handling = inspect(&watch, &json_of(&mark));
    assert!(matches!(handling, EventHandling::Follow(_)), "{handling:?}");
    advance(WAIT_MAX).await;
    watch.count_lost();
    assert_eq!(lost_in_all(&telemetry), 0);
}

/// The records, with a canary that another process sent `minutes` ago.
fn records_of(
    mark: &Mark,
    minutes: i64,
    change: impl Fn(CanaryRecord) -> CanaryRecord,
) -> ConfigMap {
    let sent = Timestamp::now() - SignedDuration::from_mins(minutes);
    let record = change(CanaryRecord::new(sent, "other"));
    ConfigMap {
        data: Some([(mark.digest().to_string(), record.to_text())].into()),
        ..ConfigMap::default()
    }
}

fn jobs(watch: &CanaryWatch) -> Vec<RecordJob> {
    let mut jobs = watch.take_jobs();
    watch.retain_ours(&mut jobs);
    jobs
}

#[tokio::test(start_paused = true)]
async fn canary_of_another_process_is_followed_and_left_to_the_records() {
    for shared in [true, false] {
        let (watch, telemetry) = watch_of(true, shared);
        let mark = Mark::random().unwrap();
        let EventHandling::Follow(number) = inspect(&watch, &json_of(&mark)) else {
            panic!("not followed");
        };
        assert!(watch.take_jobs().is_empty(), "read is not arrived");
        watch.followed(number, true);
        assert_eq!(
            sample(&telemetry, ARRIVED),
            0,
            "nobody knows yet whose it is"
        );
        let jobs = jobs(&watch);
        assert!(
            matches!(&jobs[..], [RecordJob::Seen(seen)] if seen.mark == mark && seen.accepted),
            "{jobs:?}"
        );
    }
}

/// Events of other users are delivered as any other, once our own user is known.
#[tokio::test(start_paused = true)]
async fn candidate_of_a_stranger_is_delivered_and_asks_nothing() {
    let (watch, _) = watch_of(false, true);
    let mark = Mark::random().unwrap();
    let mut forged = json_of(&mark);
    forged["user"]["username"] = "mallory".into();
    let EventHandling::Follow(number) = inspect(&watch, &forged) else {
        panic!("nobody knows yet who we are");
    };
    watch.followed(number, true);
    watch.set_expected(&expected());
    assert!(jobs(&watch).is_empty());
    assert_eq!(inspect(&watch, &forged), EventHandling::Deliver);
    let mut elsewhere = json_of(&mark);
    elsewhere["objectRef"]["namespace"] = "other".into();
    assert_eq!(inspect(&watch, &elsewhere), EventHandling::Deliver);
    assert!(watch.take_jobs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn candidates_that_flood_are_bounded_and_all_delivered() {
    let (watch, _) = watch_of(true, true);
    watch.set_expected(&expected());
    let (_, number) = begin(&watch);
    let json = json_of(&Mark::random().unwrap());
    for at in 0..3 * CANDIDATES_MAX {
        let handling = inspect(&watch, &json_of(&Mark::random().unwrap()));
        let followed = matches!(handling, EventHandling::Follow(_));
        assert_eq!(followed, at < CANDIDATES_MAX, "{at}");
        if let EventHandling::Follow(number) = handling
            && number % 2 == 0
        {
            watch.followed(number, true);
        }
    }
    assert_eq!(inspect(&watch, &json), EventHandling::Deliver);
    // Our own canaries are recognised without that.
    watch.followed(number.unwrap(), true);
    let own = jobs(&watch);
    let is_own = |job: &RecordJob| matches!(job, RecordJob::Seen(seen) if seen.own.is_some());
    assert!(own.len() <= CANDIDATES_MAX && own.iter().any(is_own));
}

/// A pipeline may end with events in flight: the log is read again from its position.
#[tokio::test(start_paused = true)]
async fn canary_in_flight_when_its_pipeline_ends_is_followed_by_the_next_one() {
    let (watch, telemetry) = watch(true);
    let (mark, number) = begin(&watch);
    let number = number.unwrap();
    let event = json_of(&mark);
    assert_eq!(inspect(&watch, &event), EventHandling::Follow(number));
    watch.add_log("another", String::new());
    assert_eq!(inspect(&watch, &event), EventHandling::Deliver, "used once");
    watch.add_log("home", String::new());
    assert_eq!(inspect(&watch, &event), EventHandling::Follow(number));
    watch.followed(number, true);
    assert_eq!(sample(&telemetry, ARRIVED), 1);
    // Candidates of earlier pipelines take no room.
    for _ in 0..CANDIDATES_MAX {
        inspect(&watch, &json_of(&Mark::random().unwrap()));
    }
    let candidate = json_of(&Mark::random().unwrap());
    assert_eq!(inspect(&watch, &candidate), EventHandling::Deliver);
    watch.add_log("home", String::new());
    let handling = inspect(&watch, &candidate);
    assert!(matches!(handling, EventHandling::Follow(_)), "{handling:?}");
}

/// Only an event of a canary that is in the records before the event is read can be skipped.
#[tokio::test(start_paused = true)]
async fn canary_of_another_process_is_left_out_once_where_the_records_know_it() {
    let (watch, _) = watch(false);
    let mark = Mark::random().unwrap();
    watch.set_expected(&expected());
    watch.learn(CanaryRecords::read(&records_of(&mark, 1, |it| it)));
    assert_eq!(
        inspect(&watch, &json_of(&mark)),
        EventHandling::Skip(CANARY)
    );
    assert_eq!(inspect(&watch, &json_of(&mark)), EventHandling::Deliver);
    assert_eq!(jobs(&watch).len(), 1);
    let proven = Mark::random().unwrap();
    let records = records_of(&proven, 1, |it| it.with_proof(&proven, true));
    watch.learn(CanaryRecords::read(&records));
    let handling = inspect(&watch, &json_of(&proven));
    assert!(matches!(handling, EventHandling::Follow(_)), "{handling:?}");
}

#[tokio::test(start_paused = true)]
async fn canary_of_replicas_that_share_is_counted_by_the_record_alone() {
    let (watch, telemetry) = watch_of(true, true);
    let (mark, number) = begin(&watch);
    inspect(&watch, &json_of(&mark));
    advance(Duration::from_secs(5)).await;
    watch.followed(number.unwrap(), true);
    assert_eq!(sample(&telemetry, ARRIVED), 0);
    let jobs = jobs(&watch);
    let own = match &jobs[..] {
        [RecordJob::Seen(seen)] => seen.own.as_ref().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(own.latency, Duration::from_secs(5));
    // Another replica sees this canary and counts it.
    let (mark, _) = begin(&watch);
    let proven = records_of(&mark, 0, |it| it.with_proof(&mark, true));
    // A canary with a forged proof stays pending.
    let (other, _) = begin(&watch);
    let made_up = records_of(&other, 0, |it| it.with_proof(&mark, true));
    watch.learn(CanaryRecords::read(&proven));
    watch.learn(CanaryRecords::read(&made_up));
    watch.learn(CanaryRecords::read(&ConfigMap::default()));
    advance(WAIT_MAX).await;
    watch.progressed("home", false, &progress(0, 0, false));
    assert!(watch.has_overdue());
    watch.state().arrived = true;
    watch.count_lost();
    assert_eq!(
        lost_in_all(&telemetry),
        1,
        "what is gone from the object proves nothing"
    );
    assert_eq!(sample(&telemetry, ARRIVED), 0);
}

const UNVERIFIED: &str = "audit_bridge_canary_unverified";

/// The log may be another cluster's, so a loss is no alarm until a canary has arrived once.
#[tokio::test(start_paused = true)]
async fn canary_lost_where_none_ever_arrived_is_unverified() {
    let lose = async |watch: &CanaryWatch, others: bool, outage: bool| {
        begin(watch);
        advance(WAIT_MAX).await;
        watch.progressed("home", others, &progress(0, 0, outage));
        watch.count_lost();
    };
    // Others' events, records read, one arrived before, an outage of the webhook, and the counted
    // losses.
    for (others, known, before, outage, lost) in [
        (true, true, false, false, 0),
        (false, true, false, false, 1),
        (true, false, false, false, 1),
        (true, true, true, false, 1),
        (true, true, false, true, 1),
    ] {
        let (watch, telemetry) = watch(true);
        if known {
            let mut object = records_of(&Mark::random().unwrap(), 0, |it| it);
            if before {
                let data = object.data.get_or_insert_default();
                data.insert(ARRIVED_KEY.to_owned(), "then".to_owned());
            }
            watch.learn(CanaryRecords::read(&object));
        }
        for _ in 0..2 {
            lose(&watch, others, outage).await;
        }
        assert_eq!(lost_in_all(&telemetry), 2 * lost);
        assert_eq!(sample(&telemetry, UNVERIFIED), u64::from(lost == 0));
        // A process that reads no more has nothing to say of it.
        if lost == 0 {
            watch.forget();
            watch.add_log("home", String::new());
            assert_eq!(sample(&telemetry, UNVERIFIED), 0);
        }
        // Once one has arrived, each loss counts.
        let (mark, number) = begin(&watch);
        inspect(&watch, &json_of(&mark));
        watch.followed(number.unwrap(), true);
        assert_eq!(sample(&telemetry, UNVERIFIED), 0);
        watch.forget();
        watch.add_log("home", String::new());
        lose(&watch, others, outage).await;
        assert_eq!(lost_in_all(&telemetry), 2 * lost + 1);
    }
}

/// An API server that has just started may refuse to tell our user, and anybody could be us meanwhile.
#[tokio::test(start_paused = true)]
async fn canary_of_another_user_is_none_as_soon_as_ours_is_known() {
    let (watch, _) = watch(true);
    let unknown = ExpectedRequest {
        user: None,
        ..expected()
    };
    watch.set_expected(&unknown);
    assert_eq!(watch.state().expected.as_ref(), Some(&unknown));
    watch.set_expected(&expected());
    watch.set_expected(&unknown);
    assert_eq!(watch.state().expected.as_ref(), Some(&expected()));
}
