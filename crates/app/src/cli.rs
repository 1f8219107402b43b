//! The command line that all bridges share: parse, check, build, run, exit status.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::env::VarError;
use std::ffi::OsStr;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::convert::Convert;
use audit_bridge_core::event::conformance;
use audit_bridge_replay::dump::Dump;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::config::{self, LogArgs, LogFormat, Problems};
use crate::fatal::Fatal;
use crate::provider::Provider;

mod canary_args;
mod check;
mod health_args;
mod replay;
mod run;
mod run_args;

/// The default log filter: the Kubernetes client would repeat each failure that we log ourselves.
const LOG_DEFAULT: &str = "info,kube_client=off";

/// Exit status: done.
const DONE: u8 = 0;
/// Exit status: something failed.
const FAILED: u8 = 1;
/// Exit status: usage or configuration.
const USAGE: u8 = 2;
/// Exit status: a replay finished, but some records are in the dead letter.
const DEAD_LETTERS: u8 = 3;

/// One provider: what a bridge's `main` hands to [`main`].
pub trait Bridge: Sized + Send + 'static {
    const NAME: &'static str;
    /// A one-line description.
    const ABOUT: &'static str;
    /// The provider's name in the dead letter and the checkpoint: `eks`, `gke`, `aks`.
    const PROVIDER: &'static str;
    /// Log filter for its client library unless `RUST_LOG` names it, as comma-separated `NAME=LEVEL`:
    /// silences what we log ourselves, and what holds secrets.
    const LOG_FILTER: &'static str = "";
    /// The default of `--silence-max`: on most providers the API server of a running cluster writes
    /// audit events every second.
    const SILENCE_MAX: Option<Duration> = Some(Duration::from_secs(15 * 60));
    /// The flags that only this provider has.
    type Args: Args + Clone;
    /// The flags that only `run` and `check` have in addition.
    type ProviderArgs: Args + Clone;
    /// The provider of live logs.
    type Provider: Provider;

    /// Checks the flags and reports everything that is wrong with them.
    fn configure(args: &Self::Args, problems: &mut Problems) -> Self;

    /// Checks the flags of `run` and `check`, and reports everything that is wrong with them.
    fn provider(
        &self,
        args: &Self::Args,
        provider: &Self::ProviderArgs,
        problems: &mut Problems,
    ) -> Self::Provider;

    /// The shapes of the provider's dumps.
    fn dump() -> Arc<dyn Dump>;

    /// The converter of the provider's records.
    fn converter(&self, options: conformance::EventOptions) -> impl Convert + 'static;
}

#[derive(Debug, Parser)]
#[command(version, disable_version_flag = true, subcommand_required = true)]
struct Cli<A: Args, L: Args> {
    #[command(subcommand)]
    command: Command<A, L>,
}

#[derive(Debug, Subcommand)]
enum Command<A: Args, L: Args> {
    /// Tail the provider's log and deliver, until stopped
    Run(Box<run_args::RunArgs<A, L>>),
    /// Convert and deliver saved dumps: files, folders, - for standard input
    Replay(Box<replay::ReplayArgs<A>>),
    /// Look whether all is in place: identity, source, state, webhook, clock
    Check(Box<check::CheckArgs<A, L>>),
    /// Print the version
    Version(VersionArgs),
}

#[derive(Debug, Args)]
struct VersionArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The whole program.
pub fn main<B: Bridge>() -> ExitCode {
    let parsed = command::<B>()
        .try_get_matches()
        .and_then(|matches| Cli::<B::Args, B::ProviderArgs>::from_arg_matches(&matches));
    let status = match parsed {
        Ok(Cli {
            command: Command::Run(args),
        }) => run::run::<B>(&args),
        Ok(Cli {
            command: Command::Check(args),
        }) => check::check::<B>(&args),
        Ok(Cli {
            command: Command::Replay(args),
        }) => replay::replay::<B>(&args),
        Ok(Cli {
            command: Command::Version(args),
        }) => version::<B>(&args),
        Err(error) => {
            let problems = match error.kind() {
                ErrorKind::InvalidUtf8 => variables_not_text::<B>(),
                _ => Problems::default(),
            };
            if problems.is_empty() {
                let _ = error.print();
                if error.use_stderr() { USAGE } else { DONE }
            } else {
                usage(&problems)
            }
        }
    };
    ExitCode::from(status)
}

fn command<B: Bridge>() -> clap::Command {
    Cli::<B::Args, B::ProviderArgs>::command()
        .name(B::NAME)
        .bin_name(B::NAME)
        .about(B::ABOUT)
        .mut_subcommand("replay", |replay| replay.after_help(shapes::<B>()))
        .mut_subcommands(|command| command.mut_args(complete))
}

/// Completes an option with what all options have in common.
///
/// An option with a value can also be set by its environment variable, whose value is never shown
/// because it may be a secret. A boolean option may be given without a value.
fn complete(arg: Arg) -> Arg {
    let flag = arg.get_long().filter(|_| arg.get_action().takes_values());
    let Some(variable) = flag.map(config::variable) else {
        return arg;
    };
    let is_bool = arg.get_value_names().is_some_and(|names| names == ["BOOL"]);
    let arg = arg.env(variable).hide_env_values(true);
    // clap refuses an empty path, and an empty variable counts as unset.
    let arg = match is_path(&arg) {
        true => arg.value_parser(OsStringValueParser::new().map(PathBuf::from)),
        false => arg,
    };
    match is_bool {
        true => arg.num_args(0..=1).default_missing_value("true"),
        false => arg,
    }
}

fn is_path(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<PathBuf>()
}

/// The variables of options that are not UTF-8, which clap does not name.
fn variables_not_text<B: Bridge>() -> Problems {
    let command = command::<B>();
    let args = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments);
    let flags: BTreeSet<&str> = args
        .filter(|arg| !is_path(arg) && arg.get_env().is_some_and(is_not_text))
        .filter_map(Arg::get_long)
        .collect();
    let mut problems = Problems::default();
    for flag in flags {
        problems.add(flag, "the variable is not UTF-8");
    }
    problems
}

fn is_not_text(variable: &OsStr) -> bool {
    matches!(std::env::var(variable), Err(VarError::NotUnicode(_)))
}

/// Lists the names that `--shape` accepts.
fn shapes<B: Bridge>() -> String {
    let dump = B::dump();
    let lines = dump
        .shapes()
        .iter()
        .map(|shape| format!("\n  {:<28}{}", shape.name, shape.about));
    format!("Shapes, told by content:{}", lines.collect::<String>())
}

fn version<B: Bridge>(args: &VersionArgs) -> u8 {
    let version = env!("CARGO_PKG_VERSION");
    let line = if args.json {
        serde_json::json!({"name": B::NAME, "version": version}).to_string()
    } else {
        format!("{} {version}", B::NAME)
    };
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => DONE,
        Err(_) => FAILED,
    }
}

/// Creates the runtime of the commands.
fn runtime() -> Result<Runtime, Fatal> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime does not start: {error}").into())
}

/// Prints what is wrong with the configuration.
fn usage(problems: &Problems) -> u8 {
    let _ = write!(std::io::stderr(), "error: {problems}");
    USAGE
}

/// Sends log lines to standard error; `RUST_LOG` selects them.
fn init_logging<B: Bridge>(args: &LogArgs, problems: &mut Problems) {
    let terminal = std::io::stderr().is_terminal();
    let format = args.format(terminal, problems);
    // Of two directives for the same target, the last one counts: what a client library would log of
    // secrets is silenced unless it is named.
    let given = std::env::var(tracing_subscriber::EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let filter =
        tracing_subscriber::EnvFilter::new(format!("{LOG_DEFAULT},{},{given}", B::LOG_FILTER));
    let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false);
    // A second subscriber (in tests) is not an error.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
