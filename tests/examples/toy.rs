//! A minimal fourth bridge, whose log is a list of lines in memory. It has its own skip and reject
//! reason, flags and dump shape, and no file under `crates/` knows it.
//! `tests/tests/fourth_bridge.rs` fails when that breaks.
//!
//! A line is `{"toy": X}`: an audit event if X is an object, chatter if it is a string, smudged if
//! it is a number.

use std::borrow::Cow;
use std::future::pending;
use std::process::ExitCode;
use std::sync::Arc;

use audit_bridge_app::cli::{self, Bridge};
use audit_bridge_app::config::{Problems, count};
use audit_bridge_app::provider::{Finding, Provider, ProviderLog, Resume};
use audit_bridge_core::convert::{Convert, Output, RecordId, Refusal, Reject, Skip};
use audit_bridge_core::event::Event;
use audit_bridge_core::event::conformance::{self, EventOptions};
use audit_bridge_core::event::json::{Raw, Scanner, ValueKind};
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::source::{Page, Source, StoredPosition};
use audit_bridge_replay::dump::{Dump, PieceContext, RecordError, Role, Shape, Splitter};

/// The line is chatter.
const CHATTER: Skip = Skip::new("chatter");
/// The line is unreadable.
const SMUDGED: Reject = Reject::new("smudged");

const LOG: &str = "toy:memory";

fn main() -> ExitCode {
    cli::main::<Toy>()
}

/// No flags for `replay`.
#[derive(Debug, Clone, clap::Args)]
struct Args {}

/// The flags of `run` and `check`.
#[derive(Debug, Clone, clap::Args)]
struct ProviderArgs {
    /// How many events the log holds, with a line of chatter after each
    #[arg(long, value_name = "N")]
    events: Option<String>,
}

struct Toy;

impl Bridge for Toy {
    const NAME: &'static str = "toy-audit-bridge";
    const ABOUT: &'static str = "Delivers audit events out of memory";
    const PROVIDER: &'static str = "toy";
    type Args = Args;
    type ProviderArgs = ProviderArgs;
    type Provider = Memory;

    fn configure(_: &Args, _: &mut Problems) -> Toy {
        Toy
    }

    fn provider(&self, _: &Args, args: &ProviderArgs, problems: &mut Problems) -> Memory {
        Memory(problems.read("events", args.events.as_deref(), 1, count))
    }

    fn dump() -> Arc<dyn Dump> {
        Arc::new(ToyDump)
    }

    fn converter(&self, options: EventOptions) -> impl Convert + 'static {
        ToyConvert(options)
    }
}

/// The provider: the number of events in its log.
struct Memory(usize);

impl Provider for Memory {
    type Log = MemoryLog;

    fn has_ends(&self) -> bool {
        false
    }

    async fn connect(&self) -> Result<Vec<MemoryLog>, Unavailable> {
        Ok(vec![MemoryLog(self.0)])
    }
}

struct MemoryLog(usize);

impl ProviderLog for MemoryLog {
    type Source = Lines;

    fn name(&self) -> &str {
        LOG
    }

    fn silence_remedy(&self) -> String {
        "say something".to_owned()
    }

    async fn open(&self, resume: Resume) -> Result<Lines, Unavailable> {
        resume.telemetry.ready(Component::Source);
        let mut lines = vec![r#"{"toy":7}"#.to_owned()];
        for n in 0..self.0 {
            lines.push(format!(
                r#"{{"toy":{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"toy-{n}","stage":"ResponseComplete","stageTimestamp":"2026-11-29T10:00:00.000000Z","requestURI":"/","verb":"get","user":{{"username":"u"}}}}}}"#
            ));
            lines.push(r#"{"toy":"hello"}"#.to_owned());
        }
        let position = resume.positions.get(&0).and_then(StoredPosition::as_u64);
        let next = position.map_or(0, |next| usize::try_from(next).unwrap_or(usize::MAX));
        Ok(Lines { lines, next })
    }

    async fn check(&self) -> Vec<Finding> {
        vec![Finding::ok("source", "memory can be read")]
    }
}

/// The remaining lines, one per page.
struct Lines {
    lines: Vec<String>,
    next: usize,
}

impl Source for Lines {
    type Position = u64;

    async fn read(&mut self) -> Option<Page<u64>> {
        let Some(line) = self.lines.get(self.next).cloned() else {
            return pending().await;
        };
        self.next += 1;
        let origin = Origin::Stream {
            stream: LOG.into(),
            id: self.next.to_string(),
        };
        Some(Page {
            records: vec![Record::new(line, origin)],
            position: Some(self.next as u64),
            ..Page::default()
        })
    }
}

struct ToyConvert(EventOptions);

impl Convert for ToyConvert {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        let result = record.with_text(|payload, text, _| -> Result<Event, Refusal> {
            let said = said(text).ok_or_else(|| Refusal::not_audit("nothing of ours"))?;
            match said.kind() {
                ValueKind::String => Err(Refusal::Skip(CHATTER)),
                _ => {
                    let event = payload.slice_ref(said.text().as_bytes());
                    Ok(conformance::event(&event, &self.0.context())?)
                }
            }
        });
        match result {
            Err(Refusal::Failure(failure)) => out.reject(id, SMUDGED, failure.to_string()),
            result => out.settle(id, record, result),
        }
    }
}

/// The value of `toy`.
fn said(text: &str) -> Option<Raw<'_>> {
    let mut scanner = Scanner::new(text);
    scanner.open_object().ok()?;
    (scanner.key().ok()??.as_ref() == "toy").then_some(())?;
    scanner.value().ok()
}

struct ToyDump;

impl Dump for ToyDump {
    fn shapes(&self) -> &'static [Shape] {
        &[Shape {
            name: "toys",
            about: "lines of the toy",
            json: true,
        }]
    }

    fn role(&self, key: &str) -> Role {
        match key {
            "toy" => Role::Record,
            _ => Role::Neutral,
        }
    }

    fn record<'a>(&self, piece: Raw<'a>, _: &PieceContext) -> Result<Cow<'a, str>, RecordError> {
        Ok(Cow::Borrowed(piece.text()))
    }

    fn recognises(&self, _: Raw<'_>) -> bool {
        false
    }

    fn text_split(&self, _: Option<&str>, _: &str) -> Option<Box<dyn Splitter>> {
        None
    }
}
