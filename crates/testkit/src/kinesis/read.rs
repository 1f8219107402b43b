//! `GetShardIterator` and `GetRecords` (Kinesis Data Streams API Reference).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::entries::{OrderBreach, ReadCall};
use super::error::ServiceError;
use super::sequence::ServedSequenceNumber;
use super::stream::{ServedShard, Stream, StreamRecord, shard_id};
use super::token::ShardIterator;
use super::{ACCOUNT, Settings, State, members};

/// Most records in an answer.
pub(super) const ANSWER_RECORDS_MAX: usize = 10_000;
/// Most bytes in an answer, keys included.
pub(super) const ANSWER_BYTES_MAX: usize = 10 << 20;

pub(super) fn get_shard_iterator(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let now = state.clock.now_ms();
    let read_quotas = state.settings.read_quotas;
    let generation = state.generation;
    let id = members::text(body, "ShardId")?.to_owned();
    let stream = state.stream_of(body)?;
    let name = stream.name.clone();
    let from = start(stream.shard(&id)?, &name, body, now)?;
    let number = stream.shard(&id)?.number;
    if read_quotas {
        let shard = stream.shards.get_mut(&number).unwrap();
        if !shard.iterators.admits(now) {
            return Err(ServiceError::reads_exceeded(&shard_id(number), &name));
        }
        shard.iterators.charge(now, 0);
    }
    let iterator = ShardIterator {
        stream: name,
        shard: number,
        from,
        issued_ms: now,
        generation,
    };
    Ok(json!({"ShardIterator": iterator.encode()}))
}

/// Where an iterator of each type starts. A closed shard has iterators too; `LATEST` is then its
/// end.
fn start(
    shard: &ServedShard,
    stream: &str,
    body: &Value,
    now_ms: i64,
) -> Result<ServedSequenceNumber, ServiceError> {
    let kind = members::text(body, "ShardIteratorType")?;
    let number = body["StartingSequenceNumber"].as_str();
    match (kind, number) {
        ("TRIM_HORIZON", None) => Ok(shard.horizon()),
        ("LATEST", None) => Ok(shard.tip()),
        ("AT_TIMESTAMP", None) => at_timestamp(shard, body, now_ms),
        ("AT_SEQUENCE_NUMBER", Some(number)) => of_shard(shard, stream, number),
        ("AFTER_SEQUENCE_NUMBER", Some(number)) => Ok(of_shard(shard, stream, number)?.next()),
        ("TRIM_HORIZON" | "LATEST", Some(_)) => Err(mismatch(kind, "also a")),
        ("AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER", None) => Err(mismatch(kind, "no")),
        _ => Err(ServiceError::new(
            "ValidationException",
            format!(
                "1 validation error detected: Value '{kind}' at 'shardIteratorType' failed to \
                 satisfy constraint: Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, \
                 LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]"
            ),
        )),
    }
}

fn mismatch(kind: &str, number: &str) -> ServiceError {
    ServiceError::invalid(format!(
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and \
         StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. \
         Request specified {kind} and {number} StartingSequenceNumber."
    ))
}

/// "If a record with this exact time stamp does not exist, the iterator returned is for the next
/// (later) record"; a time in the service's future is refused.
fn at_timestamp(
    shard: &ServedShard,
    body: &Value,
    now_ms: i64,
) -> Result<ServedSequenceNumber, ServiceError> {
    let Some(at_ms) = members::time_ms(&body["Timestamp"]) else {
        return Err(ServiceError::invalid(
            "Must specify timestamp parameter for iterator of type AT_TIMESTAMP. Current request \
             has no timestamp parameter.",
        ));
    };
    if at_ms > now_ms {
        return Err(ServiceError::invalid(format!(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
             timestampInMillis: {at_ms}, currentTimestampInMillis: {now_ms}"
        )));
    }
    let later = shard.records.iter().find(|it| it.arrival_ms >= at_ms);
    Ok(later.map_or(shard.tip(), |record| record.sequence))
}

/// Accepts any sequence number of this shard, whether or not its record is still there or ever was.
/// That a trimmed number starts at the oldest record is inferred: Kinesis documents no error for
/// it, unlike DynamoDB Streams (`TrimmedDataAccessException`), and consumers report that they
/// started at the oldest record (gosoline's pull request 1124). Others report that they got nothing
/// for long: [`super::Kinesis::trimmed_stuck`]. The refusals were observed: "It encodes shardId-…"
/// (boto3's issue 1478, amazon-kinesis-client's issue 391), "did not come from this stream"
/// (amazon-kinesis-connectors' issue 8).
fn of_shard(
    shard: &ServedShard,
    stream: &str,
    text: &str,
) -> Result<ServedSequenceNumber, ServiceError> {
    let id = shard_id(shard.number);
    let invalid = |why: &str| {
        ServiceError::invalid(format!(
            "StartingSequenceNumber {text} used in GetShardIterator on shard {id} in stream \
             {stream} under account {ACCOUNT} is invalid{why}."
        ))
    };
    let (number, parts) = ServedSequenceNumber::parse(text).ok_or_else(|| invalid(""))?;
    if parts.shard != shard.number {
        return Err(ServiceError::invalid(format!(
            "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard \
             with {id}",
            shard_id(parts.shard)
        )));
    }
    if parts.created_s != shard.first.created_s {
        return Err(invalid(" because it did not come from this stream"));
    }
    Ok(number)
}

pub(super) fn get_records(state: &mut State, body: &Value) -> Result<Value, ServiceError> {
    let now = state.clock.now_ms();
    let limit = limit(body)?;
    let mut iterator = valid_iterator(state, body, now)?;
    let settings = state.settings.clone();
    let (generation, intact) = (state.generation, state.intact);
    let id = shard_id(iterator.shard);
    let missing = || ServiceError::no_shard(&id, &iterator.stream);
    let stream = state.settled(&iterator.stream).ok_or_else(missing)?;
    if let Value::String(arn) = &body["StreamARN"]
        && *arn != stream.arn()
    {
        return Err(ServiceError::invalid("The iterator is of another stream."));
    }
    let retention_ms = stream.retention_ms;
    let shard = stream.shards.get_mut(&iterator.shard).ok_or_else(missing)?;
    if settings.read_quotas && !shard.read.admits(now) {
        return Err(ServiceError::reads_exceeded(&id, &iterator.stream));
    }
    let reading = if settings.trimmed_stuck && shard.is_trimmed(iterator.from) {
        Reading::stuck(iterator.from, retention_ms)
    } else {
        read(shard, iterator.from, limit, &settings, now)
    };
    if settings.read_quotas {
        let bytes = reading.records.iter().map(size).sum();
        shard.read.charge(now, bytes);
    }
    iterator.from = reading.next;
    iterator.issued_ms = now;
    iterator.generation = generation;
    let encrypted = stream.key.is_some();
    let records = reading.records.iter().map(|it| record(it, encrypted));
    let mut answer = json!({
        "Records": records.collect::<Vec<_>>(),
        "MillisBehindLatest": reading.behind_ms,
    });
    if reading.end {
        answer["ChildShards"] = child_shards(stream, iterator.shard);
    } else {
        answer["NextShardIterator"] = iterator.encode().into();
    }
    if intact {
        note(stream, iterator.shard, &reading, now);
    }
    Ok(answer)
}

/// Decodes an iterator, unless it has expired.
fn valid_iterator(state: &State, body: &Value, now_ms: i64) -> Result<ShardIterator, ServiceError> {
    let token = members::text(body, "ShardIterator")?;
    let iterator = ShardIterator::decode(token)
        .ok_or_else(|| ServiceError::invalid("Invalid ShardIterator."))?;
    let last = state.settings.iterators_last_ms;
    if now_ms - iterator.issued_ms <= last && iterator.generation == state.generation {
        return Ok(iterator);
    }
    let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap();
    let text = format!(
        "Iterator expired. The iterator was created at time {} while right now it is {} which is \
         further in the future than the tolerated delay of {last} milliseconds.",
        time(iterator.issued_ms),
        time(now_ms)
    );
    Err(ServiceError::new("ExpiredIteratorException", text))
}

/// The content of one answer.
struct Reading {
    records: Vec<StreamRecord>,
    /// Where the next answer starts.
    next: ServedSequenceNumber,
    behind_ms: i64,
    /// Whether the shard has ended.
    end: bool,
}

impl Reading {
    fn stuck(from: ServedSequenceNumber, retention_ms: i64) -> Reading {
        Reading {
            records: Vec::new(),
            next: from,
            behind_ms: retention_ms,
            end: false,
        }
    }
}

fn read(
    shard: &mut ServedShard,
    from: ServedSequenceNumber,
    limit: usize,
    settings: &Settings,
    now_ms: i64,
) -> Reading {
    let records = take(shard, from, limit, settings);
    let next = records.last().map_or(from, |it| it.sequence.next());
    let rest = shard.position(next);
    // "A value of zero indicates that record processing is caught up."
    let behind = |it: &StreamRecord| (now_ms - it.arrival_ms).max(1);
    let at_end = shard.closed.is_some() && rest == shard.records.len();
    Reading {
        next,
        behind_ms: shard.records.get(rest).map_or(0, behind),
        end: at_end && (records.is_empty() || !settings.end_apart),
        records,
    }
}

fn limit(body: &Value) -> Result<usize, ServiceError> {
    match &body["Limit"] {
        Value::Null => Ok(ANSWER_RECORDS_MAX),
        given => given
            .as_u64()
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=ANSWER_RECORDS_MAX).contains(limit))
            .ok_or_else(|| ServiceError::invalid("Limit must be within 1 and 10000.")),
    }
}

/// The records of one answer: at least one, if there is one and no empty answer is due.
fn take(
    shard: &mut ServedShard,
    from: ServedSequenceNumber,
    limit: usize,
    settings: &Settings,
) -> Vec<StreamRecord> {
    let left = shard.records.range(shard.position(from)..);
    if left.len() > 0 && shard.empty_answers < settings.empty_answers {
        shard.empty_answers += 1;
        return Vec::new();
    }
    let mut bytes = 0;
    let count = left
        .clone()
        .take_while(|record| {
            bytes += size(record);
            bytes <= settings.answer_bytes_max
        })
        .count();
    let count = count.max(1).min(limit).min(settings.answer_records_max);
    let records: Vec<StreamRecord> = left.take(count).cloned().collect();
    if !records.is_empty() {
        shard.empty_answers = 0;
    }
    records
}

fn size(record: &StreamRecord) -> usize {
    record.data.len() + record.partition_key.len()
}

fn record(record: &StreamRecord, encrypted: bool) -> Value {
    let mut json = json!({
        "SequenceNumber": record.sequence.to_string(),
        "ApproximateArrivalTimestamp": members::seconds(record.arrival_ms),
        "Data": BASE64_STANDARD.encode(&record.data),
        "PartitionKey": record.partition_key,
    });
    if encrypted {
        json["EncryptionType"] = "KMS".into();
    }
    json
}

fn child_shards(stream: &Stream, number: u32) -> Value {
    stream
        .children(number)
        .map(|child| {
            json!({
                "ShardId": shard_id(child.number),
                "ParentShards": child.parents.iter().copied().map(shard_id).collect::<Vec<_>>(),
                "HashKeyRange": members::hash_key_range(child),
            })
        })
        .collect()
}

/// Accounts for an answer that is sent.
fn note(stream: &mut Stream, number: u32, reading: &Reading, now_ms: i64) {
    for record in &reading.records {
        *stream.served.entry(record.sequence).or_default() += 1;
    }
    if !reading.records.is_empty() {
        let early = stream.shards[&number]
            .parents
            .iter()
            .filter(|parent| stream.shards.get(parent).is_some_and(|it| !it.end_served))
            .map(|parent| OrderBreach {
                child: shard_id(number),
                parent: shard_id(*parent),
                unserved: unserved(stream, *parent),
            })
            .collect::<Vec<_>>();
        stream.breaches.extend(early);
    }
    stream.reads.push(ReadCall {
        shard_id: shard_id(number),
        at_ms: now_ms,
        records: reading.records.len(),
        end: reading.end,
    });
    stream.shards.get_mut(&number).unwrap().end_served |= reading.end;
}

fn unserved(stream: &Stream, number: u32) -> usize {
    let records = &stream.shards[&number].records;
    let fresh = |record: &&StreamRecord| !stream.served.contains_key(&record.sequence);
    records.iter().filter(fresh).count()
}
