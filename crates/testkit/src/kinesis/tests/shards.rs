//! Splitting, merging, closing, listing and removing shards.

use super::*;

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
