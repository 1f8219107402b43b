//! Tests the stand-in against AWS's documentation, in process and with paused time.

mod filter;
mod iterators;
mod limits;
mod network;
mod order;
mod shards;

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

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

/// All remaining records of a shard, from an iterator to the shard's end or tip.
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
