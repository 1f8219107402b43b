//! The simulated log, and a source that reads it. Its partitions may be split and followed by
//! others, like a stream's shards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::source::{Page, PartitionChange, Source};
use tokio::time::{Instant, sleep, sleep_until};

use super::plan::{Dice, Plan};
use super::world::Shared;

/// First index of the fillers, all of which are events.
pub(crate) const FILLER: u64 = 17_000_000;
/// The partition of the fillers.
pub(crate) const FILLERS: u32 = 1000;

/// A record of the log: its original partition, and its number there.
pub(crate) type Place = (u32, u64);

pub(crate) fn id((partition, index): Place) -> String {
    format!("p{partition}-{index}")
}

pub(crate) fn event_text(place: Place) -> String {
    format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\
         \"auditID\":\"{}\",\"stage\":\"ResponseComplete\",\"verb\":\"get\",\
         \"stageTimestamp\":\"2026-11-21T10:00:00.000000Z\"}}",
        id(place)
    )
}

/// The kind of the record at an index; most are events.
pub(crate) fn kind(index: u64) -> &'static str {
    match index % 17 {
        _ if index >= FILLER => "event",
        3 => "stranger",
        5 => "broken",
        11 => "poison",
        _ => "event",
    }
}

fn text((partition, index): Place) -> String {
    match kind(index) {
        "stranger" => "{\"message\":\"nothing of ours\"}".to_owned(),
        "broken" => format!(
            "{{\"kind\":\"Event\",\"auditID\":\"{}\"}}",
            id((partition, index))
        ),
        _ => event_text((partition, index)),
    }
}

/// A part of a partition that is read in order, and its children, which follow when it is read.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) records: Vec<Place>,
    pub(crate) children: Vec<u32>,
    parent: Option<u32>,
}

impl Shard {
    /// The records between two positions.
    pub(crate) fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &Place> {
        let (from, to) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
        self.records[from.min(to)..to].iter()
    }
}

/// The whole log.
#[derive(Debug, Default)]
pub(crate) struct Shards(BTreeMap<u32, Shard>);

impl Shards {
    pub(crate) fn of(plan: &Plan) -> Shards {
        let mut dice = Dice(plan.seed ^ 0x5bad);
        let mut shards = Shards::default();
        for partition in 0..plan.partitions {
            shards.0.insert(partition, Shard::default());
        }
        for partition in 0..plan.partitions {
            let records = (0..plan.records).map(|index| (partition, index)).collect();
            let depth = if plan.resharded { 3 } else { 0 };
            shards.fill(partition, records, depth, &mut dice);
        }
        shards
    }

    /// Gives a shard these records, or gives it a part of them and its children the rest.
    fn fill(&mut self, id: u32, mut records: Vec<Place>, depth: u32, dice: &mut Dice) {
        if depth > 0 && dice.chance(70) {
            let at = usize::try_from(dice.below(records.len() as u64 + 1)).unwrap();
            let rest = records.split_off(at);
            let parts = match dice.chance(50) {
                true => {
                    let (even, odd) = rest.iter().partition(|(_, index)| index % 2 == 0);
                    vec![even, odd]
                }
                false => vec![rest],
            };
            for part in parts {
                let child = u32::try_from(self.0.len()).unwrap();
                let parent = Some(id);
                self.0.insert(
                    child,
                    Shard {
                        parent,
                        ..Shard::default()
                    },
                );
                self.0.get_mut(&id).unwrap().children.push(child);
                self.fill(child, part, depth - 1, dice);
            }
        }
        self.0.get_mut(&id).unwrap().records = records;
    }

    pub(crate) fn get(&self, id: u32) -> &Shard {
        &self.0[&id]
    }

    /// Whether shard `id` is a descendant of `other`.
    pub(crate) fn follows(&self, id: u32, other: u32) -> bool {
        let parent = self.0.get(&id).and_then(|shard| shard.parent);
        parent.is_some_and(|parent| parent == other || self.follows(parent, other))
    }

    /// The shards without children.
    pub(crate) fn last(&self) -> impl Iterator<Item = (u32, &Shard)> {
        let all = self.0.iter().map(|(&id, shard)| (id, shard));
        all.filter(|(_, shard)| shard.children.is_empty())
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.0
            .values()
            .flat_map(|shard| shard.records.iter())
            .copied()
    }

    /// The records that a checkpoint covers: those before each position, and all of a shard without
    /// one whose descendants have positions.
    pub(crate) fn before(&self, positions: &BTreeMap<u32, u64>) -> Vec<Place> {
        let mut shards: BTreeMap<u32, usize> = BTreeMap::new();
        for (&id, &position) in positions.iter().filter(|(id, _)| **id != FILLERS) {
            shards.insert(id, usize::try_from(position).unwrap());
            let mut above = self.0[&id].parent;
            while let Some(parent) = above {
                if !positions.contains_key(&parent) {
                    shards.insert(parent, self.0[&parent].records.len());
                }
                above = self.0[&parent].parent;
            }
        }
        let records = shards.iter();
        records
            .flat_map(|(id, &upto)| self.0[id].records[..upto].iter().copied())
            .collect()
    }
}

/// A reader of the log. A position is a number of records of the shard.
pub(crate) struct Log {
    world: Shared,
    plan: Plan,
    dice: Dice,
    /// The next record of each shard that is being read.
    next: BTreeMap<u32, u64>,
    /// Shards of which nothing was read yet.
    fresh: BTreeSet<u32>,
    /// Shards that this process has read or announced.
    known: BTreeSet<u32>,
    fillers: u64,
    filler_at: Option<Instant>,
}

impl Log {
    /// Continues at these positions; partitions without one start at the beginning.
    pub(crate) fn open(world: &Shared, seed: u64, positions: &BTreeMap<u32, u64>) -> Log {
        let plan = world.lock().unwrap().plan;
        let mut next = positions.clone();
        next.remove(&FILLERS);
        let roots = {
            let world = world.lock().unwrap();
            let root = |id: &u32| {
                let mut root = *id;
                while let Some(parent) = world.shards.get(root).parent {
                    root = parent;
                }
                root
            };
            next.keys().map(root).collect::<BTreeSet<u32>>()
        };
        let fresh = (0..plan.partitions).filter(|id| !roots.contains(id));
        let fresh: BTreeSet<u32> = fresh.collect();
        next.extend(fresh.iter().map(|&id| (id, 0)));
        Log {
            world: world.clone(),
            plan,
            dice: Dice(seed),
            known: next.keys().copied().collect(),
            next,
            fresh,
            fillers: 0,
            filler_at: None,
        }
    }

    fn filler(&mut self) -> Page<u64> {
        self.filler_at = None;
        let index = self.fillers;
        self.fillers += 1;
        let place = (FILLERS, FILLER + index);
        Page {
            partition: FILLERS,
            records: vec![record(event_text(place), FILLERS, index)],
            ..Page::default()
        }
    }

    /// A page with some records of a shard, or one that announces its children.
    fn page(&mut self, id: u32) -> Page<u64> {
        let world = self.world.clone();
        let world = world.lock().unwrap();
        let shard = world.shards.get(id);
        if self.fresh.remove(&id) {
            return Page {
                partition: id,
                position: Some(0),
                partitions: vec![PartitionChange::Announced(id)],
                ..Page::default()
            };
        }
        let (from, len) = (self.next[&id], shard.records.len() as u64);
        if from == len {
            return self.follow(id, &shard.children);
        }
        let to = len.min(from + self.dice.below(30));
        self.next.insert(id, to);
        let places = shard.records.iter().enumerate();
        let places = places
            .skip(usize::try_from(from).unwrap())
            .take(usize::try_from(to - from).unwrap());
        // Some pages have no position, some only that.
        let position = (!self.dice.chance(30) || to == len).then_some(to);
        Page {
            partition: id,
            records: places
                .map(|(number, &place)| record(text(place), id, number as u64))
                .collect(),
            position,
            ..Page::default()
        }
    }

    /// Announces one more child, and retires the parent with the last. Each child starts with a
    /// position, so that a checkpoint without the parent says where to continue.
    fn follow(&mut self, id: u32, children: &[u32]) -> Page<u64> {
        let unknown = children.iter().filter(|child| !self.known.contains(child));
        let unknown: Vec<u32> = unknown.copied().collect();
        let Some(&child) = unknown.first() else {
            // An earlier process announced them all, and crashed before this shard was retired.
            self.next.remove(&id);
            return Page {
                partitions: vec![PartitionChange::Retired(id)],
                ..Page::default()
            };
        };
        self.next.insert(child, 0);
        self.known.insert(child);
        let mut partitions = vec![PartitionChange::Announced(child)];
        if unknown.len() == 1 {
            self.next.remove(&id);
            partitions.push(PartitionChange::Retired(id));
            if self.dice.chance(20) {
                // Announces and retires it again, like a source that is not sure.
                partitions.push(PartitionChange::Announced(id));
                partitions.push(PartitionChange::Retired(id));
            }
        }
        Page {
            partition: child,
            position: Some(0),
            partitions,
            ..Page::default()
        }
    }

    fn open_shards(&self) -> Vec<u32> {
        let world = self.world.lock().unwrap();
        let next = self.next.iter();
        next.filter(|(id, next)| {
            let shard = world.shards.get(**id);
            **next < shard.records.len() as u64
                || !shard.children.is_empty()
                || self.fresh.contains(*id)
        })
        .map(|(&id, _)| id)
        .collect()
    }
}

fn record(text: String, partition: u32, number: u64) -> Record {
    let origin = Origin::Stream {
        stream: partition.to_string().into(),
        id: number.to_string(),
    };
    Record::new(text, origin)
}

impl Source for Log {
    type Position = u64;

    async fn read(&mut self) -> Option<Page<u64>> {
        if self.world.lock().unwrap().crashed {
            return std::future::pending().await;
        }
        if self.dice.chance(20) {
            sleep(Duration::from_millis(self.dice.below(3000))).await;
        }
        let open = self.open_shards();
        let page = if open.is_empty() {
            if self.fillers == self.plan.poison.fillers() {
                return None;
            }
            let soon = Instant::now() + Duration::from_secs(20);
            sleep_until(*self.filler_at.get_or_insert(soon)).await;
            self.filler()
        } else {
            let id = self.dice.pick(&open);
            self.page(id)
        };
        self.world.lock().unwrap().read(&page);
        Some(page)
    }

    fn commit(&mut self, partition: u32, position: &u64) {
        let mut world = self.world.lock().unwrap();
        world.note(|| format!("commit {partition} {position}"));
        assert!(
            world
                .durable
                .get(&partition)
                .is_some_and(|it| it >= position)
                || world.plan.lost_syncs > 0,
            "committed before it is kept"
        );
    }
}
