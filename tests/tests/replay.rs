//! `replay` of the real binaries: what a security engineer does with a saved dump.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use audit_bridge_testkit::webhook::{Answer, ScriptedWebhook};
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

#[test]
fn the_readme_examples_print_event_lists() {
    for (provider, example, want) in [
        ("eks", "filter-log-events.json", 2),
        ("gke", "examples", 20),
        ("aks", "event-hub.json", 2),
    ] {
        let folder = root()
            .join("bridges")
            .join(provider)
            .join("fixtures")
            .join(example);
        let ran = run(provider, &["replay", folder.to_str().unwrap()]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert!(ran.events().len() >= want, "{provider}: {}", ran.stdout);
        for event in ran.events() {
            assert_eq!(event["kind"], "Event");
            assert_eq!(event["apiVersion"], "audit.k8s.io/v1");
            assert!(event["auditID"].is_string());
        }
        assert!(
            ran.stderr.contains("records"),
            "a summary for people: {}",
            ran.stderr
        );
    }
}

#[test]
fn plain_events_pass_every_bridge_byte_for_byte() {
    for provider in BRIDGES {
        let ran = run_with(
            provider,
            &["replay", "-", "--format", "events"],
            lines(0..50).as_bytes(),
        );
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert_eq!(ran.stdout, lines(0..50), "{provider}");
    }
}

#[test]
fn packed_and_nested_files_are_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at, "1.jsonl", lines(0..3));
    write(
        at,
        "2.gz",
        [gzip(lines(3..5).as_bytes()), gzip(lines(5..7).as_bytes())].concat(),
    );
    write(
        at,
        "3.zst",
        zstd::encode_all(lines(7..9).as_bytes(), 1).unwrap(),
    );
    write(
        at,
        "4/a/5.json",
        format!(
            "{{\"kind\":\"EventList\",\"items\":[{},{}]}}",
            event(9, 500),
            event(10, 500)
        ),
    );
    write(at, "4/b.gz.gz", gzip(&gzip(lines(11..12).as_bytes())));
    write(at, ".hidden", "not read");
    let ran = run("eks", &["replay", at.to_str().unwrap()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(ids(&ran), all_ids(0..12));
}

#[test]
fn subscription_data_is_unpacked_wherever_aws_packs_it() {
    use base64::Engine as _;

    let folder = tempfile::tempdir().unwrap();
    let data = |range: std::ops::Range<usize>| {
        let events: Vec<_> = range
            .map(|n| serde_json::json!({"id": n.to_string(), "timestamp": 1, "message": event(n, 500)}))
            .collect();
        let message = serde_json::json!({
            "messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "/aws/eks/a/cluster",
            "logStream": "kube-apiserver-audit-a", "subscriptionFilters": ["f"], "logEvents": events
        });
        base64::engine::general_purpose::STANDARD.encode(gzip(message.to_string().as_bytes()))
    };
    for (name, json) in [
        (
            "kinesis",
            serde_json::json!({"Records": [{"SequenceNumber": "1", "Data": data(0..3)}, {"Data": data(3..4)}]}),
        ),
        (
            "lambda",
            serde_json::json!({"awslogs": {"data": data(0..4)}}),
        ),
        (
            "lambda-kinesis",
            serde_json::json!({"Records": [{"kinesis": {"data": data(0..4)}, "eventSource": "aws:kinesis"}]}),
        ),
        (
            "firehose",
            serde_json::json!({"records": [{"recordId": "a", "data": data(0..4)}]}),
        ),
    ] {
        let path = write(folder.path(), name, json.to_string());
        let ran = run("eks", &["replay", &path]);
        assert_eq!(ran.status, 0, "{name}: {}", ran.stderr);
        assert_eq!(ids(&ran), all_ids(0..4), "{name}");
    }
    let broken = write(folder.path(), "broken", r#"{"Records":[{"Data":"H4sI!"}]}"#);
    let ran = run("eks", &["replay", &broken]);
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("record 1: unparsable"),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_report_counts_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let cloudwatch = |stream: &str, message: &str| {
        serde_json::json!({"logStreamName": stream, "timestamp": 1, "message": message}).to_string()
    };
    let dump = [
        cloudwatch("kube-apiserver-audit-a", &event(1, 500)),
        cloudwatch("authenticator-a", "time=\"x\" level=info"),
        cloudwatch("kube-apiserver-audit-a", &event(2, 500)[..400]),
        cloudwatch("kube-apiserver-audit-a", "{\"kind\":\"Event\"}"),
    ];
    let dump = write(
        at,
        "dump.json",
        format!("{{\"events\":[{}]}}", dump.join(",")),
    );
    let json = at.join("report.json").to_str().unwrap().to_owned();
    let ran = run("eks", &["replay", &dump, "--report", &json]);
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    let mut report = report(&json);
    assert!(report["elapsed_seconds"].as_f64().is_some());
    let bytes = ran.stdout.trim_end().len();
    assert_eq!(report["bytes_out"], bytes);
    report
        .as_object_mut()
        .unwrap()
        .retain(|name, _| !matches!(name.as_str(), "elapsed_seconds" | "bytes_out"));
    assert_eq!(
        report,
        serde_json::json!({
            "records": 4, "events": 2, "skipped": {"other_stream": 1}, "rejected": {"unparsable": 1},
            "truncated": 1, "batches": 1
        })
    );
    assert!(
        ran.stderr.contains("dump.json: record 4: unparsable"),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_dead_letter_keeps_what_replay_reads_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let broken = [
        r#"{"logStreamName":"kube-apiserver-audit-a","timestamp":5,"message":"{\"kind\":\"Event\"}"}"#.to_owned(),
        "{\"kind\":\"Event\",\"auditID\":7".to_owned(),
    ];
    let text = format!("{}\n{}\n{}\n", event(1, 500), broken[0], broken[1]);
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"{\"auditID\":\"\xff\"}\n");
    let dump = write(at, "dump.jsonl", bytes);
    let dead = at.join("dead.jsonl").to_str().unwrap().to_owned();
    let ran = run("eks", &["replay", &dump, "--dead-letter", &dead]);
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert_eq!(ids(&ran), all_ids(1..2));
    let kept: Vec<serde_json::Value> = std::fs::read_to_string(&dead)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(kept.len(), 3);
    for (index, line) in kept.iter().enumerate() {
        assert_eq!(line["provider"], "eks");
        let reason = if index == 1 {
            "truncated"
        } else {
            "unparsable"
        };
        assert_eq!(line["reason"], reason);
        assert_eq!(
            line["source"],
            serde_json::json!({"file": dump, "record": index + 2})
        );
        assert!(!line["error"].as_str().unwrap().is_empty());
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(
        kept[0]["payload"],
        serde_json::from_str::<serde_json::Value>(&broken[0]).unwrap()
    );
    assert_eq!(kept[1]["payload"], broken[1]);
    assert_eq!(kept[2]["payload_base64"], "eyJhdWRpdElEIjoi/yJ9");

    // Nothing gets lost or doubled on the way through a second dead letter.
    let again = at.join("again.jsonl").to_str().unwrap().to_owned();
    let ran = run("eks", &["replay", &dead, "--dead-letter", &again]);
    assert_eq!((ran.status, ran.stdout.as_str()), (3, ""), "{}", ran.stderr);
    let twice: Vec<serde_json::Value> = std::fs::read_to_string(&again)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let payloads = |lines: &[serde_json::Value]| -> Vec<_> {
        lines
            .iter()
            .map(|line| (line["payload"].clone(), line["payload_base64"].clone()))
            .collect()
    };
    assert_eq!(payloads(&twice), payloads(&kept));

    // A dead letter among its own inputs would never end.
    let ran = run("eks", &["replay", &dead, "--dead-letter", &dead]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("--dead-letter"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_everything_through_its_bad_moments() {
    let folder = tempfile::tempdir().unwrap();
    let dump = write(folder.path(), "dump.jsonl", lines(0..2000));
    let webhook = ScriptedWebhook::start().await;
    webhook.script([
        Answer::status(503).header("retry-after", "0"),
        Answer::status(429),
        Answer::reset_before_reading(),
        Answer::reset_after_reading(),
        Answer::status(401),
        Answer::half(),
    ]);
    webhook.poison(&audit_id(777), 400);
    webhook.refuse_bodies_above(300 << 10);
    let dead = folder.path().join("dead.jsonl");
    let (url, dead_letter) = (webhook.url(), dead.to_str().unwrap().to_owned());
    let ran = tokio::task::spawn_blocking(move || {
        run(
            "aks",
            &[
                "replay",
                &dump,
                "--webhook-url",
                &url,
                "--dead-letter",
                &dead_letter,
            ],
        )
    })
    .await
    .unwrap();
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    let accepted: BTreeSet<_> = webhook.accepted_ids().into_iter().collect();
    let want: BTreeSet<_> = all_ids(0..2000)
        .into_iter()
        .filter(|id| *id != audit_id(777))
        .collect();
    assert_eq!(accepted, want);
    let kept = std::fs::read_to_string(dead).unwrap();
    assert_eq!(kept.lines().count(), 1);
    assert!(
        kept.contains("\"reason\":\"refused\"") && kept.contains(&audit_id(777)),
        "{kept}"
    );
    for request in webhook.received() {
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_state_folder_the_same_command_goes_on_also_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let dump = write(folder.path(), "dump.jsonl", lines(0..1000));
    let state = folder.path().join("state").display().to_string();
    let webhook = ScriptedWebhook::start().await;
    // The second of ten batches is never answered.
    webhook.script([Answer::status(200), Answer::never()]);
    let url = webhook.url();
    let mut args = vec![
        "replay",
        &dump,
        "--webhook-url",
        &url,
        "--state-dir",
        &state,
    ];
    args.extend(["--in-flight-batches-max=1", "--batch-events-max=100"]);
    let mut child = command("eks", &args).spawn().unwrap();
    let checkpoint = folder.path().join("state/checkpoint.json");
    let written = audit_bridge_tests::live::wait(|| {
        let text = std::fs::read_to_string(&checkpoint).ok()?;
        (webhook.requests() >= 2 && text.contains("\"0\":100")).then_some(text)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        written.unwrap().contains("replay of"),
        "a checkpoint as any other"
    );
    let ran = run("eks", &args);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("going on behind"), "{}", ran.stderr);
    let accepted = webhook.accepted_ids();
    let mut all = accepted.clone();
    all.sort();
    all.dedup();
    assert_eq!(all, all_ids(0..1000));
    assert_eq!(
        accepted.len(),
        1100,
        "only the batch without an answer came twice"
    );
    let ran = run("eks", &args);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(webhook.accepted_ids().len(), 1100, "all of it is settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_says_how_to_resume_and_resuming_sends_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let dump = write(folder.path(), "dump.jsonl", lines(0..1000));
    let webhook = ScriptedWebhook::start().await;
    webhook.script([Answer::status(200)]);
    webhook.otherwise(Answer::status(503));
    let replay = |more: Vec<String>| {
        let (url, dump) = (webhook.url(), dump.clone());
        tokio::task::spawn_blocking(move || {
            let mut args = vec![
                "replay",
                &dump,
                "--webhook-url",
                &url,
                "--give-up-after",
                "1s",
            ];
            args.extend(["--in-flight-batches-max", "1"]);
            args.extend(more.iter().map(String::as_str));
            run("eks", &args)
        })
    };
    let ran = replay(Vec::new()).await.unwrap();
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let (_, settled) = ran
        .stderr
        .rsplit_once("--skip-records ")
        .expect("how to resume");
    let settled: usize = settled.trim().parse().unwrap();
    let before = webhook.accepted_ids();
    assert_eq!(
        before,
        all_ids(0..settled),
        "exactly what was accepted is skipped"
    );
    webhook.accept();
    let ran = replay(vec!["--skip-records".to_owned(), settled.to_string()])
        .await
        .unwrap();
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(
        webhook.accepted_ids(),
        all_ids(0..1000),
        "in order, each once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_delivers_what_is_in_flight_and_says_how_to_resume() {
    let folder = tempfile::tempdir().unwrap();
    let dump = write(folder.path(), "dump.jsonl", lines(0..5000));
    let webhook = ScriptedWebhook::start().await;
    webhook.otherwise(Answer::status(200).after(Duration::from_millis(150)));
    let url = webhook.url();
    let child = command(
        "eks",
        &[
            "replay",
            &dump,
            "--webhook-url",
            &url,
            "--batch-events-max",
            "50",
        ],
    )
    .stderr(std::process::Stdio::piped())
    .spawn()
    .unwrap();
    while webhook.requests() < 6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let id = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let output = tokio::task::spawn_blocking(move || child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let (_, settled) = stderr
        .rsplit_once("--skip-records ")
        .expect("how to resume");
    let settled: usize = settled.trim().parse().unwrap();
    let accepted: BTreeSet<_> = webhook.accepted_ids().into_iter().collect();
    assert!(settled < 5000, "it stopped");
    assert_eq!(
        accepted,
        all_ids(0..settled).into_iter().collect(),
        "no more, no less than it says"
    );
}

#[test]
fn every_wrong_setting_is_reported_at_once() {
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

#[test]
fn settings_come_from_the_environment_too() {
    let ran = command("aks", &["replay", "-"])
        .env("AUDIT_BRIDGE_FORMAT", "events")
        .env("AUDIT_BRIDGE_ANNOTATE", "cluster=blue,team=a,b")
        .env("AUDIT_BRIDGE_WEBHOOK_URL", "")
        .stdin(std::process::Stdio::from(
            std::fs::File::open({
                let folder =
                    std::env::temp_dir().join(format!("audit-bridge-env-{}", std::process::id()));
                write(&folder, "in.jsonl", lines(0..1))
            })
            .unwrap(),
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
fn version_is_told() {
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

#[test]
fn bad_input_is_named_and_costs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let good = event(1, 600);
    let half_gzip = gzip(lines(0..2000).as_bytes());
    let nested = good.replace(
        "\"requestObject\":{",
        &format!(
            "\"requestObject\":{{\"deep\":{}{},",
            "[".repeat(200),
            "]".repeat(200)
        ),
    );
    let hollow = good.replace(
        "\"requestObject\":{",
        &format!("\"requestObject\":{{\"deep\":{}", "[".repeat(100_000)),
    );
    // (name, content, exit, events that still come, what standard error says)
    let unknown = "no shape that this bridge knows";
    type Case = (&'static str, Vec<u8>, i32, Option<usize>, &'static str);
    let cases: Vec<Case> = vec![
        ("empty", vec![], 0, Some(0), "holds no records"),
        ("blank", b" \n\n".to_vec(), 0, Some(0), "holds no records"),
        (
            "binary",
            (0u8..=255).cycle().take(100_000).collect(),
            1,
            Some(0),
            unknown,
        ),
        (
            "png",
            b"\x89PNG\r\n\x1a\n\0\0\0".to_vec(),
            1,
            Some(0),
            "89 50 4e 47",
        ),
        (
            "foreign.json",
            br#"{"users":[{"name":"x"}]}"#.to_vec(),
            1,
            Some(0),
            "\"users\"",
        ),
        (
            "number-kind.json",
            br#"{"kind":0}"#.to_vec(),
            1,
            Some(0),
            unknown,
        ),
        ("text", b"dear diary".to_vec(), 1, Some(0), "dear diary"),
        (
            "half.gz",
            half_gzip[..half_gzip.len() / 2].to_vec(),
            1,
            None,
            "cut",
        ),
        (
            "not.gz",
            [&[0x1f, 0x8b][..], &[7; 50]].concat(),
            1,
            Some(0),
            "damaged",
        ),
        (
            "deep.jsonl",
            format!("{nested}\n{good}\n").into_bytes(),
            0,
            Some(2),
            "records",
        ),
        (
            "bottomless.jsonl",
            format!("{hollow}\n{good}\n").into_bytes(),
            3,
            None,
            "record 1",
        ),
        (
            "garbage-between.jsonl",
            format!("{good}\n\u{1}\u{2}garbage\n{good}\n").into_bytes(),
            3,
            Some(2),
            "record 2: unparsable",
        ),
        (
            "invalid-utf8.jsonl",
            [
                good.as_bytes(),
                b"\n{\"auditID\":\"\xff\xfe\"}\n",
                good.as_bytes(),
            ]
            .concat(),
            3,
            Some(2),
            "utf-8",
        ),
        (
            "surrogate.jsonl",
            good.replace("c1", "\\ud800").into_bytes(),
            0,
            Some(1),
            "records",
        ),
        (
            "twice.jsonl",
            good.replacen("\"verb\"", "\"verb\":\"x\",\"verb\"", 1)
                .into_bytes(),
            0,
            Some(1),
            "records",
        ),
        (
            "huge-number.jsonl",
            good.replace("201", "90071992547409931234567890")
                .into_bytes(),
            0,
            Some(1),
            "records",
        ),
        (
            "no-time.jsonl",
            format!(
                "{}\n{good}",
                good.replace("2026-11-21T10:00:00.000002Z", "NaN")
                    .replace("2026-11-21T10:00:00.000001Z", "-Inf")
            )
            .into_bytes(),
            3,
            Some(1),
            "record 1: unparsable",
        ),
        (
            "cut-array.json",
            format!("[{good},{good}").into_bytes(),
            1,
            Some(2),
            "inside an array",
        ),
        (
            "list-of-numbers.json",
            b"[1,2,3]".to_vec(),
            1,
            Some(0),
            unknown,
        ),
    ];
    for provider in BRIDGES {
        for (name, content, status, want, says) in &cases {
            let path = write(at, name, content);
            let ran = run(provider, &["replay", &path]);
            let context = format!("{provider} {name}: {}", ran.stderr);
            assert_eq!(ran.status, *status, "{context}");
            if let Some(want) = want {
                assert_eq!(count(&ran), *want, "{context}");
            } else {
                assert!(count(&ran) > 0, "{context}");
            }
            assert!(ran.stderr.contains(says), "{context}");
            assert!(!ran.stderr.contains("panicked"), "{context}");
            // A good file beside it still goes through.
            let neighbour = write(at, "neighbour/good.jsonl", &good);
            let both = run(provider, &["replay", &path, &neighbour]);
            assert_eq!(count(&both), count(&ran) + 1, "{context}");
            assert_eq!(both.status, *status, "{context}");
        }
        let missing = at.join("missing.json").to_str().unwrap().to_owned();
        let ran = run(provider, &["replay", &missing]);
        assert_eq!(ran.status, 1);
        assert!(ran.stderr.contains("missing.json"), "{}", ran.stderr);
        std::fs::create_dir_all(at.join("nothing")).unwrap();
        let ran = run(provider, &["replay", at.join("nothing").to_str().unwrap()]);
        assert_eq!(ran.status, 0);
        assert!(ran.stderr.contains("holds no files"), "{}", ran.stderr);
    }
}

/// How many events came out; they may nest deeper than serde_json reads.
fn count(ran: &Ran) -> usize {
    ran.stdout.matches("\"auditID\":").count()
}

/// Runs a replay and returns the largest resident memory that was seen, in MiB.
fn peak_mib(provider: &str, args: &[&str]) -> (i32, u64) {
    let mut child = command(provider, args)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status_file = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code().unwrap_or(-1), peak);
        }
        let status = std::fs::read_to_string(&status_file).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) / 1024);
        assert!(started.elapsed() < Duration::from_secs(300), "it hangs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_dump() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").to_str().unwrap().to_owned();
    // One array on one line, and one line that is a single value: far larger than the goal.
    let path = folder.path().join("array.json");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    file.write_all(b"[").unwrap();
    for n in 0..80_000 {
        file.write_all(event(n, 1600).as_bytes()).unwrap();
        file.write_all(if n < 79_999 { b"," } else { b"]" })
            .unwrap();
    }
    drop(file);
    let (status, peak) = peak_mib(
        "eks",
        &["replay", path.to_str().unwrap(), "--output", "/dev/null"],
    );
    assert_eq!(status, 0);
    assert!(peak <= 64, "{peak} MiB for an array of 128 MB");
    let path = folder.path().join("line.json");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let (head, tail) = {
        let event = event(1, 700);
        let (head, tail) = event.split_once("value").unwrap();
        (head.to_owned(), tail.to_owned())
    };
    file.write_all(head.as_bytes()).unwrap();
    for _ in 0..300 {
        file.write_all(&[b'x'; 1 << 20]).unwrap();
    }
    file.write_all(tail.as_bytes()).unwrap();
    file.write_all(b"\n").unwrap();
    file.write_all(event(2, 700).as_bytes()).unwrap();
    drop(file);
    let (status, peak) = peak_mib("eks", &["replay", path.to_str().unwrap(), "--output", &out]);
    assert!(peak <= 64, "{peak} MiB for a line of 300 MB");
    assert!(matches!(status, 0 | 3), "{status}");
    let came = events(&std::fs::read_to_string(out).unwrap());
    assert_eq!(
        came.last().unwrap()["auditID"],
        audit_id(2).as_str(),
        "its neighbour goes through"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn memory_is_bounded_while_the_webhook_refuses_everything() {
    let folder = tempfile::tempdir().unwrap();
    let dump: String = (0..40_000)
        .map(|n| {
            let stream = "kube-apiserver-audit-0";
            let message = event(n, 1600);
            serde_json::json!({"logStreamName": stream, "message": message}).to_string() + "\n"
        })
        .collect();
    let dump = write(folder.path(), "dump.jsonl", dump);
    let webhook = ScriptedWebhook::start().await;
    // Each event is tried alone and waits: nothing else holds as many at once.
    webhook.otherwise(Answer::status(400));
    let url = webhook.url();
    let (status, peak) = tokio::task::spawn_blocking(move || {
        let args = ["replay", &dump, "--webhook-url", &url];
        peak_mib("eks", &[&args[..], &["--give-up-after", "5s"]].concat())
    })
    .await
    .unwrap();
    assert_eq!(status, 1);
    assert!(peak <= 64, "{peak} MiB");
}
