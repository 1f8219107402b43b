//! Names, scripted faults, and the protocol.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test(start_paused = true)]
async fn stream_is_found_by_name_and_arn() {
    let kinesis = Kinesis::in_process(START_MS);
    let arn = kinesis.create_stream(STREAM, 1);
    let summary = async |body: Value| kinesis.call("DescribeStreamSummary", &body).await;
    assert!(summary(json!({"StreamARN": arn})).await.is_ok());
    assert!(
        summary(json!({"StreamARN": arn, "StreamName": STREAM}))
            .await
            .is_ok()
    );
    assert!(summary(json!({})).await.is_err());
    assert!(
        summary(json!({"StreamARN": arn, "StreamName": "other"}))
            .await
            .is_err()
    );
    let other = arn.replace(REGION, "us-east-1");
    let (code, _) = refusal(
        &kinesis,
        "DescribeStreamSummary",
        json!({"StreamARN": other}),
    )
    .await;
    assert_eq!(code, "ResourceNotFoundException");
}

#[tokio::test(start_paused = true)]
async fn scripted_faults_hit_their_operation_only() {
    let kinesis = stand_in(1);
    kinesis.script("GetRecords", [throughput_exceeded(), CloudWatchFault::Cut]);
    let first = iterator(&kinesis, "shardId-000000000000", "TRIM_HORIZON", json!({})).await;
    kinesis.put(STREAM, "k", "x");
    let body = json!({"ShardIterator": first});
    let (code, _) = refusal(&kinesis, "GetRecords", body.clone()).await;
    assert_eq!(code, "ProvisionedThroughputExceededException");
    assert_eq!(
        kinesis.call("GetRecords", &body).await,
        Err(CallError::Broken)
    );
    assert_eq!(
        kinesis.unserved(STREAM).len(),
        1,
        "a cut answer serves nothing"
    );
    records(&kinesis, &first).await;
    assert!(kinesis.unserved(STREAM).is_empty());
    kinesis.refuse("GetRecords", access_denied("GetRecords"));
    for _ in 0..3 {
        let (code, _) = refusal(&kinesis, "GetRecords", body.clone()).await;
        assert_eq!(code, "AccessDeniedException");
    }
    kinesis.clear_faults();
    records(&kinesis, &first).await;
    assert_eq!(kinesis.calls("GetRecords"), 7);
}

#[tokio::test(start_paused = true)]
async fn chosen_fault_hits_one_shard() {
    let kinesis = stand_in(2);
    let slow = "shardId-000000000001";
    kinesis.choose(move |request| {
        let iterator = request.body["ShardIterator"].as_str()?;
        let shard = shard_of_iterator(iterator)?;
        (shard == slow).then(|| CloudWatchFault::Slow(Duration::from_secs(5)))
    });
    for shard in ["shardId-000000000000", slow] {
        let first = iterator(&kinesis, shard, "TRIM_HORIZON", json!({})).await;
        records(&kinesis, &first).await;
    }
    assert_eq!(kinesis.now_ms(), START_MS + 5000);
    let reads = kinesis.reads(STREAM);
    assert_eq!(reads[1].shard_id, slow);
    assert_eq!(
        (reads[1].at_ms, reads[1].records, reads[1].end),
        (START_MS, 0, false)
    );
}

/// The raw answer on the network, until the connection ends.
async fn post(kinesis: &Kinesis, operation: &str, body: &Value) -> String {
    let address = kinesis.url().replace("http://", "");
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\
         x-amz-target: Kinesis_20131202.{operation}\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=AKIA/20261121/x, Signature=0\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn network_carries_answers_refusals_and_faults() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream(STREAM, 1);
    let body = json!({"StreamName": STREAM});
    let (head, answer) = {
        let answer = post(&kinesis, "ListShards", &body).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.to_owned(),
            serde_json::from_str::<Value>(body).unwrap(),
        )
    };
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/x-amz-json-1.1"), "{head}");
    assert_eq!(answer, kinesis.call("ListShards", &body).await.unwrap());
    assert_eq!(kinesis.recorded()[0].access_key.as_deref(), Some("AKIA"));

    let refused = post(&kinesis, "ListShards", &json!({"StreamName": "none"})).await;
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    assert!(refused.contains("ResourceNotFoundException"), "{refused}");
    let unknown = post(&kinesis, "SubscribeToShard", &body).await;
    assert!(unknown.contains("UnknownOperationException"), "{unknown}");

    kinesis.script(
        "ListShards",
        [
            CloudWatchFault::Cut,
            CloudWatchFault::Garbage,
            internal_failure(),
        ],
    );
    let cut = post(&kinesis, "ListShards", &body).await;
    assert!(!cut.contains(&answer.to_string()), "{cut}");
    assert!(
        post(&kinesis, "ListShards", &body)
            .await
            .ends_with("<html>")
    );
    assert!(
        post(&kinesis, "ListShards", &body)
            .await
            .starts_with("HTTP/1.1 500")
    );
}

#[tokio::test(start_paused = true)]
async fn held_answer_leaves_when_it_is_released() {
    let kinesis = Arc::new(stand_in(1));
    kinesis.hold("ListShards");
    let asked = Arc::clone(&kinesis);
    let task = tokio::spawn(async move { ask(&asked, "ListShards", json!({})).await });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!task.is_finished());
    ask(&kinesis, "DescribeStreamSummary", json!({})).await;
    kinesis.release();
    assert_eq!(task.await.unwrap()["Shards"].as_array().unwrap().len(), 1);
}
