//! Runs the source against the in-process stand-in of Kinesis, with paused time. A seed makes a
//! repeatable schedule of writes, splits, merges, faults and crashes.

mod lists;

use std::collections::BTreeMap;
use std::time::Duration;

use audit_bridge_app::provider::Start;
use audit_bridge_app::telemetry::Telemetry;
use audit_bridge_core::readiness::Component;
use audit_bridge_core::source::{Position as _, StoredPositions};
use audit_bridge_testkit::Kinesis;
use audit_bridge_testkit::kinesis::subscription::{SubscribedEvent, SubscriptionOrigin};
use audit_bridge_testkit::kinesis::{
    CallError, CloudWatchFault as Failure, internal_failure, iterator_expired, throughput_exceeded,
};
use audit_bridge_testkit::repeat;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::client::kinesis::SequenceNumber;
use crate::client::kinesis::{
    IteratorStart, Packed, RecordsAnswer, StreamError, StreamErrorKind, Summary,
};

const STREAM: &str = "audit";

/// The stand-in as a [`StreamApi`].
#[derive(Clone)]
struct StandIn(Arc<Kinesis>);

impl StandIn {
    async fn call(&self, operation: &str, body: Value) -> Result<Value, StreamError> {
        let fault = |kind, what: String| StreamError {
            kind,
            part: Component::Source,
            what,
            remedy: "none".to_owned(),
        };
        self.0.call(operation, &body).await.map_err(|error| {
            let CallError::Service(error) = error else {
                return fault(StreamErrorKind::Other, "broken".to_owned());
            };
            let kind = match error.code.as_str() {
                "ProvisionedThroughputExceededException" => StreamErrorKind::Throttled,
                "ExpiredIteratorException" => StreamErrorKind::IteratorExpired,
                "InvalidArgumentException" => StreamErrorKind::BadPosition,
                "ResourceNotFoundException" => StreamErrorKind::NotFound,
                _ => StreamErrorKind::Other,
            };
            fault(kind, format!("{}: {}", error.code, error.message))
        })
    }
}

fn text(json: &Value) -> String {
    json.as_str().unwrap().to_owned()
}

impl StreamApi for StandIn {
    async fn shards(&self) -> Result<Vec<StreamShard>, StreamError> {
        let answer = self
            .call("ListShards", json!({"StreamName": STREAM}))
            .await?;
        let shard = |it: &Value| StreamShard {
            id: text(&it["ShardId"]),
            parents: [&it["ParentShardId"], &it["AdjacentParentShardId"]]
                .into_iter()
                .filter_map(|id| id.as_str().map(str::to_owned))
                .collect(),
            first: it["SequenceNumberRange"]["StartingSequenceNumber"]
                .as_str()
                .and_then(SequenceNumber::parse),
            is_closed: it["SequenceNumberRange"]["EndingSequenceNumber"].is_string(),
        };
        let shards = answer["Shards"].as_array().unwrap();
        Ok(shards.iter().map(shard).collect())
    }

    async fn iterator(&self, shard: &str, place: &IteratorStart) -> Result<String, StreamError> {
        let mut body = json!({"StreamName": STREAM, "ShardId": shard});
        match place {
            IteratorStart::After(number) => {
                body["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER".into();
                body["StartingSequenceNumber"] = number.to_string().into();
            }
            IteratorStart::Oldest => body["ShardIteratorType"] = "TRIM_HORIZON".into(),
            IteratorStart::From(time) => {
                body["ShardIteratorType"] = "AT_TIMESTAMP".into();
                body["Timestamp"] = (time.as_millisecond() as f64 / 1000.0).into();
            }
        }
        let answer = self.call("GetShardIterator", body).await?;
        Ok(text(&answer["ShardIterator"]))
    }

    async fn records(&self, iterator: &str, limit: u32) -> Result<RecordsAnswer, StreamError> {
        let body = json!({"ShardIterator": iterator, "Limit": limit});
        let answer = self.call("GetRecords", body).await?;
        let packed = |it: &Value| Packed {
            number: SequenceNumber::of_stream(text(&it["SequenceNumber"])),
            arrived: it["ApproximateArrivalTimestamp"]
                .as_f64()
                .and_then(|at| Timestamp::from_millisecond((at * 1000.0) as i64).ok()),
            data: STANDARD.decode(text(&it["Data"])).unwrap().into(),
        };
        let records = answer["Records"].as_array().unwrap();
        Ok(RecordsAnswer {
            records: records.iter().map(packed).collect(),
            next: answer["NextShardIterator"].as_str().map(str::to_owned),
            behind: Duration::from_millis(answer["MillisBehindLatest"].as_u64().unwrap()),
        })
    }

    async fn summary(&self) -> Result<Summary, StreamError> {
        Ok(Summary {
            status: "ACTIVE".to_owned(),
            retention: Duration::from_secs(86_400),
            key: None,
            open_shards: 1,
        })
    }
}

/// A stand-in whose records of one answer arrived at these times.
struct Arrivals(StandIn, Vec<Timestamp>);

impl StreamApi for Arrivals {
    async fn shards(&self) -> Result<Vec<StreamShard>, StreamError> {
        self.0.shards().await
    }

    async fn iterator(&self, shard: &str, place: &IteratorStart) -> Result<String, StreamError> {
        self.0.iterator(shard, place).await
    }

    async fn records(&self, iterator: &str, limit: u32) -> Result<RecordsAnswer, StreamError> {
        let mut answer = self.0.records(iterator, limit).await?;
        for (record, arrived) in answer.records.iter_mut().zip(&self.1) {
            record.arrived = Some(*arrived);
        }
        Ok(answer)
    }

    async fn summary(&self) -> Result<Summary, StreamError> {
        self.0.summary().await
    }
}

/// A pipeline that settles records at once, and commits positions when told.
struct World {
    kinesis: Arc<Kinesis>,
    telemetry: Telemetry,
    start: Start,
    source: Option<StreamSource>,
    /// Positions that were reached, and those that the checkpoint has.
    reached: BTreeMap<u32, ShardPosition>,
    kept: StoredPositions,
    /// The numbers of the received events, in order.
    came: Vec<usize>,
    written: usize,
    streams: Vec<SubscriptionOrigin>,
}

impl World {
    /// A stream with one shard, of which a record was read and is in the checkpoint.
    async fn with_one_read() -> World {
        let mut world = World::new(1, Start::Earliest);
        world.write(0, 1);
        for _ in 0..2 {
            world.read(Duration::from_secs(3)).await;
            world.keep();
        }
        world
    }

    fn new(shards: u32, start: Start) -> World {
        let kinesis = Kinesis::in_process(Timestamp::now().as_millisecond());
        kinesis.create_stream(STREAM, shards);
        let streams = (0..5).map(|n| SubscriptionOrigin {
            log_stream: format!("kube-apiserver-audit-{n}"),
            ..SubscriptionOrigin::of_cluster("111122223333", "prod")
        });
        World {
            kinesis: Arc::new(kinesis),
            telemetry: Telemetry::new("eks", "1").log("stream"),
            start,
            source: None,
            reached: BTreeMap::new(),
            kept: StoredPositions::new(),
            came: Vec::new(),
            written: 0,
            streams: streams.collect(),
        }
    }

    fn resume(&self) -> Resume {
        Resume {
            positions: self.kept.clone(),
            start: self.start,
            until: None,
            term: None,
            seen_dir: "nowhere".into(),
            identities: None,
            telemetry: self.telemetry.clone(),
        }
    }

    /// Opens the source, retrying until it works.
    async fn open(&mut self) {
        while self.source.is_none() {
            let api = Arc::new(StandIn(Arc::clone(&self.kinesis)));
            let resume = self.resume();
            let opened = StreamSource::open(
                api,
                STREAM,
                &resume,
                ReaderResources::default(),
                ShardTiming::default(),
            );
            match opened.await {
                Ok(source) => self.source = Some(source),
                Err(unavailable) => {
                    println!("{unavailable}");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Writes a record with this many events, of the log stream that `choice` selects.
    fn write(&mut self, choice: usize, events: usize) {
        let subscription = &self.streams[choice % self.streams.len()];
        let events: Vec<_> = (0..events)
            .map(|n| SubscribedEvent::new(n, 1, format!("{}", self.written + n)))
            .collect();
        self.written += events.len();
        self.kinesis.deliver(STREAM, subscription, &events);
    }

    /// Reads for this long.
    async fn read(&mut self, time: Duration) {
        self.open().await;
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Some(source) = &mut self.source else {
                return;
            };
            match timeout(left, source.read()).await {
                Ok(Some(page)) => self.take(page),
                Ok(None) => panic!("the source ended"),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, page: ShardPage) {
        for record in &page.records {
            let payload: Value = serde_json::from_slice(&record.payload).unwrap();
            self.came.push(text(&payload["message"]).parse().unwrap());
        }
        if let Some(position) = page.position {
            self.reached.insert(page.partition, position);
        }
        for change in page.partitions {
            if let PartitionChange::Retired(index) = change {
                self.reached.remove(&index);
            }
        }
    }

    /// Writes the checkpoint and commits its positions.
    fn keep(&mut self) {
        let news: Vec<_> = self
            .reached
            .iter()
            .filter(|(index, position)| self.kept.get(index) != Some(&position.to_stored()))
            .map(|(index, position)| (*index, position.clone()))
            .collect();
        let reached = self.reached.iter();
        self.kept = reached
            .map(|(&index, position)| (index, position.to_stored()))
            .collect();
        if let Some(source) = &mut self.source {
            for (index, position) in news {
                source.commit(index, &position);
            }
        }
    }

    fn crash(&mut self) {
        self.source = None;
        let kept = self.kept.iter();
        let read = |position| ShardPosition::read(position).unwrap();
        self.reached = kept
            .map(|(&index, position)| (index, read(position)))
            .collect();
    }

    /// Reads until no event is missing.
    async fn finish(&mut self) {
        self.kinesis.clear_faults();
        for _ in 0..600 {
            self.read(Duration::from_secs(1)).await;
            self.keep();
            let mut came = self.came.clone();
            came.sort_unstable();
            came.dedup();
            if came.len() == self.written {
                return;
            }
        }
        let missing = (0..self.written).filter(|n| !self.came.contains(n));
        panic!(
            "missing {:?} of {}; kept {:?}; {:#?}",
            missing.take(20).collect::<Vec<_>>(),
            self.written,
            self.kept,
            self.kinesis.shards(STREAM)
        );
    }

    /// Checks that first deliveries follow the order of each log stream.
    fn check_order(&self) {
        let written = self.kinesis.written_lines(STREAM);
        let mut first = BTreeMap::new();
        for (at, n) in self.came.iter().enumerate() {
            first.entry(*n).or_insert(at);
        }
        let mut last = BTreeMap::<String, (usize, usize)>::new();
        for line in written {
            let n: usize = line.event.message.parse().unwrap();
            let at = first[&n];
            let stream = line.subscription.log_stream;
            if let Some((before, number)) = last.insert(stream.clone(), (at, n)) {
                assert!(before < at, "{stream}: {n} came before {number}");
            }
        }
        assert_eq!(self.kinesis.order_breaches(STREAM), []);
    }
}

/// Plays a random schedule: no event is lost, and without a crash none comes twice.
async fn schedule(seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let crashes = dice.bool();
    let start = match dice.bool() {
        true => Start::Earliest,
        false => Start::Latest(Timestamp::now()),
    };
    let mut world = World::new(dice.u32(1..5), start);
    if dice.bool() {
        world.kinesis.read_quotas(true);
    }
    world.kinesis.empty_answers(dice.usize(0..3));
    world.kinesis.end_apart(dice.bool());
    for _ in 0..dice.usize(5..60) {
        match dice.u32(0..100) {
            0..30 => {
                for _ in 0..dice.usize(1..20) {
                    world.write(dice.usize(..), dice.usize(1..4));
                }
            }
            30..45 => {
                world.kinesis.reshard(STREAM, dice.u64(..), 6);
            }
            45..50 => world.kinesis.expire_iterators(),
            50..55 => world.kinesis.advance(Duration::from_secs(dice.u64(1..600))),
            55..65 => {
                let fault = match dice.u32(0..4) {
                    0 => throughput_exceeded(),
                    1 => iterator_expired(),
                    2 => Failure::Cut,
                    _ => internal_failure(),
                };
                let operation = ["GetRecords", "GetShardIterator", "ListShards"][dice.usize(0..3)];
                let is_expiry = operation != "GetRecords";
                if !(is_expiry && matches!(fault, Failure::Error(_, "ExpiredIteratorException", _)))
                {
                    world
                        .kinesis
                        .script(operation, vec![fault; dice.usize(1..4)]);
                }
            }
            65..75 => world.keep(),
            75..80 if crashes => world.crash(),
            _ => world.read(Duration::from_millis(dice.u64(1..5000))).await,
        }
    }
    world.finish().await;
    world.check_order();
    if !crashes {
        assert_eq!(world.came.len(), world.written, "some came twice");
    }
    // Once all is read, a restart brings nothing again, and shards no longer listed are forgotten.
    for _ in 0..5 {
        world.read(Duration::from_secs(70)).await;
        world.keep();
    }
    world.kinesis.trim(STREAM, world.kinesis.now_ms());
    world.read(Duration::from_secs(130)).await;
    world.keep();
    let listed = world.kinesis.shards(STREAM);
    for index in world.kept.keys() {
        let id = format!("shardId-{index:012}");
        assert!(
            listed.iter().any(|shard| shard.shard_id == id),
            "{id} is kept"
        );
    }
    let came = world.came.len();
    world.crash();
    world.read(Duration::from_secs(100)).await;
    assert_eq!(world.came.len(), came, "some came again after a restart");
}

#[test]
fn stream_random_schedule_loses_nothing_and_keeps_order() {
    for seed in repeat::schedules(300) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(schedule(seed));
        }));
        assert!(ran.is_ok(), "SEED={seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_read_from_now_keeps_that_time_before_its_first_call() {
    let mut world = World::new(2, Start::Latest(Timestamp::now()));
    world.write(0, 1);
    world.open().await;
    world.read(Duration::from_secs(30)).await;
    assert_eq!(
        world.kinesis.calls("GetRecords"),
        0,
        "not kept, so not read"
    );
    assert_eq!(world.reached.len(), 2);
    world.keep();
    // A crash before the first record skips nothing.
    world.crash();
    world.start = Start::Latest(Timestamp::MAX);
    world.write(1, 1);
    world.finish().await;
    assert_eq!(world.came.len(), 2);
}

/// A parked event keeps its shard's end out of the checkpoint, and is given up only while others
/// are accepted, which may all be in the shard's children.
#[tokio::test(start_paused = true)]
async fn children_of_a_shard_whose_end_is_not_kept_begin_after_a_while() {
    let mut world = World::new(1, Start::Earliest);
    world.read(Duration::from_secs(2)).await;
    world.keep();
    world.write(0, 3);
    world.read(Duration::from_secs(5)).await;
    world.kinesis.reshard(STREAM, 7, 6);
    world.write(0, 4);
    world.read(Duration::from_secs(300)).await;
    assert_eq!(world.came, [0, 1, 2], "the end may come to be kept");
    world.read(STANDSTILL_MAX).await;
    assert_eq!(world.came, [0, 1, 2, 3, 4, 5, 6]);
    // The checkpoint at this point is enough after a crash.
    world.keep();
    world.crash();
    world.write(0, 1);
    world.finish().await;
    assert_eq!(world.came, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test(start_paused = true)]
async fn shard_trimmed_is_reported_and_read_from_its_oldest_record() {
    let mut world = World::with_one_read().await;
    assert_eq!(world.came, [0]);
    world.crash();
    // Its position says that it was last read two days ago.
    let long_ago = Timestamp::now().checked_sub(jiff::SignedDuration::from_hours(48));
    let position = world.kept.get_mut(&0).unwrap();
    position["read_to"] = long_ago.unwrap().to_string().into();
    world.write(0, 1);
    world.read(Duration::from_secs(3)).await;
    assert_eq!(world.came, [0, 1]);
    let metrics = world.telemetry.render();
    assert!(
        metrics.contains("audit_bridge_records_expired_total 1"),
        "{metrics}"
    );
}

#[tokio::test(start_paused = true)]
async fn job_delivers_what_arrived_before_its_end_behind_later_records() {
    let until = Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let cases: [(&[i64], &[usize], bool); 4] = [
        (&[-5, 1, -1, 59, -2, 60, -3], &[0, 2, 4], false),
        (&[-5, 0, -1], &[0, 2], false),
        (&[-5, 0, -1], &[0, 2], true),
        (&[-5, -4], &[0, 1], false),
    ];
    for (arrivals, want, is_closed) in cases {
        let mut world = World::new(1, Start::Earliest);
        for _ in arrivals {
            world.write(0, 1);
        }
        if is_closed {
            world.kinesis.split(STREAM, "shardId-000000000000");
        }
        world.kept = [(0, json!({"from": "earliest"}))].into();
        let resume = Resume {
            until: Some(until),
            ..world.resume()
        };
        let seconds = arrivals.iter();
        let times = seconds.map(|&it| until + jiff::SignedDuration::from_secs(it));
        let api = Arrivals(StandIn(Arc::clone(&world.kinesis)), times.collect());
        let (resources, timing) = (ReaderResources::default(), ShardTiming::default());
        let opened = StreamSource::open(Arc::new(api), STREAM, &resume, resources, timing);
        let mut source = opened.await.unwrap();
        let mut before_left_out = None;
        while let Some(page) = source.read().await {
            world.take(page);
            if world.came == [0] {
                before_left_out = world.reached.get(&0).cloned();
            }
        }
        assert_eq!(world.came, want, "{arrivals:?}");
        if want.len() < arrivals.len() {
            assert_eq!(
                world.reached.get(&0),
                before_left_out.as_ref(),
                "{arrivals:?}"
            );
        }
    }
}
