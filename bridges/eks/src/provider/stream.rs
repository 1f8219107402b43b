//! Reads a Kinesis stream that CloudWatch's subscription filters feed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit_bridge_app::config::{Problems, flag, given};
use audit_bridge_app::provider::{Finding, Provider, ProviderLog, Resume, SharedLogs, Start};
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::{Position as _, StoredPosition, StoredPositions};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::OnceCell;
use tokio::time::sleep;

use crate::client::Access;
use crate::client::kinesis::{
    IteratorStart, KinesisStream, StreamApi as _, StreamError, StreamErrorKind, StreamShard,
};
use crate::client::stream_name::StreamName;
use crate::convert::EksConvertOptions;
use crate::source::position::{self, ShardPosition};
use crate::source::{ReaderResources, ShardTiming, StreamSource, index_of};

const SHARE_PARTITIONS: &str = "share-partitions";
/// Interval between two lists of the shards. The replica that reads a shard to its end lists at
/// once; the others learn of the new shards by this interval. Kinesis allows 100 lists a second.
const LIST_INTERVAL: Duration = Duration::from_secs(10);
/// How far back `check` searches for a record.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(1);
/// Call limit of that search, for all shards together.
const LOOK_CALLS_MAX: usize = 20;
/// Records per call of that search.
const LOOK_LIMIT: u32 = 10;
/// The variables from which the SDK's own chain reads the region, in its order.
const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// The flags of a stream.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "kinesis")]
#[command(next_help_heading = "Kinesis")]
pub(crate) struct StreamArgs {
    /// The Kinesis stream that CloudWatch's subscription filters feed, instead of log groups
    #[arg(long, value_name = "NAME|ARN")]
    stream: Option<String>,
    /// Let replicas share the shards, each read by one; needs --checkpoint-store kubernetes
    #[arg(long, value_name = "BOOL")]
    share_partitions: Option<String>,
    /// As a job, what the log groups have of this window and the stream did not bring: two times like 2026-11-21T18:00:00Z
    #[arg(long, value_name = "FROM,UNTIL")]
    pub(super) catch_up: Option<String>,
}

/// A stream, as configured.
#[derive(Debug)]
pub struct StreamProvider {
    stream: StreamName,
    /// Identifies the stream in checkpoints.
    key: String,
    access: Access,
    share: bool,
    resources: ReaderResources,
    /// Shared by all logs, so that credentials are loaded once.
    client: OnceCell<Arc<KinesisStream>>,
    listed: Listed,
}

/// The stream's shards as of the last list, by name.
type Listed = Arc<Mutex<BTreeMap<String, StreamShard>>>;

impl StreamArgs {
    /// Whether `--stream` is set.
    pub(crate) fn is_given(&self) -> bool {
        given(self.stream.as_deref()).is_some()
    }

    /// Whether `--catch-up` is set.
    pub(crate) fn is_catch_up(&self) -> bool {
        given(self.catch_up.as_deref()).is_some()
    }

    /// Checks the flags if no stream is read.
    pub(crate) fn check_absent(&self, problems: &mut Problems) {
        if self.share(problems) {
            problems.add(
                SHARE_PARTITIONS,
                "needs --stream: replicas share its shards; log groups are read by one replica",
            );
        }
    }

    /// Checks the flags.
    pub(crate) fn check(
        &self,
        options: &EksConvertOptions,
        access: Access,
        problems: &mut Problems,
    ) -> StreamProvider {
        let nothing = StreamName {
            name: String::new(),
            arn: None,
            region: None,
            account: None,
        };
        let text = self.stream.as_deref();
        let stream = problems.read("stream", text, nothing, StreamName::parse);
        if let (Some(told), Some(region)) = (&stream.region, &access.region)
            && told != region
        {
            problems.add("aws-region", "is another one than that of --stream's ARN");
        }
        let region = access.region.clone().or_else(|| {
            let all = REGION_VARIABLES.into_iter();
            all.filter_map(|name| std::env::var(name).ok())
                .find(|region| !region.is_empty())
        });
        StreamProvider {
            key: stream.key(region.as_deref()),
            access: Access {
                region: stream.region.clone().or(access.region.clone()),
                ..access
            },
            stream,
            share: self.share(problems),
            resources: ReaderResources {
                stream_prefix: options.stream_prefix.as_str().into(),
                ..ReaderResources::default()
            },
            client: OnceCell::new(),
            listed: Listed::default(),
        }
    }

    fn share(&self, problems: &mut Problems) -> bool {
        let text = self.share_partitions.as_deref();
        problems.read(SHARE_PARTITIONS, text, false, flag)
    }
}

impl StreamProvider {
    async fn client(&self) -> Result<Arc<KinesisStream>, Unavailable> {
        let client = self.client.get_or_try_init(async || {
            let client = KinesisStream::new(self.access.clone(), self.stream.clone());
            client.await.map(Arc::new)
        });
        client.await.map(Arc::clone)
    }

    /// The whole stream as one log.
    pub(super) async fn whole(&self) -> Result<StreamLog, Unavailable> {
        Ok(StreamLog {
            name: self.key.clone(),
            key: self.key.clone(),
            stream: self.stream.name.clone(),
            client: self.client().await?,
            resources: self.resources.clone(),
            shard: None,
            listed: Arc::clone(&self.listed),
        })
    }

    /// Lists the shards and updates the list that all logs share.
    async fn list(&self, client: &KinesisStream) -> Result<Vec<StreamShard>, Unavailable> {
        let shards = client.shards().await?;
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        *listed = shards
            .iter()
            .map(|shard| (shard.id.clone(), shard.clone()))
            .collect();
        Ok(shards)
    }
}

impl Provider for StreamProvider {
    type Log = StreamLog;

    async fn connect(&self) -> Result<Vec<StreamLog>, Unavailable> {
        let whole = self.whole().await?;
        if !self.share {
            return Ok(vec![whole]);
        }
        let shards = self.list(&whole.client).await?;
        shards
            .into_iter()
            .map(|shard| {
                index_of(&shard.id)?;
                Ok(StreamLog {
                    name: name_of(&self.key, &shard.id),
                    shard: Some(shard),
                    ..whole.clone()
                })
            })
            .collect()
    }

    fn shared(&self) -> Option<SharedLogs> {
        self.share.then(|| SharedLogs {
            name: self.key.clone(),
            flag: SHARE_PARTITIONS,
            list_interval: LIST_INTERVAL,
        })
    }
}

/// The name of a shard in checkpoints and log lines.
fn name_of(key: &str, shard: &str) -> String {
    format!("{key}/{shard}")
}

/// A stream, or one shard of it where replicas share them.
#[derive(Debug, Clone)]
pub struct StreamLog {
    name: String,
    /// Identifies the whole stream in checkpoints.
    key: String,
    stream: String,
    client: Arc<KinesisStream>,
    resources: ReaderResources,
    shard: Option<StreamShard>,
    listed: Listed,
}

impl ProviderLog for StreamLog {
    type Source = StreamSource;

    fn name(&self) -> &str {
        &self.name
    }

    fn silence_remedy(&self) -> String {
        format!(
            "look whether each cluster's subscription filter still sends to the stream: aws logs \
             describe-subscription-filters --log-group-name /aws/eks/CLUSTER/cluster, and whether \
             the audit log is switched on: aws eks describe-cluster --name CLUSTER --query \
             cluster.logging; CloudWatch Logs skips what comes within 10 minutes of a refusal by \
             the stream {} (its role, its key)",
            self.stream
        )
    }

    fn beginning(&self, start: Start) -> StoredPositions {
        let shard = self.shard.iter();
        shard
            .filter_map(|shard| index_of(&shard.id).ok())
            .map(|index| (index, ShardPosition::at(start).to_stored()))
            .collect()
    }

    fn is_further(&self, this: &StoredPosition, other: &StoredPosition) -> bool {
        position::is_further(this, other)
    }

    fn after(&self) -> Vec<String> {
        let Some(shard) = &self.shard else {
            return Vec::new();
        };
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let parents = shard.parents.iter();
        parents
            .filter(|id| listed.contains_key(*id))
            .map(|id| name_of(&self.key, id))
            .collect()
    }

    fn is_closed(&self) -> bool {
        let Some(shard) = &self.shard else {
            return false;
        };
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.get(&shard.id).is_some_and(|shard| shard.is_closed)
    }

    fn is_at_end(&self, positions: &StoredPositions) -> bool {
        let index = self.shard.as_ref().map(|shard| index_of(&shard.id));
        let position = index.and_then(|index| positions.get(&index.ok()?));
        position.is_some_and(position::is_end)
    }

    async fn open(&self, resume: Resume) -> Result<StreamSource, Unavailable> {
        let api = Arc::clone(&self.client);
        let resources = self.resources.clone();
        let timing = ShardTiming::default();
        match &self.shard {
            None => StreamSource::open(api, &self.stream, &resume, resources, timing).await,
            Some(shard) => {
                StreamSource::open_shard(api, &self.stream, shard, &resume, resources, timing).await
            }
        }
    }

    async fn check(&self) -> Vec<Finding> {
        let identity = match self.client.identity().await {
            Ok(found) => Finding::ok("identity", found),
            Err(unavailable) => return vec![Finding::failed("identity", unavailable)],
        };
        let what = format!("source {}", self.key);
        let source = match self.probe_source().await {
            Ok(found) => Finding::ok(what, found),
            Err(unavailable) => Finding::failed(what, unavailable),
        };
        vec![identity, source]
    }
}

impl StreamLog {
    /// The oldest time from which the stream still has all records.
    pub(super) async fn oldest(&self, now: Timestamp) -> Result<Timestamp, Unavailable> {
        let retention = self.client.summary().await?.retention;
        let since = (!retention.is_zero()).then(|| now.checked_sub(retention).ok());
        Ok(since.flatten().unwrap_or(Timestamp::MIN))
    }

    /// Searches the last hour for a record, in shards that take records.
    async fn probe_source(&self) -> Result<String, Unavailable> {
        let summary = self.client.summary().await?;
        let shards = self.client.shards().await?;
        let since = Timestamp::now().checked_sub(LOOK_BACK);
        let place = IteratorStart::From(since.unwrap_or(Timestamp::UNIX_EPOCH));
        let key = match &summary.key {
            Some(key) => format!("encrypted by {key}"),
            None => "not encrypted by a key of KMS".to_owned(),
        };
        let stream = format!(
            "{}; shards that take records: {}, kept for {} h, {key}",
            summary.status,
            summary.open_shards,
            summary.retention.as_secs() / 3600,
        );
        let mut calls = 0;
        let mut groups = BTreeSet::new();
        let mut others = 0;
        for shard in shards.iter().filter(|shard| !shard.is_closed) {
            let mut iterator = Some(self.client.iterator(&shard.id, &place).await?);
            while let Some(at) = iterator.take()
                && calls < LOOK_CALLS_MAX
                && groups.is_empty()
            {
                calls += 1;
                let answer = match self.client.records(&at, LOOK_LIMIT).await {
                    Ok(answer) => answer,
                    // Another reader uses up the quota, so the stream can be read.
                    Err(StreamError {
                        kind: StreamErrorKind::Throttled,
                        ..
                    }) => break,
                    Err(fault) => return Err(fault.into()),
                };
                for packed in &answer.records {
                    match crate::source::group_of(packed) {
                        Some(group) => _ = groups.insert(group),
                        None => others += 1,
                    }
                }
                if !answer.behind.is_zero() {
                    iterator = answer.next;
                    sleep(ShardTiming::default().gap).await;
                }
            }
        }
        if !groups.is_empty() {
            let groups: Vec<String> = groups.into_iter().collect();
            return Ok(format!(
                "can be read: {stream}; the last hour holds events of {}",
                groups.join(", ")
            ));
        }
        Err(Unavailable {
            component: Component::Source,
            reason: match others {
                0 => format!("can be read ({stream}), and holds no record of the last hour"),
                _ => format!(
                    "can be read ({stream}), and none of the {others} records that were looked at \
                     is of a subscription filter"
                ),
            },
            remedy: self.silence_remedy(),
        })
    }
}

#[cfg(test)]
mod tests;
