//! Shared parts of the examples that measure a bridge: pinning it to cores, waiting for its work,
//! and the result.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "it serves tools for the developer's terminal"
)]

use std::time::{Duration, Instant};

use audit_bridge_testkit::ScriptedWebhook;

use crate::live::Running;

/// The longest that a measurement may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// Ticks per second in `/proc/PID/stat`, on every Linux that we know.
const TICKS: f64 = 100.0;

/// A number from the command line, by position.
///
/// # Panics
/// The argument is no number.
pub fn argument(place: usize, otherwise: usize) -> usize {
    let given = std::env::args().nth(place + 1);
    given.map_or(otherwise, |text| text.parse().unwrap())
}

/// Pins a bridge to the cores in `CORES`, given in `taskset`'s form.
///
/// # Panics
/// That fails.
pub fn keep_to_cores(bridge: &Running) {
    if let Ok(cores) = std::env::var("CORES") {
        let pid = bridge.pid().to_string();
        let mut taskset = std::process::Command::new("taskset");
        let set = taskset.args(["-a", "-c", "-p", &cores, &pid]).output();
        assert!(set.unwrap().status.success(), "taskset");
    }
}

/// Measures what a backlog costs the bridges that read it.
#[derive(Debug)]
pub struct Load {
    /// Number of events to deliver.
    pub events: usize,
    /// Their size, as stored by the provider.
    pub bytes: usize,
    begun: Instant,
}

impl Load {
    /// Starts the clock; called before the bridges start.
    pub fn begin(events: usize, bytes: usize) -> Load {
        Load {
            events,
            bytes,
            begun: Instant::now(),
        }
    }

    /// Waits until everything is delivered, and prints the cost: in wall-clock time, which other
    /// load on the machine affects, and in the bridges' own processor time, which it affects least.
    /// With `METRICS` set, also prints the first bridge's metrics and log. Ends the bridges.
    ///
    /// # Panics
    /// It takes too long, or a bridge does not end with status 0.
    pub async fn measure(&self, mut bridges: Vec<Running>, webhook: &ScriptedWebhook) {
        let delivered = |bridges: &mut Vec<Running>| -> f64 {
            let all = bridges.iter_mut();
            all.map(|it| it.metric("audit_bridge_events_delivered_total"))
                .sum()
        };
        while delivered(&mut bridges) < self.events as f64 {
            webhook.forget_bodies();
            tokio::time::sleep(Duration::from_millis(50)).await;
            check_time(self.begun, &bridges[0]);
        }
        let clock = self.begun.elapsed().as_secs_f64();
        let processor: f64 = bridges.iter().map(|it| processor_seconds(it.pid())).sum();
        let memory = bridges.iter().map(|it| peak_mib(it.pid()));
        let memory = memory.fold(0.0, f64::max);
        for (by, seconds) in [("the clock", clock), ("processor time", processor)] {
            println!(
                "by {by}: {seconds:.2} s, {:.0} events/s, {:.1} MB/s",
                self.events as f64 / seconds,
                self.bytes as f64 / seconds / 1e6
            );
        }
        println!("memory of a replica, at most: {memory:.1} MiB");
        if std::env::var_os("METRICS").is_some() {
            println!("{}\n{}", bridges[0].get("/metrics").1, bridges[0].log());
        }
        for bridge in bridges {
            assert_eq!(bridge.terminate(), 0);
        }
    }
}

/// Fails with the bridge's log if a measurement takes too long.
///
/// # Panics
/// It does.
pub fn check_time(begun: Instant, bridge: &Running) {
    assert!(begun.elapsed() < PATIENCE, "{}", bridge.log());
}

/// The peak resident memory of a process, in MiB.
///
/// # Panics
/// The process has ended.
pub fn peak_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap() / 1024.0
}

/// Processor time of a process so far, in seconds.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / TICKS
}
