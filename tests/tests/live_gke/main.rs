//! The real binary on live logs of GKE: Cloud Logging's API and Pub/Sub, each a stand-in that
//! follows the real rules and fails on cue.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

mod central;
mod coverage;
mod foreign;
mod identity;
mod late;
mod logging;
mod losses;
mod outages;
mod pubsub;

use std::collections::BTreeSet;
use std::time::Duration;

use audit_bridge_testkit::cloud_logging::CloudLogging;
use audit_bridge_testkit::{PodEntry, ScriptedWebhook};
use audit_bridge_tests::live::{Running, wait};
use audit_bridge_tests::{root, run};
use jiff::Timestamp;

/// A log, a receiver, and a folder for the bridge's state.
struct Scene {
    logging: CloudLogging,
    webhook: ScriptedWebhook,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Scene {
        built();
        Scene {
            logging: CloudLogging::start().await,
            webhook: ScriptedWebhook::start().await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Flags for a fast bridge that reads this log.
    fn args(&self) -> Vec<String> {
        let (logging, webhook) = (self.logging.url(), self.webhook.url());
        [
            ["--logging-endpoint", logging.as_str()],
            ["--webhook-url", webhook.as_str()],
            ["--poll-interval", "200ms"],
            ["--revisit-after", "1s,4s"],
            ["--late-interval", "off"],
            ["--requests-per-minute", "6000"],
            ["--batch-wait-max", "50ms"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }

    /// A fast bridge that reads all clusters of the project `p`.
    fn run(&self, more: &[&str]) -> Running {
        self.run_with(
            &[&["--project-id", "p", "--cluster-name", "*"], more].concat(),
            &[],
        )
    }

    fn run_with(&self, more: &[&str], envs: &[(&str, &str)]) -> Running {
        let args = self.args();
        // A test's own flag replaces the default one.
        let quick = args
            .chunks(2)
            .filter(|flag| !more.contains(&flag[0].as_str()));
        let mut all: Vec<&str> = quick.flatten().map(String::as_str).collect();
        let state = self.folder.path().join("state");
        all.extend(["--state-dir", state.to_str().unwrap()]);
        all.extend(more);
        Running::start("gke", &all, envs)
    }

    /// Writes entries with these numbers, a millisecond apart, starting at `first`.
    fn put(&self, numbers: std::ops::Range<usize>, first: Timestamp) {
        for (at, number) in numbers.enumerate() {
            let time = first + Duration::from_millis(at as u64);
            self.logging.put(PodEntry::new(number, time).text());
        }
    }

    /// The IDs of accepted events, without repetitions.
    fn accepted(&self) -> BTreeSet<String> {
        self.webhook.accepted_ids().into_iter().collect()
    }

    /// Waits until exactly these have been accepted, each at least once.
    fn until_accepted(&self, numbers: std::ops::Range<usize>) {
        let want: BTreeSet<String> = numbers.map(PodEntry::audit_id).collect();
        until(&format!("{} events", want.len()), || {
            self.accepted().is_superset(&want)
        });
        assert_eq!(self.accepted(), want);
    }

    /// The dead letter's lines.
    fn dead_letters(&self) -> Vec<serde_json::Value> {
        let path = self.folder.path().join("state/dead-letter.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Builds the bridge before a test measures time.
fn built() {
    let _ = audit_bridge_tests::binary("gke");
}

/// The time this many seconds ago.
fn ago(seconds: u64) -> Timestamp {
    Timestamp::now() - Duration::from_secs(seconds)
}

/// Waits until this holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(wait(|| holds().then_some(())).is_some(), "{what}: never");
}

/// The sum of a metric over the labels that contain this text.
fn sample(bridge: &mut Running, name: &str, label: &str) -> f64 {
    let (_, metrics) = bridge.get("/metrics");
    let lines = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name).unwrap_or_default();
        rest.starts_with('{') && rest.contains(label)
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// The converter's examples that a log could contain, and the events of their replay, in order.
fn examples(folder: &std::path::Path, flags: &[&str]) -> (Vec<String>, Vec<String>) {
    let mut entries = Vec::new();
    let examples = root().join("bridges/gke/fixtures/examples");
    for file in std::fs::read_dir(examples).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let entry: serde_json::Value = serde_json::from_str(&text).unwrap();
        // Whoever saved one of them has cut it.
        let whole = entry["resource"]["type"] == "k8s_cluster"
            && entry["protoPayload"]["serviceName"] == "k8s.io"
            && entry["insertId"].is_string();
        if whole {
            entries.push(text.trim().to_owned());
        }
    }
    assert!(entries.len() > 20, "{}", entries.len());
    let dump = folder.join("dump.json");
    std::fs::write(&dump, entries.join("\n")).unwrap();
    let output = folder.join("replay.jsonl");
    let args = [
        "replay",
        dump.to_str().unwrap(),
        "--output",
        output.to_str().unwrap(),
    ];
    let ran = run("gke", &[args.as_slice(), flags].concat());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let events = sorted_lines(&output);
    assert!(events.len() >= entries.len());
    (entries, events)
}

fn sorted_lines(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// An entry in two parts, each with half of its request.
fn parts(number: usize, time: Timestamp) -> [String; 2] {
    let entry = PodEntry {
        bytes: 100,
        ..PodEntry::new(number, time)
    };
    let entry: serde_json::Value = serde_json::from_str(&entry.text()).unwrap();
    [0, 1].map(|index| {
        let mut part = entry.clone();
        part["split"] =
            serde_json::json!({"uid": format!("u{number}"), "index": index, "totalSplits": 2});
        part["insertId"] = format!("{}-{index}", part["insertId"].as_str().unwrap()).into();
        let half = ["x".repeat(70), "y".repeat(30)][index].clone();
        part["protoPayload"]["request"]["metadata"]["annotations"]["filling"] = half.into();
        if index == 1 {
            // An undivided value is in one part only.
            part["protoPayload"]["request"]["metadata"]["name"] = "".into();
        }
        part.to_string()
    })
}
