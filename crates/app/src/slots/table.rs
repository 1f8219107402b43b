//! Which log has which slot: the document, and what may be done to it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The version of the document that this release reads and writes.
const VERSION: u32 = 1;

/// Which log has which slot, and which logs are read to their ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotTable {
    slots: BTreeMap<usize, String>,
    ended: BTreeSet<String>,
    slots_max: Option<usize>,
    members_max: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    slots: BTreeMap<usize, String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    ended: BTreeSet<String>,
}

/// What is wrong with a table.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error("is no table of version {VERSION} ({0})")]
    Json(#[from] serde_json::Error),
    #[error("is of version {0}")]
    Version(u32),
    #[error("gives a log two slots")]
    TwoSlots,
}

impl SlotTable {
    /// Reads a document.
    ///
    /// # Errors
    /// It is none, or another release's.
    pub(super) fn parse(text: &str) -> Result<SlotTable, TableError> {
        let document: Document = serde_json::from_str(text)?;
        if document.version != VERSION {
            return Err(TableError::Version(document.version));
        }
        let logs: BTreeSet<&String> = document.slots.values().collect();
        if logs.len() < document.slots.len() {
            return Err(TableError::TwoSlots);
        }
        Ok(SlotTable {
            slots: document.slots,
            ended: document.ended,
            ..SlotTable::default()
        })
    }

    pub(super) fn to_text(&self) -> String {
        let document = Document {
            version: VERSION,
            slots: self.slots.clone(),
            ended: self.ended.clone(),
        };
        // Maps with integer keys and texts cannot fail to serialise.
        serde_json::to_string(&document).unwrap_or_default()
    }

    pub(super) fn with_limits(self, slots: Option<usize>, members: Option<usize>) -> SlotTable {
        SlotTable {
            slots_max: slots,
            members_max: members,
            ..self
        }
    }

    /// How many slots there are; `None`: as many as are needed.
    pub fn slots_max(&self) -> Option<usize> {
        self.slots_max
    }

    /// How many member Leases there are; `None`: as many as are needed.
    pub fn members_max(&self) -> Option<usize> {
        self.members_max
    }

    /// The slot of a log.
    pub fn slot(&self, log: &str) -> Option<usize> {
        let mut all = self.slots.iter();
        all.find_map(|(&slot, of)| (of == log).then_some(slot))
    }

    /// Whether a log is read to its end.
    pub fn is_ended(&self, log: &str) -> bool {
        self.ended.contains(log)
    }

    /// The logs that are read to their ends.
    pub fn ended(&self) -> impl Iterator<Item = &String> {
        self.ended.iter()
    }

    /// All logs of which the table says something.
    pub(super) fn logs(&self) -> impl Iterator<Item = &String> {
        self.slots.values().chain(&self.ended)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.ended.is_empty()
    }

    /// Gives a log a slot, the lowest that is free, unless it has one. `None`: all are taken.
    pub fn assign(&mut self, log: &str) -> Option<usize> {
        if let Some(slot) = self.slot(log) {
            return Some(slot);
        }
        let mut all = 0..self.slots_max.unwrap_or(usize::MAX);
        let free = all.find(|slot| !self.slots.contains_key(slot))?;
        self.slots.insert(free, log.to_owned());
        Some(free)
    }

    /// A log is read to its end: it needs no slot any more.
    pub(super) fn end(&mut self, log: &str) {
        self.slots.retain(|_, of| of != log);
        self.ended.insert(log.to_owned());
    }

    /// A log no longer exists, or begins anew.
    pub(super) fn forget(&mut self, log: &str) {
        self.slots.retain(|_, of| of != log);
        self.ended.remove(log);
    }

    /// A slot contains this log's document.
    pub(super) fn restore(&mut self, slot: usize, log: String) {
        self.slots.insert(slot, log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_table_written_is_read_back_and_damage_is_told() {
        let mut table = SlotTable::default();
        assert_eq!(table.assign("a"), Some(0));
        assert_eq!(table.assign("b"), Some(1));
        assert_eq!(table.assign("a"), Some(0), "it has one");
        table.end("a");
        assert!(table.is_ended("a") && table.slot("a").is_none());
        assert_eq!(table.assign("c"), Some(0), "the lowest that is free");
        assert_eq!(SlotTable::parse(&table.to_text()).unwrap(), table);
        table.forget("b");
        assert_eq!(table.slot("b"), None);
        for (text, part) in [
            ("", "no table"),
            (r#"{"version":2,"slots":{}}"#, "version 2"),
            (r#"{"version":1,"slots":{"x":"a"}}"#, "no table"),
            (r#"{"version":1,"slots":{"0":"a","1":"a"}}"#, "two slots"),
        ] {
            let found = SlotTable::parse(text).unwrap_err();
            assert!(found.to_string().contains(part), "{text}: {found}");
        }
    }

    #[test]
    fn slot_table_full_gives_no_slot_until_one_is_free() {
        let mut table = SlotTable::default().with_limits(Some(2), None);
        assert_eq!(
            ["a", "b", "c"].map(|log| table.assign(log)),
            [Some(0), Some(1), None]
        );
        table.end("b");
        assert_eq!(table.assign("c"), Some(1));
        // A log whose slot is beyond a lowered limit keeps it, because its position is there.
        let mut lowered = table.with_limits(Some(1), None);
        assert_eq!(lowered.assign("c"), Some(1));
    }
}
