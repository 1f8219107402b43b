//! Replicas that share the partitions: each is read by one replica, and nothing is lost when
//! replicas come, leave, hang or die.

mod random;

use audit_bridge_testkit::WebhookAnswer;
use audit_bridge_testkit::kubernetes::{FakeKubernetes, KubernetesServer};
use audit_bridge_tests::replicas::{NAMESPACE, serve_api};

use super::*;

/// A hub, a receiver and a cluster with replicas.
struct Cluster {
    stage: Arc<Stage>,
    api: FakeKubernetes,
    _serving: KubernetesServer,
    partitions: usize,
}

impl Cluster {
    async fn new(partitions: usize) -> Cluster {
        let stage = Stage::new(partitions).await;
        let (api, serving) = serve_api(&stage.path("kubeconfig")).await;
        Cluster {
            stage: Arc::new(stage),
            api,
            _serving: serving,
            partitions,
        }
    }

    /// A replica, with its own volume.
    fn start(&self, name: &str, more: &[&str]) -> Running {
        let kubeconfig = self.stage.path("kubeconfig").display().to_string();
        let state = self.stage.path(name).display().to_string();
        let mut args = self.stage.args(&["--checkpoint-store", "kubernetes"]);
        let at = args.iter().position(|arg| arg == "--state-dir").unwrap();
        args[at + 1] = state;
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Running::start("aks", &args, &[("KUBECONFIG", &kubeconfig)])
    }

    /// Exit status and output of `check`.
    fn check(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut args = vec!["check".to_owned()];
        args.extend(self.stage.args(more));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = audit_bridge_tests::command("aks", &args);
        command.env("KUBECONFIG", self.stage.path("kubeconfig"));
        // Keep this runtime's other threads free for the stand-ins.
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    /// A replica that shares partitions.
    fn replica(&self, name: &str) -> Running {
        self.start(name, &["--share-partitions", "--start", "earliest"])
    }

    fn publish(&self, events: std::ops::Range<usize>) {
        self.stage.publish(events, self.partitions);
    }

    /// Waits until the checkpoints cover this many messages, so that they are never repeated.
    fn until_settled(&self, messages: i64) {
        let settled = || {
            let all = self.documents();
            let all: i64 = all.values().map(|document| passed(document)).sum();
            (all == messages).then_some(())
        };
        assert!(wait(settled).is_some(), "{messages} are never settled");
    }

    /// The checkpoints, by the name of their ConfigMap.
    fn documents(&self) -> BTreeMap<String, String> {
        let names = self.api.names("configmaps", NAMESPACE).into_iter();
        let document = |name: String| {
            let object = self.api.object("configmaps", NAMESPACE, &name)?;
            let text = object["data"]["checkpoint.json"].as_str()?.to_owned();
            Some((name, text))
        };
        names.filter_map(document).collect()
    }

    /// Removes the partitions' checkpoints, as if they had never been read.
    fn forget_partitions(&self) {
        for partition in 0..self.partitions {
            let name = self.name_of(partition);
            assert!(self.api.remove("configmaps", NAMESPACE, &name), "{name}");
        }
    }

    /// The name of a partition's ConfigMap.
    fn name_of(&self, partition: usize) -> String {
        let source = |text: &String| {
            let document: serde_json::Value = serde_json::from_str(text).unwrap();
            document["source"].as_str().unwrap().to_owned()
        };
        let ending = format!("/{partition}");
        let mut all = self.documents().into_iter();
        let found = all.find(|(_, text)| source(text).ends_with(&ending));
        let (name, _) = found.unwrap_or_else(|| panic!("no object of partition {partition}"));
        name
    }
}

/// Waits until each replica reads this many partitions.
fn until_shares(replicas: &mut [&mut Running], want: &[f64]) {
    for (replica, share) in replicas.iter_mut().zip(want) {
        replica.until_metric("audit_bridge_active_logs", *share);
        replica.until_ready();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_joining_and_leaving_deliver_each_event_once() {
    let cluster = Cluster::new(8).await;
    cluster.publish(0..80);
    let mut one = cluster.replica("one");
    cluster.stage.until_accepted(&one, 0..80);
    until_shares(&mut [&mut one], &[8.0]);
    let mut two = cluster.replica("two");
    cluster.publish(80..400);
    until_shares(&mut [&mut one, &mut two], &[4.0, 4.0]);
    let mut three = cluster.replica("three");
    cluster.publish(400..800);
    until_shares(&mut [&mut one, &mut two, &mut three], &[3.0, 3.0, 2.0]);
    cluster.publish(800..900);
    cluster.stage.until_accepted(&two, 0..900);
    assert!(three.metric("audit_bridge_events_delivered_total") > 0.0);

    // Each replica leaves in good order while more arrives.
    cluster.publish(900..1200);
    assert_eq!(one.terminate(), 0);
    until_shares(&mut [&mut two, &mut three], &[4.0, 4.0]);
    cluster.publish(1200..1300);
    assert_eq!(three.terminate(), 0);
    until_shares(&mut [&mut two], &[8.0]);
    cluster.stage.until_accepted(&two, 0..1300);
    assert_eq!(two.terminate(), 0);
    cluster.stage.assert_no_duplicates();

    // Event Hubs could keep out every older reader.
    let levels = |partition: usize| {
        let links = cluster.stage.hubs.attached().into_iter();
        let of = links.filter(move |link| link.partition == partition.to_string());
        of.map(|link| link.epoch.expect("an owner level"))
            .collect::<Vec<_>>()
    };
    for partition in 0..8 {
        let levels = levels(partition);
        assert!(levels.is_sorted(), "{levels:?}");
        // The last replica took it over from one with a lower level.
        assert!(
            levels.first() < levels.last() || levels.len() == 1,
            "{levels:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_killed_is_followed_and_hung_one_does_no_harm() {
    let cluster = Cluster::new(6).await;
    let mut one = cluster.replica("one");
    let mut two = cluster.replica("two");
    until_shares(&mut [&mut one, &mut two], &[3.0, 3.0]);
    cluster.publish(0..300);
    cluster.stage.until_accepted(&one, 0..300);
    cluster.until_settled(300);
    let settled = cluster.stage.webhook.accepted_ids().len();
    assert_eq!(settled, 300);

    // One is killed in the middle of batches, and what it had in flight is repeated.
    let slow = WebhookAnswer::status(200).after(Duration::from_millis(100));
    cluster.stage.webhook.set_answer(slow.clone());
    cluster.publish(300..900);
    let some = wait(|| (cluster.stage.webhook.accepted_ids().len() > settled + 50).then_some(()));
    assert!(some.is_some());
    one.kill();
    cluster.stage.until_accepted(&two, 0..900);
    until_shares(&mut [&mut two], &[6.0]);

    // One that pauses in the middle of batches loses its partitions, and notices when it continues.
    let mut three = cluster.replica("three");
    until_shares(&mut [&mut two, &mut three], &[3.0, 3.0]);
    cluster.publish(900..1500);
    let before = cluster.stage.webhook.accepted_ids().len();
    let some = wait(|| (cluster.stage.webhook.accepted_ids().len() > before + 50).then_some(()));
    assert!(some.is_some());
    two.signal("STOP");
    until_shares(&mut [&mut three], &[6.0]);
    cluster.stage.until_accepted(&three, 0..1500);
    cluster.publish(1500..1600);
    cluster.stage.until_accepted(&three, 0..1600);
    cluster.until_settled(1600);
    let before = cluster.stage.webhook.accepted_ids().len();
    two.signal("CONT");
    until_shares(&mut [&mut three, &mut two], &[3.0, 3.0]);
    // What it believed before the pause is outdated; its checkpoint may still be valid.
    let after = cluster.stage.webhook.accepted_ids().len();
    println!("{} came again of what it had under way", after - before);
    let in_flight = 3 * 400;
    assert!(after - before <= in_flight, "{} came again", after - before);
    cluster.publish(1600..1700);
    cluster.stage.until_accepted(&two, 0..1700);
    assert_eq!(two.terminate(), 0);
    assert_eq!(three.terminate(), 0);

    // Nothing that was settled was repeated, whichever replica read it.
    let mut seen = BTreeSet::new();
    let may_repeat: BTreeSet<_> = (300..1500).map(audit_id).collect();
    for id in cluster.stage.webhook.accepted_ids() {
        if !seen.insert(id.clone()) {
            assert!(may_repeat.contains(&id), "{id} was settled, and came again");
        }
    }
    assert_eq!(seen.len(), 1700);
    let mut alone = cluster.replica("four");
    alone.until_ready();
    until_shares(&mut [&mut alone], &[6.0]);
    let all = cluster.stage.webhook.accepted_ids().len();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        cluster.stage.webhook.accepted_ids().len(),
        all,
        "all was settled"
    );
    assert_eq!(alone.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partition_taken_late_begins_where_the_first_replica_began() {
    let cluster = Cluster::new(3).await;
    for n in 0..9 {
        let old = vec![message(&[record(n)]).into()];
        let hubs = &cluster.stage.hubs;
        hubs.publish_at(HUB, n % 3, old, Duration::from_secs(600));
    }
    let mut first = cluster.start("one", &["--share-partitions"]);
    until_shares(&mut [&mut first], &[3.0]);
    let kept = wait(|| {
        let documents = cluster.documents().len();
        (documents == 4).then_some(())
    });
    assert!(kept.is_some(), "{}", first.log());
    assert_eq!(first.terminate(), 0);
    cluster.forget_partitions();
    // It starts later, with its own default `latest`.
    cluster.publish(9..30);
    let second = cluster.start("two", &["--share-partitions"]);
    cluster.stage.until_accepted(&second, 9..30);
    assert_eq!(second.terminate(), 0);
    cluster.stage.assert_no_duplicates();
    assert_eq!(cluster.stage.webhook.accepted_ids().len(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_count_changed_keeps_positions() {
    let cluster = Cluster::new(4).await;
    cluster.publish(0..40);
    let one = cluster.start("one", &["--start", "earliest"]);
    cluster.stage.until_accepted(&one, 0..40);
    assert_eq!(one.terminate(), 0);
    let sharing = ["--share-partitions", "--checkpoint-store", "kubernetes"];
    let (status, said) = cluster.check(&sharing);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("there is one to go on from"), "{said}");
    // Several replicas continue where the single one stopped.
    cluster.publish(40..80);
    let mut two = cluster.replica("two");
    let mut three = cluster.replica("three");
    until_shares(&mut [&mut two, &mut three], &[2.0, 2.0]);
    cluster.stage.until_accepted(&two, 0..80);
    assert_eq!(two.terminate(), 0);
    assert_eq!(three.terminate(), 0);
    cluster.stage.assert_no_duplicates();
    // The single one continues where it stopped itself: nothing is lost, and what the several
    // delivered is repeated.
    cluster.publish(80..90);
    let one = cluster.start("one", &[]);
    cluster.stage.until_accepted(&one, 40..90);
    assert_eq!(one.terminate(), 0);
    // Now its positions are the newer ones.
    cluster.publish(90..100);
    let before = cluster.stage.webhook.accepted_ids().len();
    let two = cluster.replica("two");
    cluster.stage.until_accepted(&two, 90..100);
    assert_eq!(two.terminate(), 0);
    let accepted = cluster.stage.webhook.accepted_ids();
    assert_eq!(accepted.len(), before + 10, "only what is new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sharing_without_its_needs_names_them() {
    let cluster = Cluster::new(2).await;
    cluster.publish(0..2);
    let mut replica = cluster.replica("one");
    until_shares(&mut [&mut replica], &[2.0]);
    // Next to one that reads.
    let (status, said) = cluster.check(&["--share-partitions", "--checkpoint-store", "kubernetes"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("partitions: 2"), "{said}");
    assert!(said.contains("choose one with --categories"), "{said}");
    let (status, said) = cluster.check(&["--share-partitions"]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("--checkpoint-store kubernetes"), "{said}");
    let all = ["--share-partitions", "--checkpoint-store", "kubernetes"];
    let (status, said) = cluster.check(&[all.as_slice(), &["--leader-election"]].concat());
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("AUDIT_BRIDGE_SHARE_PARTITIONS"), "{said}");
    let (status, said) = cluster.check(&[all.as_slice(), &["--until", "now"]].concat());
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("--until"), "{said}");
    assert_eq!(replica.terminate(), 0);
}
