//! Tests the stand-in with Microsoft's own client, azure-eventhub for Python, which must see what
//! Event Hubs would show it.
//!
//! Covered: `$cbs` with SAS tokens, properties of hub and partitions, reading from the beginning,
//! from a sequence number, an offset (also inclusive) and a time, owner levels, and missing
//! entities. Not covered, as the client cannot be pointed there or does not use it: tokens of an
//! identity (JWT), TLS, lists without trailing nulls (see the patch in the script). No test here
//! shows whether Azure agrees with its client.

use std::process::Command;
use std::time::Duration;

use audit_bridge_tests::python::python;
use audit_bridge_tests::root;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stand_in_serves_microsofts_client() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 3);
    for n in 0..10 {
        hubs.publish(HUB, 0, format!("zero-{n}"));
        let ago = Duration::from_secs((10 - n) * 600 + 60);
        hubs.publish_at(HUB, 1, vec![format!("one-{n}").into()], ago);
    }
    hubs.publish(HUB, 2, "gone");
    hubs.trim(HUB, 2, 1);
    let script = root().join("tests/python/event_hubs_client.py");
    let output = tokio::task::block_in_place(|| {
        Command::new(python("tests/requirements-azure.txt"))
            .arg(script)
            .arg(hubs.connection_string(HUB))
            .output()
            .unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let saw: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        saw["hub"],
        json!({"name": HUB, "partitions": ["0", "1", "2"]})
    );
    assert_eq!(
        saw["partitions"],
        json!({"0": [0, 9, false], "1": [0, 9, false], "2": [1, 0, true]})
    );
    let bodies = |what: &str| -> Vec<String> {
        let events = saw[what].as_array().cloned().unwrap_or_default();
        events
            .iter()
            .map(|event| event[3].as_str().unwrap().to_owned())
            .collect()
    };
    let named = |name: &str, numbers: std::ops::Range<usize>| -> Vec<String> {
        numbers.map(|n| format!("{name}-{n}")).collect()
    };
    assert_eq!(
        bodies("all"),
        [named("zero", 0..10), named("one", 0..10)].concat(),
        "{said}"
    );
    assert_eq!(bodies("behind_number"), named("zero", 5..10), "{said}");
    assert_eq!(bodies("behind_offset"), named("zero", 8..10));
    assert_eq!(bodies("at_offset"), named("zero", 7..10));
    assert_eq!(bodies("since"), named("one", 8..10)[..], "{}", saw["since"]);
    let says = |what: &str, words: &[&str]| {
        let text = saw[what].as_str().unwrap_or_default();
        for word in words {
            assert!(text.contains(word), "{what}: {word}: {text}\n{said}");
        }
    };
    says("stolen", &["amqp:link:stolen", "epoch"]);
    says("no_group", &["could not be found"]);
    says("no_hub", &["404"]);
}
