//! What the flags choose: log groups that are queried, or a stream that subscriptions feed.

use std::time::Duration;

use audit_bridge_app::config::Problems;
use audit_bridge_app::provider::{Finding, Provider, ProviderLog, Resume, SharedLogs, Start};
use audit_bridge_core::readiness::Unavailable;
use audit_bridge_core::source::{Page, Position, Positions, Source};
use audit_bridge_tail::Tail;

use super::stream::{StreamLog, StreamProvider};
use super::{EksLog, EksProvider, EksProviderArgs};
use crate::client::LogGroup;
use crate::convert::EksConvertOptions;
use crate::source::StreamSource;

/// What is read.
#[derive(Debug)]
pub enum Mode {
    /// Log groups, by `FilterLogEvents`.
    Groups(Box<EksProvider>),
    /// `--stream`.
    Stream(Box<StreamProvider>),
}

impl Mode {
    /// Checks the flags of the one that they choose.
    pub(crate) fn check(
        live: &EksProviderArgs,
        options: &EksConvertOptions,
        problems: &mut Problems,
    ) -> Mode {
        match live.stream.is_given() {
            true => {
                let access = live.stream_access(problems);
                Mode::Stream(Box::new(live.stream.check(access, problems)))
            }
            false => {
                live.stream.check_absent(problems);
                Mode::Groups(Box::new(live.check(options, problems)))
            }
        }
    }
}

impl Provider for Mode {
    type Log = Log;

    fn shared(&self) -> Option<SharedLogs> {
        match self {
            Mode::Groups(groups) => groups.shared(),
            Mode::Stream(stream) => stream.shared(),
        }
    }

    async fn connect(&self) -> Result<Vec<Log>, Unavailable> {
        Ok(match self {
            Mode::Groups(groups) => {
                let logs = groups.connect().await?.into_iter();
                logs.map(|log| Log::Group(Box::new(log))).collect()
            }
            Mode::Stream(stream) => {
                let logs = stream.connect().await?.into_iter();
                logs.map(Log::Stream).collect()
            }
        })
    }
}

/// A log group, a stream, or a shard of one.
#[derive(Debug)]
pub enum Log {
    /// A log group.
    Group(Box<EksLog>),
    /// A stream, or a shard of it.
    Stream(StreamLog),
}

impl ProviderLog for Log {
    type Source = Reading;

    fn name(&self) -> &str {
        match self {
            Log::Group(log) => log.name(),
            Log::Stream(log) => log.name(),
        }
    }

    fn annotations(&self) -> Vec<(String, String)> {
        match self {
            Log::Group(log) => log.annotations(),
            Log::Stream(log) => log.annotations(),
        }
    }

    fn silence_remedy(&self) -> String {
        match self {
            Log::Group(log) => log.silence_remedy(),
            Log::Stream(log) => log.silence_remedy(),
        }
    }

    fn beginning(&self, start: Start) -> Positions {
        match self {
            Log::Group(log) => log.beginning(start),
            Log::Stream(log) => log.beginning(start),
        }
    }

    fn is_further(&self, this: &Position, other: &Position) -> bool {
        match self {
            Log::Group(log) => log.is_further(this, other),
            Log::Stream(log) => log.is_further(this, other),
        }
    }

    fn after(&self) -> Vec<String> {
        match self {
            Log::Group(log) => log.after(),
            Log::Stream(log) => log.after(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Log::Group(log) => log.is_closed(),
            Log::Stream(log) => log.is_closed(),
        }
    }

    fn is_at_end(&self, positions: &Positions) -> bool {
        match self {
            Log::Group(log) => log.is_at_end(positions),
            Log::Stream(log) => log.is_at_end(positions),
        }
    }

    fn checkpoint_interval_max(&self) -> Duration {
        match self {
            Log::Group(log) => log.checkpoint_interval_max(),
            Log::Stream(log) => log.checkpoint_interval_max(),
        }
    }

    async fn open(&self, resume: Resume) -> Result<Reading, Unavailable> {
        Ok(match self {
            Log::Group(log) => Reading::Group(Box::new(log.open(resume).await?)),
            Log::Stream(log) => Reading::Stream(log.open(resume).await?),
        })
    }

    async fn check(&self) -> Vec<Finding> {
        match self {
            Log::Group(log) => log.check().await,
            Log::Stream(log) => log.check().await,
        }
    }
}

/// One of them, open.
pub enum Reading {
    /// A log group.
    Group(Box<Tail<LogGroup>>),
    /// A stream, or a shard of it.
    Stream(StreamSource),
}

impl Source for Reading {
    async fn read(&mut self) -> Option<Page> {
        match self {
            Reading::Group(source) => source.read().await,
            Reading::Stream(source) => source.read().await,
        }
    }

    fn commit(&mut self, partition: u32, position: &Position) {
        match self {
            Reading::Group(source) => source.commit(partition, position),
            Reading::Stream(source) => source.commit(partition, position),
        }
    }

    async fn close(&mut self) {
        match self {
            Reading::Group(source) => source.close().await,
            Reading::Stream(source) => source.close().await,
        }
    }
}
