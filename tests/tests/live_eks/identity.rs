//! IRSA: a token file that rotates, credentials that expire, and missing roles.

use std::time::Duration;

use audit_bridge_tests::event;
use audit_bridge_tests::live::wait;

use super::{GROUP, STREAM, World, now_ms};

/// The variables that EKS sets in a pod.
fn irsa(world: &World, token: &str) -> Vec<(&'static str, String)> {
    let file = world.folder.path().join("token");
    std::fs::write(&file, token).unwrap();
    let mut variables = world.endpoint();
    let role = "arn:aws:iam::123456789012:role/reader".to_owned();
    variables.push(("AWS_ROLE_ARN", role));
    variables.push(("AWS_WEB_IDENTITY_TOKEN_FILE", file.display().to_string()));
    variables
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_expired_and_token_rotated_are_renewed() {
    let world = World::new().await;
    world.cloud.web_identity("first", Duration::from_secs(2));
    let variables = irsa(&world, "first");
    let mut bridge = world.start_as(&["--start=-1m"], &variables);
    world.put(1, 0);
    world.until_accepted(1..2, &bridge);
    // The kubelet writes the next token; the old one is no longer accepted.
    std::fs::write(world.folder.path().join("token"), "second").unwrap();
    world.cloud.web_identity("second", Duration::from_secs(2));
    std::thread::sleep(Duration::from_secs(3));
    world.put(2, 0);
    world.until_accepted(2..3, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
    let assumed = world.cloud.recorded();
    let assumed = assumed
        .iter()
        .filter(|it| it.action == "sts:AssumeRoleWithWebIdentity");
    assert!(assumed.count() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn role_refused_is_held_and_recovers() {
    let world = World::new().await;
    world.cloud.web_identity("right", Duration::from_secs(3600));
    let mut bridge = world.start_as(&["--start=-1m"], &irsa(&world, "wrong"));
    let why = bridge.until_not_ready("identity", "arn:aws:iam::123456789012:role/reader");
    assert!(why.contains("IRSA"), "{why}");
    assert_eq!(bridge.get("/livez").0, 200);
    world.put(1, 0);
    std::fs::write(world.folder.path().join("token"), "right").unwrap();
    world.until_accepted(1..2, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_and_region_missing_are_named_with_remedy() {
    let world = World::new().await;
    let mut bridge = world.start_as(&[], &world.endpoint());
    let why = bridge.until_not_ready("identity", "no AWS credentials");
    assert!(why.contains("eks.amazonaws.com/role-arn"), "{why}");
    assert_eq!(bridge.terminate(), 0);

    let mut variables = world.variables();
    variables.retain(|(name, _)| *name != "AWS_REGION");
    let mut bridge = world.start_as(&[], &variables);
    bridge.until_not_ready("identity", "AWS_REGION");
    let log = wait(|| Some(bridge.log())).unwrap();
    assert!(!log.contains("very-secret-key"));
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_identity_gives_credentials() {
    let world = World::new().await;
    world
        .cloud
        .web_identity("pod-token", Duration::from_secs(3600));
    let file = world.folder.path().join("token");
    std::fs::write(&file, "pod-token").unwrap();
    let mut variables = world.endpoint();
    let url = format!("{}/v1/credentials", world.cloud.url());
    variables.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI", url));
    let file = file.display().to_string();
    variables.push(("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file));
    let mut bridge = world.start_as(&["--start=-1m"], &variables);
    world.put(1, 0);
    world.until_accepted(1..2, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

/// Their role was deleted and made again, or its sessions were revoked: AWS refuses them long before
/// they expire.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_revoked_are_replaced() {
    let world = World::new().await;
    world
        .cloud
        .web_identity("first", Duration::from_secs(6 * 3600));
    let mut bridge = world.start_as(&["--start=-1m"], &irsa(&world, "first"));
    world.put(1, 0);
    world.until_accepted(1..2, &bridge);
    world.cloud.revoke_credentials();
    world.put(2, 0);
    world.until_accepted(2..3, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

/// A proxy put text in front of the identity service's answer: the library logs what it cannot read.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_an_unreadable_answer_are_not_logged() {
    let world = World::new().await;
    world.cloud.web_identity("first", Duration::from_secs(3600));
    world.cloud.say_before_credentials("<proxy/>");
    let mut variables = irsa(&world, "first");
    // A level for all does not name the library.
    variables.push(("RUST_LOG", "info".to_owned()));
    let mut bridge = world.start_as(&["--start=-1m"], &variables);
    bridge.until_not_ready("identity", "no AWS credentials");
    world.cloud.say_before_credentials("");
    world.put(1, 0);
    world.until_accepted(1..2, &bridge);
    let log = bridge.log();
    assert!(!log.contains("SecretAccessKey"), "{log}");
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_group_of_another_account_is_read_by_its_role() {
    let world = World::new().await;
    let far = "/aws/eks/far/cluster";
    let arn = format!("arn:aws:logs:us-east-2:123456789012:log-group:{far}");
    let role = "arn:aws:iam::123456789012:role/reader";
    world.cloud.external_id("ours");
    world.cloud.group(far);
    world.cloud.put(far, STREAM, now_ms(), &event(7, 600));
    let group = format!("--log-group={GROUP},{arn}");
    let role_arn = format!("--role-arn={role}");
    let flags = ["--cluster-name=far", &group, &role_arn, "--start=-1m"];
    let mut bridge = world.start(&flags);
    let why = bridge.until_not_ready("identity", "sts:AssumeRole");
    assert!(
        why.contains(role) && why.contains("--role-external-id"),
        "{why}"
    );
    assert_eq!(bridge.terminate(), 0);
    let bridge = world.start(&[&flags[..], &["--role-external-id=ours"]].concat());
    world.until_accepted(7..8, &bridge);
    assert_eq!(bridge.terminate(), 0);
    let asked = world.cloud.recorded();
    let of_far = asked
        .iter()
        .filter(|it| it.body["logGroupIdentifier"] == arn.as_str());
    for request in of_far {
        let key = request.access_key.as_deref().unwrap();
        assert!(key.starts_with("ASIA"), "not by the role: {key}");
    }
}
