use audit_bridge_core::deliver::{DeliveryStatus, ParkedStatus};
use audit_bridge_core::frontier::Frontier;
use audit_bridge_core::observer::Observer as _;
use audit_bridge_core::run_stats::RunStats;
use audit_bridge_core::source::ReadTo;
use jiff::SignedDuration;

use super::*;
use crate::telemetry::STALL_MAX;
use crate::telemetry::scope::TO_BE_SHOWN;
use jiff::Timestamp;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

fn ago(seconds: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(seconds)
}

fn frontier(time: Timestamp) -> Frontier {
    Frontier {
        to: ReadTo {
            time,
            again_within: Duration::ZERO,
        },
        partition: Some(0),
        settled: 0,
    }
}

fn progress(frontier: Frontier) -> Progress<'static> {
    Progress {
        delivery: DeliveryStatus {
            outage: None,
            last_accepted: None,
            parked: ParkedStatus::default(),
            request_events_max: 400,
        },
        storage_error: None,
        in_flight_bytes: 0,
        frontier,
        open_records: 0,
        unsaved_since: None,
        silence: None,
    }
}

pub(crate) fn silent(seconds: u64) -> Progress<'static> {
    Progress {
        silence: Some(Duration::from_secs(seconds)),
        ..progress(frontier(Timestamp::now()))
    }
}

/// A process whose components are all ready, except for its logs.
fn process() -> Telemetry {
    let telemetry = Telemetry::new("b", "1");
    for component in TO_BE_SHOWN {
        telemetry.ready(component);
    }
    telemetry
}

fn log(telemetry: &Telemetry, name: &str) -> Telemetry {
    let log = telemetry.log(name);
    log.begin(None, format!("look at {name}"));
    log.ready(Component::Source);
    log.ready(Component::Checkpoint);
    log.progress();
    log
}

fn sample(telemetry: &Telemetry, name: &str) -> Option<f64> {
    let text = telemetry.render();
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn lag(telemetry: &Telemetry) -> f64 {
    sample(telemetry, "audit_bridge_lag_seconds ").unwrap()
}

#[tokio::test(start_paused = true)]
async fn lag_is_of_the_log_farthest_behind_and_none_on_standby() {
    let telemetry = process();
    let (one, two) = (log(&telemetry, "one"), log(&telemetry, "two"));
    one.log_progress(&progress(frontier(ago(3600))));
    two.log_progress(&progress(frontier(ago(10))));
    assert!(lag(&telemetry) >= 3600.0);
    telemetry.standby(Some("another"));
    assert!(lag(&telemetry).abs() < f64::EPSILON);
    telemetry.standby(None);
    one.retired();
    assert!((10.0..3600.0).contains(&lag(&telemetry)));
}

/// The API server is away: whether another replica reads, nobody can tell.
#[tokio::test(start_paused = true)]
async fn lag_grows_and_nobody_leads_while_the_lease_cannot_be_had() {
    let telemetry = Telemetry::new("b", "1");
    telemetry.standby(Some("another"));
    tokio::time::advance(60 * MINUTE).await;
    for _ in 0..3 {
        telemetry.leaderless();
        telemetry.not_ready(Component::Checkpoint, "no lease");
        tokio::time::advance(MINUTE).await;
    }
    assert!((180.0..240.0).contains(&lag(&telemetry)));
    assert_eq!(sample(&telemetry, "audit_bridge_leader "), Some(0.0));
    assert!(telemetry.unready().contains_key("checkpoint"));
    // So it is for a replica that shares logs and reads none meanwhile.
    telemetry.standby(None);
    telemetry.ready(Component::Source);
    telemetry.ready(Component::Checkpoint);
    tokio::time::advance(60 * MINUTE).await;
    assert!(lag(&telemetry).abs() < f64::EPSILON);
    telemetry.not_ready(Component::Checkpoint, "no lease");
    tokio::time::advance(MINUTE).await;
    assert!((60.0..120.0).contains(&lag(&telemetry)));
}

#[tokio::test(start_paused = true)]
async fn lag_grows_while_provider_is_unreachable() {
    let telemetry = Telemetry::new("b", "1");
    tokio::time::advance(MINUTE).await;
    assert!(lag(&telemetry) >= 60.0, "not connected");
    telemetry.ready(Component::Source);
    assert!(
        lag(&telemetry).abs() < f64::EPSILON,
        "connected, without a log to read"
    );
    let _log = log(&telemetry, "l");
    tokio::time::advance(MINUTE).await;
    assert!(lag(&telemetry) >= 60.0, "its log says nothing");
}

#[tokio::test(start_paused = true)]
async fn checkpoint_unwritten_becomes_lag_then_not_ready() {
    let telemetry = process();
    let log = log(&telemetry, "l");
    let since = Instant::now();
    for minute in 1..=6_u32 {
        tokio::time::advance(MINUTE).await;
        log.log_progress(&Progress {
            unsaved_since: Some(since),
            ..progress(frontier(Timestamp::now()))
        });
        assert!(lag(&telemetry) >= f64::from(minute * 60));
        let ready = minute <= 5;
        assert_eq!(telemetry.unready().is_empty(), ready, "{minute}");
    }
    assert!(telemetry.unready()["progress"].contains("checkpoint"));
}

#[tokio::test(start_paused = true)]
async fn frontier_stalled_is_not_ready_until_it_moves() {
    let telemetry = process();
    let log = log(&telemetry, "l");
    let place = frontier(ago(7200));
    log.log_progress(&progress(place));
    tokio::time::advance(STALL_MAX).await;
    assert!(telemetry.unready().is_empty());
    tokio::time::advance(MINUTE).await;
    log.log_progress(&Progress {
        open_records: 3,
        ..progress(place)
    });
    let why = telemetry.unready().remove("progress").unwrap();
    assert!(
        why.contains("360 s: 3 records are read and not settled"),
        "{why}"
    );
    assert!(telemetry.render().contains("ready{part=\"progress\"} 0"));
    // A whole log with one time: its frontier moves all the same.
    log.log_progress(&progress(Frontier {
        settled: 1,
        ..place
    }));
    assert!(telemetry.unready().is_empty());
    tokio::time::advance(STALL_MAX + MINUTE).await;
    assert!(
        !telemetry.unready().is_empty(),
        "the loop says nothing more"
    );
    telemetry.standby(Some("another"));
    assert!(
        telemetry.unready().is_empty(),
        "it is not this process's to move"
    );
}

#[tokio::test(start_paused = true)]
async fn log_reopened_gets_its_stall_time_again() {
    let telemetry = process();
    let log = log(&telemetry, "l");
    log.log_progress(&progress(frontier(ago(10))));
    tokio::time::advance(STALL_MAX + MINUTE).await;
    assert!(!telemetry.unready().is_empty());
    log.begin(None, String::new());
    assert!(telemetry.unready().is_empty());
}

#[tokio::test(start_paused = true)]
async fn log_finished_neither_lags_nor_stalls() {
    let telemetry = process();
    let log = log(&telemetry, "l");
    log.log_progress(&progress(frontier(ago(10))));
    tokio::time::advance(STALL_MAX + MINUTE).await;
    log.ended();
    assert!(lag(&telemetry) >= 10.0 && !telemetry.unready().is_empty());
    log.finished();
    assert!(lag(&telemetry).abs() < f64::EPSILON && telemetry.unready().is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_is_reported_per_log_and_keeps_process_ready() {
    let telemetry = process();
    telemetry.set_limits(HealthLimits {
        silence_max: Some(MINUTE * 15),
        ..HealthLimits::default()
    });
    let (one, two) = (log(&telemetry, "one"), log(&telemetry, "two"));
    one.log_progress(&silent(899));
    two.log_progress(&progress(frontier(Timestamp::now())));
    assert_eq!(
        sample(&telemetry, "audit_bridge_silence_seconds{log=\"one\"}"),
        Some(899.0)
    );
    assert_eq!(
        sample(&telemetry, "audit_bridge_silence_seconds{log=\"two\"}"),
        None,
        "not known"
    );
    assert_eq!(
        sample(&telemetry, "audit_bridge_silence_max_seconds"),
        Some(900.0)
    );
    assert!(telemetry.silent().is_empty());
    one.log_progress(&silent(901));
    let said = telemetry.silent();
    assert_eq!(said.len(), 1);
    assert_eq!(
        said["one"],
        "no audit record has arrived for 901 s; look at one"
    );
    assert!(telemetry.unready().is_empty());
    one.log_progress(&silent(0));
    assert!(telemetry.silent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_of_partitions_counts_only_together() {
    let telemetry = process();
    telemetry.set_limits(HealthLimits {
        silence_max: Some(MINUTE),
        ..HealthLimits::default()
    });
    let components: Vec<Telemetry> = ["hub/0", "hub/1"]
        .map(|name| {
            let component = log(&telemetry, name);
            component.begin(Some("hub"), "look".to_owned());
            component
        })
        .into();
    components[0].log_progress(&silent(3600));
    components[1].log_progress(&silent(5));
    assert!(telemetry.silent().is_empty());
    assert_eq!(
        sample(&telemetry, "audit_bridge_silence_seconds{log=\"hub\"}"),
        Some(5.0)
    );
    components[1].log_progress(&silent(61));
    assert_eq!(telemetry.silent().into_keys().collect::<Vec<_>>(), ["hub"]);
}

#[tokio::test(start_paused = true)]
async fn silence_of_many_logs_is_reported_for_a_bounded_number() {
    let telemetry = process();
    telemetry.set_limits(HealthLimits {
        silence_max: Some(MINUTE),
        ..HealthLimits::default()
    });
    for number in 0..SILENT_LOGS_MAX + 5 {
        log(&telemetry, &format!("log-{number}")).log_progress(&silent(100));
    }
    let text = telemetry.render();
    assert_eq!(
        text.matches("audit_bridge_silence_seconds{").count(),
        SILENT_LOGS_MAX
    );
    assert_eq!(telemetry.silent().len(), SILENT_LOGS_NAMED_MAX);
}

#[tokio::test(start_paused = true)]
async fn checkpoint_written_with_stuck_dead_letter_is_not_ready() {
    let telemetry = process();
    let mut log = log(&telemetry, "a");
    let mut turn = |storage_error| {
        let progress = Progress {
            storage_error,
            ..progress(frontier(Timestamp::now()))
        };
        log.progressed(&RunStats::default(), &progress);
        log.checkpoint_written();
    };
    turn(Some("the dead letter is full"));
    assert_eq!(telemetry.unready()["checkpoint"], "the dead letter is full");
    turn(None);
    assert!(!telemetry.unready().contains_key("checkpoint"));
}
