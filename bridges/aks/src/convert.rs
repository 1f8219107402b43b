//! From a record of a diagnostic setting to an audit event.
//!
//! | the record | what becomes of it |
//! |---|---|
//! | names a category that was not chosen | skipped, `other_category` |
//! | names a cluster that was not chosen | skipped, `other_cluster` |
//! | names a chosen category | its log is an audit event, or it is rejected |
//! | names no category (a cut row), or is no diagnostic record | the content decides: an audit event is converted, what claims to be one and is not is rejected, other text is skipped, `not_audit` |
//! | came from a damaged place and is no event | rejected: it may have been one |
//! | was delivered already, out of the other category | skipped, `duplicate` |
//!
//! A record that does not say which cluster it is from is converted whichever clusters were
//! chosen: it may be one of theirs.

use std::borrow::Cow;

use audit_bridge_core::convert::{Convert, Output, RecordId, Refusal, Skip};
use audit_bridge_core::event::Event;
use audit_bridge_core::event::native::{self, Failure};
use audit_bridge_core::record::Record;
use bytes::Bytes;

use crate::twins::Twins;
use crate::wire::{self, Diagnostic, Log, Payload};

/// The categories that hold audit events.
pub const CATEGORIES: [&str; 2] = ["kube-audit", "kube-audit-admin"];

/// What the user can choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The categories to convert (`--categories`), compared without case.
    pub categories: Vec<String>,
    /// Only these clusters (`--cluster-name`), by the last segment of `resourceId`, compared
    /// without case as Azure writes it in capitals; none: all.
    pub cluster_names: Vec<String>,
    /// What is wanted of every event.
    pub native: native::Options,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            categories: CATEGORIES.map(str::to_owned).to_vec(),
            cluster_names: Vec::new(),
            native: native::Options::default(),
        }
    }
}

/// Converts records of diagnostic settings, and audit events by themselves.
#[derive(Debug, Default)]
pub struct AksConvert {
    options: Options,
    twins: Twins,
}

impl AksConvert {
    /// A converter with these options.
    pub fn new(options: Options) -> AksConvert {
        AksConvert {
            options,
            twins: Twins::default(),
        }
    }

    fn decide(&mut self, record: &Record) -> Result<Event, Refusal> {
        let payload = &record.payload;
        if payload.trim_ascii_start().first() != Some(&b'{') {
            return Err(Refusal::not_audit("not a json object"));
        }
        let text = std::str::from_utf8(payload).map_err(|error| {
            Refusal::unparsable(format!("invalid utf-8 at byte {}", error.valid_up_to()))
        })?;
        match wire::read(text).map_err(|error| Refusal::unparsable(error.to_string()))? {
            Payload::Other => Ok(self.event(payload, false, record.time)?),
            Payload::Diagnostic(diagnostic) => self.diagnostic(record, diagnostic),
        }
    }

    fn diagnostic(
        &mut self,
        record: &Record,
        diagnostic: Diagnostic<'_>,
    ) -> Result<Event, Refusal> {
        let category = match &diagnostic.category {
            None => None,
            Some(name) => Some(
                self.category(name)
                    .ok_or(Refusal::Skip(Skip::OtherCategory))?,
            ),
        };
        if !self.is_chosen_cluster(&diagnostic) {
            return Err(Refusal::Skip(Skip::OtherCluster));
        }
        let claimed = category.is_some();
        let log = match diagnostic.log {
            None if claimed => return Err(Refusal::unparsable("no properties.log")),
            None => return Err(Refusal::not_audit("no properties.log")),
            Some(Log::Undecodable(error)) => {
                return Err(Refusal::unparsable(format!("properties.log: {error}")));
            }
            Some(Log::Text(Cow::Owned(text))) => Bytes::from(text),
            Some(Log::Text(Cow::Borrowed(text))) => record.payload.slice_ref(text.as_bytes()),
            Some(Log::Json(raw)) => record.payload.slice_ref(raw.text().as_bytes()),
        };
        if !claimed && log.trim_ascii_start().first() != Some(&b'{') {
            return Err(Refusal::not_audit("properties.log is no json object"));
        }
        let event = self.event(&log, claimed, diagnostic.time.or(record.time))?;
        match category {
            Some(category)
                if self.options.categories.len() > 1 && self.twins.is_twin(category, &event) =>
            {
                Err(Refusal::Skip(Skip::Duplicate))
            }
            _ => Ok(event),
        }
    }

    /// Which of the chosen categories this is.
    fn category(&self, name: &str) -> Option<usize> {
        self.options
            .categories
            .iter()
            .position(|chosen| chosen.eq_ignore_ascii_case(name))
    }

    fn is_chosen_cluster(&self, diagnostic: &Diagnostic<'_>) -> bool {
        let chosen = &self.options.cluster_names;
        let Some(id) = &diagnostic.resource_id else {
            return true;
        };
        let name = id
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default();
        chosen.is_empty()
            || chosen
                .iter()
                .any(|cluster| cluster.eq_ignore_ascii_case(name))
    }

    fn event(
        &self,
        text: &Bytes,
        claimed: bool,
        record_time: Option<jiff::Timestamp>,
    ) -> Result<Event, Failure> {
        native::event(
            text,
            &native::Context {
                claimed,
                record_time,
                options: &self.options.native,
            },
        )
    }
}

impl Convert for AksConvert {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        let result = self.decide(record);
        out.settle(id, record, result);
    }
}

#[cfg(test)]
mod tests;
