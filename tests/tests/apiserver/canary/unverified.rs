//! A bridge whose log seems to be of another cluster than the one in which it runs.

use audit_bridge_tests::apiserver::feed::FeedGate;
use audit_bridge_tests::live::wait;

use super::legs::others;
use super::{ARRIVED, CanaryWorld, LOST, until_lost};

const UNVERIFIED: &str = "audit_bridge_canary_unverified";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_that_has_never_arrived_is_unverified_and_lost_from_the_first_arrival_on() {
    let Some(world) = CanaryWorld::new("aks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        // The hub has only another cluster's events.
        let without = FeedGate::Without(" canary/");
        world.feed.set(without);
        let mut bridge = world.start(&["--canary-wait-max=3s"]);
        bridge.until_ready();
        let said = wait(|| {
            others(&world);
            (bridge.metric(UNVERIFIED) == 1.0).then_some(())
        });
        assert!(said.is_some(), "{}", bridge.log());
        let kept = world.feed.kept().len();
        wait(|| {
            others(&world);
            (world.feed.kept().len() > kept + 5).then_some(())
        })
        .expect("canaries go on");
        let log = bridge.log();
        assert_eq!(
            log.matches("no canary has ever arrived").count(),
            1,
            "{log}"
        );
        assert_eq!(bridge.metric(LOST), 0.0, "{log}");

        world.feed.set(FeedGate::Open);
        bridge.until_above(ARRIVED, 1.0);
        assert_eq!(bridge.metric(UNVERIFIED), 0.0);
        assert_eq!(bridge.terminate(), 0);

        // From now on it counts as this cluster's log, also for the next process.
        world.feed.set(without);
        let mut bridge = world.start(&["--canary-wait-max=3s"]);
        bridge.until_ready();
        wait(|| {
            others(&world);
            (bridge.metric(LOST) >= 1.0).then_some(())
        });
        until_lost(&mut bridge, "source_without_it");
        assert_eq!(bridge.metric(UNVERIFIED), 0.0);
        assert_eq!(bridge.terminate(), 0);
    });
}
