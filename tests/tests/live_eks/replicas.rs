//! The checkpoint in a ConfigMap, and two replicas of which one reads.

use std::time::Duration;

use audit_bridge_testkit::kubernetes::{
    FakeKubernetes, KubernetesFault, KubernetesRequest, KubernetesServer,
};
use audit_bridge_tests::live::{Running, wait};

use super::World;

/// A world with an API server, and the variables for it.
async fn world() -> (
    World,
    FakeKubernetes,
    KubernetesServer,
    Vec<(&'static str, String)>,
) {
    let world = World::new().await;
    let api = FakeKubernetes::new();
    api.require_token("sa-token");
    let serving = api.serve().await.unwrap();
    let path = world.folder.path().join("kubeconfig");
    std::fs::write(&path, serving.kubeconfig("audit", "sa-token")).unwrap();
    let mut variables = world.variables();
    variables.push(("KUBECONFIG", path.display().to_string()));
    (world, api, serving, variables)
}

fn replica(world: &World, variables: &[(&'static str, String)], name: &str) -> Running {
    // Each pod has its own volume.
    let state = world.folder.path().join(name).display().to_string();
    let mut variables = variables.to_vec();
    variables.push(("AUDIT_BRIDGE_STATE_DIR", state));
    let args: Vec<String> = world.args();
    let keep = args.iter().position(|arg| arg == "--state-dir").unwrap();
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.drain(keep..keep + 2);
    args.extend([
        "--checkpoint-store=kubernetes",
        "--leader-election",
        "--start=-1m",
    ]);
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Running::start("eks", &args, &variables)
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_takes_over_without_loss_or_duplicates() {
    let (world, api, _serving, variables) = world().await;
    let mut first = replica(&world, &variables, "a");
    first.until_ready();
    let mut second = replica(&world, &variables, "b");
    wait(|| second.log().contains("standing by").then_some(())).expect("the second waits");
    second.until_ready();
    second.until_metric("audit_bridge_leader", 0.0);
    first.until_metric("audit_bridge_leader", 1.0);
    for n in 0..20 {
        world.put(n, 0);
    }
    world.until_accepted(0..20, &first);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(second.metric("audit_bridge_records_received_total"), 0.0);

    // A released Lease need not expire.
    let gives_back = |request: &KubernetesRequest| {
        let holder = &request.body["spec"]["holderIdentity"];
        let written = request.method != "GET" && request.status == 200;
        written && request.path.contains("/leases/") && holder.as_str().unwrap_or("").is_empty()
    };
    assert!(!api.requests().iter().any(gives_back));
    assert_eq!(first.terminate(), 0);
    assert!(api.requests().iter().any(gives_back));
    world.put(20, 0);
    world.until_accepted(20..21, &second);

    // After a kill it has to expire.
    let mut third = replica(&world, &variables, "c");
    wait(|| third.log().contains("standing by").then_some(())).expect("the third waits");
    second.kill();
    world.put(21, 0);
    world.until_accepted(20..22, &third);
    third.until_ready();
    assert_eq!(third.terminate(), 0);
    assert_eq!(world.accepted().len(), 22);
    let document = api
        .object("configmaps", "audit", "eks-audit-bridge")
        .unwrap();
    let document = document["data"]["checkpoint.json"].as_str().unwrap();
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    assert_eq!(document["source"], "eu-central-1:/aws/eks/prod/cluster");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tries_config_map_write_without_writing() {
    let (world, api, _serving, variables) = world().await;
    world.put(1, 0);
    let args = world.args();
    let mut all = vec!["check", "--json", "--checkpoint-store=kubernetes"];
    all.push("--leader-election");
    all.extend(args.iter().map(String::as_str));
    let ran = |status: i32| {
        let mut command = audit_bridge_tests::command("eks", &all);
        let output = command.envs(variables.clone()).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    ran(0);
    assert_eq!(api.object("configmaps", "audit", "eks-audit-bridge"), None);
    assert_eq!(api.object("leases", "audit", "eks-audit-bridge"), None);
    let read_only = |request: &KubernetesRequest| {
        (request.method != "GET").then_some(KubernetesFault::Status(403))
    };
    api.fail_by(read_only);
    let said = ran(1);
    assert!(
        said.contains("the Lease audit/eks-audit-bridge is not there")
            && said.contains("helm upgrade"),
        "{said}"
    );
    let no_config_maps = |request: &KubernetesRequest| {
        let meant = request.method != "GET" && request.path.contains("configmaps");
        meant.then_some(KubernetesFault::Status(403))
    };
    api.fail_by(no_config_maps);
    let said = ran(1);
    assert!(said.contains("ConfigMap audit/eks-audit-bridge"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_refusing_is_held() {
    let (world, api, _serving, variables) = world().await;
    api.fail_always(Some(KubernetesFault::Status(403)));
    let mut bridge = replica(&world, &variables, "a");
    let why = bridge.until_not_ready("checkpoint", "RoleBinding");
    assert!(why.contains("leases"), "{why}");
    api.fail_always(None);
    world.put(1, 0);
    world.until_accepted(1..2, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}
