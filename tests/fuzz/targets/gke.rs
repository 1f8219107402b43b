//! Any bytes as records of this provider.
#![no_main]

use gke_audit_bridge::convert::{GkeConvert, GkeConvertOptions};
use gke_audit_bridge::dump::GkeDump;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let options = GkeConvertOptions {
        include_data_access: true,
        native: audit_bridge_fuzz::limits(),
        ..GkeConvertOptions::default()
    };
    audit_bridge_fuzz::convert(input, GkeDump, GkeConvert::new(options));
});
