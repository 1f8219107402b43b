//! The room that the links of all partitions share for large messages in flight.
//!
//! As long as a link is attached, Event Hubs sends it messages ahead of its reader, and the client
//! library keeps them: with 32 partitions of messages of a MiB, 32 MiB and more. It cannot request
//! fewer than one. So a partition that is behind waits for its turn before it attaches. When it has
//! had its turn and others wait, it closes its connection and waits again, in the order of arrival.
//! The connection is closed, since brokers differ in how they detach a link from one that stays open.
//!
//! Small messages need no room. A partition that has nothing more keeps its link without any.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Room is counted in units of so many bytes. Messages up to this size need none.
const UNIT: usize = 64 << 10;
/// After so many bytes a turn is over if others wait. Each new link costs a connection, the last
/// message once more, and what was in flight on the link before.
const TURN_BYTES_MAX: usize = 32 << 20;
/// The same after this time, where the pipeline is slow.
const TURN_TIME_MAX: Duration = Duration::from_secs(15);
/// A link without room that cannot hand on what it has for so long is closed.
pub(super) const STALL_MAX: Duration = Duration::from_secs(2);

/// The room for large messages in flight.
#[derive(Debug)]
pub(super) struct Turns {
    room: Arc<Semaphore>,
    units: u32,
    /// Units that a link needs whose messages have an unknown size.
    units_max: u32,
    waiting: AtomicUsize,
}

/// What one link has of the room.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    held: Option<OwnedSemaphorePermit>,
    begun: Instant,
    /// Bytes of messages that arrived since then.
    taken: usize,
    /// It has less room than its last message needed.
    short: bool,
}

/// A partition that waits, until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Turns {
    /// Room for so many bytes, and for one link in any case.
    pub(super) fn new(bytes_max: usize, message_bytes_max: usize) -> Turns {
        let units = |bytes: usize| u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        let units_max = units(message_bytes_max);
        let units = units(bytes_max).max(units_max);
        Turns {
            room: Arc::new(Semaphore::new(units as usize)),
            units,
            units_max,
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits for the turn of a partition that is behind. The size of its messages is not known yet.
    pub(super) async fn begin(&self) -> Turn<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.waiting);
        let room = Arc::clone(&self.room);
        // It is never closed.
        self.turn(room.acquire_many_owned(self.units_max).await.ok())
    }

    /// The state of a partition that has nothing more.
    pub(super) fn none(&self) -> Turn<'_> {
        self.turn(None)
    }

    fn turn(&self, held: Option<OwnedSemaphorePermit>) -> Turn<'_> {
        Turn {
            turns: self,
            held,
            begun: Instant::now(),
            taken: 0,
            short: false,
        }
    }

    /// The room for one message of this size in flight.
    fn units_of(&self, message: usize) -> u32 {
        match message {
            0..=UNIT => 0,
            _ => u32::try_from(message.div_ceil(UNIT))
                .unwrap_or(u32::MAX)
                .min(self.units),
        }
    }
}

impl Turn<'_> {
    /// A message of this size arrived, and the next ones are likely to be as large.
    pub(super) fn took(&mut self, message: usize) {
        self.taken = self.taken.saturating_add(message);
        let (has, want) = (self.units(), self.turns.units_of(message));
        if has > want
            && let Some(held) = &mut self.held
        {
            drop(held.split((has - want) as usize));
        }
        self.claim(want);
    }

    /// Takes room for messages of any size, if there is so much. A link that has it may keep what it
    /// holds.
    pub(super) fn claim_most(&mut self) -> bool {
        self.claim(self.turns.units_max)
    }

    /// Takes what is missing to so many units, all of it or nothing.
    fn claim(&mut self, want: u32) -> bool {
        let missing = want.saturating_sub(self.units());
        let more = Arc::clone(&self.turns.room).try_acquire_many_owned(missing);
        self.short = more.is_err();
        match (&mut self.held, more) {
            (Some(held), Ok(more)) => held.merge(more),
            (held, Ok(more)) => *held = Some(more),
            (_, Err(_)) => {}
        }
        !self.short
    }

    /// The partition has nothing more at the moment.
    pub(super) fn rest(&mut self) {
        *self = self.turns.none();
    }

    /// Whether the link has to be closed: it has had its turn, and others wait or it lacks room.
    pub(super) fn is_over(&self) -> bool {
        let others_wait = self.units() > 0 && self.turns.waiting.load(Ordering::Acquire) > 0;
        let was_long = self.taken >= TURN_BYTES_MAX || self.begun.elapsed() >= TURN_TIME_MAX;
        was_long && (self.short || others_wait)
    }

    /// Whether it may hold what it cannot hand on.
    pub(super) fn has_room(&self) -> bool {
        self.held.is_some()
    }

    fn units(&self) -> u32 {
        let held = self.held.as_ref();
        held.map_or(0, |held| {
            u32::try_from(held.num_permits()).unwrap_or(u32::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    fn free(turns: &Turns) -> usize {
        turns.room.available_permits()
    }

    #[tokio::test]
    async fn partitions_with_large_messages_have_their_turns_in_order() {
        let turns = Turns::new(2 * MIB, MIB);
        let (first, mut second) = (turns.begin().await, turns.begin().await);
        assert_eq!(free(&turns), 0);
        let (mut third, mut fourth) = (pin!(turns.begin()), pin!(turns.begin()));
        assert!(poll!(third.as_mut()).is_pending());
        assert!(poll!(fourth.as_mut()).is_pending());
        for _ in 1..TURN_BYTES_MAX / MIB {
            second.took(MIB);
            assert!(!second.is_over(), "it has not had all of it");
        }
        second.took(MIB);
        assert!(second.is_over());
        drop(first);
        assert!(poll!(fourth.as_mut()).is_pending(), "the other came first");
        let third = third.await;
        drop(second);
        let fourth = fourth.await;
        assert!(!fourth.is_over() && third.has_room());
    }

    /// Where the pipeline is slow, others do not wait for so many bytes.
    #[tokio::test(start_paused = true)]
    async fn turn_ends_after_some_time() {
        let turns = Turns::new(MIB, MIB);
        let mut first = turns.begin().await;
        let mut second = pin!(turns.begin());
        assert!(poll!(second.as_mut()).is_pending());
        first.took(MIB);
        assert!(!first.is_over());
        tokio::time::advance(TURN_TIME_MAX).await;
        assert!(first.is_over());
        drop(first);
        assert!(!second.await.is_over());
    }

    /// Nobody waits: nobody has to close a connection.
    #[tokio::test(start_paused = true)]
    async fn turn_alone_is_never_over() {
        let turns = Turns::new(MIB, MIB);
        let mut turn = turns.begin().await;
        for _ in 0..100 {
            turn.took(MIB);
            tokio::time::advance(TURN_TIME_MAX).await;
            assert!(!turn.is_over());
        }
    }

    /// They take no room, so they wait for nobody, and nobody waits for them.
    #[tokio::test(start_paused = true)]
    async fn partitions_with_small_messages_have_their_turns_together() {
        let turns = Turns::new(2 * MIB, MIB);
        let mut all = Vec::new();
        for _ in 0..32 {
            let mut turn = turns.begin().await;
            turn.took(UNIT);
            all.push(turn);
        }
        assert_eq!(free(&turns), 2 * MIB / UNIT);
        let large = (turns.begin().await, turns.begin().await);
        let mut waiting = pin!(turns.begin());
        assert!(poll!(waiting.as_mut()).is_pending());
        tokio::time::advance(TURN_TIME_MAX).await;
        assert!(all.iter().all(|turn| turn.has_room() && !turn.is_over()));
        drop(large);
    }

    #[tokio::test]
    async fn partition_with_nothing_more_holds_no_room() {
        let turns = Turns::new(MIB, MIB);
        let mut resting = turns.begin().await;
        resting.took(MIB);
        resting.rest();
        let mut other = turns.begin().await;
        // It goes on at once where the first message arrives, also without room.
        resting.took(MIB);
        assert!(!resting.has_room() && !resting.is_over());
        other.took(TURN_BYTES_MAX);
        assert!(!other.is_over());
        assert!(!resting.claim_most());
        // It cannot do so for ever.
        resting.took(TURN_BYTES_MAX);
        assert!(resting.is_over());
        drop(other);
        assert!(resting.claim_most() && resting.has_room());
    }

    proptest! {
        /// Whatever arrives, room is neither lost nor made, and one link always gets its turn.
        #[test]
        fn room_is_given_back(
            bytes_max in 0..16 * MIB,
            messages in prop::collection::vec((0..3_usize, 0..2 * MIB, any::<bool>()), 0..50),
        ) {
            let turns = Turns::new(bytes_max, MIB);
            let all = free(&turns);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let mut links = [runtime.block_on(turns.begin()), turns.none(), turns.none()];
            for (link, message, rests) in messages {
                links[link].took(message);
                if rests {
                    links[link].rest();
                }
                let held: u32 = links.iter().map(Turn::units).sum();
                prop_assert_eq!(held as usize + free(&turns), all);
            }
            drop(links);
            prop_assert_eq!(free(&turns), all);
            runtime.block_on(turns.begin());
        }
    }
}
