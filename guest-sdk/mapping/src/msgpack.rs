//! Payloads of MessagePack as documents (github.com/msgpack/msgpack, spec.md). Binary values and extensions are hexadecimal text.

use std::borrow::Cow;

use tidegate_guest::Refusal;
use tidegate_objects::{Container, Leaf};

use crate::byte_source::hex;
use crate::document::{Builder, Document};

/// # Errors
/// `BAD_MSGPACK`, or a ceiling.
pub fn read(payload: &[u8]) -> Result<Document<'_>, Refusal> {
    let (mut reader, mut builder) = (Reader { payload, at: 0 }, Builder::default());
    reader.value(Cow::Borrowed(""), &mut builder)?;
    match payload.len() - reader.at {
        0 => Ok(builder.finish()),
        left => Err(bad(reader.at, format!("{left} bytes follow the value: expected the end"))),
    }
}

fn bad(at: usize, text: impl std::fmt::Display) -> Refusal {
    Refusal::new("BAD_MSGPACK", format!("byte {at}: {text}"))
}

struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
}

/// A value, or the beginning of a container of so many.
enum Item<'a> {
    Leaf(Leaf<'a>),
    Array(usize),
    Map(usize),
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Refusal> {
        let end = self.at.checked_add(length);
        match end.and_then(|end| self.payload.get(self.at..end)) {
            Some(bytes) => {
                self.at += length;
                Ok(bytes)
            }
            None => {
                let text = format!("the payload ends after {} bytes, inside of a value", self.payload.len());
                Err(bad(self.at, text))
            }
        }
    }

    fn number(&mut self, bytes: usize) -> Result<u64, Refusal> {
        Ok(self.take(bytes)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize) -> Result<usize, Refusal> {
        Ok(self.number(bytes)? as usize)
    }

    fn text(&mut self, length: usize) -> Result<Item<'a>, Refusal> {
        let at = self.at;
        let text = std::str::from_utf8(self.take(length)?);
        let text = text.map_err(|error| bad(at + error.valid_up_to(), "no UTF-8: expected text"))?;
        Ok(Item::Leaf(Leaf::Text(Cow::Borrowed(text))))
    }

    fn binary(&mut self, length: usize) -> Result<Item<'a>, Refusal> {
        Ok(Item::Leaf(Leaf::Text(hex(self.take(length)?).into())))
    }

    fn item(&mut self) -> Result<Item<'a>, Refusal> {
        let at = self.at;
        let marker = self.take(1)?[0];
        let signed =
            |value: u64, bits: u32| Item::Leaf(Leaf::Integer(((value << (64 - bits)) as i64) >> (64 - bits)));
        let unsigned =
            |value: u64| Item::Leaf(i64::try_from(value).map_or(Leaf::Unsigned(value), Leaf::Integer));
        match marker {
            0x00..=0x7f => Ok(unsigned(marker.into())),
            0xe0..=0xff => Ok(signed(marker.into(), 8)),
            0x80..=0x8f => Ok(Item::Map((marker & 15).into())),
            0x90..=0x9f => Ok(Item::Array((marker & 15).into())),
            0xa0..=0xbf => self.text((marker & 31).into()),
            0xc0 => Ok(Item::Leaf(Leaf::Null)),
            0xc1 => Err(bad(at, "0xc1 is never used: expected MessagePack")),
            0xc2 | 0xc3 => Ok(Item::Leaf(Leaf::Boolean(marker == 0xc3))),
            0xc4..=0xc6 => {
                let length = self.length(1 << (marker - 0xc4))?;
                self.binary(length)
            }
            // The type of an extension is one byte more.
            0xc7..=0xc9 => {
                let length = self.length(1 << (marker - 0xc7))?;
                self.take(1)?;
                self.binary(length)
            }
            0xca => Ok(Item::Leaf(Leaf::Float(f32::from_bits(self.number(4)? as u32).into()))),
            0xcb => Ok(Item::Leaf(Leaf::Float(f64::from_bits(self.number(8)?)))),
            0xcc..=0xcf => Ok(unsigned(self.number(1 << (marker - 0xcc))?)),
            0xd0..=0xd3 => {
                let bytes = 1 << (marker - 0xd0);
                Ok(signed(self.number(bytes)?, 8 * bytes as u32))
            }
            0xd4..=0xd8 => {
                self.take(1)?;
                self.binary(1 << (marker - 0xd4))
            }
            0xd9..=0xdb => {
                let length = self.length(1 << (marker - 0xd9))?;
                self.text(length)
            }
            0xdc | 0xdd => Ok(Item::Array(self.length(2 << (marker - 0xdc))?)),
            0xde | 0xdf => Ok(Item::Map(self.length(2 << (marker - 0xde))?)),
        }
    }

    fn value(&mut self, key: Cow<'a, str>, builder: &mut Builder<'a>) -> Result<(), Refusal> {
        match self.item()? {
            Item::Leaf(leaf) => builder.leaf(key, leaf),
            Item::Array(length) => {
                builder.begin(key, Container::Array)?;
                for _ in 0..length {
                    self.value(Cow::Borrowed(""), builder)?;
                }
                builder.end();
                Ok(())
            }
            Item::Map(length) => {
                builder.begin(key, Container::Object)?;
                for _ in 0..length {
                    let at = self.at;
                    let key = match self.item()? {
                        Item::Leaf(Leaf::Text(text)) => text,
                        Item::Leaf(Leaf::Integer(number)) => number.to_string().into(),
                        Item::Leaf(Leaf::Unsigned(number)) => number.to_string().into(),
                        _ => return Err(bad(at, "a key that is neither a text nor a whole number")),
                    };
                    self.value(key, builder)?;
                }
                builder.end();
                Ok(())
            }
        }
    }
}
