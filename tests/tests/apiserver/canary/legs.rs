//! Cuts the trail on each leg in turn: the leg is reported once, and nothing else is affected.

use audit_bridge_testkit::WebhookAnswer;
use audit_bridge_testkit::cloud_watch::CloudWatchFault;
use audit_bridge_tests::apiserver::ALICE;
use audit_bridge_tests::apiserver::feed::FeedGate;
use audit_bridge_tests::live::{Running, wait};
use audit_bridge_tests::outage::promtool;
use serde_json::json;

use super::{ARRIVED, CanaryWorld, Cloud, LOST, sample};

/// An exclusion on a sink, or an audit policy.
const WITHOUT_CANARIES: FeedGate = FeedGate::Without(" canary/");

/// Cuts the trail until canaries are lost on this leg, then repairs it.
fn cut(
    world: &CanaryWorld,
    bridge: &mut Running,
    leg: &str,
    says: &str,
    set: impl Fn(&CanaryWorld, bool),
) {
    let said = |bridge: &Running| {
        let leg_field = format!("\"leg\":\"{leg}\"");
        let log = bridge.log();
        let lines = log.lines().filter(|line| line.contains(&leg_field));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let healthy = bridge.get("/metrics").1;
    let (lost, said_before) = (sample(bridge, LOST, leg), said(bridge).len());
    set(world, true);
    let mut samples = Vec::new();
    for (seconds, more) in [(0.0, 1.0), (3.0, 4.0)] {
        let counted = wait(|| {
            // Other requests continue: their events are readable whatever is cut.
            others(world);
            (sample(bridge, LOST, leg) >= lost + more).then_some(())
        });
        assert!(counted.is_some(), "{leg}\n{}", bridge.log());
        samples.push((seconds, bridge.get("/metrics").1));
    }
    // Reported once, with what to check.
    let said = said(bridge).split_off(said_before);
    assert_eq!(said.len(), 1, "{leg}: {said:#?}");
    assert!(
        said[0].contains("canary lost") && said[0].contains(says),
        "{}",
        said[0]
    );
    // No reason to restart the process.
    assert_eq!(bridge.get("/livez").0, 200);
    // What the provider leaves out is no fault of the replica, which can read.
    if ["source_without_it", "source_silent"].contains(&leg) {
        let (status, text) = bridge.get("/readyz");
        assert_eq!(status, 200, "{leg}: {text}");
    }
    set(world, false);
    // Canaries sent meanwhile are lost too, until one arrives with none missing before it.
    let whole = |bridge: &Running| bridge.log().matches("the trail is whole").count();
    let before = whole(bridge);
    assert!(wait(|| (whole(bridge) > before).then_some(())).is_some());
    bridge.until_ready();
    let fired = json!({
        "healthy": healthy, "outage": samples, "fires": ["AuditBridgeCanaryLost"],
    });
    promtool(&fired).unwrap_or_else(|said| panic!("{leg}: {said}"));
}

/// A user asks for his permissions; no provider's log leaves that out.
pub(super) fn others(world: &CanaryWorld) {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}},
    });
    let all = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = world.installed.server.client(ALICE).post(all, &review);
    assert_eq!(answer.status, 201, "{}", answer.text());
}

fn start(world: &CanaryWorld) -> Running {
    let mut bridge = world.start(&["--canary-wait-max=4s"]);
    bridge.until_ready();
    bridge.until_above(ARRIVED, 1.0);
    bridge
}

fn switch(world: &CanaryWorld, gate: FeedGate, is_cut: bool) {
    world.feed.set(match is_cut {
        true => gate,
        false => FeedGate::Open,
    });
}

fn webhook_fails(world: &CanaryWorld, fails: bool) {
    match fails {
        true => world
            .installed
            .webhook
            .set_answer(WebhookAnswer::status(503)),
        false => world.installed.webhook.accept(),
    }
}

/// Cuts the first two legs, which look the same to the bridge on every provider.
fn cut_at_the_provider(world: &CanaryWorld, switch_says: &str) {
    let mut bridge = start(world);
    cut(
        world,
        &mut bridge,
        "source_without_it",
        switch_says,
        |world, is_cut| {
            switch(world, WITHOUT_CANARIES, is_cut);
        },
    );
    cut(
        world,
        &mut bridge,
        "source_silent",
        switch_says,
        |world, is_cut| {
            switch(world, FeedGate::Shut, is_cut);
        },
    );
    cut(world, &mut bridge, "webhook", "receiver", webhook_fails);
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_lost_on_eks_names_each_leg() {
    let Some(world) = CanaryWorld::new("eks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        cut_at_the_provider(&world, "aws eks describe-cluster");
        let mut bridge = start(&world);
        let deny = |world: &CanaryWorld, denied: bool| {
            let Cloud::Eks(cloud) = &world.cloud else {
                return;
            };
            match denied {
                true => cloud.choose(|_| Some(CloudWatchFault::denied())),
                false => cloud.clear_faults(),
            }
        };
        cut(&world, &mut bridge, "source_unread", "/readyz", deny);
        assert_eq!(bridge.terminate(), 0);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_lost_on_aks_names_each_leg() {
    let Some(world) = CanaryWorld::new("aks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        cut_at_the_provider(&world, "az monitor diagnostic-settings list");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_lost_on_gke_names_each_leg() {
    let Some(world) = CanaryWorld::new("gke", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| cut_at_the_provider(&world, "gcloud logging sinks"));
}

/// Someone who can write filters at the provider lets only the canaries pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_of_which_only_canaries_are_left_is_silent() {
    let Some(world) = CanaryWorld::new("eks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let mut bridge = world.start(&["--silence-max=4s"]);
        bridge.until_ready();
        bridge.until_above(ARRIVED, 1.0);
        world.feed.set(FeedGate::Only(" canary/"));
        bridge.until_above("audit_bridge_silence_seconds", 5.0);
        let arrived = bridge.metric(ARRIVED);
        bridge.until_above(ARRIVED, arrived + 2.0);
        bridge.until_above("audit_bridge_silence_seconds", 6.0);
        assert!(
            bridge.log().contains("silence: the log can be read"),
            "{}",
            bridge.log()
        );
        assert_eq!(bridge.terminate(), 0);
    });
}
