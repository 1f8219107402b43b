//! Networks that allow port 443 only: AMQP over WebSockets, for the real binary.

use audit_bridge_testkit::Pki;
use audit_bridge_tests::Ran;

use super::*;

/// A hub that is only reachable over WebSockets, and a receiver.
struct Behind443 {
    stage: Stage,
    pki: Pki,
}

impl Behind443 {
    async fn new() -> Behind443 {
        let pki = Pki::new();
        let acceptor = pki.acceptor(&["localhost"], None);
        let mut stage = Stage::new(2).await;
        stage.hubs = EventHubs::start_web_sockets(acceptor).await;
        stage.hubs.add_hub(HUB, 2);
        let string = stage.hubs.connection_string(HUB);
        // Not an emulator's string, as that has no WebSockets.
        let string = string.replace("UseDevelopmentEmulator=true", "");
        std::fs::write(stage.path("connection-string"), string).unwrap();
        std::fs::write(stage.path("ca.pem"), pki.ca_pem()).unwrap();
        Behind443 { stage, pki }
    }

    fn endpoint(&self) -> String {
        format!("wss://localhost:{}", self.stage.hubs.port())
    }

    fn trust(&self) -> String {
        self.stage.path("ca.pem").display().to_string()
    }

    fn check(&self, endpoint: &str, variables: &[(&str, &str)]) -> Ran {
        let mut args = vec!["check".to_owned()];
        let flags = [
            "--event-hub-transport=amqp-web-sockets",
            "--event-hub-endpoint",
            endpoint,
        ];
        args.extend(self.stage.args(&flags));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = audit_bridge_tests::command("aks", &args);
        command.envs(variables.iter().copied());
        // Keep this runtime's other threads free for the stand-in.
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran {
            status: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn web_socket_delivers_all_and_continues_after_a_cut() {
    let behind = Behind443::new().await;
    let stage = &behind.stage;
    stage.publish(0..40, 2);
    let endpoint = behind.endpoint();
    let flags = [
        "--start=earliest",
        "--event-hub-transport=amqp-web-sockets",
        "--event-hub-endpoint",
        &endpoint,
    ];
    let trust = behind.trust();
    let mut bridge = stage.start_with(&flags, &[("SSL_CERT_FILE", &trust)]);
    stage.until_accepted(&bridge, 0..40);
    bridge.until_ready();
    stage.hubs.cut();
    stage.publish(40..80, 2);
    stage.until_accepted(&bridge, 0..80);
    stage.assert_no_duplicates();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn check_over_web_sockets_names_what_is_wrong() {
    let behind = Behind443::new().await;
    behind.stage.publish(0..4, 2);
    let trust = behind.trust();
    let trusted = [("SSL_CERT_FILE", trust.as_str())];
    let ran = behind.check(&behind.endpoint(), &trusted);
    assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("over WebSockets"), "{}", ran.stdout);

    let fails = |endpoint: &str, variables: &[(&str, &str)], says: &[&str]| {
        let ran = behind.check(endpoint, variables);
        assert_eq!(ran.status, 1, "{}\n{}", ran.stdout, ran.stderr);
        for word in says {
            assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
        }
    };
    fails(&behind.endpoint(), &[], &["certificate", "SSL_CERT_FILE"]);
    // Another server answers on that port.
    let acceptor = behind.pki.acceptor(&["localhost"], None);
    let other = ScriptedWebhook::start_tls(acceptor).await;
    let elsewhere = format!("wss://localhost:{}", other.address().port());
    let words = ["no WebSocket was opened", "something listens at"];
    fails(&elsewhere, &trusted, &words);
    // No server answers, and AMQP does not use the proxy that tokens use.
    behind.stage.hubs.stop_listening().await;
    let proxied = [trusted[0], ("HTTPS_PROXY", "http://127.0.0.1:9")];
    fails(
        &behind.endpoint(),
        &proxied,
        &["refused", "HTTPS_PROXY is not used"],
    );
}
