//! `check`, and the errors of wrong settings.

use audit_bridge_testkit::WebhookAnswer;
use audit_bridge_testkit::cloud_watch::CloudWatchFault;
use audit_bridge_tests::{Ran, command, run};

use super::World;

fn check(world: &World, more: &[&str]) -> Ran {
    let args = world.args();
    let mut all = vec!["check", "--log-format=json"];
    all.extend(args.iter().map(String::as_str));
    all.extend(more);
    let output = command("eks", &all)
        .envs(world.variables())
        .output()
        .unwrap();
    Ran {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_all_well_succeeds() {
    let world = World::new().await;
    world.put(1, 60_000);
    let ran = check(&world, &[]);
    assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
    for what in [
        "configuration",
        "identity",
        "source",
        "checkpoint",
        "webhook",
        "clock",
    ] {
        assert!(ran.stdout.contains(what), "{}", ran.stdout);
    }
    let sent = world.webhook.received();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].ids.is_empty(), "an empty list, no event");
    let ran = check(&world, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_failing_names_the_remedy() {
    let world = World::new().await;
    world.webhook.set_answer(WebhookAnswer::status(404));
    world.cloud.script([CloudWatchFault::denied()]);
    std::fs::write(world.state(), "a file, where a folder should be").unwrap();
    let ran = check(&world, &["--json"]);
    assert_eq!(ran.status, 1);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let failed: Vec<String> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["ok"] == false)
        .inspect(|line| assert!(line["remedy"].as_str().is_some_and(|it| it.len() > 10)))
        .map(|line| line["check"].as_str().unwrap().to_owned())
        .collect();
    let source = "source eu-central-1:/aws/eks/prod/cluster";
    assert_eq!(failed, [source, "checkpoint", "dead letter", "webhook"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_masked_events_and_missing_region_are_named() {
    let world = World::new().await;
    world.cloud.sensitive("kubernetes-admin");
    world.put(1, 60_000);
    let ran = check(&world, &["--aws-region=us-east-2"]);
    assert_eq!(ran.status, 0, "{}", ran.stdout);
    for said in ["us-east-2:/aws/eks/prod", "--unmask", "logs:Unmask"] {
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
    let ran = check(&world, &["--unmask"]);
    assert!(!ran.stdout.contains("logs:Unmask"), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_with_the_clock_ahead_names_the_remedy() {
    let world = World::new().await;
    world.put(1, 60_000);
    world
        .cloud
        .set_clock_ahead(jiff::SignedDuration::from_hours(-1));
    let checked = check(&world, &[]);
    assert_eq!(checked.status, 1, "{}", checked.stdout);
    assert!(checked.stdout.contains("chrony"), "{}", checked.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_of_empty_log_fails() {
    let world = World::new().await;
    let ran = check(&world, &[]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.stdout.contains("update-cluster-config"),
        "{}",
        ran.stdout
    );
}

#[test]
fn settings_wrong_are_all_named_at_once() {
    for what in ["run", "check"] {
        let ran = run(
            "eks",
            &[
                what,
                "--cluster-name=a b",
                "--start=yesterday",
                "--until=soon",
                "--requests-per-second=0",
                "--revisit-after=1x",
                "--poll-interval=0s",
                "--checkpoint-store=tape",
                "--admin-address=here",
                "--leader-election",
                "--webhook-url=https://user:hunter2@h/",
            ],
        );
        assert_eq!(ran.status, 2, "{}", ran.stderr);
        for flag in [
            "cluster-name",
            "start",
            "until",
            "requests-per-second",
            "revisit-after",
            "poll-interval",
            "checkpoint-store",
            "admin-address",
            "leader-election",
            "webhook-url",
        ] {
            let variable = flag.to_uppercase().replace('-', "_");
            let both = format!("--{flag} (AUDIT_BRIDGE_{variable})");
            assert!(ran.stderr.contains(&both), "{both}: {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("hunter2"));
    }
    let ran = run("eks", &["run"]);
    assert_eq!(ran.status, 2);
    assert!(
        ran.stderr.contains("AUDIT_BRIDGE_CLUSTER_NAME"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("AUDIT_BRIDGE_WEBHOOK_URL"),
        "{}",
        ran.stderr
    );
}
