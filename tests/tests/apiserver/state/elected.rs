//! EKS: replicas of which a Lease elects one, and several log groups in their slots.

use std::path::Path;
use std::time::Duration;

use audit_bridge_testkit::CloudWatch;
use audit_bridge_tests::event;
use jiff::Timestamp;

use super::*;

const GROUP: &str = "/aws/eks/prod/cluster";
const GROUP_TEST: &str = "/aws/eks/test/cluster";

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
        check("eks", &args, &self.variables())
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

    // The first ends in good order, the second is killed.
    assert_eq!(first.terminate(), 0);
    eks.put(20..40);
    eks.installed.until_accepted(0..40, &second);
    second.until_ready();
    // What the first delivered is read again, recognised by the identities in ConfigMaps, and not
    // sent.
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

    // Update permission is removed: `run` and `check` report the server's own message.
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

    // The ConfigMap is deleted: the chart's Role does not let the bridge recreate it.
    let map = format!("{NS}/configmaps/{name}");
    assert_eq!(admin.delete(&map).status, 200);
    eks.put(110..120);
    // The server's message, or ours if the Lease was lost in between and everything was reopened.
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

    // The Lease is deleted too, and recreated by the administrator.
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
    // The objects of the chart and of its release without canaries, and no others.
    assert_eq!(slots.count(), 1 + 1 + 8 + 9 * 8);
}
