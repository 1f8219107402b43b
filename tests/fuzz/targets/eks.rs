//! Any bytes as records of this provider.
#![no_main]

use eks_audit_bridge::convert::{EksConvert, EksConvertOptions};
use eks_audit_bridge::dump::EksDump;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let options = EksConvertOptions {
        native: audit_bridge_fuzz::limits(),
        ..EksConvertOptions::default()
    };
    audit_bridge_fuzz::convert(input, EksDump, EksConvert::new(options));
});
