//! A bridge that dies while a canary is under way, and replicas of which one reads.

use audit_bridge_tests::apiserver::feed::FeedGate;
use audit_bridge_tests::live::wait;

use super::{ARRIVED, CanaryWorld, LOST, REQUESTS, is_canary};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_under_way_at_a_kill_is_delivered_and_counted_by_nobody() {
    let Some(world) = CanaryWorld::new("eks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let mut first = world.start(&[]);
        first.until_ready();
        first.until_above(ARRIVED, 1.0);
        world.feed.set(FeedGate::Without(" canary/"));
        wait(|| (world.feed.kept().len() >= 4).then_some(())).expect("canaries are sent");
        first.kill();
        let kept = world.feed.kept();
        world.feed.set(FeedGate::Open);
        world.feed.release();
        let mut second = world.start(&["--canary-wait-max=3s"]);
        second.until_ready();
        second.until_above(ARRIVED, 3.0);
        // Those of the first life are events like any other.
        let ids: Vec<String> = kept
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|event| event["auditID"].as_str().unwrap().to_owned())
            .collect();
        let came = wait(|| {
            let accepted = world.installed.webhook.accepted_ids();
            ids.iter().all(|id| accepted.contains(id)).then_some(())
        });
        assert!(came.is_some(), "{}", second.log());
        let sent = second.metric(REQUESTS);
        assert!(
            second.metric(ARRIVED) <= sent,
            "none of the first life counts"
        );
        assert_eq!(second.metric(LOST), 0.0, "{}", second.log());
        assert_eq!(second.terminate(), 0);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canaries_are_sent_by_the_holder_of_the_lease_alone() {
    let Some(world) = CanaryWorld::new("eks", &["replicas=2"]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let elected = ["--checkpoint-store=kubernetes", "--leader-election"];
        let second_args = [&elected[..], &["--canary-interval=1s"]].concat();
        let mut first = world.start(&elected);
        first.until_ready();
        first.until_above(ARRIVED, 1.0);
        let mut second = world.start_at("other", &second_args);
        wait(|| second.log().contains("standing by").then_some(())).expect("the second waits");
        let before = first.metric(ARRIVED);
        first.until_above(ARRIVED, before + 2.0);
        assert_eq!(second.metric(REQUESTS), 0.0);
        assert_eq!(first.terminate(), 0);
        second.until_above(ARRIVED, 2.0);
        assert_eq!(second.metric(LOST), 0.0);
        let canaries = world.accepted().iter().filter(|it| is_canary(it)).count();
        assert!(canaries >= 6, "{canaries}");
        assert_eq!(second.terminate(), 0);
    });
}
