//! The stand-in held against what AWS documents, in process and with paused time.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::subscription::{self, SubscribedEvent, SubscriptionOrigin};
use super::*;

const STREAM: &str = "audit";
const START_MS: i64 = 1_790_000_000_000;

fn stand_in(shards: u32) -> Kinesis {
    let kinesis = Kinesis::in_process(START_MS);
    kinesis.create_stream(STREAM, shards);
    kinesis
}

async fn ask(kinesis: &Kinesis, operation: &str, body: Value) -> Value {
    let mut body = body;
    if !matches!(operation, "GetRecords") && body.get("NextToken").is_none() {
        body["StreamName"] = STREAM.into();
    }
    kinesis.call(operation, &body).await.unwrap()
}

async fn refusal(kinesis: &Kinesis, operation: &str, body: Value) -> (String, String) {
    match kinesis.call(operation, &body).await.unwrap_err() {
        CallError::Service(error) => (error.code, error.message),
        CallError::Broken => panic!("no answer"),
    }
}

async fn iterator(kinesis: &Kinesis, shard: &str, kind: &str, more: Value) -> String {
    let mut body = json!({"ShardId": shard, "ShardIteratorType": kind});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let answer = ask(kinesis, "GetShardIterator", body).await;
    answer["ShardIterator"].as_str().unwrap().to_owned()
}

async fn records(kinesis: &Kinesis, iterator: &str) -> Value {
    ask(kinesis, "GetRecords", json!({"ShardIterator": iterator})).await
}

fn data(answer: &Value) -> Vec<String> {
    let records = answer["Records"].as_array().unwrap();
    let text = |record: &Value| {
        let data = BASE64_STANDARD.decode(record["Data"].as_str().unwrap());
        String::from_utf8(data.unwrap()).unwrap()
    };
    records.iter().map(text).collect()
}

/// All that is left of a shard, from an iterator to its end or to the tip.
async fn drain(kinesis: &Kinesis, mut iterator: String) -> (Vec<String>, Option<Value>) {
    let mut all = Vec::new();
    loop {
        let answer = records(kinesis, &iterator).await;
        let page = data(&answer);
        let more = !page.is_empty() || answer["MillisBehindLatest"].as_i64() > Some(0);
        all.extend(page);
        match answer["NextShardIterator"].as_str() {
            None => return (all, Some(answer["ChildShards"].clone())),
            Some(_) if !more => return (all, None),
            Some(next) => iterator = next.to_owned(),
        }
    }
}

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

    // The stream is made anew, later.
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
    // Nothing is missing behind the last that is gone.
    let after = Some(last.as_str());
    assert_eq!(
        from("AFTER_SEQUENCE_NUMBER", after).await,
        ("2".to_owned(), 0)
    );
}

#[tokio::test(start_paused = true)]
async fn closed_shard_ends_with_its_children_named() {
    for apart in [false, true] {
        let kinesis = stand_in(1);
        kinesis.end_apart(apart);
        kinesis.put(STREAM, "k", "parent");
        let parent = "shardId-000000000000";
        let children = kinesis.split(STREAM, parent);
        kinesis.put(STREAM, "k", "child");
        let first = iterator(&kinesis, parent, "TRIM_HORIZON", json!({})).await;
        let mut answer = records(&kinesis, &first).await;
        assert_eq!(data(&answer), ["parent"]);
        assert_eq!(answer.get("NextShardIterator").is_some(), apart);
        if apart {
            assert!(answer.get("ChildShards").is_none());
            answer = records(&kinesis, answer["NextShardIterator"].as_str().unwrap()).await;
            assert!(data(&answer).is_empty());
            assert!(answer.get("NextShardIterator").is_none());
        }
        let named = answer["ChildShards"].as_array().unwrap();
        let ids: Vec<_> = named
            .iter()
            .map(|it| it["ShardId"].as_str().unwrap())
            .collect();
        assert_eq!(ids, children);
        assert!(named.iter().all(|it| it["ParentShards"] == json!([parent])));
        let latest = iterator(&kinesis, parent, "LATEST", json!({})).await;
        let end = records(&kinesis, &latest).await;
        assert!(
            end.get("NextShardIterator").is_none(),
            "a closed shard has no future"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn closed_shard_is_listed_until_its_retention_is_over() {
    let kinesis = stand_in(2);
    let ids = kinesis.open_shards(STREAM);
    kinesis.put(STREAM, "k", "x");
    let child = kinesis.merge(STREAM, &ids[0], &ids[1]);
    let list = ask(&kinesis, "ListShards", json!({})).await;
    let shards = list["Shards"].as_array().unwrap();
    assert_eq!(shards.len(), 3);
    assert!(shards[0]["SequenceNumberRange"]["EndingSequenceNumber"].is_string());
    assert_eq!(shards[2]["ParentShardId"], ids[0]);
    assert_eq!(shards[2]["AdjacentParentShardId"], ids[1]);
    assert!(
        shards[2]["SequenceNumberRange"]
            .get("EndingSequenceNumber")
            .is_none()
    );
    let old = iterator(&kinesis, &ids[0], "TRIM_HORIZON", json!({})).await;

    kinesis.iterators_last(Duration::from_secs(1_000_000));
    kinesis.advance(Duration::from_secs(24 * 3600 + 1));
    let list = ask(&kinesis, "ListShards", json!({})).await;
    assert_eq!(list["Shards"].as_array().unwrap().len(), 1);
    assert_eq!(list["Shards"][0]["ShardId"], child);
    let body =
        json!({"StreamName": STREAM, "ShardId": ids[0], "ShardIteratorType": "TRIM_HORIZON"});
    let (code, _) = refusal(&kinesis, "GetShardIterator", body).await;
    assert_eq!(code, "ResourceNotFoundException");
    let (code, _) = refusal(&kinesis, "GetRecords", json!({"ShardIterator": old})).await;
    assert_eq!(code, "ResourceNotFoundException");
}

#[tokio::test(start_paused = true)]
async fn list_in_pages_names_each_shard_once() {
    let kinesis = stand_in(7);
    let mut found = Vec::new();
    let mut body = json!({"MaxResults": 3, "StreamName": STREAM});
    loop {
        let answer = kinesis.call("ListShards", &body).await.unwrap();
        let shards = answer["Shards"].as_array().unwrap().clone();
        found.extend(
            shards
                .iter()
                .map(|it| it["ShardId"].as_str().unwrap().to_owned()),
        );
        match answer.get("NextToken") {
            Some(token) => body = json!({"MaxResults": 3, "NextToken": token}),
            None => break,
        }
    }
    let all: Vec<_> = (0..7).map(|n| format!("shardId-{n:012}")).collect();
    assert_eq!(found, all);
    body["StreamName"] = STREAM.into();
    let (code, _) = refusal(&kinesis, "ListShards", body.clone()).await;
    assert_eq!(code, "InvalidArgumentException");
    kinesis.advance(Duration::from_secs(301));
    body.as_object_mut().unwrap().remove("StreamName");
    let (code, _) = refusal(&kinesis, "ListShards", body).await;
    assert_eq!(code, "ExpiredNextTokenException");
}

#[tokio::test(start_paused = true)]
async fn shard_filter_chooses_by_time_and_state() {
    let kinesis = stand_in(2);
    kinesis.advance(Duration::from_secs(100));
    let parent = kinesis.open_shards(STREAM).remove(0);
    kinesis.split(STREAM, &parent);
    kinesis.advance(Duration::from_secs(100));
    let seconds = |s: i64| START_MS / 1000 + s;
    let listed = async |filter: Value| -> Vec<u64> {
        let answer = ask(&kinesis, "ListShards", json!({"ShardFilter": filter})).await;
        let number = |it: &Value| {
            let id = it["ShardId"].as_str().unwrap();
            id.rsplit('-').next().unwrap().parse().unwrap()
        };
        answer["Shards"]
            .as_array()
            .unwrap()
            .iter()
            .map(number)
            .collect()
    };
    assert_eq!(listed(json!({"Type": "AT_LATEST"})).await, [1, 2, 3]);
    assert_eq!(listed(json!({"Type": "AT_TRIM_HORIZON"})).await, [0, 1]);
    assert_eq!(
        listed(json!({"Type": "FROM_TRIM_HORIZON"})).await,
        [0, 1, 2, 3]
    );
    let at = |kind: &str, s: i64| json!({"Type": kind, "Timestamp": seconds(s)});
    assert_eq!(listed(at("AT_TIMESTAMP", 50)).await, [0, 1]);
    assert_eq!(listed(at("AT_TIMESTAMP", 150)).await, [1, 2, 3]);
    assert_eq!(listed(at("FROM_TIMESTAMP", 50)).await, [0, 1, 2, 3]);
    assert_eq!(listed(at("FROM_TIMESTAMP", 150)).await, [1, 2, 3]);
    let after = json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000001"});
    assert_eq!(listed(after).await, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn resharding_in_progress_refuses_another_and_takes_records() {
    let kinesis = stand_in(1);
    kinesis.resharding_takes(Duration::from_secs(30));
    let split = json!({
        "StreamName": STREAM, "ShardToSplit": "shardId-000000000000",
        "NewStartingHashKey": (u128::MAX / 2).to_string(),
    });
    kinesis.call("SplitShard", &split).await.unwrap();
    let summary = ask(&kinesis, "DescribeStreamSummary", json!({})).await;
    assert_eq!(
        summary["StreamDescriptionSummary"]["StreamStatus"],
        "UPDATING"
    );
    let (code, _) = refusal(&kinesis, "SplitShard", split.clone()).await;
    assert_eq!(code, "ResourceInUseException");
    assert_eq!(kinesis.put(STREAM, "k", "x").0, "shardId-000000000000");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let summary = ask(&kinesis, "DescribeStreamSummary", json!({})).await;
    assert_eq!(
        summary["StreamDescriptionSummary"]["StreamStatus"],
        "ACTIVE"
    );
    assert_eq!(summary["StreamDescriptionSummary"]["OpenShardCount"], 2);
    assert_ne!(kinesis.put(STREAM, "k", "x").0, "shardId-000000000000");
    let (code, _) = refusal(&kinesis, "SplitShard", split).await;
    assert_eq!(code, "InvalidArgumentException");
}

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
    // What was read before there were quotas does not count.
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

/// What comes back on the network, until the connection ends.
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

#[tokio::test(start_paused = true)]
async fn child_read_before_its_parents_end_is_a_breach() {
    let kinesis = stand_in(1);
    kinesis.put(STREAM, "k", "parent");
    let parent = "shardId-000000000000";
    kinesis.split(STREAM, parent);
    let (child, _) = kinesis.put(STREAM, "k", "child");
    let of_child = iterator(&kinesis, &child, "TRIM_HORIZON", json!({})).await;
    records(&kinesis, &of_child).await;
    let breach = OrderBreach {
        child,
        parent: parent.to_owned(),
        unserved: 1,
    };
    assert_eq!(
        kinesis.order_breaches(STREAM),
        std::slice::from_ref(&breach)
    );
    let of_parent = iterator(&kinesis, parent, "TRIM_HORIZON", json!({})).await;
    records(&kinesis, &of_parent).await;
    records(&kinesis, &of_child).await;
    assert_eq!(kinesis.order_breaches(STREAM), [breach]);
}

#[test]
fn subscription_record_is_read_as_it_was_written() {
    let subscription = SubscriptionOrigin::of_cluster(ACCOUNT, "prod");
    let events = [0, 1, 2].map(|n| SubscribedEvent::new(n, START_MS, format!("{{\"n\":{n}}}")));
    let lines = subscription::read(&subscription.record(&events));
    assert!(lines.iter().all(|line| line.subscription == subscription));
    assert_eq!(
        lines.into_iter().map(|it| it.event).collect::<Vec<_>>(),
        events
    );
    let kinesis = stand_in(1);
    kinesis.deliver(STREAM, &subscription, &events);
    kinesis.put(STREAM, "k", subscription::control_message(START_MS));
    assert_eq!(kinesis.written_lines(STREAM).len(), 3);
    for (what, record) in subscription::foreign_records() {
        assert!(subscription::read(&record).is_empty(), "{what}");
    }
    assert!(subscription::bomb(10 << 20).len() < 20 << 10);
}

#[tokio::test]
async fn filter_that_is_off_skips_what_is_filed() {
    let (logs, kinesis) = (crate::CloudWatch::start().await, stand_in(1));
    let subscription = SubscriptionOrigin::of_cluster(ACCOUNT, "prod");
    let filter = SubscriptionFilter::new(&logs, &kinesis, STREAM, subscription);
    let delivered = || {
        let lines = kinesis.written_lines(STREAM);
        let messages: Vec<_> = lines.into_iter().map(|it| it.event.message).collect();
        messages.concat()
    };
    let first = filter.file(START_MS, &["a".to_owned(), "b".to_owned()]);
    filter.switch_off(true);
    filter.file(START_MS, &["c".to_owned()]);
    filter.switch_off(false);
    filter.other_ids(true);
    let last = filter.file(START_MS, &["d".to_owned()]);
    assert_eq!(delivered(), "abd");
    assert_eq!(kinesis.written(STREAM).len(), 2);
    filter.deliver(&first);
    assert_eq!(delivered(), "abdab");
    // The group numbers from one.
    let id = |number: usize| SubscribedEvent::new(number, START_MS, "").id;
    assert_eq!([&first[0].id, &first[1].id], [&id(1), &id(2)]);
    assert!((1..5).all(|number| last[0].id != id(number)));
}

/// One step of a writer, of who reshards, or of time.
#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Reshard(u64),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Put),
        2 => any::<u64>().prop_map(Step::Reshard),
        1 => any::<u16>().prop_map(Step::Pass),
    ]
}

fn apply(kinesis: &Kinesis, step: &Step, number: usize) {
    match step {
        Step::Put(key) => {
            let data = format!("{key}/{number:06}");
            kinesis.put(STREAM, &format!("key-{key}"), data);
        }
        Step::Reshard(choice) => {
            kinesis.reshard(STREAM, *choice, 16);
        }
        Step::Pass(ms) => kinesis.advance(Duration::from_millis(u64::from(*ms))),
    }
}

/// Reads as a consumer should: the children of a shard after all of its parents.
async fn read_in_order(kinesis: &Kinesis) -> Vec<String> {
    let mut read = Vec::new();
    let mut done = std::collections::HashSet::new();
    loop {
        let shards = kinesis.shards(STREAM);
        let ready = |it: &&ShardStatus| {
            !done.contains(&it.shard_id) && it.parents.iter().all(|it| done.contains(it))
        };
        let Some(shard) = shards.iter().find(ready) else {
            return read;
        };
        let iterator = iterator(kinesis, &shard.shard_id, "TRIM_HORIZON", json!({})).await;
        let (records, children) = drain(kinesis, iterator).await;
        assert_eq!(children.is_none(), shard.open, "{shard:?}");
        read.extend(records);
        done.insert(shard.shard_id.clone());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn reader_in_order_gets_each_record_once_and_each_key_in_order(
        steps in prop::collection::vec(step(), 1..120),
        shards in 1u32..4,
        records_max in 1usize..5,
        empty in 0usize..2,
        apart in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { let mut it = runtime; it.enable_time().start_paused(true).build().unwrap() };
        runtime.block_on(async {
            let kinesis = stand_in(shards);
            kinesis.answer_records_max(records_max);
            kinesis.empty_answers(empty);
            kinesis.end_apart(apart);
            for (number, step) in steps.iter().enumerate() {
                apply(&kinesis, step, number);
            }
            let open: Vec<_> = kinesis.shards(STREAM).into_iter().filter(|it| it.open).collect();
            let width: u128 = open.iter().map(|it| it.hash_keys.1 - it.hash_keys.0).sum();
            assert_eq!(width, u128::MAX - (open.len() as u128 - 1), "the open shards are a partition");

            let read = read_in_order(&kinesis).await;
            let mut written: Vec<String> = kinesis
                .written(STREAM)
                .iter()
                .map(|it| String::from_utf8(it.data.to_vec()).unwrap())
                .collect();
            let of_key = |all: &[String], key: u8| -> Vec<String> {
                let prefix = format!("{key}/");
                all.iter().filter(|it| it.starts_with(&prefix)).cloned().collect()
            };
            for key in 0..=u8::MAX {
                assert_eq!(of_key(&read, key), of_key(&written, key));
            }
            let mut read = read;
            read.sort();
            written.sort();
            assert_eq!(read, written);
            assert!(kinesis.unserved(STREAM).is_empty());
            assert!(kinesis.order_breaches(STREAM).is_empty());
            assert!(kinesis.served(STREAM).values().all(|times| *times == 1));
        });
    }
}
