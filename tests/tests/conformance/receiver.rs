//! A receiver that behaves like Falco: it answers 200 first, and the bodies are judged afterwards.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use audit_bridge_testkit::ScriptedWebhook;
use audit_bridge_tests::attacks;
use audit_bridge_tests::judges::{Account, Judges};
use audit_bridge_tests::{BRIDGES, audit_id, event, run_with};

use crate::event_list;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_into_falco_arrives_completely() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let webhook = ScriptedWebhook::start().await;
    webhook.answer_like_falco();
    let url = webhook.url();
    let lines: String = (0..500).map(|n| event(n, 0) + "\n").collect();
    let ran = tokio::task::spawn_blocking(move || {
        run_with(
            "eks",
            &["replay", "-", "--webhook-url", &url],
            lines.as_bytes(),
        )
    });
    let ran = ran.await.unwrap();
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let account = Account::of(judges, &webhook.received());
    assert_eq!(account.complaints(), Vec::<String>::new());
    let mut ids = account.falco_ids;
    ids.sort();
    assert_eq!(ids, (0..500).map(audit_id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn falco_unreadable_event_is_lost_after_the_200() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let webhook = ScriptedWebhook::start().await;
    webhook.answer_like_falco();
    let good = event_list(&[event(1, 0)]);
    let bodies = [good.clone(), [&good, &good[..]].concat(), b"{".to_vec()];
    for body in &bodies {
        assert_eq!(post(&webhook, "application/json", body), 200);
    }
    assert_eq!(post(&webhook, "application/x-ndjson", &good), 400);
    let account = Account::of(judges, &webhook.received());
    assert_eq!(account.bodies, 3);
    let lost: Vec<usize> = account.lost_bodies.iter().map(|(body, _)| *body).collect();
    assert_eq!(lost, [1, 2], "{account:?}");
    assert_eq!(account.falco_ids, [audit_id(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_of_hostile_dumps_into_falco_loses_nothing() {
    let Some(judges) = Judges::start() else {
        return;
    };
    // Left out: wrong types may end in the dead letter, and borrowed texts of several attacks are
    // duplicates in one dump. Half of the rest suffices, as long events take time.
    let alone = ["type:", "borrowed:"];
    let attacks = attacks::all().into_iter();
    let attacks = attacks.filter(|attack| !alone.iter().any(|kind| attack.name.starts_with(kind)));
    let attacks: Vec<_> = attacks.step_by(2).collect();
    for provider in BRIDGES {
        let webhook = ScriptedWebhook::start().await;
        webhook.answer_like_falco();
        let url = webhook.url();
        let (mut dump, mut names, mut events) = (Vec::new(), Vec::new(), 0);
        for attack in &attacks {
            if attack.bridge != provider || attack.name.contains("plain event") {
                continue;
            }
            for record in &attack.records {
                dump.extend_from_slice(record);
                dump.push(b'\n');
            }
            names.push(&attack.name);
            events += attack.expected.len();
        }
        let ran = tokio::task::spawn_blocking(move || {
            run_with(provider, &["replay", "-", "--webhook-url", &url], &dump)
        });
        let ran = ran.await.unwrap();
        assert_eq!(ran.status, 0, "{provider}: {}", ran.stderr);
        let account = Account::of(judges, &webhook.received());
        let complaints = account.complaints();
        assert!(
            complaints.is_empty(),
            "{provider}: {complaints:#?} of {names:#?}"
        );
        assert_eq!(
            account.falco_ids.len(),
            events,
            "{provider}: {}",
            ran.stderr
        );
    }
}

/// `deploy/control-plane`: OpenShift's collector posts arrays, with fields of its own in each event.
#[test]
fn falco_reads_what_openshifts_collector_posts() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let collected = |n: usize| {
        let mut event: serde_json::Value = serde_json::from_str(&event(n, 0)).unwrap();
        event["@timestamp"] = "2026-11-21T10:00:00.000002Z".into();
        event["log_type"] = "audit".into();
        event["log_source"] = "kubeAPI".into();
        event["openshift"] = serde_json::json!({"cluster_id": "1", "sequence": n});
        event
    };
    let body = serde_json::json!([collected(1), collected(2)]).to_string();
    let verdict = judges.falco(body.as_bytes());
    assert_eq!((&verdict.refused, verdict.items.len()), (&None, 2));
    for (item, n) in verdict.items.iter().zip(1..) {
        assert_eq!(item.lost, None);
        assert_eq!(item.fields["ka.auditid"], audit_id(n));
    }
    // Its other format, a line per event, is not accepted.
    let lines = format!("{}\n{}\n", collected(1), collected(2));
    assert!(judges.falco(lines.as_bytes()).refused.is_some());
    // An older mapping has the time under another name.
    let mut untimed = collected(3);
    untimed.as_object_mut().unwrap().remove("stageTimestamp");
    let verdict = judges.falco(untimed.to_string().as_bytes());
    assert!(verdict.items[0].lost.is_some());
}

/// POSTs a body; returns the status.
fn post(webhook: &ScriptedWebhook, content_type: &str, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(webhook.address()).unwrap();
    write!(
        stream,
        "POST /k8s-audit HTTP/1.1\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    String::from_utf8_lossy(&head[9..]).parse().unwrap()
}
