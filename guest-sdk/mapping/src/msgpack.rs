//! Payloads of MessagePack as documents (github.com/msgpack/msgpack, spec.md). Binary values and extensions are hexadecimal text.

use std::borrow::Cow;

use tidegate_guest::Refusal;
use tidegate_objects::{Container, Leaf};

use crate::byte_source::hex;
use crate::cursor;
use crate::cursor::Cursor;
use crate::document::{Builder, Document};

/// The code of a refusal.
const CODE: &str = "BAD_MSGPACK";

/// # Errors
/// `BAD_MSGPACK`, or a ceiling.
pub fn read(payload: &[u8]) -> Result<Document<'_>, Refusal> {
    let (mut reader, mut builder) = (Reader(Cursor::new(CODE, payload)), Builder::default());
    reader.value(Cow::Borrowed(""), &mut builder)?;
    reader.0.end()?;
    Ok(builder.finish())
}

fn bad(at: usize, text: impl std::fmt::Display) -> Refusal {
    cursor::bad(CODE, at, text)
}

struct Reader<'a>(Cursor<'a>);

/// A value, or the beginning of a container of so many.
enum Item<'a> {
    Leaf(Leaf<'a>),
    Array(u64),
    Map(u64),
}

impl<'a> Reader<'a> {
    fn text(&mut self, length: u64) -> Result<Item<'a>, Refusal> {
        let at = self.0.at();
        let text = std::str::from_utf8(self.0.take(length)?);
        let text = text.map_err(|error| bad(at + error.valid_up_to(), "no UTF-8: expected text"))?;
        Ok(Item::Leaf(Leaf::Text(Cow::Borrowed(text))))
    }

    fn binary(&mut self, length: u64) -> Result<Item<'a>, Refusal> {
        Ok(Item::Leaf(Leaf::Text(hex(self.0.take(length)?).into())))
    }

    fn item(&mut self) -> Result<Item<'a>, Refusal> {
        let at = self.0.at();
        let marker = self.0.take(1)?[0];
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
                let length = self.0.number(1 << (marker - 0xc4))?;
                self.binary(length)
            }
            // The type of an extension is one byte more.
            0xc7..=0xc9 => {
                let length = self.0.number(1 << (marker - 0xc7))?;
                self.0.take(1)?;
                self.binary(length)
            }
            0xca => Ok(Item::Leaf(Leaf::Float(f32::from_bits(self.0.number(4)? as u32).into()))),
            0xcb => Ok(Item::Leaf(Leaf::Float(f64::from_bits(self.0.number(8)?)))),
            0xcc..=0xcf => Ok(unsigned(self.0.number(1 << (marker - 0xcc))?)),
            0xd0..=0xd3 => {
                let bytes = 1 << (marker - 0xd0);
                Ok(signed(self.0.number(bytes)?, 8 * bytes as u32))
            }
            0xd4..=0xd8 => {
                self.0.take(1)?;
                self.binary(1 << (marker - 0xd4))
            }
            0xd9..=0xdb => {
                let length = self.0.number(1 << (marker - 0xd9))?;
                self.text(length)
            }
            0xdc | 0xdd => Ok(Item::Array(self.0.number(2 << (marker - 0xdc))?)),
            0xde | 0xdf => Ok(Item::Map(self.0.number(2 << (marker - 0xde))?)),
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
                    let at = self.0.at();
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
