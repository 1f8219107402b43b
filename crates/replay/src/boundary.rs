//! Finds the end of a JSON value without parsing its content.
//!
//! A dump of gigabytes is cut into records here and parsed later by the converter, so this pass
//! only needs to see strings and brackets: 64 bytes at a time, as bit masks (the technique of
//! simdjson's first stage). It also sees two signs of damage, after which the caller can find the
//! next record: a line that ends inside a string, and a record that starts inside another one.

use wide::u8x16;

/// The result of scanning for a value's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// The value ends before this offset.
    End(usize),
    /// The value does not end in these bytes.
    Open,
    /// The value is damaged and has no valid end.
    Damaged,
}

/// Finds the end of one object or array. Can be fed piecewise.
#[derive(Debug, Clone, Default)]
pub(super) struct Boundary {
    depth: usize,
    /// All ones while inside a string.
    in_string: u64,
    /// 1 when the next byte is escaped.
    escaped: u64,
    /// The bracket that must close the value.
    closing: u8,
}

impl Boundary {
    /// Scans the next bytes of the value; the first call starts with its first byte.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Edge {
        if self.closing == 0 {
            self.closing = if bytes.first() == Some(&b'[') {
                b']'
            } else {
                b'}'
            };
        }
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let masks = match rest.first_chunk::<64>() {
                Some(block) => Masks::of(block),
                None => {
                    let mut block = [b' '; 64];
                    block[..rest.len()].copy_from_slice(rest);
                    Masks::of(&block)
                }
            };
            let quotes = masks.quote & !self.escapes(masks.backslash);
            let strings = prefix_xor(quotes) ^ self.in_string;
            self.in_string = if strings >> 63 == 1 { u64::MAX } else { 0 };

            // Search for the end in text order.
            let open = masks.open & !strings;
            let close = masks.close & !strings;
            if (close.count_ones() as usize) < self.depth && masks.newline == 0 {
                self.depth = self.depth + open.count_ones() as usize - close.count_ones() as usize;
            } else {
                let mut marks = open | close | masks.newline;
                while marks != 0 {
                    let bit = marks.trailing_zeros() as usize;
                    let mark = 1u64 << bit;
                    marks &= marks - 1;
                    if masks.newline & mark != 0 {
                        if strings & mark != 0 || Boundary::next_record_at(bytes, at + bit) {
                            return Edge::Damaged;
                        }
                    } else if open & mark != 0 {
                        self.depth += 1;
                    } else {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            // Another bracket closes it: an inner one was never closed.
                            return match bytes[at + bit] == self.closing {
                                true => Edge::End(at + bit + 1),
                                false => Edge::Damaged,
                            };
                        }
                    }
                }
            }
            at += 64;
        }
        // The last block is padded with spaces; the escape state is kept.
        Edge::Open
    }

    /// The bytes of this block that a backslash escapes.
    fn escapes(&mut self, backslash: u64) -> u64 {
        const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
        if backslash == 0 {
            return std::mem::take(&mut self.escaped);
        }
        let potential = backslash & !self.escaped;
        let series = ((potential << 1) | ODD).wrapping_sub(potential) ^ ODD;
        let escaped = series ^ (backslash | self.escaped);
        self.escaped = (series & backslash) >> 63;
        escaped
    }

    /// Whether the line after this newline opens an object where JSON allows no value, so that it
    /// is the next record.
    fn next_record_at(bytes: &[u8], newline: usize) -> bool {
        let line = &bytes[newline + 1..];
        let blanks = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
        if line.get(blanks.count()) != Some(&b'{') {
            return false;
        }
        let before = bytes[..newline].trim_ascii_end().last();
        !matches!(before, Some(b',' | b':' | b'[') | None)
    }
}

/// One bit per byte of a block.
struct Masks {
    quote: u64,
    backslash: u64,
    open: u64,
    close: u64,
    newline: u64,
}

impl Masks {
    #[inline]
    fn of(block: &[u8; 64]) -> Masks {
        let mut masks = Masks {
            quote: 0,
            backslash: 0,
            open: 0,
            close: 0,
            newline: 0,
        };
        for (index, lane) in block.as_chunks::<16>().0.iter().enumerate() {
            let lane = u8x16::from(*lane);
            let shift = index * 16;
            let find = |byte: u8| u64::from(lane.simd_eq(u8x16::splat(byte)).to_bitmask()) << shift;
            masks.quote |= find(b'"');
            masks.backslash |= find(b'\\');
            masks.newline |= find(b'\n');
            // `[` and `{`, `]` and `}` differ in one bit.
            let folded = lane | u8x16::splat(0x20);
            let find =
                |byte: u8| u64::from(folded.simd_eq(u8x16::splat(byte)).to_bitmask()) << shift;
            masks.open |= find(b'{');
            masks.close |= find(b'}');
        }
        masks
    }
}

/// Bit n of the result is the parity of bits 0..=n: ones from each opening quote up to its closing
/// one.
#[inline]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end(text: &str) -> Edge {
        Boundary::default().feed(text.as_bytes())
    }

    #[test]
    fn boundary_end_is_found_past_strings_and_escapes() {
        for value in [
            "{}",
            "[]",
            r#"{"a":"}\"}","b":[1,{"c":"\\"}]}"#,
            r#"["\\\\\"]"]"#,
            "{\n  \"a\": [\n    {\n    }\n  ]\n}",
            "{\n\"a\": [\n{\n},\n{\n}\n]\n}",
        ] {
            assert_eq!(end(value), Edge::End(value.len()), "{value}");
            assert_eq!(end(&format!("{value},{{}}")), Edge::End(value.len()));
            assert_eq!(end(&format!("{value}\n{{}}")), Edge::End(value.len()));
            for cut in 1..value.len() {
                assert_eq!(end(&value[..cut]), Edge::Open, "{value} cut at {cut}");
            }
        }
    }

    #[test]
    fn boundary_line_ending_inside_a_string_is_damage() {
        assert_eq!(end("{\"a\":\"b\n{\"a\":1}"), Edge::Damaged);
        assert_eq!(end("{\"a\":{\"b\":1\n{\"a\":1}"), Edge::Damaged);
        assert_eq!(end("{\"a\":[1},{\"a\":2}]"), Edge::Damaged);
        assert_eq!(end("{\"a\":{\"b\":1,\n{\"a\":1}\n{\"a\":1}"), Edge::Damaged);
        assert_eq!(end("{\n    \"a\": 1\n  {\n  }"), Edge::Damaged);
        assert_eq!(end("{\"a\":1\n \t {\"b\":2}"), Edge::Damaged);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof!["[a-z\\\\\"{}\\[\\]\n]{0,70}".prop_map(serde_json::Value::from)];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop::collection::vec(inner, 0..6).prop_map(serde_json::Value::from)
        })
    }

    proptest! {
        #[test]
        fn boundary_in_any_chunks_ends_where_the_value_ends(
            value in json(), pretty: bool, chunk in 1usize..200, tail in "[\\]}\\[{\" ]{0,80}",
        ) {
            let value = serde_json::json!([value]);
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            let all = format!("{text}{tail}");
            prop_assert_eq!(end(&all), Edge::End(text.len()));
            // Piecewise, in multiples of the block.
            let mut boundary = Boundary::default();
            let mut at = 0;
            for part in all.as_bytes().chunks(chunk * 64) {
                match boundary.feed(part) {
                    Edge::End(end) => { at += end; break; }
                    _ => at += part.len(),
                }
            }
            prop_assert_eq!(at, text.len());
        }
    }
}
