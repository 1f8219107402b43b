//! A Pub/Sub subscription: what is acknowledged and when, and that no message is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use audit_bridge_testkit::cloud_logging::{CloudLogging, Metadata};
use audit_bridge_testkit::{PodEntry, PubSub, ScriptedWebhook, WebhookAnswer};
use audit_bridge_tests::command;
use audit_bridge_tests::live::Running;
use serde_json::Value;
use tonic::Code;

use crate::{ago, built, examples, parts, sorted_lines, until};

const NAME: &str = "projects/p/subscriptions/audit";

pub(crate) struct Scene {
    pub(crate) pubsub: PubSub,
    pub(crate) webhook: ScriptedWebhook,
    pub(crate) folder: tempfile::TempDir,
}

impl Scene {
    pub(crate) async fn new() -> Scene {
        built();
        Scene {
            pubsub: PubSub::start(NAME).await,
            webhook: ScriptedWebhook::start().await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A replica with its own state.
    pub(crate) fn run(&self, replica: &str, more: &[&str]) -> Running {
        let (pubsub, webhook) = (self.pubsub.url(), self.webhook.url());
        let state = self.folder.path().join(replica);
        let args = [
            ["--subscription", NAME],
            ["--pubsub-endpoint", &pubsub],
            ["--webhook-url", &webhook],
            ["--state-dir", state.to_str().unwrap()],
            ["--batch-wait-max", "50ms"],
        ];
        Running::start("gke", &[args.concat().as_slice(), more].concat(), &[])
    }

    fn publish(&self, numbers: std::ops::Range<usize>, bytes: usize) {
        for number in numbers {
            let entry = PodEntry {
                bytes,
                ..PodEntry::new(number, ago(1))
            };
            self.pubsub.publish(entry.text());
        }
    }

    fn accepted(&self) -> BTreeSet<String> {
        self.webhook.accepted_ids().into_iter().collect()
    }

    fn until_accepted(&self, numbers: std::ops::Range<usize>) {
        let want: BTreeSet<String> = numbers.map(PodEntry::audit_id).collect();
        until(&format!("{} events", want.len()), || {
            self.accepted().is_superset(&want)
        });
        assert_eq!(self.accepted(), want);
    }

    fn until_acked(&self, messages: usize) {
        until(&format!("{messages} acknowledged"), || {
            self.pubsub.acked() == messages
        });
    }

    fn check(&self) -> (i32, String) {
        let state = self.folder.path().join("check");
        std::fs::create_dir_all(&state).unwrap();
        let output = command("gke", &["check", "--subscription", NAME])
            .args(["--pubsub-endpoint", &self.pubsub.url()])
            .args(["--webhook-url", &self.webhook.url()])
            .arg("--state-dir")
            .arg(state)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap_or(-1), said)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_are_acknowledged_after_the_webhook_accepted() {
    let scene = Scene::new().await;
    scene.publish(0..500, 0);
    scene.webhook.set_answer(WebhookAnswer::status(503));
    let mut bridge = scene.run("one", &[]);
    until("it tries", || scene.webhook.requests() > 1);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(scene.pubsub.acked(), 0, "nothing was delivered");
    assert_eq!(scene.pubsub.nacks(), 0, "a hold gives nothing back");
    assert_eq!(scene.pubsub.deliveries(), 500);
    assert!(scene.pubsub.extensions() >= 500, "leases are kept");
    scene.webhook.accept();
    scene.until_accepted(0..500);
    scene.until_acked(500);
    bridge.until_ready();
    bridge.until_metric("audit_bridge_lag_seconds", 0.0);
    assert_eq!(bridge.terminate(), 0);
    assert_eq!(scene.webhook.accepted_ids().len(), 500, "each just once");
    assert_eq!(scene.pubsub.deliveries(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_open_are_bounded_and_returned_at_the_end() {
    let scene = Scene::new().await;
    // 40 MB
    scene.publish(0..4000, 10_000);
    scene.webhook.set_answer(WebhookAnswer::status(503));
    // Large limits, so that only the limit told to the service applies.
    let roomy = [
        "--in-flight-batches-max",
        "200",
        "--in-flight-bytes-max",
        "200MiB",
    ];
    let bridge = scene.run("one", &[&roomy[..], &["--shutdown-grace", "1s"]].concat());
    until("it is full", || scene.pubsub.deliveries() > 2000);
    std::thread::sleep(Duration::from_secs(2));
    let held = scene.pubsub.held_bytes_max();
    assert!(held < (25 << 20), "{held} bytes");
    let sent = scene.pubsub.deliveries();
    assert!(sent < 3000, "{sent} messages");
    assert_eq!(bridge.terminate(), 0);
    // Returned rather than left to expire, so that another replica gets them at once.
    until("given back", || scene.pubsub.nacks() >= sent);
    scene.webhook.accept();
    let bridge = scene.run("one", &[]);
    scene.until_accepted(0..4000);
    scene.until_acked(4000);
    assert_eq!(bridge.terminate(), 0);
}

/// The service sends at most 16,000 messages that are not acknowledged, and an event that the
/// receiver refuses is parked for at least a quarter of an hour, as long as others arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn message_whose_event_is_parked_holds_up_no_other() {
    let scene = Scene::new().await;
    scene.webhook.poison(&PodEntry::audit_id(0), 500);
    scene.publish(0..18_000, 0);
    let bridge = scene.run("one", &[]);
    let others: BTreeSet<String> = (1..18_000).map(PodEntry::audit_id).collect();
    until("all others", || scene.accepted() == others);
    scene.until_acked(17_999);
    assert_eq!(bridge.terminate(), 0);
    // The message is returned, and redelivered.
    scene.webhook.accept_event(&PodEntry::audit_id(0));
    let bridge = scene.run("two", &[]);
    scene.until_accepted(0..18_000);
    scene.until_acked(18_000);
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clean_stop_acknowledges_all_that_was_delivered() {
    for exactly_once in [false, true] {
        let scene = Scene::new().await;
        if exactly_once {
            scene.pubsub.exactly_once();
        }
        scene.publish(0..300, 0);
        let bridge = scene.run("one", &[]);
        scene.until_accepted(0..300);
        // Before the checkpoint's interval has passed.
        assert_eq!(bridge.terminate(), 0);
        assert_eq!(scene.pubsub.acked(), 300, "exactly once: {exactly_once}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replica_killed_of_two_loses_nothing() {
    let scene = Scene::new().await;
    scene.pubsub.lease_at_most(Duration::from_secs(5));
    scene
        .webhook
        .set_answer(WebhookAnswer::status(200).after(Duration::from_millis(100)));
    let slow = [
        "--batch-events-max",
        "10",
        "--in-flight-bytes-max",
        "100KiB",
    ];
    scene.publish(0..500, 0);
    let one = scene.run("one", &slow);
    let two = scene.run("two", &slow);
    until("both at work", || scene.pubsub.streams_opened() == 2);
    until("progress", || scene.accepted().len() > 50);
    scene.publish(500..1000, 0);
    one.kill();
    scene.until_accepted(0..1000);
    scene.until_acked(1000);
    assert_eq!(two.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_dying_repeatedly_lose_nothing() {
    let scene = Scene::new().await;
    scene.pubsub.lease_at_most(Duration::from_secs(3));
    scene
        .webhook
        .set_answer(WebhookAnswer::status(200).after(Duration::from_millis(50)));
    let slow = [
        "--batch-events-max",
        "10",
        "--in-flight-bytes-max",
        "100KiB",
    ];
    let mut survivor = scene.run("0", &slow);
    let mut published = 0;
    for round in 1..=6 {
        scene.publish(published..published + 150, 0);
        published += 150;
        let next = scene.run(&round.to_string(), &slow);
        let had = scene.accepted().len();
        until("progress", || {
            scene.accepted().len() >= (had + 60).min(published)
        });
        if round % 2 == 0 {
            scene.pubsub.cut_streams();
            scene.webhook.script([
                WebhookAnswer::status(503),
                WebhookAnswer::reset_after_reading(),
            ]);
        }
        std::mem::replace(&mut survivor, next).kill();
    }
    scene.until_accepted(0..published);
    scene.until_acked(published);
    assert_eq!(survivor.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledgment_lost_causes_no_second_delivery() {
    let scene = Scene::new().await;
    scene.pubsub.lease_at_most(Duration::from_secs(2));
    scene.pubsub.fail_acks(true);
    scene.publish(0..50, 0);
    let bridge = scene.run("one", &[]);
    scene.until_accepted(0..50);
    until("they come again", || scene.pubsub.deliveries() >= 100);
    assert_eq!(scene.pubsub.acked(), 0);
    scene.pubsub.fail_acks(false);
    scene.until_acked(50);
    assert_eq!(bridge.terminate(), 0);
    assert_eq!(scene.webhook.accepted_ids().len(), 50, "each just once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn message_redelivered_while_held_is_delivered_once() {
    let scene = Scene::new().await;
    // Leases expire meanwhile, whatever the client does.
    scene.pubsub.lease_at_most(Duration::from_secs(1));
    scene.webhook.set_answer(WebhookAnswer::status(503));
    scene.publish(0..20, 0);
    let bridge = scene.run("one", &[]);
    until("they come again", || scene.pubsub.deliveries() >= 60);
    scene.webhook.accept();
    scene.until_accepted(0..20);
    scene.until_acked(20);
    assert_eq!(bridge.terminate(), 0);
    assert_eq!(scene.webhook.accepted_ids().len(), 20, "each just once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stream_ended_is_reopened() {
    let scene = Scene::new().await;
    scene.publish(0..100, 0);
    scene.pubsub.refuse_next(Code::Unavailable);
    scene.pubsub.refuse_next(Code::NotFound);
    scene.pubsub.refuse_next(Code::Internal);
    let mut bridge = scene.run("one", &[]);
    scene.until_accepted(0..100);
    for round in 1..=3 {
        scene.pubsub.cut_streams();
        scene.publish(round * 100..(round + 1) * 100, 0);
        scene.until_accepted(0..(round + 1) * 100);
    }
    // No busy loop.
    let opened = scene.pubsub.streams_opened();
    assert!(opened <= 10, "{opened} streams");
    scene.until_acked(400);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn message_invalid_goes_to_dead_letter_and_is_acknowledged() {
    let scene = Scene::new().await;
    let strays = ["", "7", "{\"protoPayload\":", "hello", "7"];
    for stray in strays {
        scene.pubsub.publish(stray);
    }
    scene.pubsub.publish(b"\xff\xfe".to_vec());
    scene.publish(0..10, 0);
    let bridge = scene.run("one", &[]);
    scene.until_accepted(0..10);
    scene.until_acked(16);
    assert_eq!(bridge.terminate(), 0);
    assert_eq!(scene.pubsub.deliveries(), 16, "none came again");
    let path = scene.folder.path().join("one/dead-letter.jsonl");
    let letters = std::fs::read_to_string(path).unwrap();
    assert_eq!(letters.lines().count(), 6, "{letters}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn split_entries_across_messages_are_joined() {
    let scene = Scene::new().await;
    let [first, second] = parts(0, ago(5));
    scene.pubsub.publish(second);
    scene.publish(1..50, 0);
    let bridge = scene.run("one", &[]);
    until("the others", || scene.accepted().len() == 49);
    // The part is not acknowledged until the entry is complete, but all others are.
    scene.until_acked(49);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(scene.pubsub.acked(), 49);
    scene.pubsub.publish(first);
    scene.until_accepted(0..50);
    scene.until_acked(51);
    assert_eq!(bridge.terminate(), 0);
    let received = scene.webhook.received();
    let filling = received.iter().find_map(|request| {
        let list: Value = serde_json::from_slice(&request.body).ok()?;
        let items = list["items"].as_array()?.clone();
        let event = items
            .into_iter()
            .find(|it| it["auditID"] == PodEntry::audit_id(0))?;
        Some(event["requestObject"]["metadata"]["annotations"]["filling"].clone())
    });
    assert_eq!(filling.unwrap(), "x".repeat(70) + &"y".repeat(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn live_and_replay_give_the_same_events() {
    let scene = Scene::new().await;
    let same = ["--format", "events", "--include-data-access", "true"];
    let (entries, events) = examples(scene.folder.path(), &same);
    let messages = entries.len();
    for entry in entries {
        scene.pubsub.publish(entry);
    }
    let output = scene.folder.path().join("live.jsonl");
    let state = scene.folder.path().join("state");
    let args = [
        ["--output", output.to_str().unwrap()],
        ["--state-dir", state.to_str().unwrap()],
        ["--subscription", NAME],
    ];
    // The variable of Google's own tools.
    let host = scene.pubsub.host();
    let bridge = Running::start(
        "gke",
        &[args.concat().as_slice(), &same].concat(),
        &[("PUBSUB_EMULATOR_HOST", &host)],
    );
    scene.until_acked(messages);
    assert_eq!(bridge.terminate(), 0);
    assert_eq!(sorted_lines(&output), events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn role_missing_is_held_with_remedy() {
    let scene = Scene::new().await;
    scene.pubsub.permit(false);
    scene.publish(0..10, 0);
    let mut bridge = scene.run("one", &[]);
    bridge.until_not_ready("source", "roles/pubsub.subscriber");
    let (status, said) = scene.check();
    assert_eq!(status, 1);
    assert!(said.contains("roles/pubsub.subscriber"), "{said}");
    assert_eq!(bridge.get("/livez").0, 200, "a hold is no hang");
    scene.pubsub.permit(true);
    scene.until_accepted(0..10);
    bridge.until_ready();
    let (status, said) = scene.check();
    assert_eq!(status, 0, "{said}");
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn service_unreachable_is_reported_and_quiet_one_is_ready() {
    let scene = Scene::new().await;
    let mut quiet = scene.run("quiet", &[]);
    quiet.until_ready();
    assert_eq!(quiet.terminate(), 0);
    // Nothing listens on this port.
    let state = scene.folder.path().join("two");
    let webhook = scene.webhook.url();
    let args = [
        ["--subscription", NAME],
        ["--pubsub-endpoint", "http://127.0.0.1:1"],
        ["--webhook-url", &webhook],
        ["--state-dir", state.to_str().unwrap()],
    ];
    let mut bridge = Running::start("gke", &args.concat(), &[]);
    bridge.until_not_ready("source", "cannot be reached");
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn token_of_metadata_server_refused_is_renewed() {
    let scene = Scene::new().await;
    let server = CloudLogging::start().await;
    let mut metadata = Metadata::of("p", "c", "l");
    server.metadata(metadata.clone());
    scene.pubsub.require_token("metadata-token");
    scene.publish(0..10, 0);
    let (pubsub, webhook, host) = (scene.pubsub.url(), scene.webhook.url(), server.host());
    let state = scene.folder.path().join("one");
    let args = [
        ["--subscription", NAME],
        ["--pubsub-endpoint", &pubsub],
        ["--webhook-url", &webhook],
        ["--state-dir", state.to_str().unwrap()],
    ];
    let variables = [("GCE_METADATA_HOST", host.as_str())];
    let mut bridge = Running::start("gke", &args.concat(), &variables);
    scene.until_accepted(0..10);
    bridge.until_ready();
    // The token is revoked, and the stream ended.
    metadata.token = Some("other".to_owned());
    server.metadata(metadata);
    scene.pubsub.require_token("other");
    scene.pubsub.cut_streams();
    scene.publish(10..20, 0);
    scene.until_accepted(0..20);
    bridge.until_ready();
    let log = bridge.log();
    assert!(
        !log.contains("metadata-token") && !log.contains("other-"),
        "a token in {log}"
    );
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscription_of_another_project_is_named() {
    let scene = Scene::new().await;
    let (pubsub, webhook) = (scene.pubsub.url(), scene.webhook.url());
    let state = scene.folder.path().join("one");
    let args = [
        ["--subscription", "projects/other/subscriptions/audit"],
        ["--pubsub-endpoint", &pubsub],
        ["--webhook-url", &webhook],
        ["--state-dir", state.to_str().unwrap()],
    ];
    let mut bridge = Running::start("gke", &args.concat(), &[]);
    let why = bridge.until_not_ready("source", "check --subscription");
    assert!(why.contains("projects/other/subscriptions/audit"), "{why}");
    assert_eq!(bridge.terminate(), 0);
}
