//! The values that a mapping saw in a payload, for people and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};
use tidegate_guest::Refusal;
use tidegate_mapping::{Leaf, ObservedValue, Observer, Role, ValuePlace, hex};

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
#[derive(Debug, Default)]
pub struct Trace {
    record: Option<usize>,
    rows: Vec<Row>,
}

impl Observer for Trace {
    const SEES: bool = true;

    fn see(&mut self, seen: ObservedValue<'_, '_>) {
        let role = match seen.role {
            Role::Tag => "tag",
            Role::Field => "field",
            Role::Time => "time",
        };
        self.rows.push(Row {
            record: self.record,
            role,
            name: seen.name.to_owned(),
            place: seen.place,
            raw: shown(seen.raw),
            value: seen.value.map(shown),
        });
    }

    fn line(&mut self, record: Option<usize>) {
        self.record = record;
    }

    fn refused(&mut self, key: &str, refusal: &Refusal) {
        self.rows.push(Row {
            record: self.record,
            role: "fault",
            name: key.to_owned(),
            place: None,
            raw: String::new(),
            value: Some(refusal.code.clone()),
        });
    }
}

fn shown(leaf: &Leaf<'_>) -> String {
    match leaf {
        Leaf::Null => "null".into(),
        Leaf::Text(text) => printable(&format!("{text:?}")),
        leaf => leaf.as_text().into_owned(),
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

impl Trace {
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

    /// The same as JSON.
    pub fn values(&self, payload: &[u8]) -> Vec<Value> {
        let value = |row: &Row| {
            let (from, to) = match &row.place {
                Some(ValuePlace::Bytes(range)) => (Some(range.start), Some(range.end)),
                _ => (None, None),
            };
            let named = if let Some(ValuePlace::Named(name)) = &row.place { Some(name) } else { None };
            json!({
                "record": row.record, "role": row.role, "name": row.name, "place": named, "from": from, "to": to,
                "bytes": row.bytes(payload), "raw": row.raw, "value": row.value,
            })
        };
        self.rows.iter().map(value).collect()
    }
}
