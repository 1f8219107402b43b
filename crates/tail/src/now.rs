//! The current time for a tail, from this machine's clock and from the log's answers.

use std::time::Duration;

use jiff::Timestamp;

use super::cursor::{CLOCK_SLACK, Scan};
use super::log::{after, before, elapsed, floor};
use super::{Tail, TimeLog};

/// Answers tell the time in whole seconds, so this machine's clock may be this much ahead of it.
const SERVER_TIME_UNIT: Duration = Duration::from_secs(1);
/// A beginning is moved back by at most this much: a server time that is further off is not
/// trusted.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(86_400);

impl<L: TimeLog> Tail<L> {
    /// The time now: this machine's, but never ahead of the log's, nor behind what several of its
    /// answers agree on.
    pub(super) fn now(&self) -> Timestamp {
        let machine = self.clock.now();
        let Some(theirs) = self.log.server_time() else {
            return machine;
        };
        let least = self.log.server_time_at_least().unwrap_or(machine);
        self.monitor
            .clocks(elapsed(theirs, machine), elapsed(machine, least));
        machine.max(least).min(after(theirs, SERVER_TIME_UNIT))
    }

    /// When a window's reading began. The clock may have been set back since, or an answer showed
    /// that it is ahead, as only the first one of a process can: then less of the window was old
    /// enough than it seemed.
    pub(super) fn begun(&self, scan: &Scan) -> Timestamp {
        let now = self.now();
        let begun = before(now, scan.begun_at.elapsed());
        match elapsed(begun, scan.begun) > CLOCK_SLACK {
            true => begun,
            false => scan.begun.min(now),
        }
    }

    /// Moves beginnings that this machine's fast clock put ahead of the log's time to where they
    /// were meant to be: of all cursors at once, because they share the seen identities.
    pub(super) fn correct_beginnings(&mut self, now: Timestamp) {
        let machine = self.clock.now();
        let theirs = self.log.server_time().unwrap_or(machine);
        for cursor in &mut self.cursors {
            // A beginning ahead of both clocks was requested so.
            let ahead = elapsed(theirs, machine);
            if now < cursor.since && cursor.since <= machine && ahead <= CLOCK_AHEAD_MAX {
                let meant = before(cursor.since, ahead);
                cursor.restart(floor(meant, self.resolution));
                self.began_at = self.began_at.min(cursor.since);
            }
        }
    }
}
