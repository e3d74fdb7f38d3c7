//! The values that a mapping saw in a payload, for people and as JSON.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Serialize;
use tidegate_guest::Refusal;
use tidegate_mapping::{Leaf, ObservedValue, Observer, Role, ValuePlace, hex};
use utoipa::ToSchema;

use crate::core::detail::printable;

/// Bytes of a value that are shown.
const BYTES_SHOWN: usize = 16;

/// One value.
#[derive(Debug)]
struct Row {
    record: Option<usize>,
    role: &'static str,
    name: String,
    place: Option<ValuePlace>,
    raw: String,
    /// The value in the line; `None`: it is left out.
    value: Option<String>,
}

/// All values that a mapping looked for, in its order.
#[derive(Debug)]
pub struct MappingTrace {
    record: Option<usize>,
    rows: Vec<Row>,
    rows_max: usize,
    characters_max: usize,
    left_out: usize,
}

impl Default for MappingTrace {
    /// A trace of any length.
    fn default() -> Self {
        Self::of_at_most(usize::MAX, usize::MAX)
    }
}

/// A value that a mapping looked for in a payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MappedValue {
    /// The number of the record, where a payload has several.
    pub record: Option<usize>,
    /// `tag`, `field`, `time`, or `fault`: the mapping ended here.
    pub role: String,
    pub name: String,
    /// A pointer, or the name of a column.
    pub place: Option<String>,
    /// The first byte of the payload, and the one behind the last.
    pub from: Option<usize>,
    pub to: Option<usize>,
    /// The first of those bytes, as hexadecimal digits.
    pub bytes: Option<String>,
    /// The value in the payload.
    pub raw: String,
    /// The value in the line, or the code of a fault; `null`: it is left out.
    pub value: Option<String>,
}

impl Observer for MappingTrace {
    const SEES: bool = true;

    fn see(&mut self, seen: ObservedValue<'_, '_>) {
        let role = match seen.role {
            Role::Tag => "tag",
            Role::Field => "field",
            Role::Time => "time",
        };
        let record = self.record;
        self.push(|most| Row {
            record,
            role,
            name: seen.name.to_owned(),
            place: seen.place,
            raw: shown(seen.raw, most),
            value: seen.value.map(|value| shown(value, most)),
        });
    }

    fn line(&mut self, record: Option<usize>) {
        self.record = record;
    }

    fn refused(&mut self, key: &str, refusal: &Refusal) {
        let record = self.record;
        self.push(|_| Row {
            record,
            role: "fault",
            name: key.to_owned(),
            place: None,
            raw: String::new(),
            value: Some(refusal.code.clone()),
        });
    }
}

fn shown(leaf: &Leaf<'_>, characters_max: usize) -> String {
    match leaf {
        Leaf::Null => "null".into(),
        Leaf::Text(text) => printable(&format!("{:?}", cut(text, characters_max))),
        leaf => cut(&leaf.as_text(), characters_max).into_owned(),
    }
}

/// A text, or its beginning if it has more characters.
fn cut(text: &str, characters_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters_max) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// Bytes with blanks between them, and not more than fit.
fn spaced(bytes: &[u8]) -> String {
    let digits = hex(&bytes[..bytes.len().min(BYTES_SHOWN)]);
    let pairs: Vec<&str> = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]).collect();
    format!("{}{}", pairs.join(" "), if bytes.len() > BYTES_SHOWN { " …" } else { "" })
}

impl Row {
    fn place(&self) -> String {
        match &self.place {
            None => "-".into(),
            Some(ValuePlace::Bytes(range)) if range.len() == 1 => format!("byte {}", range.start),
            Some(ValuePlace::Bytes(range)) if range.is_empty() => format!("byte {}, empty", range.start),
            Some(ValuePlace::Bytes(range)) => format!("bytes {} to {}", range.start, range.end - 1),
            Some(ValuePlace::Named(name)) => printable(name),
        }
    }

    fn bytes(&self, payload: &[u8]) -> Option<String> {
        match &self.place {
            Some(ValuePlace::Bytes(range)) => payload.get(range.clone()).map(spaced),
            _ => None,
        }
    }

    fn value(&self) -> String {
        match (&self.value, &self.place) {
            (Some(value), _) => value.clone(),
            (None, None) => "not there".into(),
            (None, Some(_)) => "left out".into(),
        }
    }
}

impl MappingTrace {
    /// A trace of so many values, and so many characters of each; of others the number is kept.
    pub fn of_at_most(rows_max: usize, characters_max: usize) -> Self {
        Self { record: None, rows: Vec::new(), rows_max, characters_max, left_out: 0 }
    }

    /// Values beyond those that are kept.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    fn push(&mut self, row: impl FnOnce(usize) -> Row) {
        if self.rows.len() < self.rows_max {
            self.rows.push(row(self.characters_max));
        } else {
            self.left_out += 1;
        }
    }

    /// A table for people.
    pub fn table(&self, payload: &[u8]) -> String {
        let mut table = String::new();
        let name_width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).clamp(4, 40);
        let mut record = None;
        for row in &self.rows {
            if row.record != record
                && let Some(index) = row.record
            {
                _ = writeln!(table, "record {index}");
            }
            record = row.record;
            let from = match row.bytes(payload) {
                Some(bytes) => format!("{:<18} {bytes:<24} {}", row.place(), row.raw),
                None => format!("{:<18} {}", row.place(), row.raw),
            };
            let name = printable(&row.name);
            _ = writeln!(table, "{:<6} {name:<name_width$} {from} -> {}", row.role, row.value());
        }
        table
    }

    /// The same, to be read by programs.
    pub fn values(&self, payload: &[u8]) -> Vec<MappedValue> {
        let value = |row: &Row| {
            let (from, to) = match &row.place {
                Some(ValuePlace::Bytes(range)) => (Some(range.start), Some(range.end)),
                _ => (None, None),
            };
            let named =
                if let Some(ValuePlace::Named(name)) = &row.place { Some(name.clone()) } else { None };
            MappedValue {
                record: row.record,
                role: row.role.to_owned(),
                name: row.name.clone(),
                place: named,
                from,
                to,
                bytes: row.bytes(payload),
                raw: row.raw.clone(),
                value: row.value.clone(),
            }
        };
        self.rows.iter().map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_keeps_what_fits_and_counts_the_rest() {
        let mut trace = MappingTrace::of_at_most(2, 3);
        let raw = Leaf::Text("äbcd".into());
        for n in 0..5 {
            let place = Some(ValuePlace::Bytes(n..n + 1));
            trace.see(ObservedValue { role: Role::Field, name: "t", place, raw: &raw, value: Some(&raw) });
        }
        let values = trace.values(b"abcde");
        assert_eq!((values.len(), trace.left_out()), (2, 3));
        assert_eq!(
            (values[1].from, values[1].to, values[1].bytes.as_deref()),
            (Some(1), Some(2), Some("62"))
        );
        assert_eq!((&*values[1].raw, values[1].value.as_deref()), ("\"äbc…\"", Some("\"äbc…\"")));
        let whole = MappingTrace::default();
        assert_eq!((whole.rows_max, whole.left_out()), (usize::MAX, 0));
    }
}
