//! The audit log of a real API server through the stand-ins of the live logs: the same events
//! arrive as from a dump, for which `native` and `gke` check that they are right.

use std::collections::BTreeMap;
use std::path::Path;

use audit_bridge_testkit::cloud_logging::CloudLogging;
use audit_bridge_testkit::pubsub::PubSub;
use audit_bridge_testkit::{CloudWatch, EventHubs, ScriptedWebhook};
use audit_bridge_tests::apiserver::Release;
use audit_bridge_tests::attacks::carrier::{Carrier, diagnostic, quoted};
use audit_bridge_tests::leaves::Leaves;
use audit_bridge_tests::live::Running;
use jiff::Timestamp;

use super::native::{carried, replayed};
use super::recording::key;
use super::{gke, recording};

const HUB: &str = "insights-logs-kube-audit";
const SUBSCRIPTION: &str = "projects/p/subscriptions/audit";

/// The number of each event, regardless of order.
fn counted(events: impl IntoIterator<Item = Leaves>) -> BTreeMap<Vec<(String, String)>, usize> {
    let mut all = BTreeMap::new();
    for event in events {
        *all.entry(event.values.into_iter().collect()).or_default() += 1;
    }
    all
}

/// Waits until the webhook has as many events as a replay of the dump yields, and compares them.
fn assert_as_replayed(
    name: &str,
    flags: &[&str],
    dump: &Path,
    webhook: &ScriptedWebhook,
    bridge: &mut Running,
) {
    let provider = name.split(' ').next().unwrap_or_default();
    let want = replayed(provider, flags, dump);
    // Wait for the metric: our receiver does not see events that are nested deeply.
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    bridge.until_metric("audit_bridge_events_delivered_total", want.len() as f64);
    let bodies = webhook.received();
    let accepted = bodies.iter().filter(|request| request.accepted);
    let ours = accepted.flat_map(|request| Leaves::of(&request.body).elements("/items"));
    let (ours, want) = (
        counted(ours),
        counted(want.into_iter().map(|(event, _)| event)),
    );
    let mut differing = Vec::new();
    for (event, times) in &want {
        if ours.get(event) != Some(times) && differing.len() < 3 {
            let event: Leaves = event.iter().cloned().collect();
            let mut others = ours
                .keys()
                .map(|other| other.iter().cloned().collect::<Leaves>());
            let other = others
                .find(|other| key(other) == key(&event))
                .unwrap_or_default();
            differing.push(format!("{times} times: {:?}", other.differences(&event)));
        }
    }
    assert!(differing.is_empty(), "{name}: {differing:#?}");
    assert_eq!(ours.len(), want.len(), "{name}: nothing else");
}

fn start(
    provider: &str,
    state: &Path,
    webhook: &ScriptedWebhook,
    more: &[&str],
    variables: &[(&str, &str)],
) -> Running {
    let url = webhook.url();
    let mut args = vec!["--webhook-url", &url, "--batch-wait-max", "50ms"];
    args.extend(["--state-dir", state.to_str().unwrap()]);
    args.extend(more);
    Running::start(provider, &args, variables)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_reading_of_real_log_delivers_what_its_dumps_do() {
    let Some(natives) = recording::tour(Release::Newest).await else {
        return;
    };
    eks(&natives).await;
    aks(&natives).await;
    cloud_logging(&natives).await;
    pubsub(&natives).await;
}

async fn eks(natives: &[recording::Native]) {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, webhook) = (CloudWatch::start().await, ScriptedWebhook::start().await);
    let group = "/aws/eks/prod/cluster";
    cloud.group(group);
    let mut dump = Vec::new();
    let now = Timestamp::now().as_millisecond() - 30_000;
    for (at, (line, _)) in (0_i64..).zip(carried(Carrier::Eks, natives)) {
        // The service returns text.
        let message = String::from_utf8_lossy(&line).into_owned();
        cloud.put(group, "kube-apiserver-audit-1a2b", now + at, &message);
        // An event that lost its own time gets the record's.
        let record = Carrier::Eks.record(message.as_bytes());
        let record = String::from_utf8(record).unwrap();
        dump.push(record.replacen("1795255200000", &(now + at).to_string(), 1));
    }
    let path = folder.path().join("eks.json");
    std::fs::write(&path, format!("{{\"events\":[{}]}}", dump.join(","))).unwrap();
    let (endpoint, nowhere) = (
        cloud.url(),
        folder.path().join("none").display().to_string(),
    );
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_CONFIG_FILE", &nowhere),
        ("AWS_SHARED_CREDENTIALS_FILE", &nowhere),
        ("AWS_ACCESS_KEY_ID", "AKIATEST"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let flags = [
        "--cluster-name=prod",
        "--poll-interval=100ms",
        "--requests-per-second=60",
        "--start=-10m",
    ];
    let state = folder.path().join("state");
    let mut bridge = start("eks", &state, &webhook, &flags, &variables);
    tokio::task::block_in_place(|| assert_as_replayed("eks", &[], &path, &webhook, &mut bridge));
    assert_eq!(bridge.terminate(), 0);
}

async fn aks(natives: &[recording::Native]) {
    let folder = tempfile::tempdir().unwrap();
    let (hubs, webhook) = (EventHubs::start().await, ScriptedWebhook::start().await);
    hubs.add_hub(HUB, 4);
    let mut dump = Vec::new();
    for (at, (line, _)) in carried(Carrier::Aks, natives).into_iter().enumerate() {
        let record = diagnostic(&quoted(&line), "SHOP-PROD", "kube-audit");
        hubs.publish(
            HUB,
            at % 4,
            [&b"{\"records\":["[..], &record, b"]}"].concat(),
        );
        dump.push(record);
    }
    let path = folder.path().join("aks.json");
    std::fs::write(&path, dump.join(&b'\n')).unwrap();
    let secret = folder.path().join("connection-string");
    std::fs::write(&secret, hubs.connection_string(HUB)).unwrap();
    let flags = [
        "--connection-string-file",
        secret.to_str().unwrap(),
        "--start",
        "earliest",
    ];
    let state = folder.path().join("state");
    let mut bridge = start("aks", &state, &webhook, &flags, &[]);
    tokio::task::block_in_place(|| assert_as_replayed("aks", &[], &path, &webhook, &mut bridge));
    assert_eq!(bridge.terminate(), 0);
}

/// Entries as lines, with current times.
fn entry_lines(natives: &[recording::Native]) -> Vec<String> {
    gke::entries(natives)
        .into_iter()
        .map(|(entry, _)| entry.to_string())
        .collect()
}

async fn cloud_logging(natives: &[recording::Native]) {
    let folder = tempfile::tempdir().unwrap();
    let (logging, webhook) = (CloudLogging::start().await, ScriptedWebhook::start().await);
    let lines = entry_lines(natives);
    for line in &lines {
        logging.put(line.clone());
    }
    let path = folder.path().join("gke.json");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let endpoint = logging.url();
    let flags = [
        "--logging-endpoint",
        &endpoint,
        "--project-id",
        "p",
        "--cluster-name",
        "*",
        "--include-data-access",
        "--poll-interval",
        "200ms",
        "--requests-per-minute",
        "6000",
        "--start",
        "-1h",
    ];
    let state = folder.path().join("state");
    let mut bridge = start("gke", &state, &webhook, &flags, &[]);
    let flags = ["--include-data-access"];
    tokio::task::block_in_place(|| {
        assert_as_replayed("gke logging", &flags, &path, &webhook, &mut bridge);
    });
    assert_eq!(bridge.terminate(), 0);
}

async fn pubsub(natives: &[recording::Native]) {
    let folder = tempfile::tempdir().unwrap();
    let (pubsub, webhook) = (
        PubSub::start(SUBSCRIPTION).await,
        ScriptedWebhook::start().await,
    );
    let lines = entry_lines(natives);
    for line in &lines {
        pubsub.publish(line.clone());
    }
    let path = folder.path().join("gke.json");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let endpoint = pubsub.url();
    let flags = [
        "--subscription",
        SUBSCRIPTION,
        "--pubsub-endpoint",
        &endpoint,
        "--include-data-access",
    ];
    let state = folder.path().join("state");
    let mut bridge = start("gke", &state, &webhook, &flags, &[]);
    let flags = ["--include-data-access"];
    tokio::task::block_in_place(|| {
        assert_as_replayed("gke pubsub", &flags, &path, &webhook, &mut bridge);
    });
    assert_eq!(bridge.terminate(), 0);
}
