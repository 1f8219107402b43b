//! Measures the processor time and memory that the AKS bridge needs to read an event hub:
//!
//! ```text
//! hub_load PARTITIONS MESSAGES [KIB] [REPLICAS]
//! ```
//!
//! Before the bridge starts, the hub holds `MESSAGES` messages in each partition, each with `KIB`
//! KiB (250) of records in Azure Monitor's form. `CORES=0` pins the bridge to these cores
//! (`taskset`). The rate by processor time is least affected by other load on the machine. Bytes
//! are those of the messages. Memory is highest with many partitions and messages of 1,000 KiB, the
//! largest that the hub accepts. With `REPLICAS`, even 1, the partitions are shared.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for the developer's terminal, which may stop at once"
)]

use std::path::Path;

use audit_bridge_testkit::{EventHubs, ScriptedWebhook};
use audit_bridge_tests::event;
use audit_bridge_tests::live::Running;
use audit_bridge_tests::load::{Load, argument, keep_to_cores};
use audit_bridge_tests::replicas::serve_api;
use serde_json::json;

const HUB: &str = "insights-logs-kube-audit";

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let (partitions, messages) = (argument(0, 4), argument(1, 200));
    let (kib, replicas) = (argument(2, 250), argument(3, 0));
    // Build it before the clock runs.
    let _ = audit_bridge_tests::binary("aks");
    let (hubs, webhook) = (EventHubs::start().await, ScriptedWebhook::start().await);
    let folder = tempfile::tempdir().unwrap();
    hubs.add_hub(HUB, partitions);
    let (mut events, mut bytes) = (0, 0);
    for _ in 0..messages {
        for partition in 0..partitions {
            let records = 1 + (kib << 10).saturating_sub(64) / record(events).len().max(1);
            let all: Vec<_> = (events..events + records.max(2) - 1).map(record).collect();
            events += all.len();
            let text = format!("{{\"records\":[{}]}}", all.join(","));
            bytes += text.len();
            hubs.publish(HUB, partition, text);
        }
    }
    println!(
        "{events} events in {} messages of {} bytes, {partitions} partitions",
        messages * partitions,
        bytes / (messages * partitions).max(1)
    );
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (secret, url) = (path("connection-string"), webhook.url());
    std::fs::write(&secret, hubs.connection_string(HUB)).unwrap();
    let kubeconfig = path("kubeconfig");
    let (_api, _serving) = serve_api(Path::new(&kubeconfig)).await;
    let args = [
        ["--connection-string-file", &secret],
        ["--start", "earliest"],
        ["--webhook-url", &url],
    ];
    let shared: &[&str] = match replicas {
        0 => &[],
        _ => &["--checkpoint-store=kubernetes", "--share-partitions"],
    };
    let args = [args.as_flattened(), shared].concat();
    let load = Load::begin(events, bytes);
    let bridges = (0..replicas.max(1)).map(|replica| {
        let state = path(&format!("state-{replica}"));
        let args = [args.as_slice(), &["--state-dir", &state]].concat();
        let bridge = Running::start("aks", &args, &[("KUBECONFIG", &kubeconfig)]);
        keep_to_cores(&bridge);
        bridge
    });
    load.measure(bridges.collect(), &webhook).await;
}

/// The record of event `n`, 1.66 KB before escaping.
fn record(n: usize) -> String {
    let record = json!({
        "time": "2026-11-21T10:00:00.1234567Z",
        "category": "kube-audit",
        "operationName": "Microsoft.ContainerService/managedClusters/diagnosticLogs/Read",
        "resourceId": "/SUBSCRIPTIONS/0000/RESOURCEGROUPS/RG/PROVIDERS/\
                       MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/PROD",
        "properties": {"log": event(n, 1660) + "\n", "stream": "stdout", "pod": "kube-apiserver-0"},
    });
    record.to_string()
}
