//! Decides where the next link of a partition starts, and whether the hub is still the one that was
//! read.
//!
//! The last message that was read is requested again, first by its offset, else by its sequence
//! number. If it comes, the partition continues after it. If another message comes in its place, or
//! the partition ends before it, the messages are different ones: the hub was recreated, its alias
//! points to another namespace, or a replica was promoted that lacked the newest messages. Then
//! reading continues by time, from shortly before that message was enqueued, so that nothing is
//! skipped and not days are repeated.

use audit_bridge_app::telemetry::Telemetry;
use jiff::{SignedDuration, Timestamp};

use crate::client::{HubMessage, PartitionBounds, ReceiverStart};
use crate::source::position::MessagePosition;

/// How far back reading starts in another hub, to cover what was written there while the former one
/// was still read. Azure Monitor may need minutes to write a record to a hub.
const OVERLAP_ELSEWHERE: SignedDuration = SignedDuration::from_mins(15);
/// The same for a partition of the same hub: the most by which clocks of two regions may differ.
const OVERLAP_PROMOTED: SignedDuration = SignedDuration::from_mins(1);
/// The most by which a message's time may differ from that in the partition's properties.
const ROUNDING: SignedDuration = SignedDuration::from_secs(1);

/// How a position is looked for. If one way fails, the next is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lookup {
    Offset,
    SequenceNumber,
    Time,
}

/// Where a link begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placement {
    /// After this number: the message is no longer there, or never was.
    Behind(i64),
    /// At this message, to verify that it is the one that was read.
    At { known: MessagePosition, by: Lookup },
    /// Elsewhere, as the message that was read is lost.
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

/// What a link's first message tells of the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageMatch {
    /// It is the message that was read.
    Same,
    /// The message that was read is not there any more, and this is a later one.
    Later,
    /// It is another message in its place; look for the position in this way.
    Different(Lookup),
}

impl Placement {
    /// Where to continue after a message, by the properties of the hub and the partition.
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
        // A number without a time is any message's in another hub.
        let is_unknown = known.enqueued.is_none() && differ(known.created_on, created_on);
        if bounds.last < number || by == Lookup::Time || is_unknown {
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

    /// Behind a later message with this number, which was passed because it cannot be decoded. In
    /// another hub the number is another message's.
    pub(crate) fn behind(self, passed: Option<i64>, created_on: Option<Timestamp>) -> Placement {
        let last = match &self {
            Placement::At { known, .. } if !differ(known.created_on, created_on) => {
                known.sequence_number
            }
            Placement::Behind(number) => *number,
            _ => return self,
        };
        match passed {
            Some(passed) if passed > last => Placement::Behind(passed),
            _ => self,
        }
    }

    /// The start of a receiver.
    pub(crate) fn start(&self) -> ReceiverStart {
        match self {
            Placement::Behind(number) => ReceiverStart::After(*number),
            Placement::At { known, by } => match (&known.offset, by) {
                (Some(offset), Lookup::Offset) => ReceiverStart::AtOffset(offset.clone()),
                _ => ReceiverStart::At(known.sequence_number),
            },
            Placement::Elsewhere(failover) => match failover.since() {
                Some(time) => ReceiverStart::From(time),
                None => ReceiverStart::After(failover.bounds.first.saturating_sub(1)),
            },
            Placement::From(time) => ReceiverStart::From(*time),
        }
    }

    /// Whether everything that the partition holds now was read.
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

    /// How to look for the position next if Event Hubs refuses this start.
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
        // Event Hubs does not accept times before 1970.
        Some(
            since
                .unwrap_or(Timestamp::UNIX_EPOCH)
                .max(Timestamp::UNIX_EPOCH),
        )
    }

    /// Reports the failover, with its size.
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

    /// Reports the time between the last message that was read and the first of the new hub, if
    /// there is a gap.
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

/// Whether both are known and differ.
fn differ(one: Option<Timestamp>, other: Option<Timestamp>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

#[cfg(test)]
mod tests;
