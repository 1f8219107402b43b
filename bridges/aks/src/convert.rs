//! Converts records of diagnostic settings to audit events.
//!
//! | the record | result |
//! |---|---|
//! | names a category that was not chosen | skipped, `other_category` |
//! | names a cluster that was not chosen | skipped, `other_cluster` |
//! | names a chosen category | its log is an audit event, or it is rejected |
//! | names no category (a cut row), or is no diagnostic record | depends on its content: an audit event is converted, what looks like one but is invalid is rejected, other text is skipped, `not_audit` |
//! | came from a damaged place and is no event | rejected, as it may have been one |
//! | was already delivered from the other category | skipped, `duplicate` |
//!
//! A record that names no cluster is converted whichever clusters were chosen, as it may be of one
//! of them.

mod category_deduplicator;

use std::sync::{Arc, Mutex, PoisonError};

use audit_bridge_core::convert::{Convert, Output, RecordId, Refusal, Skip};
use audit_bridge_core::event::{Event, conformance};
use audit_bridge_core::record::Record;
use bytes::Bytes;

use crate::client::cluster::{self, ClusterSelector};
use crate::convert::category_deduplicator::CategoryDeduplicator;
use crate::wire::{self, AksPayload, Diagnostic};

/// The record is of another category of the same event hub.
const OTHER_CATEGORY: Skip = Skip::new("other_category");
/// The event was already delivered from another of the provider's logs.
const DUPLICATE: Skip = Skip::new("duplicate");

/// The categories that hold audit events.
pub(crate) const CATEGORIES: [&str; 2] = ["kube-audit", "kube-audit-admin"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AksConvertOptions {
    /// The categories to convert (`--categories`), compared without case.
    pub categories: Vec<String>,
    /// Keeps only these clusters' records (`--cluster-name`), by `resourceId`; empty means all.
    pub clusters: Vec<ClusterSelector>,
    /// Annotates each event with its cluster's resource ID (`--annotate-cluster`): in the spelling
    /// of `clusters`, else of the record.
    pub annotate_cluster: bool,
    /// Options for every event.
    pub native: conformance::EventOptions,
}

impl Default for AksConvertOptions {
    fn default() -> AksConvertOptions {
        AksConvertOptions {
            categories: CATEGORIES.map(str::to_owned).to_vec(),
            clusters: Vec::new(),
            annotate_cluster: false,
            native: conformance::EventOptions::default(),
        }
    }
}

/// Converts records of diagnostic settings, and bare audit events.
#[derive(Debug, Clone, Default)]
pub struct AksConvert {
    options: AksConvertOptions,
    /// Shared by all forks.
    deduplicator: Arc<Mutex<CategoryDeduplicator>>,
    /// Cache: the last cluster, and the options for its events.
    annotated: Option<(String, conformance::EventOptions)>,
}

impl AksConvert {
    /// A converter with these options.
    pub fn new(options: AksConvertOptions) -> AksConvert {
        AksConvert {
            options,
            deduplicator: Arc::default(),
            annotated: None,
        }
    }

    fn decide(&mut self, record: &Record) -> Result<Event, Refusal> {
        let payload = &record.payload;
        if payload.trim_ascii_start().first() != Some(&b'{') {
            return Err(Refusal::not_audit("not a json object"));
        }
        record.with_text(|payload, text, replaced| {
            match wire::read(text).map_err(|error| Refusal::unparsable(error.to_string()))? {
                // Converts the record's own bytes: they may end inside a character.
                AksPayload::Other => {
                    let options = &self.options.native;
                    Ok(options.event(&record.payload, false, record.time)?)
                }
                AksPayload::Diagnostic(mut diagnostic) => {
                    diagnostic.replaced |= replaced;
                    self.diagnostic(record, payload, diagnostic)
                }
            }
        })
    }

    fn diagnostic(
        &mut self,
        record: &Record,
        payload: &Bytes,
        diagnostic: Diagnostic<'_>,
    ) -> Result<Event, Refusal> {
        let category = match &diagnostic.category {
            None => None,
            Some(name) => Some(self.category(name).ok_or(Refusal::Skip(OTHER_CATEGORY))?),
        };
        let cluster = diagnostic.resource_id.as_deref();
        let chosen = cluster.and_then(|id| cluster::chosen(&self.options.clusters, id));
        if cluster.is_some() && chosen.is_none() {
            return Err(Refusal::Skip(Skip::OTHER_CLUSTER));
        }
        let claimed = category.is_some();
        let log = match diagnostic.log {
            None if claimed => return Err(Refusal::unparsable("no properties.log")),
            None => return Err(Refusal::not_audit("no properties.log")),
            Some(log) => log.into_bytes(payload),
        };
        if !claimed && log.trim_ascii_start().first() != Some(&b'{') {
            return Err(Refusal::not_audit("properties.log is no json object"));
        }
        let wanted = wanted(&self.options, &mut self.annotated, chosen);
        let context = conformance::EventContext {
            claimed,
            replaced: diagnostic.replaced,
            record_time: diagnostic.time.or(record.time),
            ..wanted.context()
        };
        let event = conformance::event(&log, &context)?;
        let Some(category) = category.filter(|_| self.options.categories.len() > 1) else {
            return Ok(event);
        };
        let deduplicator = self.deduplicator.lock();
        let mut deduplicator = deduplicator.unwrap_or_else(PoisonError::into_inner);
        match deduplicator.is_duplicate(category, cluster, &log, event.truncated()) {
            true => Err(Refusal::Skip(DUPLICATE)),
            false => Ok(event),
        }
    }

    /// The index of this category among the chosen ones.
    fn category(&self, name: &str) -> Option<usize> {
        self.options
            .categories
            .iter()
            .position(|chosen| chosen.eq_ignore_ascii_case(name))
    }
}

/// The options for the events of a cluster.
fn wanted<'a>(
    options: &'a AksConvertOptions,
    annotated: &'a mut Option<(String, conformance::EventOptions)>,
    cluster: Option<&str>,
) -> &'a conformance::EventOptions {
    let Some(cluster) = cluster.filter(|_| options.annotate_cluster) else {
        return &options.native;
    };
    let known = annotated.take().filter(|(name, _)| name == cluster);
    let (_, wanted) = annotated.insert(known.unwrap_or_else(|| {
        let mut wanted = options.native.clone();
        let annotation = (conformance::CLUSTER.to_owned(), cluster.to_owned());
        wanted.annotations.push(annotation);
        (cluster.to_owned(), wanted)
    }));
    wanted
}

impl Convert for AksConvert {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        let result = self.decide(record);
        out.settle(id, record, result);
    }

    fn fork(&self) -> Option<Box<dyn Convert>> {
        Some(Box::new(self.clone()))
    }
}

#[cfg(test)]
mod tests;
