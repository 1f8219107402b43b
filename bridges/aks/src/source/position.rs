//! Where a partition begins, and what the checkpoint keeps of it.

use audit_bridge_app::provider::{Resume, Start};
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::Position;
use jiff::Timestamp;
use serde_json::json;

/// The largest sequence number that has room for one more behind it.
const SEQUENCE_NUMBER_MAX: i64 = i64::MAX - 1;
/// How the oldest message is written where a time could be.
const EARLIEST: &str = "earliest";

/// Where a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartitionStart {
    /// Behind this sequence number.
    After(i64),
    /// At its oldest message.
    Earliest,
    /// At what comes from this time on.
    From(Timestamp),
}

impl PartitionStart {
    /// Where a partition begins that nobody has read.
    pub(crate) fn at(start: Start) -> PartitionStart {
        match start {
            Start::Earliest => PartitionStart::Earliest,
            Start::Latest(time) | Start::At(time) => PartitionStart::From(time),
        }
    }

    /// Where a partition goes on. One that existing positions do not know came after them.
    ///
    /// # Errors
    /// Its position is not one of ours.
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

    /// The same, to be kept: `{"sequence_number": N}`, or `{"from": TIME}` of a partition that
    /// nobody has read yet.
    pub(crate) fn position(self) -> Position {
        match self {
            PartitionStart::After(number) => after(number, None),
            PartitionStart::Earliest => json!({"from": EARLIEST}),
            PartitionStart::From(time) => json!({"from": time}),
        }
    }
}

/// The position behind a message.
pub(crate) fn after(sequence_number: i64, offset: Option<&str>) -> Position {
    match offset {
        Some(offset) => json!({"sequence_number": sequence_number, "offset": offset}),
        None => json!({"sequence_number": sequence_number}),
    }
}

fn read(position: &Position) -> Option<PartitionStart> {
    if let Some(from) = position.get("from") {
        return match from.as_str()? {
            EARLIEST => Some(PartitionStart::Earliest),
            time => time.parse().ok().map(PartitionStart::From),
        };
    }
    let number = position.get("sequence_number")?.as_i64()?;
    (-1..=SEQUENCE_NUMBER_MAX)
        .contains(&number)
        .then_some(PartitionStart::After(number))
}

/// Whether `this` is a message that was reached, behind `other`.
pub(crate) fn is_further(this: &Position, other: &Position) -> bool {
    match (read(this), read(other)) {
        (Some(PartitionStart::After(this)), Some(PartitionStart::After(other))) => this > other,
        (
            Some(PartitionStart::After(_)),
            Some(PartitionStart::Earliest | PartitionStart::From(_)),
        ) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_written_is_read_again() {
        let time: Timestamp = "2026-11-21T10:00:00.123456789Z".parse().unwrap();
        for begin in [
            PartitionStart::After(-1),
            PartitionStart::After(SEQUENCE_NUMBER_MAX),
            PartitionStart::Earliest,
            PartitionStart::From(time),
        ] {
            assert_eq!(read(&begin.position()), Some(begin));
        }
        assert_eq!(
            read(&after(7, Some("4711"))),
            Some(PartitionStart::After(7))
        );
    }

    #[test]
    fn position_reached_is_further_than_any_start() {
        let made = [
            PartitionStart::Earliest,
            PartitionStart::From(Timestamp::MAX),
        ]
        .map(PartitionStart::position);
        for made in &made {
            assert!(is_further(&after(-1, None), made));
            assert!(!is_further(made, &after(-1, None)));
            assert!(!is_further(made, &made.clone()));
        }
        assert!(is_further(&after(8, None), &after(7, Some("4711"))));
        assert!(!is_further(&after(7, None), &after(7, None)));
    }

    #[test]
    fn position_invalid_is_refused() {
        for wrong in [
            json!(null),
            json!(7),
            json!({}),
            json!({"sequence_number": "7"}),
            json!({"sequence_number": -2}),
            json!({"sequence_number": i64::MAX}),
            json!({"from": 7}),
            json!({"from": "yesterday"}),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }
}
