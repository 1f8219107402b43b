//! A live demo without a cloud:
//!
//! `cargo run --example demo -- [eks|gke|aks]`
//!
//! The demo writes to a stand-in of the cloud's log at a steady rate; the real bridge reads it and
//! POSTs to a receiver, all on loopback. In between the bridge is killed (`kill -9`) and restarted,
//! and the receiver is down for a while: on schedule, or on a key. At the end it prints how many
//! events were written, delivered, lost and repeated.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a tool for the terminal, which may stop at once"
)]

mod cloud;

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use audit_bridge_testkit::{ScriptedWebhook, WebhookAnswer};
use audit_bridge_tests::live::{Running, wait};
use clap::Parser as _;

use self::cloud::{Cloud, Provider};

/// Writes to a stand-in of a cloud's audit log and shows how the bridge delivers it
#[derive(Debug, clap::Parser)]
struct Settings {
    /// The cloud
    #[arg(value_enum, default_value = "eks")]
    cloud: Provider,
    /// Events written a second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// How long to write
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    seconds: u64,
    /// When to kill the bridge (kill -9) and start it again; may be repeated
    #[arg(long, value_name = "SECOND", default_values_t = [6])]
    kill_at: Vec<u64>,
    /// When the receiver goes down (503); may be repeated
    #[arg(long, value_name = "SECOND", default_values_t = [11])]
    outage_at: Vec<u64>,
    /// How long the receiver stays down
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    outage_for: u64,
}

/// An action of the schedule or a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Kill,
    Outage,
    Recovery,
    Quit,
}

/// The bridge process, which is restarted after a kill.
struct Bridge {
    provider: Provider,
    args: Vec<String>,
    variables: Vec<(&'static str, String)>,
    state: PathBuf,
    running: Option<Running>,
}

impl Bridge {
    fn start(&mut self) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let variables: Vec<_> = self
            .variables
            .iter()
            .map(|(k, v)| (*k, v.as_str()))
            .collect();
        self.running = Some(Running::start(self.provider.name(), &args, &variables));
    }

    fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
        self.start();
    }

    fn metric(&mut self, name: &str) -> f64 {
        self.running.as_mut().map_or(0.0, |it| it.metric(name))
    }

    /// The age of the checkpoint.
    fn checkpoint_age(&self) -> Option<Duration> {
        let written = newest_checkpoint(&self.state)?;
        written.elapsed().ok()
    }
}

fn newest_checkpoint(folder: &Path) -> Option<std::time::SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?;
    let times = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => newest_checkpoint(&path),
            false if path.ends_with("checkpoint.json") => entry.metadata().ok()?.modified().ok(),
            false => None,
        }
    });
    times.max()
}

#[tokio::main(flavor = "multi_thread")]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    println!("building the bridge…");
    audit_bridge_tests::binary(settings.cloud.name());
    let cloud = Arc::new(Cloud::start(settings.cloud).await);
    let webhook = ScriptedWebhook::start().await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let reading = cloud.reading(folder.path()).unwrap();
    let (mut args, variables) = (reading.flags, reading.variables);
    args.push(format!("--webhook-url={}", webhook.url()));
    args.push(format!("--state-dir={}", state.display()));
    args.push("--batch-wait-max=200ms".to_owned());
    let mut bridge = Bridge {
        provider: settings.cloud,
        args,
        variables,
        state,
        running: None,
    };
    bridge.start();
    if let Some(running) = &mut bridge.running {
        running.until_ready();
    }
    println!(
        "{}-audit-bridge reads a stand-in of {} and POSTs to a receiver; {} events a second",
        settings.cloud.name(),
        cloud.about(),
        settings.rate,
    );
    let keys = keys();
    let written = watch(&settings, &cloud, &webhook, &mut bridge, &keys);
    account(&cloud, &webhook, bridge, written)
}

/// Reads the keys of a user at a terminal, each followed by Enter.
fn keys() -> Receiver<Event> {
    let (to, from) = channel();
    if std::io::stdin().is_terminal() {
        println!("k + Enter: kill -9 the bridge; o: the receiver goes down; q: the end");
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let event = match line.trim() {
                    "k" => Event::Kill,
                    "o" => Event::Outage,
                    "q" => Event::Quit,
                    _ => continue,
                };
                if to.send(event).is_err() {
                    return;
                }
            }
        });
    }
    from
}

/// Writes events and prints the progress until the time is over. Returns how many events were
/// written.
fn watch(
    settings: &Settings,
    cloud: &Arc<Cloud>,
    webhook: &ScriptedWebhook,
    bridge: &mut Bridge,
    keys: &Receiver<Event>,
) -> usize {
    let (written, going) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(true)),
    );
    let writer = write_steadily(settings.rate, cloud, &written, &going);
    println!(
        "{}",
        row([
            "second",
            "written",
            "delivered",
            "lag s",
            "checkpoint s",
            ""
        ])
    );
    let begun = Instant::now();
    let mut planned = plan(settings);
    for second in 1..=settings.seconds {
        std::thread::sleep((begun + Duration::from_secs(second)).duration_since(Instant::now()));
        let due = planned.remove(&second).unwrap_or_default();
        let mut notes = Vec::new();
        let mut quit = false;
        for event in due.into_iter().chain(keys.try_iter()) {
            match event {
                Event::Kill => {
                    bridge.kill();
                    notes.push("kill -9 of the bridge, and started again");
                }
                Event::Outage => {
                    webhook.set_answer(WebhookAnswer::status(503));
                    let end = second + settings.outage_for;
                    planned.entry(end).or_default().push(Event::Recovery);
                    notes.push("the receiver goes down");
                }
                Event::Recovery => {
                    webhook.accept();
                    notes.push("the receiver is back");
                }
                Event::Quit => quit = true,
            }
        }
        let checkpoint = bridge.checkpoint_age();
        println!(
            "{}",
            row([
                &second.to_string(),
                &written.load(Ordering::Relaxed).to_string(),
                &delivered(webhook).len().to_string(),
                &format!("{:.1}", bridge.metric("audit_bridge_lag_seconds")),
                &checkpoint.map_or("none yet".to_owned(), |age| format!(
                    "{:.1}",
                    age.as_secs_f64()
                )),
                &notes.join("; "),
            ])
        );
        if quit {
            break;
        }
    }
    going.store(false, Ordering::Relaxed);
    writer.join().unwrap();
    webhook.accept();
    written.load(Ordering::Relaxed)
}

/// The scheduled actions, by second.
fn plan(settings: &Settings) -> BTreeMap<u64, Vec<Event>> {
    let kills = settings.kill_at.iter().map(|&at| (at, Event::Kill));
    let outages = settings.outage_at.iter().map(|&at| (at, Event::Outage));
    let mut planned: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
    for (at, event) in kills.chain(outages) {
        planned.entry(at).or_default().push(event);
    }
    planned
}

fn write_steadily(
    rate: u32,
    cloud: &Arc<Cloud>,
    written: &Arc<AtomicUsize>,
    going: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    let (cloud, written, going) = (Arc::clone(cloud), Arc::clone(written), Arc::clone(going));
    std::thread::spawn(move || {
        let begun = Instant::now();
        while going.load(Ordering::Relaxed) {
            let n = written.load(Ordering::Relaxed);
            let due = begun + Duration::from_secs(1) * u32::try_from(n).unwrap_or(u32::MAX) / rate;
            std::thread::sleep(due.duration_since(Instant::now()));
            cloud.write(n);
            written.store(n + 1, Ordering::Relaxed);
        }
    })
}

fn row(cells: [&str; 6]) -> String {
    let [second, written, delivered, lag, checkpoint, note] = cells;
    let row = format!("{second:>6} {written:>9} {delivered:>9} {lag:>7} {checkpoint:>13}  {note}");
    row.trim_end().to_owned()
}

/// How often each event was accepted.
fn delivered(webhook: &ScriptedWebhook) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for id in webhook.accepted_ids() {
        *all.entry(id).or_default() += 1;
    }
    all
}

/// Waits for events in flight and prints the result. A lost event is a failure.
fn account(
    cloud: &Cloud,
    webhook: &ScriptedWebhook,
    mut bridge: Bridge,
    written: usize,
) -> ExitCode {
    let lost = || {
        let delivered = delivered(webhook);
        let all = (0..written).map(|n| cloud.audit_id(n));
        all.filter(|id| !delivered.contains_key(id)).count()
    };
    wait(|| (lost() == 0).then_some(()));
    if let Some(running) = bridge.running.take() {
        running.terminate();
    }
    let (lost, all) = (lost(), delivered(webhook));
    let repeated: usize = all.values().map(|times| times - 1).sum();
    println!(
        "written {written}, delivered {}, lost {lost}, repeated {repeated}",
        all.len()
    );
    if lost > 0 {
        return ExitCode::FAILURE;
    }
    println!(
        "Repeated is what was on its way when the bridge was killed: duplicates are legal, loss is not."
    );
    ExitCode::SUCCESS
}
