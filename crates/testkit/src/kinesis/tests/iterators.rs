//! Start and validity of iterators.

use super::*;

#[tokio::test(start_paused = true)]
async fn iterator_kinds_begin_where_the_reference_says() {
    let kinesis = stand_in(1);
    let mut numbers = Vec::new();
    for n in 0..5 {
        numbers.push(kinesis.put(STREAM, "k", n.to_string()).1);
        kinesis.advance(Duration::from_secs(1));
    }
    let shard = "shardId-000000000000";
    let from = |at: Value| async {
        let kind = at["kind"].as_str().unwrap().to_owned();
        let mut more = at;
        more.as_object_mut().unwrap().remove("kind");
        let iterator = iterator(&kinesis, shard, &kind, more).await;
        data(&records(&kinesis, &iterator).await).concat()
    };
    assert_eq!(from(json!({"kind": "TRIM_HORIZON"})).await, "01234");
    assert_eq!(from(json!({"kind": "LATEST"})).await, "");
    let number = &numbers[2];
    let at = json!({"kind": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number});
    assert_eq!(from(at).await, "234");
    let after = json!({"kind": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number});
    assert_eq!(from(after).await, "34");
    let time =
        |ms: i64| json!({"kind": "AT_TIMESTAMP", "Timestamp": (START_MS + ms) as f64 / 1000.0});
    assert_eq!(from(time(2000)).await, "234");
    assert_eq!(from(time(2001)).await, "34");
    assert_eq!(from(time(-1)).await, "01234");
    assert_eq!(from(time(5000)).await, "");
}

#[tokio::test(start_paused = true)]
async fn latest_iterator_sees_what_comes_after_it_was_made() {
    let kinesis = stand_in(1);
    kinesis.put(STREAM, "k", "old");
    let latest = iterator(&kinesis, "shardId-000000000000", "LATEST", json!({})).await;
    kinesis.put(STREAM, "k", "new");
    assert_eq!(data(&records(&kinesis, &latest).await), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn time_in_the_future_is_refused() {
    let kinesis = stand_in(1);
    let body = json!({
        "StreamName": STREAM, "ShardId": "shardId-000000000000",
        "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": START_MS / 1000 + 1,
    });
    let (code, message) = refusal(&kinesis, "GetShardIterator", body).await;
    assert_eq!(code, "InvalidArgumentException");
    assert!(message.contains("cannot be greater than the currentTimestampInMillis"));
}

#[tokio::test(start_paused = true)]
async fn iterator_of_five_minutes_and_more_is_expired() {
    let kinesis = stand_in(1);
    let first = iterator(&kinesis, "shardId-000000000000", "TRIM_HORIZON", json!({})).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    records(&kinesis, &first).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (code, _) = refusal(&kinesis, "GetRecords", json!({"ShardIterator": first})).await;
    assert_eq!(code, "ExpiredIteratorException");
    let second = iterator(&kinesis, "shardId-000000000000", "TRIM_HORIZON", json!({})).await;
    kinesis.expire_iterators();
    let (code, _) = refusal(&kinesis, "GetRecords", json!({"ShardIterator": second})).await;
    assert_eq!(code, "ExpiredIteratorException");
}

#[tokio::test(start_paused = true)]
async fn number_of_another_shard_or_stream_is_refused() {
    let kinesis = stand_in(2);
    let (shard, number) = kinesis.put(STREAM, "k", "x");
    let other = kinesis
        .open_shards(STREAM)
        .into_iter()
        .find(|it| *it != shard);
    let body = |shard: &str, number: &str| {
        json!({
            "StreamName": STREAM, "ShardId": shard,
            "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number,
        })
    };
    let wrong = body(&other.unwrap(), &number);
    let (code, message) = refusal(&kinesis, "GetShardIterator", wrong).await;
    assert_eq!(code, "InvalidArgumentException");
    assert!(message.contains("It encodes"), "{message}");
    let (code, _) = refusal(&kinesis, "GetShardIterator", body(&shard, "17")).await;
    assert_eq!(code, "InvalidArgumentException");

    // The stream is recreated later.
    kinesis.advance(Duration::from_secs(60));
    kinesis.create_stream(STREAM, 2);
    let (code, message) = refusal(&kinesis, "GetShardIterator", body(&shard, &number)).await;
    assert_eq!(code, "InvalidArgumentException");
    assert!(
        message.contains("did not come from this stream"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn trimmed_number_begins_at_the_oldest_record() {
    let kinesis = stand_in(1);
    let (shard, number) = kinesis.put(STREAM, "k", "old");
    kinesis.advance(Duration::from_secs(23 * 3600));
    kinesis.put(STREAM, "k", "middle");
    kinesis.put(STREAM, "k", "new");
    kinesis.advance(Duration::from_secs(3601));
    for kind in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"] {
        let more = json!({"StartingSequenceNumber": number});
        let iterator = iterator(&kinesis, &shard, kind, more).await;
        assert_eq!(data(&records(&kinesis, &iterator).await), ["middle", "new"]);
    }
}

#[tokio::test(start_paused = true)]
async fn trimmed_number_where_it_is_stuck_gives_nothing_until_the_horizon_is_asked_for() {
    let kinesis = stand_in(1);
    kinesis.trimmed_stuck(true);
    let (shard, first) = kinesis.put(STREAM, "k", "0");
    let (_, last) = kinesis.put(STREAM, "k", "1");
    kinesis.advance(Duration::from_secs(25 * 3600));
    kinesis.put(STREAM, "k", "2");
    let from = async |kind: &str, number: Option<&str>| {
        let more = number.map_or(json!({}), |it| json!({"StartingSequenceNumber": it}));
        let iterator = iterator(&kinesis, &shard, kind, more).await;
        let answer = records(&kinesis, &iterator).await;
        assert!(answer["NextShardIterator"].is_string());
        let behind = answer["MillisBehindLatest"].as_i64().unwrap();
        (data(&answer).concat(), behind)
    };
    let day = 24 * 3600 * 1000;
    let after = Some(first.as_str());
    assert_eq!(
        from("AFTER_SEQUENCE_NUMBER", after).await,
        (String::new(), day)
    );
    assert_eq!(from("TRIM_HORIZON", None).await, ("2".to_owned(), 0));
    // No record is missing after the last one that was removed.
    let after = Some(last.as_str());
    assert_eq!(
        from("AFTER_SEQUENCE_NUMBER", after).await,
        ("2".to_owned(), 0)
    );
}
