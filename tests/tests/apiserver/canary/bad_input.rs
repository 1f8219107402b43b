//! Without an API server, a permission or the object: reported once with the remedy, and nothing
//! else changes.

use audit_bridge_tests::apiserver::ADMIN;
use audit_bridge_tests::live::{Running, wait};

use super::{ARRIVED, CanaryWorld, LOST, NS, REQUESTS, sample};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/audit-bridge/roles";

/// Waits for three requests with this answer, and checks that one log line reports them.
fn said_once(bridge: &mut Running, status: &str, says: &[&str]) {
    let before = sample(bridge, REQUESTS, status);
    let asked = wait(|| (sample(bridge, REQUESTS, status) >= before + 3.0).then_some(()));
    let log = bridge.log();
    assert!(asked.is_some(), "{status}\n{log}");
    let lines = log.lines().filter(|line| line.contains("canary refused"));
    let lines: Vec<&str> = lines
        .filter(|it| says.iter().all(|part| it.contains(part)))
        .collect();
    assert_eq!(lines.len(), 1, "{status} {says:?}: {lines:#?}\n{log}");
    assert_eq!(bridge.get("/livez").0, 200);
    bridge.until_ready();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn right_or_object_that_is_missing_is_said_once_and_the_refusal_is_a_canary_too() {
    let Some(world) = CanaryWorld::new("eks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let admin = world.installed.server.client(ADMIN);
        let mut bridge = world.start(&[]);
        bridge.until_ready();
        bridge.until_above(ARRIVED, 1.0);
        // Someone who wants to mute it deletes the object, or removes the permission.
        assert_eq!(admin.delete(&world.object()).status, 200);
        said_once(
            &mut bridge,
            "not_found",
            &["make a ConfigMap eks-audit-bridge-canary"],
        );
        let role = format!("{ROLES}/eks-audit-bridge");
        assert_eq!(admin.delete(&role).status, 200);
        said_once(
            &mut bridge,
            "forbidden",
            &["the verbs get and patch", "eks-audit-bridge-canary"],
        );
        // The API server logs refused requests, so the trail is still watched.
        let arrived = bridge.metric(ARRIVED);
        bridge.until_above(ARRIVED, arrived + 2.0);
        assert_eq!(bridge.metric(LOST), 0.0);
        assert_eq!(bridge.terminate(), 0);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_server_that_is_gone_is_said_once_and_delivery_goes_on() {
    let Some(mut world) = CanaryWorld::new("eks", &[]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let mut bridge = world.start(&["--canary-wait-max=60s"]);
        bridge.until_ready();
        bridge.until_above(ARRIVED, 1.0);
        world.installed.server.kill();
        said_once(&mut bridge, "unreachable", &["cannot be reached"]);
        let super::Cloud::Eks(cloud) = &world.cloud else {
            return;
        };
        let now = jiff::Timestamp::now().as_millisecond();
        let event = audit_bridge_tests::event(1, 600);
        cloud.put(super::GROUP, "kube-apiserver-audit-1a2b", now, &event);
        let id = audit_bridge_tests::audit_id(1);
        let came = wait(|| {
            let ids = world.installed.webhook.accepted_ids();
            ids.contains(&id).then_some(())
        });
        assert!(came.is_some(), "delivery goes on\n{}", bridge.log());
        world.installed.server.restart();
        let arrived = bridge.metric(ARRIVED);
        bridge.until_above(ARRIVED, arrived + 2.0);
        assert!(
            bridge
                .log()
                .contains("canaries are sent to the API server again")
        );
        assert_eq!(bridge.metric(LOST), 0.0, "what was never sent is not lost");
        assert_eq!(bridge.terminate(), 0);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_that_is_off_asks_nothing_of_the_api_server() {
    let Some(world) = CanaryWorld::new("eks", &["canary.enabled=false"]).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let admin = world.installed.server.client(ADMIN);
        assert_eq!(admin.get(&world.object()).status, 404, "nothing is made");
        let role = admin.get(&format!("{ROLES}/eks-audit-bridge")).text();
        assert!(!role.contains("canary"), "{role}");
        let mut bridge = world.start_with(&[]);
        bridge.until_ready();
        bridge.until_above("audit_bridge_events_delivered_total", 3.0);
        assert_eq!(bridge.metric(REQUESTS), 0.0);
        let agents = world.accepted();
        let asked = agents.iter().any(|event| {
            let agent = event["userAgent"].as_str().unwrap_or_default();
            agent.contains("eks-audit-bridge")
        });
        assert!(!asked, "it says nothing to the API server at all");
        assert!(admin.get(&format!("{NS}/configmaps")).status == 200);
        assert_eq!(bridge.terminate(), 0);
    });
}
