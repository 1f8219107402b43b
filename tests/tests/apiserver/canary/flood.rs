//! An attacker who can write to the provider's log forges any number of events that look like
//! canaries of our own user.

use std::time::Instant;

use audit_bridge_testkit::EventHubs;
use serde_json::json;

use super::{ARRIVED, CanaryWorld, Cloud, LOST, publish};
use audit_bridge_tests::live::wait;

const FORGED: usize = 3000;

fn forge(hubs: &EventHubs, number: usize) {
    let mark = format!(
        "{:08x}-0000-4000-8000-{:012x}",
        fastrand::u32(..),
        fastrand::u32(..)
    );
    let name = "aks-audit-bridge-canary";
    let event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
        "auditID": format!("forged-{number}"), "stage": "ResponseComplete", "verb": "patch",
        "requestURI": format!("/api/v1/namespaces/audit-bridge/configmaps/{name}"),
        "user": {"username": "system:serviceaccount:audit-bridge:aks-audit-bridge"},
        "userAgent": format!("aks-audit-bridge/1 canary/{mark}"),
        "objectRef": {"resource": "configmaps", "namespace": "audit-bridge", "name": name, "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": "2026-11-29T00:00:00.000000Z",
        "stageTimestamp": "2026-11-29T00:00:00.000000Z",
    });
    publish(hubs, number % 4, &event.to_string());
}

/// Each is delivered but ignored, real canaries continue, and the API server gets one look a
/// second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_canaries_that_flood_cost_a_look_a_second_and_hide_nothing() {
    let settings = ["aks.sharePartitions=true", "replicas=2"];
    let Some(world) = CanaryWorld::new("aks shared", &settings).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let Cloud::Aks(hubs) = &world.cloud else {
            return;
        };
        let mut replicas = [world.start_replica("one"), world.start_replica("two")];
        for replica in &mut replicas {
            replica.until_metric("audit_bridge_active_logs", 2.0);
            replica.until_above(ARRIVED, 1.0);
        }
        let ([_, looks, _], since) = (world.requests(), Instant::now());
        let before = replicas.each_mut().map(|it| it.metric(ARRIVED));
        for number in 0..FORGED {
            forge(hubs, number);
            if number % 300 == 0 {
                // Continuously, as far as possible.
                std::thread::sleep(std::time::Duration::from_millis(500));
            }
        }
        for (replica, before) in replicas.iter_mut().zip(before) {
            replica.until_above(ARRIVED, before + 3.0);
        }
        let delivered = wait(|| {
            let ids = world.installed.webhook.accepted_ids();
            let forged = ids.iter().filter(|id| id.starts_with("forged-")).count();
            (forged >= FORGED).then_some(())
        });
        assert!(delivered.is_some(), "{}", replicas[0].log());
        let [sent, now, _] = world.requests();
        // One look a second for each of two replicas, plus the regular looks of the one that does
        // not send.
        let most = 3 * (since.elapsed().as_secs() as usize + 2);
        assert!(now - looks <= most, "{now} - {looks} > {most}");
        let arrived: f64 = replicas.iter_mut().map(|it| it.metric(ARRIVED)).sum();
        assert!(arrived <= sent as f64, "{arrived} of {sent}");
        for mut replica in replicas {
            assert_eq!(replica.metric(LOST), 0.0, "{}", replica.log());
            assert_eq!(replica.terminate(), 0);
        }
    });
}
