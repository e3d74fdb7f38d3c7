//! A mapping: the options of a route, read once.

use tidegate_guest::Route;
use tidegate_objects::ObjectRules;

use crate::format::Format;
use crate::limits::OFFSET_MAX;
use crate::line_rule::{LineRule, LineSettings};
use crate::records::Records;
use crate::setting::Setting;

/// The lengths that a payload may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadBytes {
    pub least: usize,
    pub most: Option<usize>,
}

/// A mapping of payloads to lines.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub(crate) format: Format,
    pub(crate) payload_bytes: Option<PayloadBytes>,
    pub(crate) line: LineRule,
    pub(crate) records: Option<Records>,
    pub(crate) delimiter: u8,
    /// The columns of CSV without a header.
    pub(crate) header: Option<Vec<String>>,
}

const OPTIONS: [&str; 9] =
    ["format", "fields", "time", "time_format", "records", "payload_bytes", "delimiter", "header", "tags"];

impl Mapping {
    /// Reads the options of a route.
    ///
    /// # Errors
    /// The key, what is wrong, and what would be right.
    pub fn read(route: &Route) -> Result<Self, String> {
        let mut known: Vec<&str> = ObjectRules::OPTIONS.iter().chain(&OPTIONS).copied().collect();
        known.sort_unstable();
        known.dedup();
        route.allow_options(&known)?;
        let format = match route.option("format") {
            None => Format::Bytes,
            Some(text) => {
                Format::parse(text).map_err(|expected| format!("options.format is {text:?}: {expected}"))?
            }
        };
        let setting = |key: &str| Setting::of_route(route, key);
        let (tags, fields, time) = (setting("tags")?, setting("fields")?, setting("time")?);
        let (records, usual) = (setting("records")?, route.option("time_format"));
        if format == Format::Bytes && fields.is_none() && records.is_none() {
            return Err("options.fields: it is missing: expected fields.NAME = \"u16be@6\"".into());
        }
        // What the rules of objects read is theirs where no value is named, and the mapping's where values are.
        let is_whole = fields.is_none() && records.is_none();
        let tags = tags.filter(|tags| !is_whole || matches!(tags, Setting::Table(_)));
        let rules = object_route(route, format, is_whole && tags.is_none(), time.is_some())?;
        let settings = LineSettings { tags: tags.as_ref(), fields: fields.as_ref(), time: time.as_ref() };
        let mapping = Self {
            format,
            payload_bytes: payload_bytes(route, format)?,
            line: LineRule::parse("", settings, format, (&rules, usual))?,
            records: records.map(|records| Records::parse(&records, format, (&rules, usual))).transpose()?,
            delimiter: delimiter(route, format)?,
            header: header(route, format)?,
        };
        mapping.check_bytes()?;
        mapping.check_header()?;
        Ok(mapping)
    }

    /// Refuses values beyond the end of every payload.
    fn check_bytes(&self) -> Result<(), String> {
        let Some(most) = self.payload_bytes.and_then(|bytes| bytes.most) else { return Ok(()) };
        for rule in self.line.values() {
            for source in rule.sources().filter_map(|source| source.bytes()) {
                if let Some(end) = source.fixed_end().filter(|end| *end > most) {
                    return Err(format!(
                        "options.{}: it ends at byte {end} of a payload of {most} bytes (payload_bytes): expected a value \
                         within it",
                        rule.key
                    ));
                }
            }
        }
        Ok(())
    }

    /// Refuses columns that the header of the options does not name.
    fn check_header(&self) -> Result<(), String> {
        let Some(header) = &self.header else { return Ok(()) };
        for rule in self.line.values() {
            for source in rule.sources() {
                if let crate::source::Source::Column(name) = source
                    && !header.contains(name)
                {
                    return Err(format!(
                        "options.{}: there is no column {name:?}: expected one of {}",
                        rule.key,
                        header.join(", ")
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The options for the rules of objects.
fn object_route(route: &Route, format: Format, is_whole: bool, has_time: bool) -> Result<Route, String> {
    let mut rules = route.clone();
    let of_whole = ["only", "ignore", "time_field", "time_missing", "time_zone"];
    if let Some(key) = of_whole.into_iter().find(|key| route.option(key).is_some() && (!is_whole || has_time))
    {
        return Err(format!(
            "options.{key}: it is for payloads without fields, records and time: expected time = {{ … }} for a time"
        ));
    }
    if !is_whole || has_time {
        rules.options.retain(|(key, _)| key != "tags" && key != "time_format");
    }
    if format == Format::Csv && route.option("strings").is_none() {
        rules.options.push(("strings".into(), "parse".into()));
    }
    Ok(rules)
}

/// True for an option that only one format has.
fn only_for(route: &Route, key: &str, format: Format, only: Format) -> Result<bool, String> {
    match route.option(key) {
        Some(_) if format != only => Err(format!(
            "options.{key}: it is for the format {only:?}: expected it with another format, or left out"
        )
        .replace("another format", "that format")),
        option => Ok(option.is_some()),
    }
}

fn payload_bytes(route: &Route, format: Format) -> Result<Option<PayloadBytes>, String> {
    if !only_for(route, "payload_bytes", format, Format::Bytes)? {
        return Ok(None);
    }
    let text = route.option("payload_bytes").unwrap_or_default();
    let number =
        |text: &str| text.trim().parse::<usize>().ok().filter(|bytes| (1..=OFFSET_MAX).contains(bytes));
    let (least, most) = match text.split_once("..") {
        None => (number(text), number(text).map(Some)),
        Some((least, "")) => (number(least), Some(None)),
        Some((least, most)) => (number(least), number(most).map(Some)),
    };
    match (least, most) {
        (Some(least), Some(most)) if most.is_none_or(|most| most >= least) => {
            Ok(Some(PayloadBytes { least, most }))
        }
        _ => Err(format!(
            "options.payload_bytes is {text:?}: expected a number of bytes, as 10, \"10..\" or \"4..10\""
        )),
    }
}

fn delimiter(route: &Route, format: Format) -> Result<u8, String> {
    if !only_for(route, "delimiter", format, Format::Csv)? {
        return Ok(b',');
    }
    match route.option("delimiter").unwrap_or_default() {
        "tab" | "\t" => Ok(b'\t'),
        text => match text.as_bytes() {
            [byte @ (b',' | b';' | b'|' | b' ')] => Ok(*byte),
            _ => Err(format!("options.delimiter is {text:?}: expected one of , ; | tab, or a blank")),
        },
    }
}

fn header(route: &Route, format: Format) -> Result<Option<Vec<String>>, String> {
    if !only_for(route, "header", format, Format::Csv)? {
        return Ok(None);
    }
    let setting = Setting::of_route(route, "header")?;
    let names: Vec<String> = match &setting {
        Some(Setting::Text(text)) => text.split(',').map(|name| name.trim().to_owned()).collect(),
        Some(setting) => {
            let names = setting.list().iter().map(|name| Ok(name.text("header")?.to_owned()));
            names.collect::<Result<_, String>>()?
        }
        None => Vec::new(),
    };
    if names.iter().any(String::is_empty) {
        return Err("options.header: a column without a name: expected names, as \"time,temp\"".into());
    }
    Ok(Some(names))
}
