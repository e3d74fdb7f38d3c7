//! A value in bytes: `u16be@6`, `i8@+1`, `u8@3[4..7]`, `bcd:2@4`, `text:u8@5`.

use std::borrow::Cow;
use std::ops::Range;

use tidegate_guest::Refusal;
use tidegate_objects::Leaf;

use crate::byte_layout::{Form, Length, Offset, parse_bits, parse_offset, parse_type};
use crate::bytes::{Bytes, whole_number};
use crate::plain_source::PlainSource;

/// A value in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteSource {
    form: Form,
    length: Length,
    is_little: bool,
    offset: Offset,
    /// The lowest and the highest bit.
    bits: Option<(u32, u32)>,
}

/// Bytes of one value, where they are not enough or wrong.
fn refuse(code: &str, key: &str, text: String) -> Refusal {
    Refusal::new(code, format!("{key}: {text}"))
}

impl ByteSource {
    /// # Errors
    /// The fault, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((name, place)) = text.split_once('@') else {
            return Err("no offset: expected TYPE@OFFSET, as u16be@6".into());
        };
        let (offset, bits) = match place.split_once('[') {
            Some((offset, bits)) => {
                let bits = bits.strip_suffix(']').ok_or("no ] behind the bits: expected [3] or [4..7]")?;
                (offset, Some(parse_bits(bits)?))
            }
            None => (place, None),
        };
        let (form, length, is_little) = parse_type(name)?;
        if let Some((low, high)) = bits {
            let Length::Fixed(bytes) = length else {
                return Err("bits of a text: expected those of a whole number, as u8@3[4..7]".into());
            };
            if !matches!(form, Form::Unsigned | Form::Signed) {
                return Err("bits of a value that is no whole number: expected u8@3[4..7]".into());
            }
            if high as usize >= 8 * bytes || low > high {
                return Err(format!(
                    "bits {low} to {high} of {} bits: expected [LOW..HIGH] within 0 to {}, where 0 is the lowest",
                    8 * bytes,
                    8 * bytes - 1
                ));
            }
        }
        Ok(Self { form, length, is_little, offset: parse_offset(offset)?, bits })
    }

    /// The end of the value in its record, if that is the same in every payload.
    pub fn fixed_end(&self) -> Option<usize> {
        match (self.offset, self.length) {
            (Offset::Start(start), Length::Fixed(bytes) | Length::Prefixed(bytes)) => Some(start + bytes),
            (Offset::End(back), Length::Fixed(_) | Length::Prefixed(_)) => Some(back),
            _ => None,
        }
    }

    /// The same as a plain number, if it is one.
    pub fn plain(&self) -> Option<PlainSource> {
        let (Offset::Start(offset), Length::Fixed(bytes @ 1..=6)) = (self.offset, self.length) else {
            return None;
        };
        if !matches!(self.form, Form::Unsigned | Form::Signed) {
            return None;
        }
        let (low, high) = self.bits.unwrap_or((0, 8 * bytes as u32 - 1));
        Some(PlainSource {
            offset,
            bytes,
            is_little: self.is_little,
            is_signed: self.form == Form::Signed && !self.is_boolean(),
            low,
            width: high - low + 1,
            is_boolean: self.is_boolean(),
        })
    }

    pub fn is_number(&self) -> bool {
        matches!(self.form, Form::Unsigned | Form::Signed | Form::Float | Form::Bcd) && !self.is_boolean()
    }

    pub fn is_boolean(&self) -> bool {
        self.bits.is_some_and(|(low, high)| low == high)
    }

    /// True if its value is always a whole number.
    pub fn is_whole(&self) -> bool {
        self.is_number() && self.form != Form::Float
    }

    /// The whole number that a bit pattern stands for. None: the value has no such pattern.
    pub fn of_pattern(&self, pattern: i128) -> Option<i128> {
        let Length::Fixed(bytes) = self.length else { return None };
        let bits = self.bits.map_or(8 * bytes as u32, |(low, high)| high - low + 1);
        match self.form {
            Form::Unsigned => (0..1_i128 << bits).contains(&pattern).then_some(pattern),
            Form::Signed => {
                let half = 1_i128 << (bits - 1);
                let value = if (half..2 * half).contains(&pattern) { pattern - 2 * half } else { pattern };
                (-half..half).contains(&value).then_some(value)
            }
            Form::Bcd => (0..10_i128.pow(2 * bytes as u32)).contains(&pattern).then_some(pattern),
            Form::Float => Some(pattern),
            Form::Text | Form::Hex => None,
        }
    }

    /// Reads the value; gives where it stands too.
    ///
    /// # Errors
    /// `TOO_SHORT`, `BAD_TEXT`, `BAD_BCD`: names the key and the offset.
    #[inline]
    pub fn read<'a>(&self, bytes: &mut Bytes<'a>, key: &str) -> Result<(Leaf<'a>, Range<usize>), Refusal> {
        let start = match self.offset {
            Offset::Start(start) => bytes.start + start,
            Offset::Behind(skip) => bytes.cursor + skip,
            Offset::End(back) => {
                bytes.end.checked_sub(back).filter(|start| *start >= bytes.start).unwrap_or(bytes.end)
            }
        };
        let range = match self.length {
            Length::Fixed(length) => start..start + length,
            Length::Rest => start..bytes.end.max(start),
            Length::Prefixed(prefix) => {
                let length = self.slice(bytes, &(start..start + prefix), key)?;
                let length = whole_number(length, self.is_little) as usize;
                start + prefix..(start + prefix).saturating_add(length)
            }
        };
        let slice = self.slice(bytes, &range, key)?;
        bytes.cursor = range.end;
        bytes.farthest = bytes.farthest.max(range.end);
        Ok((self.value(slice, range.start, key)?, range))
    }

    #[inline]
    fn slice<'a>(&self, bytes: &Bytes<'a>, range: &Range<usize>, key: &str) -> Result<&'a [u8], Refusal> {
        match bytes.payload.get(range.clone()) {
            Some(slice) if range.end <= bytes.end => Ok(slice),
            _ => Err(too_short(bytes, range, key)),
        }
    }

    #[inline]
    fn value<'a>(&self, slice: &'a [u8], at: usize, key: &str) -> Result<Leaf<'a>, Refusal> {
        Ok(match self.form {
            Form::Unsigned | Form::Signed => self.integer(slice),
            Form::Float => {
                let pattern = whole_number(slice, self.is_little);
                Leaf::Float(match slice.len() {
                    2 => half(pattern as u16),
                    // The shortest decimal of the 32 bits: 21.3 stays 21.3.
                    4 => shortest(f32::from_bits(pattern as u32)),
                    _ => f64::from_bits(pattern),
                })
            }
            Form::Bcd => {
                let digits = |value: Option<i64>, byte: &u8| {
                    let (high, low) = (byte >> 4, byte & 15);
                    let pair = i64::from(high) * 10 + i64::from(low);
                    value.filter(|_| high < 10 && low < 10).map(|value| value * 100 + pair)
                };
                let value = match self.is_little {
                    true => slice.iter().rev().fold(Some(0), digits),
                    false => slice.iter().fold(Some(0), digits),
                };
                Leaf::Integer(value.ok_or_else(|| {
                    let text =
                        format!("{} at byte {at} is no BCD: expected two digits 0 to 9 a byte", hex(slice));
                    refuse("BAD_BCD", key, text)
                })?)
            }
            Form::Hex => Leaf::Text(hex(slice).into()),
            Form::Text => match std::str::from_utf8(slice) {
                Ok(text) => Leaf::Text(Cow::Borrowed(text.trim_end_matches(['\0', ' ']))),
                Err(error) => {
                    let at = at + error.valid_up_to();
                    return Err(refuse("BAD_TEXT", key, format!("byte {at} is not UTF-8: expected text")));
                }
            },
        })
    }

    #[inline]
    fn integer<'a>(&self, slice: &[u8]) -> Leaf<'a> {
        let mut value = whole_number(slice, self.is_little);
        let mut width = 8 * slice.len() as u32;
        if let Some((low, high)) = self.bits {
            if low == high {
                return Leaf::Boolean(value >> low & 1 == 1);
            }
            width = high - low + 1;
            value = value >> low & (u64::MAX >> (64 - width));
        }
        if self.form == Form::Signed {
            let unused = 64 - width;
            return Leaf::Integer(((value << unused) as i64) >> unused);
        }
        i64::try_from(value).map_or(Leaf::Unsigned(value), Leaf::Integer)
    }
}

#[cold]
fn too_short(bytes: &Bytes<'_>, range: &Range<usize>, key: &str) -> Refusal {
    let whole = match (bytes.start, bytes.end) {
        (0, end) if end == bytes.payload.len() => format!("the payload has {end} bytes"),
        (start, end) if end < bytes.payload.len() => {
            format!("its record is bytes {start} to {}", end.saturating_sub(1))
        }
        (_, end) => format!("the payload has {end} bytes"),
    };
    let text = match range.len() {
        1 => format!("byte {} is not there: {whole}", range.start),
        _ => format!("bytes {} to {} are not all there: {whole}", range.start, range.end.saturating_sub(1)),
    };
    refuse("TOO_SHORT", key, text)
}

fn shortest(value: f32) -> f64 {
    let wide = f64::from(value);
    if !wide.is_finite() || wide.fract() == 0.0 {
        return wide;
    }
    value.to_string().parse().unwrap_or(wide)
}

/// A float of 16 bits (IEEE 754).
pub fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str, payload: &[u8]) -> Result<String, String> {
        let source = ByteSource::parse(source)?;
        let mut bytes = Bytes::new(payload, 0..payload.len());
        bytes.cursor = payload.len().min(2);
        let read = source.read(&mut bytes, "fields.x");
        read.map(|(leaf, _)| leaf.as_text().into_owned()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn every_type_is_read_as_it_is_written() {
        for (source, payload, expected) in [
            ("u8@1", &[0, 200][..], "200"),
            ("i8@0", &[200], "-56"),
            ("u16be@0", &[1, 2], "258"),
            ("u16le@0", &[1, 2], "513"),
            ("i16be@0", &[0xff, 0xfe], "-2"),
            ("u24be@0", &[1, 0, 0], "65536"),
            ("i24le@0", &[0xff, 0xff, 0xff], "-1"),
            ("u32le@0", &[0, 0, 0, 0x80], "2147483648"),
            ("u64be@0", &[0xff; 8], "18446744073709551615"),
            ("i64be@0", &[0xff; 8], "-1"),
            ("u48be@0", &[0, 0, 0, 0, 1, 0], "256"),
            ("f32be@0", &[0x41, 0xaa, 0x66, 0x66], "21.3"),
            ("f64le@0", &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f], "1.5"),
            ("f16be@0", &[0x3e, 0x00], "1.5"),
            ("bcd:2@0", &[0x12, 0x34], "1234"),
            ("bcdle:2@0", &[0x12, 0x34], "3412"),
            ("u8@0[3]", &[8], "true"),
            ("u8@0[4..7]", &[0xa5], "10"),
            ("i16be@0[2..13]", &[0x3f, 0xfc], "-1"),
            ("text:4@0", b"ab\0\0", "ab"),
            ("text:u8@0", b"\x02abc", "ab"),
            ("text:u16le@0", b"\x01\x00abc", "a"),
            ("text:*@1", b"abc", "bc"),
            ("hex:2@0", &[0xde, 0xad], "dead"),
            ("u8@+1", &[0, 0, 0, 9], "9"),
            ("u8@-1", &[1, 2, 3], "3"),
        ] {
            assert_eq!(read(source, payload).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn what_is_not_there_is_named_with_its_offset() {
        for (source, payload, words) in [
            (
                "u32be@2",
                &[1, 2, 3, 4][..],
                "TOO_SHORT: fields.x: bytes 2 to 5 are not all there: the payload has 4 bytes",
            ),
            ("u8@7", &[1], "TOO_SHORT: fields.x: byte 7"),
            ("u8@-5", &[1], "TOO_SHORT"),
            ("text:u8@0", b"\x09ab", "bytes 1 to 9"),
            ("text:2@0", b"\xff\xff", "BAD_TEXT: fields.x: byte 0"),
            ("bcd:1@0", &[0x1a], "BAD_BCD: fields.x: 1a at byte 0"),
        ] {
            let error = read(source, payload).unwrap_err();
            assert!(error.contains(words), "{source}: {error}");
        }
    }

    #[test]
    fn a_bad_expression_says_what_would_be_right() {
        for (source, words) in [
            ("u16be", "TYPE@OFFSET"),
            ("u16@2", "u16be or u16le"),
            ("u12be@2", "expected u8"),
            ("x@2", "expected u8"),
            ("@2", "expected u8"),
            ("é@2", "expected u8"),
            ("u8@x", "from the start"),
            ("u8@70000", "65535"),
            ("u8@-0", "-1"),
            ("u8@0[8]", "0 to 7"),
            ("u8@0[5..2]", "LOW..HIGH"),
            ("u8@0[1", "]"),
            ("f32be@0[1]", "whole number"),
            ("bcd:u8@0", "1 to 9"),
            ("bcd:10@0", "1 to 9"),
            ("text:0@0", "expected u8"),
        ] {
            let error = ByteSource::parse(source).unwrap_err();
            assert!(error.contains(words), "{source}: {error}");
        }
    }

    #[test]
    fn a_pattern_of_a_signed_number_is_the_number() {
        let of = |source: &str, pattern: i128| ByteSource::parse(source).unwrap().of_pattern(pattern);
        assert_eq!(of("i16be@0", 0x8000), Some(-0x8000));
        assert_eq!(of("i16be@0", 0x7fff), Some(0x7fff));
        assert_eq!(of("i16be@0", -1), Some(-1));
        assert_eq!(of("i16be@0", 0x10000), None);
        assert_eq!(of("u8@0", 256), None);
        assert_eq!(of("u64be@0", u64::MAX.into()), Some(u64::MAX.into()));
        assert_eq!(of("i8@0[0..3]", 0xf), Some(-1));
    }
}
