//! The JSON scanner and native events against sonic-rs, on the same bytes in the same run.
//!
//! `floor` is what any converter must do to an enveloped event: unescape the envelope's string and
//! see that the event in it is valid JSON. Ours does that and everything else of
//! `conformance::event` besides.

#![expect(clippy::unwrap_used, reason = "a benchmark may stop at once")]

use std::borrow::Cow;
use std::hint::black_box;

use audit_bridge_core::event::conformance::{self, EventContext, EventOptions};
use audit_bridge_core::event::json::{Raw, Scanner};
use audit_bridge_testkit::Generator;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;

/// Enough different events that no branch predictor learns them by heart.
const EVENTS: usize = 512;

/// CloudWatch's `FilteredLogEvent`, as far as sonic-rs has to look.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
}

fn message<'a>(envelope: &'a str) -> Cow<'a, str> {
    let mut scanner = Scanner::new(envelope);
    let mut message = Cow::Borrowed("");
    scanner.open_object().unwrap();
    while let Some(key) = scanner.key().unwrap() {
        if key == "message" {
            message = scanner.string().unwrap();
        } else {
            scanner.value().unwrap();
        }
    }
    scanner.end().unwrap();
    message
}

/// The provider said that it is an audit event.
fn context(options: &EventOptions) -> EventContext<'_> {
    EventContext {
        claimed: true,
        ..options.context()
    }
}

fn bench(c: &mut Criterion) {
    let mut generator = Generator::new(7);
    let options = EventOptions::default();
    let annotate = EventOptions {
        annotations: vec![("cluster".to_owned(), "production".to_owned())],
        ..EventOptions::default()
    };
    for (name, events) in [
        (
            "metadata",
            (0..EVENTS)
                .map(|_| generator.metadata())
                .collect::<Vec<_>>(),
        ),
        (
            "request-response",
            (0..EVENTS).map(|_| generator.request_response()).collect(),
        ),
    ] {
        let envelopes: Vec<String> = events.iter().map(|e| generator.cloudwatch(e)).collect();
        let bytes: Vec<Bytes> = events.iter().cloned().map(Bytes::from).collect();
        for (event, envelope) in events.iter().zip(&envelopes) {
            assert_eq!(message(envelope), event.as_str());
            let theirs: Envelope<'_> = sonic_rs::from_str(envelope).unwrap();
            assert_eq!(theirs.message, event.as_str());
        }
        let event_bytes: usize = events.iter().map(String::len).sum();
        let envelope_bytes: usize = envelopes.iter().map(String::len).sum();

        let mut group = c.benchmark_group(format!("validate/{name}"));
        group.throughput(Throughput::Bytes(event_bytes as u64));
        group.bench_function("ours", |b| {
            b.iter(|| {
                for event in &events {
                    black_box(Raw::parse(black_box(event)).unwrap());
                }
            });
        });
        group.bench_function("sonic", |b| {
            b.iter(|| {
                for event in &events {
                    black_box(
                        sonic_rs::from_str::<sonic_rs::LazyValue<'_>>(black_box(event)).unwrap(),
                    );
                }
            });
        });
        group.finish();

        let mut group = c.benchmark_group(format!("unescape/{name}"));
        group.throughput(Throughput::Bytes(envelope_bytes as u64));
        group.bench_function("ours", |b| {
            b.iter(|| {
                for envelope in &envelopes {
                    black_box(message(black_box(envelope)));
                }
            });
        });
        group.bench_function("sonic", |b| {
            b.iter(|| {
                for envelope in &envelopes {
                    black_box(
                        sonic_rs::from_str::<Envelope<'_>>(black_box(envelope))
                            .unwrap()
                            .message,
                    );
                }
            });
        });
        group.finish();

        let mut group = c.benchmark_group(format!("floor/{name}"));
        group.throughput(Throughput::Bytes(event_bytes as u64));
        for (label, options) in [("ours", &options), ("ours-annotated", &annotate)] {
            group.bench_function(label, |b| {
                b.iter(|| {
                    for envelope in &envelopes {
                        let text = Bytes::from(message(black_box(envelope)).into_owned());
                        black_box(conformance::event(&text, &context(options)).unwrap());
                    }
                });
            });
        }
        group.bench_function("sonic", |b| {
            b.iter(|| {
                for envelope in &envelopes {
                    let outer: Envelope<'_> = sonic_rs::from_str(black_box(envelope)).unwrap();
                    black_box(
                        sonic_rs::from_str::<sonic_rs::LazyValue<'_>>(&outer.message).unwrap(),
                    );
                }
            });
        });
        group.finish();

        let mut group = c.benchmark_group(format!("native/{name}"));
        group.throughput(Throughput::Bytes(event_bytes as u64));
        group.bench_function("pass-through", |b| {
            b.iter(|| {
                for text in &bytes {
                    black_box(conformance::event(black_box(text), &context(&options)).unwrap());
                }
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_millis(1500));
    targets = bench
}
criterion_main!(benches);
