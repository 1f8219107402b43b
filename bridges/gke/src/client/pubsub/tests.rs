use audit_bridge_testkit::{PodEntry, PubSub};
use jiff::Timestamp;

use super::reader::StreamWatch;
use super::*;
use crate::client::endpoint::Endpoint;

const NAME: &str = "projects/p/subscriptions/s";

/// Waits, but not for ever.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: never");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_silent_is_replaced_unless_messages_are_open() {
    let pubsub = PubSub::start(NAME).await;
    let endpoint = Endpoint::read(&pubsub.url()).unwrap();
    let mut connection = SubscriptionConnection::new(NAME, &endpoint).unwrap();
    connection.watch = StreamWatch {
        probe_interval: Duration::from_millis(50),
        silence_max: Duration::from_millis(400),
    };
    let telemetry = Telemetry::new("gke-audit-bridge", "1").log(NAME);
    let mut messages = SubscriptionMessages::open(connection, 0, telemetry.clone());
    pubsub.publish(PodEntry::new(0, Timestamp::now()).text());
    let page = messages.read().await.unwrap();
    assert_eq!(page.records.len(), 1);
    // One is open, and nothing more comes: as when the webhook is down.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(pubsub.streams_opened(), 1);
    messages.commit(0, &page.position.unwrap());
    until("acknowledged", || pubsub.acked() == 1).await;
    // Silent now: it may be quiet, it may be dead.
    until("replaced", || pubsub.streams_opened() >= 3).await;
    assert!(telemetry.is_ready(audit_bridge_core::readiness::Component::Source));
    pubsub.publish(PodEntry::new(1, Timestamp::now()).text());
    // Pages that say only that there was nothing more come before it.
    let page = loop {
        let page = messages.read().await.unwrap();
        if !page.records.is_empty() {
            break page;
        }
        assert_eq!(page.position, None);
    };
    assert_eq!(page.position, Some(json!(2)));
    messages.commit(0, &json!(2));
    messages.close().await;
    assert_eq!(pubsub.acked(), 2);
    assert_eq!(pubsub.nacks(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_closing_opens_no_further_stream() {
    let pubsub = PubSub::start(NAME).await;
    let endpoint = Endpoint::read(&pubsub.url()).unwrap();
    let connection = SubscriptionConnection::new(NAME, &endpoint).unwrap();
    let telemetry = Telemetry::new("gke-audit-bridge", "1").log(NAME);
    let mut messages = SubscriptionMessages::open(connection, 0, telemetry);
    pubsub.publish(PodEntry::new(0, Timestamp::now()).text());
    let page = messages.read().await.unwrap();
    // The last acknowledgment is tried again and again, as long as closing may take.
    pubsub.fail_acks(true);
    messages.commit(0, &page.position.unwrap());
    messages.close().await;
    // Whether it says "ready" meanwhile depends on when the failing acknowledgments are tried.
    assert_eq!(pubsub.streams_opened(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_quiet_reports_its_end_only_while_service_answers() {
    let pubsub = PubSub::start(NAME).await;
    let endpoint = Endpoint::read(&pubsub.url()).unwrap();
    let mut connection = SubscriptionConnection::new(NAME, &endpoint).unwrap();
    connection.watch = StreamWatch {
        probe_interval: Duration::from_millis(50),
        silence_max: Duration::from_secs(300),
    };
    let telemetry = Telemetry::new("gke-audit-bridge", "1").log(NAME);
    let mut messages = SubscriptionMessages::open(connection, 0, telemetry.clone());
    pubsub.publish(PodEntry::new(0, Timestamp::now()).text());
    let page = messages.read().await.unwrap();
    assert_eq!(page.records.len(), 1);
    assert!(page.read_to.is_some());
    for _ in 0..3 {
        let before = Timestamp::now();
        let page = loop {
            let page = messages.read().await.unwrap();
            if page.read_to.unwrap().time >= before {
                break page;
            }
        };
        assert!(page.records.is_empty() && page.position.is_none());
    }
    pubsub.permit(false);
    until("denied", || {
        !telemetry.is_ready(audit_bridge_core::readiness::Component::Source)
    })
    .await;
    // Those that were said before.
    let denied = Timestamp::now();
    let said = timeout(Duration::from_secs(1), async {
        while let Some(page) = messages.read().await {
            assert!(page.read_to.unwrap().time < denied);
        }
    });
    assert!(said.await.is_err());
    messages.close().await;
}
