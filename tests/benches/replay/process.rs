//! One replay, watched from outside.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use audit_bridge_tests::command;
use tempfile::NamedTempFile;

use crate::cores;
use crate::dumps::DumpFile;
use crate::receiver::Receiver;

/// How often the process is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What a replay came to.
pub(crate) struct Figures {
    /// The file's size.
    pub(crate) dump_bytes: u64,
    /// Events that were accepted.
    pub(crate) events: u64,
    /// Bytes of the accepted bodies.
    pub(crate) event_bytes: u64,
    /// From the start to the end.
    pub(crate) wall: Duration,
    /// Processor time of the bridge.
    pub(crate) cpu: Duration,
    /// The most memory it ever had.
    pub(crate) peak_bytes: u64,
    /// From the start to the first request.
    pub(crate) first_post: Duration,
}

/// Replays a dump to its end.
pub(crate) fn replay(dump: &DumpFile, file: &Path, receiver: &Receiver) -> Figures {
    let report = NamedTempFile::new().unwrap();
    let url = format!("http://{}/k8s-audit", receiver.address());
    let mut args = vec![
        "replay",
        file.to_str().unwrap(),
        "--webhook-url",
        &url,
        "--report",
        report.path().to_str().unwrap(),
    ];
    if dump.bridge == "gke" {
        args.push("--include-data-access");
    }
    receiver.forget();
    let mut bridge = cores::on(cores::BRIDGE, command(dump.bridge, &args));
    bridge.stderr(Stdio::null());
    let began = Instant::now();
    let mut child = bridge.spawn().unwrap();
    let (mut cpu, mut peak_bytes) = (Duration::ZERO, 0);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        // Of a process that has just ended there is nothing to see.
        cpu = cpu_time(&child).unwrap_or(cpu);
        peak_bytes = peak(&child).unwrap_or(peak_bytes);
        std::thread::sleep(LOOK);
    };
    let wall = began.elapsed();
    assert!(status.success(), "{}: {status}", dump.name);
    let report: serde_json::Value = serde_json::from_reader(report.as_file()).unwrap();
    let events = report["events"].as_u64().unwrap();
    assert_eq!(report["records"], events, "{}: {report}", dump.name);
    Figures {
        dump_bytes: file.metadata().unwrap().len(),
        events,
        event_bytes: report["bytes_out"].as_u64().unwrap(),
        wall,
        cpu,
        peak_bytes,
        first_post: receiver.first().unwrap_or(began) - began,
    }
}

/// `utime` and `stime` of proc_pid_stat(5), in hundredths of a second.
fn cpu_time(child: &Child) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks = |index| rest.split_whitespace().nth(index)?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

/// `VmHWM` of proc_pid_status(5).
fn peak(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
