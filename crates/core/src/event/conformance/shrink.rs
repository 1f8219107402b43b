//! Shrinks a JSON value: sub-trees are removed, the value itself stays.
//!
//! The author of a padded object must not decide what is lost of it. What detection rules read
//! ([`Essential`]) is kept first, as long as it fits and leaves a little for the rest. The
//! remaining room is shared: small items stay, the largest are cut to one size, as large as fits,
//! recursively by the same rule; a string keeps its first and last bytes. Only if a container has
//! so many items that none would keep enough, its middle ones are dropped: it keeps its first and
//! last items.
//!
//! One walk notes where the larger values end ([`Outline`]), so that descending into them does not
//! scan their content again: the time is linear in the text, whatever its shape.

mod outline;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use self::outline::{Outline, Span};
use super::super::json::{self, Raw, Scanner, ValueKind};

/// The parts of a value that are kept before any others.
#[derive(Debug)]
pub(super) enum Essential {
    All,
    /// These members of an object.
    Members(&'static [(&'static str, Essential)]),
    /// All keys of an object, and these members.
    Keys(&'static [(&'static str, Essential)]),
    /// The members of an object whose keys have one of these prefixes.
    Prefixes(&'static [&'static str]),
    /// Each element of a list.
    Elements(&'static Essential),
    /// The strings of a list that begin with `system:`.
    SystemGroups,
}

impl Essential {
    /// The essential parts of the member with this key.
    fn member(&'static self, key: &str) -> Option<&'static Essential> {
        match self {
            Essential::All => Some(&Essential::All),
            Essential::Members(members) | Essential::Keys(members) => members
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, essential)| essential),
            Essential::Prefixes(prefixes) => prefixes
                .iter()
                .any(|prefix| key.starts_with(prefix))
                .then_some(&Essential::All),
            Essential::Elements(_) | Essential::SystemGroups => None,
        }
    }

    /// The essential parts of this element.
    fn element(&'static self, text: &str) -> Option<&'static Essential> {
        match self {
            Essential::All => Some(&Essential::All),
            Essential::Elements(essential) => Some(essential),
            Essential::SystemGroups => text.starts_with("\"system:").then_some(&Essential::All),
            Essential::Members(_) | Essential::Keys(_) | Essential::Prefixes(_) => None,
        }
    }
}

/// The size of a value reduced to its essential parts; 0 if it has none.
pub(super) fn essential_bytes(value: Raw<'_>, essential: &'static Essential) -> usize {
    let len = value.text().len();
    let smallest = len.min(2);
    match (essential, value.kind()) {
        (Essential::All, _) => len,
        (_, ValueKind::Object) => {
            let keys = matches!(essential, Essential::Keys(_));
            let mut bytes = 0;
            for (key, value) in value.members().into_iter().flatten() {
                let of = essential
                    .member(&key)
                    .map_or(0, |of| essential_bytes(value, of));
                let of = if keys {
                    of.max(value.text().len().min(2))
                } else {
                    of
                };
                if of > 0 {
                    bytes += key.len() + 4 + of;
                }
            }
            if bytes > 0 { bytes + 2 } else { 0 }
        }
        (Essential::Elements(of), ValueKind::Array) => {
            let elements = value.elements().into_iter().flatten();
            2 + elements
                .map(|element| 1 + essential_bytes(element, of).max(element.text().len().min(2)))
                .sum::<usize>()
        }
        (Essential::SystemGroups, ValueKind::Array) => {
            let elements = value.elements().into_iter().flatten();
            let system = elements.filter(|element| essential.element(element.text()).is_some());
            let bytes: usize = system.map(|element| 1 + element.text().len()).sum();
            if bytes > 0 { bytes + 2 } else { 0 }
        }
        (_, ValueKind::Array | ValueKind::String) => 0,
        (_, ValueKind::Number | ValueKind::Bool | ValueKind::Null) => smallest.max(len.min(24)),
    }
}

/// The largest size to which each of `sizes` can be capped so that their sum fits `room`.
pub(super) fn level(sizes: &[usize], room: usize) -> usize {
    let mut sorted = sizes.to_vec();
    sorted.sort_unstable();
    let (mut left, mut count) = (room, sorted.len());
    for size in sorted {
        if size > left / count.max(1) {
            return left / count.max(1);
        }
        left -= size;
        count -= 1;
    }
    usize::MAX
}

/// A string keeps this much of each end before items in the middle are dropped.
const END_BYTES: usize = 2048;
/// A value keeps this much (both ends of a string, and a note) before items in the middle are
/// dropped.
const PART_MIN: usize = 2 * END_BYTES + 64;
/// Values up to this size stay among larger ones, unless they take more than half of the room.
const SMALL: usize = 256;
/// Essential members leave one part in this many of the room to the rest.
const OTHERS_SHARE: usize = 16;
/// What a long key keeps at least.
const KEY_MIN: usize = 256;

/// Shrinks the value's JSON to at most `bytes_max` bytes, or to two if `bytes_max` is smaller.
/// Returns it unchanged if it fits.
pub(super) fn shrink(
    value: Raw<'_>,
    bytes_max: usize,
    essential: Option<&'static Essential>,
) -> String {
    let text = value.text();
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut shrinker = Shrinker {
        text,
        outline: Outline::of(text),
        out: String::with_capacity(bytes_max.min(text.len())),
        shortened_a_key: false,
    };
    let whole = shrinker.outline.root(text);
    shrinker.value(whole, bytes_max, essential);
    match shrinker.shortened_a_key {
        // Two shortened keys may be equal now.
        true => super::repair::repairs(&shrinker.out, usize::MAX)
            .edits
            .apply(&shrinker.out),
        false => shrinker.out,
    }
}

/// A JSON string with both ends of this inner text, and a note of how many bytes are left out
/// between.
pub(super) fn ends_of_string(inner: &str, bytes_max: usize) -> String {
    if inner.len() + 2 <= bytes_max {
        return format!("\"{inner}\"");
    }
    let note = format!("…({} bytes left out)…", inner.len());
    let Some(room) = bytes_max.checked_sub(note.len() + 2) else {
        return "\"\"".to_owned();
    };
    let (front, back) = json::ends_of(inner, room - room / 2, room / 2);
    let left_out = inner.len() - front.len() - back.len();
    format!("\"{front}…({left_out} bytes left out)…{back}\"")
}

struct Shrinker<'a> {
    text: &'a str,
    outline: Outline,
    out: String,
    shortened_a_key: bool,
}

/// A member or an element.
struct Item {
    /// With quotes; empty in a list.
    key: Range<usize>,
    value: Span,
    of: Option<&'static Essential>,
    /// The size of the value's essential parts.
    essential: usize,
}

impl Item {
    /// The bytes of comma and colon.
    fn signs(&self) -> usize {
        1 + usize::from(!self.key.is_empty())
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    /// The bytes that it keeps in any case.
    fn least(&self) -> usize {
        match self.essential {
            0 => 0,
            essential => self.signs() + self.key.len().min(KEY_MIN) + essential,
        }
    }

    /// Its full size, with comma and colon.
    fn whole(&self) -> usize {
        self.signs() + self.bytes()
    }

    /// The bytes it would need beyond `least`.
    fn more(&self) -> usize {
        self.whole().saturating_sub(self.least())
    }
}

impl<'a> Shrinker<'a> {
    fn value(&mut self, span: Span, bytes_max: usize, essential: Option<&'static Essential>) {
        let text = self.text;
        let value = text.get(span.from..span.to).unwrap_or_default();
        if value.len() <= bytes_max {
            self.out.push_str(value);
            return;
        }
        match value.as_bytes().first() {
            Some(b'{' | b'[') => self.container(span, bytes_max, essential),
            Some(b'"') => {
                let inner = value.get(1..value.len() - 1).unwrap_or_default();
                self.out.push_str(&ends_of_string(inner, bytes_max));
            }
            // A number of so many digits becomes a string.
            _ => self.out.push_str(&ends_of_string(value, bytes_max)),
        }
    }

    fn container(&mut self, span: Span, bytes_max: usize, essential: Option<&'static Essential>) {
        let is_object = self.text.as_bytes().get(span.from) == Some(&b'{');
        let (open, close) = if is_object { ('{', '}') } else { ('[', ']') };
        self.out.push(open);
        // The first item has no comma.
        let room = bytes_max.saturating_sub(2) + 1;
        let items = self.items(span, is_object, bytes_max, essential);
        let shares = shares(&items, room);
        let mut first = true;
        for (item, share) in items.iter().zip(shares) {
            let Some(share) = share else { continue };
            let key = self.key(item, share);
            let Some(left) = share
                .checked_sub(key.len())
                .filter(|left| *left >= item.value.len().min(2))
            else {
                continue;
            };
            if !first {
                self.out.push(',');
            }
            first = false;
            if is_object {
                self.out.push_str(&key);
                self.out.push(':');
            }
            self.value(item.value, left, item.of);
        }
        self.out.push(close);
    }

    /// The member's key, shortened if it does not fit its share.
    fn key(&mut self, item: &Item, share: usize) -> Cow<'a, str> {
        let text: &'a str = self.text;
        let key = text.get(item.key.clone()).unwrap_or_default();
        let half = share.saturating_sub(item.essential) / 2;
        if key.len() <= KEY_MIN.max(half) || item.bytes() <= share {
            return Cow::Borrowed(key);
        }
        self.shortened_a_key = true;
        let inner = key.get(1..key.len() - 1).unwrap_or_default();
        Cow::Owned(ends_of_string(inner, half.max(KEY_MIN)))
    }

    /// The members or elements. Of very many, those in the middle are skipped, because they would
    /// not fit.
    fn items(
        &self,
        span: Span,
        is_object: bool,
        bytes_max: usize,
        essential: Option<&'static Essential>,
    ) -> Vec<Item> {
        let end_max = bytes_max / 2 + 1;
        let mut front: Vec<Item> = Vec::new();
        let mut back: VecDeque<Item> = VecDeque::new();
        for (key, value) in self.outline.items(self.text, span) {
            let text = self.text.get(value.from..value.to).unwrap_or_default();
            let of = essential.and_then(|essential| match is_object {
                true => {
                    let key = self.text.get(key.clone()).unwrap_or_default();
                    let key = Scanner::new(key).string().unwrap_or_default();
                    essential.member(&key)
                }
                false => essential.element(text),
            });
            let mut bytes = match of {
                None => 0,
                Some(Essential::All) => text.len(),
                Some(of) => Raw::parse(text).map_or(0, |raw| essential_bytes(raw, of)),
            };
            if matches!(essential, Some(Essential::Keys(_) | Essential::Elements(_))) {
                bytes = bytes.max(text.len().min(2));
            }
            let item = Item {
                key,
                value,
                of,
                essential: bytes,
            };
            if front.len() < end_max || item.essential > 0 {
                front.push(item);
            } else {
                back.push_back(item);
                if back.len() > end_max {
                    back.pop_front();
                }
            }
        }
        front.extend(back);
        front.sort_by_key(|item| item.value.from);
        front
    }
}

/// The bytes of key and value that each item may keep; `None` drops it.
fn shares(items: &[Item], room: usize) -> Vec<Option<usize>> {
    let least: Vec<usize> = items.iter().map(Item::least).collect();
    let others: usize = items.iter().map(Item::more).sum();
    // Essential parts can be padded too, and must not take all the room.
    let first = kept(&least, room - (room / OTHERS_SHARE).min(others));
    let given: usize = first.iter().flatten().sum();
    let more: Vec<usize> = items.iter().map(Item::more).collect();
    let second = kept(&more, room.saturating_sub(given));
    let parts = std::iter::zip(first, second);
    std::iter::zip(items, parts)
        .map(|(item, (first, second))| {
            let is_there = first.is_some() || second.is_some();
            let share = first.unwrap_or(0) + second.unwrap_or(0);
            is_there.then(|| share.saturating_sub(item.signs()))
        })
        .collect()
}

/// How much of each of `sizes` is kept within `room`; `None` drops it.
fn kept(sizes: &[usize], room: usize) -> Vec<Option<usize>> {
    let part_min = PART_MIN.min(room / 4);
    let level = level(sizes, room);
    if level >= part_min {
        let keep = |&size: &usize| (size > 0).then(|| size.min(level));
        return sizes.iter().map(keep).collect();
    }
    let mut kept = vec![None; sizes.len()];
    let mut room = room;
    let small: usize = sizes.iter().filter(|size| **size <= SMALL).sum();
    let small_stay = small <= room / 2;
    if small_stay {
        for (kept, &size) in kept.iter_mut().zip(sizes) {
            if size > 0 && size <= SMALL {
                *kept = Some(size);
            }
        }
        room -= small;
    }
    let candidates: Vec<usize> = (0..sizes.len())
        .filter(|&at| sizes[at] > 0 && !(small_stay && sizes[at] <= SMALL))
        .collect();
    let (mut front, mut back) = (0, candidates.len());
    let mut from_front = true;
    while front < back {
        let at = match from_front {
            true => candidates[front],
            false => candidates[back - 1],
        };
        let bytes = sizes[at].min(part_min.max(8));
        if bytes > room {
            break;
        }
        room -= bytes;
        kept[at] = Some(bytes);
        match from_front {
            true => front += 1,
            false => back -= 1,
        }
        from_front = !from_front;
    }
    kept
}

#[cfg(test)]
mod tests;
