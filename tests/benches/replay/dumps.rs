//! The dumps: real-looking records, a few thousand of them over and over.

use std::io::{BufWriter, Write};
use std::path::Path;

use audit_bridge_testkit::Generator;
use tempfile::NamedTempFile;

/// Different records of a dump.
const RECORDS: usize = 4096;

/// One dump to replay.
pub(crate) struct DumpFile {
    /// What it is called in the table.
    pub(crate) name: &'static str,
    /// Whose it is.
    pub(crate) bridge: &'static str,
    /// Its size, about.
    megabytes: usize,
    record: fn(&mut Generator) -> String,
    /// Before, between and after the records.
    around: [&'static str; 3],
}

const LINES: [&str; 3] = ["", "\n", "\n"];
const CLOUDWATCH: [&str; 3] = ["{\"events\":[", ",", "],\"searchedLogStreams\":[]}\n"];

/// Every dump of the table.
pub(crate) const ALL: &[DumpFile] = &[
    DumpFile {
        name: "eks filter-log-events",
        bridge: "eks",
        megabytes: 300,
        record: |generator| {
            let event = generator.metadata();
            generator.cloudwatch(&event)
        },
        around: CLOUDWATCH,
    },
    DumpFile {
        name: "eks with objects",
        bridge: "eks",
        megabytes: 300,
        record: |generator| {
            let event = generator.request_response();
            generator.cloudwatch(&event)
        },
        around: CLOUDWATCH,
    },
    DumpFile {
        name: "eks event lines",
        bridge: "eks",
        megabytes: 300,
        record: Generator::metadata,
        around: LINES,
    },
    DumpFile {
        name: "aks records",
        bridge: "aks",
        megabytes: 300,
        record: |generator| {
            let event = generator.metadata();
            generator.diagnostic(&event)
        },
        around: ["{\"records\":[", ",", "]}\n"],
    },
    DumpFile {
        name: "gke entries",
        bridge: "gke",
        megabytes: 300,
        record: |generator| match generator.metadata().len() % 3 {
            0 => generator.entry_pod_create(),
            1 => generator.entry_secret_get(),
            _ => generator.entry_status_patch(),
        },
        around: LINES,
    },
    DumpFile {
        name: "gke small entries",
        bridge: "gke",
        megabytes: 300,
        record: Generator::entry_secret_get,
        around: LINES,
    },
    DumpFile {
        name: "eks 1 GB",
        bridge: "eks",
        megabytes: 1000,
        record: |generator| {
            let event = generator.metadata();
            generator.cloudwatch(&event)
        },
        around: CLOUDWATCH,
    },
];

impl DumpFile {
    /// Writes the dump to a file that goes when it is dropped.
    pub(crate) fn write(&self, folder: &Path) -> NamedTempFile {
        let mut generator = Generator::new(7);
        let records: Vec<String> = (0..RECORDS)
            .map(|_| (self.record)(&mut generator))
            .collect();
        let mut file = NamedTempFile::new_in(folder).unwrap();
        let mut to = BufWriter::with_capacity(1 << 20, file.as_file_mut());
        let [before, between, after] = self.around;
        to.write_all(before.as_bytes()).unwrap();
        let mut left = self.megabytes * 1_000_000;
        let mut first = true;
        for record in records.iter().cycle() {
            if !std::mem::take(&mut first) {
                to.write_all(between.as_bytes()).unwrap();
            }
            to.write_all(record.as_bytes()).unwrap();
            left = left.saturating_sub(record.len() + between.len());
            if left == 0 {
                break;
            }
        }
        to.write_all(after.as_bytes()).unwrap();
        to.flush().unwrap();
        drop(to);
        file
    }
}
