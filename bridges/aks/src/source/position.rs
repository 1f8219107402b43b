//! A partition's position in the checkpoint.

use audit_bridge_app::provider::{Resume, Start};
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::{Position, StoredPosition, StoredPositions};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::client::{HubMessage, HubProperties, PartitionBounds};

/// The largest sequence number to which one can be added.
const SEQUENCE_NUMBER_MAX: i64 = i64::MAX - 1;
/// Stands for the oldest message in place of a time.
const EARLIEST: &str = "earliest";

/// Where a partition begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PartitionStart {
    /// Behind this message.
    After(MessagePosition),
    /// At its oldest message.
    Earliest,
    /// At the first message from this time on.
    From(Timestamp),
}

/// A message that was handed on or may be skipped; the one after it comes next.
///
/// A sequence number alone does not identify a message. Numbers restart in a recreated hub and in
/// the namespace to which an alias fails over, and a promoted replica reuses those that it never
/// received. An offset, which is opaque, survives a promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagePosition {
    /// One less than the first if there was no message yet.
    pub(crate) sequence_number: i64,
    /// Only of a received message: the offset in a partition's properties cannot be used if the
    /// namespace is replicated.
    pub(crate) offset: Option<String>,
    /// When the hub took it in.
    pub(crate) enqueued: Option<Timestamp>,
    /// When the hub was created.
    pub(crate) created_on: Option<Timestamp>,
}

impl PartitionStart {
    /// Where a partition starts that was never read.
    pub(crate) fn at(start: Start) -> PartitionStart {
        match start {
            Start::Earliest => PartitionStart::Earliest,
            Start::Latest(time) | Start::At(time) => PartitionStart::From(time),
        }
    }

    /// Where a partition continues. If there are positions but none of it, the partition is newer
    /// than they are.
    ///
    /// # Errors
    /// Its position is invalid.
    pub(crate) fn resume(partition: u32, resume: &Resume) -> Result<PartitionStart, Unavailable> {
        match resume.positions.get(&partition) {
            Some(position) => read(position).ok_or_else(|| Unavailable {
                component: Component::Checkpoint,
                reason: format!("the checkpoint's position of partition {partition} is {position}"),
                remedy: "expected is {\"sequence_number\": N}; restore it, or remove the \
                         checkpoint to begin at --start"
                    .to_owned(),
            }),
            None if !resume.positions.is_empty() => Ok(PartitionStart::Earliest),
            None => Ok(PartitionStart::at(resume.start)),
        }
    }

    /// Where a partition continues that is found later than the others: behind what was read of it, else
    /// at its beginning.
    pub(crate) fn of_later(partition: u32, positions: &StoredPositions) -> PartitionStart {
        let position = positions.get(&partition).and_then(read);
        position.unwrap_or(PartitionStart::Earliest)
    }

    /// The JSON for the checkpoint: a message's position, or `{"from": TIME}` for a partition that
    /// was not read yet.
    pub(crate) fn to_stored(&self) -> StoredPosition {
        match self {
            PartitionStart::After(message) => message.to_stored(),
            PartitionStart::Earliest => json!({"from": EARLIEST}),
            PartitionStart::From(time) => json!({"from": time}),
        }
    }
}

impl MessagePosition {
    /// The position of a message that was received, if it has a number.
    pub(crate) fn of(message: &HubMessage, created_on: Option<Timestamp>) -> Option<Self> {
        Some(MessagePosition {
            sequence_number: message.sequence_number?,
            offset: message.offset.clone(),
            enqueued: message.enqueued,
            created_on,
        })
    }

    /// Before the oldest message of a partition.
    pub(crate) fn before(bounds: &PartitionBounds, created_on: Option<Timestamp>) -> Self {
        MessagePosition {
            sequence_number: bounds.first.saturating_sub(1).max(-1),
            offset: None,
            enqueued: None,
            created_on,
        }
    }

    /// After the newest message of a partition.
    pub(crate) fn behind(bounds: &PartitionBounds, created_on: Option<Timestamp>) -> Self {
        MessagePosition {
            sequence_number: bounds.last,
            offset: None,
            enqueued: bounds.last_enqueued.filter(|_| bounds.last >= 0),
            created_on,
        }
    }

    /// Compares the times at which the messages were enqueued, since numbers may restart.
    fn is_further(&self, other: &MessagePosition) -> bool {
        match (self.enqueued, other.enqueued) {
            (Some(this), Some(other)) if this != other => this > other,
            _ => self.sequence_number > other.sequence_number,
        }
    }
}

/// `{"sequence_number", "offset", "enqueued", "created_on"}`; all but the first are optional.
impl Position for MessagePosition {
    fn to_stored(&self) -> StoredPosition {
        let mut position = json!({"sequence_number": self.sequence_number});
        let members = [
            ("offset", self.offset.as_ref().map(|offset| json!(offset))),
            ("enqueued", self.enqueued.map(|time| json!(time))),
            ("created_on", self.created_on.map(|time| json!(time))),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                position[name] = value;
            }
        }
        position
    }
}

fn read(position: &StoredPosition) -> Option<PartitionStart> {
    if let Some(from) = position.get("from") {
        return match from.as_str()? {
            EARLIEST => Some(PartitionStart::Earliest),
            time => time.parse().ok().map(PartitionStart::From),
        };
    }
    let number = position.get("sequence_number")?.as_i64()?;
    let time = |name: &str| match position.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(time) => time.as_str()?.parse().ok().map(Some),
    };
    let message = MessagePosition {
        sequence_number: number,
        offset: position.get("offset").and_then(offset),
        enqueued: time("enqueued")?,
        created_on: time("created_on")?,
    };
    (-1..=SEQUENCE_NUMBER_MAX)
        .contains(&number)
        .then_some(PartitionStart::After(message))
}

/// What the checkpoint knows of the hub: the partitions that were read of the newest one.
pub(crate) fn hub_of(positions: &StoredPositions) -> HubProperties {
    let created_on = |position| match read(position) {
        Some(PartitionStart::After(message)) => message.created_on,
        _ => None,
    };
    let newest = positions.values().filter_map(created_on).max();
    let of_it = positions
        .iter()
        .filter(|(_, position)| created_on(position) == newest);
    HubProperties {
        partitions: of_it.map(|(index, _)| index.to_string()).collect(),
        created_on: newest,
    }
}

/// An offset that is safe in a filter. Without one, the sequence number is used.
fn offset(value: &Value) -> Option<String> {
    let inside = |c: char| c.is_ascii_alphanumeric() || ":._-@/+=".contains(c);
    let offset = value.as_str()?;
    // `-1` and `@latest` are no messages.
    let is_message = !offset.is_empty() && !offset.starts_with(['-', '@']);
    (is_message && offset.chars().all(inside)).then(|| offset.to_owned())
}

/// Whether `this` is a message that was read, and lies after `other`.
pub(crate) fn is_further(this: &StoredPosition, other: &StoredPosition) -> bool {
    match (read(this), read(other)) {
        (Some(PartitionStart::After(this)), Some(PartitionStart::After(other))) => {
            this.is_further(&other)
        }
        (
            Some(PartitionStart::After(_)),
            Some(PartitionStart::Earliest | PartitionStart::From(_)),
        ) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
