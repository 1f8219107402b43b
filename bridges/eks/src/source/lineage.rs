//! Which shards may be read: a shard that was split or merged is read to its end, and that end is in
//! the checkpoint, before those that it became begin. Where something keeps it out of the checkpoint for
//! long, its having been read is enough. Pure: no clock and no I/O.

use std::collections::{BTreeMap, BTreeSet};

use audit_bridge_app::provider::Start;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::Positions;

use super::position::{Begin, ShardPosition};
use crate::client::kinesis::StreamShard;

/// How the names of shards begin; a number of twelve digits follows.
const PREFIX: &str = "shardId-";

/// The partition of a shard: the number in its name.
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

/// What is done about a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its beginning is not in the checkpoint yet.
    Unkept,
    /// It waits for its parents.
    Waiting,
    /// Somebody reads it.
    Reading,
    /// It was read to the end of the job.
    Reached,
    /// Its end is in the checkpoint, or there is nothing of it to be had.
    Ended,
}

#[derive(Debug)]
struct PageEntry {
    shard: StreamShard,
    begin: ShardPosition,
    state: State,
    /// The checkpoint has a position of it.
    is_kept: bool,
    /// Whoever comes after it need not wait for its end to be in the checkpoint.
    is_passed: bool,
}

/// What follows from a list of the stream's shards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardChanges {
    /// Came since the last list.
    pub(crate) added: Vec<u32>,
    /// Read to their ends, and not listed any more: their positions are dropped.
    pub(crate) forgotten: Vec<u32>,
    /// Not listed any more before anybody read them: their records are lost.
    pub(crate) lost: Vec<(u32, String)>,
}

/// All shards of a stream, as far as they are listed.
#[derive(Debug, Default)]
pub(crate) struct Lineage {
    shards: BTreeMap<u32, PageEntry>,
}

impl Lineage {
    /// The shards of the first list. Those that the checkpoint does not know came after it, where
    /// there is one; else they begin at `start`, and not before that is in the checkpoint.
    ///
    /// # Errors
    /// A shard's name or a position is none of ours.
    pub(crate) fn new(
        listed: Vec<StreamShard>,
        positions: &Positions,
        start: Start,
    ) -> Result<Lineage, Unavailable> {
        let mut shards = BTreeMap::new();
        for shard in listed {
            let index = index_of(&shard.id)?;
            let kept = positions
                .get(&index)
                .map(|position| {
                    ShardPosition::read(position).ok_or_else(|| bad_position(index, position))
                })
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
            let entry = PageEntry {
                shard,
                begin,
                state,
                is_kept,
                is_passed: false,
            };
            shards.insert(index, entry);
        }
        Ok(Lineage { shards })
    }

    /// All of them, with whether the checkpoint knows it.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &StreamShard, bool)> {
        let all = self.shards.iter();
        all.map(|(&index, entry)| (index, &entry.shard, entry.is_kept))
    }

    /// Those whose beginning has to be kept before they are read, and the beginning.
    pub(crate) fn unkept(&self) -> Vec<(u32, ShardPosition)> {
        let all = self.shards.iter();
        all.filter(|(_, entry)| entry.state == State::Unkept)
            .map(|(&index, entry)| (index, entry.begin.clone()))
            .collect()
    }

    /// Whether the end of this one is in the checkpoint.
    pub(crate) fn is_ended(&self, index: u32) -> bool {
        let entry = self.shards.get(&index);
        entry.is_some_and(|entry| entry.state == State::Ended)
    }

    /// Takes those that may be read from now on.
    pub(crate) fn start(&mut self) -> Vec<(u32, StreamShard, ShardPosition)> {
        let open: BTreeSet<&str> = self
            .shards
            .values()
            .filter(|entry| entry.state != State::Ended && !entry.is_passed)
            .map(|entry| entry.shard.id.as_str())
            .collect();
        let may = |entry: &PageEntry| {
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

    /// The checkpoint has this position of a shard.
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

    /// A shard was read to its end, for which nobody waits any longer to be in the checkpoint.
    pub(crate) fn passed(&mut self, index: u32) {
        if let Some(entry) = self.shards.get_mut(&index) {
            entry.is_passed = true;
        }
    }

    /// A shard was read to the end of the job: its children hold nothing for it.
    pub(crate) fn reached(&mut self, index: u32) {
        if let Some(entry) = self.shards.get_mut(&index) {
            entry.state = State::Reached;
        }
    }

    /// The stream has this one no more, so nobody waits for it.
    pub(crate) fn gone(&mut self, index: u32) {
        self.shards.remove(&index);
    }

    /// Whether the job is done: nothing is read, and nothing will be.
    pub(crate) fn is_done(&self) -> bool {
        let all = self.shards.values();
        let reached: BTreeSet<&str> = all
            .filter(|entry| entry.state == State::Reached)
            .map(|entry| entry.shard.id.as_str())
            .collect();
        // What waits for one that was read to the end of the job came after it.
        let waits = |entry: &PageEntry| {
            let parents = &entry.shard.parents;
            parents.iter().any(|id| reached.contains(id.as_str()))
        };
        self.shards.values().all(|entry| match entry.state {
            State::Reached | State::Ended => true,
            State::Waiting => waits(entry),
            State::Unkept | State::Reading => false,
        })
    }

    /// The stream lists these shards now.
    ///
    /// # Errors
    /// The name of one is none of ours; the others are taken.
    pub(crate) fn list(&mut self, listed: Vec<StreamShard>) -> Result<ShardChanges, Unavailable> {
        let mut changes = ShardChanges::default();
        // A stream has shards: an empty list says nothing.
        if listed.is_empty() {
            return Ok(changes);
        }
        let mut there = BTreeSet::new();
        let mut wrong = None;
        for shard in listed {
            let index = match index_of(&shard.id) {
                Ok(index) => index,
                Err(unavailable) => {
                    wrong = Some(unavailable);
                    continue;
                }
            };
            there.insert(index);
            match self.shards.get_mut(&index) {
                Some(entry) => entry.shard = shard,
                None => {
                    changes.added.push(index);
                    let entry = PageEntry {
                        shard,
                        begin: ShardPosition::From {
                            from: Begin::Earliest,
                        },
                        state: State::Waiting,
                        is_kept: false,
                        is_passed: false,
                    };
                    self.shards.insert(index, entry);
                }
            }
        }
        let gone = self
            .shards
            .iter()
            .filter(|(index, _)| !there.contains(index));
        let gone: Vec<(u32, State)> = gone.map(|(&index, entry)| (index, entry.state)).collect();
        for (index, state) in gone {
            match state {
                // Its reader finds out by itself.
                State::Reading => {}
                State::Ended => {
                    self.shards.remove(&index);
                    changes.forgotten.push(index);
                }
                State::Unkept | State::Waiting | State::Reached => {
                    if let Some(entry) = self.shards.remove(&index)
                        && state != State::Reached
                    {
                        changes.lost.push((index, entry.shard.id));
                    }
                }
            }
        }
        match wrong {
            Some(unavailable) => Err(unavailable),
            None => Ok(changes),
        }
    }

    /// Whether a shard that is closed has no child in the list: one that was just split or merged
    /// must have.
    pub(crate) fn lacks_children(&self, index: u32) -> bool {
        let Some(entry) = self.shards.get(&index) else {
            return false;
        };
        let all = self.shards.values();
        !all.flat_map(|child| &child.shard.parents)
            .any(|parent| *parent == entry.shard.id)
    }

    /// Shards that take records, though the checkpoint has their ends: the stream was made anew.
    pub(crate) fn reborn(&self) -> Vec<u32> {
        let is_reborn = |entry: &PageEntry| {
            matches!(entry.begin, ShardPosition::Ended { .. }) && entry.state == State::Waiting
        };
        let all = self.shards.iter();
        all.filter(|(_, entry)| is_reborn(entry))
            .map(|(&index, _)| index)
            .collect()
    }
}

/// A position that is none of ours.
pub(crate) fn bad_position(
    index: u32,
    position: &audit_bridge_core::source::Position,
) -> Unavailable {
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
