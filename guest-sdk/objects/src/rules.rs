//! The rules of a route, made of its options.

use std::borrow::Cow;

use tidegate_guest::Route;

use crate::json_text;
use crate::leaf::Leaf;
use crate::time_option::TimeOption;

/// The type of a field in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Float,
    Integer,
    Boolean,
    String,
}

impl FieldType {
    /// # Errors
    /// It is none; names those that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "float" => Self::Float,
            "integer" => Self::Integer,
            "boolean" => Self::Boolean,
            "string" => Self::String,
            _ => return Err("expected float, integer, boolean or string".into()),
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::String => "string",
        }
    }
}

/// The form of integers in the line, where no type is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Integers {
    /// Floats; refused where a float would lose digits.
    #[default]
    Auto,
    /// Floats, whatever is lost.
    Float,
    /// Integers, as they are written.
    Keep,
}

/// The form of texts in the line, where no type is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strings {
    #[default]
    Keep,
    /// Numbers and booleans where the whole text is one.
    Parse,
}

/// The rules of a route.
#[derive(Clone, Debug, Default)]
pub struct ObjectRules {
    pub measurement: String,
    /// Joined keys that become tags.
    pub tags: Vec<String>,
    /// Joined keys of arrays of which each element makes a line.
    pub explode: Vec<String>,
    /// Joined keys and their types.
    pub types: Vec<(String, FieldType)>,
    pub integers: Integers,
    pub strings: Strings,
    pub time: Option<TimeOption>,
    only: Vec<String>,
    ignore: Vec<String>,
}

impl ObjectRules {
    /// The options that `read` knows.
    pub const OPTIONS: [&str; 12] = [
        "measurement",
        "tags",
        "only",
        "ignore",
        "time_field",
        "time_format",
        "time_missing",
        "time_zone",
        "integers",
        "strings",
        "types",
        "explode",
    ];

    /// Reads the options of a route. The caller refuses options that nobody knows.
    ///
    /// # Errors
    /// The option, its value and what would be right.
    pub fn read(route: &Route) -> Result<Self, String> {
        let expected = |key: &str, expected: &str| {
            let value = route.option(key).unwrap_or_default();
            format!("option {key:?} is {value:?}: expected {expected}")
        };
        Ok(Self {
            measurement: route.option("measurement").unwrap_or(&route.message_type).to_owned(),
            tags: names(route, "tags")?,
            explode: names(route, "explode")?,
            only: names(route, "only")?,
            ignore: names(route, "ignore")?,
            types: types(route)?,
            integers: match route.option("integers") {
                None | Some("auto") => Integers::Auto,
                Some("float") => Integers::Float,
                Some("keep") => Integers::Keep,
                Some(_) => return Err(expected("integers", "auto, float or keep")),
            },
            strings: match route.option("strings") {
                None | Some("keep") => Strings::Keep,
                Some("parse") => Strings::Parse,
                Some(_) => return Err(expected("strings", "keep or parse")),
            },
            time: TimeOption::read(route)?,
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

    /// The type that is pinned for a joined key.
    pub fn pinned(&self, key: &str) -> Option<FieldType> {
        self.types.iter().find(|(name, _)| name == key).map(|(_, pinned)| *pinned)
    }
}

/// The number or boolean that a whole text is: `21.5`, `-3`, `true`, `off`. None: another text.
pub fn parse_text(text: &str) -> Option<Leaf<'static>> {
    let text = text.trim_ascii();
    let boolean = [(true, ["true", "on", "yes"]), (false, ["false", "off", "no"])];
    for (value, words) in boolean {
        if words.iter().any(|word| text.eq_ignore_ascii_case(word)) {
            return Some(Leaf::Boolean(value));
        }
    }
    // Not what Rust also takes: inf, nan, and a lone point.
    let has_digits_only = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let begins = text.trim_start_matches(['+', '-']).bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    if !has_digits_only || !begins {
        return None;
    }
    if let Ok(number) = text.parse() {
        return Some(Leaf::Integer(number));
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Leaf::Float)
}

/// A list of names: a list of JSON, or separated by commas.
fn names(route: &Route, key: &str) -> Result<Vec<String>, String> {
    let text = route.option(key).unwrap_or_default();
    if text.starts_with('[') {
        return json_text::texts(text).ok_or_else(|| format!("option {key:?}: expected a list of texts"));
    }
    Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

fn types(route: &Route) -> Result<Vec<(String, FieldType)>, String> {
    let Some(text) = route.option("types") else { return Ok(Vec::new()) };
    let members = json_text::text_members(text)
        .ok_or("option \"types\": expected a table, as types.count = \"integer\"")?;
    let pinned = |(key, name): (String, Cow<'_, str>)| match FieldType::parse(&name) {
        Ok(pinned) => Ok((key, pinned)),
        Err(expected) => Err(format!("option \"types.{key}\" is {name:?}: {expected}")),
    };
    members.into_iter().map(pinned).collect()
}
