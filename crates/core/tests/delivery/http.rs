//! The webhook over real connections: every row of the status table, and the failures of one
//! exchange.

use std::fs;
use std::time::{Duration, Instant};

use audit_bridge_core::sink::{Cause, RequestFailure, Sink, Verdict};
use audit_bridge_core::webhook::{Webhook, WebhookSettings, parse_url};
use audit_bridge_testkit::{ScriptedWebhook, WebhookAnswer};

use super::{batch, deliver_all, delivery, event};

fn settings(url: &str) -> WebhookSettings {
    WebhookSettings {
        timeout: Duration::from_secs(5),
        ..WebhookSettings::new(url)
    }
}

fn webhook(receiver: &ScriptedWebhook) -> Webhook {
    Webhook::new(&settings(&receiver.url())).unwrap()
}

fn failure(verdict: Verdict) -> RequestFailure {
    match verdict {
        Verdict::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn webhook_each_status_has_its_verdict() {
    let receiver = ScriptedWebhook::start().await;
    let webhook = webhook(&receiver);
    for (statuses, bad_body, needs_a_person) in [
        (vec![400, 413, 422], true, true),
        (
            vec![401, 403, 404, 405, 301, 302, 303, 304, 307, 308],
            false,
            true,
        ),
        (
            vec![
                408, 425, 429, 500, 502, 503, 504, 599, 402, 406, 409, 418, 451,
            ],
            false,
            false,
        ),
    ] {
        for status in statuses {
            receiver.script([WebhookAnswer::status(status).body("be\tcause")]);
            let failure = failure(webhook.send(&[event(1)]).await);
            assert_eq!(failure.cause, Cause::Status(status));
            assert_eq!(failure.cause.blames_body(), bad_body, "{status}");
            assert_eq!(failure.remedy.is_some(), needs_a_person, "{status}");
            if let Some(remedy) = failure.remedy {
                assert!(remedy.contains("AUDIT_BRIDGE_WEBHOOK_"));
            }
            if status != 304 {
                assert!(failure.detail.contains("be cause"), "{}", failure.detail);
            }
        }
    }
    for status in [200, 201, 202, 204] {
        receiver.script([WebhookAnswer::status(status)]);
        let verdict = webhook.send(&[event(1)]).await;
        assert_eq!(verdict, Verdict::Accepted { status });
    }
    assert_eq!(
        receiver.connections(),
        1,
        "answers are read, the connection is kept"
    );
}

#[tokio::test]
async fn webhook_request_is_an_event_list() {
    let receiver = ScriptedWebhook::start().await;
    let mut settings = settings(&format!("{}?a=b", receiver.url()));
    settings.user_agent = "eks-audit-bridge/9".to_owned();
    let webhook = Webhook::new(&settings).unwrap();
    assert_eq!(
        webhook.send(&[event(1), event(2)]).await,
        Verdict::Accepted { status: 200 }
    );
    let request = &receiver.received()[0];
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/k8s-audit?a=b")
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("user-agent"), Some("eks-audit-bridge/9"));
    assert_eq!(request.header("content-encoding"), None);
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.ids, ["1", "2"]);
    let list: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(list["kind"], "EventList");
    assert_eq!(list["apiVersion"], "audit.k8s.io/v1");
}

#[tokio::test]
async fn webhook_poison_is_isolated_and_large_body_split() {
    let receiver = ScriptedWebhook::start().await;
    for id in ["3", "17", "18"] {
        receiver.poison(id, 400);
    }
    receiver.refuse_bodies_above(1500);
    let mut delivery = delivery(webhook(&receiver), 4);
    let ends = deliver_all(&mut delivery, [batch(0..30), batch(30..60)])
        .await
        .sorted();
    assert_eq!(ends.refused, [3, 17, 18]);
    assert_eq!(ends.delivered.len(), 57);
    let mut ids: Vec<u64> = receiver
        .accepted_ids()
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ends.delivered, "each exactly once");
    assert!(receiver.at_once_max() <= 4);
}

#[tokio::test]
async fn webhook_reset_half_answer_and_silence_are_retried() {
    let receiver = ScriptedWebhook::start().await;
    receiver.script([
        WebhookAnswer::reset_before_reading(),
        WebhookAnswer::reset_after_reading(),
        WebhookAnswer::half(),
        WebhookAnswer::never(),
        WebhookAnswer::status(200).after(Duration::from_secs(2)),
    ]);
    let mut settings = settings(&receiver.url());
    settings.timeout = Duration::from_millis(300);
    let webhook = Webhook::new(&settings).unwrap();
    let mut causes = Vec::new();
    loop {
        match webhook.send(&[event(7)]).await {
            Verdict::Failed(RequestFailure { cause, detail, .. }) => {
                assert!(!detail.contains("http://"), "{detail}");
                causes.push(cause);
            }
            verdict => break assert_eq!(verdict, Verdict::Accepted { status: 200 }),
        }
    }
    let (broken, late) = causes.split_at(3);
    assert_eq!(late, [Cause::Timeout, Cause::Timeout]);
    assert!(
        broken.iter().all(|cause| *cause == Cause::Other),
        "{broken:?}"
    );
    // Duplicates are allowed, losses are not.
    assert!(receiver.accepted_ids().len() > 1);
}

#[tokio::test]
async fn webhook_accepted_with_broken_body_stays_accepted() {
    let receiver = ScriptedWebhook::start().await;
    receiver.script([WebhookAnswer::half_body(200), WebhookAnswer::half_body(400)]);
    let webhook = webhook(&receiver);
    assert_eq!(
        webhook.send(&[event(1)]).await,
        Verdict::Accepted { status: 200 }
    );
    let failure = failure(webhook.send(&[event(1)]).await);
    assert_eq!(failure.cause, Cause::Status(400));
    assert!(failure.detail.contains("half"), "{}", failure.detail);
}

#[tokio::test]
async fn webhook_early_413_is_seen_while_body_is_sent() {
    let receiver = ScriptedWebhook::start().await;
    receiver.script([WebhookAnswer::early(413)]);
    let events: Vec<_> = (0..20_000).map(event).collect();
    let failure = failure(webhook(&receiver).send(&events).await);
    assert_eq!(failure.cause, Cause::Status(413));
}

#[tokio::test]
async fn webhook_port_without_listener_is_retried() {
    let address = ScriptedWebhook::start().await.address();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let webhook = Webhook::new(&settings(&format!("http://{address}/"))).unwrap();
    let failure = failure(webhook.send(&[event(1)]).await);
    assert_eq!(failure.cause, Cause::Connect);
    assert!(!failure.cause.reached_receiver());
}

#[tokio::test]
async fn webhook_unresolved_name_is_retried() {
    let webhook = Webhook::new(&settings("http://no-such-host.invalid/")).unwrap();
    let failure = failure(webhook.send(&[event(1)]).await);
    assert_eq!(failure.cause, Cause::Dns);
    assert!(failure.remedy.unwrap().contains("--webhook-url"));
}

#[tokio::test]
async fn webhook_redirect_is_not_followed() {
    let (receiver, other) = (
        ScriptedWebhook::start().await,
        ScriptedWebhook::start().await,
    );
    for status in [301, 302, 303, 307, 308] {
        receiver.script([WebhookAnswer::redirect(status, &other.url())]);
        let failure = failure(webhook(&receiver).send(&[event(1)]).await);
        assert_eq!(failure.cause, Cause::Status(status));
    }
    assert_eq!(other.requests(), 0);
}

#[tokio::test]
async fn webhook_retry_after_is_honoured() {
    let receiver = ScriptedWebhook::start().await;
    receiver.script([WebhookAnswer::status(429).header("Retry-After", "1")]);
    let mut delivery = delivery(webhook(&receiver), 1);
    let start = Instant::now();
    let ends = deliver_all(&mut delivery, [batch([0])]).await;
    assert_eq!(ends.delivered, [0]);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn webhook_token_file_is_reread_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let receiver = ScriptedWebhook::start().await;
    let mut settings = settings(&receiver.url());
    settings.token_file = Some(path.clone());
    let webhook = Webhook::new(&settings).unwrap();

    let held = async |what: &str| {
        let failure = failure(webhook.send(&[event(1)]).await);
        assert_eq!(failure.cause, Cause::Token);
        let detail = failure.detail;
        assert!(
            detail.contains(what) && detail.contains("token"),
            "{detail}"
        );
        assert!(!detail.contains("s3cret"));
        let remedy = failure.remedy.unwrap();
        assert!(remedy.contains("AUDIT_BRIDGE_WEBHOOK_TOKEN_FILE"));
    };
    held("cannot be read").await;
    for (text, what) in [
        ("", "empty"),
        (" \n", "empty"),
        ("s3cret two\n", "more than one"),
    ] {
        fs::write(&path, text).unwrap();
        held(what).await;
    }
    assert_eq!(receiver.requests(), 0);
    for token in ["s3cret1", "s3cret2"] {
        fs::write(&path, format!(" {token}\n")).unwrap();
        receiver.script([WebhookAnswer::status(401).body("who?")]);
        let failure = failure(webhook.send(&[event(1)]).await);
        assert!(!failure.detail.contains("s3cret"), "{}", failure.detail);
        let sent = receiver.received().pop().unwrap();
        assert_eq!(
            sent.header("authorization"),
            Some(format!("Bearer {token}").as_str())
        );
    }
    assert!(!format!("{webhook:?}").contains("s3cret"));
}

#[test]
fn webhook_unusable_url_is_refused_with_advice() {
    for (url, advice) in [
        ("https://user:pa55@host/x", "--webhook-token-file"),
        ("https://t0ken@host/x", "--webhook-token-file"),
        ("ftp://host/", "http or https"),
        ("host:8080/x", "http or https"),
        ("/k8s-audit", "give it whole"),
        ("http://", "give it whole"),
        ("http://host/x#part", "fragment"),
    ] {
        let error = parse_url(url).unwrap_err();
        assert!(error.to_string().contains(advice), "{url}: {error}");
        assert!(!error.to_string().contains("pa55") && !error.to_string().contains("t0ken"));
        let error = Webhook::new(&WebhookSettings::new(url))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("--webhook-url: ") && !error.contains("pa55"),
            "{error}"
        );
    }
    for url in ["http://falco:9765/k8s-audit", " https://[::1]:1/?q=1\n"] {
        parse_url(url).unwrap();
    }
}

#[test]
fn webhook_settings_debug_hides_the_query() {
    let settings = WebhookSettings::new("https://host:1/p?key=s3cret");
    let shown = format!("{settings:?}");
    assert!(shown.contains("https://host:1") && !shown.contains("s3cret"));
    let webhook = Webhook::new(&WebhookSettings::new("http://host:1/p?key=s3cret")).unwrap();
    assert_eq!(webhook.address(), "http://host:1");
}

/// A listener whose queue is full: the system drops what would be a connection.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn webhook_without_a_connection_in_time_blames_no_event() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let connect = || tokio::net::TcpStream::connect(address);
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), connect()).await {
        waiting.push(stream.unwrap());
        assert!(waiting.len() < 20, "the queue has no end");
    }
    let mut settings = settings(&format!("http://{address}/"));
    settings.timeout = Duration::from_millis(800);
    let webhook = Webhook::new(&settings).unwrap();
    let failure = failure(webhook.send(&[event(1)]).await);
    assert_eq!(failure.cause, Cause::Connect, "{}", failure.detail);
    assert!(!failure.cause.reached_receiver());
    assert_eq!(failure.detail, "no connection within 0.72s");
}
