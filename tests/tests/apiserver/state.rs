//! Checkpoints, Leases and shared partitions in a real API server, with the rights that the chart
//! gives and no others: the real binaries, and everything that goes wrong around them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use audit_bridge_testkit::{CloudWatch, EventHubs, ScriptedWebhook};
use audit_bridge_tests::apiserver::{ADMIN, ApiServer, Release, chart};
use audit_bridge_tests::live::{Running, wait};
use audit_bridge_tests::{audit_id, command, event};
use jiff::Timestamp;
use serde_json::{Value, json};

const NS: &str = "/api/v1/namespaces/audit-bridge";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/audit-bridge/roles";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/audit-bridge/leases";
const GROUP: &str = "/aws/eks/prod/cluster";
const GROUP_TEST: &str = "/aws/eks/test/cluster";
const HUB: &str = "insights-logs-kube-audit";

/// A server with what the chart makes of a bridge, its Deployment aside, and a kubeconfig of its
/// service account.
pub(crate) struct Installed {
    pub(crate) server: ApiServer,
    pub(crate) webhook: ScriptedWebhook,
    folder: tempfile::TempDir,
}

impl Installed {
    pub(crate) async fn new(
        release: Release,
        bridge: &str,
        settings: &[&str],
    ) -> Option<Installed> {
        let webhook = ScriptedWebhook::start().await;
        tokio::task::block_in_place(|| {
            let helm = chart::helm()?;
            let folder = tempfile::tempdir().unwrap();
            let log = folder.path().join("audit.log").display().to_string();
            let server = ApiServer::start(release, &[format!("--audit-log-path={log}")])?;
            server.shipped_namespace();
            for document in chart::render(&helm, bridge, settings) {
                if document.kind != "Deployment" {
                    let made = server.create(&document);
                    assert_eq!(made.status, 201, "{}", made.text());
                }
            }
            let installed = Installed {
                server,
                webhook,
                folder,
            };
            installed.log_in(bridge);
            Some(installed)
        })
    }

    fn log_in(&self, bridge: &str) {
        let account = format!("{bridge}-audit-bridge");
        let token = self.server.service_account("audit-bridge", &account);
        let config = self.server.kubeconfig(&token, "audit-bridge");
        std::fs::write(self.path("kubeconfig"), config).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn until_accepted(&self, events: std::ops::Range<usize>, bridge: &Running) {
        let want: BTreeSet<_> = events.map(audit_id).collect();
        let mut missing = 0;
        let came = wait(|| {
            let ids: BTreeSet<_> = self.webhook.accepted_ids().into_iter().collect();
            missing = want.difference(&ids).count();
            (missing == 0).then_some(())
        });
        assert!(
            came.is_some(),
            "{missing} of {} never came\n{}",
            want.len(),
            bridge.log()
        );
    }

    /// The verbs that a Role gives, all rules alike.
    fn give(&self, role: &str, verbs: &[&str]) {
        let admin = self.server.client(ADMIN);
        let target = format!("{ROLES}/{role}");
        let mut there = admin.get(&target).json();
        for rule in there["rules"].as_array_mut().unwrap() {
            rule["verbs"] = json!(verbs);
        }
        assert_eq!(admin.put(&target, &there).status, 200);
    }
}

fn checkpoint(installed: &Installed, name: &str) -> Value {
    let object = installed
        .server
        .client(ADMIN)
        .get(&format!("{NS}/configmaps/{name}"))
        .json();
    let text = object["data"]["checkpoint.json"]
        .as_str()
        .unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

struct Eks {
    installed: Installed,
    cloud: CloudWatch,
}

impl Eks {
    fn variables(&self) -> Vec<(&'static str, String)> {
        let nowhere = self.installed.path("none").display().to_string();
        vec![
            ("AWS_ENDPOINT_URL", self.cloud.url()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_CONFIG_FILE", nowhere.clone()),
            ("AWS_SHARED_CREDENTIALS_FILE", nowhere),
            ("AWS_ACCESS_KEY_ID", "AKIATEST".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            (
                "KUBECONFIG",
                self.installed.path("kubeconfig").display().to_string(),
            ),
        ]
    }

    fn args(&self, state: &Path) -> Vec<String> {
        let url = self.installed.webhook.url();
        let state = state.display().to_string();
        [
            "--cluster-name=prod",
            "--poll-interval=100ms",
            "--revisit-after=600ms,3s",
            "--requests-per-second=60",
            "--batch-wait-max=50ms",
            "--checkpoint-store=kubernetes",
            "--leader-election",
            "--start=-1h",
            "--state-dir",
            &state,
            "--webhook-url",
            &url,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn start(&self, name: &str, more: &[&str]) -> Running {
        let args = self.args(&self.installed.path(name));
        let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
        args.extend(more);
        let variables = self.variables();
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Running::start("eks", &args, &variables)
    }

    fn check(&self) -> (i32, String) {
        let args = self.args(&self.installed.path("check"));
        let mut all = vec!["check"];
        all.extend(args.iter().map(String::as_str));
        let output = command("eks", &all)
            .envs(self.variables())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    fn put(&self, events: std::ops::Range<usize>) {
        for n in events {
            let now = Timestamp::now().as_millisecond();
            self.cloud
                .put(GROUP, "kube-apiserver-audit-1a2b", now, &event(n, 600));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_elected_with_chart_role_lose_nothing_to_server_faults() {
    for release in Release::judged() {
        let Some(installed) = Installed::new(release, "eks", &["replicas=2"]).await else {
            return;
        };
        let cloud = CloudWatch::start().await;
        cloud.group(GROUP);
        let mut eks = Eks { installed, cloud };
        tokio::task::block_in_place(|| elected(&mut eks));
    }
}

fn elected(eks: &mut Eks) {
    let name = "eks-audit-bridge";
    let admin = eks.installed.server.client(ADMIN);
    eks.put(0..20);
    let (status, said) = eks.check();
    assert_eq!(status, 0, "{said}");
    let quick = ["--checkpoint-interval=1s"];
    let mut first = eks.start("a", &quick);
    first.until_ready();
    let mut second = eks.start("b", &quick);
    wait(|| second.log().contains("standing by").then_some(())).expect("the second waits");
    eks.installed.until_accepted(0..20, &first);

    // The first goes in good order, the second is killed.
    assert_eq!(first.terminate(), 0);
    eks.put(20..40);
    eks.installed.until_accepted(0..40, &second);
    second.until_ready();
    // What the first delivered is read again, known by what it left in ConfigMaps, and not sent.
    let asked = "audit_bridge_source_requests_total";
    let before = second.metric(asked);
    wait(|| (second.metric(asked) > before + 8.0).then_some(())).expect("the log is read again");
    let sent = eks.installed.webhook.accepted_ids();
    for n in 0..20 {
        let times = sent.iter().filter(|id| **id == audit_id(n)).count();
        assert_eq!(times, 1, "event {n}\n{}", second.log());
    }
    let mut third = eks.start("c", &quick);
    wait(|| third.log().contains("standing by").then_some(())).expect("the third waits");
    second.kill();
    eks.put(40..60);
    eks.installed.until_accepted(0..60, &third);
    third.until_ready();

    // The server goes away for a moment and comes back.
    eks.installed.server.kill();
    eks.put(60..80);
    std::thread::sleep(Duration::from_secs(2));
    eks.installed.server.restart();
    eks.put(80..100);
    eks.installed.until_accepted(0..100, &third);
    third.until_ready();

    // The right to update goes: the server's own words are told, by `check` too.
    eks.installed.give(name, &["get"]);
    eks.put(100..110);
    let words = "cannot update resource";
    let why = third.until_not_ready("checkpoint", words);
    assert!(why.contains("get and update"), "{why}");
    let (status, said) = eks.check();
    assert!(status == 1 && said.contains(words), "{said}");
    eks.installed.give(name, &["get", "update"]);
    eks.installed.until_accepted(0..110, &third);
    third.until_ready();

    // Somebody deletes the ConfigMap: the chart's Role does not let the bridge make it anew.
    let map = format!("{NS}/configmaps/{name}");
    assert_eq!(admin.delete(&map).status, 200);
    eks.put(110..120);
    // In the server's words, or in ours where the Lease was lost in between and all was opened anew.
    third.until_not_ready("checkpoint", "create");
    let (status, said) = eks.check();
    assert!(status == 1 && said.contains(name), "{said}");
    let again = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    assert_eq!(admin.post(&format!("{NS}/configmaps"), &again).status, 201);
    eks.installed.until_accepted(0..120, &third);
    third.until_ready();
    let written = wait(|| {
        checkpoint(&eks.installed, name)["source"]
            .as_str()
            .map(str::to_owned)
    });
    assert_eq!(
        written.as_deref(),
        Some("eu-central-1:/aws/eks/prod/cluster")
    );

    // And the Lease, which somebody makes again.
    assert_eq!(admin.delete(&format!("{LEASES}/{name}")).status, 200);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    assert_eq!(admin.post(LEASES, &lease).status, 201);
    eks.put(120..140);
    eks.installed.until_accepted(0..140, &third);
    third.until_ready();
    assert_eq!(third.terminate(), 0);

    assert_named(&eks.installed, name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_log_groups_with_chart_role_go_on_in_their_slots() {
    let settings = ["replicas=2", "eks.clusterNames={prod,test}"];
    for release in Release::judged() {
        let Some(installed) = Installed::new(release, "eks", &settings).await else {
            return;
        };
        let cloud = CloudWatch::start().await;
        cloud.group(GROUP);
        cloud.group(GROUP_TEST);
        let eks = Eks { installed, cloud };
        tokio::task::block_in_place(|| several_groups(&eks));
    }
}

fn several_groups(eks: &Eks) {
    let more = ["--cluster-name=test", "--checkpoint-interval=1s"];
    let put = |events: std::ops::Range<usize>| {
        for n in events {
            let now = Timestamp::now().as_millisecond();
            let group = [GROUP, GROUP_TEST][n % 2];
            let text = event(n, 600);
            eks.cloud
                .put(group, "kube-apiserver-audit-1a2b", now, &text);
        }
    };
    put(0..40);
    let mut first = eks.start("a", &more);
    first.until_ready();
    eks.installed.until_accepted(0..40, &first);
    let kept = || {
        let sources = (0..2).map(|slot| {
            let name = format!("eks-audit-bridge-slot-{slot}");
            checkpoint(&eks.installed, &name)["source"].clone()
        });
        sources
            .filter_map(|source| Some(source.as_str()?.to_owned()))
            .collect::<Vec<_>>()
    };
    let each = wait(|| (kept().len() == 2).then_some(()));
    assert!(each.is_some(), "{}", first.log());
    assert_eq!(
        kept(),
        [GROUP, GROUP_TEST].map(|group| format!("eu-central-1:{group}"))
    );
    assert_eq!(first.terminate(), 0);
    put(40..80);
    let mut second = eks.start("b", &more);
    eks.installed.until_accepted(0..80, &second);
    second.until_ready();
    assert_eq!(second.terminate(), 0);
    let sent = eks.installed.webhook.accepted_ids();
    assert_eq!(sent.len(), 80, "each once");
    let admin = eks.installed.server.client(ADMIN);
    let all = admin.get(&format!("{NS}/configmaps")).json();
    let slots = all["items"].as_array().unwrap().iter().filter(|object| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        name.starts_with("eks-audit-bridge")
    });
    // What the chart made, and its canary-less release has no other.
    assert_eq!(slots.count(), 1 + 1 + 8 + 9 * 8);
}

/// The API server's log names the bridge and its version as the agent of all that it asked.
fn assert_named(installed: &Installed, bridge: &str) {
    let log = std::fs::read_to_string(installed.path("audit.log")).unwrap();
    let user = format!("system:serviceaccount:audit-bridge:{bridge}");
    let agent = format!("{bridge}/{}", env!("CARGO_PKG_VERSION"));
    let mut requests = 0;
    for line in log.lines().filter(|line| line.contains(&user)) {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["user"]["username"] == *user {
            assert_eq!(event["userAgent"], *agent);
            requests += 1;
        }
    }
    assert!(requests > 50, "{requests}");
}

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
        let args = self.args("check");
        let mut all = vec!["check"];
        all.extend(args.iter().map(String::as_str));
        let mut command = command("aks", &all);
        let output = command
            .env("KUBECONFIG", self.installed.path("kubeconfig"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&text).into_owned(),
        )
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

/// Says how many slots there are, as an upgrade of the chart does.
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

/// Partitions without a slot are told of, and those that have one are read; more slots help at once.
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

/// Objects of slots that somebody deleted are named, with the command; the other partitions are read on.
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

/// Where a Role lets the bridge create what it needs, nobody has to make it beforehand.
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
    // A quota of the namespace: `check` sees it before anybody runs.
    let _controllers = aks.installed.server.controllers();
    let quotas = format!("{NS}/resourcequotas");
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
        "spec": {"hard": {"count/configmaps": "1"}}});
    assert_eq!(admin.post(&quotas, &quota).status, 201);
    let used = wait(|| {
        admin.get(&format!("{quotas}/few")).json()["status"]["used"]["count/configmaps"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(used.is_some(), "the quota is never counted");
    let (status, said) = aks.check();
    assert!(
        status == 1 && said.contains("exceeded quota") && said.contains("ResourceQuota"),
        "{said}"
    );
    // One that runs waits until there is room, and says for what.
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

/// `check` looks at the cluster also when the source is down, and says that the namespace is going.
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
    // Without the controllers the namespace stays as it is: being deleted.
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

/// A replica that comes when the namespace is going waits, and says why.
fn in_a_namespace_that_goes(aks: &Aks) {
    let mut late = aks.replica("late");
    late.until_not_ready("checkpoint", "is being deleted");
    assert_eq!(late.terminate(), 0);
}
