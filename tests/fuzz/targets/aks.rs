//! Any bytes as records of this provider.
#![no_main]

use aks_audit_bridge::convert::{AksConvert, AksConvertOptions};
use aks_audit_bridge::dump::AksDump;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let options = AksConvertOptions {
        native: audit_bridge_fuzz::limits(),
        ..AksConvertOptions::default()
    };
    audit_bridge_fuzz::convert(input, AksDump, AksConvert::new(options));
});
