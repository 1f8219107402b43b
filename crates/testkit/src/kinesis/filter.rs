//! A subscription filter, which copies events of a log group into a stream, with the real filter's
//! gaps.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Kinesis;
use super::subscription::{SubscribedEvent, SubscriptionOrigin};
use crate::CloudWatch;

/// The filter of one log stream. CloudWatch Logs delivers at least once, and skips what is logged
/// while it has disabled the filter ("Log group-level subscription filters": for up to ten minutes
/// after the destination refused).
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
    /// A filter that copies events of a log stream into this stream.
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
            // Distinct from the numbers of the group's events.
            numbered: AtomicUsize::new(1_000_000_000),
        }
    }

    /// Stores events in the log group, and delivers them as one record unless the filter is off.
    /// Returns the record's events, so that they can be delivered again.
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

    /// Delivers events as one record, even if they were delivered before.
    pub fn deliver(&self, events: &[SubscribedEvent]) {
        self.streams
            .deliver(&self.stream, &self.subscription, events);
    }

    /// Switches the filter off: events that are stored meanwhile never reach the stream.
    pub fn switch_off(&self, off: bool) {
        self.off.store(off, Ordering::Relaxed);
    }

    /// Sets whether events have other IDs in the stream than in `FilterLogEvents`: AWS does not
    /// document whether they are the same.
    pub fn other_ids(&self, other: bool) {
        self.other_ids.store(other, Ordering::Relaxed);
    }
}
