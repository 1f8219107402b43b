//! Failures around the bridge: it holds, reports them, and continues by itself.

use std::time::Duration;

use audit_bridge_testkit::WebhookAnswer;
use audit_bridge_testkit::cloud_watch::CloudWatchFault;
use audit_bridge_tests::event;
use audit_bridge_tests::live::wait;

use super::{STREAM, World, checkpoints, now_ms};

#[tokio::test(flavor = "multi_thread")]
async fn log_denied_is_held_with_remedy() {
    let world = World::new().await;
    world.cloud.choose(|_| Some(CloudWatchFault::denied()));
    let mut bridge = world.start(&["--start=-1m"]);
    let why = bridge.until_not_ready("source", "logs:FilterLogEvents");
    assert!(why.contains("log-group:/aws/eks/prod/cluster"), "{why}");
    assert_eq!(bridge.get("/livez").0, 200);
    let log = bridge.log();
    assert!(
        log.matches("not ready").count() <= 4,
        "one line, not many:\n{log}"
    );
    world.put(1, 0);
    world.cloud.clear_faults();
    world.until_accepted(1..2, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_group_unknown_says_how_to_enable_the_log() {
    let world = World::new().await;
    let mut bridge = world.start(&["--cluster-name=other", "--cluster-name=x"]);
    let why = bridge.until_not_ready("source", "no log group /aws/eks/other/cluster");
    assert!(why.contains("update-cluster-config --name other"), "{why}");
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_group_of_infrequent_access_is_named_with_remedy() {
    let world = World::new().await;
    world.cloud.infrequent_access("/aws/eks/rare/cluster");
    let mut bridge = world.start(&["--cluster-name=rare"]);
    let why = bridge.until_not_ready("source", "Infrequent Access");
    assert!(why.contains("/aws/eks/rare/cluster"), "{why}");
    assert!(why.contains("Standard"), "{why}");
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_masked_are_unmasked_only_on_request() {
    let world = World::new().await;
    world.cloud.sensitive("kubernetes-admin");
    world.put(1, 0);
    let mut bridge = world.start(&["--start=-1m"]);
    world.until_accepted(1..2, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
    let asked = world.cloud.recorded();
    assert!(asked.iter().all(|it| it.body["unmask"].is_null()));
    // A bridge's first request is an empty list.
    let last = || {
        let all = world.webhook.received();
        let last = all.iter().rfind(|it| !it.ids.is_empty()).unwrap();
        String::from_utf8_lossy(&last.body).into_owned()
    };
    let masked = format!("\"username\":\"{}\"", "*".repeat(16));
    assert!(last().contains(&masked), "{}", last());
    world.put(2, 0);
    let bridge = world.start(&["--unmask"]);
    world.until_accepted(2..3, &bridge);
    assert_eq!(bridge.terminate(), 0);
    assert!(last().contains("kubernetes-admin"), "{}", last());
}

#[tokio::test(flavor = "multi_thread")]
async fn api_random_answers_lose_nothing() {
    let world = World::new().await;
    world.cloud.page_events_max(5);
    let mut turn = 0;
    world.cloud.choose(move |request| {
        turn += 1;
        match turn % 16 {
            1 => Some(CloudWatchFault::throttled()),
            2 => Some(CloudWatchFault::Error(
                503,
                "ServiceUnavailableException",
                "later",
            )),
            3 => Some(CloudWatchFault::Cut),
            4 => Some(CloudWatchFault::Garbage),
            5 => Some(CloudWatchFault::Slow(Duration::from_millis(80))),
            6 if request.body["nextToken"].is_string() => Some(CloudWatchFault::Error(
                400,
                "InvalidParameterException",
                "The specified nextToken is invalid.",
            )),
            _ => None,
        }
    });
    for n in 0..40 {
        world.put(n, 5000);
    }
    let mut bridge = world.start(&["--start=-1m"]);
    world.until_accepted(0..40, &bridge);
    assert!(bridge.metric("audit_bridge_source_throttled_total") > 0.0);
    assert_eq!(bridge.terminate(), 0);
    assert!(world.accepted().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_failing_holds_the_checkpoint() {
    let world = World::new().await;
    world.webhook.set_answer(WebhookAnswer::status(401));
    let mut bridge = world.start(&["--start=-1m"]);
    bridge.until_not_ready("webhook", "--webhook-token-file");
    for n in 0..20 {
        world.put(n, 0);
    }
    std::thread::sleep(Duration::from_millis(1500));
    wait(|| checkpoints(&world.state()).pop()).expect("a checkpoint of the beginning");
    bridge.kill();
    // Killed during the hold, before anything was accepted.
    let mut bridge = world.start(&["--start=latest"]);
    std::thread::sleep(Duration::from_millis(500));
    world.webhook.accept();
    world.until_accepted(0..20, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_folder_foreign_or_in_use_ends_the_start() {
    let world = World::new().await;
    let mut first = world.start(&["--start=-1m"]);
    world.put(1, 0);
    world.until_accepted(1..2, &first);
    first.until_ready();
    let mut second = world.start(&[]);
    assert_eq!(second.until_end(), 1);
    assert!(second.log().contains("in use by pid"), "{}", second.log());
    assert_eq!(first.terminate(), 0);

    let path = checkpoints(&world.state()).pop().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let foreign = text.replace("eu-central-1", "us-east-1");
    std::fs::write(&path, &foreign).unwrap();
    let mut third = world.start(&[]);
    assert_eq!(third.until_end(), 1);
    assert!(third.log().contains("us-east-1"), "{}", third.log());
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        foreign,
        "untouched"
    );
}

/// A person has to look at the one log; the other one must not wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_damaged_of_one_log_stops_no_other() {
    let world = World::new().await;
    let other = "/aws/eks/two/cluster";
    world.cloud.group(other);
    let flags = ["--cluster-name=two", "--start=-1m"];
    let bridge = world.start(&flags);
    world.put(1, 0);
    world.cloud.put(other, STREAM, now_ms(), &event(2, 600));
    world.until_accepted(1..3, &bridge);
    assert_eq!(bridge.terminate(), 0);

    let found = checkpoints(&world.state());
    let damaged = found
        .iter()
        .find(|path| std::fs::read_to_string(path).unwrap().contains(other));
    let damaged = damaged.expect("a checkpoint of each log");
    let text = std::fs::read_to_string(damaged).unwrap();
    std::fs::write(damaged, "{").unwrap();
    let mut bridge = world.start(&flags);
    let why = bridge.until_not_ready("checkpoint", other);
    assert!(why.contains("two"), "{why}");
    world.put(3, 0);
    world.cloud.put(other, STREAM, now_ms(), &event(4, 600));
    world.until_accepted(3..4, &bridge);
    assert_eq!(std::fs::read_to_string(damaged).unwrap(), "{", "untouched");
    std::fs::write(damaged, text).unwrap();
    world.until_accepted(4..5, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}
