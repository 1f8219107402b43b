//! What a provider supplies to be read live: how to connect, which logs there are, and how each is
//! opened at a position. What is the same for all (trying again, readiness, checkpoints, the
//! pipeline) is not here: `supervise` reopens, the `run` command does the rest.

pub mod either;
pub mod partitions;
pub(crate) mod supervise;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::readiness::Unavailable;
use audit_bridge_core::source::{Position, Positions, Source};
use audit_bridge_tail::IdentityStore;
use jiff::{SignedDuration, Timestamp};

use crate::invalid_value::InvalidValue;
use crate::telemetry::Telemetry;

/// A provider's account, region or project, as configured: what `run` and `check` start from.
pub trait Provider: Send + Sync + 'static {
    /// What it reads.
    type Log: ProviderLog;

    /// Whether a job can end at a time (`--until`): not where the provider has no order of time.
    fn has_ends(&self) -> bool {
        true
    }

    /// The window of time that a flag of the provider's own asks for, as a job: instead of `--start`
    /// and `--until`. The logs' names tell it, so that the checkpoint of one window is not
    /// another's.
    fn window(&self) -> Option<JobWindow> {
        None
    }

    /// Whether replicas share its logs among them, each log read by one. Then `connect` is also asked
    /// now and then whether there are other logs.
    fn shared(&self) -> Option<SharedLogs> {
        None
    }

    /// Whether what one reader is given no other one gets: a queue, which `check` must leave alone.
    fn is_queue(&self) -> bool {
        false
    }

    /// Finds out what the configuration leaves to the environment (a region, a project) and makes
    /// the clients. Called again, with backoff and for ever, while it fails.
    ///
    /// # Errors
    /// What is missing, and what to do.
    fn connect(&self) -> impl Future<Output = Result<Vec<Self::Log>, Unavailable>> + Send;
}

/// How long the logs that come after another one ([`ProviderLog::after`]) wait while it stands still;
/// then order is given up for the trail. What holds it up may be a parked event, which is given up
/// only while others are accepted, and all others may be in the logs that wait. Longer than an event
/// is parked before that.
pub const STANDSTILL_MAX: Duration = Duration::from_secs(20 * 60);

/// What a job reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobWindow {
    /// The flag that asked for it, without its dashes.
    pub flag: &'static str,
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

/// Logs that replicas share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedLogs {
    /// The name of the whole.
    pub name: String,
    /// The flag that asked for it, without its dashes.
    pub flag: &'static str,
    /// From one look for new logs, and for those that are closed, to the next: what a log that comes
    /// after others may wait for longest.
    pub list_interval: Duration,
}

/// One log: read by one pipeline, with a checkpoint of its own.
pub trait ProviderLog: Send + Sync + 'static {
    /// Its records.
    type Source: Source;

    /// Which one it is, among all of the provider: the `source` of its checkpoint, so it never
    /// changes. A region with a log group, a project with its cluster, a hub with its consumer group.
    fn name(&self) -> &str;

    /// Annotations for its events, besides those that `--annotate` asks for.
    fn annotations(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// What to look at when no audit record arrives though the log can be read: the commands that show
    /// the provider's switch, for people.
    fn silence_remedy(&self) -> String;

    /// The position at which it begins without a checkpoint, where replicas share: written down
    /// once, by the first that starts, so that it is the same for all however late they come.
    fn beginning(&self, start: Start) -> Positions {
        let _ = start;
        Positions::default()
    }

    /// Whether `this` was reached, and lies behind `other`. A position at which a log was only meant
    /// to begin was not reached. Asked where replicas share, of two positions of one partition.
    fn is_further(&self, this: &Position, other: &Position) -> bool {
        let _ = (this, other);
        false
    }

    /// The names of logs that are read to their ends, with that end in a checkpoint, before this one
    /// begins. Asked again while they are waited for, where replicas share.
    fn after(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether the provider writes nothing more to it, so that it has an end.
    fn is_closed(&self) -> bool {
        false
    }

    /// Whether these positions say that the log is read to its end: nothing more will ever come.
    /// There may be others' positions among them.
    fn is_at_end(&self, positions: &Positions) -> bool {
        let _ = positions;
        false
    }

    /// Begins to read. A source that ends without [`Resume::until`] is opened again where it
    /// stopped, with backoff and for ever.
    ///
    /// # Errors
    /// Why it cannot be read now, and what to do.
    fn open(
        &self,
        resume: Resume,
    ) -> impl Future<Output = Result<Self::Source, Unavailable>> + Send;

    /// Reads once, to show that it can be read: for `check`. Changes nothing.
    fn check(&self) -> impl Future<Output = Vec<Finding>> + Send;
}

/// Where to begin, and what to use.
#[derive(Debug, Clone)]
pub struct Resume {
    /// Where an earlier life stopped; empty where there was none.
    pub positions: Positions,
    /// Where to begin without positions.
    pub start: Start,
    /// Where the job ends, if it does.
    pub until: Option<Timestamp>,
    /// Which reader this is, where one replaces the other: a later one's number is higher. A
    /// provider that can keep an older one out does.
    pub term: Option<i64>,
    /// A folder for what this log has seen.
    pub seen_dir: PathBuf,
    /// Where what this log has seen is kept for the next replica, if anywhere.
    pub identities: Option<Arc<dyn IdentityStore>>,
    /// Who is told how it goes: this log's place.
    pub telemetry: Telemetry,
}

/// Where to begin when there is no checkpoint: `--start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what comes from the start of the process on, at this time: a provider that cannot be
    /// reached at first must cost nothing.
    Latest(Timestamp),
    /// With the oldest that there is.
    Earliest,
    /// At this time.
    At(Timestamp),
}

impl Start {
    /// Reads `latest`, `earliest`, a time span back (`-15m`) or a time (RFC 3339).
    ///
    /// # Errors
    /// It is none of these.
    pub fn read(text: &str, now: Timestamp) -> Result<Start, InvalidValue> {
        match text {
            "latest" => Ok(Start::Latest(now)),
            "earliest" => Ok(Start::Earliest),
            _ => moment(text, now).map(Start::At).map_err(|()| {
                "is none of latest, earliest, a span back like -15m, or a time like \
                 2026-11-21T18:00:00Z"
                    .into()
            }),
        }
    }

    /// The time of it, where a log's first time is known.
    pub fn time(self, earliest: Timestamp) -> Timestamp {
        match self {
            Start::Latest(at) | Start::At(at) => at.max(earliest),
            Start::Earliest => earliest,
        }
    }
}

/// As `--start` takes it.
impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Latest(_) => f.write_str("latest"),
            Start::Earliest => f.write_str("earliest"),
            Start::At(time) => write!(f, "{time:.0}"),
        }
    }
}

/// Reads the end of a job: `now`, a time span back (`-15m`) or a time (RFC 3339).
///
/// # Errors
/// It is none of these.
pub fn until(text: &str, now: Timestamp) -> Result<Timestamp, InvalidValue> {
    match text {
        "now" => Ok(now),
        _ => moment(text, now).map_err(|()| {
            "is none of now, a span back like -15m, or a time like 2026-11-21T18:00:00Z".into()
        }),
    }
}

fn moment(text: &str, now: Timestamp) -> Result<Timestamp, ()> {
    if let Some(back) = text.strip_prefix('-') {
        let back: SignedDuration = back.parse().map_err(drop)?;
        return match back.is_negative() {
            true => Err(()),
            false => now.checked_sub(back).map_err(drop),
        };
    }
    text.parse().map_err(drop)
}

/// One line of `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `identity`, `source`.
    pub what: String,
    /// What was found, or what is wrong.
    pub result: Result<String, Unavailable>,
    /// The time on the provider's clock, where its answer says so.
    pub server_time: Option<Timestamp>,
}

impl Finding {
    /// A check that succeeded.
    pub fn ok(what: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding {
            what: what.into(),
            result: Ok(found.into()),
            server_time: None,
        }
    }

    /// A check that failed.
    pub fn failed(what: impl Into<String>, unavailable: Unavailable) -> Finding {
        Finding {
            what: what.into(),
            result: Err(unavailable),
            server_time: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_option_is_parsed_and_bounded() {
        let now: Timestamp = "2026-11-21T18:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(Start::read("latest", now), Ok(Start::Latest(now)));
        assert_eq!(Start::read("earliest", now), Ok(Start::Earliest));
        assert_eq!(
            Start::read("-15m", now),
            Ok(Start::At(at("2026-11-21T17:45:00Z")))
        );
        assert_eq!(
            Start::read("2026-11-01T00:00:00+01:00", now),
            Ok(Start::At(at("2026-10-31T23:00:00Z")))
        );
        for wrong in ["", "15m", "--15m", "-", "yesterday", "2026-11-01"] {
            assert!(Start::read(wrong, now).is_err(), "{wrong}");
        }
        assert_eq!(until("now", now), Ok(now));
        assert_eq!(until("-1h", now), Ok(at("2026-11-21T17:00:00Z")));
        assert!(until("latest", now).is_err());
    }
}
