//! Limits of answers, and quotas.

use super::*;

#[tokio::test(start_paused = true)]
async fn answer_is_limited_by_records_bytes_and_limit() {
    let kinesis = stand_in(1);
    for _ in 0..10 {
        kinesis.put(STREAM, "k", vec![b'x'; 1000]);
    }
    let count = async |limit: Option<u64>| {
        let shard = "shardId-000000000000";
        let iterator = iterator(&kinesis, shard, "TRIM_HORIZON", json!({})).await;
        let body = json!({"ShardIterator": iterator, "Limit": limit});
        let answer = kinesis.call("GetRecords", &body).await.unwrap();
        data(&answer).len()
    };
    assert_eq!(count(None).await, 10);
    assert_eq!(count(Some(3)).await, 3);
    kinesis.answer_bytes_max(2500);
    assert_eq!(count(None).await, 2);
    kinesis.answer_bytes_max(10);
    assert_eq!(
        count(None).await,
        1,
        "a record is never too large for an answer"
    );
    kinesis.answer_bytes_max(1 << 20);
    kinesis.answer_records_max(4);
    assert_eq!(count(None).await, 4);
    let body = json!({"ShardIterator": "x", "Limit": 10_001});
    let (code, _) = refusal(&kinesis, "GetRecords", body).await;
    assert_eq!(code, "InvalidArgumentException");
}

#[tokio::test(start_paused = true)]
async fn empty_answers_come_before_records() {
    let kinesis = stand_in(1);
    kinesis.empty_answers(2);
    kinesis.put(STREAM, "k", "x");
    kinesis.advance(Duration::from_secs(7));
    let mut next = iterator(&kinesis, "shardId-000000000000", "TRIM_HORIZON", json!({})).await;
    for _ in 0..2 {
        let answer = records(&kinesis, &next).await;
        assert!(data(&answer).is_empty());
        assert_eq!(answer["MillisBehindLatest"], 7000);
        next = answer["NextShardIterator"].as_str().unwrap().to_owned();
    }
    let answer = records(&kinesis, &next).await;
    assert_eq!(data(&answer), ["x"]);
    assert_eq!(answer["MillisBehindLatest"], 0);
}

#[tokio::test(start_paused = true)]
async fn quotas_refuse_the_sixth_read_and_the_second_mebibyte() {
    let kinesis = stand_in(1);
    let first = iterator(&kinesis, "shardId-000000000000", "TRIM_HORIZON", json!({})).await;
    for _ in 0..20 {
        records(&kinesis, &first).await;
    }
    // Reads before the quotas applied do not count.
    kinesis.read_quotas(true);
    kinesis.write_quotas(true);
    for _ in 0..5 {
        records(&kinesis, &first).await;
    }
    let body = json!({"ShardIterator": first});
    let (code, message) = refusal(&kinesis, "GetRecords", body.clone()).await;
    assert_eq!(code, "ProvisionedThroughputExceededException");
    assert!(
        message.starts_with("Rate exceeded for Shard - "),
        "{message}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    records(&kinesis, &first).await;

    let large = BASE64_STANDARD.encode(vec![0; 1_000_000]);
    let entry = json!({"PartitionKey": "k", "Data": large});
    let answer = ask(
        &kinesis,
        "PutRecords",
        json!({"Records": [entry, entry, entry]}),
    )
    .await;
    assert_eq!(answer["FailedRecordCount"], 1);
    assert_eq!(
        answer["Records"][2]["ErrorCode"],
        "ProvisionedThroughputExceededException"
    );
}
