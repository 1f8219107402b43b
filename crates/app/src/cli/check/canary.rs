//! `check --canary`: one canary through the whole path, whose event this process itself reads from
//! the provider's log while a bridge may be running.
//!
//! Its only effect is that the webhook gets one event: the log is read from now on, without a
//! checkpoint, and only the canary's event is delivered. Where replicas share the logs, one of them
//! receives the event and has to record it ([`shared`]).

mod shared;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use audit_bridge_core::convert::{Convert, Outcome, Output, RecordId};
use audit_bridge_core::event::Event;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::sink::{RequestFailure, Sink as _, Verdict};
use audit_bridge_core::source::{Page, Source};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::time::{Instant, interval, sleep_until};

use super::super::Bridge;
use super::super::run_args::Checked;
use crate::canary::sender::{CanarySender, ReadyCanary};
use crate::canary::{CanaryIdentity, Leg};
use crate::config::Destination;
use crate::provider::supervise::Supervised;
use crate::provider::{Finding, Provider, ProviderLog, Resume, Start};
use crate::telemetry::Telemetry;

const WHAT: &str = "canary";
/// The time between two progress lines.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Sends one canary, waits for its event and delivers that to the webhook.
pub(super) async fn canary<B: Bridge>(checked: &Checked<B>) -> Finding {
    if checked.canary.shared {
        return match shared::run::<B>(checked).await {
            Ok(found) => Finding::ok(WHAT, found),
            Err(unavailable) => Finding::failed(WHAT, unavailable),
        };
    }
    // A folder apart from the state of a running bridge.
    let folder = checked
        .state
        .dir
        .join(format!("check-{}", std::process::id()));
    let result = run::<B>(checked, &folder).await;
    let _ = std::fs::remove_dir_all(&folder);
    match result {
        Ok(found) => Finding::ok(WHAT, found),
        Err(unavailable) => Finding::failed(WHAT, unavailable),
    }
}

/// The result when another check failed, so that no canary is sent.
pub(super) fn not_sent() -> Finding {
    let unavailable = Unavailable {
        component: Component::Source,
        reason: "not sent, as something else is wrong".to_owned(),
        remedy: "mend that first".to_owned(),
    };
    Finding::failed(WHAT, unavailable)
}

async fn run<B: Bridge>(checked: &Checked<B>, folder: &Path) -> Result<String, Unavailable> {
    let logs = checked.provider.connect().await?;
    let mut remedy = String::new();
    let mut readers = Vec::new();
    for (number, log) in logs.into_iter().enumerate() {
        remedy = log.silence_remedy();
        let mut options = checked.delivery.native.clone();
        options.annotations.extend(log.annotations());
        let converter = checked.bridge.converter(options);
        readers.push(Reader::new::<B>(
            log,
            converter,
            folder.join(number.to_string()),
        ));
    }
    let sender = CanarySender::new(B::NAME, &checked.state.name);
    let canary = sender.prepare().await.map_err(unsent)?;
    let (sent, sent_at) = (Instant::now(), Timestamp::now());
    let mut refused = None;
    if let Err(failure) = sender.send_alone(&canary).await {
        if !failure.is_audited {
            return Err(unsent(failure));
        }
        refused = Some(failure);
    }
    let wait_max = checked.canary.wait_max;
    let mut search = Search {
        canary,
        sent,
        events: 0,
        read_to: None,
    };
    let Some(event) = search.find(readers, sent + wait_max).await else {
        return Err(search.lost(sent_at, &remedy));
    };
    let read = sent.elapsed().as_secs_f64();
    let delivered = deliver(checked, &event).await.map_err(|mut unavailable| {
        unavailable.reason = format!(
            "its audit event was read after {read:.1} s, and the webhook does not take it: {}",
            unavailable.reason
        );
        unavailable
    })?;
    let seconds = sent.elapsed().as_secs_f64();
    match refused {
        None => Ok(format!("its audit event {delivered} after {seconds:.1} s")),
        Some(failure) => Err(Unavailable {
            component: Component::Source,
            reason: format!(
                "its audit event {delivered} after {seconds:.1} s, but the request is refused: {}",
                failure.why
            ),
            remedy: failure.remedy,
        }),
    }
}

fn unsent(failure: crate::canary::sender::SendFailure) -> Unavailable {
    Unavailable {
        component: Component::Source,
        reason: format!("the API server did not take the request: {}", failure.why),
        remedy: failure.remedy,
    }
}

/// Delivers the event to the webhook, if there is one; returns what was done.
async fn deliver<B: Bridge>(
    checked: &Checked<B>,
    event: &Event,
) -> Result<&'static str, Unavailable> {
    if !checked.canary.deliver || !matches!(checked.delivery.destination, Destination::Webhook(_)) {
        return Ok("was read (and is not delivered)");
    }
    let unavailable = |reason: String, remedy: Option<String>| Unavailable {
        component: Component::Webhook,
        reason,
        remedy: remedy.unwrap_or_else(|| Leg::Webhook.remedy("")),
    };
    let target = checked.delivery.destination.open();
    let target = target.map_err(|error| unavailable(error.into(), None))?;
    match target.send(std::slice::from_ref(event)).await {
        Verdict::Accepted { .. } => Ok("arrived at the webhook"),
        Verdict::Failed(RequestFailure { detail, remedy, .. }) => {
            Err(unavailable(detail, remedy.map(Into::into)))
        }
        Verdict::Broken { detail, .. } => Err(unavailable(detail, None)),
    }
}

type LogPage<L> = Page<<<L as ProviderLog>::Source as Source>::Position>;

/// Reads one log from now on.
struct Reader<L: ProviderLog, C> {
    source: Supervised<L>,
    converter: C,
    next: u64,
}

impl<L: ProviderLog, C: Convert> Reader<L, C> {
    fn new<B: Bridge>(log: L, converter: C, seen_dir: PathBuf) -> Reader<L, C> {
        let telemetry = Telemetry::new(B::NAME, env!("CARGO_PKG_VERSION")).log(log.name());
        let resume = Resume {
            positions: [].into(),
            start: Start::Latest(Timestamp::now()),
            until: None,
            term: None,
            seen_dir,
            identities: None,
            telemetry,
        };
        Reader {
            source: Supervised::new(Arc::new(log), resume),
            converter,
            next: 0,
        }
    }

    async fn read(mut self) -> (Reader<L, C>, Option<LogPage<L>>) {
        let page = self.source.read().await;
        (self, page)
    }

    /// The events of a page.
    fn events(&mut self, page: &LogPage<L>) -> Vec<Event> {
        let mut out = Output::default();
        let mut events = Vec::new();
        for record in &page.records {
            self.converter
                .convert(RecordId(self.next), record, &mut out);
            self.next += 1;
            events.extend(out.drain().filter_map(|outcome| match outcome {
                Outcome::Event { event, .. } => Some(event),
                Outcome::Skip { .. } | Outcome::Reject { .. } => None,
            }));
        }
        events
    }
}

/// The canary to find, and what was read meanwhile.
struct Search {
    canary: ReadyCanary,
    sent: Instant,
    events: u64,
    /// Up to when a log was read.
    read_to: Option<Timestamp>,
}

impl Search {
    async fn find<L: ProviderLog, C: Convert>(
        &mut self,
        readers: Vec<Reader<L, C>>,
        deadline: Instant,
    ) -> Option<Event> {
        let mut reading: FuturesUnordered<_> = readers.into_iter().map(Reader::read).collect();
        let mut tick = interval(TOLD_EVERY);
        let mut line = ProgressLine::default();
        loop {
            tokio::select! {
                Some((mut reader, page)) = reading.next() => {
                    let Some(page) = page else { continue };
                    self.read_to = self.read_to.max(page.read_to.map(|it| it.time));
                    let events = reader.events(&page);
                    self.events += events.len() as u64;
                    let ReadyCanary { mark, expected, .. } = &self.canary;
                    let is_it = |event: &Event| expected.identify(event.text(), mark) == CanaryIdentity::Complete;
                    if let Some(event) = events.into_iter().find(is_it) {
                        line.end();
                        return Some(event);
                    }
                    reading.push(reader.read());
                }
                _ = tick.tick() => line.tell(self.sent.elapsed(), Some(self.events)),
                () = sleep_until(deadline) => {
                    line.end();
                    return None;
                }
            }
        }
    }

    fn lost(&self, sent_at: Timestamp, source: &str) -> Unavailable {
        let leg = match (self.events, self.read_to >= Some(sent_at)) {
            (0, false) => Leg::SourceUnread,
            (0, true) => Leg::SourceSilent,
            (_, _) => Leg::SourceWithoutIt,
        };
        let (seconds, events) = (self.sent.elapsed().as_secs(), self.events);
        Unavailable {
            component: Component::Source,
            reason: format!(
                "its audit event has not come within {seconds} s (events read meanwhile: {events}): {}",
                leg.what()
            ),
            remedy: leg.remedy(source),
        }
    }
}

/// On a terminal a line that is overwritten; elsewhere a new line at intervals.
#[derive(Default)]
struct ProgressLine {
    is_open: bool,
}

impl ProgressLine {
    fn tell(&mut self, waited: Duration, events: Option<u64>) {
        let mut out = std::io::stderr();
        let seconds = waited.as_secs();
        let read = events.map_or_else(String::new, |events| format!(", events read: {events}"));
        let text = format!("waiting for the canary: {seconds} s{read}");
        // Nobody may be reading standard error.
        let _ = match out.is_terminal() {
            true => {
                self.is_open = true;
                write!(out, "\r{text}")
            }
            false => writeln!(out, "{text}"),
        };
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let _ = writeln!(std::io::stderr());
        }
    }
}
