//! `eks-audit-bridge run`, the real binary, against moto's server: an API that we did not write,
//! filled by a client that we did not write (boto3).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use audit_bridge_testkit::ScriptedWebhook;
use audit_bridge_tests::live::{Running, wait};
use audit_bridge_tests::python::python;
use audit_bridge_tests::{audit_id, event, root};
use serde_json::{Value, json};

const REQUIREMENTS: &str = "tests/requirements-infra.txt";
const GROUP: &str = "/aws/eks/prod/cluster";

/// moto's server and boto3. Dropping this ends both.
struct Moto {
    server: Child,
    writer: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        for child in [&mut self.writer, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Moto {
    fn start() -> Moto {
        let python = python(REQUIREMENTS);
        // A free port; moto cannot choose one and report it.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let server = Command::new(&python)
            .args(["-m", "moto.server", "--host", "127.0.0.1"])
            .args(["--port", &port.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait(|| TcpStream::connect(port).ok()).expect("moto starts");
        let url = format!("http://{port}");
        let mut writer = Command::new(&python)
            .arg(root().join("tests/tests/live_eks_moto/log.py"))
            .arg(&url)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (writer.stdin.take().unwrap(), writer.stdout.take().unwrap());
        let from = BufReader::new(from).lines();
        Moto {
            server,
            writer,
            to,
            from,
            url,
        }
    }

    fn ask(&mut self, command: &Value) -> String {
        writeln!(self.to, "{command}").unwrap();
        self.from.next().expect("an answer").unwrap()
    }

    fn group(&mut self, group: &str) {
        self.ask(&json!({"do": "group", "group": group}));
    }

    fn stream(&mut self, group: &str, stream: &str) {
        self.ask(&json!({"do": "stream", "group": group, "stream": stream}));
    }

    /// Writes events, each with its age in milliseconds.
    fn put(&mut self, group: &str, stream: &str, events: &[(usize, i64)]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = i64::try_from(now.as_millis()).unwrap();
        let events: Vec<Value> = events
            .iter()
            .map(|&(n, ago)| json!([now - ago, event(n, 500)]))
            .collect();
        self.ask(&json!({"do": "put", "group": group, "stream": stream, "events": events}));
    }
}

fn start(
    moto: &Moto,
    state: &Path,
    webhook: &ScriptedWebhook,
    more: &[&str],
    role: &str,
) -> Running {
    let token = state.parent().unwrap().join("token");
    std::fs::write(&token, "a.web.identity").unwrap();
    let url = webhook.url();
    let mut args = vec![
        "--cluster-name=prod",
        "--poll-interval=100ms",
        "--revisit-after=1s,4s",
        "--requests-per-second=50",
        "--state-dir",
        state.to_str().unwrap(),
        "--webhook-url",
        &url,
    ];
    args.extend(more);
    let variables = [
        ("AWS_ENDPOINT_URL", moto.url.as_str()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ROLE_ARN", role),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
    ];
    Running::start("eks", &args, &variables)
}

/// How often each event was accepted.
fn accepted(webhook: &ScriptedWebhook) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for id in webhook.accepted_ids() {
        *all.entry(id).or_default() += 1;
    }
    all
}

fn until_accepted(webhook: &ScriptedWebhook, count: usize, bridge: &Running) {
    let done = wait(|| (accepted(webhook).len() >= count).then_some(()));
    let got = accepted(webhook).len();
    assert!(done.is_some(), "{got} of {count}\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn irsa_over_restart_kill_rotation_and_lateness_delivers_all() {
    let mut moto = Moto::start();
    let webhook = ScriptedWebhook::start().await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    moto.group(GROUP);
    moto.stream(GROUP, "kube-apiserver-audit-1");
    // moto ignores the prefix and returns this stream too; we skip it.
    moto.stream(GROUP, "authenticator-1");
    let trust = json!({"Version": "2012-10-17", "Statement": []});
    let role = moto.ask(&json!({"do": "role", "name": "reader", "trust": trust}));

    let backlog: Vec<(usize, i64)> = (0..300).map(|n| (n, 60_000)).collect();
    moto.put(GROUP, "kube-apiserver-audit-1", &backlog);
    moto.put(GROUP, "authenticator-1", &[(9999, 60_000)]);
    let mut bridge = start(&moto, &state, &webhook, &["--start=-5m"], &role);
    until_accepted(&webhook, 300, &bridge);
    bridge.until_ready();
    bridge.until_metric("audit_bridge_records_skipped_total", 1.0);

    // The checkpoint is written once a second.
    std::thread::sleep(Duration::from_secs(3));
    // Killed while events arrive; a new stream takes over; some events are late.
    moto.put(GROUP, "kube-apiserver-audit-1", &[(300, 0), (301, 0)]);
    bridge.kill();
    moto.stream(GROUP, "kube-apiserver-audit-2");
    moto.put(GROUP, "kube-apiserver-audit-2", &[(302, 0), (303, 0)]);
    let bridge = start(&moto, &state, &webhook, &[], &role);
    until_accepted(&webhook, 304, &bridge);
    // Ingested now with a time two seconds ago: behind the edge, but not behind the oldest cursor.
    moto.put(GROUP, "kube-apiserver-audit-2", &[(304, 2000), (305, 2000)]);
    until_accepted(&webhook, 306, &bridge);
    assert_eq!(bridge.terminate(), 0);

    moto.put(GROUP, "kube-apiserver-audit-2", &[(306, 0)]);
    let bridge = start(&moto, &state, &webhook, &[], &role);
    until_accepted(&webhook, 307, &bridge);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(bridge.terminate(), 0);

    let all = accepted(&webhook);
    assert_eq!(all.len(), 307);
    assert!((0..307).all(|n| all.contains_key(&audit_id(n))));
    // Only the kill may repeat events, and only those that were in flight.
    let twice: Vec<_> = all.iter().filter(|(_, times)| **times > 1).collect();
    let in_flight = |id: &String| [audit_id(300), audit_id(301)].contains(id);
    assert!(twice.iter().all(|(id, _)| in_flight(id)), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_two_keep_their_positions() {
    let mut moto = Moto::start();
    let webhook = ScriptedWebhook::start().await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    for (n, group) in [GROUP, "/aws/eks/other/cluster"].into_iter().enumerate() {
        moto.group(group);
        moto.stream(group, "kube-apiserver-audit-1");
        moto.put(group, "kube-apiserver-audit-1", &[(n, 1000)]);
    }
    let more = ["--cluster-name=other", "--start=-5m"];
    let role = "arn:aws:iam::123456789012:role/any";
    let mut bridge = start(&moto, &state, &webhook, &more, role);
    until_accepted(&webhook, 2, &bridge);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
    let bridge = start(&moto, &state, &webhook, &more, role);
    moto.put(
        "/aws/eks/other/cluster",
        "kube-apiserver-audit-1",
        &[(2, 0)],
    );
    until_accepted(&webhook, 3, &bridge);
    assert_eq!(bridge.terminate(), 0);
    assert!(accepted(&webhook).values().all(|times| *times == 1));
}
