//! Resolved records as lines.

use std::collections::BTreeMap;

use tidegate_guest::{Line, Lines, Refusal};

use crate::base64url;
use crate::record::Value;
use crate::resolve::Resolved;

/// Lines of one message that the gateway takes.
const LINES_MAX: usize = 1_000;

/// Records of a message in the wide layout.
const FIELDS_MAX: usize = 4_096;

/// Writes one line for each record.
#[derive(Debug)]
pub struct Narrow<'a> {
    pub measurement: &'a str,
    pub lines: &'a mut Lines,
    pub count: usize,
}

impl Narrow<'_> {
    pub fn write(&mut self, name: &str, record: &Resolved<'_>) -> Result<(), Refusal> {
        self.count += 1;
        if self.count > LINES_MAX {
            return Err(too_many(LINES_MAX));
        }
        let line = self.lines.line(self.measurement).tag("name", name);
        let mut line = line.tag("unit", record.unit.as_deref().unwrap_or_default());
        line = match &record.value {
            None => line,
            Some(Value::Number(value)) => line.float("value", *value),
            Some(Value::Text(text)) => line.string("value_string", text),
            Some(Value::Boolean(value)) => line.boolean("value_bool", *value),
            Some(Value::Data(data)) => line.string("value_data", &base64url::encode(data)),
        };
        if let Some(sum) = record.sum {
            line = line.float("sum", sum);
        }
        if let Some(time) = record.update_time {
            line = line.float("update_time", time);
        }
        end(line, record.time_ns)
    }
}

/// The beginning of the names of a line's records, and their time.
type LineKey = (String, Option<i64>);

/// Records by the beginning of their name and their time.
#[derive(Debug, Default)]
pub struct Wide<'a> {
    lines: BTreeMap<LineKey, Vec<(String, Resolved<'a>)>>,
    count: usize,
}

impl<'a> Wide<'a> {
    pub fn add(&mut self, name: &str, record: Resolved<'a>) -> Result<(), Refusal> {
        self.count += 1;
        if self.count > FIELDS_MAX {
            return Err(too_many(FIELDS_MAX));
        }
        let (head, tail) = match name.rfind(['/', ':']) {
            Some(at) if at + 1 < name.len() => (&name[..at], &name[at + 1..]),
            Some(_) => (name, "value"),
            None => ("", name),
        };
        let key = (head.to_owned(), record.time_ns);
        self.lines.entry(key).or_default().push((tail.to_owned(), record));
        if self.lines.len() > LINES_MAX {
            return Err(too_many(LINES_MAX));
        }
        Ok(())
    }

    pub fn write(self, measurement: &str, lines: &mut Lines) -> Result<(), Refusal> {
        for ((head, time_ns), records) in self.lines {
            let mut line = lines.line(measurement).tag("name", &head);
            for (tail, record) in records {
                line = match &record.value {
                    None => line,
                    Some(Value::Number(value)) => line.float(&tail, *value),
                    Some(Value::Text(text)) => line.string(&tail, text),
                    Some(Value::Boolean(value)) => line.boolean(&tail, *value),
                    Some(Value::Data(data)) => line.string(&tail, &base64url::encode(data)),
                };
                if let Some(sum) = record.sum {
                    line = line.float(&format!("{tail}_sum"), sum);
                }
                if let Some(time) = record.update_time {
                    line = line.float(&format!("{tail}_update_time"), time);
                }
                if line.has_duplicate() {
                    let detail = format!(
                        "two records of {head:?} make a field {tail:?} at the same time: expected one, or \
                         layout = \"narrow\""
                    );
                    return Err(Refusal::new("SAME_FIELD", detail));
                }
            }
            end(line, time_ns)?;
        }
        Ok(())
    }
}

fn end(line: Line<'_>, time_ns: Option<i64>) -> Result<(), Refusal> {
    match time_ns {
        Some(time_ns) => line.at(time_ns),
        None => line.end(),
    }
}

#[cold]
fn too_many(max: usize) -> Refusal {
    Refusal::new(
        "TOO_MANY_RECORDS",
        format!("the pack makes more than {max} lines or fields: expected fewer"),
    )
}
