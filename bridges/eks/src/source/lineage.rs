//! Decides which shards may be read. A shard that was split or merged is read to its end, and the
//! checkpoint has that end, before its children start. If something keeps the end out of the
//! checkpoint for long, having read it is enough. Pure: no clock and no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use audit_bridge_app::provider::Start;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::{StoredPosition, StoredPositions};

use super::position::ShardPosition;
use crate::client::kinesis::StreamShard;

/// Prefix of the shards' names; a number of twelve digits follows.
const PREFIX: &str = "shardId-";

/// The partition number of a shard: the number in its name.
///
/// # Errors
/// The name is of another form.
pub(crate) fn index_of(id: &str) -> Result<u32, Unavailable> {
    let number = id.strip_prefix(PREFIX).filter(|digits| digits.len() == 12);
    number
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Unavailable {
            component: Component::Source,
            reason: format!(
                "the stream has a shard named {id:?}, which is no {PREFIX} with a number"
            ),
            remedy: "please report it".to_owned(),
        })
}

/// The state of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The checkpoint does not have its start yet.
    Unkept,
    /// Waits for its parents.
    Waiting,
    /// A reader reads it.
    Reading,
    /// Read to the end of the job.
    Reached,
    /// Its end is in the checkpoint.
    Ended,
}

/// What a list says against what is known of a shard. A list may be stale for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// It is no longer listed.
    Missing,
    /// It takes records although the checkpoint has its end.
    Open,
}

#[derive(Debug)]
struct ShardEntry {
    shard: StreamShard,
    begin: ShardPosition,
    state: State,
    /// The checkpoint has a position of it.
    is_kept: bool,
    /// Its children no longer wait for the checkpoint to have its end.
    is_passed: bool,
    /// What all lists since that time say against it.
    doubt: Option<(Doubt, Duration)>,
}

impl ShardEntry {
    fn new(shard: StreamShard, begin: ShardPosition, state: State, is_kept: bool) -> ShardEntry {
        ShardEntry {
            shard,
            begin,
            state,
            is_kept,
            is_passed: false,
            doubt: None,
        }
    }

    /// Takes what a list says against the shard. Whether lists have said so for long enough.
    fn doubt(&mut self, doubt: Doubt, now: Duration, confirm: Duration) -> bool {
        let since = match self.doubt {
            Some((known, since)) if known == doubt => since,
            _ => now,
        };
        self.doubt = Some((doubt, since));
        now.saturating_sub(since) >= confirm
    }
}

/// Changes between two lists of the stream's shards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardChanges {
    /// Shards that are new in the list.
    pub(crate) added: Vec<u32>,
    /// Shards read to their ends and no longer listed: their positions are dropped.
    pub(crate) forgotten: Vec<u32>,
    /// Shards that vanished from the list before they were read: their records are lost.
    pub(crate) lost: Vec<(u32, String)>,
    /// Shards that take records although the checkpoint has their ends: the stream was recreated.
    pub(crate) reborn: Vec<u32>,
}

/// The shards of a stream that are listed, or of which the checkpoint has a position.
#[derive(Debug, Default)]
pub(crate) struct Lineage {
    shards: BTreeMap<u32, ShardEntry>,
}

impl Lineage {
    /// Takes the first list. Without a checkpoint all shards begin at `start`, and are read once
    /// the checkpoint has that. With one, a shard that it does not know is newer than it, and
    /// begins at its oldest record. A shard that the checkpoint knows and the list does not is gone,
    /// or the list is stale.
    ///
    /// # Errors
    /// The name or position of a shard is invalid.
    pub(crate) fn new(
        listed: Vec<StreamShard>,
        positions: &StoredPositions,
        start: Start,
    ) -> Result<Lineage, Unavailable> {
        let mut shards = BTreeMap::new();
        for shard in listed {
            let index = index_of(&shard.id)?;
            let kept = positions
                .get(&index)
                .map(|position| read_position(index, position))
                .transpose()?;
            let is_kept = kept.is_some();
            let begin = match kept {
                Some(kept) => kept,
                None if positions.is_empty() => ShardPosition::at(start),
                None => ShardPosition::at(Start::Earliest),
            };
            let state = match begin {
                ShardPosition::Ended { .. } if shard.is_closed => State::Ended,
                _ if positions.is_empty() => State::Unkept,
                _ => State::Waiting,
            };
            shards.insert(index, ShardEntry::new(shard, begin, state, is_kept));
        }
        for (&index, position) in positions {
            if shards.contains_key(&index) {
                continue;
            }
            let begin = read_position(index, position)?;
            let state = match begin {
                ShardPosition::Ended { .. } => State::Ended,
                // Its reader notices whether it is gone.
                _ => State::Waiting,
            };
            let entry = ShardEntry::new(unlisted(index), begin, state, true);
            shards.insert(index, entry);
        }
        Ok(Lineage { shards })
    }

    /// All shards, and whether the checkpoint knows each.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &StreamShard, bool)> {
        let all = self.shards.iter();
        all.map(|(&index, entry)| (index, &entry.shard, entry.is_kept))
    }

    /// Shards whose start must be in the checkpoint before they are read, and that start.
    pub(crate) fn unkept(&self) -> Vec<(u32, ShardPosition)> {
        let all = self.shards.iter();
        all.filter(|(_, entry)| entry.state == State::Unkept)
            .map(|(&index, entry)| (index, entry.begin.clone()))
            .collect()
    }

    /// Whether the checkpoint has this shard's end.
    pub(crate) fn is_ended(&self, index: u32) -> bool {
        let entry = self.shards.get(&index);
        entry.is_some_and(|entry| entry.state == State::Ended)
    }

    /// Marks the shards that may be read now as being read, and returns them.
    pub(crate) fn start(&mut self) -> Vec<(u32, StreamShard, ShardPosition)> {
        let open: BTreeSet<&str> = self
            .shards
            .values()
            .filter(|entry| entry.state != State::Ended && !entry.is_passed)
            .map(|entry| entry.shard.id.as_str())
            .collect();
        let may = |entry: &ShardEntry| {
            let parents = &entry.shard.parents;
            entry.state == State::Waiting && parents.iter().all(|id| !open.contains(id.as_str()))
        };
        let all = self.shards.iter();
        let start: Vec<u32> = all
            .filter(|(_, entry)| may(entry))
            .map(|(&index, _)| index)
            .collect();
        let mut started = Vec::new();
        for index in start {
            if let Some(entry) = self.shards.get_mut(&index) {
                entry.state = State::Reading;
                started.push((index, entry.shard.clone(), entry.begin.clone()));
            }
        }
        started
    }

    /// The checkpoint now has this position of a shard.
    pub(crate) fn committed(&mut self, index: u32, position: &ShardPosition) {
        let Some(entry) = self.shards.get_mut(&index) else {
            return;
        };
        entry.is_kept = true;
        match (entry.state, position) {
            (_, ShardPosition::Ended { .. }) => entry.state = State::Ended,
            (State::Unkept, _) => entry.state = State::Waiting,
            _ => {}
        }
    }

    /// Lets the children of a shard that was read to its end start before the checkpoint has that
    /// end.
    pub(crate) fn passed(&mut self, index: u32) {
        if let Some(entry) = self.shards.get_mut(&index) {
            entry.is_passed = true;
        }
    }

    /// A shard was read to the end of the job. Its children hold nothing for the job.
    pub(crate) fn reached(&mut self, index: u32) {
        if let Some(entry) = self.shards.get_mut(&index) {
            entry.state = State::Reached;
        }
    }

    /// The stream no longer has this shard, so its children need not wait.
    pub(crate) fn gone(&mut self, index: u32) {
        self.shards.remove(&index);
    }

    /// Whether the job is done: nothing is being read, or will be.
    pub(crate) fn is_done(&self) -> bool {
        let all = self.shards.values();
        let reached: BTreeSet<&str> = all
            .filter(|entry| entry.state == State::Reached)
            .map(|entry| entry.shard.id.as_str())
            .collect();
        // Children of a shard that was read to the end of the job begin after that end.
        let waits = |entry: &ShardEntry| {
            let parents = &entry.shard.parents;
            parents.iter().any(|id| reached.contains(id.as_str()))
        };
        self.shards.values().all(|entry| match entry.state {
            State::Reached | State::Ended => true,
            State::Waiting => waits(entry),
            State::Unkept | State::Reading => false,
        })
    }

    /// Takes a new list of the stream's shards. `now` is the time since the first list. What lists
    /// say for `confirm` without a break is true, and what they say for less may be stale.
    ///
    /// # Errors
    /// The name of a shard is invalid. The other shards are taken.
    pub(crate) fn list(
        &mut self,
        listed: Vec<StreamShard>,
        now: Duration,
        confirm: Duration,
    ) -> Result<ShardChanges, Unavailable> {
        let mut changes = ShardChanges::default();
        // A stream always has shards, so an empty list is ignored.
        if listed.is_empty() {
            return Ok(changes);
        }
        let mut there = BTreeSet::new();
        let mut wrong = None;
        for shard in listed {
            match index_of(&shard.id) {
                Ok(index) => {
                    there.insert(index);
                    self.take_listed(index, shard, now, confirm, &mut changes);
                }
                Err(unavailable) => wrong = Some(unavailable),
            }
        }
        self.take_missing(&there, now, confirm, &mut changes);
        match wrong {
            Some(unavailable) => Err(unavailable),
            None => Ok(changes),
        }
    }

    fn take_listed(
        &mut self,
        index: u32,
        shard: StreamShard,
        now: Duration,
        confirm: Duration,
        changes: &mut ShardChanges,
    ) {
        let Some(entry) = self.shards.get_mut(&index) else {
            changes.added.push(index);
            let begin = ShardPosition::at(Start::Earliest);
            let entry = ShardEntry::new(shard, begin, State::Waiting, false);
            self.shards.insert(index, entry);
            return;
        };
        entry.shard = shard;
        if entry.state != State::Ended || entry.shard.is_closed {
            entry.doubt = None;
        } else if entry.doubt(Doubt::Open, now, confirm) {
            entry.doubt = None;
            entry.begin = ShardPosition::at(Start::Earliest);
            entry.state = State::Waiting;
            entry.is_passed = false;
            changes.reborn.push(index);
        }
    }

    fn take_missing(
        &mut self,
        there: &BTreeSet<u32>,
        now: Duration,
        confirm: Duration,
        changes: &mut ShardChanges,
    ) {
        self.shards.retain(|&index, entry| {
            // The reader of a shard that is read notices by itself.
            let stays = there.contains(&index)
                || entry.state == State::Reading
                || !entry.doubt(Doubt::Missing, now, confirm);
            match entry.state {
                _ if stays => {}
                State::Ended => changes.forgotten.push(index),
                State::Unkept | State::Waiting => {
                    changes.lost.push((index, entry.shard.id.clone()));
                }
                State::Reading | State::Reached => {}
            }
            stays
        });
    }

    /// Whether the newest list says of a shard what another list has to confirm.
    pub(crate) fn has_doubts(&self) -> bool {
        self.shards.values().any(|entry| entry.doubt.is_some())
    }

    /// Whether the list has no child of this shard; a shard that was just split or merged must have
    /// one.
    pub(crate) fn lacks_children(&self, index: u32) -> bool {
        let Some(entry) = self.shards.get(&index) else {
            return false;
        };
        let all = self.shards.values();
        !all.flat_map(|child| &child.shard.parents)
            .any(|parent| *parent == entry.shard.id)
    }

    /// Shards that take records although the checkpoint has their ends: the stream was recreated.
    pub(crate) fn reborn(&self) -> Vec<u32> {
        let is_reborn = |entry: &ShardEntry| {
            matches!(entry.begin, ShardPosition::Ended { .. }) && entry.state == State::Waiting
        };
        let all = self.shards.iter();
        all.filter(|(_, entry)| is_reborn(entry))
            .map(|(&index, _)| index)
            .collect()
    }
}

/// A shard of which only the checkpoint knows.
fn unlisted(index: u32) -> StreamShard {
    StreamShard {
        id: format!("{PREFIX}{index:012}"),
        parents: Vec::new(),
        first: None,
        is_closed: true,
    }
}

fn read_position(index: u32, position: &StoredPosition) -> Result<ShardPosition, Unavailable> {
    ShardPosition::read(position).ok_or_else(|| bad_position(index, position))
}

/// The error for an invalid position.
pub(crate) fn bad_position(index: u32, position: &StoredPosition) -> Unavailable {
    Unavailable {
        component: Component::Checkpoint,
        reason: format!("the checkpoint's position of shard {index} is {position}"),
        remedy:
            "expected is {\"sequence_number\": \"N\"}; restore it, or remove the checkpoint to \
                 begin at --start"
                .to_owned(),
    }
}

#[cfg(test)]
mod tests;
