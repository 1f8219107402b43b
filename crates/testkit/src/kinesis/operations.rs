//! All operations except reading: streams, lists of shards, writing, resharding (Kinesis Data
//! Streams API Reference).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::error::{ServiceError, stream_of_arn};
use super::members::{hash_key_range, seconds, text, time_ms};
use super::quota::Meter;
use super::stream::{ServedShard, Stream, hash_key, shard_id, shard_number};
use super::token::NextToken;
use super::{State, read};

/// Size limit of a record with its key, by default.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// Validity of tokens.
const TOKENS_LAST_MS: i64 = 300_000;

/// Carries out an operation and returns its answer.
pub(super) fn answer(
    state: &mut State,
    operation: &str,
    body: &Value,
) -> Result<Value, ServiceError> {
    match operation {
        "CreateStream" => create_stream(state, body),
        "DeleteStream" => delete_stream(state, body),
        "DescribeStream" => describe_stream(state, body),
        "DescribeStreamSummary" => describe_stream_summary(state, body),
        "IncreaseStreamRetentionPeriod" | "DecreaseStreamRetentionPeriod" => retain(state, body),
        "ListStreams" => Ok(list_streams(state)),
        "ListShards" => list_shards(state, body),
        "GetShardIterator" => read::get_shard_iterator(state, body),
        "GetRecords" => read::get_records(state, body),
        "PutRecord" => put_record(state, body),
        "PutRecords" => put_records(state, body),
        "SplitShard" => split_shard(state, body),
        "MergeShards" => merge_shards(state, body),
        _ => Err(ServiceError::new(
            "UnknownOperationException",
            "not known here",
        )),
    }
}

fn describe(shard: &ServedShard) -> Value {
    let first = shard.first_number().to_string();
    let mut json = json!({
        "ShardId": shard_id(shard.number),
        "HashKeyRange": hash_key_range(shard),
        "SequenceNumberRange": {"StartingSequenceNumber": first},
    });
    for (name, parent) in ["ParentShardId", "AdjacentParentShardId"]
        .iter()
        .zip(&shard.parents)
    {
        json[*name] = shard_id(*parent).into();
    }
    if let Some((_, last)) = shard.closed {
        json["SequenceNumberRange"]["EndingSequenceNumber"] = last.to_string().into();
    }
    json
}

fn create_stream(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let name = text(body, "StreamName")?;
    if state.streams.contains_key(name) {
        let text = format!(
            "Stream {name} under account {} already exists.",
            super::ACCOUNT
        );
        return Err(ServiceError::new("ResourceInUseException", text));
    }
    let on_demand = body["StreamModeDetails"]["StreamMode"] == "ON_DEMAND";
    let shards = match (body["ShardCount"].as_u64(), on_demand) {
        (Some(count @ 1..=10_000), _) => u32::try_from(count).unwrap(),
        (None, true) => 4,
        _ => {
            return Err(ServiceError::invalid(
                "ShardCount must be within 1 and 10000.",
            ));
        }
    };
    let mut stream = Stream::new(name, shards, state.clock.now_ms());
    stream.on_demand = on_demand;
    state.streams.insert(name.to_owned(), stream);
    Ok(Value::Null)
}

fn delete_stream(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let name = state.stream_of(body)?.name.clone();
    state.streams.remove(&name);
    Ok(Value::Null)
}

fn list_streams(state: &State) -> Value {
    let names: Vec<_> = state.streams.keys().collect();
    json!({"StreamNames": names, "HasMoreStreams": false})
}

fn mode(stream: &Stream) -> &'static str {
    if stream.on_demand {
        "ON_DEMAND"
    } else {
        "PROVISIONED"
    }
}

/// The members that both descriptions have in common.
fn description(stream: &Stream) -> Value {
    let mut json = json!({
        "StreamName": stream.name,
        "StreamARN": stream.arn(),
        "StreamStatus": stream.status(),
        "StreamModeDetails": {"StreamMode": mode(stream)},
        "RetentionPeriodHours": stream.retention_ms / 3_600_000,
        "StreamCreationTimestamp": seconds(stream.created_ms),
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": if stream.key.is_some() { "KMS" } else { "NONE" },
    });
    if let Some(key) = &stream.key {
        json["KeyId"] = key.as_str().into();
    }
    json
}

fn describe_stream(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let stream = state.stream_of(body)?;
    let after = body["ExclusiveStartShardId"]
        .as_str()
        .and_then(shard_number);
    let limit = count(&body["Limit"], 100);
    let mut shards = listed(stream, after);
    let more = shards.len() > limit;
    shards.truncate(limit);
    let mut json = description(stream);
    json["Shards"] = shards.into_iter().map(describe).collect();
    json["HasMoreShards"] = more.into();
    Ok(json!({"StreamDescription": json}))
}

fn describe_stream_summary(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let now = state.clock.now_ms();
    if state.settings.read_quotas {
        within(&mut state.summaries, now)?;
    }
    let stream = state.stream_of(body)?;
    let open = stream.shards.values().filter(|it| it.closed.is_none());
    let mut json = description(stream);
    json["OpenShardCount"] = open.count().into();
    json["ConsumerCount"] = 0.into();
    json["MaxRecordSizeInKiB"] = (RECORD_BYTES_MAX >> 10).into();
    Ok(json!({"StreamDescriptionSummary": json}))
}

/// Counts a call, or refuses one above the quota.
fn within(meter: &mut Meter, now_ms: i64) -> Result<(), ServiceError> {
    if !meter.admits(now_ms) {
        return Err(ServiceError::new("LimitExceededException", "Rate exceeded"));
    }
    meter.charge(now_ms, 0);
    Ok(())
}

fn retain(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let hours = body["RetentionPeriodHours"].as_i64().unwrap_or(0);
    if !(24..=8760).contains(&hours) {
        return Err(ServiceError::invalid(
            "RetentionPeriodHours must be within 24 and 8760.",
        ));
    }
    state.stream_of(body)?.retention_ms = hours * 3_600_000;
    Ok(Value::Null)
}

fn count(value: &Value, default: usize) -> usize {
    let given = value.as_u64().and_then(|it| usize::try_from(it).ok());
    given.unwrap_or(default)
}

fn listed(stream: &Stream, after: Option<u32>) -> Vec<&ServedShard> {
    let behind = |shard: &&ServedShard| after.is_none_or(|after| shard.number > after);
    stream.shards.values().filter(behind).collect()
}

fn list_shards(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let now = state.clock.now_ms();
    let (quotas, page) = (state.settings.read_quotas, state.settings.list_shards_max);
    let (name, after, filter) = place_in_list(body, now)?;
    let stream = match &name {
        Some(name) => state
            .settled(name)
            .ok_or_else(|| ServiceError::no_stream(name))?,
        None => state.stream_of(body)?,
    };
    if quotas {
        within(&mut stream.lists, now)?;
    }
    let mut shards = listed(stream, after);
    let wanted = shard_filter(stream, &filter)?;
    shards.retain(|shard| wanted(shard));
    let limit = count(&body["MaxResults"], 1000).clamp(1, page);
    let more = shards.len() > limit;
    shards.truncate(limit);
    let last = shards.last().filter(|_| more).map(|shard| shard.number);
    let shards: Vec<_> = shards.into_iter().map(describe).collect();
    let mut answer = json!({"Shards": shards});
    if let Some(after) = last {
        let token = NextToken {
            stream: stream.name.clone(),
            after,
            filter: filter.to_string(),
            issued_ms: now,
        };
        answer["NextToken"] = token.encode().into();
    }
    Ok(answer)
}

/// The position of a list: the stream if a token names it, the last shard of the page before, and
/// the filter.
fn place_in_list(
    body: &Value,
    now_ms: i64,
) -> Result<(Option<String>, Option<u32>, Value), ServiceError> {
    let Value::String(token) = &body["NextToken"] else {
        let after = &body["ExclusiveStartShardId"];
        let after = after.as_str().map(number_of).transpose()?;
        return Ok((None, after, body["ShardFilter"].clone()));
    };
    for other in [
        "StreamName",
        "ExclusiveStartShardId",
        "StreamCreationTimestamp",
    ] {
        if !body[other].is_null() {
            let text = format!("NextToken and {other} cannot be provided together.");
            return Err(ServiceError::invalid(text));
        }
    }
    let token = NextToken::decode(token)
        .ok_or_else(|| ServiceError::invalid("The provided NextToken is invalid."))?;
    if now_ms - token.issued_ms > TOKENS_LAST_MS {
        let text = "The provided NextToken is expired.";
        return Err(ServiceError::new("ExpiredNextTokenException", text));
    }
    let filter = serde_json::from_str(&token.filter).unwrap();
    Ok((Some(token.stream), Some(token.after), filter))
}

fn number_of(id: &str) -> Result<u32, ServiceError> {
    shard_number(id).ok_or_else(|| ServiceError::invalid(format!("{id} is no ID of a shard.")))
}

type Wanted = Box<dyn Fn(&ServedShard) -> bool>;

/// Parses `ShardFilter`; the kinds follow the API Reference.
fn shard_filter(stream: &Stream, filter: &Value) -> Result<Wanted, ServiceError> {
    let horizon = stream.horizon_ms.max(stream.created_ms);
    let until = |shard: &ServedShard, ms: i64| shard.closed.is_none_or(|(at, _)| at >= ms);
    let at = move |ms: i64| -> Wanted {
        Box::new(move |shard| shard.created_ms <= ms && until(shard, ms))
    };
    let time = || {
        let text = "Timestamp is required for this ShardFilter type.";
        time_ms(&filter["Timestamp"]).ok_or_else(|| ServiceError::invalid(text))
    };
    if filter.is_null() {
        return Ok(Box::new(|_| true));
    }
    Ok(match text(filter, "Type")? {
        "FROM_TRIM_HORIZON" => Box::new(|_| true),
        "AT_LATEST" => Box::new(|shard| shard.closed.is_none()),
        "AT_TRIM_HORIZON" => at(horizon),
        "AT_TIMESTAMP" => at(time()?),
        "FROM_TIMESTAMP" => {
            let from = time()?;
            Box::new(move |shard| until(shard, from))
        }
        "AFTER_SHARD_ID" => {
            let after = number_of(text(filter, "ShardId")?)?;
            Box::new(move |shard| shard.number > after)
        }
        other => {
            let text = format!("{other} is no type of ShardFilter.");
            return Err(ServiceError::invalid(text));
        }
    })
}

/// A record to write.
struct Entry {
    partition_key: String,
    hash_key: u128,
    data: Bytes,
}

fn entry(body: &Value) -> Result<Entry, ServiceError> {
    let partition_key = text(body, "PartitionKey")?.to_owned();
    if partition_key.is_empty() || partition_key.chars().count() > 256 {
        let text = "PartitionKey must have 1 to 256 characters.";
        return Err(ServiceError::new("ValidationException", text));
    }
    let data = BASE64_STANDARD
        .decode(text(body, "Data")?)
        .map_err(|_| ServiceError::new("SerializationException", "Data is no base64."))?;
    if data.len() + partition_key.len() > RECORD_BYTES_MAX {
        let text = "Record size exceeds the maximum record size of the stream.";
        return Err(ServiceError::invalid(text));
    }
    let hash_key = match body["ExplicitHashKey"].as_str() {
        None => hash_key(&partition_key),
        Some(digits) => digits
            .parse()
            .map_err(|_| ServiceError::invalid("ExplicitHashKey is no 128-bit number."))?,
    };
    Ok(Entry {
        partition_key,
        hash_key,
        data: data.into(),
    })
}

/// Writes to the hash key's shard, within its quota if quotas apply.
fn write(
    stream: &mut Stream,
    entry: Entry,
    now_ms: i64,
    quotas: bool,
) -> Result<Value, ServiceError> {
    let number = stream.open_shard(entry.hash_key);
    let shard = stream.shards.get_mut(&number).unwrap();
    if quotas {
        if !shard.written.admits(now_ms) {
            return Err(ServiceError::writes_exceeded(
                &shard_id(number),
                &stream.name,
            ));
        }
        shard
            .written
            .charge(now_ms, entry.data.len() + entry.partition_key.len());
    }
    let sequence = stream.put(number, &entry.partition_key, entry.data, now_ms);
    Ok(json!({"ShardId": shard_id(number), "SequenceNumber": sequence.to_string()}))
}

fn put_record(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let (now, quotas) = (state.clock.now_ms(), state.settings.write_quotas);
    let stream = state.stream_of(body)?;
    let mut answer = write(stream, entry(body)?, now, quotas)?;
    answer["EncryptionType"] = description(stream)["EncryptionType"].clone();
    Ok(answer)
}

fn put_records(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let (now, quotas) = (state.clock.now_ms(), state.settings.write_quotas);
    let stream = state.stream_of(body)?;
    let records = body["Records"].as_array().map_or(&[][..], Vec::as_slice);
    if !(1..=500).contains(&records.len()) {
        let text = "Records must have 1 to 500 members.";
        return Err(ServiceError::new("ValidationException", text));
    }
    let entries: Vec<Entry> = records.iter().map(entry).collect::<Result<_, _>>()?;
    let results: Vec<Value> = entries
        .into_iter()
        .map(|entry| match write(stream, entry, now, quotas) {
            Ok(written) => written,
            Err(error) => json!({"ErrorCode": error.code, "ErrorMessage": error.message}),
        })
        .collect();
    let failed = results.iter().filter(|it| it.get("ErrorCode").is_some());
    Ok(json!({
        "FailedRecordCount": failed.count(),
        "Records": results,
        "EncryptionType": description(stream)["EncryptionType"],
    }))
}

fn provisioned(stream: &Stream) -> Result<(), ServiceError> {
    let text = "The operation is only supported for streams with the PROVISIONED capacity mode.";
    let refused = || ServiceError::new("ValidationException", text);
    (!stream.on_demand).then_some(()).ok_or_else(refused)
}

fn split_shard(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let due = state.clock.now_ms() + state.settings.resharding_takes_ms;
    let id = text(body, "ShardToSplit")?;
    let at = text(body, "NewStartingHashKey")?
        .parse()
        .map_err(|_| ServiceError::invalid("NewStartingHashKey is no 128-bit number."))?;
    let stream = state.stream_of(body)?;
    provisioned(stream)?;
    stream.split(id, at, due)?;
    Ok(Value::Null)
}

fn merge_shards(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let due = state.clock.now_ms() + state.settings.resharding_takes_ms;
    let ids = [
        text(body, "ShardToMerge")?,
        text(body, "AdjacentShardToMerge")?,
    ];
    let stream = state.stream_of(body)?;
    provisioned(stream)?;
    stream.merge(ids, due)?;
    Ok(Value::Null)
}

impl State {
    /// The stream in its current state.
    pub(super) fn settled(&mut self, name: &str) -> Option<&mut Stream> {
        let now = self.clock.now_ms();
        let stream = self.streams.get_mut(name)?;
        stream.settle(now);
        Some(stream)
    }

    /// The stream of a request, by its name, its ARN, or both.
    pub(super) fn stream_of(&mut self, body: &Value) -> Result<&mut Stream, ServiceError> {
        let named = body["StreamName"].as_str();
        let of_arn = body["StreamARN"].as_str().map(stream_of_arn).transpose()?;
        let name = match (named, of_arn) {
            (Some(name), Some(other)) if name != other => {
                let text = "StreamARN and StreamName are of different streams.";
                return Err(ServiceError::invalid(text));
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => {
                let text = "Either StreamARN or StreamName must be specified.";
                return Err(ServiceError::invalid(text));
            }
        };
        self.settled(name)
            .ok_or_else(|| ServiceError::no_stream(name))
    }
}
