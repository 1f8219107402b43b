//! Flags, variables, version.

use super::*;

#[test]
fn settings_wrong_are_all_reported_at_once() {
    let secret = "hunter2-do-not-print";
    let ran = run(
        "gke",
        &[
            "replay",
            "x",
            "--batch-bytes-max",
            secret,
            "--batch-events-max",
            "0",
            "--batch-wait-max",
            secret,
            "--format",
            secret,
            "--annotate",
            secret,
            "--shape",
            secret,
            "--derive",
            secret,
            "--give-up-after",
            secret,
            "--in-flight-bytes-max",
            "0",
            "--log-format",
            secret,
            "--webhook-url",
            &format!("https://user:{secret}@example.test/"),
            "--webhook-client-cert-file",
            "/nonexistent/cert.pem",
        ],
    );
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    for flag in [
        "batch-bytes-max",
        "batch-events-max",
        "batch-wait-max",
        "format",
        "annotate",
        "shape",
        "derive",
        "give-up-after",
        "in-flight-bytes-max",
        "log-format",
        "webhook-url",
        "webhook-client-cert-file",
        "webhook-client-key-file",
    ] {
        let variable = format!("AUDIT_BRIDGE_{}", flag.to_uppercase().replace('-', "_"));
        assert!(
            ran.stderr.contains(&format!("--{flag} ({variable})")),
            "{flag}: {}",
            ran.stderr
        );
    }
    assert!(!ran.stderr.contains(secret), "{}", ran.stderr);
    assert_eq!(run("gke", &["replay"]).status, 2);
    assert_eq!(run("gke", &["replay", "x", "--no-such-flag"]).status, 2);
    assert_eq!(run("gke", &[]).status, 2);
    assert_eq!(run("gke", &["--help"]).status, 0);
}

/// Manifests often have a variable without a value.
#[test]
fn variables_empty_count_as_unset() {
    for provider in BRIDGES {
        for subcommand in ["replay", "run"] {
            let help = run(provider, &[subcommand, "--help"]).stdout;
            let named = help.split("[env: ").skip(1);
            let variables: Vec<&str> = named
                .filter_map(|text| text.split(['=', ']']).next())
                .collect();
            assert!(variables.len() > 20, "{variables:?}");
            let mut bridge = command(provider, &[subcommand]);
            bridge.envs(variables.iter().map(|name| (name, "")));
            let input = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(input.path(), lines(0..1)).unwrap();
            let status = match subcommand {
                "replay" => bridge.arg(input.path()).output().unwrap().status.code(),
                // It lacks what it has to have, and says so itself.
                _ => {
                    let output = bridge.output().unwrap();
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(said.contains("the configuration is wrong"), "{said}");
                    output.status.code().map(|status| status - 2)
                }
            };
            assert_eq!(status, Some(0), "{provider} {subcommand}");
        }
    }
}

#[test]
fn settings_are_read_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let ran = command("aks", &["replay", "-"])
        .env("AUDIT_BRIDGE_FORMAT", "events")
        .env("AUDIT_BRIDGE_ANNOTATE", "cluster=blue,team=a,b")
        .env("AUDIT_BRIDGE_WEBHOOK_URL", "")
        .stdin(std::process::Stdio::from(
            std::fs::File::open(write(folder.path(), "in.jsonl", lines(0..1))).unwrap(),
        ))
        .output()
        .unwrap();
    let event: serde_json::Value = serde_json::from_slice(&output_line(&ran.stdout)).unwrap();
    assert_eq!(event["annotations"]["cluster"], "blue");
    assert_eq!(event["annotations"]["team"], "a,b");
    assert_eq!(
        event["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
}

fn output_line(stdout: &[u8]) -> Vec<u8> {
    stdout.split(|byte| *byte == b'\n').next().unwrap().to_vec()
}

#[test]
fn version_option_prints_the_version() {
    for provider in BRIDGES {
        let ran = run(provider, &["version", "--json"]);
        let version: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(version["name"], format!("{provider}-audit-bridge"));
        assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
        assert!(
            run(provider, &["version"])
                .stdout
                .starts_with(&format!("{provider}-audit-bridge "))
        );
    }
}

/// A Secret that is mounted under the wrong key is the usual mistake.
#[test]
fn certificate_files_with_other_content_are_reported_with_all_else() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(folder.path(), "secret", "hunter2-do-not-print\n");
    let mut args = vec!["replay", "x", "--webhook-url", "https://example.test"];
    args.extend(["--batch-wait-max", "soon"]);
    let files = [
        "webhook-ca-file",
        "webhook-client-cert-file",
        "webhook-client-key-file",
    ];
    let flags = files.map(|flag| format!("--{flag}"));
    for flag in &flags {
        args.extend([flag.as_str(), &secret]);
    }
    let ran = run("eks", &args);
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    for flag in ["batch-wait-max", files[0], files[1]] {
        let variable = format!("AUDIT_BRIDGE_{}", flag.to_uppercase().replace('-', "_"));
        let named = format!("--{flag} ({variable})");
        assert!(ran.stderr.contains(&named), "{flag}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
}

#[test]
fn variables_that_are_no_text_are_named() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let output = command("aks", &["run"])
        .env(
            "AUDIT_BRIDGE_WEBHOOK_URL",
            OsStr::from_bytes(b"https://secret\xff"),
        )
        .env("AUDIT_BRIDGE_EVENT_HUB", OsStr::from_bytes(b"secret\xff"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    for named in [
        "--webhook-url (AUDIT_BRIDGE_WEBHOOK_URL)",
        "--event-hub (AUDIT_BRIDGE_EVENT_HUB)",
    ] {
        assert!(said.contains(named), "{said}");
    }
    assert!(!said.contains("secret"), "{said}");
}

/// A resumed replay reads what it compares twice.
#[test]
fn state_folder_is_refused_for_what_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    for name in ["-", "/dev/stdin"] {
        let output = command("eks", &["replay", name, "--output", "-"])
            .arg("--state-dir")
            .arg(&state)
            .stdin(std::process::Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(
            said.contains("--state-dir (AUDIT_BRIDGE_STATE_DIR)") && said.contains(name),
            "{said}"
        );
    }
}
