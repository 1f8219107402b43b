//! How far each input of a replay is settled, and whether it is still the same input.
//!
//! # Design
//! An input is its own partition. Its position describes the unpacked bytes up to the last settled
//! record: how many, their SHA-256, and how many records they hold. When a replay is resumed, the
//! same bytes are read and hashed again before anything is skipped:
//! - if they are the same, it continues behind the settled records; a finished input that did not
//!   grow is skipped as a whole;
//! - if they differ, the input is replayed from its beginning, with a warning.
//!
//! An input is identified by its path, so the order of inputs does not matter. A new one is read
//! from its beginning. The position of an input that is not named this time stays in the
//! checkpoint, like that of any unannounced partition.
//!
//! A record at the very end of an input may be cut, and be a different record once the input grows.
//! So a position says how many records at its end are such (`uncertain`); they are read again if
//! more follows them.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use audit_bridge_core::source::{Position, StoredPosition, StoredPositions};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::input::Input;

/// How many bytes are hashed at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// The settled position of one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputPosition {
    /// The input's path; with a number appended if the path is named again.
    pub(super) input: String,
    /// The number of its records, from the first.
    pub(super) records: u64,
    /// The number of unpacked bytes that hold them.
    pub(super) offset: u64,
    /// Their SHA-256.
    pub(super) sha256: String,
    /// How many records at the end might be different if the input grew.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) uncertain: u64,
    /// The input was read to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) finished: bool,
    /// Some of them are in the dead letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) rejects: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Position for InputPosition {
    fn to_stored(&self) -> StoredPosition {
        // Strings, numbers and a flag cannot fail to serialise.
        serde_json::to_value(self).unwrap_or_default()
    }

    fn note_reject(&mut self) {
        self.rejects = true;
    }
}

/// A position that is not a replay's.
#[derive(Debug, thiserror::Error)]
#[error(
    "the position of partition {partition} is not one of an input of a replay: {position}; restore \
     the checkpoint, or name a new --state-dir to replay everything"
)]
pub struct PositionError {
    pub partition: u32,
    pub position: StoredPosition,
}

/// An input with its partition and settled position.
#[derive(Debug)]
pub(super) struct InputPartition {
    pub(super) input: Input,
    pub(super) partition: u32,
    /// As [`InputPosition::input`].
    pub(super) key: String,
    pub(super) settled: Option<InputPosition>,
}

/// The positions of an earlier run, with their partitions, by [`InputPosition::input`].
pub(super) type KnownInputs = HashMap<String, (u32, InputPosition)>;

/// Reads the positions of an earlier run.
///
/// # Errors
/// One of them is not a replay's.
pub(super) fn read(positions: &StoredPositions) -> Result<KnownInputs, PositionError> {
    let mut known = KnownInputs::new();
    for (&partition, position) in positions {
        let settled: InputPosition =
            serde_json::from_value(position.clone()).map_err(|_| PositionError {
                partition,
                position: position.clone(),
            })?;
        known.insert(settled.input.clone(), (partition, settled));
    }
    Ok(known)
}

/// Assigns a partition to every input: its former one, or a free one.
pub(super) fn assign(inputs: Vec<Input>, mut known: KnownInputs) -> Vec<InputPartition> {
    let taken: BTreeSet<u32> = known.values().map(|(partition, _)| *partition).collect();
    let mut free = (0..=u32::MAX).filter(|partition| !taken.contains(partition));
    let mut times = HashMap::<Arc<str>, u32>::new();
    let assigned = inputs.into_iter().map(|input| {
        let name = input.name();
        let time = times.entry(Arc::clone(&name)).or_default();
        *time += 1;
        let key = match time {
            1 => name.to_string(),
            _ => format!("{name} ({time})"),
        };
        let (partition, settled) = match known.remove(&key) {
            Some((partition, settled)) => (partition, Some(settled)),
            None => (free.next().unwrap_or(u32::MAX), None),
        };
        InputPartition {
            input,
            partition,
            key,
            settled,
        }
    });
    assigned.collect()
}

/// How an input compares with its settled part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputComparison {
    /// The bytes are the same, and the input ends behind them.
    Whole,
    /// The bytes are the same, and more follow.
    Longer,
    /// The bytes differ.
    Changed,
    /// The input is shorter than its settled part.
    Shorter,
}

impl InputComparison {
    /// Whether the settled part still is the input's.
    pub(super) fn goes_on(self) -> bool {
        matches!(self, InputComparison::Whole | InputComparison::Longer)
    }
}

/// Reads the settled part of an input again and compares it.
pub(super) fn compare(
    mut content: impl Read,
    settled: &InputPosition,
) -> io::Result<InputComparison> {
    let mut hasher = Sha256::new();
    let mut left = settled.offset;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let most = usize::try_from(left.max(1)).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let bytes = match content.read(&mut chunk[..most]) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // An error behind the settled part is reported when that part is read.
            Err(_) if left == 0 => return Ok(same(&hasher, settled, InputComparison::Longer)),
            Err(error) => return Err(error),
        };
        match (left, bytes) {
            (0, 0) => return Ok(same(&hasher, settled, InputComparison::Whole)),
            (0, _) => return Ok(same(&hasher, settled, InputComparison::Longer)),
            (_, 0) => return Ok(InputComparison::Shorter),
            _ => {
                hasher.update(&chunk[..bytes]);
                left -= bytes as u64;
            }
        }
    }
}

fn same(hasher: &Sha256, settled: &InputPosition, then: InputComparison) -> InputComparison {
    match digits(hasher) == settled.sha256 {
        true => then,
        false => InputComparison::Changed,
    }
}

/// Computes an input's position behind each record while it is read.
#[derive(Debug, Default)]
pub(super) struct InputFollower {
    hasher: Sha256,
    offset: u64,
    records: u64,
    /// The number of records before the first one that might change if the input grew.
    certain: Option<u64>,
    /// Whether the last record is certain only if another one follows.
    last_uncertain: bool,
    /// As in [`InputPosition`], by an earlier run.
    rejects: bool,
}

impl InputFollower {
    /// Follows an input from its beginning; `rejects` is of the settled part that is passed over.
    pub(super) fn new(rejects: bool) -> InputFollower {
        InputFollower {
            rejects,
            ..InputFollower::default()
        }
    }

    pub(super) fn passed(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
    }

    /// Adds a record; `at_end`: the input ended behind it.
    pub(super) fn record(&mut self, damaged: bool, whole: bool, at_end: bool) {
        if at_end && damaged {
            self.certain.get_or_insert(self.records);
        }
        self.records += 1;
        self.last_uncertain = at_end && !whole;
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn position(&self, input: &str, finished: bool) -> InputPosition {
        let last = self.records - u64::from(self.last_uncertain);
        let certain = self.certain.unwrap_or(last).min(last);
        InputPosition {
            input: input.to_owned(),
            records: self.records,
            offset: self.offset,
            sha256: digits(&self.hasher),
            uncertain: self.records - certain,
            finished,
            rejects: self.rejects,
        }
    }
}

/// The hash so far, as hexadecimal digits.
pub(super) fn digits(hasher: &Sha256) -> String {
    hex::encode(hasher.clone().finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(bytes: &[u8]) -> InputPosition {
        let mut follower = InputFollower::default();
        follower.passed(bytes);
        follower.record(false, true, false);
        follower.position("a", false)
    }

    #[test]
    fn input_comparison_tells_how_settled_part_changed() {
        let long = vec![b'x'; 3 * CHUNK_BYTES + 7];
        for (before, now, want) in [
            (&b"abc"[..], &b"abc"[..], InputComparison::Whole),
            (b"abc", b"abcd", InputComparison::Longer),
            (b"abc", b"abd", InputComparison::Changed),
            (b"abc", b"abdd", InputComparison::Changed),
            (b"abc", b"ab", InputComparison::Shorter),
            (b"abc", b"", InputComparison::Shorter),
            (b"", b"", InputComparison::Whole),
            (b"", b"a", InputComparison::Longer),
            (&long, &long, InputComparison::Whole),
        ] {
            assert_eq!(compare(now, &settled(before)).unwrap(), want);
        }
    }

    #[test]
    fn inputs_reordered_and_added_keep_their_partitions() {
        let file = |name: &str| Input::File(name.into());
        let kept = |name: &str| {
            let position = InputPosition {
                input: name.to_owned(),
                ..settled(b"x")
            };
            serde_json::to_value(position).unwrap()
        };
        let positions = [(0, kept("a")), (1, kept("gone")), (3, kept("b"))].into();
        let inputs = ["c", "b", "a", "b", "d"].map(file).to_vec();
        let assigned = assign(inputs, read(&positions).unwrap());
        let got: Vec<_> = assigned
            .iter()
            .map(|it| (it.key.as_str(), it.partition, it.settled.is_some()))
            .collect();
        let want = [
            ("c", 2, false),
            ("b", 3, true),
            ("a", 0, true),
            ("b (2)", 4, false),
            ("d", 5, false),
        ];
        assert_eq!(got, want);
        let foreign = [(7, StoredPosition::from(12))].into();
        let error = read(&foreign).unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }

    #[test]
    fn position_at_damaged_end_names_uncertain_records() {
        let mut follower = InputFollower::default();
        follower.record(true, false, false);
        follower.record(false, true, true);
        assert_eq!(follower.position("a", true).uncertain, 0);
        follower.record(false, false, true);
        assert_eq!(follower.position("a", true).uncertain, 1);
        follower.record(true, false, true);
        follower.record(false, true, true);
        assert_eq!(follower.position("a", true).uncertain, 2);
    }
}
