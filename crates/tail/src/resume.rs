//! The cursors' positions in the checkpoint. Each includes its cursor's age, because the ages are a
//! setting that may change between two runs.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use audit_bridge_core::source::{Position, StoredPosition, StoredPositions};

/// A position that is not a tail's.
#[derive(Debug, thiserror::Error)]
#[error("the position of partition {partition} is not one of a log read by time: {position}")]
pub struct ResumeError {
    pub partition: u32,
    pub position: StoredPosition,
}

/// Where a cursor began, and up to where it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CursorState {
    pub(super) since: Timestamp,
    pub(super) read_to: Timestamp,
}

/// The position of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorPosition {
    pub(super) age: Duration,
    pub(super) state: CursorState,
}

/// `{"age_ms", "since", "read_to"}`.
impl Position for CursorPosition {
    fn to_stored(&self) -> StoredPosition {
        serde_json::json!({
            "age_ms": millis(self.age),
            "since": self.state.since.to_string(),
            "read_to": self.state.read_to.to_string(),
        })
    }
}

/// Parses the age in milliseconds and the state; `None` if it is not a tail's position.
pub(super) fn read(position: &StoredPosition) -> Option<(u64, CursorState)> {
    let age = position.get("age_ms")?.as_u64()?;
    let time = |name: &str| position.get(name)?.as_str()?.parse().ok();
    let place = CursorState {
        since: time("since")?,
        read_to: time("read_to")?,
    };
    Some((age, place))
}

/// Where the cursor of this position began, and up to where it has read; `None` if it is not a
/// tail's position.
pub fn cursor_times(position: &StoredPosition) -> Option<(Timestamp, Timestamp)> {
    read(position).map(|(_, place)| (place.since, place.read_to))
}

fn millis(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// Where the cursors of these ages (youngest first, the edge before all) resume.
///
/// A cursor resumes from its own position. A new one begins at the lowest position of all, because
/// what the others handed out above that may not be settled. The edge takes over what removed ages
/// still owed, so that their positions are no longer needed.
pub(super) fn places(
    ages: &[Duration],
    positions: &StoredPositions,
    start: Timestamp,
) -> Result<Vec<CursorState>, ResumeError> {
    let mut kept = BTreeMap::new();
    for (&partition, position) in positions {
        let (age, place) = read(position).ok_or_else(|| ResumeError {
            partition,
            position: position.clone(),
        })?;
        // An age occurs twice if a crash came between the writes that moved it to another index.
        kept.entry(age)
            .and_modify(|other: &mut CursorState| {
                other.since = other.since.min(place.since);
                other.read_to = other.read_to.min(place.read_to);
            })
            .or_insert(place);
    }
    let lowest = kept.values().map(|place| place.read_to).min();
    let lowest = lowest.unwrap_or(start);
    let new = CursorState {
        since: lowest,
        read_to: lowest,
    };
    let mut places: Vec<CursorState> = ages
        .iter()
        .map(|&age| kept.remove(&millis(age)).unwrap_or(new))
        .collect();
    if let Some(edge) = places.first_mut() {
        for gone in kept.values() {
            edge.read_to = edge.read_to.min(gone.read_to);
        }
        edge.since = edge.since.min(edge.read_to);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(1_700_000_000 + seconds, 123_456_789).unwrap()
    }

    fn check(kept: &[(u64, i64)], ages: &[u64], want: &[i64]) {
        let seconds = Duration::from_secs;
        let positions = kept.iter().enumerate().map(|(index, &(age, read_to))| {
            let position = CursorPosition {
                age: seconds(age),
                state: CursorState {
                    since: at(-1000),
                    read_to: at(read_to),
                },
            };
            let text = position.to_stored().to_string();
            (index as u32, serde_json::from_str(&text).unwrap())
        });
        let ages: Vec<Duration> = ages.iter().map(|&age| seconds(age)).collect();
        let places = places(&ages, &positions.collect(), at(0)).unwrap();
        let want: Vec<Timestamp> = want.iter().map(|&second| at(second)).collect();
        let places: Vec<Timestamp> = places.iter().map(|place| place.read_to).collect();
        assert_eq!(places, want, "{kept:?} {ages:?}");
    }

    #[test]
    fn cursors_resumed_under_new_settings_continue_in_place() {
        check(&[], &[0, 15], &[0, 0]);
        check(&[(0, 100), (15, 80)], &[0, 15], &[100, 80]);
        check(&[(0, 90), (15, 95)], &[0, 15], &[90, 95]);
        check(&[(0, 100), (15, 80), (600, 5)], &[0, 30], &[5, 5]);
        check(&[(0, 100), (15, 80), (600, 5)], &[0, 15], &[5, 80]);
        check(&[(0, 100), (15, 80), (15, 60)], &[0, 15], &[100, 60]);
        check(&[(0, 100), (15, 80)], &[0, 30, 600], &[80, 80, 80]);
        check(&[(0, 100), (600, 5)], &[0], &[5]);
        check(&[(0, 100)], &[0, 600], &[100, 100]);
    }

    #[test]
    fn resume_foreign_position_is_refused() {
        for foreign in [
            "7",
            "null",
            r#""2026-01-01T00:00:00Z""#,
            r#"{"read_to":"x"}"#,
        ] {
            let positions = [(0, serde_json::from_str(foreign).unwrap())];
            let error = places(&[Duration::ZERO], &positions.into(), at(0)).unwrap_err();
            assert!(error.to_string().contains(foreign), "{error}");
        }
    }
}
