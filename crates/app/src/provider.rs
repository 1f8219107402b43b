//! What a bridge supplies for live reading: how to connect, which logs exist, and how to open each
//! at a position. Common parts (retries, readiness, checkpoints, the pipeline) are elsewhere:
//! `supervise` reopens sources, the `run` command does the rest.

pub mod either;
pub mod partitions;
pub(crate) mod supervise;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::readiness::Unavailable;
use audit_bridge_core::source::{Source, StoredPosition, StoredPositions};
use audit_bridge_tail::IdentityStore;
use jiff::{SignedDuration, Timestamp};

use crate::invalid_value::InvalidValue;
use crate::telemetry::Telemetry;

/// A provider's account, region or project as configured, from which `run` and `check` start.
pub trait Provider: Send + Sync + 'static {
    type Log: ProviderLog;

    /// Whether a job can end at a time (`--until`): false if the provider does not order records by
    /// time.
    fn has_ends(&self) -> bool {
        true
    }

    /// The window of time that one of the provider's own flags requests as a job, instead of
    /// `--start` and `--until`. The logs' names contain the window, so that checkpoints of
    /// different windows stay apart.
    fn window(&self) -> Option<JobWindow> {
        None
    }

    /// Set if replicas share its logs, each log read by one replica. Then `connect` is also called
    /// at intervals to find new logs.
    fn shared(&self) -> Option<SharedLogs> {
        None
    }

    /// Whether a record that one reader receives is lost to others: a queue, which `check` must not
    /// read.
    fn is_queue(&self) -> bool {
        false
    }

    /// Finds out what the configuration leaves to the environment (a region, a project) and creates
    /// the clients. On failure it is called again, with backoff and for ever.
    ///
    /// # Errors
    /// What is missing, and what to do.
    fn connect(&self) -> impl Future<Output = Result<Vec<Self::Log>, Unavailable>> + Send;
}

/// How long the logs that come after another one ([`ProviderLog::after`]) wait while it stands still.
/// Then the order is given up, so that reading goes on: the parent may have a parked event, which is
/// given up only while other events are accepted, and all others may be in the logs that wait.
/// Longer than the minimum time for which an event is parked.
pub const STANDSTILL_MAX: Duration = Duration::from_secs(20 * 60);

/// The window of time that a job reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobWindow {
    /// The flag that requested it, without its dashes.
    pub flag: &'static str,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Logs that replicas share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedLogs {
    /// The name of the shared logs as a whole.
    pub name: String,
    /// The flag that requested sharing, without its dashes.
    pub flag: &'static str,
    /// The time between two lists of new and closed logs: the longest wait of a log that comes
    /// after others.
    pub list_interval: Duration,
}

/// One log, which one pipeline reads and which has its own checkpoint.
pub trait ProviderLog: Send + Sync + 'static {
    type Source: Source;

    /// The log's unique and stable name within the provider, which is the `source` of its
    /// checkpoint: a region with a log group, a project with its cluster, a hub with its consumer
    /// group.
    fn name(&self) -> &str;

    /// Annotations for its events in addition to those of `--annotate`.
    fn annotations(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// What to check when no audit record arrives though the log can be read: the commands that
    /// show the provider's switch, for people.
    fn silence_remedy(&self) -> String;

    /// Where the log begins without a checkpoint, if replicas share logs. The first replica that
    /// starts stores it, so that it is the same for all replicas, however late they start.
    fn beginning(&self, start: Start) -> StoredPositions {
        let _ = start;
        StoredPositions::default()
    }

    /// Whether `this` position was reached and is further than `other`. A configured beginning was
    /// not reached. Called for two positions of one partition, if replicas share logs.
    fn is_further(&self, this: &StoredPosition, other: &StoredPosition) -> bool {
        let _ = (this, other);
        false
    }

    /// The names of logs that must be read to their ends, with that end in a checkpoint, before
    /// this one begins. Called again while replicas wait for them.
    fn after(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether the provider no longer writes to it, so that it has an end.
    fn is_closed(&self) -> bool {
        false
    }

    /// Whether these positions say that the log is read to its end, so that nothing more will come.
    /// They may include positions of other logs.
    fn is_at_end(&self, positions: &StoredPositions) -> bool {
        let _ = positions;
        false
    }

    /// Opens the log for reading. A source that ends without [`Resume::until`] is reopened where it
    /// stopped, with backoff and for ever.
    ///
    /// # Errors
    /// Why it cannot be read now, and what to do.
    fn open(
        &self,
        resume: Resume,
    ) -> impl Future<Output = Result<Self::Source, Unavailable>> + Send;

    /// Reads once to show that the log can be read, for `check`. Changes nothing.
    fn check(&self) -> impl Future<Output = Vec<Finding>> + Send;
}

/// Where to begin, and what to use.
#[derive(Debug, Clone)]
pub struct Resume {
    /// Where an earlier run stopped; empty if there was none.
    pub positions: StoredPositions,
    /// Where to begin without positions.
    pub start: Start,
    /// Where the job ends, if it does.
    pub until: Option<Timestamp>,
    /// The number of this reader, if readers replace each other: a later one's is higher. A
    /// provider that can exclude an older reader does so.
    pub term: Option<i64>,
    /// A folder for the identities of records that were seen.
    pub seen_dir: PathBuf,
    /// Where those identities are stored for the next replica, if anywhere.
    pub identities: Option<Arc<dyn IdentityStore>>,
    /// The telemetry of this log.
    pub telemetry: Telemetry,
}

/// Where to begin without a checkpoint: `--start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With records since the process started, at this time: nothing is lost if the provider cannot
    /// be reached at first.
    Latest(Timestamp),
    /// With the oldest available record.
    Earliest,
    /// At this time.
    At(Timestamp),
}

impl Start {
    /// Parses `latest`, `earliest`, a time span back (`-15m`) or a time (RFC 3339).
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

    /// The time to begin at, given the log's earliest time.
    pub fn time(self, earliest: Timestamp) -> Timestamp {
        match self {
            Start::Latest(at) | Start::At(at) => at.max(earliest),
            Start::Earliest => earliest,
        }
    }
}

/// In the form that `--start` accepts.
impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Latest(_) => f.write_str("latest"),
            Start::Earliest => f.write_str("earliest"),
            Start::At(time) => write!(f, "{time:.0}"),
        }
    }
}

/// Parses the end of a job: `now`, a time span back (`-15m`) or a time (RFC 3339).
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
    /// What was checked: `identity`, `source`.
    pub what: String,
    /// What was found, or what is wrong.
    pub result: Result<String, Unavailable>,
    /// The time on the provider's clock, if its answer has one.
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
