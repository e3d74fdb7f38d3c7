//! The names of lines that passed the check. The next line of a device usually has the same ones: then
//! they are compared and not parsed again, and only its values are checked.
//!
//! A name is compared together with the separators around it, so its beginning and its end are certain.
//! A line that differs in anything goes to the parser, which alone finds faults.

use std::ops::Range;

use crate::line_protocol::fault::Dialect;
use crate::line_protocol::rules::LineRules;
use crate::line_protocol::{names, values};

/// Shapes that are kept: lines of so many kinds may take turns.
const SHAPES_MAX: usize = 8;

/// The most names of a line that is kept.
const NAMES_MAX: usize = 64;

/// The most bytes of one name with its separators.
const NAME_BYTES_MAX: usize = 128;

/// After so many lines in a row without a known shape, only one in as many is kept.
const MISSES_MAX: u32 = 16;

/// The places of a line's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinePlaces {
    pub measurement_end: usize,
    pub tags_end: usize,
    pub fields_start: usize,
    pub fields_end: usize,
}

/// A name with its separators: `m,key=` or `m key=` the first, `,key=` or ` key=` the others.
#[derive(Clone, Debug)]
struct ShapeName {
    /// The first eight bytes; fewer are followed by zeros.
    head: u64,
    /// The bits of `head` that count.
    mask: u64,
    bytes: u32,
    /// The start of the key in it.
    key: u32,
    /// The bytes behind the first eight, in `LineShape::tails`.
    tail: Range<u32>,
    is_tag: bool,
}

/// The names of one line.
#[derive(Debug, Default)]
struct LineShape {
    /// Empty: no line yet.
    names: Vec<ShapeName>,
    tails: Vec<u8>,
    measurement_bytes: usize,
    /// The key that was the host's when the line was parsed.
    reserved: Vec<u8>,
    dialect: Option<Dialect>,
}

/// The shapes of the lines that came last.
#[derive(Debug, Default)]
pub(super) struct LineShapes {
    shapes: [LineShape; SHAPES_MAX],
    /// The place of the shape that was used last.
    last: usize,
    misses: u32,
}

impl LineShapes {
    /// The places of the line at `start`, if its names are those of a line before. None says nothing about it.
    #[inline]
    pub(super) fn places(
        &mut self,
        text: &[u8],
        start: usize,
        (dialect, rules): (Dialect, Option<&LineRules>),
    ) -> Option<LinePlaces> {
        // The tables and fields that a tenant may write are not remembered.
        if rules.is_some_and(LineRules::limits_names) {
            return None;
        }
        let reserved = reserved_key(rules);
        for turn in 0..SHAPES_MAX {
            let place = (self.last + turn) % SHAPES_MAX;
            let shape = &self.shapes[place];
            if let Some(places) = shape.places(text, start, dialect)
                && shape.dialect == Some(dialect)
                && shape.reserved == reserved
            {
                (self.last, self.misses) = (place, 0);
                return Some(places);
            }
        }
        None
    }

    /// Keeps the names of a line that was parsed, with its keys in their order.
    pub(super) fn record(
        &mut self,
        text: &[u8],
        start: usize,
        places: LinePlaces,
        keys: impl Iterator<Item = Option<Range<usize>>>,
        (dialect, rules): (Dialect, Option<&LineRules>),
    ) {
        self.misses = self.misses.saturating_add(1);
        let is_due = self.misses <= MISSES_MAX || self.misses.is_multiple_of(MISSES_MAX);
        if !is_due || rules.is_some_and(LineRules::limits_names) {
            return;
        }
        // The one that was used longest ago, where lines take turns.
        let place = (self.last + SHAPES_MAX - 1) % SHAPES_MAX;
        let shape = &mut self.shapes[place];
        if shape.record(text, start, places, keys).is_none() {
            return shape.names.clear();
        }
        shape.dialect = Some(dialect);
        shape.reserved.clear();
        shape.reserved.extend_from_slice(reserved_key(rules));
        self.last = place;
    }
}

/// The key that is the host's beside the identity; empty: there is none.
fn reserved_key(rules: Option<&LineRules>) -> &[u8] {
    rules.and_then(|rules| rules.tenant_tag.as_ref()).map_or(b"", |tag| &tag.key)
}

impl LineShape {
    #[inline]
    fn places(&self, text: &[u8], start: usize, dialect: Dialect) -> Option<LinePlaces> {
        let measurement_end = start + self.measurement_bytes;
        let mut places =
            LinePlaces { measurement_end, tags_end: measurement_end, fields_start: 0, fields_end: 0 };
        let mut at = start;
        for name in &self.names {
            if word(text, at) & name.mask != name.head {
                return None;
            }
            if !name.tail.is_empty() {
                let tail = &self.tails[name.tail.start as usize..name.tail.end as usize];
                if !text[at + 8..].starts_with(tail) {
                    return None;
                }
            }
            let value = at + name.bytes as usize;
            if name.is_tag {
                at = names::tag_value(text, value, dialect).ok()?;
                places.tags_end = at;
            } else {
                if places.fields_start == 0 {
                    places.fields_start = at + name.key as usize;
                }
                at = values::field(text, value).ok()?;
            }
        }
        places.fields_end = at;
        let ends = matches!(text.get(at), None | Some(b' ' | b'\n' | b'\r'));
        (ends && !self.names.is_empty()).then_some(places)
    }

    /// None: the line is of no use as a shape, and what was recorded of it neither.
    fn record(
        &mut self,
        text: &[u8],
        start: usize,
        places: LinePlaces,
        keys: impl Iterator<Item = Option<Range<usize>>>,
    ) -> Option<()> {
        self.names.clear();
        self.tails.clear();
        self.measurement_bytes = places.measurement_end - start;
        for key in keys {
            // A key with escapes is left to the parser.
            let key = key?;
            let is_tag = key.start < places.fields_start;
            let begin = match self.names.is_empty() {
                true => start,
                false if key.start == places.fields_start => places.tags_end,
                false => key.start - 1,
            };
            let name = &text[begin..key.end + 1];
            if name.len() > NAME_BYTES_MAX || self.names.len() == NAMES_MAX {
                return None;
            }
            let tail_start = self.tails.len() as u32;
            self.tails.extend_from_slice(name.get(8..).unwrap_or_default());
            self.names.push(ShapeName {
                head: word(name, 0),
                mask: u64::MAX >> (8 * (8 - name.len().min(8))),
                bytes: name.len() as u32,
                key: (key.start - begin) as u32,
                tail: tail_start..self.tails.len() as u32,
                is_tag,
            });
        }
        Some(())
    }
}

/// The eight bytes at `at`; zeros stand for those behind the end.
#[inline(always)]
fn word(text: &[u8], at: usize) -> u64 {
    let rest = text.get(at..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use crate::line_protocol::fault::Dialect;
    use crate::line_protocol::rules::{LineRules, TenantTag};
    use crate::line_protocol::{LineChecker, LineContext};

    use proptest::prelude::*;

    fn context(dialect: Dialect, rules: Option<&LineRules>) -> LineContext<'_> {
        LineContext { identity_tags: b",device_id=d", received_ns: 42, dialect, rules }
    }

    /// The verdict of a checker, and the lines that it made.
    fn verdict(checker: &mut LineChecker, text: &str, context: LineContext<'_>) -> Result<String, String> {
        let mut out = Vec::new();
        match checker.check(text.as_bytes(), context, &mut out) {
            Ok(count) => Ok(format!("{count}: {}", String::from_utf8(out).unwrap())),
            Err(fault) => Err(fault.to_string()),
        }
    }

    #[test]
    fn a_name_that_another_tenant_may_use_is_not_taken_for_ones_own() {
        let rules = LineRules {
            tenant_tag: Some(TenantTag { key: (*b"t").into(), spliced: (*b",t=a").into() }),
            ..Default::default()
        };
        let mut checker = LineChecker::default();
        for _ in 0..3 {
            assert!(verdict(&mut checker, "m,t=1 f=1", context(Dialect::V3, None)).is_ok());
            assert!(verdict(&mut checker, "m,t=1 f=1", context(Dialect::V3, Some(&rules))).is_err());
            assert!(verdict(&mut checker, r"m f\\=1", context(Dialect::V3, None)).is_ok());
            assert!(verdict(&mut checker, r"m f\\=1", context(Dialect::V1V2, None)).is_err());
        }
    }

    #[test]
    fn a_line_with_the_names_of_one_before_is_checked_as_if_it_came_first() {
        let lines = [
            "telemetry seq=1i,temp=2.5 7",
            "telemetry seq=1i,temp=x 7",
            "telemetry seq=1i,temp=2.5,temp=3 7",
            "telemetry seq=1i,temp=2.5",
            "telemetry seq=1i,temp=2.5x",
            "telemetry seq=1i,tempo=2.5 7",
            "telemetry seq=1i temp=2.5 7",
            "telemetry seq=9223372036854775808i,temp=2.5 7",
            "telemetry,a=b seq=1i,temp=2.5 7",
            "telemetry,a=b\\ c,longer_than_eight=\\, seq=1i,temp=2.5 7",
            "telemetry,a=,longer_than_eight=x seq=1i,temp=2.5 7",
            "telemetry,a=b  seq=1i 7",
            "telemetry,a=b  seq=\"a,b=\\\"c\" 7",
            "telemetry,a=b  seq=\"a 7",
            "t s=1",
            "t s=",
            "t s",
        ];
        for first in lines {
            for second in lines {
                for dialect in [Dialect::V3, Dialect::V1V2] {
                    let mut checker = LineChecker::default();
                    let _ = verdict(&mut checker, first, context(dialect, None));
                    let known = verdict(&mut checker, second, context(dialect, None));
                    let alone = verdict(&mut LineChecker::default(), second, context(dialect, None));
                    assert_eq!(known, alone, "{second:?} behind {first:?}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// A checker that has seen other lines gives the verdict of one that has seen none.
        #[test]
        fn a_checker_s_verdict_does_not_depend_on_the_lines_before(
            lines in proptest::collection::vec(
                proptest::collection::vec(
                    prop_oneof![
                        Just("m"), Just("m,a=1"), Just(",b=2"), Just(" f=1"), Just(",g=2i"), Just(",h=\"s\""),
                        Just(" "), Just("\\"), Just("="), Just("\n"), Just(",a_long_name_of_a_field=true"), Just("\r"),
                        Just(" 7"), Just("x"), Just(",f=1"),
                    ],
                    0..8,
                ),
                1..12,
            ),
        ) {
            let mut checker = LineChecker::default();
            for line in lines {
                let line = line.concat();
                let known = verdict(&mut checker, &line, context(Dialect::V3, None));
                let alone = verdict(&mut LineChecker::default(), &line, context(Dialect::V3, None));
                prop_assert_eq!(known, alone, "{:?}", line);
            }
        }
    }
}
