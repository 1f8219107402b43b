//! Converts a `LogEntry` to an `audit.k8s.io/v1` Event.
//!
//! First it selects the entries that are Kubernetes audit; each other one is skipped with a reason.
//! Then it writes the event's JSON directly, with the fields in the API server's order. Pure: the
//! same record gives the same event, live or from a dump.

mod event;
mod level;
mod method;
mod split;
mod stamp;
mod status;
mod uri;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use audit_bridge_core::convert::{Convert, Output, RecordId, Records, Reject, Skip};
use audit_bridge_core::event::conformance::{self, EventError, GivenUp};
use audit_bridge_core::event::{Event, json};
use audit_bridge_core::record::Record;
use bytes::Bytes;
use memchr::memmem;

use self::event::{Facts, Stage};
use self::method::Request;
use self::split::{Added, PendingSplits, SplitEntry, SplitPart};
use crate::wire::Entry;
use crate::wire::object::Object;

/// Another log of the project.
const OTHER_LOG: Skip = Skip::new("other_log");
/// Another service's audit log.
const OTHER_SERVICE: Skip = Skip::new("other_service");
/// A monitored resource that is no cluster.
const OTHER_RESOURCE: Skip = Skip::new("other_resource");
/// A Data Access entry, which the user did not select.
const DATA_ACCESS_DISABLED: Skip = Skip::new("data_access_disabled");
/// Parts of a split log entry whose first part never came.
const INCOMPLETE_SPLIT: Reject = Reject::new("incomplete_split");

/// The type of an audit log's payload.
const AUDIT_LOG: &str = "type.googleapis.com/google.cloud.audit.AuditLog";
/// Some tools write one in front of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// The service whose audit log is Kubernetes' own.
const SERVICE: &str = "k8s.io";
/// The monitored resource of a cluster's entries.
const RESOURCE: &str = "k8s_cluster";

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GkeConvertOptions {
    /// Convert Data Access entries too (`--include-data-access`).
    pub include_data_access: bool,
    /// What is derived where Google's entry does not say it (`--derive`).
    pub derive: Derive,
    /// Say in each event which cluster it is of (`--annotate-cluster`): by its full name, as the
    /// GKE API has it (`projects/P/locations/L/clusters/C`).
    pub annotate_cluster: bool,
    /// What is asked of all events.
    pub native: conformance::EventOptions,
    /// Only entries of this project (`resource.labels.project_id`).
    pub project: Option<String>,
    /// Only entries of this cluster (`resource.labels.cluster_name`).
    pub cluster: Option<String>,
    /// Only entries of clusters in this location (`resource.labels.location`).
    pub location: Option<String>,
}

/// What is derived by Kubernetes' rules rather than read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derive {
    /// `user.groups` of service accounts, nodes and the anonymous user.
    pub groups: bool,
    /// The part of `requestURI`'s query that the entry implies.
    pub query: bool,
    /// A `ResponseStarted` event for an exec, attach or port-forward that came as one entry, whatever
    /// the answer: detection rules wait for that stage.
    pub started: bool,
}

impl Derive {
    /// Nothing: only what the entry says.
    pub const NONE: Derive = Derive {
        groups: false,
        query: false,
        started: false,
    };
}

impl Default for Derive {
    fn default() -> Derive {
        Derive {
            groups: true,
            query: true,
            started: true,
        }
    }
}

impl FromStr for Derive {
    type Err = DeriveError;

    /// `none`, or some of `groups,query,started`.
    fn from_str(text: &str) -> Result<Derive, DeriveError> {
        let mut derive = Derive::NONE;
        if text.trim() == "none" {
            return Ok(derive);
        }
        for word in text.split(',') {
            match word.trim() {
                "groups" => derive.groups = true,
                "query" => derive.query = true,
                "started" => derive.started = true,
                other => return Err(DeriveError(other.to_owned())),
            }
        }
        Ok(derive)
    }
}

impl fmt::Display for Derive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            ("groups", self.groups),
            ("query", self.query),
            ("started", self.started),
        ];
        let words: Vec<_> = words.iter().filter(|word| word.1).map(|w| w.0).collect();
        match words.as_slice() {
            [] => f.write_str("none"),
            words => f.write_str(&words.join(",")),
        }
    }
}

/// A word that `--derive` does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeriveError(String);

impl fmt::Display for DeriveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not one of groups, query, started, none", self.0)
    }
}

impl std::error::Error for DeriveError {}

/// Converts Cloud Logging entries.
#[derive(Debug, Default)]
pub struct GkeConvert {
    options: GkeConvertOptions,
    held: PendingSplits,
    /// Leaves parts of split entries to the converter that this is a fork of, where all parts meet.
    leaves_parts: bool,
}

impl GkeConvert {
    /// A converter that holds nothing yet.
    pub fn new(options: GkeConvertOptions) -> GkeConvert {
        GkeConvert {
            options,
            ..GkeConvert::default()
        }
    }

    /// Decides about an entry that has been read.
    fn entry(&mut self, id: RecordId, record: &Record, entry: &Entry<'_>, out: &mut Output) {
        let selected = match select(entry, &self.options) {
            Ok(selected) => selected,
            Err(Skip::NOT_AUDIT) if record.damaged => {
                return out.reject(id, Reject::UNPARSABLE, "no audit log entry");
            }
            Err(reason) => return out.skip(id, reason),
        };
        let facts = match Facts::of(entry, selected.request()) {
            Ok(facts) => facts,
            Err(error) => return out.reject(id, Reject::UNPARSABLE, error.to_string()),
        };
        match SplitPart::of(entry.split.as_ref()) {
            SplitPart::Whole => self.emit(id.into(), &facts, out),
            SplitPart::Stray { first: true } => self.emit(id.into(), &facts.incomplete(), out),
            SplitPart::Stray { first: false } => out.reject(
                id,
                INCOMPLETE_SPLIT,
                "part of a split entry that does not say which",
            ),
            SplitPart::Part { .. } if self.leaves_parts => {}
            SplitPart::Part { uid, index, total } => {
                // Central logging brings entries of several projects together.
                let log = entry.log_name.as_deref().unwrap_or_default();
                let uid = format!("{uid} of {log}");
                match self.held.add((&uid, index, total), id, &record.payload) {
                    Added::Held => {}
                    Added::Complete(group) => self.join(group, out),
                    Added::Contradicts => out.reject(
                        id,
                        INCOMPLETE_SPLIT,
                        format!(
                            "split entry {uid}: part {index} came before with another text, so one \
                             of the two is forged"
                        ),
                    ),
                }
                while let Some(group) = self.held.pop_surplus() {
                    self.give_up(group, "no room to wait for the others", out);
                }
            }
        }
    }

    /// Emits the event of a split entry with all or some of its parts.
    fn join(&self, mut group: SplitEntry, out: &mut Output) {
        let records = std::mem::take(&mut group.records);
        let texts: Vec<Cow<'_, str>> = group.parts().map(|part| text_of(part)).collect();
        let mut entries = Vec::with_capacity(texts.len());
        for text in &texts {
            let mut entry = Entry::default();
            // All of them were read before they were held.
            let _ = entry.read(text);
            entries.push(entry);
        }
        let payloads = || entries.iter().filter_map(|entry| entry.payload.as_ref());
        let request = merged(payloads().filter_map(|payload| payload.request.as_ref()?.raw()));
        let response = merged(payloads().filter_map(|payload| payload.response.as_ref()?.raw()));
        let Some(mut entry) = entries.into_iter().next() else {
            return;
        };
        if let Some(payload) = &mut entry.payload {
            payload.request = request.as_deref().and_then(Object::parse);
            payload.response = response.as_deref().and_then(Object::parse);
        }
        self.emit_selected(records.into(), &entry, group.is_whole(), out);
    }

    /// Gives up waiting for missing parts. With the first part, those that came make the event. All
    /// of their content is kept: parts go astray when several replicas read one subscription, and
    /// the author of a large object decides what is in which part.
    fn give_up(&self, group: SplitEntry, why: &str, out: &mut Output) {
        if group.first().is_some() {
            return self.join(group, out);
        }
        let error = format!("{}, not the first; {why}", group.describe());
        for id in group.records {
            out.reject(id, INCOMPLETE_SPLIT, error.clone());
        }
    }

    /// Emits an entry that was selected before it was held.
    fn emit_selected(&self, records: Records, entry: &Entry<'_>, is_whole: bool, out: &mut Output) {
        let selected = select(entry, &self.options).ok();
        let facts = selected
            .as_ref()
            .and_then(|selected| Facts::of(entry, selected.request()).ok());
        match (facts, is_whole) {
            (Some(facts), true) => self.emit(records, &facts, out),
            (Some(facts), false) => self.emit(records, &facts.incomplete(), out),
            (None, _) => {
                for &id in records.iter() {
                    out.reject(id, Reject::UNPARSABLE, "the parts make no audit log entry");
                }
            }
        }
    }

    /// What is wanted of an event.
    fn wanted(&self, facts: &Facts<'_>) -> Cow<'_, conformance::EventOptions> {
        let annotated = self.options.annotate_cluster.then(|| facts.cluster());
        let Some(cluster) = annotated.flatten() else {
            return Cow::Borrowed(&self.options.native);
        };
        let mut wanted = self.options.native.clone();
        let annotation = (conformance::CLUSTER.to_owned(), cluster);
        wanted.annotations.push(annotation);
        Cow::Owned(wanted)
    }

    fn emit(&self, records: Records, facts: &Facts<'_>, out: &mut Output) {
        let stage = facts.stage();
        let wanted = self.wanted(facts);
        let made = |stage: Stage| -> Result<Event, EventError> {
            let context = conformance::EventContext {
                claimed: true,
                replaced: facts.replaced(),
                given_up: facts.truncated().then_some(GivenUp::ProviderObjects),
                ..wanted.context()
            };
            facts.compose(stage, &self.options).event(&context)
        };
        let event = match made(stage) {
            Ok(event) => event,
            Err(error) => {
                let reason = match error {
                    EventError::TooLarge { .. } => Reject::TOO_LARGE,
                    _ => Reject::UNPARSABLE,
                };
                for &id in records.iter() {
                    out.reject(id, reason, error.to_string());
                }
                return;
            }
        };
        if self.options.derive.started
            && stage == Stage::Complete
            && facts.is_whole_session()
            && let Ok(twin) = made(Stage::Started)
        {
            out.joined(records.clone(), twin);
        }
        out.joined(records, event);
    }
}

impl Convert for GkeConvert {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        record.with_text(|_, text, replaced| {
            let mut entry = Entry::default();
            let read = entry.read(text.trim_start_matches(BYTE_ORDER_MARK));
            entry.replaced |= replaced;
            if entry.native && entry.payload.is_none() && entry.log_name.is_none() {
                // Converts the record's own bytes: they may end inside a character.
                let mark = BYTE_ORDER_MARK.len_utf8();
                let bytes = match text.starts_with(BYTE_ORDER_MARK) {
                    true => record.payload.slice(mark..),
                    false => record.payload.clone(),
                };
                let options = &self.options.native;
                let event = options.event(&bytes, record.damaged, record.time);
                return out.settle(id, record, event);
            }
            match read {
                Ok(()) => self.entry(id, record, &entry, out),
                Err(error) => no_entry(id, record, error.to_string(), out),
            }
        });
    }

    fn fork(&self) -> Option<Box<dyn Convert>> {
        Some(Box::new(GkeConvert {
            leaves_parts: true,
            ..GkeConvert::new(self.options.clone())
        }))
    }

    fn is_holding(&self, id: RecordId) -> bool {
        self.held.holds(id)
    }

    fn overdue(&mut self, now: Duration, out: &mut Output) {
        while let Some(group) = self.held.overdue(now) {
            let why = format!("waited {} s for the others", split::WAIT_MAX.as_secs());
            self.give_up(group, &why, out);
        }
    }

    fn finish(&mut self, out: &mut Output) {
        while let Some(group) = self.held.oldest() {
            self.give_up(group, "no more records follow", out);
        }
    }
}

/// The names that identify the request of a Kubernetes audit entry of the selected clusters, or the
/// reason to skip the entry.
///
/// A missing member (whoever saved the entry may have cut it) counts as a match if method and
/// resource name are Kubernetes' and nothing contradicts. An entry whose service is Kubernetes is
/// taken whatever its other members are.
fn select<'a>(entry: &'a Entry<'_>, options: &GkeConvertOptions) -> Result<Selected<'a>, Skip> {
    let Some(payload) = &entry.payload else {
        return Err(Skip::NOT_AUDIT);
    };
    let mut missing = None;
    match payload.type_url.as_deref() {
        Some(AUDIT_LOG) => {}
        Some(_) => return Err(Skip::NOT_AUDIT),
        None => missing = missing.or(Some(Skip::NOT_AUDIT)),
    }
    match entry.log_name.as_deref() {
        Some(name) => match Log::of(name) {
            Some(Log::Activity) => {}
            Some(Log::DataAccess) if options.include_data_access => {}
            Some(Log::DataAccess) => return Err(DATA_ACCESS_DISABLED),
            None => return Err(OTHER_LOG),
        },
        None => missing = missing.or(Some(OTHER_LOG)),
    }
    match payload.service_name.as_deref() {
        Some(SERVICE) => {}
        Some(_) => return Err(OTHER_SERVICE),
        None => missing = missing.or(Some(OTHER_SERVICE)),
    }
    match entry.resource.kind.as_deref() {
        Some(RESOURCE) => {}
        Some(_) => return Err(OTHER_RESOURCE),
        None => missing = missing.or(Some(OTHER_RESOURCE)),
    }
    let differs = |want: &Option<String>, is: &Option<Cow<'_, str>>| match (want, is) {
        (Some(want), Some(is)) => want != is,
        _ => false,
    };
    let labels = &entry.resource;
    if differs(&options.project, &labels.project_id)
        || differs(&options.cluster, &labels.cluster_name)
        || differs(&options.location, &labels.location)
    {
        return Err(Skip::OTHER_CLUSTER);
    }
    let (method, resource_name) = payload.names();
    let producer = entry.operation.producer.as_deref();
    let produced = producer == Some(SERVICE);
    let named = payload.service_name.is_some();
    if let Some(reason) = missing
        && !named
        && !(produced && entry.resource.kind.is_some())
    {
        let request = Request::parse(&method, &resource_name);
        let contradicts = producer.is_some() && !produced;
        let ours = |request: Request<'_>| (request.anchored || produced) && !contradicts;
        if resource_name.is_empty() || !request.is_some_and(ours) {
            return Err(reason);
        }
    }
    Ok(Selected {
        method,
        resource_name,
    })
}

/// The names that tell the request of an entry.
#[derive(Debug)]
struct Selected<'a> {
    method: Cow<'a, str>,
    resource_name: Cow<'a, str>,
}

impl Selected<'_> {
    fn request(&self) -> Request<'_> {
        Request::parse(&self.method, &self.resource_name)
            .unwrap_or_else(|| Request::guess(&self.method, &self.resource_name))
    }
}

/// The audit logs that carry Kubernetes' requests.
enum Log {
    Activity,
    DataAccess,
}

impl Log {
    /// By its name, whose slash some clients decode.
    fn of(name: &str) -> Option<Log> {
        let (log, rest) = match name.strip_suffix("activity") {
            Some(rest) => (Log::Activity, rest),
            None => (Log::DataAccess, name.strip_suffix("data_access")?),
        };
        let rest = ["%2F", "/", "%2f"]
            .into_iter()
            .find_map(|slash| rest.strip_suffix(slash))?;
        rest.ends_with("/cloudaudit.googleapis.com").then_some(log)
    }
}

/// A record that is no JSON object.
fn no_entry(id: RecordId, record: &Record, error: String, out: &mut Output) {
    if record.damaged || claims(&record.payload) {
        out.reject(id, Reject::UNPARSABLE, error);
    } else {
        out.skip(id, Skip::NOT_AUDIT);
    }
}

/// Whether a text was meant to be an audit entry or event.
fn claims(payload: &[u8]) -> bool {
    [
        &b"protoPayload"[..],
        b"cloudaudit.googleapis.com",
        b"AuditPayload",
        b"auditID",
    ]
    .iter()
    .any(|word| memmem::find(payload, word).is_some())
}

/// The text of a part, which was found to be one before it was held.
fn text_of(part: &Bytes) -> Cow<'_, str> {
    match json::replace_invalid(part) {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_start_matches(BYTE_ORDER_MARK)),
        Cow::Owned(text) => Cow::Owned(text.trim_start_matches(BYTE_ORDER_MARK).to_owned()),
    }
}

/// The value that these parts make; `None` when there is none.
fn merged<'a>(parts: impl Iterator<Item = json::Raw<'a>>) -> Option<String> {
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        return None;
    }
    let mut out = String::new();
    split::merge(&mut out, &parts);
    Some(out)
}

#[cfg(test)]
mod tests;
