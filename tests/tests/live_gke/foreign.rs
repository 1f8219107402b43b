//! Tests with clients and servers that we did not write: Google's own tools read our Cloud Logging,
//! and the bridge reads Google's own Pub/Sub emulator.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use audit_bridge_testkit::cloud_logging::{CloudLogging, Listed, LogPermissions};
use audit_bridge_testkit::{PodEntry, ScriptedWebhook};
use audit_bridge_tests::live::Running;
use audit_bridge_tests::python::python;
use audit_bridge_tests::root;

use crate::{ago, built, until};

/// A log of two clusters, and the bridge's filter for one of them.
async fn log_and_filter() -> (CloudLogging, String, Vec<String>) {
    built();
    let log = CloudLogging::start().await;
    let first = ago(60);
    for number in 0..40 {
        let mut entry = PodEntry::new(number, first + Duration::from_millis(number as u64 / 3));
        entry.cluster = if number % 2 == 0 { "c" } else { "d" }.to_owned();
        log.put(entry.text());
    }
    let webhook = ScriptedWebhook::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (logging, url) = (log.url(), webhook.url());
    let args = [
        ["--logging-endpoint", &logging],
        ["--webhook-url", &url],
        ["--state-dir", folder.path().to_str().unwrap()],
        ["--project-id", "p"],
        ["--cluster-name", "c"],
        ["--start", "-5m"],
    ];
    let bridge = Running::start("gke", &args.concat(), &[]);
    let want: Vec<String> = (0..40).step_by(2).map(PodEntry::audit_id).collect();
    until("the bridge reads it", || {
        webhook.accepted_ids().len() == want.len()
    });
    assert_eq!(bridge.terminate(), 0);
    let requests = log.requests();
    // Leave out the requests that only test for entries, and those for late entries.
    let reads = |it: &&Listed| it.page_size != Some(1) && !it.filter.contains("receiveTimestamp");
    let filter = requests.iter().find(reads).unwrap().filter.clone();
    (log, filter, want)
}

/// The insert IDs that Google's client for Python lists, or its error.
fn listed_by_python(log: &CloudLogging, asked: [&str; 4]) -> Result<Vec<String>, String> {
    let output = Command::new(python("tests/requirements-gke.txt"))
        .arg(root().join("tests/tests/live_gke/list_entries.py"))
        .arg(log.url())
        .args(asked)
        .output()
        .unwrap();
    match output.status.success() {
        true => {
            let printed = String::from_utf8_lossy(&output.stdout);
            Ok(printed.lines().map(str::to_owned).collect())
        }
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stand_in_serves_googles_python_client() {
    let (log, filter, want) = log_and_filter().await;
    for (order, page_size) in [("asc", "7"), ("desc", "7"), ("asc", "1000")] {
        let mut ids = listed_by_python(&log, ["projects/p", &filter, order, page_size]).unwrap();
        if order == "desc" {
            ids.reverse();
        }
        assert_eq!(ids, want, "{order} {page_size}");
    }
}

/// With Google's client, entries that may not be read are left out, and those elsewhere are not
/// found.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stand_in_leaves_out_what_googles_python_client_may_not_read() {
    let log = CloudLogging::start().await;
    for (number, (project, name)) in [
        ("p", "activity"),
        ("p", "data_access"),
        ("q", "activity"),
        ("q", "data_access"),
    ]
    .into_iter()
    .enumerate()
    {
        let entry = PodEntry {
            project: project.to_owned(),
            log: name.to_owned(),
            ..PodEntry::new(number, ago(60))
        };
        log.put(entry.text());
    }
    let both = r#"log_id("cloudaudit.googleapis.com/activity") OR log_id("cloudaudit.googleapis.com/data_access")"#;
    let list = |places: &str| {
        let ids = listed_by_python(&log, [places, both, "asc", "10"]);
        ids.map(|ids| {
            ids.iter()
                .map(|id| id[id.len() - 1..].to_owned())
                .collect::<String>()
        })
    };
    let default = "projects/p/locations/global/buckets/_Default/views";
    assert_eq!(list("projects/p").unwrap(), "01");
    assert_eq!(list("projects/p,projects/q").unwrap(), "0123");
    log.private_logs(false);
    assert_eq!(list("projects/p,projects/q").unwrap(), "02");
    assert_eq!(list(&format!("{default}/_AllLogs")).unwrap(), "1");
    assert_eq!(list(&format!("{default}/_Default")).unwrap(), "");
    log.permit(LogPermissions {
        resources: Some(vec!["projects/p".to_owned()]),
        ..LogPermissions::default()
    });
    assert_eq!(list("projects/p").unwrap(), "01");
    let refused = list("projects/p,projects/q").unwrap_err();
    assert!(refused.contains("403"), "{refused}");
    let refused = list("clusters/p").unwrap_err();
    assert!(refused.contains("400"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stand_in_serves_gcloud() {
    if Command::new("gcloud").arg("--version").output().is_err() {
        let _ = writeln!(std::io::stderr(), "skipped: there is no gcloud here");
        return;
    }
    let (log, filter, want) = log_and_filter().await;
    let settings = tempfile::tempdir().unwrap();
    let output = Command::new("gcloud")
        .args([
            "logging",
            "read",
            &filter,
            "--project",
            "p",
            "--format",
            "json",
            "--quiet",
        ])
        .args(["--order", "asc"])
        .env("CLOUDSDK_CONFIG", settings.path())
        .env(
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING",
            format!("{}/", log.url()),
        )
        .env("CLOUDSDK_AUTH_DISABLE_CREDENTIALS", "true")
        .env("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "true")
        .env("CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK", "true")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let entries: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let ids: Vec<&str> = entries
        .iter()
        .map(|it| it["insertId"].as_str().unwrap())
        .collect();
    assert_eq!(ids, want);
}

/// Google's emulator, if its archive is installed with gcloud.
fn emulator_jar() -> Option<PathBuf> {
    let output = Command::new("gcloud")
        .args(["info", "--format", "value(installation.sdk_root)"])
        .output()
        .ok()?;
    let sdk = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let folder = sdk.join("platform/pubsub-emulator/lib");
    let mut files = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|file| file.path());
    files.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("cloud-pubsub-emulator") && name.ends_with(".jar")
    })
}

/// The running emulator.
struct Emulator {
    child: Child,
    host: String,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Emulator {
    fn start() -> Option<Emulator> {
        let jar = emulator_jar()?;
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new("java")
            .arg("-jar")
            .arg(jar)
            .args(["--host=127.0.0.1", &format!("--port={port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Emulator {
            child,
            host: format!("127.0.0.1:{port}"),
        })
    }

    /// Sends a request to its REST API; returns whether it succeeded.
    fn rest(&self, method: &str, path: &str, body: &serde_json::Value) -> bool {
        let sent = Command::new("curl")
            .args([
                "--silent",
                "--fail",
                "--output",
                "/dev/null",
                "--request",
                method,
            ])
            .args(["--header", "content-type: application/json"])
            .args([
                "--data",
                &body.to_string(),
                &format!("http://{}{path}", self.host),
            ])
            .status();
        sent.is_ok_and(|sent| sent.success())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn emulator_of_google_is_read() {
    let Some(emulator) = Emulator::start() else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: there is no pub/sub emulator here (gcloud and java)"
        );
        return;
    };
    let none = serde_json::json!({});
    until("the emulator", || {
        emulator.rest("PUT", "/v1/projects/p/topics/audit", &none)
    });
    let topic = serde_json::json!({"topic": "projects/p/topics/audit"});
    let name = "projects/p/subscriptions/audit";
    assert!(emulator.rest("PUT", &format!("/v1/{name}"), &topic));
    let publish = |numbers: std::ops::Range<usize>| {
        use base64::Engine as _;
        let messages: Vec<_> = numbers
            .map(|number| {
                let entry = PodEntry::new(number, ago(1)).text();
                let data = base64::engine::general_purpose::STANDARD.encode(entry);
                serde_json::json!({ "data": data })
            })
            .collect();
        let body = serde_json::json!({ "messages": messages });
        assert!(emulator.rest("POST", "/v1/projects/p/topics/audit:publish", &body));
    };
    let webhook = ScriptedWebhook::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = webhook.url();
    let args = [
        ["--subscription", name],
        ["--webhook-url", &url],
        ["--state-dir", folder.path().to_str().unwrap()],
    ];
    let variables = [("PUBSUB_EMULATOR_HOST", emulator.host.as_str())];
    publish(0..60);
    let mut bridge = Running::start("gke", &args.concat(), &variables);
    let accepted = || webhook.accepted_ids().len();
    until("the first", || accepted() == 60);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
    let bridge = Running::start("gke", &args.concat(), &variables);
    // The emulator still assigns messages to streams that have ended, whichever client they
    // belonged to, and takes them back when the lease ends, to assign them at random again. So not
    // all messages are expected.
    let mut numbers = 60..;
    let mut publish_one = || {
        let number = numbers.next().unwrap();
        publish(number..number + 1);
    };
    until("some after the restart", || {
        publish_one();
        accepted() >= 70
    });
    assert_eq!(bridge.terminate(), 0);
    // No acknowledged message was repeated.
    let accepted = webhook.accepted_ids();
    let different: BTreeSet<_> = accepted.iter().collect();
    assert_eq!(different.len(), accepted.len());
}
