//! The values of one line: of the message, or of each of its records.

use tidegate_guest::{Line, Lines, Refusal, Route, ignored};
use tidegate_objects::{Container, FieldType, Leaf, ObjectRules, Objects, free, typed};

use crate::document::{Document, NodeId};
use crate::format::Format;
use crate::observer::{Observer, Role};
use crate::plain_number::PlainValue;
use crate::setting::Setting;
use crate::source::{Found, Part, cell};
use crate::time_rule::TimeRule;
use crate::value_rule::ValueRule;

/// Names that the gateway writes itself, or reads as credentials.
const RESERVED: [&str; 5] = ["time", "tenant_id", "device_id", "site_id", "provision_token"];

/// The values of one line.
#[derive(Clone, Debug, Default)]
pub struct LineRule {
    pub tags: Vec<ValueRule>,
    /// The fields; `None`: all values, by the rules of objects.
    pub fields: Option<Vec<ValueRule>>,
    pub time: Option<TimeRule>,
    pub objects: ObjectRules,
}

/// The line around records: what holds for theirs too.
#[derive(Clone, Debug, Default)]
pub struct Around {
    pub tags: Vec<(String, String)>,
    pub time_ns: Option<i64>,
}

/// The settings of a line.
#[derive(Clone, Copy, Debug)]
pub struct LineSettings<'s> {
    pub tags: Option<&'s Setting>,
    pub fields: Option<&'s Setting>,
    pub time: Option<&'s Setting>,
}

impl LineRule {
    /// `prefix`: what stands before a key in texts about it, such as `records.`.
    ///
    /// # Errors
    /// The key, what is wrong, and what would be right.
    pub fn parse(
        prefix: &str,
        settings: LineSettings<'_>,
        format: Format,
        (route, usual_time): (&Route, Option<&str>),
    ) -> Result<Self, String> {
        let rules = |kind: &str, setting: &Setting| {
            let table_key = format!("{prefix}{kind}");
            let mut rules = Vec::new();
            for (name, setting) in setting.table(&table_key)? {
                rules.push(ValueRule::parse(&format!("{table_key}.{name}"), name, setting, format, &[])?);
            }
            match rules.is_empty() {
                true => Err(format!("options.{table_key}: an empty table: expected {kind}.NAME = \"…\"")),
                false => Ok(rules),
            }
        };
        let tags = settings.tags.map(|setting| rules("tags", setting)).transpose()?.unwrap_or_default();
        let fields = settings.fields.map(|setting| rules("fields", setting)).transpose()?;
        let time = settings
            .time
            .map(|setting| TimeRule::parse(&format!("{prefix}time"), setting, format, usual_time));
        let mut objects = ObjectRules::read(route).map_err(|why| format!("options: {why}"))?;
        let all: Vec<&ValueRule> = tags.iter().chain(fields.iter().flatten()).collect();
        for (index, rule) in all.iter().enumerate() {
            if RESERVED.contains(&rule.name.as_str()) || rule.name.is_empty() {
                return Err(format!(
                    "options.{}: the name {:?} is the gateway's: expected another, as {}_",
                    rule.key, rule.name, rule.name
                ));
            }
            if let Some(other) = all[..index].iter().find(|other| other.name == rule.name) {
                return Err(format!(
                    "options.{}: it has the name of options.{}: expected another",
                    rule.key, other.key
                ));
            }
            objects.types.extend(rule.pinned.map(|pinned| (rule.name.clone(), pinned)));
        }
        objects.tags.extend(tags.iter().map(|tag| tag.name.clone()));
        Ok(Self { tags, fields, time: time.transpose()?, objects })
    }

    /// All values, those of the time too.
    pub fn values(&self) -> impl Iterator<Item = &ValueRule> {
        let times = self.time.iter().flat_map(TimeRule::values);
        self.tags.iter().chain(self.fields.iter().flatten()).chain(times)
    }

    /// Writes the line of bytes, if it has a field. Gives the time, and the tags where `keeps_tags`.
    ///
    /// # Errors
    /// A value that is not there, or is none of its type.
    pub fn write_bytes<O: Observer>(
        &self,
        part: &mut Part<'_, '_>,
        (around, received_ns): (&Around, i64),
        keeps_tags: bool,
        lines: &mut Lines,
        observer: &mut O,
    ) -> Result<Around, Refusal> {
        let mut kept = Around::default();
        let mut line = lines.line(&self.objects.measurement);
        for (name, value) in &around.tags {
            line = line.tag(name, value);
        }
        for rule in &self.tags {
            if let Found::Leaf(leaf) = rule.value(Role::Tag, part, observer)? {
                let text = leaf.as_text();
                line = line.tag(&rule.name, &text);
                if keeps_tags {
                    kept.tags.push((rule.name.clone(), text.into_owned()));
                }
            }
        }
        let mut fields = 0;
        for rule in self.fields.iter().flatten() {
            if !O::SEES
                && let (Some(plain), Part::Bytes(bytes)) = (&rule.plain, &mut *part)
                && let Some(value) = plain.read(bytes)
            {
                line = match value {
                    PlainValue::Float(value) => line.float(&rule.name, value),
                    PlainValue::Integer(value) => line.integer(&rule.name, value),
                    PlainValue::Boolean(value) => line.boolean(&rule.name, value),
                    PlainValue::Nothing => continue,
                };
                fields += 1;
                continue;
            }
            match rule.value(Role::Field, part, observer)? {
                Found::Leaf(Leaf::Float(value)) if !value.is_finite() => {
                    ignored::record(&rule.name, ignored::Kind::Other);
                }
                Found::Leaf(leaf) => {
                    line = self.field(line, rule, &leaf)?;
                    fields += 1;
                }
                Found::Container(_) | Found::Missing => {}
            }
        }
        let own =
            self.time.as_ref().map(|time| time.time_ns(part, received_ns, observer)).transpose()?.flatten();
        kept.time_ns = own.or(around.time_ns);
        if fields > 0 {
            match kept.time_ns {
                Some(time_ns) => line.at(time_ns)?,
                None => line.end()?,
            }
        }
        Ok(kept)
    }

    #[inline]
    fn field<'l>(&self, line: Line<'l>, rule: &ValueRule, leaf: &Leaf<'_>) -> Result<Line<'l>, Refusal> {
        /// Whole numbers up to here are floats without loss.
        const EXACT_MAX: u64 = 1 << 53;
        match (rule.pinned, leaf) {
            (None | Some(FieldType::Float), Leaf::Float(value)) => Ok(line.float(&rule.name, *value)),
            (None | Some(FieldType::Float), Leaf::Integer(value)) if value.unsigned_abs() <= EXACT_MAX => {
                Ok(line.float(&rule.name, *value as f64))
            }
            (Some(FieldType::Integer), Leaf::Integer(value)) => Ok(line.integer(&rule.name, *value)),
            (Some(pinned), leaf) => typed(line, &rule.name, leaf, pinned),
            (None, leaf) => free(&self.objects, line, &rule.name, leaf),
        }
    }

    /// Writes the lines of a part of a document or of a row, by the rules of objects. Gives what holds for its records.
    ///
    /// # Errors
    /// A value that is none of its type, or a ceiling.
    pub fn write_object<'a, O: Observer>(
        &self,
        part: &mut Part<'_, 'a>,
        (around, received_ns): (&Around, i64),
        writes: bool,
        lines: &mut Lines,
        observer: &mut O,
    ) -> Result<Around, Refusal> {
        let mut kept = around.clone();
        let mut rules = None;
        if !around.tags.is_empty() {
            let rules: &mut ObjectRules = rules.insert(self.objects.clone());
            rules.tags.extend(around.tags.iter().map(|(name, _)| name.clone()));
        }
        let rules = rules.as_ref().unwrap_or(&self.objects);
        let mut objects = Objects::default();
        let mut walk = objects.walk(rules);
        let own =
            self.time.as_ref().map(|time| time.time_ns(part, received_ns, observer)).transpose()?.flatten();
        kept.time_ns = own.or(around.time_ns);
        walk.set_time(kept.time_ns);
        walk.begin(Container::Object)?;
        for (name, value) in &around.tags {
            walk.key(name);
            walk.leaf(Leaf::Text(value.clone().into()))?;
        }
        for rule in &self.tags {
            if let Found::Leaf(leaf) = rule.value(Role::Tag, part, observer)? {
                walk.key(&rule.name);
                kept.tags.push((rule.name.clone(), leaf.as_text().into_owned()));
                walk.leaf(leaf)?;
            }
        }
        if !writes {
            return Ok(kept);
        }
        let Some(fields) = &self.fields else {
            push_all(part, &mut walk)?;
            walk.end();
            walk.finish(lines)?;
            return Ok(kept);
        };
        for rule in fields {
            match (rule.value(Role::Field, part, observer)?, &*part) {
                (Found::Leaf(leaf), _) => {
                    walk.key(&rule.name);
                    walk.leaf(leaf)?;
                }
                (Found::Container(at), Part::Document { document, .. }) => {
                    walk.key(&rule.name);
                    document.push(at, &mut walk)?;
                }
                _ => {}
            }
        }
        walk.end();
        walk.finish(lines)?;
        Ok(kept)
    }
}

/// Walks all values of a part, as members of the object that was begun.
fn push_all<'a>(part: &Part<'_, 'a>, walk: &mut tidegate_objects::Walk<'_, 'a>) -> Result<(), Refusal> {
    match part {
        Part::Document { document, at } => push_members(document, *at, walk),
        Part::Row { header, row } => header.iter().zip(*row).try_for_each(|(name, text)| {
            walk.key(name);
            walk.leaf(cell(text))
        }),
        Part::Bytes(_) => Ok(()),
    }
}

fn push_members<'a>(
    document: &Document<'a>,
    at: NodeId,
    walk: &mut tidegate_objects::Walk<'_, 'a>,
) -> Result<(), Refusal> {
    match document.container(at) {
        Some(Container::Object) => document.push_members(at, walk),
        // An element of records that is one value.
        _ => {
            walk.key("value");
            document.push(at, walk)
        }
    }
}
