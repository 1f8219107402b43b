//! Replay of large dumps into a webhook on the loopback, with the real binaries.
//!
//! The bridge has one core, the receiver (in this process) another, where `taskset` can say so.
//! `wall` is what a user sees; `cpu` is the rate by the processor time that the bridge took, which
//! other work on the machine hardly changes. Dumps are written to the target folder and removed.
//! `cargo bench -p audit-bridge-tests --bench replay -- aks` replays the dumps of that name only.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and may stop at once"
)]

mod cores;
mod dumps;
mod process;
mod receiver;

use std::path::Path;
use std::time::Duration;

use audit_bridge_tests::{BRIDGES, binary};

use self::process::Figures;
use self::receiver::Receiver;

const MB: f64 = 1e6;
const MIB: f64 = 1_048_576.0;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    // Built before this process keeps to one core.
    println!("binary, stripped (goal: 25 MB)");
    for bridge in BRIDGES {
        let bytes = binary(bridge).metadata().unwrap().len();
        println!("{bridge:<28}{:>10.1} MB", bytes as f64 / MB);
    }
    let pinned = cores::keep_this_thread_on(cores::RECEIVER);
    println!();
    match pinned {
        true => println!("replay: one core for the bridge, another for the receiver"),
        false => println!("replay: cores shared with the receiver (no taskset, or one core)"),
    }
    let receiver = Receiver::start();
    println!(
        "the loopback alone, 1 MiB bodies: {:.0} MB/s (goal: 250 MB/s of events, 64 MiB, 0.3 s)",
        receiver::floor(receiver.address()) / MB
    );
    println!(
        "{:<28}{:>9}{:>11}{:>11}{:>11}{:>11}{:>9}{:>9}",
        "", "dump", "events/s", "wall", "wall", "cpu", "peak", "first"
    );
    println!(
        "{:<28}{:>9}{:>11}{:>11}{:>11}{:>11}{:>9}{:>9}",
        "", "MB", "", "MB/s", "MiB/s", "MB/s", "MiB", "POST s"
    );
    for dump in dumps::ALL {
        if wanted.is_empty() || wanted.iter().any(|name| dump.name.contains(name.as_str())) {
            let file = dump.write(Path::new(env!("CARGO_TARGET_TMPDIR")));
            let figures = process::replay(dump, file.path(), &receiver);
            print(dump, &figures);
        }
    }
}

fn print(dump: &dumps::DumpFile, figures: &Figures) {
    let per = |time: Duration| figures.event_bytes as f64 / time.as_secs_f64();
    println!(
        "{:<28}{:>9.0}{:>11.0}{:>11.0}{:>11.0}{:>11.0}{:>9.1}{:>9.3}",
        dump.name,
        figures.dump_bytes as f64 / MB,
        figures.events as f64 / figures.wall.as_secs_f64(),
        per(figures.wall) / MB,
        per(figures.wall) / MIB,
        per(figures.cpu) / MB,
        figures.peak_bytes as f64 / MIB,
        figures.first_post.as_secs_f64(),
    );
}
