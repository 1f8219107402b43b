//! `eks-audit-bridge run` and `check` with the real binary against a stand-in of CloudWatch Logs
//! that fails on cue.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod check;
mod failures;
mod identity;
mod kill;
mod outages;
mod reading;
mod replicas;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use audit_bridge_testkit::{CloudWatch, ScriptedWebhook};
use audit_bridge_tests::live::{Running, wait};
use audit_bridge_tests::{audit_id, event};
use tempfile::TempDir;

const GROUP: &str = "/aws/eks/prod/cluster";
const STREAM: &str = "kube-apiserver-audit-1a2b";

/// A bridge's surroundings: the log, the receiver and the state folder.
struct World {
    cloud: CloudWatch,
    webhook: ScriptedWebhook,
    folder: TempDir,
}

impl World {
    async fn new() -> World {
        let cloud = CloudWatch::start().await;
        cloud.group(GROUP);
        World {
            cloud,
            webhook: ScriptedWebhook::start().await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Flags for a fast tail.
    fn args(&self) -> Vec<String> {
        let state = self.state();
        let url = self.webhook.url();
        [
            "--cluster-name=prod",
            "--poll-interval=100ms",
            "--revisit-after=600ms,3s",
            "--requests-per-second=60",
            "--batch-wait-max=50ms",
            "--state-dir",
            state.to_str().unwrap(),
            "--webhook-url",
            &url,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Variables with static credentials.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = self.endpoint();
        variables.push(("AWS_ACCESS_KEY_ID", "AKIATEST".to_owned()));
        variables.push(("AWS_SECRET_ACCESS_KEY", "very-secret-key".to_owned()));
        variables
    }

    fn endpoint(&self) -> Vec<(&'static str, String)> {
        let nowhere = self.folder.path().join("none").display().to_string();
        vec![
            ("AWS_ENDPOINT_URL", self.cloud.url()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_CONFIG_FILE", nowhere.clone()),
            ("AWS_SHARED_CREDENTIALS_FILE", nowhere),
        ]
    }

    fn start(&self, more: &[&str]) -> Running {
        self.start_as(more, &self.variables())
    }

    fn start_as(&self, more: &[&str], variables: &[(&'static str, String)]) -> Running {
        let args = self.args();
        let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
        all.extend(more);
        let variables: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Running::start("eks", &all, &variables)
    }

    /// Writes event `n`, with a time `age_ms` ago.
    fn put(&self, n: usize, age_ms: i64) {
        self.cloud
            .put(GROUP, STREAM, now_ms() - age_ms, &event(n, 600));
    }

    /// How often each event was accepted.
    fn accepted(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for request in self.webhook.received().iter().filter(|it| it.accepted) {
            for id in &request.ids {
                *all.entry(id.clone()).or_default() += 1;
            }
        }
        all
    }

    /// Waits until these events are accepted, and fails if one never is.
    fn until_accepted(&self, wanted: Range<usize>, bridge: &Running) {
        let mut missing = Vec::new();
        let done = wait(|| {
            let accepted = self.accepted();
            let lacks = |n: &usize| !accepted.contains_key(&audit_id(*n));
            missing = wanted.clone().filter(lacks).collect();
            missing.is_empty().then_some(())
        });
        assert!(done.is_some(), "missing {missing:?}\n{}", bridge.log());
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// The checkpoints below a folder.
fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(checkpoints(&path));
        } else if path.ends_with("checkpoint.json") {
            found.push(path);
        }
    }
    found
}
