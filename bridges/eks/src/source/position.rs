//! A shard's position in the checkpoint.

use audit_bridge_app::provider::Start;
use audit_bridge_core::source::{Page, Position, StoredPosition};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::gap_detector::KeptPace;
use crate::client::kinesis::{IteratorStart, SequenceNumber};

/// How far a shard is read, as the checkpoint stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ShardPosition {
    /// After this record.
    After {
        sequence_number: SequenceNumber,
        /// Everything that the shard held at this time, by the provider's clock, was read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        read_to: Option<Timestamp>,
        /// The paces of its log streams, for the gap detector.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        paces: Vec<KeptPace>,
    },
    /// At a time or at the oldest record: it was not read yet.
    From {
        /// The oldest record, or a time.
        from: Begin,
    },
    /// The shard is closed and was read to its end.
    Ended {
        /// Always `true`.
        shard_end: ShardEnd,
    },
}

/// Where an unread shard starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Begin {
    /// At its oldest record.
    Earliest,
    /// At the first record that arrived at this time or later.
    Time(Timestamp),
}

/// The stored start of a shard is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a time nor {EARLIEST}")]
pub struct InvalidBegin(String);

impl TryFrom<String> for Begin {
    type Error = InvalidBegin;

    fn try_from(text: String) -> Result<Begin, InvalidBegin> {
        match (text.as_str(), text.parse()) {
            (EARLIEST, _) => Ok(Begin::Earliest),
            (_, Ok(time)) => Ok(Begin::Time(time)),
            (_, Err(_)) => Err(InvalidBegin(text)),
        }
    }
}

impl From<Begin> for String {
    fn from(begin: Begin) -> String {
        match begin {
            Begin::Earliest => EARLIEST.to_owned(),
            Begin::Time(time) => time.to_string(),
        }
    }
}

const EARLIEST: &str = "earliest";

impl Begin {
    pub(crate) fn place(&self) -> IteratorStart {
        match self {
            Begin::Earliest => IteratorStart::Oldest,
            Begin::Time(time) => IteratorStart::From(*time),
        }
    }
}

/// A marker that is `true` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "bool", into = "bool")]
pub struct ShardEnd;

impl TryFrom<bool> for ShardEnd {
    type Error = &'static str;

    fn try_from(end: bool) -> Result<ShardEnd, &'static str> {
        match end {
            true => Ok(ShardEnd),
            false => Err("shard_end is true, or is not there"),
        }
    }
}

impl From<ShardEnd> for bool {
    fn from(_: ShardEnd) -> bool {
        true
    }
}

impl ShardPosition {
    pub(crate) const ENDED: ShardPosition = ShardPosition::Ended {
        shard_end: ShardEnd,
    };

    /// The position of an unread shard that starts here.
    pub(crate) fn at(start: Start) -> ShardPosition {
        ShardPosition::From {
            from: match start {
                Start::Earliest => Begin::Earliest,
                Start::Latest(time) | Start::At(time) => Begin::Time(time),
            },
        }
    }

    /// Parses a position of the checkpoint; `None` if it is invalid.
    pub(crate) fn read(position: &StoredPosition) -> Option<ShardPosition> {
        ShardPosition::deserialize(position).ok()
    }
}

pub(super) type ShardPage = Page<ShardPosition>;

impl Position for ShardPosition {
    fn to_stored(&self) -> StoredPosition {
        // Strings and a flag cannot fail to serialise.
        serde_json::to_value(self).unwrap_or_default()
    }
}

pub(crate) fn is_end(position: &StoredPosition) -> bool {
    ShardPosition::read(position) == Some(ShardPosition::ENDED)
}

/// Whether `this` was reached by reading, and lies after `other`.
pub(crate) fn is_further(this: &StoredPosition, other: &StoredPosition) -> bool {
    use ShardPosition::{After, Ended, From};

    let number = |position: &ShardPosition| match position {
        After {
            sequence_number, ..
        } => Some(sequence_number.clone()),
        _ => None,
    };
    match (ShardPosition::read(this), ShardPosition::read(other)) {
        (Some(this @ After { .. }), Some(other @ After { .. })) => number(&this) > number(&other),
        (Some(After { .. }), Some(From { .. })) => true,
        (Some(Ended { .. }), Some(After { .. } | From { .. })) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn after(number: &str) -> ShardPosition {
        ShardPosition::After {
            sequence_number: SequenceNumber::parse(number).unwrap(),
            read_to: None,
            paces: Vec::new(),
        }
    }

    #[test]
    fn position_written_is_read_again() {
        let time: Timestamp = "2026-11-21T10:00:00.123Z".parse().unwrap();
        for position in [
            after("49589238005775633934916144566022322418012108603250442258"),
            ShardPosition::After {
                sequence_number: SequenceNumber::parse("7").unwrap(),
                read_to: Some(time),
                paces: Vec::new(),
            },
            ShardPosition::at(Start::Earliest),
            ShardPosition::at(Start::Latest(time)),
            ShardPosition::ENDED,
        ] {
            assert_eq!(ShardPosition::read(&position.to_stored()), Some(position));
        }
        assert_eq!(ShardPosition::ENDED.to_stored(), json!({"shard_end": true}));
        assert_eq!(after("7").to_stored(), json!({"sequence_number": "7"}));
    }

    #[test]
    fn position_invalid_is_refused() {
        for wrong in [
            json!(null),
            json!({}),
            json!({"sequence_number": 7}),
            json!({"sequence_number": ""}),
            json!({"sequence_number": "-7"}),
            json!({"from": "yesterday"}),
            json!({"shard_end": false}),
            json!({"shard_end": "true"}),
        ] {
            assert_eq!(ShardPosition::read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn position_reached_is_further_than_any_start() {
        let made = [Start::Earliest, Start::At(Timestamp::MAX)].map(ShardPosition::at);
        for made in made.map(|made| made.to_stored()) {
            assert!(is_further(&after("0").to_stored(), &made));
            assert!(is_further(&ShardPosition::ENDED.to_stored(), &made));
            assert!(!is_further(&made, &after("0").to_stored()));
            assert!(!is_further(&made, &made.clone()));
        }
        let (low, high) = (after("9").to_stored(), after("10").to_stored());
        assert!(is_further(&high, &low) && !is_further(&low, &high));
        let end = ShardPosition::ENDED.to_stored();
        assert!(is_further(&end, &high) && !is_further(&high, &end));
        assert!(!is_further(&end, &end.clone()));
    }
}
