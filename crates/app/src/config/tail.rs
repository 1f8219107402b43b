//! The flags of a log that is queried by time, shared by EKS and GKE.

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_tail::{
    Limiter, LoadedIdentities, ResumeError, SystemClock, Tail, TailSettings, TimeLog,
};
use clap::Args;
use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::{Problems, duration, given, split_list};
use crate::provider::Resume;

/// How often the log is read, and how far back again.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tail")]
pub struct TailArgs {
    /// Between two looks at the newest records [default: 5s]
    #[arg(long, value_name = "SPAN")]
    poll_interval: Option<String>,
    /// Read again what is so old, for records that came late; the oldest is how late a record may be
    #[arg(long, value_name = "LIST")]
    revisit_after: Option<String>,
}

/// [`TailArgs`], checked.
#[derive(Debug, Clone)]
pub struct TailFlags {
    poll_interval: Duration,
    revisit_after: Vec<Duration>,
}

impl TailArgs {
    /// The flags, and whether each was given.
    pub fn given(&self) -> [(&'static str, bool); 2] {
        [
            ("poll-interval", &self.poll_interval),
            ("revisit-after", &self.revisit_after),
        ]
        .map(|(flag, value)| (flag, given(value.as_deref()).is_some()))
    }

    /// Checks the flags; `revisit_after` is the default of that flag, in seconds.
    pub fn check(&self, revisit_after: &[u64], problems: &mut Problems) -> TailFlags {
        let default = revisit_after.iter().copied().map(Duration::from_secs);
        TailFlags {
            poll_interval: problems.read(
                "poll-interval",
                self.poll_interval.as_deref(),
                Duration::from_secs(5),
                duration,
            ),
            revisit_after: problems.read(
                "revisit-after",
                self.revisit_after.as_deref(),
                default.collect(),
                |text| split_list(text).map(|word| duration(&word)).collect(),
            ),
        }
    }
}

impl TailFlags {
    /// The oldest age, which is how late a record may be.
    pub fn oldest_age(&self) -> Duration {
        self.revisit_after.iter().copied().max().unwrap_or_default()
    }

    /// Resumes the tail of this log. `earliest` is the oldest time for which the log can hold
    /// records.
    ///
    /// # Errors
    /// The checkpoint's positions are not a tail's.
    pub async fn open<L: TimeLog>(
        &self,
        log: L,
        resume: Resume,
        earliest: Timestamp,
        limiter: Arc<Limiter>,
    ) -> Result<Tail<L>, Unavailable> {
        let identities = match resume.identities {
            Some(store) => Some(LoadedIdentities::load(store).await),
            None => None,
        };
        let settings = TailSettings {
            poll_interval: self.poll_interval,
            revisit_after: self.revisit_after.clone(),
            start: resume.start.time(earliest),
            until: resume.until,
            seen_dir: Some(resume.seen_dir),
            identities,
            observer: Some(Arc::new(resume.telemetry)),
            ..TailSettings::default()
        };
        let clock = Arc::new(SystemClock);
        let positions = resume.positions;
        // Opening reads the identities that an earlier run left on disk.
        let opened = spawn_blocking(move || Tail::new(log, settings, &positions, limiter, clock));
        let opened = opened.await.map_err(|error| Unavailable {
            component: Component::Source,
            reason: format!("the tail of the log could not be opened: {error}"),
            remedy: "please report this".to_owned(),
        })?;
        opened.map_err(|error| bad_position(&error))
    }
}
/// The error for a checkpoint whose position is not a tail's.
pub fn bad_position(error: &ResumeError) -> Unavailable {
    Unavailable {
        component: Component::Checkpoint,
        reason: error.to_string(),
        remedy: "restore the checkpoint, or move it away to begin at --start".to_owned(),
    }
}
