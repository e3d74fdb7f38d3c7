//! One value of a mapping: where it stands, what is done to it, and what it becomes.

use tidegate_guest::Refusal;
use tidegate_objects::{FieldType, Leaf, parse_text};

use crate::condition::Condition;
use crate::format::Format;
use crate::observer::{ObservedValue, Observer, Role};
use crate::plain_number::PlainNumber;
use crate::scale::Scale;
use crate::setting::{Known, Setting, whole};
use crate::source::{Found, Part, Source, first_word};

/// A value that means none.
#[derive(Clone, Debug, PartialEq)]
enum NoValue {
    Whole(i128),
    Number(f64),
    Text(String),
}

/// One value of a mapping.
#[derive(Clone, Debug)]
pub struct ValueRule {
    /// The option, for texts about it: `fields.temp`.
    pub key: String,
    /// The name in the line.
    pub name: String,
    pub source: Source,
    pub pinned: Option<FieldType>,
    /// The short way to the value, if there is one.
    pub plain: Option<PlainNumber>,
    scale: Scale,
    no_values: Vec<NoValue>,
    condition: Option<Condition>,
}

/// Keys of a value that is a table.
const KEYS: [&str; 5] = ["value", "type", "unit", "none", "if"];

impl ValueRule {
    /// Reads a value: `u16be@6 * 0.1`, or a table with more. `more` are keys that the caller reads.
    ///
    /// # Errors
    /// The key, what is wrong, and what would be right.
    pub fn parse(
        key: &str,
        name: &str,
        setting: &Setting,
        format: Format,
        more: &[&str],
    ) -> Result<Self, String> {
        let known: Vec<&str> = KEYS.iter().chain(more).copied().collect();
        let table = match setting {
            Setting::Text(_) => None,
            setting => Some(Known::new(key, setting, &known)?),
        };
        let text = match &table {
            None => setting.text(key)?,
            Some(table) => table.text("value")?.ok_or_else(|| {
                format!("options.{key}: the key value is missing: expected where it stands, as value = \"u16be@6\"")
            })?,
        };
        let at_key = |fault: String| format!("options.{key}: {text:?}: {fault}");
        let (source, rest) = first_word(text).map_err(at_key)?;
        let mut rule = Self {
            key: key.to_owned(),
            name: name.to_owned(),
            source: Source::parse(source, format).map_err(at_key)?,
            pinned: None,
            plain: None,
            scale: Scale::parse(rest).map_err(at_key)?,
            no_values: Vec::new(),
            condition: None,
        };
        if let Some(source) = rule.source.bytes()
            && !source.is_number()
            && !rule.scale.is_identity()
        {
            return Err(at_key("arithmetic with a value that is no number".into()));
        }
        if let Some(table) = &table {
            rule.read_table(table, format)?;
        }
        rule.check_type().map_err(|fault| format!("options.{key}.type: {fault}"))?;
        rule.plain = rule.plain_number();
        Ok(rule)
    }

    fn plain_number(&self) -> Option<PlainNumber> {
        let source = self.source.bytes()?.plain().filter(|_| self.condition.is_none())?;
        let no_value = |none: &NoValue| match none {
            NoValue::Whole(none) => i64::try_from(*none).ok(),
            NoValue::Number(_) | NoValue::Text(_) => None,
        };
        let no_values = self.no_values.iter().map(no_value).collect::<Option<Vec<_>>>()?;
        PlainNumber::new(source, self.scale, no_values, self.pinned)
    }

    fn read_table(&mut self, table: &Known<'_>, format: Format) -> Result<(), String> {
        let key = table.key;
        if let Some(text) = table.text("type")? {
            let pinned = FieldType::parse(text);
            self.pinned =
                Some(pinned.map_err(|expected| format!("options.{key}.type is {text:?}: {expected}"))?);
        }
        if let Some(unit) = table.text("unit")?.filter(|unit| !unit.is_empty()) {
            self.name = format!("{}_{unit}", self.name);
        }
        if let Some(text) = table.text("if")? {
            let condition = Condition::parse(text, format);
            self.condition = Some(condition.map_err(|fault| format!("options.{key}.if: {text:?}: {fault}"))?);
        }
        for value in table.get("none").map_or(&[][..], Setting::list) {
            let text = value.text(&format!("{key}.none"))?;
            self.no_values.push(self.no_value(text).map_err(|fault| format!("options.{key}.none: {fault}"))?);
        }
        Ok(())
    }

    fn no_value(&self, text: &str) -> Result<NoValue, String> {
        let Some(pattern) = whole(text) else {
            return Ok(text.parse().map_or_else(|_| NoValue::Text(text.to_owned()), NoValue::Number));
        };
        let Some(source) = self.source.bytes().filter(|source| source.is_number()) else {
            return Ok(NoValue::Whole(pattern));
        };
        source
            .of_pattern(pattern)
            .map(NoValue::Whole)
            .ok_or_else(|| format!("{text} is no value that {:?} can have", self.key))
    }

    fn check_type(&self) -> Result<(), String> {
        let is_whole = self.source.bytes().is_none_or(|source| source.is_whole() || source.is_boolean());
        if self.pinned == Some(FieldType::Integer) && !(self.scale.is_whole() && is_whole) {
            return Err("integer needs a whole number, with whole arithmetic: expected float".into());
        }
        let is_number = self.source.bytes().is_some_and(|source| source.is_number());
        if self.pinned == Some(FieldType::Boolean) && is_number && !self.scale.is_identity() {
            return Err("boolean needs a bit, or a number that is 0 or 1: expected float".into());
        }
        Ok(())
    }

    /// The sources that it reads: its own, and that of its condition.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        std::iter::once(&self.source).chain(self.condition.as_ref().map(Condition::source))
    }

    /// The value in a part of a payload. A container is given as it is found.
    ///
    /// # Errors
    /// The payload is too short, or the value is no number and must be one.
    #[inline]
    pub fn value<'a, O: Observer>(
        &self,
        role: Role,
        part: &mut Part<'_, 'a>,
        observer: &mut O,
    ) -> Result<Found<'a>, Refusal> {
        match self.read(role, part, observer) {
            Err(refusal) if O::SEES => {
                observer.refused(&self.key, &refusal);
                Err(refusal)
            }
            found => found,
        }
    }

    #[inline]
    fn read<'a, O: Observer>(
        &self,
        role: Role,
        part: &mut Part<'_, 'a>,
        observer: &mut O,
    ) -> Result<Found<'a>, Refusal> {
        if let Some(condition) = &self.condition
            && !condition.holds(part, &self.key)?
        {
            return Ok(Found::Missing);
        }
        let (found, place) = self.source.find(part, &self.key)?;
        let Found::Leaf(leaf) = found else {
            if O::SEES {
                let value = matches!(found, Found::Container(_)).then_some(&Leaf::Null);
                observer.see(ObservedValue { role, name: &self.name, place, raw: &Leaf::Null, value });
            }
            return Ok(found);
        };
        let is_none = matches!(leaf, Leaf::Null) || self.means_none(&leaf);
        let raw = if O::SEES { Some(leaf.clone()) } else { None };
        let value = if is_none { None } else { Some(self.scaled(leaf)?) };
        if let Some(raw) = &raw {
            observer.see(ObservedValue { role, name: &self.name, place, raw, value: value.as_ref() });
        }
        Ok(value.map_or(Found::Missing, Found::Leaf))
    }

    #[inline]
    fn scaled<'a>(&self, leaf: Leaf<'a>) -> Result<Leaf<'a>, Refusal> {
        if self.scale.is_identity() {
            return Ok(leaf);
        }
        let number = match &leaf {
            Leaf::Text(text) => parse_text(text).filter(|parsed| parsed.as_f64().is_some()),
            leaf if leaf.as_f64().is_some() => return Ok(self.scale.apply(leaf.clone())),
            _ => None,
        };
        match number {
            Some(number) => Ok(self.scale.apply(number)),
            None => {
                let detail = format!("{} is {:?}: expected a number", self.key, leaf.as_text());
                Err(Refusal::new("BAD_TYPE", detail))
            }
        }
    }

    fn means_none(&self, leaf: &Leaf<'_>) -> bool {
        self.no_values.iter().any(|none| match none {
            NoValue::Whole(none) => match leaf {
                Leaf::Integer(value) => i128::from(*value) == *none,
                Leaf::Unsigned(value) => i128::from(*value) == *none,
                Leaf::Text(text) => whole(text) == Some(*none),
                leaf => leaf.as_f64() == Some(*none as f64),
            },
            NoValue::Number(none) => leaf.as_f64() == Some(*none),
            NoValue::Text(none) => matches!(leaf, Leaf::Text(text) if text == none),
        })
    }
}
