//! The stand-in of Kinesis Data Streams against judges that we did not write: boto3 asks it, and
//! asks the same of two other stand-ins, kinesis-local (of npm; "kinesis-mock") and moto.
//!
//! What the others do not do as AWS documents it is listed here, so that anything else fails.
//! Whether AWS agrees with all three is beyond any test here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use audit_bridge_testkit::Kinesis;
use audit_bridge_tests::live::wait;
use audit_bridge_tests::npm;
use audit_bridge_tests::python::python;
use audit_bridge_tests::root;
use serde_json::{Value, json};

const REQUIREMENTS: &str = "tests/requirements-infra.txt";

/// A server of somebody else. It ends with this.
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

/// Ports that are free now; the servers cannot be told to choose and say which.
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

    /// Nothing where there is no npm, or no way to its packages: that is said on standard error.
    fn kinesis_local() -> Option<Server> {
        let folder = npm::package("kinesis-local", "0.6.2")?;
        let port = free_port();
        let mut command = Command::new("node");
        command
            .arg(folder.join("main.js"))
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

/// What boto3 saw at an endpoint.
fn ask(url: &str) -> Value {
    let output = Command::new(python(REQUIREMENTS))
        .arg(root().join("tests/python/kinesis_client.py"))
        .arg(url)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn ours() -> Value {
    let kinesis = Kinesis::start().await;
    let url = kinesis.url();
    tokio::task::spawn_blocking(move || ask(&url))
        .await
        .unwrap()
}

/// Asserts that these findings, and no others, differ.
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
    differ(&ours().await, &theirs, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stand_in_and_moto_differ_only_where_known() {
    let theirs = tokio::task::spawn_blocking(|| ask(&Server::moto().url))
        .await
        .unwrap();
    differ(&ours().await, &theirs, &[]);
}
