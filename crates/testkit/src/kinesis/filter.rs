//! A subscription filter: what is filed in a log group is also brought into a stream, mostly.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Kinesis;
use super::subscription::{SubscribedEvent, SubscriptionOrigin};
use crate::CloudWatch;

/// The filter of one log stream. CloudWatch Logs delivers at least once, and skips what is filed
/// while it has switched the filter off ("Log group-level subscription filters": for up to ten
/// minutes after the destination refused).
#[derive(Debug)]
pub struct SubscriptionFilter<'stand_ins> {
    logs: &'stand_ins CloudWatch,
    streams: &'stand_ins Kinesis,
    stream: String,
    subscription: SubscriptionOrigin,
    off: AtomicBool,
    other_ids: AtomicBool,
    numbered: AtomicUsize,
}

impl<'stand_ins> SubscriptionFilter<'stand_ins> {
    /// Brings events of a log stream into this stream.
    pub fn new(
        logs: &'stand_ins CloudWatch,
        streams: &'stand_ins Kinesis,
        stream: &str,
        subscription: SubscriptionOrigin,
    ) -> SubscriptionFilter<'stand_ins> {
        SubscriptionFilter {
            logs,
            streams,
            stream: stream.to_owned(),
            subscription,
            off: AtomicBool::new(false),
            other_ids: AtomicBool::new(false),
            // Apart from those of the group.
            numbered: AtomicUsize::new(1_000_000_000),
        }
    }

    /// Files events, and delivers them as one record unless the filter is off. Returns what a
    /// record of them holds, so that it can be delivered a second time.
    pub fn file(&self, timestamp_ms: i64, messages: &[String]) -> Vec<SubscribedEvent> {
        let of = &self.subscription;
        let file = |message: &String| {
            let id = self
                .logs
                .put(&of.log_group, &of.log_stream, timestamp_ms, message);
            let number = self.numbered.fetch_add(1, Ordering::Relaxed);
            let mut event = SubscribedEvent::new(number, timestamp_ms, message);
            if !self.other_ids.load(Ordering::Relaxed) {
                event.id = id;
            }
            event
        };
        let events: Vec<SubscribedEvent> = messages.iter().map(file).collect();
        if !self.off.load(Ordering::Relaxed) {
            self.deliver(&events);
        }
        events
    }

    /// Delivers events as one record, whether they were delivered before or not.
    pub fn deliver(&self, events: &[SubscribedEvent]) {
        self.streams
            .deliver(&self.stream, &self.subscription, events);
    }

    /// The filter is off: what is filed now never reaches the stream.
    pub fn switch_off(&self, off: bool) {
        self.off.store(off, Ordering::Relaxed);
    }

    /// Events have other IDs in the stream than `FilterLogEvents` names: whether they are the same is
    /// not documented.
    pub fn other_ids(&self, other: bool) {
        self.other_ids.store(other, Ordering::Relaxed);
    }
}
