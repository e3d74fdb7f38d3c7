//! Metrics as fields: templates and arrays become several, names become what a line can carry.

use std::borrow::Cow;

use tidegate_guest::ignored;

use crate::options::{Historical, Options, Wide};
use crate::session::Resolved;
use crate::value::{DataSet, Value};

/// Nanoseconds; None: the time of receipt.
pub type TimeNs = Option<i64>;

/// One field.
#[derive(Debug)]
pub struct Field<'a> {
    pub time_ns: TimeNs,
    pub is_historical: bool,
    pub name: Cow<'a, str>,
    pub value: FieldValue<'a>,
}

#[derive(Debug)]
pub enum FieldValue<'a> {
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Boolean(bool),
    Text(Cow<'a, str>),
}

/// A data set, which becomes a line for each row.
#[derive(Debug)]
pub struct Rows<'a> {
    pub time_ns: TimeNs,
    pub is_historical: bool,
    pub name: String,
    pub set: &'a DataSet<'a>,
}

/// The fields and data sets of a message.
#[derive(Debug)]
pub struct Fields<'a> {
    options: &'a Options,
    pub fields: Vec<Field<'a>>,
    pub rows: Vec<Rows<'a>>,
}

/// Bytes of a text that a database takes.
const TEXT_BYTES_MAX: usize = 65_536;

impl<'a> Fields<'a> {
    pub fn new(options: &'a Options, metrics: &'a [Resolved<'a>]) -> Self {
        let mut fields = Self { options, fields: Vec::with_capacity(metrics.len()), rows: Vec::new() };
        for metric in metrics {
            let is_skipped = (metric.is_historical && options.historical == Historical::Skip)
                || (metric.is_transient && !options.writes_transient)
                || (is_control(&metric.name) && !options.writes_control);
            if is_skipped {
                continue;
            }
            let is_historical = metric.is_historical && options.historical == Historical::Tag;
            fields.add(Cow::Borrowed(&metric.name), &metric.value, metric.timestamp, is_historical);
        }
        fields
    }

    fn add(&mut self, name: Cow<'a, str>, value: &'a Value<'a>, timestamp: Option<u64>, is_historical: bool) {
        match value {
            Value::Template(template) => {
                // A definition describes, and measures nothing.
                if template.is_definition {
                    return;
                }
                for member in &template.members {
                    let name = format!("{name}/{}", member.name);
                    self.add(Cow::Owned(name), &member.value, member.timestamp.or(timestamp), is_historical);
                }
                return;
            }
            Value::Array(elements) if !self.options.arrays_as_json => {
                for (place, element) in elements.iter().enumerate() {
                    self.add(Cow::Owned(format!("{name}_{place}")), element, timestamp, is_historical);
                }
                return;
            }
            _ => {}
        }
        let time_ns = match timestamp.map(nanos) {
            None => None,
            Some(Some(time_ns)) => Some(time_ns),
            Some(None) => return ignored::record(&name, ignored::Kind::Other),
        };
        if let Value::DataSet(set) = value {
            self.rows.push(Rows { time_ns, is_historical, name: name.into_owned(), set });
            return;
        }
        match scalar(value, self.options) {
            Ok(Some(value)) => {
                let name = field_name(name);
                self.fields.push(Field { time_ns, is_historical, name, value });
            }
            Ok(None) => {}
            Err(kind) => ignored::record(&name, kind),
        }
    }
}

/// bdSeq and the commands of nodes and devices are no measurements.
fn is_control(name: &str) -> bool {
    name == "bdSeq" || name.starts_with("Node Control/") || name.starts_with("Device Control/")
}

/// None: outside 64-bit nanoseconds.
fn nanos(millis: u64) -> Option<i64> {
    i64::try_from(millis).ok()?.checked_mul(1_000_000)
}

/// The value of a field. None: it is null.
///
/// # Errors
/// No line carries it: its kind.
pub fn scalar<'a>(value: &'a Value<'a>, options: &Options) -> Result<Option<FieldValue<'a>>, ignored::Kind> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Integer(number) => FieldValue::Integer(*number),
        Value::Unsigned(number) => match options.wide {
            Wide::Unsigned => FieldValue::Unsigned(*number),
            Wide::Integer => FieldValue::Integer((*number).try_into().map_err(|_| ignored::Kind::Other)?),
            Wide::Float => FieldValue::Float(*number as f64),
        },
        Value::Float(number) if number.is_finite() => FieldValue::Float(*number),
        Value::Boolean(value) => FieldValue::Boolean(*value),
        Value::Text(text) => FieldValue::Text(checked(Cow::Borrowed(text))?),
        Value::Bytes(bytes) if options.writes_bytes => FieldValue::Text(checked(Cow::Owned(base64(bytes)))?),
        Value::Array(elements) => FieldValue::Text(checked(Cow::Owned(json(elements)))?),
        Value::Float(_) | Value::Bytes(_) | Value::DataSet(_) | Value::Template(_) => {
            return Err(ignored::Kind::Other);
        }
    }))
}

fn checked(text: Cow<'_, str>) -> Result<Cow<'_, str>, ignored::Kind> {
    if text.len() > TEXT_BYTES_MAX || text.contains('\0') { Err(ignored::Kind::Text) } else { Ok(text) }
}

/// A name that a field can have: what the gateway or this decoder needs gets a `_` behind it, and control characters
/// become one.
pub fn field_name(name: Cow<'_, str>) -> Cow<'_, str> {
    const RESERVED: [&str; 9] =
        ["time", "device_id", "site_id", "group", "edge", "device", "historical", "metric", "row"];
    let has_control = name.bytes().any(|byte| byte < 0x20);
    let needs_end = RESERVED.contains(&name.as_ref()) || name.ends_with('\\') || name.is_empty();
    if !has_control && !needs_end {
        return name;
    }
    let mut name: String = name.chars().map(|c| if (c as u32) < 0x20 { '_' } else { c }).collect();
    if needs_end {
        name.push('_');
    }
    Cow::Owned(name)
}

fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            text.push(match place <= chunk.len() {
                true => char::from(ALPHABET[(word >> (18 - 6 * place)) as usize & 63]),
                false => '=',
            });
        }
    }
    text
}

/// An array as JSON; floats that are not finite are null.
fn json(elements: &[Value<'_>]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("[");
    for (place, element) in elements.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let _ = match element {
            Value::Integer(number) => write!(text, "{number}"),
            Value::Unsigned(number) => write!(text, "{number}"),
            Value::Float(number) if number.is_finite() => write!(text, "{number}"),
            Value::Boolean(value) => write!(text, "{value}"),
            Value::Text(string) => {
                text.push('"');
                for c in string.chars() {
                    let _ = match c {
                        '"' | '\\' => write!(text, "\\{c}"),
                        c if (c as u32) < 0x20 => write!(text, "\\u{:04x}", c as u32),
                        c => write!(text, "{c}"),
                    };
                }
                text.push('"');
                Ok(())
            }
            _ => write!(text, "null"),
        };
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_rfc_4648_has_them() {
        let texts = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, text) in texts.iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), *text);
        }
    }

    #[test]
    fn a_name_that_no_line_carries_is_changed() {
        for (name, expected) in [("time", "time_"), ("a\tb", "a_b"), ("a\\", "a\\_"), ("a b/c", "a b/c")] {
            assert_eq!(field_name(Cow::Borrowed(name)), expected);
        }
    }

    #[test]
    fn arrays_are_json() {
        let array = [Value::Integer(-1), Value::Float(1.5), Value::Float(f64::NAN), Value::Text("a\"\n")];
        assert_eq!(json(&array), r#"[-1,1.5,null,"a\"\u000a"]"#);
    }
}
