//! TLS: trusted authorities, our certificate, and that an invalid certificate holds delivery.

use std::path::PathBuf;
use std::time::Duration;

use audit_bridge_core::sink::{Cause, Sink, Verdict};
use audit_bridge_core::webhook::{Webhook, WebhookError, WebhookSettings};
use audit_bridge_testkit::{Pki, ScriptedWebhook};
use tempfile::TempDir;

use super::event;

const NAMES: &[&str] = &["127.0.0.1", "localhost"];

/// Files for the settings, gone with the test.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn settings(url: &str) -> WebhookSettings {
    WebhookSettings {
        timeout: Duration::from_secs(5),
        ..WebhookSettings::new(url)
    }
}

async fn post(settings: &WebhookSettings) -> Verdict {
    Webhook::new(settings).unwrap().send(&[event(1)]).await
}

fn assert_holds_for_tls(verdict: Verdict) {
    let Verdict::Failed(failure) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(failure.cause, Cause::Tls);
    let remedy = failure.remedy.unwrap();
    assert!(remedy.contains("AUDIT_BRIDGE_WEBHOOK_CA_FILE"));
}

#[tokio::test]
async fn tls_private_authority_is_trusted_only_when_named() {
    let (pki, files) = (Pki::new(), Files::new());
    let receiver = ScriptedWebhook::start_tls(pki.acceptor(NAMES, None)).await;
    let mut settings = settings(&receiver.url());
    // Some other authority, so that the test does not depend on the system's.
    settings.ca_file = Some(files.write("other.pem", Pki::new().ca_pem()));
    assert_holds_for_tls(post(&settings).await);
    let bundle = format!("{}\n{}", Pki::new().ca_pem(), pki.ca_pem());
    settings.ca_file = Some(files.write("ca.pem", &bundle));
    assert_eq!(post(&settings).await, Verdict::Accepted { status: 200 });
    assert_eq!(receiver.accepted_ids(), ["1"]);
}

#[tokio::test]
async fn tls_certificate_for_another_name_is_held() {
    let (pki, files) = (Pki::new(), Files::new());
    let receiver = ScriptedWebhook::start_tls(pki.acceptor(&["example.com"], None)).await;
    let mut settings = settings(&receiver.url());
    settings.ca_file = Some(files.write("ca.pem", pki.ca_pem()));
    assert_holds_for_tls(post(&settings).await);
    assert_eq!(receiver.requests(), 0);
}

#[tokio::test]
async fn tls_to_a_plain_port_is_held() {
    let files = Files::new();
    let receiver = ScriptedWebhook::start().await;
    let mut settings = settings(&receiver.url().replace("http:", "https:"));
    settings.ca_file = Some(files.write("ca.pem", Pki::new().ca_pem()));
    // A plain server waits for a request that never comes, or its answer is no TLS.
    settings.timeout = Duration::from_millis(500);
    assert!(matches!(post(&settings).await, Verdict::Failed(_)));
    assert_eq!(receiver.accepted_ids().len(), 0);
}

#[tokio::test]
async fn tls_client_certificate_is_required_and_checked() {
    let (pki, clients, files) = (Pki::new(), Pki::new(), Files::new());
    let receiver = ScriptedWebhook::start_tls(pki.acceptor(NAMES, Some(&clients))).await;
    let mut settings = settings(&receiver.url());
    settings.ca_file = Some(files.write("ca.pem", pki.ca_pem()));
    assert_holds_for_tls(post(&settings).await);

    let stranger = Pki::new().pair(&["bridge"]);
    settings.client_cert_file = Some(files.write("stranger.pem", &stranger.cert_pem));
    settings.client_key_file = Some(files.write("stranger.key", &stranger.key_pem));
    assert_holds_for_tls(post(&settings).await);

    let pair = clients.pair(&["bridge"]);
    settings.client_cert_file = Some(files.write("client.pem", pair.cert_pem.trim_end()));
    settings.client_key_file = Some(files.write("client.key", &pair.key_pem));
    assert_eq!(post(&settings).await, Verdict::Accepted { status: 200 });
    assert_eq!(receiver.requests(), 1);
}

#[test]
fn tls_bad_file_is_named_with_its_expected_content() {
    let files = Files::new();
    let pair = Pki::new().pair(&["bridge"]);
    let cert = files.write("client.pem", &pair.cert_pem);
    let key = files.write("client.key", &pair.key_pem);
    let empty = files.write("empty.pem", "");
    let missing = files.0.path().join("missing.pem");
    let base = settings("https://localhost:1/");
    let ca = |path: &PathBuf| WebhookSettings {
        ca_file: Some(path.clone()),
        ..base.clone()
    };
    let client = |cert: Option<&PathBuf>, key: Option<&PathBuf>| WebhookSettings {
        client_cert_file: cert.cloned(),
        client_key_file: key.cloned(),
        ..ca(&files.write("ca.pem", Pki::new().ca_pem()))
    };
    for (settings, parts) in [
        (ca(&missing), ["--webhook-ca-file", "missing.pem"]),
        (ca(&empty), ["--webhook-ca-file", "empty.pem"]),
        (ca(&key), ["--webhook-ca-file", "holds no certificate"]),
        (
            client(Some(&cert), None),
            ["needs", "--webhook-client-key-file"],
        ),
        (
            client(None, Some(&key)),
            ["needs", "--webhook-client-cert-file"],
        ),
        (
            client(Some(&empty), Some(&key)),
            ["--webhook-client-cert-file", "empty.pem"],
        ),
        (
            client(Some(&cert), Some(&empty)),
            ["--webhook-client-key-file", "empty.pem"],
        ),
        (
            client(Some(&cert), Some(&cert)),
            ["--webhook-client-key-file", "client.pem"],
        ),
    ] {
        let error: WebhookError = Webhook::new(&settings).expect_err("unusable");
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains("PRIVATE KEY-----\n"), "{text}");
    }
}
