//! Identities whose tokens come from a stand-in of Microsoft Entra on loopback, over TLS like
//! Azure's, and their renewal.

use std::time::Duration;

use audit_bridge_testkit::tls::{Pair, rsa_pair};
use audit_bridge_testkit::{Pki, WebhookAnswer};

use super::*;

/// A namespace, an authority that issues tokens, and a receiver.
struct Entra {
    hubs: EventHubs,
    authority: ScriptedWebhook,
    webhook: ScriptedWebhook,
    folder: tempfile::TempDir,
}

fn token(name: &str, seconds: u64) -> WebhookAnswer {
    let body = json!({"token_type": "Bearer", "expires_in": seconds, "access_token": name});
    WebhookAnswer::status(200)
        .header("content-type", "application/json")
        .body(body.to_string())
}

impl Entra {
    async fn new() -> Entra {
        let pki = Pki::new();
        let acceptor = || pki.acceptor(&["localhost", "127.0.0.1"], None);
        let entra = Entra {
            hubs: EventHubs::start_tls(acceptor()).await,
            authority: ScriptedWebhook::start_tls(acceptor()).await,
            webhook: ScriptedWebhook::start().await,
            folder: tempfile::tempdir().unwrap(),
        };
        entra.hubs.add_hub(HUB, 2);
        std::fs::write(entra.path("ca.pem"), pki.ca_pem()).unwrap();
        std::fs::write(entra.path("token"), "the-pod's-token").unwrap();
        entra
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, variables: &[(&str, &str)]) -> Running {
        let url = self.webhook.url();
        let state = self.path("state").display().to_string();
        let endpoint = format!("amqps://localhost:{}", self.hubs.port());
        let ca = self.path("ca.pem").display().to_string();
        let host = format!("https://localhost:{}/", self.authority.address().port());
        let args = [
            "--webhook-url",
            &url,
            "--state-dir",
            &state,
            "--event-hub-namespace",
            "audit.servicebus.windows.net",
            "--event-hub-endpoint",
            &endpoint,
            "--start",
            "earliest",
        ];
        let mut all = vec![
            ("SSL_CERT_FILE", ca.as_str()),
            ("AZURE_AUTHORITY_HOST", host.as_str()),
            ("AZURE_TENANT_ID", "11111111-1111-1111-1111-111111111111"),
            ("AZURE_CLIENT_ID", "22222222-2222-2222-2222-222222222222"),
        ];
        all.extend(variables);
        Running::start("aks", &args, &all)
    }

    fn publish(&self, events: std::ops::Range<usize>) {
        for n in events {
            self.hubs.publish(HUB, n % 2, message(&[record(n)]));
        }
    }

    fn until_accepted(&self, bridge: &Running, events: usize) {
        let done = wait(|| (self.webhook.accepted_ids().len() >= events).then_some(()));
        assert!(done.is_some(), "{}", bridge.log());
    }

    fn requests(&self) -> Vec<String> {
        let received = self.authority.received();
        let bodies = received.iter().map(|request| {
            let body = String::from_utf8_lossy(&request.body);
            format!("{} {body}", request.target)
        });
        bodies.collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workload_identity_exchanges_pod_token_and_renews_it() {
    let entra = Entra::new().await;
    // The library replaces a token when less than five minutes of its lifetime are left, which is
    // soon for this one. Its links have ended by then.
    entra.authority.script([token("first", 303)]);
    entra.authority.set_answer(token("second", 3600));
    entra.hubs.token_lifetime(Duration::from_secs(8));
    entra.publish(0..10);
    let file = entra.path("token").display().to_string();
    let mut bridge = entra.start(&[("AZURE_FEDERATED_TOKEN_FILE", &file)]);
    entra.until_accepted(&bridge, 10);
    bridge.until_ready();
    let asked = entra.requests();
    let (target, body) = asked[0].split_once(' ').unwrap();
    assert_eq!(
        target,
        "/11111111-1111-1111-1111-111111111111/oauth2/v2.0/token"
    );
    assert!(
        body.contains("client_assertion=the-pod%27s-token"),
        "{body}"
    );
    assert!(
        body.contains("scope=https%3A%2F%2Feventhubs.azure.net%2F.default"),
        "{body}"
    );
    let put = entra.hubs.tokens();
    assert!(
        put.iter()
            .all(|put| put.kind == "jwt" && put.token == "first")
    );

    // The links continue with the new token.
    let renewed = wait(|| {
        let put = entra.hubs.tokens();
        let again = put.iter().filter(|put| put.token == "second").count();
        (again >= 2).then_some(())
    });
    assert!(renewed.is_some(), "{}", bridge.log());
    entra.publish(10..20);
    entra.until_accepted(&bridge, 20);
    bridge.until_ready();
    let log = bridge.log();
    for secret in ["the-pod", "\"first\"", "\"second\"", "client_assertion"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identity_refused_is_reported_and_recovers() {
    let entra = Entra::new().await;
    let refusal = json!({
        "error": "invalid_client",
        "error_description": "AADSTS700213: No matching federated identity record found for \
                              presented assertion subject. Trace ID: 7 Correlation ID: 8",
        "error_codes": [700_213],
    });
    entra.authority.set_answer(
        WebhookAnswer::status(401)
            .header("content-type", "application/json")
            .body(refusal.to_string()),
    );
    entra.publish(0..4);
    let file = entra.path("token").display().to_string();
    let mut bridge = entra.start(&[("AZURE_FEDERATED_TOKEN_FILE", &file)]);
    let why = bridge.until_not_ready("identity", "AADSTS700213");
    assert!(
        why.contains("system:serviceaccount:NAMESPACE:NAME"),
        "{why}"
    );
    assert!(!why.contains("Trace ID"), "{why}");
    entra.authority.set_answer(token("good", 3600));
    entra.until_accepted(&bridge, 4);
    bridge.until_ready();
}

/// Tokens of Azure may live for a day, and an identity that was made again needs another one at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_refused_long_before_it_expires_is_replaced() {
    let entra = Entra::new().await;
    entra.authority.script([token("first", 86_400)]);
    entra.authority.set_answer(token("second", 86_400));
    entra.publish(0..10);
    let file = entra.path("token").display().to_string();
    let mut bridge = entra.start(&[("AZURE_FEDERATED_TOKEN_FILE", &file)]);
    entra.until_accepted(&bridge, 10);
    bridge.until_ready();
    entra.hubs.refuse_token("first");
    entra.hubs.expire_tokens();
    entra.publish(10..20);
    entra.until_accepted(&bridge, 20);
    bridge.until_ready();
    assert_eq!(entra.requests().len(), 2, "and no more are asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authority_that_cannot_be_reached_is_named() {
    let entra = Entra::new().await;
    let file = entra.path("token").display().to_string();
    let mut bridge = entra.start(&[
        ("AZURE_FEDERATED_TOKEN_FILE", &file),
        ("AZURE_AUTHORITY_HOST", "https://localhost:9/"),
    ]);
    let why = bridge.until_not_ready("identity", "no token from https://localhost:9/");
    assert!(
        why.contains("lets requests out to https://localhost:9/"),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_secret_is_shown_to_the_authority_only() {
    let entra = Entra::new().await;
    entra.authority.set_answer(token("by-secret", 3600));
    entra.publish(0..4);
    let mut bridge = entra.start(&[("AZURE_CLIENT_SECRET", "hunter2")]);
    entra.until_accepted(&bridge, 4);
    bridge.until_ready();
    assert!(entra.requests()[0].contains("client_secret=hunter2"));
    assert!(
        entra
            .hubs
            .tokens()
            .iter()
            .all(|put| put.token == "by-secret")
    );
    assert!(!bridge.log().contains("hunter2"), "{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managed_identity_asks_the_platform() {
    let entra = Entra::new().await;
    // The library's other ways to get a managed identity all use fixed addresses.
    let platform = ScriptedWebhook::start().await;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let expires = now.as_secs() + 3600;
    let body = json!({
        "access_token": "by-platform",
        "expires_on": expires.to_string(),
        "resource": "https://eventhubs.azure.net",
        "token_type": "Bearer",
    });
    platform.set_answer(
        WebhookAnswer::status(200)
            .header("content-type", "application/json")
            .body(body.to_string()),
    );
    entra.publish(0..4);
    let url = platform.url();
    let mut bridge = entra.start(&[("IDENTITY_ENDPOINT", &url), ("IDENTITY_HEADER", "x")]);
    entra.until_accepted(&bridge, 4);
    bridge.until_ready();
    let asked = &platform.received()[0].target;
    assert!(asked.contains("client_id=22222222"), "{asked}");
    assert!(
        entra
            .hubs
            .tokens()
            .iter()
            .all(|put| put.token == "by-platform")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificate_signs_for_the_authority_and_is_read_again() {
    let entra = Entra::new().await;
    entra.authority.script([token("by-certificate", 303)]);
    entra.authority.set_answer(token("by-the-next", 3600));
    entra.hubs.token_lifetime(Duration::from_secs(8));
    let write = |pair: &Pair| {
        let text = format!("{}{}", pair.key_pem, pair.cert_pem);
        std::fs::write(entra.path("certificate.pem"), text).unwrap();
    };
    write(&rsa_pair());
    entra.publish(0..4);
    let file = entra.path("certificate.pem").display().to_string();
    let mut bridge = entra.start(&[("AZURE_CLIENT_CERTIFICATE_PATH", &file)]);
    entra.until_accepted(&bridge, 4);
    bridge.until_ready();
    write(&rsa_pair());

    // The next token is requested with the certificate that is there by then.
    let renewed = wait(|| {
        let put = entra.hubs.tokens();
        put.iter()
            .any(|put| put.token == "by-the-next")
            .then_some(())
    });
    assert!(renewed.is_some(), "{}", bridge.log());
    let asked = entra.requests();
    let header = |body: &str| {
        let assertion = body.split("client_assertion=").nth(1).unwrap();
        assertion.split('.').next().unwrap().to_owned()
    };
    let (first, last) = (header(&asked[0]), header(asked.last().unwrap()));
    assert_ne!(first, last, "another thumbprint");
    assert!(!bridge.log().contains(&first), "{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificate_unusable_is_reported_and_recovers() {
    let entra = Entra::new().await;
    entra.authority.set_answer(token("good", 3600));
    entra.publish(0..4);
    let file = entra.path("certificate.pem").display().to_string();
    let mut bridge = entra.start(&[("AZURE_CLIENT_CERTIFICATE_PATH", &file)]);
    let why = bridge.until_not_ready("identity", "certificate.pem");
    assert!(why.contains("No such file"), "{why}");
    let pair = rsa_pair();
    std::fs::write(&file, format!("{}{}", pair.cert_pem, pair.key_pem)).unwrap();
    entra.until_accepted(&bridge, 4);
    bridge.until_ready();
}
