//! `check --canary`: sends one canary and reports its latency or the broken leg, next to a running
//! bridge.

use audit_bridge_testkit::WebhookAnswer;
use audit_bridge_tests::apiserver::feed::FeedGate;
use audit_bridge_tests::command;

use super::{ARRIVED, CanaryWorld, LOST, SUBSCRIBED, is_canary};

/// The exit status, standard output and standard error.
fn check(world: &CanaryWorld, more: &[&str]) -> (i32, String, String) {
    let args = world.args(&world.installed.path("check"));
    let mut all = vec!["check", "--canary"];
    all.extend(args.iter().map(String::as_str));
    all.extend(more);
    let output = command(world.bridge(), &all)
        .envs(world.variables())
        .output()
        .unwrap();
    let [printed, said] =
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    (output.status.code().unwrap_or(-1), printed, said)
}

async fn check_tells(which: &str, switch: &str) {
    let Some(world) = CanaryWorld::new(which, &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let (status, printed, said) = check(&world, &[]);
        assert_eq!(status, 0, "{printed}\n{said}");
        let line = printed.lines().find(|line| line.starts_with("canary"));
        let line = line.unwrap_or_else(|| panic!("{printed}"));
        assert!(
            line.contains("ok") && line.contains("arrived at the webhook after"),
            "{line}"
        );
        assert!(said.contains("waiting for the canary: 0 s"), "{said}");
        let own = world.accepted().iter().filter(|it| is_canary(it)).count();
        assert_eq!(own, 1, "of all events only the canary's is delivered");

        // Next to a running bridge, which has its own canaries and position.
        let mut bridge = world.start(&[]);
        bridge.until_above(ARRIVED, 1.0);
        let (status, printed, _) = check(&world, &["--json"]);
        assert_eq!(status, 0, "{printed}");
        assert!(
            printed.contains(r#""check":"canary","ok":true"#),
            "{printed}"
        );
        assert_eq!(bridge.terminate(), 0);

        let quick = ["--canary-wait-max=3s"];
        world.feed.set(FeedGate::Without(" canary/"));
        let (status, printed, _) = check(&world, &quick);
        assert_eq!(status, 1, "{printed}");
        assert!(
            printed.contains(switch) && printed.contains("FAILED"),
            "{printed}"
        );
        world.feed.set(FeedGate::Shut);
        let (status, printed, _) = check(&world, &quick);
        assert!(
            status == 1 && printed.contains("no audit record at all"),
            "{printed}"
        );
        assert!(printed.contains(switch), "{printed}");
        world.feed.set(FeedGate::Open);

        // The receiver accepts an empty list, but not the event.
        world
            .installed
            .webhook
            .script([WebhookAnswer::status(200), WebhookAnswer::status(500)]);
        let (status, printed, _) = check(&world, &quick);
        assert!(
            status == 1 && printed.contains("the webhook does not take it"),
            "{printed}"
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_with_canary_on_eks_ends_with_the_latency_or_the_leg() {
    check_tells("eks", "aws eks describe-cluster").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_with_canary_on_aks_ends_with_the_latency_or_the_leg() {
    check_tells("aks", "az monitor diagnostic-settings list").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_with_canary_on_gke_ends_with_the_latency_or_the_leg() {
    check_tells("gke", "gcloud logging sinks").await;
}

/// Reading a subscription would take messages away from the running bridges, so one of them has to
/// report that the canary arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_with_canary_of_a_subscription_asks_the_replicas_that_run() {
    let Some(world) = CanaryWorld::new("gke pubsub", &SUBSCRIBED).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let (status, printed, _) = check(&world, &["--canary-wait-max=3s"]);
        assert_eq!(status, 1, "{printed}");
        assert!(
            printed.contains("no replica has said") && printed.contains("gcloud logging sinks"),
            "{printed}"
        );
        let mut bridge = world.start_with(&["--canary-interval=1h"]);
        bridge.until_ready();
        bridge.until_metric(ARRIVED, 1.0);
        let (status, printed, said) = check(&world, &[]);
        assert_eq!(status, 0, "{printed}\n{said}\n{}", bridge.log());
        assert!(printed.contains("a replica has brought"), "{printed}");
        assert_eq!(bridge.metric(LOST), 0.0);
        let left: Vec<_> = world.records();
        assert!(
            left.iter()
                .all(|it| !it["by"].to_string().contains("check-")),
            "{left:?}"
        );
        assert_eq!(bridge.terminate(), 0);
    });
}
