//! The Lease: at most one leader, whatever the API server does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests, with their helpers"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_app::kubernetes::Cluster;
use audit_bridge_app::lease::{
    Elector, Leadership, LeaseTiming, LeaseTimingError, Waiting, identity,
};
use audit_bridge_core::lease_hold::{LeaseHold, Lost};
use audit_bridge_testkit::kubernetes::{FakeKubernetes, KubernetesFault};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

const NAME: &str = "aks-audit-bridge-0";

fn elector(fake: &FakeKubernetes, identity: &str) -> Elector {
    let client = kube::Client::new(fake.service(identity), "audit");
    let cluster = Cluster::new(client, "audit");
    Elector::new(&cluster, NAME, identity, LeaseTiming::default()).unwrap()
}

async fn lead(fake: &FakeKubernetes, identity: &str) -> Leadership {
    elector(fake, identity).acquire(|_| {}).await
}

fn spec(fake: &FakeKubernetes) -> Value {
    fake.object("leases", "audit", NAME).unwrap()["spec"].clone()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Applies this fault to all requests of a client.
fn cut_off(fake: &FakeKubernetes, client: &'static str, fault: KubernetesFault) {
    fake.fail_by(move |request| (request.client == client).then_some(fault));
}

#[tokio::test(start_paused = true)]
async fn lease_first_candidate_creates_and_renews_it() {
    let fake = FakeKubernetes::new();
    let leadership = lead(&fake, "a").await;
    let first = spec(&fake);
    assert_eq!(first["holderIdentity"], "a");
    assert_eq!(first["leaseDurationSeconds"], 15);
    assert_eq!(first["leaseTransitions"], 0);
    assert_eq!(first["acquireTime"], first["renewTime"]);
    // The API server requires exactly six fractional digits.
    let time = first["renewTime"].as_str().unwrap();
    assert_eq!(time.len(), "2026-01-02T03:04:05.000000Z".len());
    let before = fake.requests().len();
    sleep(seconds(600)).await;
    assert!(leadership.is_leader());
    let last = spec(&fake);
    assert_ne!(last["renewTime"], first["renewTime"]);
    assert_eq!(last["acquireTime"], first["acquireTime"]);
    assert_eq!(last["leaseTransitions"], 0);
    // One request every two seconds.
    let renewals = fake.requests().len() - before;
    assert!((290..=301).contains(&renewals), "{renewals}");
}

#[tokio::test(start_paused = true)]
async fn lease_candidate_waits_and_reports_reason_once() {
    let fake = FakeKubernetes::new();
    let _leadership = lead(&fake, "a").await;
    let mut told = Vec::new();
    let mut candidate = elector(&fake, "b");
    let waiting = candidate.acquire(|waiting| match waiting {
        Waiting::Held { holder } => told.push(holder.clone()),
        Waiting::Unavailable { error, remedy } => told.push(format!("{error}; {remedy}")),
    });
    let fail = async {
        sleep(seconds(60)).await;
        cut_off(&fake, "b", KubernetesFault::Status(403));
        sleep(seconds(60)).await;
    };
    tokio::select! {
        _ = waiting => panic!("two leaders"),
        () = fail => {}
    }
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], "a");
    for part in ["answered 403", "get and update on leases", "audit"] {
        assert!(told[1].contains(part), "{}", told[1]);
    }
}

#[tokio::test(start_paused = true)]
async fn lease_holder_cut_off_stops_before_another_begins() {
    for fault in [
        KubernetesFault::Silence,
        KubernetesFault::Status(500),
        KubernetesFault::Status(401),
        KubernetesFault::SlowAnswer(seconds(60)),
    ] {
        let fake = FakeKubernetes::new();
        let mut first = lead(&fake, "a").await;
        let lease_hold = first.lease_hold();
        let candidate = tokio::spawn({
            let fake = fake.clone();
            async move { (lead(&fake, "b").await, Instant::now()) }
        });
        sleep(seconds(20)).await;
        let begin = Instant::now();
        cut_off(&fake, "a", fault);
        let lost = first.lost().await;
        let ended = Instant::now();
        assert!(matches!(lost, Lost::Expired { .. }), "{lost:?}");
        assert!(!lease_hold.is_leader() && !first.is_leader());
        assert!(ended - begin <= seconds(10), "{fault:?}");
        let (second, began) = candidate.await.unwrap();
        if !matches!(fault, KubernetesFault::SlowAnswer(_)) {
            assert!(began - ended >= seconds(4), "{fault:?}");
            // One Lease duration after its last renewal was seen, which takes at most one period.
            assert!(began - begin <= seconds(15 + 2), "{fault:?}");
        }
        assert!(second.is_leader());
        assert_eq!(spec(&fake)["holderIdentity"], "b");
        assert_eq!(spec(&fake)["leaseTransitions"], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn lease_holder_killed_is_followed_within_duration_and_period() {
    let fake = FakeKubernetes::new();
    let first = lead(&fake, "a").await;
    let candidate = tokio::spawn({
        let fake = fake.clone();
        async move { lead(&fake, "b").await }
    });
    sleep(seconds(31)).await;
    let lease_hold = first.lease_hold();
    let begin = Instant::now();
    drop(first);
    tokio::task::yield_now().await;
    assert!(!lease_hold.is_leader());
    let second = timeout(seconds(60), candidate).await.unwrap().unwrap();
    let took = begin.elapsed();
    assert!(took >= seconds(13) && took <= seconds(17), "{took:?}");
    assert!(second.is_leader());
}

#[tokio::test(start_paused = true)]
async fn lease_released_is_taken_at_next_retry() {
    let fake = FakeKubernetes::new();
    let first = lead(&fake, "a").await;
    let mut lease_hold = first.lease_hold();
    let candidate = tokio::spawn({
        let fake = fake.clone();
        async move { lead(&fake, "b").await }
    });
    sleep(seconds(30)).await;
    let begin = Instant::now();
    first.release().await.unwrap();
    assert_eq!(lease_hold.lost().await, Lost::Released);
    let second = candidate.await.unwrap();
    assert!(begin.elapsed() <= seconds(2), "{:?}", begin.elapsed());
    assert!(second.is_leader());
    second.release().await.unwrap();
    assert_eq!(spec(&fake)["holderIdentity"], "");
    assert_eq!(spec(&fake)["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn lease_release_after_late_renewal_finds_its_version() {
    let fake = FakeKubernetes::new();
    let first = lead(&fake, "a").await;
    fake.fail_next(KubernetesFault::NoAnswer);
    sleep(seconds(3)).await;
    first.release().await.unwrap();
    assert_eq!(spec(&fake)["holderIdentity"], "");
}

#[tokio::test(start_paused = true)]
async fn lease_renewal_survives_lost_answers_edits_and_deletion() {
    let fake = FakeKubernetes::new();
    let leadership = lead(&fake, "a").await;
    fake.fail_next(KubernetesFault::NoAnswer);
    sleep(seconds(20)).await;
    assert!(leadership.is_leader());
    let mut edited = fake.object("leases", "audit", NAME).unwrap();
    edited["metadata"]["labels"]["team"] = "security".into();
    fake.put("leases", "audit", NAME, edited);
    sleep(seconds(20)).await;
    assert!(leadership.is_leader());
    assert!(fake.remove("leases", "audit", NAME));
    sleep(seconds(20)).await;
    assert!(leadership.is_leader());
    assert_eq!(spec(&fake)["holderIdentity"], "a");
}

#[tokio::test(start_paused = true)]
async fn lease_taken_by_another_is_lost_at_next_renewal() {
    let fake = FakeKubernetes::new();
    let mut leadership = lead(&fake, "a").await;
    let mut taken = fake.object("leases", "audit", NAME).unwrap();
    taken["spec"]["holderIdentity"] = "person".into();
    fake.put("leases", "audit", NAME, taken);
    let lost = timeout(seconds(3), leadership.lost()).await.unwrap();
    let holder = "person".to_owned();
    assert_eq!(lost, Lost::Taken { holder });
    assert!(!leadership.is_leader());
    leadership.release().await.unwrap();
    assert_eq!(spec(&fake)["holderIdentity"], "person");
}

#[tokio::test(start_paused = true)]
async fn lease_times_written_are_not_trusted() {
    // The last one is later than what libraries of times can parse, and the API server takes it.
    for renewed in [
        "2001-01-01T00:00:00.000000Z",
        "2199-01-01T00:00:00.000000Z",
        "9999-12-31T23:59:59.999999Z",
    ] {
        let fake = FakeKubernetes::new();
        let lease = json!({"spec": {
            "holderIdentity": "clock",
            "leaseDurationSeconds": 15,
            "acquireTime": renewed,
            "renewTime": renewed,
            "leaseTransitions": 7,
        }});
        fake.put("leases", "audit", NAME, lease);
        let begin = Instant::now();
        let leadership = lead(&fake, "a").await;
        assert!(begin.elapsed() >= seconds(15) && begin.elapsed() < seconds(16));
        assert!(leadership.is_leader());
        assert_eq!(spec(&fake)["leaseTransitions"], 8);
    }
}

#[tokio::test(start_paused = true)]
async fn lease_deleted_under_holder_is_not_taken_at_once() {
    let fake = FakeKubernetes::new();
    let first = lead(&fake, "a").await;
    let candidate = tokio::spawn({
        let fake = fake.clone();
        async move { lead(&fake, "b").await }
    });
    sleep(seconds(9)).await;
    cut_off(&fake, "a", KubernetesFault::Silence);
    fake.remove("leases", "audit", NAME);
    let mut lease_hold = first.lease_hold();
    lease_hold.lost().await;
    assert!(!candidate.is_finished());
    assert!(candidate.await.unwrap().is_leader());
}

/// A foreign writer promised two hours, and somebody deleted its Lease, which is the way out.
#[tokio::test(start_paused = true)]
async fn lease_deleted_is_waited_for_no_longer_than_our_own_duration() {
    let fake = FakeKubernetes::new();
    let holder = "x".repeat(200_000);
    let lease = json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": 7200}});
    fake.put("leases", "audit", NAME, lease);
    let told = AtomicUsize::new(0);
    let mut candidate = elector(&fake, "a");
    let mut waiting = std::pin::pin!(candidate.acquire(|waiting| {
        if let Waiting::Held { holder } = waiting {
            told.store(holder.len(), Ordering::Relaxed);
        }
    }));
    assert!(timeout(seconds(600), &mut waiting).await.is_err());
    assert!(fake.remove("leases", "audit", NAME));
    let deleted = Instant::now();
    let leadership = waiting.await;
    let waited = deleted.elapsed();
    assert!(waited > seconds(14) && waited < seconds(20), "{waited:?}");
    assert!(leadership.is_leader());
    assert_eq!(told.load(Ordering::Relaxed), 253, "of 200,000");
}

#[tokio::test(start_paused = true)]
async fn leadership_lost_can_be_won_again() {
    let fake = FakeKubernetes::new();
    let mut elector = elector(&fake, "a");
    let mut leadership = elector.acquire(|_| {}).await;
    cut_off(&fake, "a", KubernetesFault::Silence);
    leadership.lost().await;
    fake.fail_by(|_| None);
    let leadership = elector.acquire(|_| {}).await;
    assert!(leadership.is_leader());
    assert_eq!(spec(&fake)["leaseTransitions"], 0);
}

#[test]
fn lease_timing_unsafe_is_refused() {
    let check = |lease, renew, retry| {
        let timing = LeaseTiming {
            lease_duration: Duration::from_millis(lease),
            renew_deadline: Duration::from_millis(renew),
            retry_period: Duration::from_millis(retry),
        };
        let service = FakeKubernetes::new().service("a");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _guard = runtime.enter();
        let cluster = Cluster::new(kube::Client::new(service, "audit"), "audit");
        Elector::new(&cluster, NAME, "a", timing).map(|_| ())
    };
    assert_eq!(check(15_000, 10_000, 2_000), Ok(()));
    assert_eq!(
        check(10_000, 10_000, 2_000),
        Err(LeaseTimingError::Deadline)
    );
    assert_eq!(check(15_000, 10_000, 5_000), Err(LeaseTimingError::Retry));
    assert_eq!(check(15_000, 10_000, 0), Err(LeaseTimingError::Retry));
    assert_eq!(
        check(15_500, 10_000, 2_000),
        Err(LeaseTimingError::Duration)
    );
    assert_eq!(
        check(7_200_000, 10_000, 2_000),
        Err(LeaseTimingError::Duration)
    );
    assert_ne!(identity(), identity());
}

/// What the two candidates of a random run are doing.
#[derive(Default)]
struct Stage {
    /// Holds that their candidates still consider valid.
    tenures: [Option<LeaseHold>; 2],
    led: [u32; 2],
}

/// A candidate that leads for a while, loses or releases the Lease, and tries again.
async fn candidate(fake: FakeKubernetes, number: usize, seed: u64, stage: Arc<Mutex<Stage>>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut elector = elector(&fake, ["a", "b"][number]);
    loop {
        let mut leadership = elector.acquire(|_| {}).await;
        {
            let mut stage = stage.lock().unwrap();
            let other = stage.tenures[1 - number].as_ref();
            assert!(!other.is_some_and(LeaseHold::is_leader), "seed {seed}");
            stage.tenures[number] = Some(leadership.lease_hold());
            stage.led[number] += 1;
        }
        let term = seconds(random.u64(1..60));
        if timeout(term, leadership.lost()).await.is_err() {
            match random.u8(..3) {
                0 => drop(leadership),
                _ => drop(leadership.release().await),
            }
        }
        stage.lock().unwrap().tenures[number] = None;
        sleep(Duration::from_millis(random.u64(0..5000))).await;
    }
}

/// Runs ten minutes with faults determined by a seed.
async fn check_one_leader(seed: u64) -> u32 {
    // Also seeds the candidates' own random choices.
    fastrand::seed(seed);
    let fake = FakeKubernetes::new();
    let mut random = fastrand::Rng::with_seed(seed);
    let begin = Instant::now();
    let mut bad_until = [begin; 2];
    fake.fail_by(move |request| {
        let who = usize::from(request.client == "b");
        let now = Instant::now();
        // Occasionally a long outage, for one candidate or both.
        if random.u32(..200) == 0 {
            bad_until[who] = now + seconds(random.u64(1..40));
            if random.bool() {
                bad_until[1 - who] = bad_until[who];
            }
        }
        let rate = if now < bad_until[who] { 9 } else { 1 };
        (random.u32(..10) < rate).then(|| {
            let wait = Duration::from_millis(random.u64(0..20_000));
            match random.u32(..6) {
                0 => KubernetesFault::Status(500),
                1 => KubernetesFault::Status(409),
                2 => KubernetesFault::Silence,
                3 => KubernetesFault::NoAnswer,
                4 => KubernetesFault::Late(wait),
                _ => KubernetesFault::SlowAnswer(wait),
            }
        })
    });
    let stage = Arc::new(Mutex::new(Stage::default()));
    let tasks = [0, 1].map(|number| {
        let seed = seed * 2 + number as u64;
        tokio::spawn(candidate(fake.clone(), number, seed, Arc::clone(&stage)))
    });
    while begin.elapsed() < seconds(600) {
        sleep(Duration::from_millis(50)).await;
        let stage = stage.lock().unwrap();
        let leads =
            |lease_hold: &Option<LeaseHold>| lease_hold.as_ref().is_some_and(LeaseHold::is_leader);
        assert!(!stage.tenures.iter().all(leads), "seed {seed}");
        assert!(tasks.iter().all(|task| !task.is_finished()), "seed {seed}");
    }
    for task in tasks {
        task.abort();
    }
    let stage = stage.lock().unwrap();
    stage.led.iter().sum()
}

#[tokio::test(start_paused = true)]
async fn lease_random_schedule_has_at_most_one_leader() {
    let mut led = 0;
    for seed in 0..100 {
        led += check_one_leader(seed).await;
    }
    // The runs are only significant if leadership changed often.
    assert!(led > 1000, "{led}");
}
