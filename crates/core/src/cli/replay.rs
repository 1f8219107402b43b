//! `replay`: saved dumps through the pipeline, with a progress bar, a report and an exit status.

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Bridge, DEAD_LETTERS, DONE, FAILED, init_logging, usage};
use crate::chain::{chain, printable};
use crate::checkpoint::{self, AnyStore, Checkpointer, FileStore, Owner, Store as _};
use crate::config::{self, DeliveryArgs, DeliverySettings, Destination, LogArgs, Problems};
use crate::convert::Reject;
use crate::dead_letter::DeadLetter;
use crate::output;
use crate::record::Origin;
use crate::replay::dump::{Dump, Shape};
use crate::replay::{Progress, Replay, Settings};
use crate::run::{self, Doing, Ended, Observer, Patience, Pipeline};
use crate::shutdown::{self, Stop};
use crate::source::{Page, Problem, Source};
use crate::tally::Tally;

/// Rejects that are shown one by one when no dead letter keeps them.
const REJECTS_SHOWN: u64 = 10;

#[derive(Debug, Clone, Args)]
pub(super) struct ReplayArgs<A: Args> {
    /// Saved dumps: files, folders (walked in order), or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The shape of the dumps, where their content should not tell it; the names are below
    #[arg(long, env = "AUDIT_BRIDGE_SHAPE", hide_env_values = true)]
    shape: Option<String>,
    /// Give up when the webhook has accepted nothing for so long [default: 5m]
    #[arg(
        long,
        env = "AUDIT_BRIDGE_GIVE_UP_AFTER",
        hide_env_values = true,
        value_name = "SPAN"
    )]
    give_up_after: Option<String>,
    /// Leave out the first N records: what an earlier run has settled, as its last line says
    #[arg(
        long,
        env = "AUDIT_BRIDGE_SKIP_RECORDS",
        hide_env_values = true,
        value_name = "N"
    )]
    skip_records: Option<String>,
    /// Keep in this folder how far the replay is, so that the same command goes on there
    #[arg(
        long,
        env = "AUDIT_BRIDGE_STATE_DIR",
        hide_env_values = true,
        value_name = "PATH"
    )]
    state_dir: Option<PathBuf>,
    /// Write a report here, as JSON
    #[arg(
        long,
        env = "AUDIT_BRIDGE_REPORT",
        hide_env_values = true,
        value_name = "PATH"
    )]
    report: Option<PathBuf>,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    bridge: A,
}

/// [`ReplayArgs`], checked.
struct Checked<B> {
    bridge: B,
    dump: Arc<dyn Dump>,
    delivery: DeliverySettings,
    shape: Option<Shape>,
    give_up_after: Duration,
    skip_records: u64,
}

pub(super) fn replay<B: Bridge>(args: &ReplayArgs<B::Args>) -> u8 {
    let mut problems = Problems::default();
    init_logging::<B>(&args.log, &mut problems);
    let checked = check::<B>(args, &mut problems);
    if !problems.is_empty() {
        return usage(&problems);
    }
    let result = super::runtime().and_then(|runtime| runtime.block_on(deliver(args, &checked)));
    result.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "error: {}", printable(&error));
        FAILED
    })
}

fn check<B: Bridge>(args: &ReplayArgs<B::Args>, problems: &mut Problems) -> Checked<B> {
    let bridge = B::configure(&args.bridge, problems);
    let dump = B::dump();
    let shape = problems.read("shape", args.shape.as_deref(), None, |name| {
        let known = dump.shapes();
        known
            .iter()
            .find(|shape| shape.name == name)
            .map(|shape| Some(*shape))
            .ok_or_else(|| {
                let names: Vec<_> = known.iter().map(|shape| shape.name).collect();
                format!("is not one of {}", names.join(", "))
            })
    });
    let delivery = args.delivery.check(true, problems);
    let written = [
        ("dead-letter", delivery.dead_letter.as_deref()),
        ("report", args.report.as_deref()),
    ]
    .into_iter()
    .chain(match &delivery.destination {
        Destination::Output(path, _) if path != "-" => Some(("output", Some(Path::new(path)))),
        _ => None,
    });
    for (flag, path) in written {
        if path.is_some_and(|path| is_input(path, &args.paths)) {
            problems.add(
                flag,
                "lies among the files to replay; write it to another place",
            );
        }
    }
    Checked {
        bridge,
        dump,
        delivery,
        shape,
        give_up_after: problems.read(
            "give-up-after",
            args.give_up_after.as_deref(),
            Duration::from_secs(300),
            config::duration,
        ),
        skip_records: problems.read("skip-records", args.skip_records.as_deref(), 0, |text| {
            text.parse().map_err(|_| "is no whole number".to_owned())
        }),
    }
}

/// Whether a file that is written would be read by the same replay: it would never end.
fn is_input(path: &Path, inputs: &[PathBuf]) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    // A file that does not exist yet lies where its folder lies.
    let written = real(path).or_else(|| {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        Some(real(folder.unwrap_or(Path::new(".")))?.join(path.file_name()?))
    });
    let Some(written) = written else { return false };
    inputs.iter().filter_map(|input| real(input)).any(|input| {
        // Devices such as /dev/null may be both.
        (input.is_file() && input == written) || (input.is_dir() && written.starts_with(input))
    })
}

async fn deliver<B: Bridge>(
    args: &ReplayArgs<B::Args>,
    checked: &Checked<B>,
) -> Result<u8, String> {
    let started = Instant::now();
    let settings = &checked.delivery;
    let dead_letter = match &settings.dead_letter {
        Some(path) => {
            let limits = settings.dead_letter_limits.clone();
            let opened = DeadLetter::open_within(path, B::PROVIDER, limits);
            Some(opened.map_err(|error| chain(&error))?)
        }
        None => None,
    };
    let state = state::<B>(args).await?;
    // What an earlier run has settled, whichever way it is known.
    let settled = state.as_ref().map_or(0, |(_, settled)| *settled);
    let skip_records = checked.skip_records.max(settled);
    let source = Replay::start(Settings {
        paths: args.paths.clone(),
        dump: Arc::clone(&checked.dump),
        shape: checked.shape,
        skip_records,
    })
    .map_err(|error| format!("the reading thread does not start: {error}"))?;
    let console = Console::new(source.progress(), dead_letter.is_some());
    if settled > 0 {
        console.say(&format!(
            "going on behind {settled} records, as {} has it",
            checkpoint::DOCUMENT
        ));
    }
    let target = settings.destination.open()?;
    let pipeline = Pipeline {
        source: Counted {
            source,
            records: skip_records,
            every: match state {
                Some(_) => POSITION_EVERY,
                None => usize::MAX,
            },
            page: Page::default(),
        },
        converter: checked.bridge.converter(settings.native.clone()),
        sink: if state.is_some() {
            target.durable()
        } else {
            target
        },
        dead_letter,
        checkpoint: state.map(|(checkpoint, _)| checkpoint),
        tenure: None,
        observer: console,
        on_request: Box::new(|_, _| {}),
        batch: settings.batch,
        in_flight_batches_max: settings.in_flight_batches_max,
        in_flight_bytes_max: settings.in_flight_bytes_max,
        patience: Patience::GiveUpAfter(checked.give_up_after),
        grace: shutdown::GRACE,
        stop: Stop::on_signal().map_err(|error| format!("signals cannot be heard: {error}"))?,
    };
    let run::Outcome {
        mut tally,
        ended,
        settled_records,
        observer: console,
    } = run::run(pipeline).await;
    tally.took(started.elapsed());
    console.finish(&tally);
    if let Some(path) = &args.report {
        let json = serde_json::to_string(&tally).map_err(|error| error.to_string())?;
        output::write_private(path, (json + "\n").as_bytes())
            .map_err(|error| format!("the report {} cannot be written: {error}", path.display()))?;
    }
    let resume = format!(
        "resume with the same command and --skip-records {}",
        skip_records + settled_records
    );
    match ended {
        Ended::GaveUp(why) => Err(format!("{why}; once it is mended, {resume}")),
        Ended::Stopped => Err(format!("stopped before the end; {resume}")),
        Ended::Failed(why) | Ended::LostLease(why) => {
            Err(format!("{why}; once it is mended, {resume}"))
        }
        Ended::Done if console.problems > 0 => Ok(FAILED),
        Ended::Done if tally.rejects() > 0 => Ok(DEAD_LETTERS),
        Ended::Done => Ok(DONE),
    }
}

/// How far an earlier run of the same inputs came, and what keeps how far this one comes.
async fn state<B: Bridge>(
    args: &ReplayArgs<B::Args>,
) -> Result<Option<(Checkpointer<AnyStore>, u64)>, String> {
    let Some(dir) = config::path(args.state_dir.as_ref()) else {
        return Ok(None);
    };
    let paths: Vec<_> = args
        .paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let owner = Owner {
        provider: B::PROVIDER.to_owned(),
        source: format!("replay of {}", paths.join(" ")),
    };
    let mut store = FileStore::open(&dir, owner.clone()).map_err(|error| chain(&error))?;
    let loaded = store.load().await.map_err(|error| chain(&error))?;
    let settled = loaded
        .as_ref()
        .and_then(|checkpoint| checkpoint.position.get(&0)?.as_u64())
        .unwrap_or(0);
    let interval = Duration::from_secs(1);
    let checkpointer = Checkpointer::new(AnyStore::File(store), owner, loaded, interval);
    Ok(Some((checkpointer, settled)))
}

/// A replay whose position is the number of records, told every few of them: a page may hold
/// thousands, and a crash in its middle is to repeat few.
struct Counted {
    source: Replay,
    records: u64,
    /// Records between two positions.
    every: usize,
    page: Page,
}

/// Records between two positions where they are kept.
const POSITION_EVERY: usize = 50;

impl Source for Counted {
    async fn read(&mut self) -> Option<Page> {
        if self.page.records.is_empty() {
            self.page = self.source.read().await?;
        }
        let rest = self.page.records.len().min(self.every);
        let rest = self.page.records.split_off(rest);
        let page = Page {
            partition: self.page.partition,
            records: std::mem::replace(&mut self.page.records, rest),
            position: None,
            problems: std::mem::take(&mut self.page.problems),
        };
        self.records += page.records.len() as u64;
        Some(Page {
            position: Some(self.records.into()),
            ..page
        })
    }
}

/// What a person sees of a replay, all on standard error.
struct Console {
    bar: ProgressBar,
    progress: Arc<Progress>,
    /// Rejects are kept elsewhere.
    kept: bool,
    shown: u64,
    problems: u64,
}

impl Console {
    fn new(progress: Arc<Progress>, kept: bool) -> Console {
        let total = progress.total.load(Ordering::Relaxed);
        let bar = if total > 0 {
            ProgressBar::new(total)
        } else {
            ProgressBar::no_length()
        };
        let template = if total > 0 {
            "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {msg}  {eta} left"
        } else {
            "{spinner} {bytes}  {bytes_per_sec}  {msg}  {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_draw_target(if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(4)
        } else {
            ProgressDrawTarget::hidden()
        });
        Console {
            bar,
            progress,
            kept,
            shown: 0,
            problems: 0,
        }
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{}", printable(line));
        });
    }

    fn finish(&self, tally: &Tally) {
        self.bar.finish_and_clear();
        if !self.kept && tally.rejects() > self.shown {
            self.say(&format!(
                "rejected: {} more like these; keep them all with --dead-letter PATH",
                tally.rejects() - self.shown
            ));
        }
        let _ = write!(std::io::stderr(), "{tally}");
    }
}

impl Observer for Console {
    fn turn(&mut self, tally: &Tally, _: &Doing<'_>) {
        self.bar
            .set_position(self.progress.read.load(Ordering::Relaxed));
        self.bar.set_message(format!("{} events", tally.events));
    }

    fn problem(&mut self, problem: &Problem) {
        self.problems += 1;
        self.say(&format!("error: {}: {}", problem.place, problem.error));
    }

    fn reject(&mut self, origin: &Origin, reason: Reject, error: &str) {
        if !self.kept && self.shown < REJECTS_SHOWN {
            self.shown += 1;
            self.say(&format!("rejected: {origin}: {reason}: {error}"));
        }
    }
}
