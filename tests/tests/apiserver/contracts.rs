//! The contracts by which a delivered event may differ from the one that the API server sent to its
//! own webhook, each named and counted. Any other difference is a defect.

use std::collections::{BTreeMap, BTreeSet};

use audit_bridge_tests::leaves::{Difference, Leaves};

/// The defaults of `--event-bytes-max` and `--event-depth-max`.
const EVENT_BYTES_MAX: usize = 250 << 10;
const DEPTH_MAX: usize = 250;

/// The log's line has them, the item of a webhook's list does not.
pub(crate) const KIND: &str = "kind and apiVersion are told";
/// Invalid UTF-8 and lone surrogates are replaced.
pub(crate) const ENCODING: &str = "what is no unicode is replaced";
/// Of duplicate keys the last is kept.
pub(crate) const DOUBLES: &str = "a key that stands twice stands once";
/// Containers below the depth limit are emptied.
pub(crate) const DEPTH: &str = "what is nested too deep is emptied";
/// Members of an event that is too large are shortened.
pub(crate) const SIZE: &str = "what is too large is shortened";
/// Members after the provider's cut are missing.
pub(crate) const CUT: &str = "what the provider cut is missing";

const MARK: &str = "/annotations/audit.k8s.io~1truncated";
const NOTE: &str = "/annotations/audit-bridge~1shortened";

/// An event in its three versions.
pub(crate) struct Case<'a> {
    /// The line in the API server's log.
    pub(crate) line: &'a [u8],
    /// The event that the API server sent to its webhook.
    pub(crate) native: &'a Leaves,
    /// The event that we deliver.
    pub(crate) ours: &'a Leaves,
    /// The size of our event in bytes.
    pub(crate) bytes: usize,
    /// Where the provider cut the line, if it did.
    pub(crate) cut: Option<Cut>,
}

/// A provider's cut.
pub(crate) struct Cut {
    /// The members that are complete before the cut.
    whole: BTreeSet<String>,
}

impl Cut {
    /// A line that was cut at this byte.
    pub(crate) fn at(line: &[u8], cut: usize) -> Cut {
        let ends = member_ends(line).into_iter();
        Cut {
            whole: ends
                .filter(|(_, end)| *end <= cut)
                .map(|(name, _)| name)
                .collect(),
        }
    }

    fn is_behind(&self, member: &str) -> bool {
        !self.whole.contains(member)
    }
}

impl Case<'_> {
    /// The contracts that explain all differences, or a difference that none explains.
    pub(crate) fn contracts(&self) -> Result<Vec<&'static str>, String> {
        let (native, ours) = (self.native, self.ours);
        let mut found = Vec::new();
        let mut add = |name: &'static str| {
            if !found.contains(&name) {
                found.push(name);
            }
        };
        if ours.doubles > 0 || !ours.is_unicode || self.bytes > EVENT_BYTES_MAX {
            return Err("it is not fit for receivers".to_owned());
        }
        // In the body's list it is two levels deeper.
        if ours.depth + 2 > DEPTH_MAX {
            return Err(format!("{} levels", ours.depth));
        }
        if !native.is_unicode {
            add(ENCODING);
        }
        if native.doubles > 0 {
            add(DOUBLES);
        }
        for difference in ours.differences(native) {
            match self.contract(&difference) {
                Some(name) => add(name),
                None => return Err(format!("{}: {}", difference.place, brief(&difference))),
            }
        }
        let marked = ours.get(MARK) == Some("true");
        let must = found.iter().any(|name| [DEPTH, SIZE, CUT].contains(name));
        if marked != must {
            return Err(format!("marked: {marked}"));
        }
        self.what_matters_is_there()?;
        Ok(found)
    }

    fn contract(&self, difference: &Difference<'_>) -> Option<&'static str> {
        let Difference { place, here, there } = *difference;
        let top = place.split('/').nth(1).unwrap_or_default();
        if ["kind", "apiVersion"].contains(&top) && there.is_none() {
            return Some(KIND);
        }
        if let Some(cut) = &self.cut
            && cut.is_behind(top)
        {
            // What is derived from the path must be right or absent.
            let derived = place.starts_with("/objectRef/") && !cut.is_behind("requestURI");
            let shortened = is_long(there) && self.line.len() > EVENT_BYTES_MAX;
            return match !derived || here.is_none() {
                true => Some(CUT),
                false => shortened.then_some(SIZE),
            };
        }
        let cause = if self.native.depth + 2 > DEPTH_MAX {
            DEPTH
        } else if self.line.len() > EVENT_BYTES_MAX {
            SIZE
        } else if self.cut.is_some() {
            CUT
        } else {
            return None;
        };
        let is_object = ["requestObject", "responseObject"].contains(&top);
        let may = match cause {
            _ if place == MARK => true,
            DEPTH => is_object && place.matches('/').count() >= DEPTH_MAX - 3,
            SIZE => {
                let large = [
                    "requestURI",
                    "userAgent",
                    "auditID",
                    "sourceIPs",
                    "impersonatedUser",
                ];
                is_object || place == NOTE || large.contains(&top) || is_long(there)
            }
            _ => false,
        };
        may.then_some(cause)
    }

    /// Checks that what the tour's hostile requests try to hide is present.
    fn what_matters_is_there(&self) -> Result<(), String> {
        if self.cut.is_some() {
            return Ok(());
        }
        let seen = "/requestObject/data/seen";
        if self.native.get(seen) != self.ours.get(seen) {
            return Err(format!("{seen} is hidden"));
        }
        for part in ["command=cat", "dryRun=All"] {
            let has = |event: &Leaves| event.get("/requestURI").unwrap_or_default().contains(part);
            if has(self.native) && !has(self.ours) {
                return Err(format!("{part} is hidden"));
            }
        }
        let masters = |event: &Leaves| {
            let mut groups = event.values.range("/impersonatedUser/groups/".to_owned()..);
            groups.any(|(_, group)| group == "\"system:masters")
        };
        if masters(self.native) != masters(self.ours) {
            return Err("the group is hidden".to_owned());
        }
        Ok(())
    }
}

/// Whether a value is long enough to be shortened.
fn is_long(value: Option<&str>) -> bool {
    value.is_some_and(|value| value.len() > 4096)
}

fn brief(difference: &Difference<'_>) -> String {
    let short = |value: Option<&str>| -> String {
        value.map_or("nothing".to_owned(), |value| {
            value.chars().take(120).collect()
        })
    };
    format!(
        "{} instead of {}",
        short(difference.here),
        short(difference.there)
    )
}

/// The end of each member in an object's text.
fn member_ends(text: &[u8]) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    let (mut depth, mut at, mut name) = (0, 0, None::<String>);
    while at < text.len() {
        match text[at] {
            b'"' => {
                let begin = at + 1;
                at += 1;
                while text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                if depth == 1 && text.get(at + 1) == Some(&b':') && name.is_none() {
                    name = Some(String::from_utf8_lossy(&text[begin..at]).into_owned());
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        let ends_member = depth == 1 && text[at] == b',' || depth == 0;
        if ends_member && let Some(name) = name.take() {
            ends.insert(name, at);
        }
        at += 1;
    }
    ends
}

/// Number of events that each contract explains.
#[derive(Default)]
pub(crate) struct Account {
    counts: BTreeMap<&'static str, usize>,
    unexplained: Vec<String>,
}

impl Account {
    pub(crate) fn add(&mut self, event: &str, contracts: Result<Vec<&'static str>, String>) {
        match contracts {
            Ok(names) => {
                for name in names {
                    *self.counts.entry(name).or_default() += 1;
                }
            }
            Err(what) => self.unexplained.push(format!("{event}: {what}")),
        }
    }

    /// Fails unless exactly these contracts explain everything; for some, also checks the number of
    /// events.
    pub(crate) fn assert(&self, name: &str, contracts: &[(&str, Option<usize>)]) {
        println!("{name}: {:?}", self.counts);
        let some: Vec<_> = self.unexplained.iter().take(20).collect();
        let all = self.unexplained.len();
        assert!(all == 0, "{name}: {all} without a contract: {some:#?}");
        let mut want: Vec<_> = contracts
            .iter()
            .map(|(name, count)| (*name, count.or_else(|| self.counts.get(name).copied())))
            .collect();
        want.sort_unstable();
        let counts = self.counts.iter();
        let counts: Vec<_> = counts.map(|(name, count)| (*name, Some(*count))).collect();
        assert_eq!(counts, want, "{name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_ends_found_are_of_the_first_level() {
        let text = br#"{"a":"x,}","b":{"c":[1,"}"],"d":2},"e":3}"#;
        let ends = member_ends(text);
        let ends: Vec<_> = ends
            .iter()
            .map(|(name, end)| (&**name, text[*end]))
            .collect();
        assert_eq!(ends, [("a", b','), ("b", b','), ("e", b'}')]);
    }
}
