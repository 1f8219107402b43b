//! AKS: replicas that share partitions, with the chart's slots and without.

use audit_bridge_testkit::EventHubs;
use audit_bridge_tests::event;

use super::*;

const HUB: &str = "insights-logs-kube-audit";

struct Aks {
    installed: Installed,
    hubs: EventHubs,
    partitions: usize,
}

impl Aks {
    fn args(&self, state: &str) -> Vec<String> {
        let path = |name: &str| self.installed.path(name).display().to_string();
        let url = self.installed.webhook.url();
        [
            "--webhook-url",
            &url,
            "--state-dir",
            &path(state),
            "--connection-string-file",
            &path("connection-string"),
            "--batch-wait-max",
            "100ms",
            "--checkpoint-store",
            "kubernetes",
            "--checkpoint-interval",
            "1s",
            "--share-partitions",
            "--start",
            "earliest",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn replica(&self, name: &str) -> Running {
        let args = self.args(name);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let kubeconfig = self.installed.path("kubeconfig").display().to_string();
        Running::start("aks", &args, &[("KUBECONFIG", &kubeconfig)])
    }

    fn check(&self) -> (i32, String) {
        let kubeconfig = self.installed.path("kubeconfig").display().to_string();
        check("aks", &self.args("check"), &[("KUBECONFIG", kubeconfig)])
    }

    fn publish(&self, events: std::ops::Range<usize>) {
        for n in events {
            let record = json!({
                "time": "2026-11-21T10:00:00.1234567Z", "category": "kube-audit",
                "operationName": "Microsoft.ContainerService/managedClusters/diagnosticLogs/Read",
                "resourceId": "/SUBSCRIPTIONS/0/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/PROD",
                "properties": {"log": event(n, 1000), "stream": "stdout", "pod": "kube-apiserver-0"},
            });
            self.hubs.publish(
                HUB,
                n % self.partitions,
                json!({"records": [record]}).to_string(),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_sharing_with_chart_role_lose_nothing_and_name_refusals() {
    let settings = [
        "replicas=3",
        "aks.sharePartitions=true",
        "checkpoint.members=3",
        "checkpoint.slots=6",
    ];
    for release in Release::judged() {
        let Some(installed) = Installed::new(release, "aks", &settings).await else {
            return;
        };
        let hubs = EventHubs::start().await;
        hubs.add_hub(HUB, 6);
        std::fs::write(
            installed.path("connection-string"),
            hubs.connection_string(HUB),
        )
        .unwrap();
        let mut aks = Aks {
            installed,
            hubs,
            partitions: 6,
        };
        tokio::task::block_in_place(|| sharing(&mut aks));
        tokio::task::block_in_place(|| outside_the_chart(&aks));
        aks.hubs.stop_listening().await;
        tokio::task::block_in_place(|| without_the_source(&aks));
        aks.hubs.come_back().await;
        tokio::task::block_in_place(|| in_a_namespace_that_goes(&aks));
    }
}

fn sharing(aks: &mut Aks) {
    let name = "aks-audit-bridge";
    aks.publish(0..120);
    aks.installed.give(name, &["get"]);
    let (status, said) = aks.check();
    assert!(
        status == 1 && said.contains("cannot update resource"),
        "{said}"
    );
    aks.installed.give(name, &["get", "update"]);
    too_few_slots(aks);
    let (status, said) = aks.check();
    assert_eq!(status, 0, "{said}");

    let mut one = aks.replica("one");
    let mut two = aks.replica("two");
    for replica in [&mut one, &mut two] {
        replica.until_metric("audit_bridge_active_logs", 3.0);
        replica.until_ready();
    }
    aks.installed.until_accepted(0..120, &one);
    let mut three = aks.replica("three");
    for replica in [&mut one, &mut two, &mut three] {
        replica.until_metric("audit_bridge_active_logs", 2.0);
    }
    let mut four = aks.replica("four");
    let stands_by = wait(|| four.log().contains("standing by").then_some(()));
    assert!(stands_by.is_some(), "{}", four.log());
    assert_eq!(four.metric("audit_bridge_active_logs"), 0.0);
    assert_eq!(four.terminate(), 0);
    aks.publish(120..240);
    one.kill();
    aks.installed.server.kill();
    aks.publish(240..300);
    aks.installed.server.restart();
    aks.installed.until_accepted(0..300, &two);
    for replica in [&mut two, &mut three] {
        replica.until_metric("audit_bridge_active_logs", 3.0);
        replica.until_ready();
    }
    assert_eq!(two.terminate(), 0);
    aks.publish(300..360);
    aks.installed.until_accepted(0..360, &three);
    without_an_object(aks, &mut three);
    assert_eq!(three.terminate(), 0);
    assert_named(&aks.installed, name);
}

/// Sets the number of slots, as an upgrade of the chart does.
fn set_slots(aks: &Aks, slots: usize) {
    let admin = aks.installed.server.client(ADMIN);
    let table = format!("{NS}/configmaps/aks-audit-bridge-slots");
    let set = wait(|| {
        let mut object = admin.get(&table).json();
        object["metadata"]["annotations"]["audit-bridge/slots"] = slots.to_string().into();
        (admin.put(&table, &object).status == 200).then_some(())
    });
    assert!(set.is_some());
}

/// Partitions without a slot are reported, the others are read; more slots take effect at once.
fn too_few_slots(aks: &Aks) {
    set_slots(aks, 4);
    let words = "has no slot for";
    let (status, said) = aks.check();
    assert!(status == 1 && said.contains(words), "{said}");
    assert!(said.contains("checkpoint.slots"), "{said}");
    let mut early = aks.replica("early");
    early.until_not_ready("checkpoint", words);
    early.until_metric("audit_bridge_active_logs", 4.0);
    assert_eq!(early.log().matches(words).count(), 1, "{}", early.log());
    set_slots(aks, 6);
    early.until_metric("audit_bridge_active_logs", 6.0);
    early.until_ready();
    aks.installed.until_accepted(0..120, &early);
    assert_eq!(early.terminate(), 0);
}

/// Deleted objects of slots are reported with the command to restore them; other partitions are
/// still read.
fn without_an_object(aks: &Aks, replica: &mut Running) {
    let admin = aks.installed.server.client(ADMIN);
    let slot = "aks-audit-bridge-slot-2";
    let map = format!("{NS}/configmaps/{slot}");
    assert_eq!(admin.delete(&map).status, 200);
    aks.publish(360..480);
    let command = format!("kubectl -n audit-bridge create configmap {slot}");
    let why = replica.until_not_ready("checkpoint", &command);
    assert!(why.contains("is not there"), "{why}");
    let (status, said) = aks.check();
    assert!(status == 1 && said.contains(&command), "{said}");
    let made = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": slot}});
    assert_eq!(admin.post(&format!("{NS}/configmaps"), &made).status, 201);
    aks.installed.until_accepted(360..480, replica);
    replica.until_ready();
    assert_eq!(admin.delete(&format!("{LEASES}/{slot}")).status, 200);
    let words = format!("the Lease audit-bridge/{slot} is not there");
    let (status, said) = aks.check();
    assert!(status == 1 && said.contains(&words), "{said}");
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": slot}});
    assert_eq!(admin.post(LEASES, &lease).status, 201);
    aks.publish(480..540);
    aks.installed.until_accepted(360..540, replica);
    replica.until_metric("audit_bridge_active_logs", 6.0);
    replica.until_ready();
}

/// If a Role lets the bridge create its objects, none has to exist beforehand.
fn outside_the_chart(aks: &Aks) {
    let name = "aks-audit-bridge";
    let admin = aks.installed.server.client(ADMIN);
    let target = format!("{ROLES}/{name}");
    let mut role = admin.get(&target).json();
    let rule = |group: &str, resource: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": ["get", "update", "create"]});
    role["rules"] = json!([
        rule("", "configmaps"),
        rule("coordination.k8s.io", "leases")
    ]);
    assert_eq!(admin.put(&target, &role).status, 200);
    for place in [format!("{NS}/configmaps"), LEASES.to_owned()] {
        for object in admin.get(&place).json()["items"].as_array().unwrap() {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if name.starts_with("aks-audit-bridge") {
                assert_eq!(admin.delete(&format!("{place}/{name}")).status, 200);
            }
        }
    }
    // A quota of the namespace: `check` finds it before `run` does.
    let _controllers = aks.installed.server.controllers();
    let quotas = format!("{NS}/resourcequotas");
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
        "spec": {"hard": {"count/configmaps": "1"}}});
    assert_eq!(admin.post(&quotas, &quota).status, 201);
    let used = wait(|| {
        admin.get(&format!("{quotas}/few")).json()["status"]["used"]["count/configmaps"]
            .as_str()
            .filter(|used| *used != "0")
            .map(str::to_owned)
    });
    assert!(used.is_some(), "the quota is never used up");
    let (status, said) = aks.check();
    assert!(
        status == 1 && said.contains("exceeded quota") && said.contains("ResourceQuota"),
        "{said}"
    );
    // A running bridge waits until there is room, and reports what for.
    let mut early = aks.replica("unnamed");
    early.until_not_ready("checkpoint", "exceeded quota");
    assert_eq!(admin.delete(&format!("{quotas}/few")).status, 200);
    early.until_ready();
    early.until_metric("audit_bridge_active_logs", 6.0);
    aks.publish(540..600);
    aks.installed.until_accepted(540..600, &early);
    assert_eq!(early.terminate(), 0);
    let (status, said) = aks.check();
    assert_eq!(status, 0, "{said}");
}

/// `check` examines the cluster even when the source is down, and reports that the namespace is
/// being deleted.
fn without_the_source(aks: &Aks) {
    let name = "aks-audit-bridge";
    let admin = aks.installed.server.client(ADMIN);
    aks.installed.give(name, &["get", "create"]);
    let (status, said) = aks.check();
    assert!(
        status == 1 && said.contains("cannot update resource"),
        "{said}"
    );
    aks.installed.give(name, &["get", "create", "update"]);
    let pod = json!({"finalizers": ["test.example/stay"]});
    let maps = format!("{NS}/configmaps");
    let keeps = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stays", "finalizers": pod["finalizers"]}});
    assert_eq!(admin.post(&maps, &keeps).status, 201);
    // Without the controllers the namespace stays in deletion.
    assert_eq!(admin.delete(NS).status, 200);
    for name in admin.get(LEASES).json()["items"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let name = name["metadata"]["name"].as_str().unwrap_or_default();
        assert_eq!(admin.delete(&format!("{LEASES}/{name}")).status, 200);
    }
    let (status, said) = aks.check();
    assert!(status == 1 && said.contains("is being deleted"), "{said}");
}

/// A replica that starts while the namespace is being deleted waits, and reports why.
fn in_a_namespace_that_goes(aks: &Aks) {
    let mut late = aks.replica("late");
    late.until_not_ready("checkpoint", "is being deleted");
    assert_eq!(late.terminate(), 0);
}
