//! `replay`: sends saved dumps through the pipeline, with a progress bar, a report and an exit
//! status.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use audit_bridge_core::chain::printable;
use audit_bridge_core::checkpoint::file::StateDir;
use audit_bridge_core::checkpoint::{self, Checkpoint, Checkpointer, FileStore, Owner, Store as _};
use audit_bridge_core::convert::{Convert as _, Reject};
use audit_bridge_core::dead_letter::DeadLetter;
use audit_bridge_core::observer::{Observer, Progress};
use audit_bridge_core::read_budget::ReadBudget;
use audit_bridge_core::record::Origin;
use audit_bridge_core::run::{self, Ended, Pipeline, RetryPolicy};
use audit_bridge_core::run_stats::RunStats;
use audit_bridge_core::source::{Problem, StoredPositions};
use audit_bridge_replay::dump::{Dump, Shape};
use audit_bridge_replay::{
    DividedFiles, InputPosition, Replay, ReplayProgress, ReplaySettings, Shard,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use super::{Bridge, DEAD_LETTERS, DONE, FAILED, init_logging, usage};
use crate::config::{self, DeliveryArgs, DeliveryConfig, Destination, LogArgs, Problems};
use crate::fatal::Fatal;
use crate::shutdown;
use crate::state::AnyStore;

/// The most files read at a time. Each takes a thread and up to 25 MiB: a buffer for the largest
/// record, and a zstd window.
const PARALLEL_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
/// The most by default: a pod without a limit sees all cores of its node but has not the memory for
/// them, and all readers feed one loop.
const PARALLEL_DEFAULT_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// How many rejects are shown one by one when no dead letter keeps them.
const REJECTS_SHOWN: u64 = 10;

#[derive(Debug, Clone, Args)]
pub(super) struct ReplayArgs<A: Args> {
    /// Saved dumps: files, folders (walked in order), or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The shape of the dumps, where their content should not tell it; the names are below
    #[arg(long)]
    shape: Option<String>,
    /// Give up when the webhook has accepted nothing for so long [default: 5m]
    #[arg(long, value_name = "SPAN")]
    give_up_after: Option<String>,
    /// Leave out the first N records of all, unverified: what an earlier run without --state-dir has
    /// settled, as its last line says
    #[arg(long, value_name = "N")]
    skip_records: Option<String>,
    /// Keep in this folder how far each file is replayed, so that the same command goes on there
    #[arg(long, value_name = "PATH")]
    state_dir: Option<PathBuf>,
    /// Replay every N-th file only, of all sorted by name: I/N with I from 0, or N alone in an Indexed
    /// Job, whose JOB_COMPLETION_INDEX is I
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Read so many files at a time, each in its own order [default: one for each core, at most 8; 1
    /// with --output]
    #[arg(long, value_name = "N")]
    parallel: Option<String>,
    /// Write a report here, as JSON
    #[arg(long, value_name = "PATH")]
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
    delivery: DeliveryConfig,
    shape: Option<Shape>,
    give_up_after: Duration,
    skip_records: u64,
    state_dir: Option<PathBuf>,
    report: Option<PathBuf>,
    shard: Option<Shard>,
    parallel: NonZeroUsize,
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
        let _ = writeln!(io::stderr(), "error: {}", printable(&error.to_string()));
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
                format!("is not one of {}", names.join(", ")).into()
            })
    });
    let delivery = args.delivery.check(true, problems);
    let report = config::path(args.report.as_ref());
    if let Some(path) = &report
        && let Err(error) = check_writable(path)
    {
        problems.add(
            "report",
            format!("cannot be written: {error}; name another file"),
        );
    }
    let written = [
        ("dead-letter", delivery.dead_letter.as_deref()),
        ("report", report.as_deref()),
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
    let state_dir = config::path(args.state_dir.as_ref());
    if state_dir.is_some() {
        for path in args.paths.iter().filter(|path| is_read_once(path)) {
            let path = path.to_string_lossy();
            let what = format!(
                "cannot say how far {} is replayed, since standard input, a pipe or a device cannot \
                 be read again; name files, or leave --state-dir out",
                printable(&path)
            );
            problems.add("state-dir", what);
        }
        if config::given(args.skip_records.as_deref()).is_some() {
            problems.add(
                "skip-records",
                "is for a replay without --state-dir: with it, the checkpoint says how far each \
                 file is replayed",
            );
        }
    }
    let index = std::env::var("JOB_COMPLETION_INDEX").ok();
    let shard = problems.read("shard", args.shard.as_deref(), None, |text| {
        let shard = Shard::read(text, index.as_deref());
        shard.map(Some).map_err(|error| error.to_string().into())
    });
    let parallel = match delivery.destination {
        Destination::Output(..) => NonZeroUsize::MIN,
        Destination::Webhook(..) => parallel_default(),
    };
    Checked {
        state_dir,
        report,
        shard,
        parallel: problems.read(
            "parallel",
            args.parallel.as_deref(),
            parallel,
            |text| match text.parse() {
                Ok(number) if number <= PARALLEL_MAX => Ok(number),
                _ => Err(format!("is no number from 1 to {PARALLEL_MAX}").into()),
            },
        ),
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
            text.parse().map_err(|_| "is no whole number".into())
        }),
    }
}

/// One file for each core that this process may use.
fn parallel_default() -> NonZeroUsize {
    let cores = std::thread::available_parallelism();
    cores.map_or(NonZeroUsize::MIN, |cores| cores.min(PARALLEL_DEFAULT_MAX))
}

/// Standard input, a pipe or a device, also where another name leads to it.
fn is_read_once(path: &Path) -> bool {
    let is_other = |meta: std::fs::Metadata| !meta.is_file() && !meta.is_dir();
    path.as_os_str() == "-" || path.metadata().is_ok_and(is_other)
}

/// Whether the replay would read a file that it writes, and so never end.
fn is_input(path: &Path, inputs: &[PathBuf]) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    // A file that does not exist yet is resolved by its folder.
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

async fn deliver<B: Bridge>(args: &ReplayArgs<B::Args>, checked: &Checked<B>) -> Result<u8, Fatal> {
    let started = Instant::now();
    let settings = &checked.delivery;
    let dead_letter = match &settings.dead_letter {
        Some(path) => {
            let limits = settings.dead_letter_limits.clone();
            let opened = DeadLetter::open_within(path, B::PROVIDER, limits);
            Some(opened.map_err(|error| Fatal::of(&error))?)
        }
        None => None,
    };
    if checked.state_dir.is_some() && dead_letter.is_none() {
        tracing::warn!(
            "no --dead-letter (AUDIT_BRIDGE_DEAD_LETTER): what is rejected is shown at most and kept \
             nowhere, and a later run with this --state-dir does not come back to it; name one"
        );
    }
    let state = match &checked.state_dir {
        Some(dir) => Some(ReplayState::open(dir, B::PROVIDER).await?),
        None => None,
    };
    let converter = checked.bridge.converter(settings.native.clone());
    let replayed = ReplaySettings {
        paths: args.paths.clone(),
        dump: Arc::clone(&checked.dump),
        shape: checked.shape,
        skip_records: checked.skip_records,
        resume: state.as_ref().map(ReplayState::positions),
        shard: checked.shard,
        parallel: checked.parallel,
    };
    let source =
        Replay::start(&replayed, || converter.fork()).map_err(|error| Fatal::of(&error))?;
    let checkpoint = state.map(|state| state.checkpointer(source.inputs()));
    let keeps_positions = checkpoint.is_some();
    let console = Console::new(source.progress(), dead_letter.is_some());
    let divided = source.divided().cloned();
    if let Some(DividedFiles {
        files,
        here,
        names_sha256,
    }) = &divided
    {
        console.print_line(&format!(
            "{here} of {files} files; every part must see the same ones: the SHA-256 of their names is \
             {names_sha256}"
        ));
    }
    let target = settings.destination.open()?;
    let pipeline = Pipeline {
        source,
        converter,
        sink: if keeps_positions {
            target.durable()
        } else {
            target
        },
        dead_letter,
        checkpoint,
        lease_hold: None,
        observer: console,
        on_request: Box::new(|_, _| {}),
        batch: settings.batch,
        in_flight_batches_max: settings.in_flight_batches_max,
        in_flight_bytes: ReadBudget::new(settings.in_flight_bytes_max),
        retry_policy: RetryPolicy::GiveUpAfter(checked.give_up_after),
        grace: shutdown::GRACE,
        stop: shutdown::on_signal().map_err(|error| format!("signals cannot be heard: {error}"))?,
    };
    let run::RunOutcome {
        mut stats,
        ended,
        settled,
        observer: console,
    } = run::run(pipeline).await;
    stats.set_duration(started.elapsed());
    console.finish(&stats);
    let rejected_before = console.progress.rejected_before.load(Ordering::Relaxed);
    if let Some(path) = &checked.report {
        let report = Report {
            stats: &stats,
            rejected_before,
            shard: divided,
        };
        let json = serde_json::to_string(&report).map_err(|error| error.to_string())?;
        write_private(path, (json + "\n").as_bytes())
            .map_err(|error| format!("the report {} cannot be written: {error}", path.display()))?;
    }
    let resume = if keeps_positions {
        "resume with the same command".to_owned()
    } else {
        let of = |partition| settled.get(&partition).copied().unwrap_or(0);
        let settled = console.progress.settled_in_order(of);
        format!("resume with the same command and --skip-records {settled}")
    };
    match ended {
        Ended::GaveUp(why) => Err(format!("{why}; once it is mended, {resume}").into()),
        Ended::Stopped => Err(format!("stopped before the end; {resume}").into()),
        Ended::Failed(why) | Ended::LostLease(why) | Ended::Unsaved(why) => {
            Err(format!("{why}; once it is mended, {resume}").into())
        }
        Ended::Done if console.problems > 0 => Ok(FAILED),
        Ended::Done if stats.rejects() > 0 || rejected_before => Ok(DEAD_LETTERS),
        Ended::Done => Ok(DONE),
    }
}

/// What `--report` writes.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    stats: &'a RunStats,
    /// Records of these files went to the dead letter of an earlier run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rejected_before: bool,
    /// With `--shard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<DividedFiles>,
}

/// The checkpoint's store, and the positions in it.
struct ReplayState {
    store: FileStore,
    owner: Owner,
    loaded: Option<Checkpoint>,
}

impl ReplayState {
    async fn open(dir: &Path, provider: &str) -> Result<ReplayState, Fatal> {
        // One owner for all replays: the positions say which files they belong to.
        let owner = Owner {
            provider: provider.to_owned(),
            source: REPLAY_SOURCE.to_owned(),
        };
        refuse_counted(&dir.join(checkpoint::DOCUMENT))?;
        let restart = "move it away to replay every file from its first record";
        let locked = StateDir::lock(dir).map_err(|error| Fatal::of(&error))?;
        let mut store = FileStore::within(Arc::new(locked), owner.clone(), restart)
            .map_err(|error| Fatal::of(&error))?;
        let loaded = store.load().await.map_err(|error| Fatal::of(&error))?;
        Ok(ReplayState {
            store,
            owner,
            loaded,
        })
    }

    fn positions(&self) -> StoredPositions {
        let loaded = self.loaded.as_ref();
        loaded.map(|it| it.position.clone()).unwrap_or_default()
    }

    fn checkpointer(self, inputs: usize) -> Checkpointer<AnyStore, InputPosition> {
        let interval =
            CHECKPOINT_INTERVAL.max(CHECKPOINT_PACE * u32::try_from(inputs).unwrap_or(u32::MAX));
        let store = AnyStore::File(self.store);
        Checkpointer::new(store, self.owner, self.loaded, interval)
    }
}

/// The source of a replay's checkpoint.
const REPLAY_SOURCE: &str = "replay of saved dumps";
/// The minimum time between two writes of the checkpoint.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// The same per input: the document grows with their number.
const CHECKPOINT_PACE: Duration = Duration::from_micros(500);

/// Refuses an earlier release's checkpoint, which has one count of records over all files.
fn refuse_counted(path: &Path) -> Result<(), Fatal> {
    let document = std::fs::read(path).ok();
    let document = document.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let Some(document) = document else {
        return Ok(());
    };
    let is_replay = document.get("source").and_then(Value::as_str);
    let is_replay = is_replay.is_some_and(|source| source.starts_with("replay of "));
    let count = document
        .get("position")
        .and_then(|it| it.get("0")?.as_u64());
    match count.filter(|_| is_replay) {
        None => Ok(()),
        Some(count) => Err(format!(
            "the checkpoint {} is of an earlier release: it counts {count} records over all files, \
             and cannot tell whether they are still the same files; if they are, finish with \
             --skip-records {count} instead of --state-dir, or else name a new --state-dir to \
             replay everything",
            path.display()
        )
        .into()),
    }
}

/// A replay's output for people, all on standard error.
struct Console {
    bar: ProgressBar,
    progress: Arc<ReplayProgress>,
    /// Whether a dead letter keeps the rejects.
    kept: bool,
    shown: u64,
    problems: u64,
}

impl Console {
    fn new(progress: Arc<ReplayProgress>, kept: bool) -> Console {
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
        bar.set_draw_target(if io::stderr().is_terminal() {
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

    fn print_line(&self, line: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "{}", printable(line));
        });
    }

    fn finish(&self, stats: &RunStats) {
        self.bar.finish_and_clear();
        let count = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let records = count(&self.progress.records_left_out);
        if records > 0 {
            self.print_line(&format!(
                "going on behind {records} records that were settled before; files left out, since \
                 all of them was: {}",
                count(&self.progress.inputs_left_out)
            ));
        }
        let changed = count(&self.progress.inputs_changed);
        if changed > 0 {
            self.print_line(&format!(
                "files that changed since they were replayed, and were replayed from their \
                 beginning: {changed}"
            ));
        }
        if self.progress.rejected_before.load(Ordering::Relaxed) {
            self.print_line(
                "records of these files were rejected by an earlier run with this --state-dir: they are in \
                 its dead letter; if it had none, name one and a new --state-dir to replay all",
            );
        }
        if !self.kept && stats.rejects() > self.shown {
            self.print_line(&format!(
                "rejected: {} more like these; keep them all with --dead-letter PATH",
                stats.rejects() - self.shown
            ));
        }
        let _ = write!(io::stderr(), "{stats}");
    }
}

impl Observer for Console {
    fn progressed(&mut self, stats: &RunStats, _: &Progress<'_>) {
        self.bar
            .set_position(self.progress.read.load(Ordering::Relaxed));
        self.bar.set_message(format!("{} events", stats.events));
    }

    fn problem(&mut self, problem: &Problem) {
        self.problems += 1;
        self.print_line(&format!("error: {}: {}", problem.place, problem.error));
    }

    fn reject(&mut self, origin: &Origin, reason: Reject, error: &str) {
        if !self.kept && self.shown < REJECTS_SHOWN {
            self.shown += 1;
            self.print_line(&format!("rejected: {origin}: {reason}: {error}"));
        }
    }
}

/// Writes a file that only its owner may read, because its content comes from an audit log.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true);
    options.mode(0o600).open(path)?.write_all(bytes)
}

/// Finds out whether a file can be written, and leaves its content as it is.
fn check_writable(path: &Path) -> io::Result<()> {
    let found = path.symlink_metadata();
    if found
        .as_ref()
        .is_ok_and(|found| !found.is_file() && !found.is_dir())
    {
        // A link, a device, or a pipe, which may wait for a reader.
        return Ok(());
    }
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false);
    options.mode(0o600).open(path)?;
    match found {
        Ok(_) => Ok(()),
        Err(_) => std::fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn report_written_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report");
        write_private(&report, b"{}").unwrap();
        let mode = std::fs::metadata(&report).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn report_is_tried_before_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report");
        check_writable(&report).unwrap();
        assert!(!report.exists(), "an empty report would look like one");
        write_private(&report, b"{}").unwrap();
        check_writable(&report).unwrap();
        assert_eq!(std::fs::read(&report).unwrap(), b"{}");
        assert!(check_writable(&folder.path().join("missing/report")).is_err());
    }
}
