//! Replicas that each read a part: one sends canaries, and the one that reads a canary's event
//! records it.

use audit_bridge_tests::apiserver::ADMIN;
use audit_bridge_tests::apiserver::feed::FeedGate;
use audit_bridge_tests::live::{Running, wait};
use serde_json::json;

use super::{ARRIVED, CanaryWorld, LOST, NS, REQUESTS, SUBSCRIBED, sample};

const AKS: [&str; 2] = ["aks.sharePartitions=true", "replicas=2"];
const EKS: [&str; 4] = [
    "eks.stream=audit",
    "eks.sharePartitions=true",
    "eks.clusterNames={prod}",
    "replicas=2",
];

impl CanaryWorld {
    /// A replica that sends a canary every second when it is its turn.
    pub(super) fn start_replica(&self, name: &str) -> Running {
        self.start_at(name, &["--canary-interval=1s"])
    }

    fn start_replicas(&self, names: &[&str]) -> Vec<Running> {
        let mut replicas: Vec<Running> = names.iter().map(|it| self.start_replica(it)).collect();
        if self.shares {
            let share = 4.0 / names.len() as f64;
            for replica in &mut replicas {
                replica.until_metric("audit_bridge_active_logs", share);
            }
        }
        replicas
    }
}

fn sent(replica: &mut Running) -> f64 {
    sample(replica, REQUESTS, "ok")
}

/// Waits until only one of them sends; returns its index.
fn sender(replicas: &mut [Running]) -> usize {
    let mut before: Vec<f64> = replicas.iter_mut().map(sent).collect();
    let mut grown = vec![0.0; replicas.len()];
    let found = wait(|| {
        for (at, replica) in replicas.iter_mut().enumerate() {
            let now = sent(replica);
            grown[at] += now - before[at];
            before[at] = now;
        }
        let sum: f64 = grown.iter().sum();
        if sum < 4.0 {
            return None;
        }
        let only = grown.iter().position(|it| *it == sum);
        grown.fill(0.0);
        only
    });
    found.unwrap_or_else(|| panic!("several send, or none\n{}", replicas[0].log()))
}

/// Checks that each arrival is counted once, at the replica that read it, and no canary is lost.
fn whole(world: &CanaryWorld, replicas: &mut [Running]) {
    let arrived: f64 = replicas.iter_mut().map(|it| it.metric(ARRIVED)).sum();
    let [sent, ..] = world.requests();
    assert!(arrived <= sent as f64, "{arrived} of {sent}");
    for replica in replicas {
        assert_eq!(replica.metric(LOST), 0.0, "{}", replica.log());
    }
}

async fn share(which: &str, settings: &[&str]) {
    let Some(world) = CanaryWorld::new(which, settings).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let mut replicas = world.start_replicas(&["one", "two"]);
        let at = sender(&mut replicas);
        let from = world.requests();
        for replica in &mut replicas {
            let before = replica.metric(ARRIVED);
            replica.until_above(ARRIVED, before + 3.0);
        }
        whole(&world, &mut replicas);
        // A canary takes at most three requests, and the other replica looks once per interval.
        let [sent, looks, notes] = world.requests();
        let [sent, looks, notes] = [sent - from[0], looks - from[1], notes - from[2]];
        assert!(
            looks <= 3 * sent + 6 && notes <= 2 * sent + 6,
            "{sent} {looks} {notes}"
        );
        // The sender ends, and the other one takes over.
        let gone = replicas.remove(at);
        assert_eq!(gone.terminate(), 0);
        let (mut left, before) = (replicas.remove(0), world.requests()[0]);
        let arrived = left.metric(ARRIVED);
        left.until_above(ARRIVED, arrived + 3.0);
        assert!(sample(&mut left, REQUESTS, "ok") >= 1.0 && world.requests()[0] > before);
        assert_eq!(left.metric(LOST), 0.0, "{}", left.log());
        assert_eq!(left.terminate(), 0);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_of_aks_replicas_that_share_partitions_is_counted_where_it_arrives() {
    share("aks shared", &AKS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_of_eks_replicas_that_share_shards_is_counted_where_it_arrives() {
    share("eks shared", &EKS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_of_replicas_of_a_subscription_is_counted_where_it_arrives() {
    share("gke pubsub", &SUBSCRIBED).await;
}

/// Three start at once; a stopped one continues while another already sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_are_two_at_once_become_one_and_count_each_canary_once() {
    let Some(world) = CanaryWorld::new("gke pubsub", &SUBSCRIBED).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let mut replicas = world.start_replicas(&["one", "two", "three"]);
        let at = sender(&mut replicas);
        replicas[at].signal("STOP");
        let stopped = replicas.remove(at);
        sender(&mut replicas);
        stopped.signal("CONT");
        replicas.push(stopped);
        sender(&mut replicas);
        for replica in &mut replicas {
            let before = replica.metric(ARRIVED);
            replica.until_above(ARRIVED, before + 2.0);
        }
        whole(&world, &mut replicas);
        for replica in replicas {
            assert_eq!(replica.terminate(), 0);
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_under_way_when_its_sender_is_killed_arrives_at_another_replica() {
    let Some(world) = CanaryWorld::new("aks shared", &AKS).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let mut replicas = world.start_replicas(&["one", "two"]);
        let at = sender(&mut replicas);
        world.feed.set(FeedGate::Without(" canary/"));
        wait(|| (world.feed.kept().len() >= 3).then_some(())).expect("canaries are sent");
        replicas.remove(at).kill();
        let mut left = replicas.remove(0);
        // It ends up reading everything, and was waiting meanwhile.
        left.until_metric("audit_bridge_active_logs", 4.0);
        let before = (left.metric(ARRIVED), sent(&mut left));
        let waited_for = world.records().len();
        assert!(waited_for >= 3, "{waited_for}");
        world.feed.set(FeedGate::Open);
        world.feed.release();
        left.until_above(ARRIVED, before.0 + 3.0);
        // All records of the dead replicas are settled, and removed.
        assert_eq!(left.metric(LOST), 0.0, "{}", left.log());
        assert_eq!(left.terminate(), 0);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_under_way_when_its_sender_is_killed_is_lost_where_it_does_not_come() {
    let Some(world) = CanaryWorld::new("gke pubsub", &SUBSCRIBED).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let start = |name| world.start_at(name, &["--canary-interval=1s", "--canary-wait-max=4s"]);
        let mut replicas = vec![start("one"), start("two")];
        let at = sender(&mut replicas);
        for replica in &mut replicas {
            replica.until_above(ARRIVED, 1.0);
        }
        world.feed.set(FeedGate::Without(" canary/"));
        wait(|| (world.feed.kept().len() >= 2).then_some(())).expect("canaries are sent");
        let records = world.records();
        let newest = records.iter().max_by_key(|it| it["sent"].to_string());
        let dead = newest.unwrap()["by"].clone();
        replicas.remove(at).kill();
        let mut left = replicas.remove(0);
        let lost = wait(|| {
            let records = world.records();
            let mut of_dead = records.iter().filter(|it| it["by"] == dead).peekable();
            (of_dead.peek().is_some() && of_dead.all(|it| it["lost"] == true)).then_some(())
        });
        assert!(lost.is_some(), "{:?}\n{}", world.records(), left.log());
        assert!(left.metric(LOST) >= 1.0);
        // A late canary gets its latency.
        let before = left.metric(ARRIVED);
        world.feed.set(FeedGate::Open);
        world.feed.release();
        left.until_above(ARRIVED, before + 3.0);
        assert_eq!(left.terminate(), 0);
    });
}

/// Replicas cannot tell each other which canaries arrived: none is counted as lost for that, and it
/// is reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_deleted_or_forbidden_are_said_once_and_no_canary_is_lost() {
    let Some(world) = CanaryWorld::new("gke pubsub", &SUBSCRIBED).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let admin = world.installed.server.client(ADMIN);
        let start = |name| world.start_at(name, &["--canary-interval=1s", "--canary-wait-max=3s"]);
        let mut replicas = vec![start("one"), start("two")];
        let at = sender(&mut replicas);
        let mut said = |status: &str, says: &str| {
            let before = sample(&mut replicas[at], REQUESTS, status);
            let asked = wait(|| {
                (sample(&mut replicas[at], REQUESTS, status) >= before + 8.0).then_some(())
            });
            let log = replicas[at].log();
            assert!(asked.is_some(), "{status}\n{log}");
            let lines = log.lines().filter(|it| it.contains("canary refused"));
            let lines = lines.filter(|it| it.contains(says)).count();
            assert_eq!(lines, 1, "{log}");
            for replica in &mut replicas {
                assert_eq!(replica.metric(LOST), 0.0, "{}", replica.log());
                replica.until_ready();
            }
        };
        assert_eq!(admin.delete(&world.object()).status, 200);
        said("not_found", "make a ConfigMap gke-audit-bridge-canary");
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                            "metadata": {"name": "gke-audit-bridge-canary"}});
        let made = admin.post(&format!("{NS}/configmaps"), &object);
        assert_eq!(made.status, 201);
        let role =
            "/apis/rbac.authorization.k8s.io/v1/namespaces/audit-bridge/roles/gke-audit-bridge";
        let rights = admin.get(role).json();
        let both = |replicas: &mut [Running]| {
            for replica in replicas {
                let before = replica.metric(ARRIVED);
                replica.until_above(ARRIVED, before + 2.0);
            }
        };
        assert_eq!(admin.delete(role).status, 200);
        said("forbidden", "the verbs get and patch");
        let mut rights = rights;
        rights["metadata"] = json!({"name": "gke-audit-bridge", "namespace": "audit-bridge"});
        let roles = role.rsplit_once('/').unwrap().0;
        assert_eq!(admin.post(roles, &rights).status, 201);
        both(&mut replicas);
        whole(&world, &mut replicas);
        for replica in replicas {
            assert_eq!(replica.terminate(), 0);
        }
    });
}

/// A replica learns too late that an event is another replica's canary.
#[tokio::test]
async fn canaries_left_out_where_replicas_share_are_refused() {
    let args = [
        "run",
        "--share-partitions",
        "--checkpoint-store=kubernetes",
        "--event-hub=h",
        "--event-hub-namespace=n",
        "--output=-",
        "--canary-interval=1m",
        "--canary-deliver=false",
    ];
    let ran = audit_bridge_tests::run("aks", &args);
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    let problems: Vec<&str> = ran.stderr.lines().filter(|it| it.contains("--")).collect();
    let is_it = |line: &&str| line.contains("--canary-deliver") && line.contains("replicas share");
    assert!(problems.iter().any(is_it), "{}", ran.stderr);
}
