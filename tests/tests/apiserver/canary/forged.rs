//! An attacker who reads the log, and so each mark, before we do: she can neither make a canary
//! look well nor hide an action behind one.

use audit_bridge_tests::apiserver::ALICE;
use audit_bridge_tests::apiserver::client::ApiRequest;
use audit_bridge_tests::apiserver::feed::FeedGate;
use audit_bridge_tests::live::{Running, wait};
use serde_json::Value;

use super::{ARRIVED, CanaryWorld, is_canary, until_lost};

const SECRET: &str = "/api/v1/namespaces/kube-system/secrets/stolen";

/// For each canary that the provider holds back, alice sends two requests with the mark that she
/// has read: one for a secret, one for the canary's own object.
fn forge(world: &CanaryWorld) -> usize {
    let alice = world.installed.server.client(ALICE);
    let kept = world.feed.kept();
    let ours = "system:serviceaccount:audit-bridge:";
    for line in &kept {
        let event: Value = serde_json::from_str(line).unwrap();
        if !event["user"]["username"]
            .as_str()
            .unwrap()
            .starts_with(ours)
        {
            continue;
        }
        let [id, agent] = ["auditID", "userAgent"].map(|name| event[name].as_str().unwrap());
        for target in [SECRET, event["requestURI"].as_str().unwrap()] {
            let request = ApiRequest::new("GET", target)
                .header("Audit-ID", id)
                .header("User-Agent", agent);
            // Without the text by which the provider would hold it back too; the ID alone is
            // enough.
            let request = match target {
                SECRET => ApiRequest::new("GET", target).header("Audit-ID", id),
                _ => request,
            };
            assert_eq!(alice.send(&request).status, 403);
        }
    }
    kept.len()
}

fn stolen(world: &CanaryWorld) -> usize {
    let events = world.accepted();
    let stolen = events
        .iter()
        .filter(|event| event["user"]["username"] == "alice" && event["requestURI"] == SECRET);
    stolen.count()
}

fn attack(world: &CanaryWorld, more: &[&str]) {
    let mut bridge = world.start(&[&["--canary-wait-max=8s"], more].concat());
    bridge.until_ready();
    bridge.until_above(ARRIVED, 1.0);
    world.feed.set(FeedGate::Without(" canary/"));
    wait(|| (world.feed.kept().len() >= 3).then_some(())).expect("canaries are sent");
    let arrived = bridge.metric(ARRIVED);
    forge(world);
    let seen = wait(|| (stolen(world) >= 2).then_some(()));
    assert!(
        seen.is_some(),
        "alice's requests are delivered\n{}",
        bridge.log()
    );
    until_lost(&mut bridge, "source_without_it");
    assert_eq!(
        bridge.metric(ARRIVED),
        arrived,
        "a forged canary is no sign of life"
    );
    let log = bridge.log();
    assert!(
        log.contains("bears the mark of a canary") && log.contains("alice"),
        "{log}"
    );

    // The provider was only late: our canaries arrive, and her requests are delivered with them.
    let hers = stolen(world);
    world.feed.set(FeedGate::Open);
    world.feed.release();
    bridge.until_above(ARRIVED, arrived + 2.0);
    let of_alice = || {
        let events = world.accepted();
        events
            .iter()
            .filter(|it| is_canary(it) && it["user"]["username"] == "alice")
            .count()
    };
    assert!(
        wait(|| (of_alice() >= 2).then_some(())).is_some(),
        "{}",
        bridge.log()
    );
    assert!(stolen(world) >= hers);
    leaves_ours_out(world, &mut bridge, more);
    assert_eq!(bridge.terminate(), 0);
}

fn leaves_ours_out(world: &CanaryWorld, bridge: &mut Running, more: &[&str]) {
    let skipped = super::sample(bridge, "audit_bridge_records_skipped_total", "canary");
    let ours = |event: &Value| {
        let has_mark = event["userAgent"].to_string().contains(" canary/");
        let user = event["user"]["username"].as_str().unwrap_or_default();
        has_mark && is_canary(event) && user.starts_with("system:serviceaccount:")
    };
    let delivered = world.accepted().iter().filter(|event| ours(event)).count();
    match more.is_empty() {
        true => assert!(skipped == 0.0 && delivered >= 3, "{skipped} {delivered}"),
        false => assert!(skipped >= 3.0 && delivered == 0, "{skipped} {delivered}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_mark_neither_counts_nor_hides_a_request() {
    let Some(world) = CanaryWorld::new("eks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| attack(&world, &[]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_mark_hides_nothing_where_canaries_are_left_out() {
    let Some(world) = CanaryWorld::new("eks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| attack(&world, &["--canary-deliver=false"]));
}
