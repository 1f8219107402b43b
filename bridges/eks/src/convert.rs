//! Converts CloudWatch events to audit events.
//!
//! | the record | result |
//! |---|---|
//! | names the log group of a cluster that is not wanted | skipped, `other_cluster` |
//! | names a stream that is not the audit log's | skipped, `other_stream` |
//! | CloudWatch's control message | skipped, `control_message` |
//! | names an audit stream | its message is an audit event, or it is rejected |
//! | names no stream, or is no CloudWatch event | depends on its content: an audit event is converted, what looks like one but is invalid is rejected, other text is skipped, `not_audit` |
//! | came from a damaged place and is no event | rejected, as it may have been one, unless it is a whole log line of another component |

pub(crate) mod component;

use audit_bridge_core::convert::{Convert, Output, RecordId, Refusal, Skip};
use audit_bridge_core::event::embedded::Embedded;
use audit_bridge_core::event::{Event, conformance};
use audit_bridge_core::record::Record;
use bytes::Bytes;

use crate::client::cluster::{ClusterName, cluster_of};
use crate::wire::{self, EksPayload, LogEvent, packed};

/// The record is of another stream of the group: authenticator, scheduler, …
const OTHER_STREAM: Skip = Skip::new("other_stream");
/// The record is CloudWatch's own control message, which tests the destination.
const CONTROL_MESSAGE: Skip = Skip::new("control_message");

/// How the names of the audit log's streams begin (Amazon EKS User Guide).
pub(crate) const STREAM_PREFIX: &str = "kube-apiserver-audit-";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EksConvertOptions {
    /// How the names of the audit log's streams begin (`--log-stream-prefix`).
    pub stream_prefix: String,
    /// Keeps only these clusters' records among those that name their log group (`--cluster-name`);
    /// empty means all.
    pub clusters: Vec<ClusterName>,
    /// Annotates events of records that name their log group with the cluster
    /// (`--annotate-cluster`).
    pub annotate_cluster: bool,
    /// Options for every event.
    pub native: conformance::EventOptions,
}

impl Default for EksConvertOptions {
    fn default() -> EksConvertOptions {
        EksConvertOptions {
            stream_prefix: STREAM_PREFIX.to_owned(),
            clusters: Vec::new(),
            annotate_cluster: false,
            native: conformance::EventOptions::default(),
        }
    }
}

/// Converts CloudWatch events, and bare audit events.
#[derive(Debug, Clone, Default)]
pub struct EksConvert {
    options: EksConvertOptions,
    /// Cache: the last group and account, and the options for their events.
    annotated: Option<Annotated>,
}

#[derive(Debug, Clone)]
struct Annotated {
    group: String,
    account: Option<String>,
    wanted: conformance::EventOptions,
}

/// The annotation that names the account of an event's cluster (`--annotate-cluster`), if the
/// record tells it.
pub const ACCOUNT: &str = "audit-bridge/account";

impl EksConvert {
    /// A converter with these options.
    pub fn new(options: EksConvertOptions) -> EksConvert {
        EksConvert {
            options,
            annotated: None,
        }
    }

    fn decide(&mut self, record: &Record) -> Result<Event, Refusal> {
        let payload = &record.payload;
        if payload.trim_ascii_start().first() != Some(&b'{') {
            return Err(refuse_text(payload));
        }
        record.with_text(|payload, text, replaced| {
            match wire::read(text).map_err(|error| Refusal::unparsable(error.to_string()))? {
                // Converts the record's own bytes: they may end inside a character.
                EksPayload::Other => {
                    let options = &self.options.native;
                    let made = options.event(&record.payload, false, record.time);
                    made.map_err(|failure| match packed::fault(text) {
                        Some(why) if record.damaged => Refusal::unparsable(why),
                        _ => failure.into(),
                    })
                }
                EksPayload::CloudWatch(mut event) => {
                    event.replaced |= replaced;
                    self.log_event(record, payload, event)
                }
            }
        })
    }

    fn log_event(
        &mut self,
        record: &Record,
        payload: &Bytes,
        event: LogEvent<'_>,
    ) -> Result<Event, Refusal> {
        if let Some(group) = &event.group
            && !event.control
            && !self.options.wants(event.account.as_deref(), group)
        {
            return Err(Refusal::Skip(Skip::OTHER_CLUSTER));
        }
        let claimed = match &event.stream {
            Some(stream) if stream.starts_with(&self.options.stream_prefix) => true,
            Some(_) => return Err(Refusal::Skip(OTHER_STREAM)),
            None => false,
        };
        if event.control {
            return Err(Refusal::Skip(CONTROL_MESSAGE));
        }
        let message = match event.message {
            None if claimed => return Err(Refusal::unparsable("no message")),
            None => return Err(Refusal::not_audit("no message")),
            Some(Embedded::Text(text)) if !claimed && text.starts_with(wire::CONTROL_TEXT) => {
                return Err(Refusal::Skip(CONTROL_MESSAGE));
            }
            Some(message) => message.into_bytes(payload),
        };
        if !claimed && message.trim_ascii_start().first() != Some(&b'{') {
            return Err(refuse_text(&message));
        }
        let group = event.group.as_deref();
        let wanted = wanted(
            &self.options,
            &mut self.annotated,
            group,
            event.account.as_deref(),
        );
        let context = conformance::EventContext {
            claimed,
            replaced: event.replaced,
            record_time: event.time.or(record.time),
            ..wanted.context()
        };
        Ok(conformance::event(&message, &context)?)
    }
}

impl EksConvertOptions {
    fn wants(&self, account: Option<&str>, group: &str) -> bool {
        let clusters = &self.clusters;
        clusters.is_empty() || clusters.iter().any(|it| it.has(account, group))
    }
}

/// The options for the events of a group.
fn wanted<'a>(
    options: &'a EksConvertOptions,
    annotated: &'a mut Option<Annotated>,
    group: Option<&str>,
    account: Option<&str>,
) -> &'a conformance::EventOptions {
    let Some(group) = group.filter(|_| options.annotate_cluster) else {
        return &options.native;
    };
    let is_same = |it: &Annotated| it.group == group && it.account.as_deref() == account;
    let known = annotated.take().filter(is_same);
    let annotated = annotated.insert(known.unwrap_or_else(|| {
        let mut wanted = options.native.clone();
        let cluster = cluster_of(group).unwrap_or(group);
        let said = [(conformance::CLUSTER, Some(cluster)), (ACCOUNT, account)];
        wanted.annotations.extend(
            said.into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))),
        );
        Annotated {
            group: group.to_owned(),
            account: account.map(str::to_owned),
            wanted,
        }
    }));
    &annotated.wanted
}

impl Convert for EksConvert {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        let result = self.decide(record);
        out.settle(id, record, result);
    }

    fn fork(&self) -> Option<Box<dyn Convert>> {
        Some(Box::new(self.clone()))
    }
}

/// Refuses text that is no JSON object. Between the events of a dump, a log line of another
/// component looks damaged to the reader although it is whole; it is skipped, as it is no audit
/// event.
fn refuse_text(text: &[u8]) -> Refusal {
    match std::str::from_utf8(text) {
        Ok(text) if component::is_log_line(text.trim_ascii_start()) => {
            Refusal::Skip(Skip::NOT_AUDIT)
        }
        _ => Refusal::not_audit("neither an audit event nor a log line of another component"),
    }
}

#[cfg(test)]
mod tests;
