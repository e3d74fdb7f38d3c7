//! Packs in JSON (RFC 8428 section 5).

use std::borrow::Cow;

use tidegate_guest::Refusal;
use tidegate_guest::json::{Kind, Reader};

use crate::base64url;
use crate::record::{Form, Label, Quantity, Record, Value};

/// Reads a pack and gives each record to a function.
///
/// # Errors
/// The payload is no pack in JSON, or the function refuses a record.
pub fn read<'a>(
    payload: &'a [u8],
    take: &mut dyn FnMut(Record<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut reader = Reader::new(payload);
    let kind = reader.peek()?;
    if kind != Kind::Array {
        let detail = format!("the payload is {}: expected a pack, which is an array of records", kind.name());
        return Err(Refusal::new("NOT_A_PACK", detail));
    }
    reader.array()?;
    let mut index = 0;
    while reader.next_element()? {
        take(record(&mut reader, index)?)?;
        index += 1;
    }
    reader.end()?;
    Ok(())
}

fn record<'a>(reader: &mut Reader<'a>, index: usize) -> Result<Record<'a>, Refusal> {
    let kind = reader.peek()?;
    let mut record = Record::new(index, reader.position());
    if kind != Kind::Object {
        return Err(record.refuse("NOT_A_RECORD", format!("it is {}: expected an object", kind.name())));
    }
    reader.object()?;
    while let Some(key) = reader.next_key()? {
        let key = key.decode();
        match Label::of_text(&key) {
            Some(label) => {
                record.add(label)?;
                value(reader, label, &mut record)?;
            }
            None => record.add_unknown(&key)?,
        }
    }
    Ok(record)
}

fn value<'a>(reader: &mut Reader<'a>, label: Label, record: &mut Record<'a>) -> Result<(), Refusal> {
    let name = label.name();
    match (label.form(), reader.peek()?) {
        (Form::Number, Kind::Number) => {
            let number = reader.number()?;
            let Some(quantity) = Quantity::of(&number) else {
                let shown: String = number.text().chars().take(40).collect();
                let fault = format!("{name} is {shown}: expected a number that a 64-bit float holds");
                return Err(record.refuse("BAD_NUMBER", fault));
            };
            record.set_number(label, quantity);
        }
        (Form::Text, Kind::String) => record.set_text(label, reader.string()?.decode()),
        (Form::Boolean, Kind::Bool) => record.value = Some(Value::Boolean(reader.bool()?)),
        (Form::Data, Kind::String) => {
            let text = reader.string()?.decode();
            let data = base64url::decode(&text).map_err(|fault| {
                let fault =
                    format!("vd has {fault}: expected base64url without padding (RFC 4648 section 5)");
                record.refuse("BAD_BASE64", fault)
            })?;
            record.value = Some(Value::Data(Cow::Owned(data)));
        }
        (form, found) => {
            let expected = match form {
                Form::Number => "a number",
                Form::Text => "a string",
                Form::Boolean => "true or false",
                Form::Data => "a string in base64url",
            };
            let fault = format!("{name} is {}: expected {expected}", found.name());
            return Err(record.refuse("BAD_TYPE", fault));
        }
    }
    Ok(())
}
