//! A job that delivers what a stream missed: reads a window of the log groups, and leaves out the
//! events that the stream already brought.

use std::sync::Arc;

use audit_bridge_app::config::{Problems, given};
use audit_bridge_app::provider::{Finding, JobWindow, Provider, ProviderLog, Resume, Start};
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::Source as _;
use audit_bridge_tail::Tail;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::OnceCell;

use super::stream::{StreamLog, StreamProvider};
use super::{EksLog, EksProvider, EksProviderArgs};
use crate::client::LogGroup;
use crate::client::group::LogGroupName;
use crate::convert::EksConvertOptions;
use crate::source::{InStream, StreamDifference};

const CATCH_UP: &str = "catch-up";
/// An event's arrival time in the stream is later than its time in CloudWatch Logs, except for
/// clocks that differ by less than this.
const CLOCKS_DIFFER_MAX: SignedDuration = SignedDuration::from_mins(10);

/// The log groups and the stream that carries their events, as configured.
#[derive(Debug)]
pub struct CatchUp {
    groups: EksProvider,
    stream: StreamProvider,
    window: JobWindow,
    /// Loaded once, for all groups.
    in_stream: Arc<OnceCell<Arc<InStream>>>,
}

/// Checks the flags.
pub(crate) fn check(
    live: &EksProviderArgs,
    options: &EksConvertOptions,
    problems: &mut Problems,
) -> CatchUp {
    let groups = live.check(options, problems);
    let stream = live.stream.check(options, groups.access.clone(), problems);
    let text = given(live.stream.catch_up.as_deref());
    let nothing = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    let (from, until) = problems.read(CATCH_UP, text, nothing, |text| {
        let times = text.split_once(',').and_then(|(from, until)| {
            Some((from.trim().parse().ok()?, until.trim().parse().ok()?))
        });
        match times {
            Some((from, until)) if until <= from => Err("ends before it begins".into()),
            Some((_, until)) if until > Timestamp::now() => Err("ends in the future".into()),
            Some(window) => Ok(window),
            None => Err(
                "is not FROM,UNTIL, two times like 2026-11-21T18:00:00Z,2026-11-21T18:15:00Z"
                    .into(),
            ),
        }
    });
    if !live.stream.is_given() {
        problems.add(
            CATCH_UP,
            "needs --stream, whose events are not delivered again; for all of a window leave it out \
             and give --start and --until",
        );
    }
    if groups.access.unmask {
        problems.add(
            "unmask",
            "cannot be combined with --catch-up: what the stream brought is masked, so no event would \
             be the same",
        );
    }
    if stream.shared().is_some() {
        problems.add(
            CATCH_UP,
            "cannot be combined with --share-partitions: a job reads alone",
        );
    }
    CatchUp {
        groups,
        stream,
        window: JobWindow {
            flag: CATCH_UP,
            from,
            until,
        },
        in_stream: Arc::default(),
    }
}

impl Provider for CatchUp {
    type Log = CatchUpLog;

    fn window(&self) -> Option<JobWindow> {
        Some(self.window.clone())
    }

    async fn connect(&self) -> Result<Vec<CatchUpLog>, Unavailable> {
        let wanted: Arc<[LogGroupName]> = self
            .groups
            .wanted
            .iter()
            .map(|it| it.group.clone())
            .collect();
        let stream = Arc::new(self.stream.whole().await?);
        let groups = self.groups.connect().await?;
        let logs = groups.into_iter().map(|group| CatchUpLog {
            name: format!(
                "{} {CATCH_UP} {},{}",
                group.name(),
                self.window.from,
                self.window.until
            ),
            group,
            window: self.window.clone(),
            stream: Arc::clone(&stream),
            wanted: Arc::clone(&wanted),
            in_stream: Arc::clone(&self.in_stream),
        });
        Ok(logs.collect())
    }
}

/// One log group, limited to the window.
#[derive(Debug)]
pub struct CatchUpLog {
    name: String,
    group: EksLog,
    window: JobWindow,
    stream: Arc<StreamLog>,
    /// All groups of the job.
    wanted: Arc<[LogGroupName]>,
    in_stream: Arc<OnceCell<Arc<InStream>>>,
}

impl ProviderLog for CatchUpLog {
    type Source = StreamDifference<Tail<LogGroup>>;

    fn name(&self) -> &str {
        &self.name
    }

    fn annotations(&self) -> Vec<(String, String)> {
        self.group.annotations()
    }

    fn silence_remedy(&self) -> String {
        self.group.silence_remedy()
    }

    async fn open(&self, resume: Resume) -> Result<Self::Source, Unavailable> {
        let in_stream = self.in_stream.get_or_try_init(|| self.read_stream(&resume));
        let in_stream = Arc::clone(in_stream.await?);
        let group = &self.group.wanted.group;
        self.tell(group, &in_stream)?;
        let source = self.group.open(resume).await?;
        Ok(StreamDifference::new(source, group.name.clone(), in_stream))
    }

    async fn check(&self) -> Vec<Finding> {
        let (mut all, of_stream) = (self.group.check().await, self.stream.check().await);
        // The identity was already reported by the group's checks.
        all.extend(of_stream.into_iter().filter(|it| it.what != "identity"));
        all
    }
}

impl CatchUpLog {
    /// Reads what the stream has of the groups, from the window's start to the stream's newest
    /// record, because an event may have reached the stream late.
    async fn read_stream(&self, resume: &Resume) -> Result<Arc<InStream>, Unavailable> {
        let JobWindow { from, until, .. } = self.window;
        let since = from.checked_sub(CLOCKS_DIFFER_MAX).unwrap_or(from);
        let now = Timestamp::now();
        tracing::info!(stream = self.stream.name(), %since, "reading what the stream brought");
        let oldest = self.stream.oldest(now).await?;
        if since < oldest {
            tracing::warn!(
                %oldest,
                "the stream does not keep records for so long: what it brought before is delivered again"
            );
        }
        let of_stream = Resume {
            positions: [].into(),
            start: Start::At(since),
            until: Some(now),
            term: None,
            identities: None,
            ..resume.clone()
        };
        let mut source = self.stream.open(of_stream).await?;
        let mut found = InStream::new(from, until);
        let is_wanted = |account: &str, name: &str| {
            self.wanted.iter().any(|group| {
                let of_account = |place: &crate::client::group::ArnScope| place.account == account;
                group.name == name && group.place.as_ref().is_none_or(of_account)
            })
        };
        while let Some(page) = source.read().await {
            for record in &page.records {
                found.add(record, is_wanted);
            }
            if let Some(position) = &page.position {
                source.commit(page.partition, position);
            }
        }
        if found.is_full() {
            return Err(Unavailable {
                component: Component::Source,
                reason: format!(
                    "the stream brought more than {} events of this window",
                    found.len()
                ),
                remedy: format!("give --{CATCH_UP} shorter windows, one after the other"),
            });
        }
        found.finish();
        Ok(Arc::new(found))
    }

    /// Logs what the stream has of the group; fails if several accounts have a group of this name.
    fn tell(&self, group: &LogGroupName, in_stream: &InStream) -> Result<(), Unavailable> {
        let accounts = in_stream.accounts(&group.name);
        if accounts.is_empty() {
            tracing::warn!(
                group = %group,
                "the stream brought nothing of this log group in the window: all of it is delivered. \
                 Look whether the group is subscribed to it"
            );
        }
        if group.place.is_none() && accounts.len() > 1 {
            return Err(Unavailable {
                component: Component::Source,
                reason: format!(
                    "the stream brings log groups of this name of several accounts ({}): {}",
                    accounts.join(", "),
                    group.name
                ),
                remedy: "name the one to read by its ARN, with --log-group".to_owned(),
            });
        }
        tracing::info!(
            group = %group,
            events = in_stream.len(),
            "stream read; what it brought is not delivered again"
        );
        Ok(())
    }
}
