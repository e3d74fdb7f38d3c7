//! A result of a script, taken out of the engine.

use tidegate_guest::float;

use crate::engine::Name;
use crate::fault::Fault;
use crate::limits::{DEPTH_MAX, VALUES_MAX};
use crate::value::{Kind, Value};

/// A value as JSON has them.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Null,
    Boolean(bool),
    Number(f64),
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// The reason for which a result cannot be taken.
#[derive(Debug)]
pub enum TreeFault {
    Thrown(Fault),
    TooDeep,
    TooMany,
}

impl From<Fault> for TreeFault {
    fn from(fault: Fault) -> Self {
        Self::Thrown(fault)
    }
}

/// Takes values out of the engine, as `JSON.stringify` would.
pub struct TreeReader {
    to_json: Name,
    left: usize,
}

impl TreeReader {
    pub fn new(to_json: Name) -> Self {
        Self { to_json, left: VALUES_MAX }
    }

    /// Takes a value. None: JSON has none such, as of a function.
    ///
    /// # Errors
    /// The value throws when it is looked at, or is too large.
    pub fn read(&mut self, value: &Value<'_>) -> Result<Option<Tree>, TreeFault> {
        self.read_at(value, 0)
    }

    fn read_at(&mut self, value: &Value<'_>, depth: usize) -> Result<Option<Tree>, TreeFault> {
        self.left = self.left.checked_sub(1).ok_or(TreeFault::TooMany)?;
        if depth > DEPTH_MAX {
            return Err(TreeFault::TooDeep);
        }
        Ok(Some(match value.kind() {
            Kind::Undefined | Kind::Function | Kind::Symbol => return Ok(None),
            Kind::Null => Tree::Null,
            Kind::Boolean(boolean) => Tree::Boolean(boolean),
            Kind::Number(number) => Tree::Number(number),
            Kind::BigInt => Tree::Number(value.to_text()?.parse().unwrap_or(f64::NAN)),
            Kind::Text => Tree::Text(value.to_text()?),
            Kind::Array | Kind::TypedArray => {
                let length = value.length()?;
                let mut list = Vec::with_capacity((length as usize).min(self.left));
                for index in 0..length {
                    list.push(self.read_at(&value.at(index)?, depth + 1)?.unwrap_or(Tree::Null));
                }
                Tree::List(list)
            }
            Kind::Date | Kind::Promise | Kind::Object => {
                let to_json = value.get(self.to_json)?;
                if matches!(to_json.kind(), Kind::Function) {
                    let shown = value.call_method(&to_json)?;
                    return self.read_at(&shown, depth + 1);
                }
                let mut members = Vec::new();
                value.members(|name, member| {
                    if let Some(member) = self.read_at(&member, depth + 1)? {
                        members.push((name.to_owned(), member));
                    }
                    Ok::<_, TreeFault>(())
                })?;
                Tree::Object(members)
            }
        }))
    }
}

impl Tree {
    /// Appends this as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Boolean(boolean) => out.extend_from_slice(if *boolean { b"true" } else { b"false" }),
            Self::Number(number) if number.is_finite() => float::write(*number, out),
            Self::Number(_) => out.extend_from_slice(b"null"),
            Self::Text(text) => write_text(text, out),
            Self::List(list) => write_all(list, *b"[]", out, Self::write),
            Self::Object(members) => write_all(members, *b"{}", out, |(name, member), out| {
                write_text(name, out);
                out.push(b':');
                member.write(out);
            }),
        }
    }
}

fn write_all<T>(all: &[T], [begin, end]: [u8; 2], out: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    out.push(begin);
    for (index, one) in all.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(one, out);
    }
    out.push(end);
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            // Controls, also those that a line of line protocol may not hold.
            character if character.is_control() => {
                out.extend_from_slice(format!("\\u{:04x}", character as u32).as_bytes());
            }
            character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}
