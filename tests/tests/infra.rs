//! Identity and deployment: Terraform, CloudFormation, the chart, the control-plane kit; the pages and the workflows.
//!
//! The checks are in Python (`tests/infra`), like the tools that know these formats. Each test here
//! runs one of their files. They skip what a machine lacks, and these tests report that where a
//! passing test's output cannot hide it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use audit_bridge_tests::python::python;
use audit_bridge_tests::{BRIDGES, binary, root};

/// Runs `tests/infra/<module>.py`.
fn check(module: &str) {
    check_with(module, &[]);
}

/// The same with these variables.
fn check_with(module: &str, environment: &[(&str, &Path)]) {
    let output = Command::new(python("tests/requirements-infra.txt"))
        .args(["-m", "unittest", "--verbose", module])
        .current_dir(root().join("tests/infra"))
        .envs(environment.iter().copied())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONIOENCODING", "utf-8")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{said}",
        String::from_utf8_lossy(&output.stdout)
    );
    // unittest also succeeds if it found no tests.
    let ran = said
        .lines()
        .filter(|line| line.ends_with("... ok") || line.contains("... skipped"));
    assert!(ran.count() > 0, "no test ran: {said}");
    for line in said.lines().filter(|line| line.contains("... skipped")) {
        // Bypasses the test harness, which would capture it.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "skipped: {line}").unwrap();
    }
}

#[test]
fn eks_identity() {
    check("test_eks_identity");
}

#[test]
fn eks_stream() {
    check("test_eks_stream");
}

#[test]
fn terraform() {
    check("test_terraform");
}

#[test]
fn chart() {
    check("test_chart");
    check("test_values");
}

/// The same with the built bridges.
fn check_with_bridges(module: &str) {
    let built = BRIDGES.map(binary);
    check_with(module, &[("BRIDGES_FOLDER", built[0].parent().unwrap())]);
}

#[test]
fn eks_calls() {
    check_with_bridges("test_eks_calls");
}

#[test]
fn settings() {
    check_with_bridges("test_settings");
}

#[test]
fn monitoring() {
    check("test_monitoring");
}

#[test]
fn image() {
    check("test_image");
}

#[test]
fn control_plane() {
    check("test_audit_policy");
    check("test_control_plane");
    check("test_enable_audit");
}

#[test]
fn pages() {
    check_with_bridges("test_docs");
    check("test_commands");
    check("test_steps");
}

#[test]
fn workflows() {
    check("test_workflows");
    check("test_dependencies");
}
