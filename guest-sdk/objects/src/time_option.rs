//! The time of a line, as a value in the payload says it.

use tidegate_guest::time::{parse_iso8601_at, parse_zone};
use tidegate_guest::{Refusal, Route};

use crate::leaf::Leaf;

/// The format of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    Rfc3339,
    /// A unit is ten to this power of nanoseconds.
    Unix(u32),
}

impl TimeFormat {
    /// # Errors
    /// It is none; names those that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "rfc3339" | "iso" => Self::Rfc3339,
            "unix_s" | "s" => Self::Unix(9),
            "unix_ms" | "ms" => Self::Unix(6),
            "unix_us" | "us" => Self::Unix(3),
            "unix_ns" | "ns" => Self::Unix(0),
            _ => return Err("expected rfc3339, unix_s, unix_ms, unix_us or unix_ns".into()),
        })
    }
}

/// The time of a line.
#[derive(Clone, Debug)]
pub struct TimeOption {
    /// The joined key of the value.
    pub field: String,
    pub format: TimeFormat,
    /// True: a message without the value is refused.
    pub is_needed: bool,
    /// Seconds east of UTC, for times that name no zone.
    pub zone_s: i64,
}

impl TimeOption {
    /// Reads the options `time_field`, `time_format`, `time_missing` and `time_zone`.
    ///
    /// # Errors
    /// The option, its value and what would be right.
    pub fn read(route: &Route) -> Result<Option<Self>, String> {
        let option = |key: &str| route.option(key);
        let Some(field) = option("time_field") else {
            return match ["time_format", "time_missing", "time_zone"]
                .into_iter()
                .find(|key| option(key).is_some())
            {
                Some(key) => Err(format!("option {key:?} needs \"time_field\"")),
                None => Ok(None),
            };
        };
        let format = match option("time_format") {
            None => TimeFormat::Rfc3339,
            Some(text) => TimeFormat::parse(text)
                .map_err(|expected| format!("option \"time_format\" is {text:?}: {expected}"))?,
        };
        let is_needed = match option("time_missing") {
            None | Some("receipt") => false,
            Some("refuse") => true,
            Some(other) => {
                return Err(format!("option \"time_missing\" is {other:?}: expected refuse or receipt"));
            }
        };
        let zone_s = match option("time_zone") {
            Some(_) if format != TimeFormat::Rfc3339 => {
                return Err("option \"time_zone\" needs \"time_field\" with the format rfc3339".into());
            }
            None | Some("UTC") => 0,
            Some(zone) => parse_zone(zone).ok_or_else(|| {
                format!("option \"time_zone\" is {zone:?}: expected UTC, or an offset such as +02:00")
            })?,
        };
        Ok(Some(Self { field: field.to_owned(), format, is_needed, zone_s }))
    }

    /// The time that a value says, in nanoseconds.
    ///
    /// # Errors
    /// It says none; names the key and what would be right.
    pub fn time_ns(&self, key: &str, leaf: &Leaf<'_>) -> Result<i64, Refusal> {
        read_time(self.format, self.zone_s, key, leaf)
    }
}

/// The time that a value says, in nanoseconds.
///
/// # Errors
/// It says none; names the key and what would be right.
pub fn read_time(format: TimeFormat, zone_s: i64, key: &str, leaf: &Leaf<'_>) -> Result<i64, Refusal> {
    let bad = |expected: &str| {
        Refusal::new("BAD_TIME", format!("{key} is {}: expected {expected}", leaf.as_text()))
    };
    match (format, leaf) {
        (TimeFormat::Rfc3339, Leaf::Text(text)) => {
            parse_iso8601_at(text.as_bytes(), zone_s).map_err(|_| bad("a time as 2026-01-31T12:00:00Z"))
        }
        (TimeFormat::Rfc3339, _) => Err(bad("a text, as 2026-01-31T12:00:00Z")),
        (TimeFormat::Unix(_), Leaf::Null | Leaf::Boolean(_) | Leaf::Text(_)) => Err(bad("a number")),
        (TimeFormat::Unix(power), number) => {
            number.scaled_ns(power).ok_or_else(|| bad("a time within 64-bit nanoseconds"))
        }
    }
}
