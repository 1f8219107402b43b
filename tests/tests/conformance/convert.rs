//! Runs the converters of the bridges like the pipeline does.

use aks_audit_bridge::convert::AksConvert;
use audit_bridge_core::convert::{Convert, Outcome, Output, RecordId};
use audit_bridge_core::record::{Origin, Record};
use eks_audit_bridge::convert::EksConvert;
use gke_audit_bridge::convert::{GkeConvert, GkeConvertOptions};

/// The outcomes of some records.
#[derive(Debug, Default)]
pub(crate) struct Converted {
    /// The events, in order.
    pub(crate) events: Vec<Vec<u8>>,
    /// Why records were rejected or skipped.
    pub(crate) others: Vec<String>,
}

/// A bridge's converter.
pub(crate) fn converter(bridge: &str) -> Box<dyn Convert> {
    match bridge {
        "eks" => Box::new(EksConvert::default()),
        "aks" => Box::new(AksConvert::default()),
        _ => Box::new(GkeConvert::new(GkeConvertOptions {
            include_data_access: true,
            ..GkeConvertOptions::default()
        })),
    }
}

/// Converts records.
pub(crate) fn convert<T: AsRef<[u8]>>(bridge: &str, records: &[T]) -> Converted {
    let mut converter = converter(bridge);
    let mut out = Output::default();
    for (index, payload) in records.iter().enumerate() {
        let origin = Origin::File {
            file: "conformance".into(),
            record: index as u64 + 1,
        };
        let record = Record::new(payload.as_ref().to_vec(), origin);
        converter.convert(RecordId(index as u64), &record, &mut out);
    }
    converter.finish(&mut out);
    let mut converted = Converted::default();
    for outcome in out.drain() {
        match outcome {
            Outcome::Event { event, .. } => converted.events.push(event.text().to_vec()),
            Outcome::Skip { reason, .. } => converted.others.push(format!("skipped: {reason}")),
            Outcome::Reject { reason, error, .. } => {
                converted
                    .others
                    .push(format!("rejected, {reason}: {error}"));
            }
        }
    }
    converted
}
