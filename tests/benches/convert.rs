//! Conversion of providers' records against a floor, on the same bytes in the same run.
//!
//! The floor is what any converter must do: for EKS and AKS, take the event out of its envelope
//! (unescape the string) and see that it is valid JSON; for GKE, see that the entry is. Both sides
//! run in turns and the best turn of each counts, so that other work on the machine matters little.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and may stop at once"
)]

use std::borrow::Cow;
use std::hint::black_box;
use std::time::{Duration, Instant};

use aks_audit_bridge::convert::{AksConvert, AksConvertOptions};
use audit_bridge_core::convert::{Convert, Outcome, Output, RecordId};
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_testkit::Generator;
use eks_audit_bridge::convert::{EksConvert, EksConvertOptions};
use gke_audit_bridge::convert::{GkeConvert, GkeConvertOptions};
use serde::Deserialize;
use sonic_rs::LazyValue;

/// Enough different records that no branch predictor learns them by heart.
const RECORDS: usize = 512;
const TURNS: usize = 60;

#[derive(Deserialize)]
struct CloudWatch<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Diagnostic<'a> {
    #[serde(borrow)]
    properties: Properties<'a>,
}

#[derive(Deserialize)]
struct Properties<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
}

fn main() {
    println!(
        "convert: one thread, MB/s of providers' records; the goal is a ratio of 0.8 (gke 0.4)"
    );
    println!(
        "{:<28}{:>8}{:>10}{:>10}{:>8}",
        "", "bytes", "ours", "floor", "ratio"
    );
    let mut generator = Generator::new(7);
    let g = &mut generator;
    let cloudwatch = |record: &str| {
        let outer: CloudWatch<'_> = sonic_rs::from_str(record).unwrap();
        black_box(sonic_rs::from_str::<LazyValue<'_>>(&outer.message).unwrap());
    };
    let eks = || EksConvert::new(EksConvertOptions::default());
    let records = of(|| {
        let event = g.metadata();
        g.cloudwatch(&event)
    });
    compare("eks metadata", &records, eks(), cloudwatch);
    let records = of(|| {
        let event = g.request_response();
        g.cloudwatch(&event)
    });
    compare("eks request and response", &records, eks(), cloudwatch);

    let diagnostic = |record: &str| {
        let outer: Diagnostic<'_> = sonic_rs::from_str(record).unwrap();
        black_box(sonic_rs::from_str::<LazyValue<'_>>(outer.properties.log.trim_end()).unwrap());
    };
    let aks = || AksConvert::new(AksConvertOptions::default());
    let records = of(|| {
        let event = g.metadata();
        g.diagnostic(&event)
    });
    compare("aks metadata", &records, aks(), diagnostic);
    let records = of(|| {
        let event = g.request_response();
        g.diagnostic(&event)
    });
    compare("aks request and response", &records, aks(), diagnostic);

    let entry = |record: &str| {
        black_box(sonic_rs::from_str::<LazyValue<'_>>(record).unwrap());
    };
    let gke = || {
        GkeConvert::new(GkeConvertOptions {
            include_data_access: true,
            ..GkeConvertOptions::default()
        })
    };
    let records = of(|| g.entry_pod_create());
    compare("gke pod create", &records, gke(), entry);
    let records = of(|| g.entry_secret_get());
    compare("gke secret get", &records, gke(), entry);
    let records = of(|| g.entry_status_patch());
    compare("gke status patch", &records, gke(), entry);
}

fn of(mut make: impl FnMut() -> String) -> Vec<Record> {
    let record = |payload: String| {
        Record::new(
            payload,
            Origin::File {
                file: "bench".into(),
                record: 1,
            },
        )
    };
    (0..RECORDS).map(|_| record(make())).collect()
}

/// Prints one line of the table.
fn compare(name: &str, records: &[Record], mut converter: impl Convert, floor: impl Fn(&str)) {
    let texts: Vec<&str> = records
        .iter()
        .map(|record| std::str::from_utf8(&record.payload).unwrap())
        .collect();
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    let mut out = Output::default();
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    for _ in 0..TURNS {
        ours = ours.min(timed(|| {
            for record in records {
                converter.convert(RecordId(1), black_box(record), &mut out);
                for outcome in out.drain() {
                    assert!(matches!(black_box(outcome), Outcome::Event { .. }));
                }
            }
        }));
        theirs = theirs.min(timed(|| {
            texts.iter().for_each(|text| floor(black_box(text)));
        }));
    }
    let rate = |took: Duration| bytes as f64 / 1e6 / took.as_secs_f64();
    println!(
        "{name:<28}{:>8}{:>10.0}{:>10.0}{:>8.2}",
        bytes / RECORDS,
        rate(ours),
        rate(theirs),
        rate(ours) / rate(theirs)
    );
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}
