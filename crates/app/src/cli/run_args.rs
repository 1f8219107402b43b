//! What `run` and `check` share: their flags, checked.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::Bridge;
use super::canary_args::CanaryArgs;
use super::health_args::{HealthArgs, HealthSettings};
use crate::canary::CanarySettings;
use crate::config::{
    self, DeliveryArgs, DeliveryConfig, InvalidValue, LogArgs, Problems, flag, given,
};
use crate::fatal::Fatal;
use crate::provider::{self, JobWindow, Provider as _, SharedLogs, Start};
use crate::shutdown;
use crate::state::StoreKind;

/// The default of `--checkpoint-interval`.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
const KUBERNETES_INTERVAL: Duration = Duration::from_secs(10);
/// The minimum of `--checkpoint-interval`.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Args)]
pub(super) struct RunArgs<A: Args, L: Args> {
    #[command(flatten)]
    pub(super) state: StateArgs,
    #[command(flatten)]
    pub(super) delivery: DeliveryArgs,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    canary: CanaryArgs,
    #[command(flatten)]
    pub(super) log: LogArgs,
    #[command(flatten)]
    bridge: A,
    #[command(flatten)]
    provider: L,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "State")]
pub(super) struct StateArgs {
    /// Folder for the checkpoint, what was seen, and the dead letter [default: /var/lib/audit-bridge]
    #[arg(long, value_name = "PATH")]
    state_dir: Option<PathBuf>,
    /// Where the checkpoint is kept: file, in the state folder, or kubernetes, in a ConfigMap [default: file]
    #[arg(long, value_name = "STORE")]
    checkpoint_store: Option<String>,
    /// From one write of the checkpoint to the next, at least; a crash repeats what was delivered since the last one [default: 1s; with --checkpoint-store kubernetes 10s, as each write is a request, and an event of the audit log]
    #[arg(long, value_name = "SPAN")]
    checkpoint_interval: Option<String>,
    /// Name of the ConfigMap and of the Lease [default: the name of the bridge]
    #[arg(long, value_name = "NAME")]
    checkpoint_name: Option<String>,
    /// Of several replicas let one read, elected by a Lease; needs --checkpoint-store kubernetes
    #[arg(long, value_name = "BOOL")]
    leader_election: Option<String>,
    /// Where to begin without a checkpoint: latest, earliest, a span back like -15m, or a time [default: latest]
    #[arg(long, value_name = "START", allow_hyphen_values = true)]
    start: Option<String>,
    /// Deliver what there is up to this time and end: now, a span back like -15m, or a time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// How long what is in flight may still be delivered after SIGTERM [default: 25s]
    #[arg(long, value_name = "SPAN")]
    shutdown_grace: Option<String>,
}

/// [`StateArgs`], checked.
#[derive(Debug, Clone)]
pub(super) struct StateSettings {
    pub(super) dir: PathBuf,
    pub(super) store: StoreKind,
    pub(super) checkpoint_interval: Duration,
    pub(super) name: String,
    pub(super) leader_election: bool,
    pub(super) start: Start,
    /// `--start` is not the default.
    pub(super) start_given: bool,
    /// Whether the log's name contains the window from `start` to `until`, so that a checkpoint of
    /// the log is of exactly this window.
    pub(super) is_window_in_names: bool,
    pub(super) until: Option<Timestamp>,
    pub(super) shutdown_grace: Duration,
}

impl StateArgs {
    fn check(&self, name: &str, now: Timestamp, problems: &mut Problems) -> StateSettings {
        let text = |value: &Option<String>| given(value.as_deref()).map(str::to_owned);
        let store = problems.read(
            "checkpoint-store",
            self.checkpoint_store.as_deref(),
            StoreKind::File,
            |text| match text {
                "file" => Ok(StoreKind::File),
                "kubernetes" => Ok(StoreKind::Kubernetes),
                _ => Err("is neither file nor kubernetes".into()),
            },
        );
        let leader_election = problems.read(
            "leader-election",
            self.leader_election.as_deref(),
            false,
            flag,
        );
        if leader_election && store == StoreKind::File {
            problems.add(
                "leader-election",
                "needs --checkpoint-store kubernetes: replicas must share their checkpoint",
            );
        }
        let name = problems.read(
            "checkpoint-name",
            self.checkpoint_name.as_deref(),
            name.to_owned(),
            object_name,
        );
        let state = StateSettings {
            dir: config::path(self.state_dir.as_ref())
                .unwrap_or_else(|| PathBuf::from("/var/lib/audit-bridge")),
            store,
            checkpoint_interval: problems.read(
                "checkpoint-interval",
                self.checkpoint_interval.as_deref(),
                match store {
                    StoreKind::File => FILE_INTERVAL,
                    StoreKind::Kubernetes => KUBERNETES_INTERVAL,
                },
                checkpoint_interval,
            ),
            name,
            leader_election,
            start: problems.read(
                "start",
                text(&self.start).as_deref(),
                Start::Latest(now),
                |text| Start::read(text, now),
            ),
            start_given: given(self.start.as_deref()).is_some(),
            is_window_in_names: false,
            until: problems.read("until", self.until.as_deref(), None, |text| {
                provider::until(text, now).map(Some)
            }),
            shutdown_grace: problems.read(
                "shutdown-grace",
                self.shutdown_grace.as_deref(),
                shutdown::GRACE,
                config::duration,
            ),
        };
        if let (Start::At(start), Some(until)) = (state.start, state.until)
            && until <= start
        {
            problems.add("until", "is not after --start: there is nothing between");
        }
        state
    }
}

impl StateSettings {
    /// Takes the job's window from the provider's own flag.
    fn read_window(&mut self, window: &JobWindow, problems: &mut Problems) {
        for (flag, given) in [("start", self.start_given), ("until", self.until.is_some())] {
            if given {
                let flag_of_window = window.flag;
                problems.add(
                    flag,
                    format!("cannot be combined with --{flag_of_window}, which says both ends"),
                );
            }
        }
        self.start = Start::At(window.from);
        self.until = Some(window.until);
        self.is_window_in_names = true;
    }

    /// Checks whether `--start` and `--until` are possible for a log, given whether it has a
    /// checkpoint. Reading resumes at a checkpoint, whatever `--start` says. A tail only warns
    /// about that; a job for a window of time would skip a part of it, or read another one.
    ///
    /// # Errors
    /// What is not possible, and what to do instead.
    pub(super) fn check_start(&self, log: &str, has_checkpoint: bool) -> Result<(), Fatal> {
        if self.is_window_in_names {
            return Ok(());
        }
        match (has_checkpoint, self.start_given, self.until.is_some()) {
            (true, true, true) => Err(format!(
                "{log} has a checkpoint, so --start (AUDIT_BRIDGE_START) with --until would not \
                 begin there: leave --start out to go on from the checkpoint, or give the job a \
                 --state-dir (or --checkpoint-name) of its own"
            )
            .into()),
            (false, false, true) => Err(format!(
                "{log} has no checkpoint, and --until (AUDIT_BRIDGE_UNTIL) needs to know where to \
                 begin: name it with --start, such as earliest or -2h"
            )
            .into()),
            (true, true, false) => {
                tracing::warn!(
                    log,
                    "--start (AUDIT_BRIDGE_START) ignored: reading resumes from the checkpoint"
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn checkpoint_interval(text: &str) -> Result<Duration, InvalidValue> {
    let span = config::duration(text)?;
    match (INTERVAL_MIN..=INTERVAL_MAX).contains(&span) {
        true => Ok(span),
        false => Err(format!("is not within {INTERVAL_MIN:?} and {INTERVAL_MAX:?}").into()),
    }
}

/// Parses the name of a Kubernetes object, with room for a suffix.
fn object_name(text: &str) -> Result<String, InvalidValue> {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = |c: char| c != '-';
    if text.len() <= 200
        && text.chars().all(inside)
        && text.starts_with(ends)
        && text.ends_with(ends)
    {
        Ok(text.to_owned())
    } else {
        Err("is no name of a ConfigMap: lower-case letters, digits and dashes".into())
    }
}

/// [`RunArgs`], checked.
pub(super) struct Checked<B: Bridge> {
    pub(super) bridge: B,
    pub(super) provider: B::Provider,
    pub(super) state: StateSettings,
    pub(super) delivery: DeliveryConfig,
    pub(super) health: HealthSettings,
    pub(super) canary: CanarySettings,
}

impl<A: Args, L: Args> RunArgs<A, L> {
    pub(super) fn check<B>(&self, problems: &mut Problems) -> Checked<B>
    where
        B: Bridge<Args = A, ProviderArgs = L>,
    {
        let bridge = B::configure(&self.bridge, problems);
        let provider = bridge.provider(&self.bridge, &self.provider, problems);
        let mut state = self.state.check(B::NAME, Timestamp::now(), problems);
        if let Some(window) = provider.window() {
            state.read_window(&window, problems);
        }
        if state.until.is_some() && !provider.has_ends() {
            problems.add(
                "until",
                "cannot be combined with what is read: it has no end",
            );
        }
        if let Some(SharedLogs { flag, .. }) = provider.shared() {
            if state.store == StoreKind::File {
                problems.add(
                    flag,
                    "needs --checkpoint-store kubernetes: replicas must share their checkpoints",
                );
            }
            if state.leader_election {
                problems.add(
                    flag,
                    "cannot be combined with --leader-election, which lets one replica read all",
                );
            }
            if state.until.is_some() {
                problems.add(flag, "cannot be combined with --until: a job reads alone");
            }
        }
        let shares = provider.shared().is_some();
        let mut canary = self.canary.check(problems);
        canary.shared = shares || provider.is_queue();
        if canary.interval.is_some() && !canary.deliver && shares {
            problems.add(
                "canary-deliver",
                "cannot be false where replicas share what is read: one that is given the event of \
                 another one's canary knows only later that it is one; leave them out at the receiver \
                 (a user agent with ` canary/`)",
            );
        }
        if canary.interval.is_some() && state.until.is_some() {
            problems.add(
                "canary-interval",
                "cannot be combined with --until: a job has an end",
            );
        }
        let mut delivery = self.delivery.check(false, problems);
        // Nothing is lost silently, even if nobody configured a dead letter.
        delivery
            .dead_letter
            .get_or_insert_with(|| state.dir.join("dead-letter.jsonl"));
        Checked {
            bridge,
            provider,
            state,
            delivery,
            health: self.health.check(B::SILENCE_MAX, problems),
            canary,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[derive(clap::Parser)]
    struct SharedLogs {
        #[command(flatten)]
        state: StateArgs,
        #[command(flatten)]
        delivery: DeliveryArgs,
        #[command(flatten)]
        health: HealthArgs,
        #[command(flatten)]
        canary: CanaryArgs,
        #[command(flatten)]
        tail: config::TailArgs,
    }

    impl SharedLogs {
        fn check(arguments: &[String]) -> String {
            let shared = SharedLogs::try_parse_from(arguments).unwrap();
            let mut problems = Problems::default();
            let now = Timestamp::UNIX_EPOCH;
            let settings = (
                shared.state.check("a-bridge", now, &mut problems),
                shared.delivery.check(true, &mut problems),
                shared
                    .health
                    .check(Some(Duration::from_secs(900)), &mut problems),
                shared.canary.check(&mut problems),
                shared.tail.check(&[10], &mut problems),
            );
            assert!(problems.is_empty(), "{arguments:?}: {problems}");
            format!("{settings:?}")
        }
    }

    /// A default is both in the help text and in the code: they must agree.
    #[test]
    fn default_in_the_help_given_as_a_value_changes_nothing() {
        let unset = SharedLogs::check(&["a".to_owned()]);
        let mut defaults = 0;
        for arg in SharedLogs::command().get_arguments() {
            let help = arg.get_help().unwrap_or_default().to_string();
            let Some((_, default)) = help.split_once("[default: ") else {
                continue;
            };
            // The rest is for people only: a special case, or how the default is derived.
            let default = default.split([';', ']']).next().unwrap();
            if default.contains(' ') {
                continue;
            }
            let given = format!("--{}={default}", arg.get_long().unwrap());
            let mut set = SharedLogs::check(&["a".to_owned(), given.clone()]);
            if arg.get_id() == "start" {
                set = set.replace("start_given: true", "start_given: false");
            }
            assert_eq!(set, unset, "{given}");
            defaults += 1;
        }
        assert!(defaults >= 21, "{defaults}");
    }

    #[test]
    fn start_or_until_against_checkpoint_is_refused_with_remedy() {
        let now = Timestamp::now();
        for (has_checkpoint, start_given, until, refused) in [
            (true, true, true, Some("leave --start out")),
            (false, false, true, Some("name it with --start")),
            (true, false, true, None),
            (false, true, true, None),
            (true, true, false, None),
            (false, false, false, None),
        ] {
            let state = StateSettings {
                dir: PathBuf::new(),
                store: StoreKind::File,
                checkpoint_interval: FILE_INTERVAL,
                name: String::new(),
                leader_election: false,
                start: Start::Latest(now),
                start_given,
                is_window_in_names: false,
                until: until.then_some(now),
                shutdown_grace: shutdown::GRACE,
            };
            match (state.check_start("a log", has_checkpoint), refused) {
                (Ok(()), None) => {}
                (Err(why), Some(part)) => assert!(why.to_string().contains(part), "{why}"),
                (other, _) => panic!("{has_checkpoint} {start_given} {until}: {other:?}"),
            }
        }
    }
}
