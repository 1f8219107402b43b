//! Replicas that share logs: each log is read by one replica, whichever come and go.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests, with their helpers"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use audit_bridge_app::balancer::{Balancer, Membership};
use audit_bridge_app::kubernetes::Cluster;
use audit_bridge_app::lease::{Elector, Leadership, LeaseTiming};
use audit_bridge_testkit::kubernetes::{FakeKubernetes, KubernetesFault};
use serde_json::json;
use tokio::time::sleep;

/// A replica as in the `run` command, with nothing to read.
struct Replica {
    balancer: Balancer,
    held: BTreeMap<String, Leadership>,
    membership: Option<Membership>,
    unread: BTreeMap<String, String>,
}

fn log(number: usize) -> String {
    format!("hub/{number:02}")
}

impl Replica {
    fn new(fake: &FakeKubernetes, identity: &str, logs: usize) -> Replica {
        let client = kube::Client::new(fake.service(identity), "audit");
        let cluster = Cluster::new(client, "audit");
        let elector = Elector::new(&cluster, "bridge", identity, LeaseTiming::default()).unwrap();
        let mut balancer = Balancer::new(&elector);
        for number in 0..logs {
            balancer.add(&log(number), &format!("bridge-hub-{number}"));
        }
        Replica {
            balancer,
            held: BTreeMap::new(),
            membership: None,
            unread: BTreeMap::new(),
        }
    }

    async fn step(&mut self) {
        self.held.retain(|_, leadership| leadership.is_leader());
        let reading = self.held.keys().cloned().collect();
        let step = self.balancer.step(&reading, &BTreeSet::new()).await;
        for log in step.give_up {
            let _ = self.held.remove(&log).unwrap().release().await;
        }
        self.held.extend(step.gained);
        self.unread = step.unread;
        self.membership = step.membership.or(self.membership);
    }
}

/// Runs all replicas for this many seconds; checks that no log ever has two holders.
async fn live(replicas: &mut [Replica], seconds: u64) {
    for _ in 0..seconds {
        for replica in replicas.iter_mut() {
            replica.step().await;
        }
        let mut all = BTreeSet::new();
        for (log, leadership) in replicas.iter().flat_map(|it| &it.held) {
            assert!(!leadership.is_leader() || all.insert(log), "{log} twice");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn shares(replicas: &[Replica]) -> Vec<usize> {
    replicas.iter().map(|it| it.held.len()).collect()
}

#[tokio::test(start_paused = true)]
async fn replicas_joining_and_leaving_keep_one_reader_per_log() {
    let fake = FakeKubernetes::new();
    let mut all = vec![Replica::new(&fake, "a", 8)];
    live(&mut all, 3).await;
    assert_eq!(shares(&all), [8]);
    all.push(Replica::new(&fake, "b", 8));
    live(&mut all, 3).await;
    assert_eq!(shares(&all), [4, 4]);
    all.push(Replica::new(&fake, "c", 8));
    live(&mut all, 3).await;
    assert_eq!(shares(&all), [3, 3, 2]);

    // One leaves in good order, so the others do not wait.
    let Replica { balancer, held, .. } = all.remove(0);
    for (_, leadership) in held {
        leadership.release().await.unwrap();
    }
    balancer.release_member_lease().await.unwrap();
    live(&mut all, 3).await;
    assert_eq!(shares(&all), [4, 4]);

    // One dies, so its Leases have to expire.
    drop(all.remove(0));
    live(&mut all, 10).await;
    assert_eq!(shares(&all), [4]);
    live(&mut all, 14).await;
    assert_eq!(shares(&all), [8]);
    assert_eq!(
        all[0].membership,
        Some(Membership {
            replicas: 1,
            rank: Some(0)
        })
    );
    // Member Leases are reused: there are never more than there were replicas at a time.
    all.push(Replica::new(&fake, "d", 8));
    live(&mut all, 20).await;
    assert_eq!(shares(&all), [4, 4]);
    assert!(fake.object("leases", "audit", "bridge-member-2").is_some());
    assert!(fake.object("leases", "audit", "bridge-member-3").is_none());
}

#[tokio::test(start_paused = true)]
async fn replicas_more_than_logs_share_logs_that_come_and_go() {
    let fake = FakeKubernetes::new();
    let mut all: Vec<Replica> = ["a", "b", "c"]
        .map(|name| Replica::new(&fake, name, 2))
        .into();
    live(&mut all, 4).await;
    assert_eq!(shares(&all), [1, 1, 0]);
    for replica in &mut all {
        for number in 2..7 {
            let lease = format!("bridge-hub-{number}");
            replica.balancer.add(&log(number), &lease);
        }
    }
    live(&mut all, 4).await;
    assert_eq!(shares(&all), [3, 2, 2]);
    for replica in &mut all {
        for number in 0..5 {
            replica.balancer.remove(&log(number));
        }
    }
    live(&mut all, 4).await;
    assert_eq!(shares(&all), [1, 1, 0]);
    let held: BTreeSet<&String> = all.iter().flat_map(|it| it.held.keys()).collect();
    assert_eq!(held, [&log(5), &log(6)].into());
}

#[tokio::test(start_paused = true)]
async fn replica_cut_off_loses_all_logs_and_returns() {
    let fake = FakeKubernetes::new();
    let mut all: Vec<Replica> = ["a", "b"].map(|name| Replica::new(&fake, name, 6)).into();
    live(&mut all, 4).await;
    assert_eq!(shares(&all), [3, 3]);
    fake.fail_by(|request| (request.client == "a").then_some(KubernetesFault::Status(500)));
    live(&mut all, 40).await;
    assert_eq!(shares(&all), [0, 6]);
    fake.fail_by(|_| None);
    live(&mut all, 20).await;
    assert_eq!(shares(&all), [3, 3]);
}

#[tokio::test(start_paused = true)]
async fn member_lease_expired_long_ago_is_not_counted() {
    let fake = FakeKubernetes::new();
    for number in 0..2 {
        let spec = json!({
            "holderIdentity": "long gone",
            "leaseDurationSeconds": 15,
            "renewTime": "2026-01-02T03:04:05.000000Z",
        });
        let name = format!("bridge-member-{number}");
        fake.put("leases", "audit", &name, json!({"spec": spec}));
    }
    let mut all = vec![Replica::new(&fake, "a", 4)];
    live(&mut all, 1).await;
    assert_eq!(shares(&all), [4]);
}

/// A writer that is no replica promised an hour: its share would be read by nobody.
#[tokio::test(start_paused = true)]
async fn member_lease_that_nobody_renews_counts_for_a_minute_only() {
    let fake = FakeKubernetes::new();
    let mut all = vec![Replica::new(&fake, "a", 4)];
    live(&mut all, 3).await;
    let now = jiff::Timestamp::now();
    let lease = json!({"spec": {
        "holderIdentity": "somebody",
        "leaseDurationSeconds": 3600,
        "renewTime": format!("{now:.6}"),
    }});
    fake.put("leases", "audit", "bridge-member-1", lease);
    live(&mut all, 10).await;
    assert_eq!(shares(&all), [2]);
    live(&mut all, 60).await;
    assert_eq!(shares(&all), [4]);
}

/// Whoever may write Leases can keep a log from all replicas, but not from being missed.
#[tokio::test(start_paused = true)]
async fn log_whose_lease_no_replica_holds_is_told_and_the_others_are_read() {
    let fake = FakeKubernetes::new();
    let foreign = |renewed: u32| {
        json!({"spec": {
            "holderIdentity": "somebody",
            "leaseDurationSeconds": 15,
            "renewTime": format!("9999-12-31T23:59:59.{renewed:06}Z"),
        }})
    };
    fake.put("leases", "audit", "bridge-hub-1", foreign(0));
    let mut all: Vec<Replica> = ["a", "b"].map(|name| Replica::new(&fake, name, 4)).into();
    for renewed in 1..=60 {
        let unread = all.iter().map(|replica| replica.unread.len());
        assert_eq!(
            unread.sum::<usize>(),
            usize::from(renewed > 47),
            "{renewed}"
        );
        live(&mut all, 1).await;
        fake.put("leases", "audit", "bridge-hub-1", foreign(renewed));
    }
    assert_eq!(shares(&all).iter().sum::<usize>(), 3);
    let why = all.iter().find_map(|replica| replica.unread.get(&log(1)));
    assert!(why.unwrap().contains("bridge-hub-1 is held by somebody"));
    // Nobody renews it any more.
    live(&mut all, 18).await;
    assert_eq!(shares(&all), [2, 2]);
    assert!(all.iter().all(|replica| replica.unread.is_empty()));
}

/// Whose name a Lease bears, and whether it can be written, is for others to choose.
#[tokio::test(start_paused = true)]
async fn log_that_no_replica_can_get_is_told_whatever_its_lease_says() {
    let fake = FakeKubernetes::new();
    let mut all: Vec<Replica> = ["a", "b"].map(|name| Replica::new(&fake, name, 4)).into();
    live(&mut all, 4).await;
    assert_eq!(shares(&all), [2, 2]);
    // In the name of the replica that reads its share, over the Lease of the other one.
    let taken = all[1].held.keys().next().unwrap().clone();
    let lease = format!(
        "bridge-hub-{}",
        taken.trim_start_matches("hub/").parse::<u32>().unwrap()
    );
    for renewed in 0..70 {
        let spec = json!({
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "renewTime": format!("2026-01-02T03:04:05.{renewed:06}Z"),
        });
        fake.put("leases", "audit", &lease, json!({"spec": spec}));
        live(&mut all, 1).await;
    }
    assert!(all[1].unread.contains_key(&taken), "{:?}", all[1].unread);
    live(&mut all, 20).await;
    assert_eq!(shares(&all), [2, 2]);
    assert!(all.iter().all(|replica| replica.unread.is_empty()));
}

/// Replicas that start, leave, die and are cut off at random. Once the faults end, every log has a
/// reader.
#[tokio::test(start_paused = true)]
async fn replicas_random_schedule_gives_every_log_a_reader() {
    let seed = std::env::var("SEED").ok().and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let fake = FakeKubernetes::new();
    let names: Vec<String> = (0..200).map(|number| format!("r{number}")).collect();
    let mut names = names.iter();
    let mut all: Vec<Replica> = Vec::new();
    for _ in 0..60 {
        match dice.u32(0..6) {
            0 | 1 if all.len() < 5 => {
                let name = names.next().unwrap();
                all.push(Replica::new(&fake, name, 11));
            }
            2 if all.len() > 1 => {
                let at = dice.usize(0..all.len());
                let Replica { balancer, held, .. } = all.remove(at);
                for (_, leadership) in held {
                    let _ = leadership.release().await;
                }
                let _ = balancer.release_member_lease().await;
            }
            3 if all.len() > 1 => {
                let at = dice.usize(0..all.len());
                drop(all.remove(at));
            }
            4 => {
                let mut dice = dice.fork();
                let faults = [
                    KubernetesFault::Status(500),
                    KubernetesFault::Status(409),
                    KubernetesFault::Status(404),
                ];
                fake.fail_by(move |_| (dice.u32(0..5) == 0).then(|| faults[dice.usize(0..3)]));
            }
            _ => fake.fail_by(|_| None),
        }
        let seconds = dice.u64(1..12);
        live(&mut all, seconds).await;
    }
    fake.fail_by(|_| None);
    if all.is_empty() {
        all.push(Replica::new(&fake, "last", 11));
    }
    live(&mut all, 60).await;
    let found = shares(&all);
    let even = 11_usize.div_ceil(all.len());
    let rolls: Vec<_> = all.iter().map(|it| it.membership).collect();
    assert_eq!(
        found.iter().sum::<usize>(),
        11,
        "SEED={seed} {found:?} {rolls:?}"
    );
    assert!(
        found.iter().all(|share| *share <= even),
        "SEED={seed} {found:?}"
    );
}
