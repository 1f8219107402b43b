//! Any bytes as a dump of each provider.
#![no_main]

use std::sync::{Arc, LazyLock};

use aks_audit_bridge::dump::AksDump;
use audit_bridge_replay::dump::Dump;
use eks_audit_bridge::dump::EksDump;
use gke_audit_bridge::dump::GkeDump;
use libfuzzer_sys::fuzz_target;

static DUMPS: LazyLock<[Arc<dyn Dump>; 3]> =
    LazyLock::new(|| [Arc::new(EksDump), Arc::new(GkeDump), Arc::new(AksDump)]);

fuzz_target!(|input: &[u8]| {
    for dump in &*DUMPS {
        audit_bridge_fuzz::read(input, dump);
    }
});
