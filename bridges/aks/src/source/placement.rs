//! Where the next link of a partition begins, and whether the hub is still the one that was read.
//!
//! The message that was read last is asked for once more, at first by its offset, else by its
//! number: when it comes, the partition goes on behind it. When another one comes in its place, or
//! the partition ends before it, the messages are others: the hub was created again, its alias
//! points to another namespace, or a replica was promoted that lacked the newest ones. Then time
//! decides: what was enqueued shortly before that message and later is read, so that nothing is
//! left out and no days come again.

use audit_bridge_app::telemetry::Telemetry;
use jiff::{SignedDuration, Timestamp};

use crate::client::{HubMessage, PartitionBounds, ReceiverStart};
use crate::source::position::MessagePosition;

/// How far back reading begins in another hub: what was written there while the former one was
/// still read. Azure Monitor may need some minutes until a record is in a hub.
const OVERLAP_ELSEWHERE: SignedDuration = SignedDuration::from_mins(15);
/// The same for a partition of the same hub: by how much clocks of two regions may differ.
const OVERLAP_PROMOTED: SignedDuration = SignedDuration::from_mins(1);
/// By how much the time of a message may differ from that which the partition's properties told.
const ROUNDING: SignedDuration = SignedDuration::from_secs(1);

/// By what a position is looked for: the next one where that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lookup {
    Offset,
    SequenceNumber,
    Time,
}

/// Where a link begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Behind this number: that message is not there any more, or never was.
    Behind(i64),
    /// At this message, to see that it is the one that was read.
    At { known: MessagePosition, by: Lookup },
    /// At another place than behind the message that was read.
    Elsewhere(Failover),
    /// At this time, as nothing was read so far.
    From(Timestamp),
}

/// A position that its event hub does not have any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failover {
    was: MessagePosition,
    created_on: Option<Timestamp>,
    bounds: PartitionBounds,
}

/// What the first message of a link says of the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageMatch {
    /// It is the message that was read.
    Same,
    /// The message that was read is not there any more, and this is a later one.
    Later,
    /// It is another one in its place: look for it by this.
    Different(Lookup),
}

impl Placement {
    /// Where to go on behind a message, by what the hub says of itself and of the partition.
    pub(crate) fn of(
        known: &MessagePosition,
        by: Lookup,
        bounds: PartitionBounds,
        created_on: Option<Timestamp>,
    ) -> Placement {
        let number = known.sequence_number;
        let elsewhere = || {
            Placement::Elsewhere(Failover {
                was: known.clone(),
                created_on,
                bounds,
            })
        };
        let is_there = !bounds.is_empty && number >= bounds.first;
        if bounds.last < number || by == Lookup::Time {
            elsewhere()
        } else if is_there {
            let by = match &known.offset {
                Some(_) => by,
                None => Lookup::SequenceNumber,
            };
            Placement::At {
                known: known.clone(),
                by,
            }
        } else if differ(known.created_on, created_on) {
            elsewhere()
        } else {
            Placement::Behind(number)
        }
    }

    /// The same, for Event Hubs.
    pub(crate) fn start(&self) -> ReceiverStart {
        match self {
            Placement::Behind(number) => ReceiverStart::After(*number),
            Placement::At { known, by } => match (&known.offset, by) {
                (Some(offset), Lookup::Offset) => ReceiverStart::AtOffset(offset.clone()),
                _ => ReceiverStart::At(known.sequence_number),
            },
            Placement::Elsewhere(failover) => match failover.since() {
                Some(time) => ReceiverStart::From(time),
                None => ReceiverStart::After(failover.bounds.first - 1),
            },
            Placement::From(time) => ReceiverStart::From(*time),
        }
    }

    /// Whether all that there is now was read.
    pub(crate) fn is_at_end(&self, bounds: &PartitionBounds) -> bool {
        match self {
            Placement::Behind(number) => bounds.last <= *number || bounds.is_empty,
            Placement::At { known, .. } => bounds.last <= known.sequence_number,
            Placement::Elsewhere(failover) => match failover.since() {
                Some(time) => bounds.hold_nothing_since(time),
                None => bounds.is_empty,
            },
            Placement::From(time) => bounds.hold_nothing_since(*time),
        }
    }

    /// What to look for next where Event Hubs refuses this.
    pub(crate) fn next_lookup(&self) -> Option<Lookup> {
        match self {
            Placement::At {
                by: Lookup::Offset, ..
            } => Some(Lookup::SequenceNumber),
            Placement::At { .. } | Placement::Behind(_) => Some(Lookup::Time),
            Placement::Elsewhere(_) | Placement::From(_) => None,
        }
    }
}

/// Whether the message is the one that was read.
pub(crate) fn compare(known: &MessagePosition, by: Lookup, message: &HubMessage) -> MessageMatch {
    let Some(number) = message.sequence_number else {
        return MessageMatch::Later;
    };
    if number != known.sequence_number {
        return match by {
            Lookup::Offset => MessageMatch::Different(Lookup::SequenceNumber),
            _ if number > known.sequence_number => MessageMatch::Later,
            _ => MessageMatch::Different(Lookup::Time),
        };
    }
    let rounding = match &known.offset {
        // Its time is the message's own.
        Some(_) => SignedDuration::ZERO,
        None => ROUNDING,
    };
    match (known.enqueued, message.enqueued) {
        (Some(known), Some(now)) if known.duration_until(now).abs() > rounding => {
            MessageMatch::Different(Lookup::Time)
        }
        _ => MessageMatch::Same,
    }
}

impl Failover {
    /// From when on messages are read; `None`: all.
    fn since(&self) -> Option<Timestamp> {
        let overlap = match differ(self.was.created_on, self.created_on) {
            true => OVERLAP_ELSEWHERE,
            false => OVERLAP_PROMOTED,
        };
        let since = self.was.enqueued?.checked_sub(overlap);
        // Event Hubs counts times from 1970 on.
        Some(
            since
                .unwrap_or(Timestamp::UNIX_EPOCH)
                .max(Timestamp::UNIX_EPOCH),
        )
    }

    /// Says that it happened, with the size of it.
    pub(crate) fn report(&self, partition: &str) {
        let PartitionBounds {
            first,
            last,
            is_empty,
            ..
        } = self.bounds;
        let held = match is_empty {
            true => 0,
            false => last - first + 1,
        };
        let since = self.since().map(|time| time.to_string());
        let since = since.as_deref().unwrap_or("its oldest message");
        let was = &self.was;
        let why = match differ(was.created_on, self.created_on) {
            true => "it was created again, or its alias points to another namespace",
            false => {
                "a replica was promoted that lacked the newest messages, or the checkpoint is of \
                 another event hub"
            }
        };
        tracing::warn!(
            partition,
            position = was.sequence_number,
            enqueued = was.enqueued.map(tracing::field::display),
            created_on = was.created_on.map(tracing::field::display),
            created_on_now = self.created_on.map(tracing::field::display),
            newest = last,
            messages_held = held,
            messages_rolled_back = (was.sequence_number - last).max(0),
            since,
            why,
            "position is not in the event hub any more; reading on by time"
        );
    }

    /// Says which time lies between what was read and the first message, if any does.
    pub(crate) fn found(&self, telemetry: &Telemetry, partition: &str, message: &HubMessage) {
        let (Some(from), Some(until)) = (self.was.enqueued, message.enqueued) else {
            return;
        };
        if from < until {
            telemetry.failed_over(
                partition,
                from,
                until,
                "what the former event hub or region holds of this time was not read: read it \
                 there while its retention lasts, by a second bridge with --start and --until; and \
                 check that each cluster's diagnostic setting sends to this namespace",
            );
        } else {
            tracing::info!(
                partition,
                from = %until,
                until = %from,
                "nothing is missing after the failover; messages of this time may come again"
            );
        }
    }
}

/// Both are known, and they are two.
fn differ(one: Option<Timestamp>, other: Option<Timestamp>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

#[cfg(test)]
mod tests;
