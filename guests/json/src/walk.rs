//! The walk through the JSON of a payload: its text, or the tape that the gateway made of it.

use tidegate_guest::Refusal;
use tidegate_guest::json::{Kind, Reader, TapeValue};
use tidegate_objects::{Container, Leaf, Walk};

fn not_an_object(kind: Kind) -> Refusal {
    Refusal::new("NOT_AN_OBJECT", format!("the payload is {}: expected an object", kind.name()))
}

/// Walks the object that the reader stands before.
pub fn text<'a>(walk: &mut Walk<'_, 'a>, reader: &mut Reader<'a>) -> Result<(), Refusal> {
    match reader.peek()? {
        Kind::Object => text_value(walk, reader),
        kind => Err(not_an_object(kind)),
    }
}

fn text_value<'a>(walk: &mut Walk<'_, 'a>, reader: &mut Reader<'a>) -> Result<(), Refusal> {
    match reader.peek()? {
        Kind::Object => {
            walk.begin(Container::Object)?;
            reader.object()?;
            while let Some(key) = reader.next_key()? {
                walk.key(&key.decode());
                text_value(walk, reader)?;
            }
            walk.end();
            Ok(())
        }
        Kind::Array => {
            walk.begin(Container::Array)?;
            reader.array()?;
            while reader.next_element()? {
                text_value(walk, reader)?;
            }
            walk.end();
            Ok(())
        }
        Kind::Null => {
            reader.null()?;
            walk.leaf(Leaf::Null)
        }
        Kind::Bool => walk.leaf(Leaf::Boolean(reader.bool()?)),
        Kind::Number => walk.leaf(Leaf::Number(reader.number()?)),
        Kind::String => walk.leaf(Leaf::Text(reader.string()?.decode())),
    }
}

/// The same with the tape of the payload.
pub fn tape<'a>(walk: &mut Walk<'_, 'a>, value: TapeValue<'a>) -> Result<(), Refusal> {
    match value.kind() {
        Kind::Object => tape_value(walk, value),
        kind => Err(not_an_object(kind)),
    }
}

fn tape_value<'a>(walk: &mut Walk<'_, 'a>, value: TapeValue<'a>) -> Result<(), Refusal> {
    if let Some(members) = value.members() {
        walk.begin(Container::Object)?;
        for (key, value) in members {
            walk.key(&key.decode());
            tape_value(walk, value)?;
        }
        walk.end();
        return Ok(());
    }
    if let Some(elements) = value.elements() {
        walk.begin(Container::Array)?;
        for element in elements {
            tape_value(walk, element)?;
        }
        walk.end();
        return Ok(());
    }
    walk.leaf(match (value.bool(), value.number(), value.string()) {
        (Some(value), ..) => Leaf::Boolean(value),
        (_, Some(number), _) => Leaf::Number(number),
        (_, _, Some(text)) => Leaf::Text(text.decode()),
        (None, None, None) => Leaf::Null,
    })
}
