//! The lines of an object's leaves.

use tidegate_guest::{Line, Lines, Refusal, ignored};

use crate::leaf::Leaf;
use crate::rules::{FieldType, Integers, ObjectRules, Strings, parse_text};
use crate::walk::{Found, Group};

/// Names that the gateway or the database needs for itself.
const RESERVED: [(&str, &str); 3] = [("time", "time_"), ("device_id", "device_id_"), ("site_id", "site_id_")];

/// The name of a joined key in a line.
fn name(key: &str) -> &str {
    RESERVED.iter().find(|(reserved, _)| *reserved == key).map_or(key, |(_, name)| name)
}

/// The leaves of an object.
#[derive(Debug)]
pub(crate) struct Leaves<'w, 'a> {
    /// All joined keys, one behind the other.
    pub keys: &'w str,
    pub found: &'w [Found<'a>],
    pub groups: &'w [Group],
    /// The time of lines that find none.
    pub time_ns: Option<i64>,
}

impl<'w, 'a> Leaves<'w, 'a> {
    fn key(&self, found: &Found<'a>) -> &'w str {
        &self.keys[found.key.clone()]
    }

    /// Writes a line for each group that has a field.
    pub fn write(&self, rules: &ObjectRules, lines: &mut Lines) -> Result<(), Refusal> {
        let mut tags = Vec::new();
        let mut times = vec![None; self.groups.len()];
        let mut fields: Vec<&Found<'_>> = Vec::with_capacity(self.found.len());
        for found in self.found {
            let key = self.key(found);
            if let Some(time) = rules.time.as_ref().filter(|time| time.field == key) {
                times[found.group] = Some(time.time_ns(key, &found.leaf)?);
            } else if rules.tags.iter().any(|tag| tag == key) {
                tags.push(found);
            } else if rules.takes(key) {
                fields.push(found);
            }
        }
        // Groups in their order, and the fields of each in theirs.
        fields.sort_by_key(|found| found.group);
        for fields in fields.chunk_by(|one, next| one.group == next.group) {
            self.write_line(rules, &tags, &times, fields, lines)?;
        }
        Ok(())
    }

    /// Writes the line of one group.
    fn write_line(
        &self,
        rules: &ObjectRules,
        tags: &[&Found<'_>],
        times: &[Option<i64>],
        fields: &[&Found<'_>],
        lines: &mut Lines,
    ) -> Result<(), Refusal> {
        let Some(group) = fields.first().map(|first| first.group) else { return Ok(()) };
        let around = || std::iter::successors(Some(group), |group| self.groups[*group].parent);
        let time_ns = around().find_map(|group| times[group]).or(self.time_ns);
        if let (None, Some(time)) = (time_ns, &rules.time) {
            if time.is_needed {
                let detail = format!("{} is missing or null: expected the time of the message", time.field);
                return Err(Refusal::new("BAD_TIME", detail));
            }
            ignored::record(&time.field, ignored::Kind::Time);
        }
        let mut line = lines.line(&rules.measurement);
        for tag in tags.iter().filter(|tag| around().any(|group| group == tag.group)) {
            line = line.tag(name(&self.keys[tag.key.clone()]), &tag.leaf.as_text());
        }
        for found in fields {
            let key = &self.keys[found.key.clone()];
            line = match rules.pinned(key) {
                Some(pinned) => typed(line, name(key), &found.leaf, pinned)?,
                None => free(rules, line, key, &found.leaf)?,
            };
        }
        match time_ns {
            Some(time_ns) => line.at(time_ns),
            None => line.end(),
        }
    }
}

/// A field whose type nobody pinned.
///
/// # Errors
/// `BAD_NUMBER`: no float has this value.
pub fn free<'l>(
    rules: &ObjectRules,
    line: Line<'l>,
    key: &str,
    leaf: &Leaf<'_>,
) -> Result<Line<'l>, Refusal> {
    match leaf {
        Leaf::Null => Ok(line),
        Leaf::Boolean(value) => Ok(line.boolean(name(key), *value)),
        Leaf::Text(text) => match rules.strings {
            Strings::Parse => match parse_text(text) {
                Some(parsed) => free(rules, line, key, &parsed),
                None => Ok(line.string(name(key), text)),
            },
            Strings::Keep => Ok(line.string(name(key), text)),
        },
        number => free_number(rules, line, key, number),
    }
}

/// A number whose type nobody pinned.
fn free_number<'l>(
    rules: &ObjectRules,
    line: Line<'l>,
    key: &str,
    number: &Leaf<'_>,
) -> Result<Line<'l>, Refusal> {
    let is_integer = match number {
        Leaf::Number(number) => number.is_integer(),
        number => matches!(number, Leaf::Integer(_) | Leaf::Unsigned(_)),
    };
    let name = name(key);
    if is_integer && rules.integers == Integers::Keep {
        return Ok(match number {
            Leaf::Integer(value) => line.integer(name, *value),
            Leaf::Unsigned(value) => match i64::try_from(*value) {
                Ok(value) => line.integer(name, value),
                Err(_) => line.unsigned(name, *value),
            },
            Leaf::Number(number) => line.number(name, number),
            _ => line,
        });
    }
    let loses_digits = match number {
        Leaf::Number(number) => number.as_f64().is_some() && !number.fits_f64(),
        Leaf::Integer(value) => *value as f64 as i128 != i128::from(*value),
        Leaf::Unsigned(value) => *value as f64 as u128 != u128::from(*value),
        _ => false,
    };
    if is_integer && loses_digits && rules.integers == Integers::Auto {
        return Err(Refusal::new(
            "BAD_NUMBER",
            format!(
                "{key} is {}, of which a 64-bit float loses digits: set integers = \"keep\" \
                 (or \"float\" for the nearest one), or send it as a text",
                number.as_text()
            ),
        ));
    }
    match number.as_f64() {
        Some(value) => Ok(line.float(name, value)),
        None => {
            let detail = format!("{key} is {}, outside 64-bit floats", number.as_text());
            Err(Refusal::new("BAD_NUMBER", detail))
        }
    }
}

/// A field of a type that is pinned. A text is read as what it is to be.
///
/// # Errors
/// `BAD_TYPE`: it is no such value.
pub fn typed<'l>(line: Line<'l>, key: &str, leaf: &Leaf<'_>, pinned: FieldType) -> Result<Line<'l>, Refusal> {
    let parsed = match leaf {
        Leaf::Text(text) if pinned != FieldType::String => parse_text(text),
        _ => None,
    };
    let leaf = parsed.as_ref().unwrap_or(leaf);
    let converted = match (pinned, leaf) {
        (_, Leaf::Null) => return Ok(line),
        (FieldType::String, leaf) => return Ok(line.string(key, &leaf.as_text())),
        (FieldType::Boolean, Leaf::Boolean(value)) => return Ok(line.boolean(key, *value)),
        (FieldType::Boolean, number) => match number.as_i64() {
            Some(value @ (0 | 1)) => return Ok(line.boolean(key, value == 1)),
            _ => None,
        },
        (FieldType::Integer, Leaf::Boolean(value)) => Some(Leaf::Integer((*value).into())),
        (FieldType::Integer, number) => number.as_i64().map(Leaf::Integer),
        (FieldType::Float, Leaf::Boolean(value)) => Some(Leaf::Float(f64::from(u8::from(*value)))),
        (FieldType::Float, number) => number.as_f64().map(Leaf::Float),
    };
    match converted {
        Some(Leaf::Integer(value)) => Ok(line.integer(key, value)),
        Some(Leaf::Float(value)) => Ok(line.float(key, value)),
        _ => {
            let detail = format!("{key} is {:?}: expected {}", leaf.as_text(), expected(pinned));
            Err(Refusal::new("BAD_TYPE", detail))
        }
    }
}

fn expected(pinned: FieldType) -> &'static str {
    match pinned {
        FieldType::Float => "a number, because its type is float",
        FieldType::Integer => "a whole number within 64 bits, because its type is integer",
        FieldType::Boolean => "true, false, 0 or 1, because its type is boolean",
        FieldType::String => "a text",
    }
}
