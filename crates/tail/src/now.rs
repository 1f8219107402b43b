//! What time it is, for a tail: by this machine's clock, and by what the log's answers tell.

use std::time::Duration;

use jiff::Timestamp;

use super::log::{after, before, elapsed, floor};
use super::{Tail, TimeLog};

/// A machine's clock may be so far ahead of what an answer says of its time, in whole seconds.
const SERVER_TIME_UNIT: Duration = Duration::from_secs(1);
/// A beginning is moved back by no more: whoever tells a time that is so far off is not believed so far.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(86_400);

impl<L: TimeLog> Tail<L> {
    /// The time now: this machine's, but never ahead of the log's.
    pub(super) fn now(&self) -> Timestamp {
        let now = self.clock.now();
        let Some(theirs) = self.log.server_time() else {
            return now;
        };
        self.monitor.clock_ahead(elapsed(theirs, now));
        now.min(after(theirs, SERVER_TIME_UNIT))
    }

    /// Moves the beginnings that this machine's clock put ahead of the log's time to where they were
    /// meant to be: of all cursors at once, as each remembers for the others.
    pub(super) fn correct_beginnings(&mut self, now: Timestamp) {
        let machine = self.clock.now();
        let theirs = self.log.server_time().unwrap_or(machine);
        for cursor in &mut self.cursors {
            // One that lies ahead of both clocks was asked for so.
            let ahead = elapsed(theirs, machine);
            if now < cursor.since && cursor.since <= machine && ahead <= CLOCK_AHEAD_MAX {
                let meant = before(cursor.since, ahead);
                cursor.restart(floor(meant, self.resolution));
                self.began_at = self.began_at.min(cursor.since);
            }
        }
    }
}
