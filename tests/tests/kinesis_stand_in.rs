//! Compares the stand-in of Kinesis Data Streams with judges that we did not write: boto3 sends the
//! same requests to it and to two other stand-ins, kinesis-local (of npm; "kinesis-mock") and moto.
//!
//! Where those deviate from AWS's documentation is listed here; any other difference fails. No test
//! here shows whether AWS agrees with all three.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use audit_bridge_testkit::Kinesis;
use audit_bridge_testkit::kinesis::subscription::{self, SubscribedEvent, SubscriptionOrigin};
use audit_bridge_tests::live::wait;
use audit_bridge_tests::npm;
use audit_bridge_tests::python::python;
use audit_bridge_tests::root;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

const REQUIREMENTS: &str = "tests/requirements-infra.txt";

/// A third-party server. Dropping it ends it.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port; the servers cannot choose one and report it.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Server {
    fn start(command: &mut Command, port: u16) -> Server {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let server = Server { child, url };
        wait(|| TcpStream::connect(("127.0.0.1", port)).ok()).expect("the server starts");
        server
    }

    fn moto() -> Server {
        let port = free_port();
        let mut command = Command::new(python(REQUIREMENTS));
        command.args(["-m", "moto.server", "--host", "127.0.0.1"]);
        Server::start(command.args(["--port", &port.to_string()]), port)
    }

    /// `None` if there is no npm, or no access to its packages; reported on standard error.
    fn kinesis_local() -> Option<Server> {
        let folder = npm::package("kinesis-local", "0.6.2")?;
        let port = free_port();
        let mut command = Command::new("node");
        command
            .arg("main.js")
            // Its certificate is there.
            .current_dir(&folder)
            .env("KINESIS_MOCK_PLAIN_PORT", port.to_string())
            .env("KINESIS_MOCK_TLS_PORT", free_port().to_string())
            .env("SHARD_LIMIT", "100");
        for what in [
            "CREATE_STREAM",
            "SPLIT_SHARD",
            "MERGE_SHARDS",
            "DELETE_STREAM",
        ] {
            command.env(format!("{what}_DURATION"), "5ms");
        }
        Some(Server::start(&mut command, port))
    }
}

/// The findings of boto3 at an endpoint.
fn ask(url: &str) -> Value {
    serde_json::from_str(&script("kinesis_client.py", url)).unwrap()
}

/// The output of a script of `tests/python` about an endpoint.
fn script(name: &str, url: &str) -> String {
    let output = Command::new(python(REQUIREMENTS))
        .arg(root().join("tests/python").join(name))
        .arg(url)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

async fn ours() -> Value {
    let kinesis = Kinesis::start().await;
    let url = kinesis.url();
    tokio::task::spawn_blocking(move || ask(&url))
        .await
        .unwrap()
}

/// Asserts that exactly these findings differ.
fn differ(ours: &Value, theirs: &Value, known: &[&str]) {
    let findings =
        |saw: &Value| -> Vec<String> { saw.as_object().unwrap().keys().cloned().collect() };
    let mut names = [findings(ours), findings(theirs)].concat();
    names.sort();
    names.dedup();
    names.retain(|name| ours.get(name) != theirs.get(name));
    let told: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                "{name}: {:?}, theirs {:?}",
                ours.get(name),
                theirs.get(name)
            )
        })
        .collect();
    assert_eq!(names, known, "{told:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_asked_by_boto3_answers_as_documented() {
    let saw = ours().await;
    let stopped: Vec<_> = saw
        .as_object()
        .unwrap()
        .keys()
        .filter(|it| it.ends_with("stopped"))
        .collect();
    assert!(stopped.is_empty(), "{saw:#}");
    for name in [
        "numbers_grow",
        "numbers_are_those_of_put",
        "numbers_after_start",
        "arrival_is_now",
        "parent_ends",
        "latest_of_before_ends",
        "latest_of_closed_ends",
        "child_starts_behind_parent",
        "deleted",
    ] {
        assert_eq!(saw[name], true, "{name}");
    }
    let first = [
        "a-key-0", "a-key-2", "a-key-8", "b-key-0", "b-key-2", "b-key-8",
    ];
    for (name, from) in [
        ("horizon", 0),
        ("by_twos", 0),
        ("since_early", 0),
        ("at_number", 1),
        ("after_number", 2),
        ("since_middle", 3),
        ("latest", 6),
    ] {
        assert_eq!(saw[name], json!(first[from..]), "{name}");
    }
    assert_eq!(saw["behind_at_tip"], 0);
    assert_eq!(saw["open_after_split"], 4);
    assert_eq!(saw["open_after_merge"], 3);
    assert_eq!(saw["of_children"], saw["of_merged_parents"]);
    assert_eq!(saw["merged_parents_end"], json!([true, true]));
    let child = "shardId-000000000005";
    let parents = ["shardId-000000000003", "shardId-000000000004"];
    let named = json!([[child, parents]]);
    assert_eq!(saw["merged_child_shards"], json!([named, named]));
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_and_kinesis_local_differ_only_where_known() {
    let Some(server) = tokio::task::spawn_blocking(Server::kinesis_local)
        .await
        .unwrap()
    else {
        return;
    };
    let theirs = tokio::task::spawn_blocking(move || ask(&server.url))
        .await
        .unwrap();
    let known = [
        // It splits at the first hash key, so there are two more shards.
        "by_arn",
        "refused, iterator that is none",
        // The real service says: InvalidArgumentException, "It encodes shardId-…".
        "refused, number of another shard",
        "refused, number that is none",
        "refused, split at the edge",
        "refused, unknown kind",
        "split_of_closed",
    ];
    differ(&ours().await, &theirs, &known);
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_and_moto_differ_only_where_known() {
    let theirs = tokio::task::spawn_blocking(|| ask(&Server::moto().url));
    let theirs = theirs.await.unwrap();
    let known = [
        // Shards do not end and name no children; their records stay in them, and later records go
        // to them too. The first count of open shards is from before.
        "child_shards",
        "child_starts_behind_parent",
        // A record in `PutRecords` with the highest hash key makes the server fail.
        "explicit",
        "latest_of_before_ends",
        "latest_of_closed_ends",
        // It knows neither this filter nor a start.
        "list_AFTER_SHARD_ID",
        "list_after",
        // It requires the first request's arguments together with a token, which AWS forbids.
        "list_in_pages",
        "listing stopped",
        "merged_child_shards",
        "merged_parents_end",
        // Its sequence numbers are small, and start at the same number in each shard.
        "numbers_after_start",
        "of_children",
        "of_merged",
        "of_merged_parents",
        "of_parent",
        "open_after_split",
        "parent_ends",
        // The server fails, or does not refuse at all.
        "refused, iterator that is none",
        "refused, limit too high",
        "refused, no number",
        "refused, no time",
        "refused, number of another shard",
        "refused, number that is none",
        "refused, time in the future",
        "refused, token and name",
        "refused, unknown kind",
        "took_after_merge",
        "took_after_split",
        "writing stopped",
    ];
    differ(&ours().await, &theirs, &known);
}

#[test]
fn subscription_record_of_moto_has_the_members_of_ours() {
    let server = Server::moto();
    let printed = script("subscribed_records.py", &server.url);
    let records: Vec<Vec<u8>> = printed
        .lines()
        .map(|line| BASE64_STANDARD.decode(line).unwrap())
        .collect();
    assert_eq!(records.len(), 1);
    let json = |record: &[u8]| -> Value {
        serde_json::from_reader(flate2::read::GzDecoder::new(record)).unwrap()
    };
    let members = |json: &Value| -> Vec<String> {
        let mut names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    let theirs = json(&records[0]);
    let subscription = SubscriptionOrigin {
        owner: "123456789012".to_owned(),
        log_group: "/aws/eks/prod/cluster".to_owned(),
        log_stream: "kube-apiserver-audit-1".to_owned(),
    };
    let events = [0, 1, 2].map(|n| SubscribedEvent::new(n, 0, format!("{{\"n\":{n}}}")));
    let ours = json(&subscription.record(&events));
    assert_eq!(members(&theirs), members(&ours));
    for name in [
        "messageType",
        "owner",
        "logGroup",
        "logStream",
        "subscriptionFilters",
    ] {
        assert_eq!(theirs[name], ours[name], "{name}");
    }
    let event = |json: &Value| json["logEvents"][0].clone();
    assert_eq!(members(&event(&theirs)), members(&event(&ours)));
    // Its IDs are numbers; AWS documents strings.
    assert!(theirs["logEvents"][0]["id"].is_number());
    let lines = subscription::read(&records[0]);
    assert_eq!(lines.len(), 3);
    for (line, event) in lines.iter().zip(&events) {
        assert_eq!(line.subscription, subscription);
        assert_eq!(line.event.message, event.message);
    }
}
