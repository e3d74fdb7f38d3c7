//! Packs in CBOR (RFC 8428 section 6). Arrays, maps and strings may have an indefinite length (RFC 8949).

use std::borrow::Cow;

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};
use tidegate_guest::{Refusal, float};

use crate::record::{Form, Label, Quantity, Record, Value};

/// The tag of a decimal fraction (RFC 8949 section 3.4.4), and of CBOR itself (section 3.4.6).
const DECIMAL_FRACTION: u64 = 4;
const SELF_DESCRIBED: u64 = 55_799;

/// Reads a pack and gives each record to a function.
///
/// # Errors
/// The payload is no pack in CBOR, or the function refuses a record.
pub fn read<'a>(
    payload: &'a [u8],
    take: &mut dyn FnMut(Record<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut reader = Decoder::new(payload);
    if datatype(&reader)? == Type::Tag && reader.probe().tag().is_ok_and(|tag| tag.as_u64() == SELF_DESCRIBED)
    {
        reader.tag().map_err(|error| broken(&reader, &error))?;
    }
    let found = datatype(&reader)?;
    if !matches!(found, Type::Array | Type::ArrayIndef) {
        let detail = format!("the payload is {found}: expected a pack, which is an array of records");
        return Err(Refusal::new("NOT_A_PACK", detail));
    }
    let length = reader.array().map_err(|error| broken(&reader, &error))?;
    let mut index = 0;
    while has_next(&mut reader, length, index as u64)? {
        take(record(&mut reader, index)?)?;
        index += 1;
    }
    match payload.len() - reader.position() {
        0 => Ok(()),
        left => {
            let at = reader.position();
            Err(Refusal::new(
                "BAD_CBOR",
                format!("{left} bytes follow the pack at byte {at}: expected its end"),
            ))
        }
    }
}

/// True if a container has one more item; passes the end of one of indefinite length.
fn has_next(reader: &mut Decoder<'_>, length: Option<u64>, done: u64) -> Result<bool, Refusal> {
    if let Some(length) = length {
        return Ok(done < length);
    }
    let ends = datatype(reader)? == Type::Break;
    if ends {
        reader.set_position(reader.position() + 1);
    }
    Ok(!ends)
}

fn record<'a>(reader: &mut Decoder<'a>, index: usize) -> Result<Record<'a>, Refusal> {
    let found = datatype(reader)?;
    let mut record = Record::new(index, reader.position());
    if !matches!(found, Type::Map | Type::MapIndef) {
        return Err(record.refuse("NOT_A_RECORD", format!("it is {found}: expected a map")));
    }
    let length = reader.map().map_err(|error| broken(reader, &error))?;
    let mut done = 0;
    while has_next(reader, length, done)? {
        match label(reader, &record)? {
            Some(label) => {
                record.add(label)?;
                value(reader, label, &mut record)?;
            }
            None => reader.skip().map_err(|error| broken(reader, &error))?,
        }
        done += 1;
    }
    Ok(record)
}

/// The label of the next value. None: it is unknown and need not be understood.
fn label(reader: &mut Decoder<'_>, record: &Record<'_>) -> Result<Option<Label>, Refusal> {
    let found = datatype(reader)?;
    match found {
        Type::String | Type::StringIndef => {
            record.add_unknown(&text(reader)?)?;
            Ok(None)
        }
        found if is_integer(found) => {
            let number = reader.int().map_err(|error| broken(reader, &error))?;
            Ok(i64::try_from(number).ok().and_then(Label::of_integer))
        }
        found => {
            let fault = format!("a label at byte {} is {found}: expected an integer", reader.position());
            Err(record.refuse("BAD_TYPE", fault))
        }
    }
}

fn value<'a>(reader: &mut Decoder<'a>, label: Label, record: &mut Record<'a>) -> Result<(), Refusal> {
    let name = label.name();
    let at = reader.position();
    match (label.form(), datatype(reader)?) {
        (Form::Text, Type::String | Type::StringIndef) => record.set_text(label, text(reader)?),
        (Form::Boolean, Type::Bool) => {
            record.value = Some(Value::Boolean(reader.bool().map_err(|error| broken(reader, &error))?));
        }
        (Form::Data, Type::Bytes) => {
            let data = reader.bytes().map_err(|error| broken(reader, &error))?;
            record.value = Some(Value::Data(Cow::Borrowed(data)));
        }
        (Form::Data, Type::BytesIndef) => {
            let parts = reader.bytes_iter().and_then(Iterator::collect::<Result<Vec<_>, _>>);
            record.value = Some(Value::Data(parts.map_err(|error| broken(reader, &error))?.concat().into()));
        }
        (Form::Number, found) if is_number(found) => match number(reader)? {
            Some(quantity) => record.set_number(label, quantity),
            None => {
                let fault =
                    format!("{name} at byte {at}: expected a finite number that a 64-bit float holds");
                return Err(record.refuse("BAD_NUMBER", fault));
            }
        },
        (form, found) => {
            let expected = match form {
                Form::Number => "a number: an integer, a float, or a decimal fraction (tag 4)",
                Form::Text => "a text string",
                Form::Boolean => "true or false",
                Form::Data => "a byte string",
            };
            return Err(
                record.refuse("BAD_TYPE", format!("{name} at byte {at} is {found}: expected {expected}"))
            );
        }
    }
    Ok(())
}

fn is_integer(found: Type) -> bool {
    use Type::{I8, I16, I32, I64, Int, U8, U16, U32, U64};
    matches!(found, U8 | U16 | U32 | U64 | I8 | I16 | I32 | I64 | Int)
}

fn is_number(found: Type) -> bool {
    is_integer(found) || matches!(found, Type::F16 | Type::F32 | Type::F64 | Type::Tag)
}

/// A number of any form. None: it is not finite, or too large.
fn number(reader: &mut Decoder<'_>) -> Result<Option<Quantity>, Refusal> {
    let number = match datatype(reader)? {
        Type::F16 => reader.f16().map(|value| of_float(value.into())),
        Type::F32 => reader.f32().map(|value| of_float(value.into())),
        Type::F64 => reader.f64().map(of_float),
        Type::Tag => return decimal_fraction(reader),
        _ => reader.int().map(|value| Quantity::parse(i128::from(value).to_string().as_bytes())),
    };
    number.map_err(|error| broken(reader, &error))
}

fn of_float(value: f64) -> Option<Quantity> {
    if !value.is_finite() {
        return None;
    }
    let mut text = Vec::new();
    float::write(value, &mut text);
    // A float is no integer, even if it has no fraction: bver must be sent as one.
    Quantity::parse(&text).map(|quantity| Quantity { float: value, ..quantity })
}

fn decimal_fraction(reader: &mut Decoder<'_>) -> Result<Option<Quantity>, Refusal> {
    let at = reader.position();
    let read = |reader: &mut Decoder<'_>| -> Result<Option<(i128, i128)>, Error> {
        if reader.tag()?.as_u64() != DECIMAL_FRACTION || reader.array()? != Some(2) {
            return Ok(None);
        }
        Ok(Some((reader.int()?.into(), reader.int()?.into())))
    };
    match read(reader) {
        Ok(Some((exponent, mantissa))) => Ok(Quantity::parse(format!("{mantissa}e{exponent}").as_bytes())),
        Err(error) if error.is_end_of_input() => Err(broken(reader, &error)),
        Ok(None) | Err(_) => {
            let detail = format!(
                "the tagged value at byte {at} is no number: expected a decimal fraction, which is tag 4 before an \
                 array of exponent and mantissa"
            );
            Err(Refusal::new("BAD_TYPE", detail))
        }
    }
}

fn text<'a>(reader: &mut Decoder<'a>) -> Result<Cow<'a, str>, Refusal> {
    let text = match datatype(reader)? {
        Type::String => reader.str().map(Cow::Borrowed),
        _ => reader
            .str_iter()
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map(|parts| Cow::Owned(parts.concat())),
    };
    text.map_err(|error| broken(reader, &error))
}

fn datatype(reader: &Decoder<'_>) -> Result<Type, Refusal> {
    match reader.datatype() {
        Ok(Type::Unknown(byte)) => {
            let detail =
                format!("byte 0x{byte:02x} at byte {} begins no value of CBOR (RFC 8949)", reader.position());
            Err(Refusal::new("BAD_CBOR", detail))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(broken(reader, &error)),
    }
}

#[cold]
fn broken(reader: &Decoder<'_>, error: &Error) -> Refusal {
    let at = error.position().unwrap_or(reader.position());
    let detail = if error.is_end_of_input() {
        format!(
            "the payload ends after {} bytes, inside of a value: expected the whole pack",
            reader.input().len()
        )
    } else {
        format!("{error}, at byte {at}: expected CBOR (RFC 8949)")
    };
    Refusal::new("BAD_CBOR", detail)
}
