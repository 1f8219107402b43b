//! A Kinesis stream as a source. Each shard has a reader, which starts once the shard's parents are
//! read to their ends. The list of shards is refreshed at an interval.

pub(crate) mod budget;
mod gap_detector;
mod in_stream;
mod lineage;
pub(crate) mod position;
pub(crate) mod reader;
mod unpack;

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;

use audit_bridge_app::provider::partitions::PartitionHealth;
use audit_bridge_app::provider::{Resume, STANDSTILL_MAX};
use audit_bridge_core::readiness::Unavailable;
use audit_bridge_core::source::{Page, PartitionChange, Source};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

pub(crate) use self::in_stream::{InStream, StreamDifference};
use self::lineage::Lineage;
pub(crate) use self::lineage::{bad_position, index_of};
use self::position::{ShardPage, ShardPosition};
use self::reader::{Done, ShardReader, ShardReaderContext};
pub(crate) use self::reader::{ReaderResources, ShardTiming};
pub(crate) use self::unpack::group_of;
use crate::client::kinesis::{StreamApi, StreamError, StreamErrorKind, StreamShard};

/// Capacity of the channel to the pipeline; each reader holds one page more.
const PAGES_WAITING: usize = 1;
/// This many failed lists in a row make the source not ready.
const LIST_FAILURES_MAX: u32 = 3;
/// What stands for the list among the partitions of `/readyz`.
const LIST: &str = "list of shards";

/// All shards of a stream, or one. Each reader is a task; dropping the source ends them.
#[derive(Debug)]
pub struct StreamSource {
    /// The first pages: they announce the shards, with the positions where they begin.
    first: std::vec::IntoIter<ShardPage>,
    pages: mpsc::Receiver<ShardPage>,
    /// Sends committed starts and ends of shards to the [`ShardSet`].
    commits: Option<mpsc::UnboundedSender<(u32, ShardPosition)>>,
}

impl StreamSource {
    /// Starts reading all shards.
    ///
    /// # Errors
    /// The stream's shards cannot be listed, or a position of the checkpoint is invalid.
    pub(crate) async fn open<A: StreamApi>(
        api: Arc<A>,
        stream: &str,
        resume: &Resume,
        resources: ReaderResources,
        timing: ShardTiming,
    ) -> Result<StreamSource, Unavailable> {
        let lineage = list(&*api, resume, timing).await?;
        let shared = shared(api, stream, resume, resources, timing).await?;
        tracing::info!(stream, shards = lineage.all().count(), "stream opened");
        let (sender, pages) = mpsc::channel(PAGES_WAITING);
        let (commits, committed) = mpsc::unbounded_channel();
        let first = announce(&lineage);
        let keeper = ShardSet {
            shared: Arc::new(shared),
            lineage,
            pages: sender,
            committed,
            readers: JoinSet::new(),
            leave: BTreeMap::new(),
            parents_end: BTreeMap::new(),
            unkept_ends: BTreeMap::new(),
            opened_at: Instant::now(),
            next_list: Instant::now() + timing.list,
            list_failures: 0,
        };
        tokio::spawn(keeper.keep());
        Ok(StreamSource {
            first: first.into_iter(),
            pages,
            commits: Some(commits),
        })
    }

    /// Starts reading one shard, whose parents were read to their ends.
    ///
    /// # Errors
    /// The checkpoint's position is invalid, or the stream's shards cannot be listed.
    pub(crate) async fn open_shard<A: StreamApi>(
        api: Arc<A>,
        stream: &str,
        shard: &StreamShard,
        resume: &Resume,
        resources: ReaderResources,
        timing: ShardTiming,
    ) -> Result<StreamSource, Unavailable> {
        let index = index_of(&shard.id)?;
        let of_it = resume.positions.get_key_value(&index);
        let position = of_it.map(|(_, position)| {
            ShardPosition::read(position).ok_or_else(|| bad_position(index, position))
        });
        let begin = match position.transpose()? {
            Some(position) => position,
            None if resume.positions.is_empty() => ShardPosition::at(resume.start),
            // The shard is newer than the positions.
            None => ShardPosition::at(audit_bridge_app::provider::Start::Earliest),
        };
        let (sender, pages) = mpsc::channel(PAGES_WAITING);
        if begin == ShardPosition::ENDED && !is_reborn(&*api, shard, timing).await? {
            return Ok(StreamSource {
                first: Vec::new().into_iter(),
                pages,
                commits: None,
            });
        }
        let shared = shared(api, stream, resume, resources, timing).await?;
        let page = Page {
            partition: index,
            partitions: vec![PartitionChange::Announced(index)],
            ..Page::default()
        };
        let reader = ShardReader::new(Arc::new(shared), shard, index, &begin, sender);
        tokio::spawn(async move {
            // No leave request is ever sent: the reader ends when the source is dropped.
            let (_stay, leave) = oneshot::channel();
            reader.run(leave).await;
        });
        Ok(StreamSource {
            first: vec![page].into_iter(),
            pages,
            commits: None,
        })
    }
}

impl Source for StreamSource {
    type Position = ShardPosition;

    async fn read(&mut self) -> Option<ShardPage> {
        if let Some(page) = self.first.next() {
            return Some(page);
        }
        self.pages.recv().await
    }

    fn commit(&mut self, partition: u32, position: &ShardPosition) {
        let Some(commits) = &self.commits else {
            return;
        };
        // Frequent, and of no interest to the shard set.
        if matches!(position, ShardPosition::After { .. }) {
            return;
        }
        // Fails only after the shard set has ended.
        let _ = commits.send((partition, position.clone()));
    }
}

/// Lists the shards for the first time.
async fn list<A: StreamApi>(
    api: &A,
    resume: &Resume,
    timing: ShardTiming,
) -> Result<Lineage, Unavailable> {
    let lineage = Lineage::new(api.shards().await?, &resume.positions, resume.start)?;
    if lineage.reborn().is_empty() {
        return Ok(lineage);
    }
    // A list may be stale for a moment; a recreated stream stays as it is.
    sleep(timing.confirm).await;
    let lineage = Lineage::new(api.shards().await?, &resume.positions, resume.start)?;
    for index in lineage.reborn() {
        tell_reborn(index);
    }
    Ok(lineage)
}

/// Whether a shard takes records although the checkpoint has its end.
async fn is_reborn<A: StreamApi>(
    api: &A,
    shard: &StreamShard,
    timing: ShardTiming,
) -> Result<bool, Unavailable> {
    let is_open = |all: Vec<StreamShard>| all.iter().any(|it| it.id == shard.id && !it.is_closed);
    if !is_open(api.shards().await?) {
        return Ok(false);
    }
    sleep(timing.confirm).await;
    let is_reborn = is_open(api.shards().await?);
    if is_reborn {
        tell_reborn(index_of(&shard.id)?);
    }
    Ok(is_reborn)
}

fn tell_reborn(shard: u32) {
    tracing::error!(
        shard,
        "position expired: the shard ended in the checkpoint and takes records. \
         The stream was created again; reading from its oldest record"
    );
}

/// The context that the readers share.
async fn shared<A: StreamApi>(
    api: Arc<A>,
    stream: &str,
    resume: &Resume,
    resources: ReaderResources,
    timing: ShardTiming,
) -> Result<ShardReaderContext<A>, Unavailable> {
    let summary = api.summary().await?;
    Ok(ShardReaderContext {
        api,
        health: PartitionHealth::new(resume.telemetry.clone()),
        timing,
        resources,
        until: resume.until,
        retention: Some(summary.retention).filter(|it| !it.is_zero()),
        stream: stream.to_owned(),
    })
}

/// Pages that announce the shards whose positions the checkpoint has or needs.
fn announce(lineage: &Lineage) -> Vec<ShardPage> {
    let kept = lineage.all().filter(|(_, _, is_kept)| *is_kept);
    let changes = kept.flat_map(|(index, _, _)| {
        let left = lineage
            .is_ended(index)
            .then_some(PartitionChange::Left(index));
        [Some(PartitionChange::Announced(index)), left]
    });
    let known = Page {
        partitions: changes.flatten().collect(),
        ..Page::default()
    };
    let beginnings = lineage.unkept().into_iter().map(|(index, begin)| Page {
        partition: index,
        position: Some(begin),
        partitions: vec![PartitionChange::Announced(index)],
        ..Page::default()
    });
    std::iter::once(known).chain(beginnings).collect()
}

/// The readers of a stream's shards, and the order in which they start.
struct ShardSet<A> {
    shared: Arc<ShardReaderContext<A>>,
    lineage: Lineage,
    pages: mpsc::Sender<ShardPage>,
    committed: mpsc::UnboundedReceiver<(u32, ShardPosition)>,
    /// Readers return their shard's index and why they ended.
    readers: JoinSet<(u32, Done)>,
    /// Tells a reader to leave its shard.
    leave: BTreeMap<u32, oneshot::Sender<()>>,
    /// When each shard was read to its end: its children are read up to this time.
    parents_end: BTreeMap<u32, Timestamp>,
    /// The same for shards whose end the checkpoint does not have yet.
    unkept_ends: BTreeMap<u32, Instant>,
    opened_at: Instant,
    next_list: Instant,
    /// Failed lists in a row.
    list_failures: u32,
}

impl<A: StreamApi> ShardSet<A> {
    /// Runs readers until the source is dropped or the job is done.
    async fn keep(mut self) {
        loop {
            for (index, shard, begin) in self.lineage.start() {
                self.admit(index, &shard, &begin).await;
            }
            if self.shared.until.is_some() && self.lineage.is_done() && !self.lacks_children() {
                return;
            }
            tokio::select! {
                () = self.pages.closed() => return,
                Some((index, position)) = self.committed.recv() => {
                    self.committed(index, &position).await;
                }
                Some(ended) = next(&mut self.readers) => self.ended(ended).await,
                () = sleep_until(self.next_list) => self.list().await,
            }
        }
    }

    async fn admit(&mut self, index: u32, shard: &StreamShard, begin: &ShardPosition) {
        let parents = shard.parents.iter();
        let end = parents
            .filter_map(|id| self.parents_end.get(&index_of(id).ok()?))
            .max();
        if let Some(&time) = end {
            tracing::info!(
                shard = shard.id,
                parents = shard.parents.join(","),
                "shard started: its parents are read to their ends"
            );
            // The shard's lag is measured from this page on.
            let page = Page {
                partition: index,
                read_to: Some(audit_bridge_core::source::ReadTo {
                    time,
                    again_within: self.shared.timing.poll * 3,
                }),
                ..Page::default()
            };
            let _ = self.pages.send(page).await;
        }
        let shared = Arc::clone(&self.shared);
        let reader = ShardReader::new(shared, shard, index, begin, self.pages.clone());
        let (leave, told) = oneshot::channel();
        self.leave.insert(index, leave);
        self.readers
            .spawn(async move { (index, reader.run(told).await) });
    }

    async fn committed(&mut self, index: u32, position: &ShardPosition) {
        self.lineage.committed(index, position);
        if *position == ShardPosition::ENDED {
            self.unkept_ends.remove(&index);
            // The shard sends nothing more. Its position stays until it is no longer listed.
            self.tell(vec![PartitionChange::Left(index)]).await;
            self.list().await;
        }
    }

    async fn ended(&mut self, ended: Result<(u32, Done), JoinError>) {
        let (index, done) = match ended {
            Ok(ended) => ended,
            // A reader's panic ends the process, as it would without tasks.
            Err(broken) => match broken.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        self.leave.remove(&index);
        match done {
            Done::Closed => {}
            Done::Reached => self.lineage.reached(index),
            Done::Ended => {
                self.parents_end.insert(index, Timestamp::now());
                self.unkept_ends.insert(index, Instant::now());
            }
            Done::Gone => {
                self.lineage.gone(index);
                self.next_list = Instant::now();
                self.tell(vec![PartitionChange::Retired(index)]).await;
            }
        }
    }

    /// Refreshes the list of shards.
    async fn list(&mut self) {
        let timing = self.shared.timing;
        self.pass_unkept_ends();
        self.next_list = Instant::now() + timing.list;
        let listed = match self.shared.api.shards().await {
            Ok(listed) => listed,
            Err(fault) => return self.list_failed(fault),
        };
        self.list_failures = 0;
        self.shared.health.left(LIST);
        let now = self.opened_at.elapsed();
        let changes = match self.lineage.list(listed, now, timing.confirm) {
            Ok(changes) => changes,
            Err(unavailable) => {
                tracing::error!(%unavailable, "shard could not be opened");
                return;
            }
        };
        for index in changes.reborn {
            tell_reborn(index);
            self.parents_end.remove(&index);
            self.tell(vec![PartitionChange::Announced(index)]).await;
        }
        if self.lacks_children() {
            self.next_list = Instant::now() + timing.list_again;
        } else if self.lineage.has_doubts() {
            self.next_list = Instant::now() + timing.confirm;
        }
        for index in changes.forgotten {
            self.parents_end.remove(&index);
            self.tell(vec![PartitionChange::Retired(index)]).await;
        }
        for (index, id) in changes.lost {
            let telemetry = self.shared.health.telemetry();
            let place = format!("{}/{id}", self.shared.stream);
            telemetry.expired(
                &place,
                1,
                "the shard is gone before anybody read it; how many is not known, so one is \
                 counted; give the stream a longer retention, or this bridge what it needs to keep \
                 up",
            );
            self.tell(vec![PartitionChange::Retired(index)]).await;
        }
    }

    /// Reports a failed list. New shards are not found meanwhile, and no reader fails because of
    /// that.
    fn list_failed(&mut self, fault: StreamError) {
        let timing = self.shared.timing;
        let health = &self.shared.health;
        self.list_failures = self.list_failures.saturating_add(1);
        health.telemetry().source_request(fault.status());
        if fault.kind == StreamErrorKind::Throttled {
            health.telemetry().source_throttled();
        }
        tracing::warn!(
            failures = self.list_failures,
            why = %fault,
            "shard list failed; retrying"
        );
        let wait = timing.list_again.saturating_mul(self.list_failures);
        self.next_list = Instant::now() + wait.min(timing.list);
        // Single failures are normal, but here is something that only the list can tell.
        if self.list_failures >= LIST_FAILURES_MAX || self.lacks_children() {
            health.failed(LIST, fault.into());
        }
    }

    /// Starts the children of shards whose end has not reached the checkpoint for too long.
    fn pass_unkept_ends(&mut self) {
        let lineage = &mut self.lineage;
        self.unkept_ends.retain(|&index, read_at| {
            let waits = read_at.elapsed() < STANDSTILL_MAX;
            if !waits {
                tracing::warn!(
                    shard = index,
                    "shard end not kept: an event of the shard is not settled; starting the shards \
                     that it became"
                );
                lineage.passed(index);
            }
            waits
        });
    }

    /// Whether a shard was read to its end, and its children are not listed yet.
    fn lacks_children(&self) -> bool {
        let mut ended = self.parents_end.keys();
        ended.any(|&index| self.lineage.lacks_children(index))
    }

    async fn tell(&self, partitions: Vec<PartitionChange>) {
        let page = Page {
            partitions,
            ..Page::default()
        };
        // Fails only after the source was dropped.
        let _ = self.pages.send(page).await;
    }
}

/// Waits for the next reader to end; pending while there is none.
async fn next(readers: &mut JoinSet<(u32, Done)>) -> Option<Result<(u32, Done), JoinError>> {
    match readers.is_empty() {
        true => pending().await,
        false => readers.join_next().await,
    }
}

#[cfg(test)]
mod tests;
