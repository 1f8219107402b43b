//! The bridge's identity, how it is found, and the errors when it may not read.

use std::collections::BTreeSet;
use std::time::Duration;

use audit_bridge_testkit::cloud_logging::{CloudLogging, CloudLoggingFault, Metadata};
use audit_bridge_testkit::tls::rsa_key_pem;
use audit_bridge_testkit::{Pki, PodEntry, ScriptedWebhook};
use audit_bridge_tests::live::Running;
use audit_bridge_tests::{Ran, command};
use serde_json::{Value, json};

use crate::{Scene, ago, built, until};

/// Runs `check` on the scene's log.
pub(crate) fn check(scene: &Scene, more: &[&str], envs: &[(&str, &str)]) -> Ran {
    let state = scene.folder.path().join("check");
    std::fs::create_dir_all(&state).unwrap();
    let output = command("gke", &["check"])
        .args(scene.args())
        .args(more)
        .arg("--state-dir")
        .arg(state)
        .envs(envs.iter().copied())
        .output()
        .unwrap();
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn metadata_server_gives_project_cluster_location_and_token() {
    let scene = Scene::new().await;
    scene.logging.metadata(Metadata::of("p", "c", "l"));
    scene.logging.require_token("metadata-token");
    scene.put(0..5, ago(30));
    let other = PodEntry {
        cluster: "other".to_owned(),
        ..PodEntry::new(9, ago(30))
    };
    scene.logging.put(other.text());
    let host = scene.logging.host();
    let envs = [("GCE_METADATA_HOST", host.as_str())];
    let mut bridge = scene.run_with(&["--start", "-1m"], &envs);
    scene.until_accepted(0..5);
    bridge.until_ready();
    let log = bridge.log();
    assert!(log.contains("projects/p/locations/l/clusters/c"), "{log}");
    let (_, metrics) = bridge.get("/metrics");
    for text in [&log, &metrics] {
        assert!(!text.contains("metadata-token"), "a secret in {text}");
    }
    assert_eq!(bridge.terminate(), 0);
    let paths = scene.logging.metadata_paths();
    assert!(
        paths.contains(&"instance/attributes/cluster-location".to_owned()),
        "{paths:?}"
    );

    let checked = check(&scene, &[], &envs);
    assert_eq!(checked.status, 0, "{}{}", checked.stdout, checked.stderr);
    assert!(
        checked.stdout.contains("an access token was given"),
        "{}",
        checked.stdout
    );
    assert!(!checked.stdout.contains("metadata-token"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn identity_missing_is_held_until_there_is_one() {
    let scene = Scene::new().await;
    // GKE's metadata server before Workload Identity is bound.
    let mut metadata = Metadata {
        token: None,
        ..Metadata::of("p", "c", "l")
    };
    scene.logging.metadata(metadata.clone());
    scene.logging.require_token("first");
    scene.put(0..5, ago(30));
    let host = scene.logging.host();
    let envs = [("GCE_METADATA_HOST", host.as_str())];
    let mut bridge = scene.run_with(&["--start", "-1m"], &envs);
    bridge.until_not_ready("identity", "Workload Identity");
    let checked = check(&scene, &[], &envs);
    assert_eq!(checked.status, 1);
    assert!(
        checked.stdout.contains("Workload Identity"),
        "{}",
        checked.stdout
    );
    metadata.token = Some("first".to_owned());
    scene.logging.metadata(metadata.clone());
    scene.until_accepted(0..5);
    bridge.until_ready();
    // The token is revoked although it seemed valid for an hour.
    metadata.token = Some("second".to_owned());
    scene.logging.metadata(metadata);
    scene.logging.require_token("second");
    scene.put(5..10, ago(0));
    scene.until_accepted(0..10);
    bridge.until_ready();
    let log = bridge.log();
    assert!(
        !log.contains("first-") && !log.contains("second-"),
        "a token in {log}"
    );
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn token_request_without_an_answer_is_given_up() {
    let scene = Scene::new().await;
    let mut metadata = Metadata {
        hangs: true,
        ..Metadata::of("p", "c", "l")
    };
    scene.logging.metadata(metadata.clone());
    scene.logging.require_token("metadata-token");
    scene.put(0..5, ago(30));
    let host = scene.logging.host();
    let envs = [("GCE_METADATA_HOST", host.as_str())];
    let mut bridge = scene.run_with(&["--start", "-1m"], &envs);
    bridge.until_not_ready("identity", "no token within 15 s");
    metadata.hangs = false;
    scene.logging.metadata(metadata);
    scene.until_accepted(0..5);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

/// The binding was made after the token: only new credentials have the new identity.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn token_forbidden_is_replaced() {
    let scene = Scene::new().await;
    scene.logging.metadata(Metadata::of("p", "c", "l"));
    scene.logging.require_token("metadata-token");
    let denied = CloudLoggingFault::Status(403, "the caller does not have permission");
    scene.logging.fail_next(denied);
    scene.put(0..5, ago(30));
    let host = scene.logging.host();
    let envs = [("GCE_METADATA_HOST", host.as_str())];
    let bridge = scene.run_with(&["--start", "-1m"], &envs);
    scene.until_accepted(0..5);
    // Two without the refusal: entries are read by their time, and by their receipt.
    until("new credentials", || {
        let requests = scene.logging.requests();
        let tokens: BTreeSet<_> = requests.iter().map(|it| it.authorization.clone()).collect();
        tokens.len() == 3
    });
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn token_is_renewed_before_and_after_its_end() {
    let scene = Scene::new().await;
    // The worst case: the client renews such short tokens only some time after they expired.
    scene.logging.metadata(Metadata {
        token_seconds: 4,
        ..Metadata::of("p", "c", "l")
    });
    scene.logging.require_token("metadata-token");
    let host = scene.logging.host();
    let mut bridge = scene.run_with(&[], &[("GCE_METADATA_HOST", host.as_str())]);
    bridge.until_ready();
    for round in 0..3 {
        std::thread::sleep(Duration::from_secs(5));
        scene.put(round * 10..(round + 1) * 10, ago(0));
        scene.until_accepted(0..(round + 1) * 10);
    }
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
    let requests = scene.logging.requests();
    let tokens: BTreeSet<_> = requests.iter().map(|it| it.authorization.clone()).collect();
    assert!(tokens.len() > 1, "{tokens:?}");
}

/// Runs a bridge that reads over TLS from a log that requires such tokens, with this credentials
/// file.
async fn reads_with(token: &str, whom: &str, file: impl Fn(&str) -> Value) {
    built();
    let pki = Pki::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = path("ca.pem", pki.ca_pem());
    let logging = CloudLogging::start_tls(pki.acceptor(&["127.0.0.1"], None)).await;
    logging.require_token(token);
    logging.put(PodEntry::new(0, ago(30)).text());
    let webhook = ScriptedWebhook::start().await;
    let credentials = path("credentials.json", &file(&logging.url()).to_string());
    let (endpoint, url) = (logging.url(), webhook.url());
    let state = folder.path().join("state");
    let args = [
        ["--logging-endpoint", &endpoint],
        ["--webhook-url", &url],
        ["--state-dir", state.to_str().unwrap()],
        ["--project-id", "p"],
        ["--cluster-name", "c"],
        ["--start", "-1m"],
    ];
    let variables = [
        ("SSL_CERT_FILE", ca.as_str()),
        ("GOOGLE_APPLICATION_CREDENTIALS", credentials.as_str()),
    ];
    let checked = command("gke", &["check"])
        .args(args.concat())
        .envs(variables)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(said.contains(whom), "{whom}: {said}");
    assert!(!said.contains("PRIVATE KEY"), "{said}");
    let mut bridge = Running::start("gke", &args.concat(), &variables);
    bridge.until_ready();
    until("the entry", || {
        webhook.accepted_ids() == [PodEntry::audit_id(0)]
    });
    assert!(!bridge.log().contains("PRIVATE KEY"));
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn service_account_key_makes_its_own_tokens() {
    // A JSON Web Token signed with the key.
    reads_with("eyJ", "bridge@p.iam.gserviceaccount.com", |_| {
        json!({
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "1",
            "private_key": rsa_key_pem(),
            "client_email": "bridge@p.iam.gserviceaccount.com",
            "client_id": "1",
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn external_account_exchanges_its_token() {
    let subject = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(subject.path(), "the workload's own token").unwrap();
    reads_with(
        "exchanged",
        "a workload of iam.googleapis.com/projects/1/",
        |url| {
            json!({
                "type": "external_account",
                "audience": "//iam.googleapis.com/projects/1/locations/global/\
                             workloadIdentityPools/pool/providers/eks",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": format!("{url}/v1/token"),
                "credential_source": {"file": subject.path()},
            })
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn credentials_file_missing_is_named() {
    let scene = Scene::new().await;
    let more = [
        "--logging-endpoint",
        "https://127.0.0.1:1",
        "--project-id",
        "p",
        "--cluster-name",
        "c",
    ];
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json")];
    let mut bridge = scene.run_with(&more, &variables);
    let why = bridge.until_not_ready("identity", "/nonexistent/key.json");
    assert!(why.contains("GOOGLE_APPLICATION_CREDENTIALS"), "{why}");
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn role_missing_is_held_with_remedy() {
    let scene = Scene::new().await;
    scene.logging.only_project("elsewhere");
    scene.put(0..5, ago(30));
    let mut bridge = scene.run(&["--start", "-1m"]);
    bridge.until_not_ready("source", "roles/logging.viewer on project p");
    let checked = check(&scene, &["--project-id", "p", "--cluster-name", "c"], &[]);
    assert_eq!(checked.status, 1);
    assert!(
        checked.stdout.contains("roles/logging.viewer on project p"),
        "{}",
        checked.stdout
    );
    assert_eq!(bridge.get("/livez").0, 200, "a hold is no hang");
    scene.logging.only_project("p");
    scene.until_accepted(0..5);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn check_tells_whose_token_it_is() {
    let scene = Scene::new().await;
    scene.put(0..1, ago(30));
    let host = scene.logging.host();
    let envs = [("GCE_METADATA_HOST", host.as_str())];
    for (email, says) in [
        (
            "bridge@example.iam.gserviceaccount.com",
            "bridge@example.iam",
        ),
        (
            "7-compute@developer.gserviceaccount.com",
            "that of the node, if this is a pod",
        ),
        ("p.svc.id.goog", "subject/ns/"),
    ] {
        scene.logging.metadata(Metadata {
            email: email.to_owned(),
            ..Metadata::of("p", "c", "l")
        });
        let checked = check(&scene, &[], &envs);
        assert_eq!(checked.status, 0, "{}", checked.stdout);
        assert!(checked.stdout.contains(email), "{}", checked.stdout);
        assert!(checked.stdout.contains(says), "{}", checked.stdout);
    }
    // Names the identity that needs the role.
    scene.logging.only_project("elsewhere");
    let checked = check(&scene, &[], &envs);
    assert_eq!(checked.status, 1);
    let whom = "to the identity of the bridge (the pod's Kubernetes service account";
    assert!(checked.stdout.contains(whom), "{}", checked.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn check_of_missing_cluster_names_it() {
    let scene = Scene::new().await;
    scene.put(0..5, ago(30));
    let good = check(&scene, &["--project-id", "p", "--cluster-name", "c"], &[]);
    assert_eq!(good.status, 0, "{}{}", good.stdout, good.stderr);
    let wrong = check(&scene, &["--project-id", "p", "--cluster-name", "d"], &[]);
    assert_eq!(wrong.status, 1);
    assert!(wrong.stdout.contains("but of c in l"), "{}", wrong.stdout);
    assert!(wrong.stdout.contains("--cluster-name"), "{}", wrong.stdout);
}

/// A page without entries that has a token means that not all was searched yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn check_looks_behind_pages_without_entries() {
    let scene = Scene::new().await;
    scene.logging.begin_with_empty_pages();
    scene.put(0..5, ago(30));
    let place = ["--project-id", "p", "--cluster-name", "c"];
    let good = check(&scene, &place, &[]);
    assert_eq!(good.status, 0, "{}{}", good.stdout, good.stderr);
    let bridge = scene.run(&["--start", "-10m"]);
    scene.until_accepted(0..5);
    assert!(
        !bridge.log().contains("shows no entries"),
        "{}",
        bridge.log()
    );
    assert_eq!(bridge.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn place_unknown_is_refused() {
    let scene = Scene::new().await;
    // No metadata server: nothing listens on the port.
    let envs = [("GCE_METADATA_HOST", "127.0.0.1:1")];
    for flags in [&[][..], &["--project-id", "p"]] {
        let checked = check(&scene, flags, &envs);
        assert_eq!(checked.status, 1);
        assert!(
            checked.stdout.contains("--cluster-name"),
            "{}",
            checked.stdout
        );
    }
    // No metadata server is configured.
    let checked = check(&scene, &[], &[]);
    assert_eq!(checked.status, 1);
    assert!(
        checked.stdout.contains("--project-id"),
        "{}",
        checked.stdout
    );
    // The project's variable of Google's own tools.
    scene.put(0..1, ago(30));
    let checked = check(&scene, &[], &[("GOOGLE_CLOUD_PROJECT", "p")]);
    assert_eq!(checked.status, 0, "{}", checked.stdout);
}

#[test]
fn subscription_with_until_is_refused() {
    let output = command(
        "gke",
        &["run", "--webhook-url", "http://127.0.0.1:9/k8s-audit"],
    )
    .args(["--subscription", "projects/p/subscriptions/audit"])
    .args(["--until", "now"])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--until"), "{said}");
}

#[test]
fn settings_wrong_are_all_named_at_once() {
    let output = command(
        "gke",
        &["run", "--webhook-url", "http://127.0.0.1:9/k8s-audit"],
    )
    .args(["--logging-endpoint", "http://logging.example.com"])
    .args(["--pubsub-endpoint", "pubsub.example.com"])
    .args(["--subscription", "audit"])
    .args(["--requests-per-minute", "0"])
    .args(["--poll-interval", "soon"])
    .args(["--project-id", "*"])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    for flag in [
        "--logging-endpoint",
        "--pubsub-endpoint",
        "--subscription",
        "--requests-per-minute",
        "--poll-interval",
        "--project-id",
    ] {
        assert!(said.contains(flag), "{flag}: {said}");
    }
}
