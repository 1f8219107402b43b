//! Where a receiver starts, by its filter, and the form of offsets.
//!
//! A position after the newest message is refused with `com.microsoft:argument-error` ("The
//! supplied sequence number '488' is invalid. The last sequence number in the system is '482'", as
//! reported by users of Azure). A hub that is replicated to another region has offsets that are no
//! numbers. It refuses numbers, even those of its own properties, with
//! `com.microsoft:georeplication:invalid-offset` (Azure SDK for Go, live tests of geo-replication).
//! The format of such an offset is not documented: clients must treat it as opaque.

use fe2o3_amqp_types::definitions::{AmqpError, Error, ErrorCondition};
use fe2o3_amqp_types::primitives::Symbol;

use super::partition::{BrokerPartition, StoredMessage};

impl StoredMessage {
    /// The offset in the form that clients see.
    pub(super) fn offset(&self) -> String {
        let StoredMessage {
            offset, sequence, ..
        } = self;
        match self.epoch {
            Some(epoch) => format!("{epoch}:{offset}:{sequence}"),
            None => offset.to_string(),
        }
    }
}

/// The first sequence number that passes a filter, by Event Hubs' rules. One before the oldest
/// message means the oldest.
pub(super) fn begin(partition: &BrokerPartition, filter: &str) -> Result<i64, Error> {
    let odd = || {
        let why = format!("the filter is not understood: {filter}");
        Error::new(AmqpError::InvalidField, why, None)
    };
    let (name, rest) = filter.split_once('>').ok_or_else(odd)?;
    let (inclusive, value) = match rest.strip_prefix('=') {
        Some(value) => (true, value),
        None => (false, rest),
    };
    let value = value.trim().trim_matches('\'');
    let first = |passes: &dyn Fn(&StoredMessage) -> bool| {
        let mut messages = partition.messages.iter();
        let first = messages.find(|message| passes(message));
        first.map_or(partition.next, |message| message.sequence)
    };
    let number = || value.parse::<i64>().map_err(|_| odd());
    match name.trim() {
        "amqp.annotation.x-opt-sequence-number" => {
            let number = number()?;
            let last = partition.next - 1;
            if number > last {
                return Err(behind_the_end("sequence number", value, last));
            }
            Ok(first(&|message| {
                message.sequence > number || inclusive && message.sequence == number
            }))
        }
        "amqp.annotation.x-opt-enqueued-time" => {
            let time = number()?;
            Ok(first(&|message| {
                message.enqueued > time || inclusive && message.enqueued == time
            }))
        }
        "amqp.annotation.x-opt-offset" if value == "-1" => Ok(partition.beginning()),
        "amqp.annotation.x-opt-offset" if value == "@latest" => Ok(partition.next),
        "amqp.annotation.x-opt-offset" => {
            let wanted = place(partition, value)?;
            Ok(first(&|message| {
                let place = (message.epoch, message.offset);
                place > wanted || inclusive && place == wanted
            }))
        }
        _ => Err(odd()),
    }
}

/// Parses an offset into epoch and byte.
fn place(partition: &BrokerPartition, offset: &str) -> Result<(Option<i64>, i64), Error> {
    if partition.epoch.is_none() {
        let last = match partition.next {
            0 => -1,
            _ => partition.last_offset,
        };
        let number: Option<i64> = offset.parse().ok();
        let number = number.filter(|number| *number <= last);
        let number = number.ok_or_else(|| behind_the_end("offset", offset, last))?;
        return Ok((None, number));
    }
    let parts: Option<Vec<i64>> = offset.split(':').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([epoch, offset, _]) => Ok((Some(*epoch), *offset)),
        _ => Err(refused(
            "com.microsoft:georeplication:invalid-offset",
            format!("The supplied offset '{offset}' is not of a geo-replicated event hub."),
        )),
    }
}

fn behind_the_end(what: &str, given: &str, last: i64) -> Error {
    refused(
        "com.microsoft:argument-error",
        format!(
            "The supplied {what} '{given}' is invalid. The last {what} in the system is '{last}'"
        ),
    )
}

fn refused(condition: &str, why: String) -> Error {
    let condition = ErrorCondition::Custom(Symbol::from(condition));
    Error::new(condition, why, None)
}
