//! `aks-audit-bridge run` and `check`, the real binary, against an Event Hubs namespace that fails
//! on cue.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod content;
mod delivery;
mod failovers;
mod identity;
mod kill;
mod networks;
mod outages;
mod preflight;
mod python;
mod sharing;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_testkit::{EventHubs, ScriptedWebhook};
use audit_bridge_tests::live::{Running, wait};
use audit_bridge_tests::{audit_id, event};
use serde_json::json;
use tokio::task::JoinHandle;

const HUB: &str = "insights-logs-kube-audit";

/// A hub, a receiver and the state folder of one bridge.
struct Stage {
    hubs: EventHubs,
    webhook: ScriptedWebhook,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn new(partitions: usize) -> Stage {
        let stage = Stage {
            hubs: EventHubs::start().await,
            webhook: ScriptedWebhook::start().await,
            folder: tempfile::tempdir().unwrap(),
        };
        stage.hubs.add_hub(HUB, partitions);
        std::fs::write(
            stage.path("connection-string"),
            stage.hubs.connection_string(HUB),
        )
        .unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The flags of a bridge that uses the connection string.
    fn args(&self, more: &[&str]) -> Vec<String> {
        let mut args = vec![
            "--webhook-url".to_owned(),
            self.webhook.url(),
            "--state-dir".to_owned(),
            self.path("state").display().to_string(),
            "--connection-string-file".to_owned(),
            self.path("connection-string").display().to_string(),
            "--batch-wait-max".to_owned(),
            "100ms".to_owned(),
        ];
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        args
    }

    fn start(&self, more: &[&str]) -> Running {
        self.start_with(more, &[])
    }

    fn start_with(&self, more: &[&str], variables: &[(&str, &str)]) -> Running {
        let args = self.args(more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Running::start("aks", &args, variables)
    }

    /// Publishes these events, one per message, to all partitions in turn.
    fn publish(&self, events: std::ops::Range<usize>, partitions: usize) {
        for n in events {
            self.hubs
                .publish(HUB, n % partitions, message(&[record(n)]));
        }
    }

    /// Waits until the receiver has accepted all of these events.
    fn until_accepted(&self, bridge: &Running, events: std::ops::Range<usize>) {
        let all: BTreeSet<_> = events.map(audit_id).collect();
        let mut missing = all.len();
        let done = wait(|| {
            let accepted: BTreeSet<_> = self.webhook.accepted_ids().into_iter().collect();
            missing = all.difference(&accepted).count();
            (missing == 0).then_some(())
        });
        assert!(
            done.is_some(),
            "{missing} of {} events never came\n{}",
            all.len(),
            bridge.log()
        );
    }

    /// Waits until the checkpoint covers this many messages, so that they are never repeated.
    fn until_settled(&self, messages: i64) {
        let path = self.path("state").join("checkpoint.json");
        let settled = || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            (passed(&text) == messages).then_some(())
        };
        assert!(wait(settled).is_some(), "{messages} are never settled");
    }

    /// Asserts that every accepted event came once.
    fn assert_no_duplicates(&self) {
        let accepted = self.webhook.accepted_ids();
        let once: BTreeSet<_> = accepted.iter().collect();
        assert_eq!(accepted.len(), once.len(), "some came twice");
    }

    /// The lines of the dead letter.
    fn dead_letter(&self) -> Vec<serde_json::Value> {
        let path = self.path("state").join("dead-letter.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Publishes events almost without pause, to random partitions.
struct Issuer {
    going: Arc<AtomicBool>,
    task: JoinHandle<usize>,
    /// By audit ID, the partition and the sequence number.
    published: Arc<Mutex<BTreeMap<String, (usize, i64)>>>,
}

impl Issuer {
    fn start(
        stage: &Arc<Stage>,
        partitions: usize,
        pause: Duration,
        mut dice: fastrand::Rng,
    ) -> Issuer {
        let going = Arc::new(AtomicBool::new(true));
        let published = Arc::new(Mutex::new(BTreeMap::new()));
        let (stage, still, places) = (stage.clone(), going.clone(), published.clone());
        let task = tokio::spawn(async move {
            let mut issued = 0;
            while still.load(Ordering::Relaxed) {
                let next = issued + dice.usize(1..4);
                let records: Vec<_> = (issued..next).map(record).collect();
                let partition = dice.usize(0..partitions);
                {
                    // Locked, so that the place of a published message is always known.
                    let mut places = places.lock().unwrap();
                    let at = stage.hubs.publish(HUB, partition, message(&records));
                    places.extend((issued..next).map(|n| (audit_id(n), (partition, at))));
                }
                issued = next;
                tokio::time::sleep(pause).await;
            }
            issued
        });
        Issuer {
            going,
            task,
            published,
        }
    }

    /// Stops publishing. Returns how many events were published.
    async fn stop(self) -> usize {
        self.going.store(false, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// How many messages a checkpoint covers.
fn passed(checkpoint: &str) -> i64 {
    kept(checkpoint).values().map(|last| last + 1).sum()
}

/// The last message that a checkpoint covers, by partition.
fn kept(checkpoint: &str) -> BTreeMap<usize, i64> {
    let checkpoint: serde_json::Value = serde_json::from_str(checkpoint).unwrap_or_default();
    let positions = checkpoint["position"].as_object().into_iter().flatten();
    positions
        .filter_map(|(partition, position)| {
            let last = position["sequence_number"].as_i64()?;
            Some((partition.parse().ok()?, last))
        })
        .collect()
}

/// A record of this category with this log.
fn record_of(category: &str, cluster: &str, log: &str) -> serde_json::Value {
    json!({
        "time": "2026-11-21T10:00:00.1234567Z",
        "category": category,
        "operationName": "Microsoft.ContainerService/managedClusters/diagnosticLogs/Read",
        "resourceId": format!(
            "/SUBSCRIPTIONS/0000/RESOURCEGROUPS/RG/PROVIDERS/\
             MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/{}", cluster.to_uppercase()
        ),
        "properties": {"log": log, "stream": "stdout", "pod": "kube-apiserver-0"},
    })
}

/// The record of event `n`.
fn record(n: usize) -> serde_json::Value {
    record_of("kube-audit", "prod", &(event(n, 1000) + "\n"))
}

fn message(records: &[serde_json::Value]) -> String {
    json!({"records": records}).to_string()
}
