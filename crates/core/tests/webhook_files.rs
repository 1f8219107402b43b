//! Files of the webhook's settings that change while the bridge runs, and the trust that results.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests, with their helpers"
)]

use std::path::PathBuf;
use std::time::Duration;

use audit_bridge_core::sink::{Cause, Verdict};
use audit_bridge_core::webhook::{Webhook, WebhookSettings};
use audit_bridge_testkit::{Pki, ScriptedWebhook};
use tempfile::TempDir;

const NAMES: &[&str] = &["127.0.0.1", "localhost"];
const ACCEPTED: Verdict = Verdict::Accepted { status: 200 };

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn is_tls_hold(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Failed(failure) if failure.cause == Cause::Tls)
}

#[tokio::test]
async fn webhook_client_certificate_changed_is_used_without_restart() {
    let (pki, clients, folder) = (Pki::new(), Pki::new(), tempfile::tempdir().unwrap());
    let receiver = ScriptedWebhook::start_tls(pki.acceptor(NAMES, Some(&clients))).await;
    let stranger = Pki::new().pair(&["bridge"]);
    let pair = clients.pair(&["bridge"]);
    let settings = WebhookSettings {
        ca_file: Some(write(&folder, "ca.pem", pki.ca_pem())),
        client_cert_file: Some(write(&folder, "cert.pem", &stranger.cert_pem)),
        client_key_file: Some(write(&folder, "key.pem", &stranger.key_pem)),
        timeout: Duration::from_secs(5),
        ..WebhookSettings::new(receiver.url())
    };
    let webhook = Webhook::new(&settings).unwrap();
    let before = webhook.ask().await.verdict;
    assert!(is_tls_hold(&before), "{before:?}");
    // One file after the other, as in a rotation: half of it changes nothing.
    write(&folder, "cert.pem", &pair.cert_pem);
    let half = webhook.ask().await.verdict;
    assert!(is_tls_hold(&half), "{half:?}");
    write(&folder, "key.pem", &pair.key_pem);
    assert_eq!(webhook.ask().await.verdict, ACCEPTED);
    // If a file is broken or missing, the last valid one is used.
    for text in ["", "no pem"] {
        write(&folder, "key.pem", text);
        assert_eq!(webhook.ask().await.verdict, ACCEPTED);
    }
    std::fs::remove_file(folder.path().join("cert.pem")).unwrap();
    assert_eq!(webhook.ask().await.verdict, ACCEPTED);
}

#[tokio::test]
async fn webhook_authority_changed_is_trusted_without_restart() {
    let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
    let receiver = ScriptedWebhook::start_tls(pki.acceptor(NAMES, None)).await;
    for ca_only in [true, false] {
        let settings = WebhookSettings {
            ca_file: Some(write(&folder, "ca.pem", Pki::new().ca_pem())),
            ca_only,
            ..WebhookSettings::new(receiver.url())
        };
        let webhook = Webhook::new(&settings).unwrap();
        let before = webhook.ask().await.verdict;
        assert!(is_tls_hold(&before), "{before:?}");
        write(&folder, "ca.pem", pki.ca_pem());
        assert_eq!(webhook.ask().await.verdict, ACCEPTED);
    }
}

#[test]
fn webhook_ca_only_without_authority_is_refused() {
    let settings = WebhookSettings {
        ca_only: true,
        ..WebhookSettings::new("https://localhost:1/")
    };
    let error = Webhook::new(&settings).unwrap_err().to_string();
    assert!(error.contains("--webhook-ca-file"), "{error}");
}

#[test]
fn webhook_token_over_plain_http_is_warned_about() {
    for (url, warned) in [
        ("http://falco:9765/", true),
        ("http://10.0.0.1/", true),
        ("http://[2001:db8::1]/", true),
        ("http://localhost.example.com/", true),
        ("http://localhost:1/", false),
        ("http://127.0.0.2:1/", false),
        ("http://[::1]:1/", false),
        ("https://falco:9765/", false),
    ] {
        let mut settings = WebhookSettings::new(url);
        assert_eq!(settings.warning(), None, "{url}");
        settings.token_file = Some("token".into());
        assert_eq!(settings.warning().is_some(), warned, "{url}");
    }
}

/// Opening a pipe for reading waits for a writer.
#[tokio::test]
async fn webhook_file_replaced_by_a_pipe_holds_nobody_up() {
    let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
    let receiver = ScriptedWebhook::start_tls(pki.acceptor(NAMES, None)).await;
    let (ca, token) = (
        write(&folder, "ca.pem", pki.ca_pem()),
        write(&folder, "token", "secret"),
    );
    let settings = WebhookSettings {
        ca_file: Some(ca.clone()),
        token_file: Some(token.clone()),
        timeout: Duration::from_secs(5),
        ..WebhookSettings::new(receiver.url())
    };
    let webhook = Webhook::new(&settings).unwrap();
    let pipe = |path: &PathBuf| {
        std::fs::remove_file(path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    };
    pipe(&ca);
    assert_eq!(webhook.ask().await.verdict, ACCEPTED);
    pipe(&token);
    let verdict = webhook.ask().await.verdict;
    assert!(
        matches!(&verdict, Verdict::Failed(failure) if failure.cause == Cause::Token),
        "{verdict:?}"
    );
    std::fs::remove_file(&token).unwrap();
    write(&folder, "token", "secret");
    assert_eq!(webhook.ask().await.verdict, ACCEPTED);
}
