//! The time of a line: a value with its format, and perhaps a base to which it is added.

use tidegate_guest::time::parse_iso8601;
use tidegate_guest::{Refusal, ignored};
use tidegate_objects::{TimeFormat, read_time};

use crate::format::Format;
use crate::observer::{Observer, Role};
use crate::setting::{Known, Setting};
use crate::source::{Found, Part};
use crate::value_rule::ValueRule;

#[derive(Clone, Debug)]
enum Base {
    /// The value is the time.
    None,
    Receipt,
    At(i64),
    Value(Box<ValueRule>),
}

/// The time of a line.
#[derive(Clone, Debug)]
pub struct TimeRule {
    value: ValueRule,
    format: TimeFormat,
    base: Base,
    /// True: a message without the value is refused.
    is_needed: bool,
}

/// Keys of a time beside those of a value.
const KEYS: [&str; 3] = ["format", "base", "missing"];

impl TimeRule {
    /// Reads a time. `usual`: the format where it names none.
    ///
    /// # Errors
    /// The key, what is wrong, and what would be right.
    pub fn parse(key: &str, setting: &Setting, format: Format, usual: Option<&str>) -> Result<Self, String> {
        let value = ValueRule::parse(key, "time", setting, format, &KEYS)?;
        let known = [&["value", "type", "unit", "none", "if"][..], &KEYS].concat();
        let table = match setting {
            Setting::Text(_) => None,
            setting => Some(Known::new(key, setting, &known)?),
        };
        let text = |name: &str| table.as_ref().map_or(Ok(None), |table| table.text(name));
        let time_format = match text("format")?.or(usual) {
            Some(text) => TimeFormat::parse(text)
                .map_err(|expected| format!("options.{key}: the format {text:?}: {expected}"))?,
            None if format == Format::Bytes => {
                return Err(format!(
                    "options.{key}: it has no format: expected {key} = {{ value = \"u32be@0\", format = \"unix_s\" }}"
                ));
            }
            None => TimeFormat::Rfc3339,
        };
        let base = match text("base")? {
            None => Base::None,
            Some(_) if time_format == TimeFormat::Rfc3339 => {
                return Err(format!(
                    "options.{key}.base: it needs a format that counts: expected unix_s or another"
                ));
            }
            Some("receipt") => Base::Receipt,
            Some(text) => match parse_iso8601(text.as_bytes()) {
                Ok(time_ns) if text.len() >= 10 => Base::At(time_ns),
                _ => {
                    let base = Setting::Text(text.to_owned());
                    let key = format!("{key}.base");
                    let rule = ValueRule::parse(&key, "time", &base, format, &[])
                        .map_err(|fault| format!("{fault}; or a time as 2000-01-01T00:00:00Z, or receipt"))?;
                    Base::Value(Box::new(rule))
                }
            },
        };
        let is_needed = match text("missing")? {
            None | Some("receipt") => false,
            Some("refuse") => true,
            Some(other) => {
                return Err(format!("options.{key}.missing is {other:?}: expected refuse or receipt"));
            }
        };
        Ok(Self { value, format: time_format, base, is_needed })
    }

    pub fn values(&self) -> impl Iterator<Item = &ValueRule> {
        let base = if let Base::Value(base) = &self.base { Some(&**base) } else { None };
        std::iter::once(&self.value).chain(base)
    }

    /// The time in a part of a payload, in nanoseconds. None: that of receipt.
    ///
    /// # Errors
    /// `BAD_TIME`, or the payload is too short.
    pub fn time_ns<O: Observer>(
        &self,
        part: &mut Part<'_, '_>,
        received_ns: i64,
        observer: &mut O,
    ) -> Result<Option<i64>, Refusal> {
        let Some(time_ns) = self.read(&self.value, part, observer)? else { return Ok(None) };
        let base = match &self.base {
            Base::None => return Ok(Some(time_ns)),
            Base::Receipt => received_ns,
            Base::At(base) => *base,
            Base::Value(rule) => match self.read(rule, part, observer)? {
                Some(base) => base,
                None => return Ok(None),
            },
        };
        match base.checked_add(time_ns) {
            Some(time_ns) => Ok(Some(time_ns)),
            None => {
                let detail = format!("{}: the sum is outside 64-bit nanoseconds", self.value.key);
                Err(Refusal::new("BAD_TIME", detail))
            }
        }
    }

    fn read<O: Observer>(
        &self,
        rule: &ValueRule,
        part: &mut Part<'_, '_>,
        observer: &mut O,
    ) -> Result<Option<i64>, Refusal> {
        match rule.value(Role::Time, part, observer)? {
            Found::Leaf(leaf) => {
                let number = match (&leaf, self.format) {
                    (tidegate_objects::Leaf::Text(text), TimeFormat::Unix(_)) => {
                        tidegate_objects::parse_text(text)
                    }
                    _ => None,
                };
                read_time(self.format, 0, &rule.key, number.as_ref().unwrap_or(&leaf)).map(Some)
            }
            Found::Container(_) | Found::Missing if self.is_needed => {
                let detail = format!("{} is missing: expected the time of the message", rule.key);
                Err(Refusal::new("BAD_TIME", detail))
            }
            Found::Container(_) | Found::Missing => {
                ignored::record(&rule.key, ignored::Kind::Time);
                Ok(None)
            }
        }
    }
}
