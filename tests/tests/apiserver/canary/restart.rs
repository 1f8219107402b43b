//! A bridge that dies while a canary is in flight, and replicas of which one reads.

use std::time::{Duration, Instant};

use audit_bridge_tests::apiserver::feed::FeedGate;
use audit_bridge_tests::live::wait;
use serde_json::Value;

use super::{ARRIVED, CanaryWorld, LOST, REQUESTS, is_canary};

/// The canaries that the provider holds back.
fn kept(world: &CanaryWorld) -> usize {
    let kept = world.feed.kept();
    let events = kept
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    events
        .filter(|it| it["stage"] == "ResponseComplete")
        .count()
}

/// Kills a bridge while at least three canaries are in flight; returns how many.
fn killed(world: &CanaryWorld) -> usize {
    let mut first = world.start(&[]);
    first.until_ready();
    first.until_above(ARRIVED, 1.0);
    world.feed.set(FeedGate::Without(" canary/"));
    wait(|| (kept(world) >= 3).then_some(())).expect("canaries are sent");
    first.kill();
    // Wait until all writes have arrived.
    let written = wait(|| {
        let before = kept(world);
        std::thread::sleep(Duration::from_millis(300));
        (kept(world) == before).then_some(before)
    });
    written.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_under_way_at_a_kill_arrives_at_the_next_process_with_its_latency() {
    let Some(world) = CanaryWorld::new("eks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let under_way = killed(&world);
        let since = Instant::now();
        let mut second = world.start_with(&["--canary-interval=1h"]);
        second.until_ready();
        wait(|| (kept(&world) > under_way).then_some(())).expect("it sends one of its own");
        let waited = since.elapsed().as_secs_f64();
        world.feed.set(FeedGate::Open);
        world.feed.release();
        let all = under_way as f64 + 1.0;
        second.until_metric(ARRIVED, all);
        let latencies = second.metric("audit_bridge_canary_latency_seconds_sum");
        assert!(
            latencies >= waited * (all - 1.0),
            "{latencies} {waited} {all}"
        );
        let left = wait(|| world.records().is_empty().then_some(()));
        assert!(left.is_some(), "{:?}\n{}", world.records(), second.log());
        assert_eq!(second.metric(ARRIVED), all, "each once");
        assert_eq!(second.metric(LOST), 0.0, "{}", second.log());
        assert_eq!(second.terminate(), 0);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_under_way_at_a_kill_that_does_not_come_is_lost_once() {
    let Some(world) = CanaryWorld::new("eks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let under_way = killed(&world);
        let again = ["--canary-interval=1h", "--canary-wait-max=3s"];
        let mut second = world.start_with(&again);
        second.until_ready();
        let all = under_way as f64 + 1.0;
        second.until_metric(LOST, all);
        assert_eq!(second.terminate(), 0);
        assert!(world.records().iter().all(|it| it["lost"] == true));
        // The next process has only its own canaries.
        let mut third = world.start_with(&again);
        third.until_ready();
        third.until_metric(LOST, 1.0);
        // Late canaries get their latency.
        world.feed.set(FeedGate::Open);
        world.feed.release();
        third.until_metric(ARRIVED, all + 1.0);
        assert_eq!(third.metric(LOST), 1.0, "{}", third.log());
        assert_eq!(third.terminate(), 0);
    });
}

/// A holder pauses for longer than its Lease lasts, then continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_that_are_two_at_once_lose_no_canary_and_count_what_was_delivered() {
    let Some(world) = CanaryWorld::new("eks", &["replicas=2"]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let args = [
            "--checkpoint-store=kubernetes",
            "--leader-election",
            "--canary-interval=1s",
        ];
        let mut first = world.start_at("one", &args);
        first.until_ready();
        first.until_above(ARRIVED, 1.0);
        let mut second = world.start_at("two", &args);
        wait(|| second.log().contains("standing by").then_some(())).expect("the second waits");
        first.signal("STOP");
        second.until_above(ARRIVED, 2.0);
        first.signal("CONT");
        wait(|| first.log().contains("lease lost").then_some(())).expect("the first stands by");
        let before = second.metric(ARRIVED);
        second.until_above(ARRIVED, before + 3.0);
        let arrived = first.metric(ARRIVED) + second.metric(ARRIVED);
        // An event that both delivered arrived twice.
        let accepted = world.accepted();
        let has_mark = |it: &&Value| it["userAgent"].to_string().contains(" canary/");
        let complete = |it: &&Value| it["stage"] == "ResponseComplete";
        let delivered = accepted.iter().filter(has_mark).filter(complete).count();
        assert!(arrived <= delivered as f64, "{arrived} of {delivered}");
        assert_eq!(
            first.metric(LOST) + second.metric(LOST),
            0.0,
            "{}",
            second.log()
        );
        assert_eq!(first.terminate(), 0);
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
