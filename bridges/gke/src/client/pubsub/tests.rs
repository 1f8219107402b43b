use audit_bridge_core::readiness::Component;
use audit_bridge_testkit::{PodEntry, PubSub};
use jiff::Timestamp;

use super::connection::StreamWatch;
use super::*;
use crate::client::endpoint::Endpoint;

const NAME: &str = "projects/p/subscriptions/s";

/// Probes at a short interval, for tests.
const CLOSELY: StreamWatch = StreamWatch {
    probe_interval: Duration::from_millis(50),
    silence_max: Duration::from_secs(300),
};

/// Waits until the condition holds, with a limit.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: never");
}

/// Reads the next page with records. Pages that only report that there is nothing more, or that held
/// nothing but redeliveries, may precede it.
async fn read_records(messages: &mut SubscriptionMessages) -> Page<u64> {
    loop {
        let page = messages.read().await.unwrap();
        if !page.records.is_empty() {
            return page;
        }
        assert!(page.position.is_none());
    }
}

/// A stand-in subscription and a source that reads it, with these intervals.
async fn watched(watch: StreamWatch) -> (PubSub, SubscriptionMessages, Telemetry) {
    let pubsub = PubSub::start(NAME).await;
    let endpoint = Endpoint::read(&pubsub.url()).unwrap();
    let mut connection = SubscriptionConnection::new(NAME, &endpoint).unwrap();
    connection.watch = watch;
    let telemetry = Telemetry::new("gke-audit-bridge", "1").log(NAME);
    let messages = SubscriptionMessages::open(connection, 0, telemetry.clone());
    (pubsub, messages, telemetry)
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_silent_is_replaced_unless_messages_are_open() {
    let watch = StreamWatch {
        probe_interval: Duration::from_millis(50),
        silence_max: Duration::from_millis(400),
    };
    let (pubsub, mut messages, telemetry) = watched(watch).await;
    pubsub.publish(PodEntry::new(0, Timestamp::now()).text());
    let page = read_records(&mut messages).await;
    assert_eq!(page.records.len(), 1);
    // A message is open and no other comes, as when the webhook is down.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(pubsub.streams_opened(), 1);
    messages.commit(0, &page.position.unwrap());
    until("acknowledged", || pubsub.acked() == 1).await;
    // Now silent: the stream may be quiet or dead.
    until("replaced", || pubsub.streams_opened() >= 3).await;
    assert!(telemetry.is_ready(Component::Source));
    pubsub.publish(PodEntry::new(1, Timestamp::now()).text());
    let page = read_records(&mut messages).await;
    assert_eq!(page.position, Some(2));
    messages.commit(0, &2);
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
    let page = read_records(&mut messages).await;
    // The last acknowledgment is retried as long as `close` may take.
    pubsub.fail_acks(true);
    messages.commit(0, &page.position.unwrap());
    messages.close().await;
    // Whether readiness is reported meanwhile depends on when the failing acknowledgments are
    // retried.
    assert_eq!(pubsub.streams_opened(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_quiet_reports_its_end_only_while_service_answers() {
    let (pubsub, mut messages, telemetry) = watched(CLOSELY).await;
    pubsub.publish(PodEntry::new(0, Timestamp::now()).text());
    let page = read_records(&mut messages).await;
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
    until("denied", || !telemetry.is_ready(Component::Source)).await;
    // Pages that were sent before.
    let denied = Timestamp::now();
    let said = timeout(Duration::from_secs(1), async {
        while let Some(page) = messages.read().await {
            assert!(page.read_to.unwrap().time < denied);
        }
    });
    assert!(said.await.is_err());
    messages.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_empty_while_more_waits_is_replaced() {
    let (pubsub, mut messages, telemetry) = watched(CLOSELY).await;
    pubsub.publish(PodEntry::new(0, Timestamp::now()).text());
    let page = read_records(&mut messages).await;
    messages.commit(0, &page.position.unwrap());
    until("acknowledged", || pubsub.acked() == 1).await;
    pubsub.set_silent(true);
    pubsub.publish(PodEntry::new(1, Timestamp::now()).text());
    // Pages from before the mute.
    let muted = Timestamp::now();
    let (source, streams) = (Component::Source, pubsub.streams_opened());
    let said = timeout(Duration::from_secs(3), async {
        while let Some(page) = messages.read().await {
            assert!(page.read_to.unwrap().time < muted, "there is more");
        }
    });
    assert!(said.await.is_err());
    until("replaced", || pubsub.streams_opened() > streams).await;
    until("told", || !telemetry.is_ready(source)).await;
    pubsub.set_silent(false);
    let page = read_records(&mut messages).await;
    assert_eq!(page.records.len(), 1);
    until("well", || telemetry.is_ready(source)).await;
    messages.close().await;
    assert_eq!(pubsub.nacks(), 1, "what was open is given back");
}

/// An event that is parked stays open for long.
#[tokio::test(flavor = "multi_thread")]
async fn stream_dead_while_a_message_is_open_is_replaced() {
    let (pubsub, mut messages, telemetry) = watched(CLOSELY).await;
    pubsub.publish(PodEntry::new(0, Timestamp::now()).text());
    let open = read_records(&mut messages).await;
    pubsub.set_silent(true);
    pubsub.publish(PodEntry::new(1, Timestamp::now()).text());
    let streams = pubsub.streams_opened();
    until("replaced", || pubsub.streams_opened() > streams).await;
    until("told", || !telemetry.is_ready(Component::Source)).await;
    pubsub.set_silent(false);
    let page = read_records(&mut messages).await;
    assert_eq!(
        page.records.len(),
        1,
        "the open one came again, and is known"
    );
    messages.settled(0, 1);
    messages.settled(0, 0);
    until("acknowledged", || pubsub.acked() == 2).await;
    assert_eq!(open.records.len(), 1);
    messages.close().await;
}

/// Whoever may publish chooses what stands in an entry, its `insertId` too.
#[tokio::test(flavor = "multi_thread")]
async fn message_with_identity_of_another_is_read() {
    let (pubsub, mut messages, _) = watched(CLOSELY).await;
    let real = PodEntry::new(0, Timestamp::now()).text();
    let mut forged: serde_json::Value = serde_json::from_str(&real).unwrap();
    let members = forged.as_object_mut().unwrap();
    members.remove("protoPayload");
    members.insert("textPayload".to_owned(), "x".into());
    pubsub.publish(forged.to_string());
    pubsub.publish(real.clone());
    let mut read = Vec::new();
    while read.len() < 2 {
        let page = read_records(&mut messages).await;
        messages.commit(0, &page.position.unwrap());
        read.extend(page.records);
    }
    assert!(read.iter().any(|record| record.payload == real.as_bytes()));
    until("acknowledged", || pubsub.acked() == 2).await;
    messages.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_forgotten_on_the_way_is_replaced() {
    let (pubsub, mut messages, _) = watched(CLOSELY).await;
    for hang in [false, true] {
        let number = usize::from(hang);
        until("open", || pubsub.streams_opened() > 0).await;
        match hang {
            true => pubsub.hang(true),
            false => pubsub.forget_streams(),
        }
        pubsub.publish(PodEntry::new(number, Timestamp::now()).text());
        pubsub.hang(false);
        let page = read_records(&mut messages).await;
        assert_eq!(page.records.len(), 1, "{hang}");
        messages.commit(0, &page.position.unwrap());
        until("acknowledged", || pubsub.acked() == number + 1).await;
    }
    messages.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_subscription_name_program_and_version() {
    let (pubsub, mut messages, _) = watched(CLOSELY).await;
    pubsub.publish(PodEntry::new(0, Timestamp::now()).text());
    let page = read_records(&mut messages).await;
    messages.commit(0, &page.position.unwrap());
    until("acknowledged", || pubsub.acked() == 1).await;
    messages.close().await;
    let name = concat!("gke-audit-bridge/", env!("CARGO_PKG_VERSION"));
    let agents = pubsub.user_agents();
    assert!(!agents.is_empty());
    for agent in agents {
        assert!(agent.starts_with(name), "{agent:?}");
    }
}
