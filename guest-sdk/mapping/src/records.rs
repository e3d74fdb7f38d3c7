//! The records of a message: parts of the same form, one behind the other, of which each is a line.

use tidegate_guest::Route;

use crate::byte_source::ByteSource;
use crate::document::Pointer;
use crate::format::Format;
use crate::limits::{OFFSET_MAX, RECORDS_MAX};
use crate::line_rule::{LineRule, LineSettings};
use crate::setting::{Known, Setting};
use crate::value_rule::ValueRule;

/// The number of records in bytes.
#[derive(Clone, Debug)]
pub enum Count {
    /// To the end of the payload.
    Rest,
    Fixed(usize),
    Value(Box<ValueRule>),
}

/// The place of the records.
#[derive(Clone, Debug)]
pub enum RecordsPlace {
    Bytes {
        /// From the start of the payload; `None`: right behind the values of the message.
        at: Option<usize>,
        /// Bytes of each; `None`: a record ends with its last value.
        size: Option<usize>,
        count: Count,
    },
    /// An array of a document.
    Pointer(Pointer),
}

/// The records of a message.
#[derive(Clone, Debug)]
pub struct Records {
    pub place: RecordsPlace,
    pub line: LineRule,
}

impl Records {
    /// # Errors
    /// The key, what is wrong, and what would be right.
    pub fn parse(setting: &Setting, format: Format, usual: (&Route, Option<&str>)) -> Result<Self, String> {
        let lines = ["fields", "tags", "time"];
        let known: &[&str] = match format {
            Format::Bytes => &["at", "size", "count"],
            Format::Csv => {
                return Err(
                    "options.records: every row of CSV is a record: expected fields without records".into()
                );
            }
            _ => &["at"],
        };
        let table = Known::new("records", setting, &[known, &lines].concat())?;
        let settings =
            LineSettings { tags: table.get("tags"), fields: table.get("fields"), time: table.get("time") };
        let place = match format {
            Format::Bytes => bytes_place(&table, settings)?,
            _ => {
                let at = table.text("at")?.ok_or(
                    "options.records: the key at is missing: expected a pointer to the array, as at = \"/readings\"",
                )?;
                let pointer = Pointer::parse(at).map_err(|fault| format!("options.records.at: {fault}"))?;
                RecordsPlace::Pointer(pointer)
            }
        };
        let line = LineRule::parse("records.", settings, format, usual)?;
        if let RecordsPlace::Bytes { size, .. } = &place {
            check_bytes(&line, *size)?;
        }
        Ok(Self { place, line })
    }
}

fn bytes_place(table: &Known<'_>, settings: LineSettings<'_>) -> Result<RecordsPlace, String> {
    if settings.fields.is_none() {
        return Err(
            "options.records: the key fields is missing: expected records.fields.NAME = \"u8@0\"".into()
        );
    }
    let number = |name: &str, least: usize| match table.text(name)? {
        None => Ok(None),
        Some(text) => match text.parse::<usize>() {
            Ok(number) if (least..=OFFSET_MAX).contains(&number) => Ok(Some(number)),
            _ => Err(format!(
                "options.records.{name} is {text:?}: expected a number of {least} to {OFFSET_MAX}"
            )),
        },
    };
    let at = if table.text("at")? == Some("+0") { None } else { number("at", 0)? };
    let count = match table.get("count") {
        None => Count::Rest,
        Some(setting) => match setting.text("records.count")?.parse::<usize>() {
            Ok(count) if (1..=RECORDS_MAX).contains(&count) => Count::Fixed(count),
            Ok(count) => {
                return Err(format!("options.records.count is {count}: expected 1 to {RECORDS_MAX}"));
            }
            Err(_) => {
                let rule = ValueRule::parse("records.count", "count", setting, Format::Bytes, &[])?;
                if !rule.source.bytes().is_some_and(ByteSource::is_whole) {
                    return Err("options.records.count: expected a whole number, as u8@3".into());
                }
                Count::Value(Box::new(rule))
            }
        },
    };
    Ok(RecordsPlace::Bytes { at, size: number("size", 1)?, count })
}

/// Refuses values beyond the end of a record of this size.
fn check_bytes(line: &LineRule, size: Option<usize>) -> Result<(), String> {
    let Some(size) = size else { return Ok(()) };
    for rule in line.values() {
        for source in rule.sources().filter_map(|source| source.bytes()) {
            if let Some(end) = source.fixed_end().filter(|end| *end > size) {
                return Err(format!(
                    "options.{}: it ends at byte {end} of a record of {size} bytes (records.size): expected a value within it",
                    rule.key
                ));
            }
        }
    }
    Ok(())
}
