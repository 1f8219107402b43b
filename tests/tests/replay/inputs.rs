//! Inputs and outputs.

use super::*;

#[test]
fn readme_examples_print_event_lists() {
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
fn native_events_pass_every_bridge_byte_for_byte() {
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
fn files_packed_and_nested_are_read_in_order() {
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
fn report_counts_everything_once() {
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
            "truncated": 1, "shortened": {"provider_identity": 1}, "batches": 1
        })
    );
    assert!(
        ran.stderr.contains("dump.json: record 4: unparsable"),
        "{}",
        ran.stderr
    );
}

#[test]
fn dead_letter_is_replayable() {
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

    // Nothing is lost or doubled by a second dead letter.
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

    // A replay that read its own dead letter would never end.
    let ran = run("eks", &["replay", &dead, "--dead-letter", &dead]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("--dead-letter"), "{}", ran.stderr);
}

#[test]
fn files_read_in_parallel_give_the_same_events_and_report() {
    for provider in BRIDGES {
        let fixtures = root().join("bridges").join(provider).join("fixtures");
        let folder = tempfile::tempdir().unwrap();
        let (dead, json) = (folder.path().join("dead"), folder.path().join("report"));
        let replayed = |parallel: &str| {
            let _ = std::fs::remove_file(&dead);
            let mut args = vec!["replay", fixtures.to_str().unwrap(), "--format=events"];
            args.extend(["--dead-letter", dead.to_str().unwrap()]);
            args.extend(["--report", json.to_str().unwrap(), "--parallel", parallel]);
            let ran = run(provider, &args);
            let mut events: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
            events.sort();
            let mut report = report(json.to_str().unwrap());
            for name in ["elapsed_seconds", "batches", "bytes_out"] {
                report[name] = 0.into();
            }
            let kept = std::fs::read_to_string(&dead).unwrap();
            (ran.status, events, report, kept.lines().count())
        };
        let one = replayed("1");
        assert!(one.1.len() >= 20, "{provider}: {}", one.1.len());
        for _ in 0..3 {
            assert_eq!(replayed("4"), one, "{provider}");
        }
    }
}
