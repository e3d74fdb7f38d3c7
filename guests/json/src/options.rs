//! The options of a route.

use tidegate_guest::time::{parse_iso8601_at, parse_zone};
use tidegate_guest::{Refusal, Route};

use crate::walk::Leaf;

/// The format of the time field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    Rfc3339,
    /// A unit is ten to this power of nanoseconds.
    Unix(u32),
}

/// The form of integers in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// Floats; refused where a float would lose digits.
    Auto,
    /// Floats, whatever is lost.
    Float,
    /// Integers, as they are written.
    Keep,
}

pub struct Options {
    pub measurement: String,
    pub tags: Vec<String>,
    pub integers: Integers,
    pub time_field: Option<String>,
    pub time_format: TimeFormat,
    /// True: a message without the time field is refused.
    pub time_is_needed: bool,
    /// Seconds east of UTC, for times that name no zone.
    zone_s: i64,
    only: Vec<String>,
    ignore: Vec<String>,
}

const KNOWN: [&str; 9] = [
    "measurement",
    "tags",
    "only",
    "ignore",
    "time_field",
    "time_format",
    "time_missing",
    "time_zone",
    "integers",
];

impl Options {
    pub fn read(route: &Route) -> Result<Self, String> {
        route.allow_options(&KNOWN)?;
        let list = |key: &str| -> Vec<String> {
            let text = route.option(key).unwrap_or_default();
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let time_field = route.option("time_field").map(str::to_owned);
        let time_format = match route.option("time_format") {
            Some(_) if time_field.is_none() => {
                return Err("option \"time_format\" needs \"time_field\"".into());
            }
            None | Some("rfc3339") => TimeFormat::Rfc3339,
            Some("unix_s") => TimeFormat::Unix(9),
            Some("unix_ms") => TimeFormat::Unix(6),
            Some("unix_us") => TimeFormat::Unix(3),
            Some("unix_ns") => TimeFormat::Unix(0),
            Some(other) => {
                return Err(format!(
                    "option \"time_format\" is {other:?}: expected rfc3339, unix_s, unix_ms, unix_us or unix_ns"
                ));
            }
        };
        let time_is_needed = match route.option("time_missing") {
            Some(_) if time_field.is_none() => {
                return Err("option \"time_missing\" needs \"time_field\"".into());
            }
            None | Some("receipt") => false,
            Some("refuse") => true,
            Some(other) => {
                return Err(format!("option \"time_missing\" is {other:?}: expected refuse or receipt"));
            }
        };
        let zone_s = match route.option("time_zone") {
            Some(_) if time_field.is_none() || time_format != TimeFormat::Rfc3339 => {
                return Err("option \"time_zone\" needs \"time_field\" with the format rfc3339".into());
            }
            None | Some("UTC") => 0,
            Some(zone) => parse_zone(zone).ok_or_else(|| {
                format!("option \"time_zone\" is {zone:?}: expected UTC, or an offset such as +02:00")
            })?,
        };
        Ok(Self {
            time_is_needed,
            zone_s,
            measurement: route.option("measurement").unwrap_or(&route.message_type).to_owned(),
            tags: list("tags"),
            only: list("only"),
            ignore: list("ignore"),
            integers: match route.option("integers") {
                None | Some("auto") => Integers::Auto,
                Some("float") => Integers::Float,
                Some("keep") => Integers::Keep,
                Some(other) => {
                    return Err(format!("option \"integers\" is {other:?}: expected auto, float or keep"));
                }
            },
            time_field,
            time_format,
        })
    }

    /// True if a joined key becomes a field.
    pub fn takes(&self, key: &str) -> bool {
        let named = |names: &[String]| {
            names.iter().any(|name| {
                key.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            })
        };
        (self.only.is_empty() || named(&self.only)) && !named(&self.ignore)
    }
}

impl Options {
    /// The time that a leaf says, in nanoseconds.
    pub fn read_time(&self, key: &str, leaf: &Leaf<'_>) -> Result<i64, Refusal> {
        let bad = |expected: &str| {
            Refusal::new("BAD_TIME", format!("{key} is {}: expected {expected}", leaf.as_text()))
        };
        match (self.time_format, leaf) {
            (TimeFormat::Rfc3339, Leaf::Text(text)) => parse_iso8601_at(text.as_bytes(), self.zone_s)
                .map_err(|_| bad("a time as 2026-01-31T12:00:00Z")),
            (TimeFormat::Unix(power), Leaf::Number(number)) => {
                number.scaled(power).ok_or_else(|| bad("a time within 64-bit nanoseconds"))
            }
            (TimeFormat::Rfc3339, _) => Err(bad("a text, as 2026-01-31T12:00:00Z")),
            (TimeFormat::Unix(_), _) => Err(bad("a number")),
        }
    }
}
