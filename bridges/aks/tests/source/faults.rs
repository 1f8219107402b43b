//! Links that end in every way: nothing is lost, nothing comes twice, partitions do not wait for
//! each other.

use azure_messaging_eventhubs::{ConsumerClient, OpenReceiverOptions};
use futures_util::StreamExt as _;

use super::*;

/// Publishes on all partitions while `harm` is done again and again, and reads all of it.
async fn survives(hubs: &EventHubs, partitions: usize, harm: impl AsyncFn(usize)) -> Got {
    hubs.add_hub(HUB, partitions);
    let mut source = open(hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    let rounds = 6;
    for round in 0..rounds {
        for number in 0..10 {
            for partition in 0..partitions {
                hubs.publish(HUB, partition, body(&format!("{}", round * 10 + number)));
            }
        }
        // Some are on their way when it happens.
        read(&mut source, &mut got, round * 10 * partitions + partitions).await;
        harm(round).await;
        hubs.publish(HUB, 0, body("marker"));
        let markers = round + 1;
        let want = (round + 1) * 10 * partitions + markers;
        read(&mut source, &mut got, want).await;
    }
    listen(&mut source, &mut got, Duration::from_millis(500)).await;
    // One for each partition, and one that looks for new partitions: what was replaced is closed.
    until(|| hubs.connections_now() <= partitions + 1).await;
    let want: Vec<_> = (0..rounds * 10).map(|number| number.to_string()).collect();
    for partition in 0..partitions {
        let names = got.of(u32::try_from(partition).unwrap());
        let names: Vec<_> = names.into_iter().filter(|name| *name != "marker").collect();
        assert_eq!(names, want, "partition {partition}");
    }
    got
}

#[tokio::test]
async fn link_detached_is_reopened_behind_the_last_message() {
    let hubs = EventHubs::start().await;
    survives(&hubs, 3, async |round| {
        hubs.detach(HUB, round % 3);
    })
    .await;
    assert!(hubs.attached().len() > 3);
}

#[tokio::test]
async fn connection_cut_is_reopened_behind_the_last_message() {
    let hubs = EventHubs::start().await;
    survives(&hubs, 3, async |_| hubs.cut()).await;
}

#[tokio::test]
async fn connection_refused_is_retried_until_accepted() {
    let hubs = EventHubs::start().await;
    survives(&hubs, 2, async |round| {
        if round % 3 == 1 {
            hubs.stop_listening().await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            hubs.come_back().await;
        }
    })
    .await;
}

#[tokio::test]
async fn token_expired_is_put_again() {
    let hubs = EventHubs::start().await;
    hubs.token_lifetime(Duration::from_millis(700));
    survives(&hubs, 2, async |_| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        hubs.expire_tokens();
    })
    .await;
    let tokens = hubs.tokens();
    assert!(tokens.len() > 8, "{}", tokens.len());
    assert!(
        tokens
            .iter()
            .all(|put| put.kind == "jwt" && put.token == "fake")
    );
}

#[tokio::test]
async fn link_slow_loses_nothing() {
    let hubs = EventHubs::start().await;
    hubs.latency(Duration::from_millis(30));
    hubs.rate(200_000);
    survives(&hubs, 2, async |round| {
        if round == 3 {
            hubs.cut();
        }
    })
    .await;
}

#[tokio::test]
async fn partition_failing_holds_up_no_other() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 3);
    let mut begun = resume(Start::Earliest);
    // Nobody would find this partition's position: it is silent for as long as it is looked for.
    begun.positions = (0..3)
        .map(|index| (index, serde_json::json!({"sequence_number": -1})))
        .collect();
    hubs.silence(HUB, 1, true);
    let mut source = open(&hubs, begun).await.unwrap();
    for number in 0..200 {
        for partition in 0..3 {
            hubs.publish(HUB, partition, body(&number.to_string()));
        }
        if number % 20 == 0 {
            hubs.detach(HUB, 1);
        }
    }
    let mut got = Got::default();
    read(&mut source, &mut got, 400).await;
    assert_eq!((got.of(0).len(), got.of(2).len()), (200, 200));
    hubs.silence(HUB, 1, false);
    read(&mut source, &mut got, 600).await;
    assert_eq!(got.of(1).len(), 200);
}

#[tokio::test]
async fn link_silent_with_more_to_read_is_reopened() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let begun = resume(Start::Earliest);
    let telemetry = begun.telemetry.clone();
    let mut source = open(&hubs, begun).await.unwrap();
    hubs.publish(HUB, 0, body("before"));
    let mut got = Got::default();
    read(&mut source, &mut got, 1).await;
    hubs.silence(HUB, 0, true);
    hubs.publish(HUB, 0, body("behind"));
    let links = hubs.attached().len();
    let (woken, _) = tokio::join!(
        until(|| hubs.attached().len() > links),
        listen(&mut source, &mut got, Duration::from_secs(5)),
    );
    let () = woken;
    hubs.silence(HUB, 0, false);
    read(&mut source, &mut got, 2).await;
    assert_eq!(got.of(0), ["before", "behind"]);
    assert!(
        metric(
            &telemetry,
            "audit_bridge_source_requests_total{status=\"ended\"}"
        ) >= 1.0
    );
}

#[tokio::test]
async fn pipeline_not_reading_stops_the_prefetch() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 4);
    let large = body(&"x".repeat(1 << 20));
    for _ in 0..40 {
        for partition in 0..4 {
            hubs.publish(HUB, partition, large.clone());
        }
    }
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    read_until(&mut source, &mut got, |got| got.positions.len() == 4).await;
    until(|| hubs.attached_now() == 4).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let waiting = hubs.sent();
    // 4 MiB each may be on their way, and a message more in each reader's hands.
    assert!(waiting <= 4 * 7, "{waiting} messages are on their way");
    read(&mut source, &mut got, 160).await;
}

#[tokio::test]
async fn partition_stolen_is_reported_and_taken_back() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 2);
    for partition in 0..2 {
        hubs.publish(HUB, partition, body("before"));
    }
    let begun = resume(Start::Earliest);
    let telemetry = begun.telemetry.clone();
    let mut source = open(&hubs, begun).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 2).await;

    // Somebody else reads partition 0 with an owner level.
    let thief = ConsumerClient::builder()
        .with_custom_endpoint(hubs.endpoint())
        .open(
            "audit.servicebus.windows.net",
            HUB.to_owned(),
            Arc::new(FakeTokens),
        )
        .await
        .unwrap();
    let options = OpenReceiverOptions {
        owner_level: Some(1),
        ..OpenReceiverOptions::default()
    };
    let receiver = thief
        .open_receiver_on_partition("0".to_owned(), Some(options))
        .await
        .unwrap();
    {
        let mut events = Box::pin(receiver.stream_events());
        let stolen = async {
            let why = || telemetry.unready().remove("source").unwrap_or_default();
            until(|| why().contains("owner level")).await;
        };
        tokio::select! {
            _ = events.next() => panic!("nothing is published yet"),
            ((), ()) = async { tokio::join!(
                stolen,
                listen(&mut source, &mut got, Duration::from_secs(4)),
            ) } => {}
        }
        hubs.publish(HUB, 0, body("stolen"));
        hubs.publish(HUB, 1, body("undisturbed"));
        read(&mut source, &mut got, 3).await;
        assert_eq!(got.of(1), ["before", "undisturbed"]);
        let event = timeout(MUST_COME, events.next()).await.unwrap();
        assert!(event.unwrap().is_ok());
    }
    thief.close().await.unwrap();

    // What the other one read is delivered all the same.
    read(&mut source, &mut got, 4).await;
    assert_eq!(got.of(0), ["before", "stolen"]);
}

#[tokio::test]
async fn source_dropped_leaves_no_connection() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 4);
    for _ in 0..3 {
        // Messages wait at each link when it is closed.
        for number in 0..50 {
            for partition in 0..4 {
                hubs.publish(HUB, partition, body(&number.to_string()));
            }
        }
        let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
        let mut got = Got::default();
        read_until(&mut source, &mut got, |got| got.positions.len() == 4).await;
        until(|| hubs.attached_now() == 4).await;
        drop(source);
        until(|| hubs.connections_now() == 0).await;
    }
}

/// Reads until there is a page without records that says up to when it read.
async fn until_nothing_more(source: &mut EventHub, after: Timestamp) {
    let wait = async {
        while let Some(page) = source.read().await {
            let said = page.read_to.is_some_and(|to| to.time > after);
            if page.records.is_empty() && said {
                return;
            }
        }
    };
    timeout(MUST_COME, wait).await.expect("it is said in time");
}

#[tokio::test]
async fn partition_quiet_reports_its_end_only_without_more() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    hubs.publish(HUB, 0, body("first"));
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 1).await;
    for _ in 0..3 {
        until_nothing_more(&mut source, Timestamp::now()).await;
    }
    // The link falls silent, and only then something comes.
    hubs.silence(HUB, 0, true);
    hubs.publish(HUB, 0, body("second"));
    let published = Timestamp::now();
    let lied = timeout(
        Duration::from_secs(3),
        until_nothing_more(&mut source, published),
    )
    .await;
    assert!(lied.is_err(), "there is more");
    hubs.silence(HUB, 0, false);
    read(&mut source, &mut got, 2).await;
    until_nothing_more(&mut source, Timestamp::now()).await;
}

/// Whoever may send to the hub may send what no service of Azure sends.
#[tokio::test]
async fn message_without_data_is_kept_and_its_neighbours_are_read() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    hubs.publish(HUB, 0, body("before"));
    hubs.publish_list(HUB, 0, &["of another kind"]);
    hubs.publish(HUB, 0, "");
    hubs.publish(HUB, 0, body("after"));
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 4).await;
    let of = got.of(0);
    assert_eq!((of[0], of[2], of[3]), ("before", "", "after"));
    assert!(of[1].starts_with("AMQP value: List"), "{of:?}");
}

#[tokio::test]
async fn message_that_cannot_be_decoded_holds_up_no_other() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    hubs.publish(HUB, 0, body("before"));
    for _ in 0..3 {
        hubs.publish_undecodable(HUB, 0);
    }
    hubs.publish(HUB, 0, body("after"));
    hubs.publish_undecodable(HUB, 0);
    let mut source = open(&hubs, resume(Start::Earliest)).await.unwrap();
    let mut got = Got::default();
    read(&mut source, &mut got, 6).await;
    let of = got.of(0);
    assert_eq!((of[0], of[4]), ("before", "after"));
    for undecodable in [1, 2, 3, 5] {
        assert!(of[undecodable].contains("cannot be decoded"), "{of:?}");
    }
    // The position never passes what was only derived.
    assert_eq!(got.positions[&0]["sequence_number"], 4);
    hubs.publish(HUB, 0, body("behind"));
    read(&mut source, &mut got, 7).await;
    assert_eq!(got.of(0)[6], "behind");
    assert_eq!(got.positions[&0]["sequence_number"], 6);
}
