//! `replay` of the real binaries, as a security engineer uses it with a saved dump.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

mod damage;
mod delivery;
mod inputs;
mod memory;
mod positions;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use audit_bridge_testkit::webhook::{ScriptedWebhook, WebhookAnswer};
use audit_bridge_tests::{BRIDGES, Ran, audit_id, command, event, events, root, run, run_with};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|n| event(n, 800) + "\n").collect()
}

fn report(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(ran: &Ran) -> Vec<String> {
    ran.events()
        .iter()
        .map(|event| event["auditID"].as_str().unwrap().to_owned())
        .collect()
}

fn all_ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(audit_id).collect()
}
