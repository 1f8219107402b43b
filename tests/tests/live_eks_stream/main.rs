//! `eks-audit-bridge run` and `check` with `--stream`, the real binary, against a stand-in of Kinesis
//! Data Streams that is resharded and fails on cue.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod catch_up;
mod delivery;
mod failures;
mod kill;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audit_bridge_testkit::kinesis::subscription::{SubscribedEvent, SubscriptionOrigin};
use audit_bridge_testkit::{Kinesis, ScriptedWebhook};
use audit_bridge_tests::live::{Running, wait};
use audit_bridge_tests::{audit_id, event};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const STREAM: &str = "audit";
/// Number of API servers' log streams; each is delivered in order.
const LOG_STREAMS: usize = 5;

/// A stream, a receiver and the state folder of one bridge.
struct Stage {
    kinesis: Kinesis,
    webhook: ScriptedWebhook,
    folder: TempDir,
}

impl Stage {
    async fn new(shards: u32) -> Stage {
        let kinesis = Kinesis::start().await;
        kinesis.create_stream(STREAM, shards);
        Stage {
            kinesis,
            webhook: ScriptedWebhook::start().await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let mut args = vec![
            "--webhook-url".to_owned(),
            self.webhook.url(),
            "--batch-wait-max=50ms".to_owned(),
            // So that requests are in the stream's order.
            "--in-flight-batches-max=1".to_owned(),
        ];
        if !more.iter().any(|arg| arg.starts_with("--stream")) {
            args.push(format!("--stream={STREAM}"));
        }
        if !more.contains(&"--state-dir") {
            args.push(format!("--state-dir={}", self.path("state").display()));
        }
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        args
    }

    /// Variables with static credentials.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let nowhere = self.path("none").display().to_string();
        vec![
            ("AWS_ENDPOINT_URL_KINESIS", self.kinesis.url()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_CONFIG_FILE", nowhere.clone()),
            ("AWS_SHARED_CREDENTIALS_FILE", nowhere),
            ("AWS_ACCESS_KEY_ID", "AKIATEST".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "very-secret-key".to_owned()),
        ]
    }

    fn start(&self, more: &[&str]) -> Running {
        self.start_as(more, &[])
    }

    fn start_as(&self, more: &[&str], variables: &[(&str, &str)]) -> Running {
        let args = self.args(more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let own = self.variables();
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        let all: Vec<(&str, &str)> = own.chain(variables.iter().copied()).collect();
        Running::start("eks", &args, &all)
    }

    /// Exit status and output of `check`.
    fn check(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut args = vec!["check".to_owned()];
        args.extend(self.args(more));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = audit_bridge_tests::command("eks", &args);
        command.envs(self.variables());
        command.env("KUBECONFIG", self.path("kubeconfig"));
        // Keep this runtime's other threads free for the stand-ins.
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    /// Writes a record of these events.
    fn put_of(&self, subscription: &SubscriptionOrigin, events: std::ops::Range<usize>) {
        let now = self.kinesis.now_ms();
        let events: Vec<_> = events
            .map(|n| SubscribedEvent::new(n, now, event(n, 600) + "\n"))
            .collect();
        self.kinesis.deliver(STREAM, subscription, &events);
    }

    /// Writes these events, up to three a record, to the log streams in turn.
    fn put(&self, events: std::ops::Range<usize>) {
        let mut from = events.start;
        while from < events.end {
            let until = (from + 1 + from % 3).min(events.end);
            self.put_of(&log_stream(from), from..until);
            from = until;
        }
    }

    fn accepted(&self) -> Vec<String> {
        self.webhook.accepted_ids()
    }

    /// Waits until the receiver has accepted all of these events, as long as some still arrive.
    fn until_accepted(&self, bridge: &Running, events: std::ops::Range<usize>) {
        let all: BTreeSet<_> = events.map(audit_id).collect();
        let mut missing = all.clone();
        while !missing.is_empty() {
            let before = missing.len();
            let more = wait(|| {
                let accepted: BTreeSet<_> = self.accepted().into_iter().collect();
                missing.retain(|event| !accepted.contains(event));
                (missing.len() < before).then_some(())
            });
            assert!(
                more.is_some(),
                "{before} of {} events never came: {:?}\n{:#?}\n{}",
                all.len(),
                missing.iter().take(5).collect::<Vec<_>>(),
                self.kinesis.shards(STREAM),
                bridge.log()
            );
        }
    }

    fn assert_no_duplicates(&self) {
        let accepted = self.accepted();
        let once: BTreeSet<_> = accepted.iter().collect();
        assert_eq!(once.len(), accepted.len(), "some came twice");
    }

    /// Checks that first deliveries follow the order of each log stream, and that no shard was read
    /// before its parents.
    fn assert_order(&self) {
        assert_eq!(self.kinesis.order_breaches(STREAM), []);
        let mut first = BTreeMap::new();
        for (at, id) in self.accepted().into_iter().enumerate() {
            first.entry(id).or_insert(at);
        }
        let mut last = BTreeMap::<String, usize>::new();
        for line in self.kinesis.written_lines(STREAM) {
            let event: serde_json::Value = serde_json::from_str(&line.event.message).unwrap();
            let at = first[event["auditID"].as_str().unwrap()];
            let stream = line.subscription.log_stream;
            if let Some(before) = last.insert(stream.clone(), at) {
                assert!(before < at, "{stream} is out of order");
            }
        }
    }
}

/// The log stream of event `n`.
fn log_stream(n: usize) -> SubscriptionOrigin {
    SubscriptionOrigin {
        log_stream: format!("kube-apiserver-audit-{}", n % LOG_STREAMS),
        ..SubscriptionOrigin::of_cluster("111122223333", "prod")
    }
}

/// Writes events while splitting and merging shards.
struct Issuer {
    going: Arc<AtomicBool>,
    task: JoinHandle<usize>,
}

impl Issuer {
    fn start(stage: &Arc<Stage>, shards_max: usize, mut dice: fastrand::Rng) -> Issuer {
        let going = Arc::new(AtomicBool::new(true));
        let (stage, go_on) = (Arc::clone(stage), Arc::clone(&going));
        let task = tokio::spawn(async move {
            let mut issued = 0;
            while go_on.load(Ordering::Relaxed) {
                let more = dice.usize(1..6);
                stage.put(issued..issued + more);
                issued += more;
                if dice.u32(0..60) == 0 {
                    stage.kinesis.reshard(STREAM, dice.u64(..), shards_max);
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            issued
        });
        Issuer { going, task }
    }

    /// Stops writing. Returns how many events were written.
    async fn stop(self) -> usize {
        self.going.store(false, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
