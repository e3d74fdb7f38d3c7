//! Payloads of JSON as documents.

use std::borrow::Cow;

use tidegate_guest::Refusal;
use tidegate_guest::json::{Kind, Reader};
use tidegate_objects::{Container, Leaf};

use crate::document::{Builder, Document};

/// # Errors
/// `BAD_JSON`, or a ceiling.
pub fn read(payload: &[u8]) -> Result<Document<'_>, Refusal> {
    let (mut reader, mut builder) = (Reader::new(payload), Builder::default());
    value(&mut reader, Cow::Borrowed(""), &mut builder)?;
    reader.end()?;
    Ok(builder.finish())
}

fn value<'a>(reader: &mut Reader<'a>, key: Cow<'a, str>, builder: &mut Builder<'a>) -> Result<(), Refusal> {
    let leaf = match reader.peek()? {
        Kind::Object => {
            builder.begin(key, Container::Object)?;
            reader.object()?;
            while let Some(key) = reader.next_key()? {
                value(reader, key.decode(), builder)?;
            }
            builder.end();
            return Ok(());
        }
        Kind::Array => {
            builder.begin(key, Container::Array)?;
            reader.array()?;
            while reader.next_element()? {
                value(reader, Cow::Borrowed(""), builder)?;
            }
            builder.end();
            return Ok(());
        }
        Kind::Null => {
            reader.null()?;
            Leaf::Null
        }
        Kind::Bool => Leaf::Boolean(reader.bool()?),
        Kind::Number => Leaf::Number(reader.number()?),
        Kind::String => Leaf::Text(reader.string()?.decode()),
    };
    builder.leaf(key, leaf)
}
