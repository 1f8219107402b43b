//! Finds the records of a message in Azure Monitor's own form, in one pass.

use audit_bridge_core::event::json::{Error, Scanner};
use audit_bridge_replay::dump::{Dump as _, Role};
use bytes::Bytes;

use crate::dump::AksDump;

/// The records of exactly `{"records":[{…},…]}`. `None` for any other text: it is left to the dump
/// reader, which finds records in every shape.
pub(super) fn of_plain(body: &Bytes) -> Option<Vec<Bytes>> {
    let text = std::str::from_utf8(body).ok()?;
    let records = read(text).ok().flatten()?;
    // A slice would keep the whole message in memory, but the budget counts only the record.
    let copy = |record: &str| Bytes::copy_from_slice(record.as_bytes());
    Some(records.into_iter().map(copy).collect())
}

fn read(text: &str) -> Result<Option<Vec<&str>>, Error> {
    let mut scanner = Scanner::new(text);
    scanner.open_object()?;
    if scanner.key()?.as_deref() != Some("records") {
        return Ok(None);
    }
    scanner.open_array()?;
    let mut records = Vec::new();
    while scanner.element()? {
        let record = scanner.value()?.text();
        if !is_record(record) {
            return Ok(None);
        }
        records.push(record);
    }
    let is_all = scanner.key()?.is_none();
    scanner.end()?;
    Ok(is_all.then_some(records))
}

/// Whether one of its first members, in Azure's order, identifies it as a record.
fn is_record(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    let mut is_known = || -> Result<bool, Error> {
        scanner.open_object()?;
        while let Some(key) = scanner.key()? {
            if AksDump.role(&key) == Role::Record {
                return Ok(true);
            }
            scanner.value()?;
        }
        Ok(false)
    };
    is_known().unwrap_or(false)
}
