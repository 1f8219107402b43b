//! Real samples, if they are beside the repository: a reviewed table has the result of every file.
//! We may not distribute them, so elsewhere the test reports that it did nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

use std::fmt::Write as _;
use std::path::Path;

use audit_bridge_tests::{root, run, sample_files};

fn outcome(provider: &str, file: &Path, more: &[&str]) -> String {
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut args = vec![
        "replay",
        file.to_str().unwrap(),
        "--report",
        report.path().to_str().unwrap(),
    ];
    args.extend(more);
    let ran = run(provider, &args);
    assert!(
        !ran.stderr.contains("panicked"),
        "{}: {}",
        file.display(),
        ran.stderr
    );
    let tally: serde_json::Value =
        serde_json::from_slice(&std::fs::read(report.path()).unwrap()).unwrap();
    let events = ran.events();
    assert_eq!(events.len() as u64, tally["events"].as_u64().unwrap());
    let mut line = format!(
        "exit {}, {} records, {} events",
        ran.status, tally["records"], tally["events"]
    );
    for kind in ["skipped", "rejected"] {
        for (reason, count) in tally[kind].as_object().unwrap() {
            let _ = write!(line, ", {count} {kind} {reason}");
        }
    }
    if tally["truncated"] != 0 {
        let _ = write!(line, ", {} truncated", tally["truncated"]);
    }
    let said = ran
        .stderr
        .lines()
        .find(|line| line.starts_with("error:") || line.starts_with("rejected:"));
    if let Some((_, why)) = said.and_then(|line| line.split_once(file.to_str().unwrap())) {
        let why = why.trim_start_matches(": ");
        let end = why.char_indices().nth(90).map_or(why.len(), |(at, _)| at);
        let _ = write!(line, " ({})", &why[..end]);
    }
    line
}

#[test]
fn corpus_each_sample_has_its_reviewed_outcome() {
    let corpus = root().join("../shared/corpus");
    if !corpus.is_dir() {
        // Bypasses the test harness, which would capture it.
        let mut stderr = std::io::stderr();
        let _ = std::io::Write::write_all(
            &mut stderr,
            b"skipped: there are no samples beside this repository\n",
        );
        return;
    }
    let mut table = String::new();
    for (folder, provider, more) in [
        ("aks", "aks", &[][..]),
        ("eks", "eks", &[]),
        ("gke", "gke", &["--include-data-access"]),
        ("native", "eks", &[]),
        ("native", "gke", &[]),
        ("native", "aks", &[]),
    ] {
        let _ = writeln!(table, "# {provider}-audit-bridge replay {}", more.join(" "));
        for file in sample_files(&corpus.join(folder)) {
            let name = file.strip_prefix(&corpus).unwrap().display().to_string();
            let _ = writeln!(table, "{name}: {}", outcome(provider, &file, more));
        }
    }
    insta::assert_snapshot!(table);
}
