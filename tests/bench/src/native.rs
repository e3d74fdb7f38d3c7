//! The pulse decoder's work done natively with serde_json, for comparison: a streaming visitor that
//! never builds the metrics, and the usual `Value`.

use std::fmt::Write;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Writes one line of telemetry for a payload; the time is taken as milliseconds are written.
pub fn streaming(payload: &[u8], line: &mut String) -> Result<(), serde_json::Error> {
    line.push_str("telemetry seq=");
    let at = line.len();
    let mut deserializer = serde_json::Deserializer::from_slice(payload);
    let envelope = Envelope { line, at }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    line.insert_str(at, &format!("{}i", envelope.seq));
    let _ = write!(line, " {}", envelope.time_ns);
    line.push('\n');
    Ok(())
}

#[derive(Default)]
struct Read {
    seq: i64,
    time_ns: i64,
}

struct Envelope<'a> {
    line: &'a mut String,
    at: usize,
}

impl<'de> DeserializeSeed<'de> for Envelope<'_> {
    type Value = Read;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Envelope<'_> {
    type Value = Read;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
        let _ = self.at;
        let mut read = Read::default();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match key.as_ref() {
                "ts" => {
                    let text: std::borrow::Cow<'de, str> = map.next_value()?;
                    read.time_ns =
                        text.parse::<JiffFree>().map_err(|()| serde::de::Error::custom("expected a time"))?.0;
                }
                "seq" => read.seq = map.next_value()?,
                "metrics" => map.next_value_seed(Metrics { line: self.line })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(read)
    }
}

struct Metrics<'a> {
    line: &'a mut String,
}

impl<'de> DeserializeSeed<'de> for Metrics<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metrics<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("metrics")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            self.line.push(',');
            escape(self.line, &key);
            self.line.push('=');
            map.next_value_seed(Metric { line: self.line })?;
        }
        Ok(())
    }
}

fn escape(line: &mut String, key: &str) {
    for c in key.chars() {
        if matches!(c, ',' | '=' | ' ' | '\\') {
            line.push('\\');
        }
        line.push(c);
    }
}

struct Metric<'a> {
    line: &'a mut String,
}

impl<'de> DeserializeSeed<'de> for Metric<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Metric<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number or a boolean")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.line.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        let _ = write!(self.line, "{value}i");
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        let _ = write!(self.line, "{value}i");
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        let _ = write!(self.line, "{value:?}");
        Ok(())
    }
}

/// Just enough of ISO 8601 for the bench payload: `YYYY-MM-DDTHH:MM:SS.mmmZ`.
struct JiffFree(i64);

impl std::str::FromStr for JiffFree {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |range: std::ops::Range<usize>| -> Result<i64, ()> {
            text.get(range).ok_or(())?.parse().map_err(|_| ())
        };
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let shifted = if month <= 2 { year - 1 } else { year };
        let era = shifted.div_euclid(400);
        let year_of_era = shifted.rem_euclid(400);
        let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        let seconds = days * 86_400 + number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
        Ok(Self(seconds * 1_000_000_000 + number(20..23)? * 1_000_000))
    }
}

/// The same through `serde_json::Value`.
pub fn value(payload: &[u8], line: &mut String) -> Result<(), serde_json::Error> {
    let envelope: Value = serde_json::from_slice(payload)?;
    let _ = write!(line, "telemetry seq={}i", envelope["seq"].as_i64().unwrap_or(0));
    for (key, metric) in envelope["metrics"].as_object().into_iter().flatten() {
        line.push(',');
        escape(line, key);
        let _ = match metric {
            Value::Bool(value) => write!(line, "={value}"),
            Value::Number(number) if number.is_f64() => write!(line, "={:?}", number.as_f64().unwrap_or(0.0)),
            Value::Number(number) => write!(line, "={number}i"),
            _ => Ok(()),
        };
    }
    let time =
        envelope["ts"].as_str().and_then(|text| text.parse::<JiffFree>().ok()).map_or(0, |time| time.0);
    let _ = writeln!(line, " {time}");
    Ok(())
}
