//! Canaries through the whole path: the real binaries, a real API server with the chart's rights,
//! and its own audit log, which feeds each provider's stand-in.

mod bad_input;
mod check;
mod flood;
mod forged;
mod legs;
mod replicas;
mod restart;
mod unverified;

use std::path::Path;
use std::sync::Arc;

use audit_bridge_testkit::cloud_logging::CloudLogging;
use audit_bridge_testkit::kinesis::subscription::{SubscribedEvent, SubscriptionOrigin};
use audit_bridge_testkit::pubsub::PubSub;
use audit_bridge_testkit::{CloudWatch, EventHubs, Kinesis};
use audit_bridge_tests::apiserver::feed::AuditFeed;
use audit_bridge_tests::apiserver::gke::{entry, under_googles_policy};
use audit_bridge_tests::apiserver::{ADMIN, Release};
use audit_bridge_tests::attacks::carrier::{diagnostic, quoted};
use audit_bridge_tests::live::{Running, wait};
use jiff::Timestamp;
use serde_json::Value;

use super::state::Installed;

const GROUP: &str = "/aws/eks/prod/cluster";
const HUB: &str = "insights-logs-kube-audit";
const SUBSCRIPTION: &str = "projects/p/subscriptions/audit";
const SUBSCRIBED: [&str; 3] = [
    "gke.subscription=projects/p/subscriptions/audit",
    "gke.resourceNames=null",
    "canary.enabled=true",
];
const STREAM: &str = "audit";
const NS: &str = "/api/v1/namespaces/audit-bridge";

const ARRIVED: &str = "audit_bridge_canary_latency_seconds_count";
const LOST: &str = "audit_bridge_canary_lost_total";
const REQUESTS: &str = "audit_bridge_canary_requests_total";

/// A provider's log.
enum Cloud {
    Eks(Arc<CloudWatch>),
    Aks(Arc<EventHubs>),
    Gke(Arc<CloudLogging>),
    PubSub(Arc<PubSub>),
    Stream(Arc<Kinesis>),
}

/// A cluster with an installed bridge, and the provider's log that receives its API server's audit
/// log.
pub(crate) struct CanaryWorld {
    installed: Installed,
    cloud: Cloud,
    feed: AuditFeed,
    /// Whether the replicas share partitions or shards.
    shares: bool,
}

/// Writes an audit event to the hub, in this partition.
fn publish(hubs: &EventHubs, partition: usize, line: &str) {
    let record = diagnostic(&quoted(line.as_bytes()), "PROD", "kube-audit-admin");
    let message = [&b"{\"records\":["[..], &record, b"]}"].concat();
    hubs.publish(HUB, partition, message);
}

/// Google's version of an event, whose `operation.id` is not the client's `Audit-ID`.
fn googles(line: &str) -> Option<String> {
    let mut event: Value = serde_json::from_str(line).ok()?;
    let id = event["auditID"].as_str()?.to_owned();
    event["auditID"] = format!("google-{}", &id[..id.len().min(8)]).into();
    let event = under_googles_policy(&event)?;
    Some(entry(&event, true).to_string())
}

impl CanaryWorld {
    /// `None` if there is no API server.
    pub(crate) async fn new(which: &str, settings: &[&str]) -> Option<CanaryWorld> {
        let bridge = which.split(' ').next().unwrap_or_default();
        let installed = Installed::new(Release::Newest, bridge, settings).await?;
        let log = installed.path("audit.log");
        let (cloud, feed) = match which {
            "eks" => {
                let cloud = Arc::new(CloudWatch::start().await);
                cloud.group(GROUP);
                let to = Arc::clone(&cloud);
                let feed = AuditFeed::start(log, move |line| {
                    let now = Timestamp::now().as_millisecond();
                    to.put(GROUP, "kube-apiserver-audit-1a2b", now, line);
                });
                (Cloud::Eks(cloud), feed)
            }
            // A common export: everything but reads, in the category kube-audit-admin alone.
            "aks" | "aks shared" => {
                let hubs = Arc::new(EventHubs::start().await);
                hubs.add_hub(HUB, 4);
                let to = Arc::clone(&hubs);
                let mut next = 0;
                let feed = AuditFeed::start(log, move |line| {
                    if !line.contains(r#""verb":"get""#) && !line.contains(r#""verb":"list""#) {
                        publish(&to, next % 4, line);
                        next += 1;
                    }
                });
                (Cloud::Aks(hubs), feed)
            }
            "eks shared" => {
                let kinesis = Arc::new(Kinesis::start().await);
                kinesis.create_stream(STREAM, 4);
                let to = Arc::clone(&kinesis);
                let mut next = 0;
                let feed = AuditFeed::start(log, move |line| {
                    let subscription = SubscriptionOrigin {
                        log_stream: format!("kube-apiserver-audit-{}", next % 16),
                        ..SubscriptionOrigin::of_cluster("111122223333", "prod")
                    };
                    let event = SubscribedEvent::new(next, to.now_ms(), line.to_owned() + "\n");
                    to.deliver(STREAM, &subscription, &[event]);
                    next += 1;
                });
                (Cloud::Stream(kinesis), feed)
            }
            "gke" => {
                let logging = Arc::new(CloudLogging::start().await);
                let to = Arc::clone(&logging);
                let feed = AuditFeed::start(log, move |line| {
                    if let Some(entry) = googles(line) {
                        to.put(entry);
                    }
                });
                (Cloud::Gke(logging), feed)
            }
            _ => {
                let pubsub = Arc::new(PubSub::start(SUBSCRIPTION).await);
                let to = Arc::clone(&pubsub);
                let feed = AuditFeed::start(log, move |line| {
                    if let Some(entry) = googles(line) {
                        to.publish(entry);
                    }
                });
                (Cloud::PubSub(pubsub), feed)
            }
        };
        Some(CanaryWorld {
            installed,
            cloud,
            feed,
            shares: which.ends_with(" shared"),
        })
    }

    fn bridge(&self) -> &'static str {
        match &self.cloud {
            Cloud::Eks(_) | Cloud::Stream(_) => "eks",
            Cloud::Aks(_) => "aks",
            Cloud::Gke(_) | Cloud::PubSub(_) => "gke",
        }
    }

    /// The path of the `ConfigMap` that canaries request, for the administrator.
    fn object(&self) -> String {
        format!("{NS}/configmaps/{}-audit-bridge-canary", self.bridge())
    }

    fn args(&self, state: &Path) -> Vec<String> {
        let url = self.installed.webhook.url();
        let mut args = vec![
            "--webhook-url".to_owned(),
            url,
            "--batch-wait-max=50ms".to_owned(),
            "--state-dir".to_owned(),
            state.display().to_string(),
        ];
        if self.shares {
            args.push("--share-partitions".to_owned());
            args.push("--checkpoint-store=kubernetes".to_owned());
            args.push("--checkpoint-interval=1s".to_owned());
        }
        let own: Vec<String> = match &self.cloud {
            Cloud::Eks(_) => vec![
                "--cluster-name=prod".to_owned(),
                "--poll-interval=100ms".to_owned(),
                "--revisit-after=600ms,3s".to_owned(),
                "--requests-per-second=60".to_owned(),
            ],
            Cloud::Aks(hubs) => {
                let secret = self.installed.path("connection-string");
                std::fs::write(&secret, hubs.connection_string(HUB)).unwrap();
                vec![
                    "--connection-string-file".to_owned(),
                    secret.display().to_string(),
                ]
            }
            Cloud::Gke(logging) => vec![
                format!("--logging-endpoint={}", logging.url()),
                "--project-id=p".to_owned(),
                "--cluster-name=blue".to_owned(),
                "--location=europe-west3".to_owned(),
                "--poll-interval=200ms".to_owned(),
                "--requests-per-minute=6000".to_owned(),
            ],
            Cloud::Stream(_) => vec![
                "--cluster-name=prod".to_owned(),
                format!("--stream={STREAM}"),
            ],
            Cloud::PubSub(pubsub) => vec![
                format!("--subscription={SUBSCRIPTION}"),
                format!("--pubsub-endpoint={}", pubsub.url()),
            ],
        };
        args.extend(own);
        args
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let kubeconfig = self.installed.path("kubeconfig").display().to_string();
        let mut variables = vec![("KUBECONFIG", kubeconfig)];
        let endpoint = match &self.cloud {
            Cloud::Eks(cloud) => Some(("AWS_ENDPOINT_URL", cloud.url())),
            Cloud::Stream(kinesis) => Some(("AWS_ENDPOINT_URL_KINESIS", kinesis.url())),
            Cloud::Aks(_) | Cloud::Gke(_) | Cloud::PubSub(_) => None,
        };
        if let Some(endpoint) = endpoint {
            let nowhere = self.installed.path("none").display().to_string();
            variables.extend([
                endpoint,
                ("AWS_REGION", "eu-central-1".to_owned()),
                ("AWS_CONFIG_FILE", nowhere.clone()),
                ("AWS_SHARED_CREDENTIALS_FILE", nowhere),
                ("AWS_ACCESS_KEY_ID", "AKIATEST".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ]);
        }
        variables
    }

    /// A bridge that sends a canary every second.
    fn start(&self, more: &[&str]) -> Running {
        self.start_with(&[&["--canary-interval=1s"], more].concat())
    }

    fn start_with(&self, more: &[&str]) -> Running {
        self.start_at("state", more)
    }

    /// A bridge with this state folder.
    fn start_at(&self, state: &str, more: &[&str]) -> Running {
        let args = self.args(&self.installed.path(state));
        let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
        all.extend(more);
        let variables = self.variables();
        let variables: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Running::start(self.bridge(), &all, &variables)
    }

    /// The canaries recorded in the object.
    fn records(&self) -> Vec<Value> {
        let object = self.installed.server.client(ADMIN).get(&self.object());
        let object = object.json();
        let data = object["data"].as_object().cloned().unwrap_or_default();
        let records = data.iter().filter(|(key, _)| key.len() == 64);
        records
            .map(|(_, text)| serde_json::from_str(text.as_str().unwrap()).unwrap())
            .collect()
    }

    /// The number of our requests for the object in the API server's own log: canaries, looks and
    /// notes.
    fn requests(&self) -> [usize; 3] {
        let log = std::fs::read_to_string(self.installed.path("audit.log")).unwrap();
        let events = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut found = [0; 3];
        for event in events.filter(is_canary) {
            let agent = event["userAgent"].as_str().unwrap_or_default();
            if event["stage"] == "ResponseComplete" {
                let kind = match (agent.contains(" canary/"), event["verb"] == "get") {
                    (true, _) => 0,
                    (false, true) => 1,
                    (false, false) => 2,
                };
                found[kind] += 1;
            }
        }
        found
    }

    /// The events that the webhook accepted so far.
    fn accepted(&self) -> Vec<Value> {
        let bodies = self.installed.webhook.received();
        let accepted = bodies.iter().filter(|request| request.accepted);
        accepted
            .flat_map(|request| {
                let mut list: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                match list["items"].take() {
                    Value::Array(items) => items,
                    _ => Vec::new(),
                }
            })
            .collect()
    }
}

/// Whether it is the event of one of our requests for the canaries' object. (The test's
/// administrator requests the object too.)
fn is_canary(event: &Value) -> bool {
    let name = event["objectRef"]["name"].as_str().unwrap_or_default();
    name.ends_with("-canary") && event["verb"] != "create" && event["user"]["username"] != "admin"
}

/// The value of a metric with this label.
fn sample(bridge: &mut Running, metric: &str, label: &str) -> f64 {
    let (_, text) = bridge.get("/metrics");
    let mut lines = text
        .lines()
        .filter(|line| line.starts_with(metric) && line.contains(&format!("\"{label}\"")));
    lines
        .next()
        .and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
        .unwrap_or(0.0)
}

/// Waits until a canary was lost on this leg.
fn until_lost(bridge: &mut Running, leg: &str) {
    let found = wait(|| (sample(bridge, LOST, leg) >= 1.0).then_some(()));
    let (_, metrics) = bridge.get("/metrics");
    let lost = metrics.lines().filter(|line| line.contains("canary"));
    let lost: Vec<&str> = lost.collect();
    assert!(found.is_some(), "{leg}: {lost:#?}\n{}", bridge.log());
}

async fn arrives(which: &str, settings: &[&str]) {
    let Some(world) = CanaryWorld::new(which, settings).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let mut bridge = world.start(&[]);
        bridge.until_ready();
        bridge.until_above(ARRIVED, 2.0);
        let asked = sample(&mut bridge, REQUESTS, "ok");
        assert!(asked >= 3.0 && bridge.metric(REQUESTS) == asked, "{asked}");
        assert_eq!(bridge.metric(LOST), 0.0);
        // Canaries are ordinary events of the trail, with our own user.
        let has_mark = |event: &Value| event["userAgent"].to_string().contains(" canary/");
        let canaries = world.accepted().into_iter().filter(is_canary);
        let canaries: Vec<Value> = canaries.filter(has_mark).collect();
        let user = format!(
            "system:serviceaccount:audit-bridge:{}-audit-bridge",
            world.bridge()
        );
        assert!(canaries.len() >= 3, "{which}: {}", canaries.len());
        for event in &canaries {
            assert_eq!(event["user"]["username"], user.as_str());
            let complete = event["stage"] == "ResponseComplete";
            assert!(
                !complete || event["responseStatus"]["code"] == 200,
                "{event}"
            );
        }
        let log = bridge.log();
        assert!(!log.contains("does not say who this pod is"), "{log}");
        for event in &canaries {
            let agent = event["userAgent"].as_str().unwrap();
            let mark = agent.rsplit('/').next().unwrap();
            assert!(!log.contains(mark), "a mark is in the log");
            assert!(!bridge.get("/metrics").1.contains(mark));
        }
        assert_eq!(bridge.terminate(), 0);
        // An arrived canary leaves no record, and costs two requests: the canary itself and the
        // note of its end.
        let [sent, looks, notes] = world.requests();
        assert!(world.records().len() <= 3, "{:?}", world.records());
        assert!(notes <= sent && looks <= 3, "{sent} {looks} {notes}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_on_eks_arrives_and_its_latency_is_measured() {
    arrives("eks", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_on_aks_is_a_write_that_the_admin_category_has() {
    arrives("aks", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_on_gke_is_a_write_known_by_its_user_agent() {
    arrives("gke", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_on_gke_arrives_through_a_subscription() {
    arrives("gke pubsub", &SUBSCRIBED).await;
}
