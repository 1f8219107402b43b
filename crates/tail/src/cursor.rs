//! One cursor: decides which window it reads next, and what it may skip. No I/O.
//!
//! A cursor of age A must ensure that every stretch of the log is read once when it is at least A
//! old, by any cursor. While the edge catches up after an outage, its windows are already old, so
//! they count for the other cursors too, and a backlog is read once rather than once per cursor.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task;
use tokio::time::Instant;

use super::log::{Window, after, before, floor};
use super::resume::CursorState;
use super::segments::Filed;

/// A clock that is behind a position by less than this was only slightly corrected.
pub(super) const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// How many stretches read by others a cursor remembers. Older ones are forgotten, and read again.
const COVERED_MAX: usize = 16;

/// How many positions may wait for their records to be settled. Beyond it, the two oldest are
/// merged.
const MARKS_MAX: usize = 4096;

/// A window being read.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    pub(super) window: Window,
    /// The token of the page to request; `None` for the first.
    pub(super) token: Option<String>,
    /// When it began, by the wall clock.
    pub(super) begun: Timestamp,
    /// When it began, from which the next scan's time is computed.
    pub(super) begun_at: Instant,
    /// How many of its pages with events were read.
    pub(super) pages: u32,
    /// Whether the window ends only because its length is limited, so that more is to be read
    /// behind it.
    pub(super) cut: bool,
}

/// A position that was emitted, and what was handed out before it.
#[derive(Debug, Default)]
pub(super) struct HandedOut {
    pub(super) read_to: Timestamp,
    pub(super) identities: Vec<Filed>,
    pub(super) newest: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Cursor {
    /// The minimum age of what this cursor reads.
    pub(super) age: Duration,
    /// The time between the starts of two scans that both reached the end.
    pub(super) interval: Duration,
    /// Where it first began. Nothing before this is ever read. Until now has advanced by its age,
    /// the cursor is ahead of its target.
    pub(super) since: Timestamp,
    /// Everything before this is read.
    pub(super) position: Timestamp,
    /// Everything before this is settled and in the checkpoint.
    pub(super) committed: Timestamp,
    pub(super) scan: Option<Scan>,
    /// Its request in flight.
    pub(super) request: Option<task::Id>,
    /// The earliest time of its next request.
    pub(super) due: Instant,
    /// Failed requests since the last answer.
    pub(super) failures: u32,
    /// What was handed out since the last position.
    pub(super) mark: HandedOut,
    /// Emitted positions that are not settled, oldest first.
    pub(super) marks: VecDeque<HandedOut>,
    covered: Vec<Window>,
}

impl Cursor {
    pub(super) fn new(age: Duration, interval: Duration, place: CursorState) -> Cursor {
        Cursor {
            age,
            interval,
            since: place.since,
            position: place.read_to,
            committed: place.read_to,
            scan: None,
            request: None,
            due: Instant::now(),
            failures: 0,
            mark: HandedOut::default(),
            marks: VecDeque::new(),
            covered: Vec::new(),
        }
    }

    /// The next window to read. It ends at the cursor's age before `now`, at `limit` (the position
    /// of the next younger cursor, or the end of the job), after `span`, or where another cursor
    /// has already read, whichever comes first. The flag says whether it was cut short of the
    /// target. `None`: there is nothing to read now.
    pub(super) fn plan(
        &self,
        now: Timestamp,
        limit: Timestamp,
        span: Duration,
        resolution: Duration,
    ) -> Option<(Window, bool)> {
        let target = floor(before(now, self.age), resolution).min(limit);
        let mut end = target;
        let longest = floor(after(self.position, span), resolution);
        // A span below the resolution would never advance.
        end = end.min(longest.max(after(self.position, resolution)));
        for covered in &self.covered {
            if covered.start > self.position {
                end = end.min(covered.start);
            }
        }
        let window = Window {
            start: self.position,
            end,
        };
        (window.start < window.end).then_some((window, end < target))
    }

    /// Everything in this window is read, of which the part that was old enough at `begun` is read
    /// for good.
    pub(super) fn complete(&mut self, read: Window, begun: Timestamp, resolution: Duration) {
        let old_enough = floor(before(begun, self.age), resolution);
        self.position = read.end.min(old_enough).max(read.start);
    }

    /// Moves back if the clock did, since what lies ahead of now was read too early. Returns
    /// whether it moved.
    pub(super) fn rewind(&mut self, now: Timestamp, resolution: Duration) -> bool {
        let target = floor(before(now, self.age), resolution).max(self.since);
        let ahead = before(self.position, CLOCK_SLACK) > target;
        if ahead {
            self.position = target;
            self.committed = self.committed.min(target);
            self.scan = None;
        }
        ahead
    }

    /// Begins again at an earlier time.
    pub(super) fn restart(&mut self, since: Timestamp) {
        self.since = since;
        self.position = since;
        self.committed = self.committed.min(since);
        self.scan = None;
        self.covered.clear();
    }

    /// Forgets what other cursors have read.
    pub(super) fn clear_covered(&mut self) {
        self.covered.clear();
    }

    /// Another cursor read this window, starting at `begun`. This cursor need not read the part
    /// that was old enough by then.
    pub(super) fn add_covered(&mut self, read: Window, begun: Timestamp, resolution: Duration) {
        let end = read.end.min(floor(before(begun, self.age), resolution));
        if end <= read.start || end <= self.position {
            return;
        }
        let start = read.start;
        match self.covered.iter_mut().find(|old| old.end == start) {
            Some(old) => old.end = end,
            None => self.covered.push(Window { start, end }),
        }
        if self.covered.len() > COVERED_MAX {
            self.covered.remove(0);
        }
    }

    /// Skips what other cursors have read. Returns whether it moved.
    pub(super) fn skip(&mut self) -> bool {
        if self.scan.is_some() {
            return false;
        }
        let from = self.position;
        // Stretches may overlap in any order.
        while let Some(next) = self
            .covered
            .iter()
            .filter(|covered| covered.contains(self.position))
            .map(|covered| covered.end)
            .max()
        {
            self.position = next;
        }
        let position = self.position;
        self.covered.retain(|covered| covered.end > position);
        from < position
    }

    /// Emits its position, behind everything handed out so far.
    pub(super) fn emit_position(&mut self) {
        let mut mark = std::mem::take(&mut self.mark);
        mark.read_to = self.position;
        if self.marks.len() >= MARKS_MAX
            && let Some(oldest) = self.marks.pop_front()
            && let Some(second) = self.marks.front_mut()
        {
            second.identities.extend(oldest.identities);
            second.newest = second.newest.max(oldest.newest);
        }
        self.marks.push_back(mark);
    }

    /// Commits this position and returns what is settled with it. `None` if the position was not
    /// emitted, or is settled already.
    pub(super) fn commit(&mut self, read_to: Timestamp) -> Option<HandedOut> {
        let at = self.marks.iter().position(|mark| mark.read_to == read_to)?;
        self.committed = read_to;
        let mut all = HandedOut {
            read_to,
            ..HandedOut::default()
        };
        for mark in self.marks.drain(..=at) {
            all.identities.extend(mark.identities);
            all.newest = all.newest.max(mark.newest);
        }
        Some(all)
    }

    /// How many identities wait for their records to be settled.
    pub(super) fn waiting(&self) -> usize {
        let marks = self.marks.iter();
        self.mark.identities.len() + marks.map(|mark| mark.identities.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn window(start: i64, end: i64) -> Window {
        Window {
            start: at(start),
            end: at(end),
        }
    }

    fn cursor(age: u64, position: i64) -> Cursor {
        let place = CursorState {
            since: at(-1000),
            read_to: at(position),
        };
        Cursor::new(Duration::from_secs(age), MINUTE, place)
    }

    #[tokio::test]
    async fn cursor_windows_join_without_gap_within_age_and_span() {
        let cursor = cursor(15, 0);
        let plan = |now: i64, limit: i64, span: u64| {
            cursor.plan(at(now), at(limit), Duration::from_secs(span), MILLI)
        };
        assert_eq!(plan(100, 1000, 1000), Some((window(0, 85), false)));
        assert_eq!(plan(100, 50, 1000), Some((window(0, 50), false)));
        assert_eq!(plan(100, 1000, 30), Some((window(0, 30), true)));
        assert_eq!(plan(15, 1000, 30), None);
        assert_eq!(plan(-100, 1000, 30), None, "the clock went back");
        let (least, cut) = plan(100, 1000, 0).unwrap();
        assert_eq!((least.span(), cut), (MILLI, true));
    }

    #[tokio::test]
    async fn cursor_window_covered_by_another_is_skipped() {
        let mut cursor = cursor(600, 0);
        let ns = Duration::from_nanos(1);
        // Read at 700: only what is before 100 was old enough.
        cursor.add_covered(window(50, 300), at(700), ns);
        assert!(!cursor.skip(), "there is a gap before it");
        let plan = |cursor: &Cursor| cursor.plan(at(5000), at(5000), MINUTE * 60, ns);
        assert_eq!(plan(&cursor), Some((window(0, 50), true)));
        cursor.position = at(50);
        assert!(cursor.skip() && cursor.position == at(100));
        // Adjacent windows are merged.
        cursor.add_covered(window(120, 200), at(5000), ns);
        cursor.add_covered(window(200, 300), at(5000), ns);
        cursor.add_covered(window(90, 130), at(5000), ns);
        assert!(cursor.skip() && cursor.position == at(300));
        cursor.add_covered(window(300, 400), at(900), ns);
        assert!(!cursor.skip(), "too young to count");
    }

    #[tokio::test]
    async fn cursor_positions_settle_in_order_and_once() {
        let mut cursor = cursor(0, 0);
        for (read_to, number) in [(10, 1u64), (20, 2), (30, 3)] {
            let identity = super::super::Identity::of(&[&number.to_le_bytes()]);
            cursor.mark.identities.push((0, identity));
            cursor.position = at(read_to);
            cursor.emit_position();
        }
        assert_eq!(cursor.waiting(), 3);
        assert!(cursor.commit(at(15)).is_none());
        assert_eq!(cursor.commit(at(20)).unwrap().identities.len(), 2);
        assert!(cursor.commit(at(10)).is_none() && cursor.committed == at(20));
        assert_eq!(cursor.commit(at(30)).unwrap().identities.len(), 1);
    }

    #[tokio::test]
    async fn cursor_clock_set_back_moves_it_back() {
        let mut cursor = cursor(15, 1000);
        assert!(!cursor.rewind(at(1015), MILLI));
        assert!(!cursor.rewind(at(1014), MILLI), "set right a little");
        assert!(cursor.rewind(at(500), MILLI));
        assert_eq!(cursor.position, at(485));
        assert_eq!(cursor.committed, at(485));
        assert!(cursor.rewind(at(-2000), MILLI));
        assert_eq!(cursor.position, at(-1000), "never before it began");
        assert!(!cursor.rewind(at(-2000), MILLI));
    }

    #[tokio::test]
    async fn cursor_unsettled_positions_are_bounded_and_never_settle_early() {
        let mut cursor = cursor(0, 0);
        for number in 0..10_000 {
            cursor.position = at(number);
            cursor.mark.newest = Some(at(number));
            cursor.emit_position();
        }
        assert_eq!(cursor.marks.len(), MARKS_MAX);
        assert!(
            cursor.commit(at(5)).is_none(),
            "taken together with a later"
        );
        assert_eq!(cursor.commit(at(9999)).unwrap().newest, Some(at(9999)));
    }
}
