//! Delivery, from batches to receipts: against a fake sink in paused time, and against a scripted
//! receiver over real connections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests, with their helpers"
)]

mod fake;
mod http;
mod outage;
mod poison;
mod random;
mod refusals;
mod retries;
mod shared;
mod slow;
mod tls;

use std::time::Duration;

use audit_bridge_core::batch::{Batch, Item};
use audit_bridge_core::convert::{RecordId, Reject};
use audit_bridge_core::deliver::{ConcurrencyLimit, Delivery, Receipt};
use audit_bridge_core::event::Event;
use audit_bridge_core::event::conformance::EventOptions;
use audit_bridge_core::sink::Sink;

/// An event with this number as its identity, with objects.
fn event(number: u64) -> Event {
    event_of(number, 0)
}

/// The same, with this many bytes of padding.
fn event_of(number: u64, padding: usize) -> Event {
    let padding = "x".repeat(padding);
    let text = format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"{number}\",\
         \"stage\":\"ResponseComplete\",\"verb\":\"get\",\"requestObject\":{{\"a\":[1.0]}},\"padding\":\"{padding}\",\
         \"stageTimestamp\":\"2026-11-21T00:00:00.000000Z\"}}"
    );
    EventOptions::default()
        .event(&text.into(), true, None)
        .unwrap()
}

fn batch(numbers: impl IntoIterator<Item = u64>) -> Batch {
    let item = |number| Item::new(event(number), RecordId(number));
    Batch::new(numbers.into_iter().map(item).collect())
}

fn batch_of(events: impl IntoIterator<Item = (u64, usize)>) -> Batch {
    let item = |(number, padding)| Item::new(event_of(number, padding), RecordId(number));
    Batch::new(events.into_iter().map(item).collect())
}

fn delivery<S: Sink + 'static>(sink: S, slots: usize) -> Delivery<S> {
    let settings = ConcurrencyLimit {
        in_flight_batches_max: slots,
        seed: 7,
    };
    Delivery::new(sink, settings, |_, _| {})
}

fn number(item: &Item) -> u64 {
    item.records.as_slice()[0].0
}

/// The outcome of every event, in the order of the receipts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ends {
    delivered: Vec<u64>,
    refused: Vec<u64>,
    undeliverable: Vec<u64>,
    stripped: usize,
}

impl Ends {
    fn take(&mut self, receipt: Receipt) {
        match receipt {
            Receipt::Delivered {
                items, stripped, ..
            } => {
                self.delivered.extend(items.iter().map(number));
                self.stripped += stripped.len();
            }
            Receipt::Rejected {
                item,
                reason,
                error,
            } => {
                assert!(error.contains("the webhook answered"), "{error}");
                match reason {
                    Reject::REFUSED => self.refused.push(number(&item)),
                    Reject::UNDELIVERABLE => self.undeliverable.push(number(&item)),
                    other => panic!("{other:?}"),
                }
            }
            Receipt::SlotFreed => {}
            other => panic!("{other:?}"),
        }
    }

    fn sorted(mut self) -> Ends {
        self.delivered.sort_unstable();
        self.refused.sort_unstable();
        self.undeliverable.sort_unstable();
        self
    }
}

impl std::ops::AddAssign for Ends {
    fn add_assign(&mut self, more: Ends) {
        self.delivered.extend(more.delivered);
        self.refused.extend(more.refused);
        self.undeliverable.extend(more.undeliverable);
        self.stripped += more.stripped;
    }
}

/// Sends all batches, and waits until nothing is in flight, for at most a week.
async fn deliver_all<S: Sink + 'static>(
    delivery: &mut Delivery<S>,
    batches: impl IntoIterator<Item = Batch>,
) -> Ends {
    let mut ends = Ends::default();
    let mut batches = batches.into_iter();
    let mut next = batches.next();
    let all = async {
        loop {
            while next.is_some() && delivery.has_room() {
                delivery.start(next.take().expect("just seen"));
                next = batches.next();
            }
            if delivery.is_idle() && next.is_none() {
                break;
            }
            ends.take(delivery.next().await);
        }
    };
    tokio::time::timeout(Duration::from_secs(7 * 86_400), all)
        .await
        .expect("everything ends");
    assert_eq!(delivery.in_flight_bytes(), 0);
    ends
}

/// Collects receipts for this long.
async fn receipts_for<S: Sink + 'static>(delivery: &mut Delivery<S>, time: Duration) -> Ends {
    let mut ends = Ends::default();
    let _ = tokio::time::timeout(time, async {
        loop {
            ends.take(delivery.next().await);
        }
    })
    .await;
    ends
}
