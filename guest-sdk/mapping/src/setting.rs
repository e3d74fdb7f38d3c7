//! The options of a mapping as a tree. Tables and lists of a route file arrive as JSON.

use tidegate_guest::Route;
use tidegate_guest::json::{Kind, Reader};

/// A value of an option.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// A text, or a number or boolean as it was written.
    Text(String),
    List(Vec<Setting>),
    Table(Vec<(String, Setting)>),
}

impl Setting {
    /// The option of a route. A text that looks like a table or a list is one.
    ///
    /// # Errors
    /// It is a broken one.
    pub fn of_route(route: &Route, key: &str) -> Result<Option<Self>, String> {
        let Some(text) = route.option(key) else { return Ok(None) };
        if !text.starts_with(['{', '[']) {
            return Ok(Some(Self::Text(text.to_owned())));
        }
        let mut reader = Reader::new(text.as_bytes());
        match value(&mut reader).filter(|_| reader.end().is_ok()) {
            Some(setting) => Ok(Some(setting)),
            None => Err(format!("options.{key}: expected a TOML table or list")),
        }
    }

    pub fn text(&self, key: &str) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(format!("options.{key}: expected a text")),
        }
    }

    pub fn table(&self, key: &str) -> Result<&[(String, Setting)], String> {
        match self {
            Self::Table(members) => Ok(members),
            _ => Err(format!("options.{key}: expected a table")),
        }
    }

    /// A list, or one value as a list of one.
    pub fn list(&self) -> &[Setting] {
        match self {
            Self::List(values) => values,
            value => std::slice::from_ref(value),
        }
    }
}

fn value(reader: &mut Reader<'_>) -> Option<Setting> {
    Some(match reader.peek().ok()? {
        Kind::Object => {
            let mut members = Vec::new();
            reader.object().ok()?;
            while let Some(key) = reader.next_key().ok()? {
                members.push((key.decode().into_owned(), value(reader)?));
            }
            Setting::Table(members)
        }
        Kind::Array => {
            let mut values = Vec::new();
            reader.array().ok()?;
            while reader.next_element().ok()? {
                values.push(value(reader)?);
            }
            Setting::List(values)
        }
        Kind::String => Setting::Text(reader.string().ok()?.decode().into_owned()),
        Kind::Null | Kind::Bool | Kind::Number => Setting::Text(reader.skip_value().ok()?.to_owned()),
    })
}

/// A table whose keys are known.
#[derive(Debug)]
pub struct Known<'s> {
    pub key: &'s str,
    members: &'s [(String, Setting)],
}

impl<'s> Known<'s> {
    /// # Errors
    /// It is no table, or has another key.
    pub fn new(key: &'s str, setting: &'s Setting, known: &[&str]) -> Result<Self, String> {
        let members = setting.table(key)?;
        match members.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(format!(
                "options.{key}.{name}: there is no such key; expected one of {}",
                known.join(", ")
            )),
            None => Ok(Self { key, members }),
        }
    }

    pub fn get(&self, name: &str) -> Option<&'s Setting> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, setting)| setting)
    }

    /// The text of a key.
    ///
    /// # Errors
    /// It is a list or a table.
    pub fn text(&self, name: &str) -> Result<Option<&'s str>, String> {
        self.get(name).map(|setting| setting.text(&format!("{}.{name}", self.key))).transpose()
    }
}

/// A whole number, in decimal or as `0x7fff`.
pub fn whole(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => i128::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with(['+', '-']))?,
        None => digits.parse().ok().filter(|_| !digits.starts_with(['+', '-']))?,
    };
    Some(sign * number)
}
