//! The written form of a value in bytes: its type, its offset, its bits.

use crate::limits::OFFSET_MAX;

/// The kind of value that the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Unsigned,
    Signed,
    Float,
    Bcd,
    Text,
    Hex,
}

/// The number of bytes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Fixed(usize),
    /// A number of this many bytes stands before it and says the length.
    Prefixed(usize),
    /// All that is left.
    Rest,
}

/// The first byte of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// From the start of the payload or record.
    Start(usize),
    /// From the end of the value before it.
    Behind(usize),
    End(usize),
}

/// Reads an offset.
///
/// # Errors
/// The fault, and what would be right.
pub fn parse_offset(text: &str) -> Result<Offset, String> {
    let (make, digits): (fn(usize) -> Offset, _) = match text.as_bytes().first() {
        Some(b'+') => (Offset::Behind, &text[1..]),
        Some(b'-') => (Offset::End, &text[1..]),
        _ => (Offset::Start, text),
    };
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse::<usize>() {
        Ok(offset) if is_plain && offset <= OFFSET_MAX => {
            if make(offset) == Offset::End(0) {
                return Err("offset -0: expected -1 for the last byte".into());
            }
            Ok(make(offset))
        }
        Ok(_) if is_plain => Err(format!("offset {text}: expected at most {OFFSET_MAX}")),
        _ => Err(format!(
            "offset {text:?}: expected a number of bytes from the start, as @6; @+0 is right behind the value before, \
             and @-2 counts from the end"
        )),
    }
}

/// Reads the lowest and the highest bit.
///
/// # Errors
/// The fault, and what would be right.
pub fn parse_bits(text: &str) -> Result<(u32, u32), String> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    match (low.parse(), high.parse()) {
        (Ok(low), Ok(high)) => Ok((low, high)),
        _ => Err(format!("bits [{text}]: expected [3] or [4..7], where 0 is the lowest bit")),
    }
}

const TYPES: &str = "u8, i8, u16be, i16le, u24be, u32be, i64le and so on, f16be, f32be, f64le, bcd:2, bcdle:2, text:8, \
                     text:u8 (its length before it), text:* (the rest) or hex:4";

/// Reads a type; true: the lowest byte comes first.
///
/// # Errors
/// The fault, and what would be right.
pub fn parse_type(name: &str) -> Result<(Form, Length, bool), String> {
    let unknown = || format!("type {name:?}: expected {TYPES}");
    if let Some((form, length)) = name.split_once(':') {
        let (form, is_little) = match form {
            "bcd" => (Form::Bcd, false),
            "bcdle" => (Form::Bcd, true),
            "text" => (Form::Text, false),
            "hex" => (Form::Hex, false),
            _ => return Err(unknown()),
        };
        let (length, is_little) = match length {
            "*" => (Length::Rest, is_little),
            "u8" => (Length::Prefixed(1), false),
            "u16be" => (Length::Prefixed(2), false),
            "u16le" => (Length::Prefixed(2), true),
            length => match length.parse() {
                Ok(bytes @ 1..=OFFSET_MAX) => (Length::Fixed(bytes), is_little),
                _ => return Err(unknown()),
            },
        };
        return match (form, length) {
            (Form::Bcd, Length::Fixed(1..=9)) | (Form::Text | Form::Hex, _) => Ok((form, length, is_little)),
            _ => Err(format!("type {name:?}: expected bcd:N with 1 to 9 bytes")),
        };
    }
    let form = match name.as_bytes().first() {
        Some(b'u') => Form::Unsigned,
        Some(b'i') => Form::Signed,
        Some(b'f') => Form::Float,
        _ => return Err(unknown()),
    };
    let (bits, order) = match (name.strip_suffix("be"), name.strip_suffix("le")) {
        (Some(rest), _) => (&rest[1..], Some(false)),
        (_, Some(rest)) => (&rest[1..], Some(true)),
        _ => (&name[1..], None),
    };
    let bits: usize = bits.parse().ok().filter(|_| !bits.starts_with('+')).ok_or_else(unknown)?;
    let is_known = match form {
        Form::Float => matches!(bits, 16 | 32 | 64),
        _ => matches!(bits, 8 | 16 | 24 | 32 | 40 | 48 | 56 | 64),
    };
    match order {
        _ if !is_known => Err(unknown()),
        None if bits > 8 => Err(format!("type {name:?} has no byte order: expected {name}be or {name}le")),
        order => Ok((form, Length::Fixed(bits / 8), order.unwrap_or(false))),
    }
}
