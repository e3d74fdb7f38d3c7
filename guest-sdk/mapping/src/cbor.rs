//! Payloads of CBOR (RFC 8949) as documents. Arrays, maps and strings may have an indefinite length. Byte strings are
//! hexadecimal text; a tag is passed over, but for a decimal fraction.
//!
//! No crate reads it: the program links this for `tidegate mapping try`, and the licences of those that fit do not stand
//! in `deny.toml`.

use std::borrow::Cow;

use tidegate_guest::Refusal;
use tidegate_objects::{Container, Leaf};

use crate::byte_source::{half, hex};
use crate::cursor;
use crate::cursor::Cursor;
use crate::document::{Builder, Document};
use crate::limits::DEPTH_MAX;

/// The tag of a mantissa and a power of ten (section 3.4.4): 273.15 is tag 4 before [-2, 27315].
const DECIMAL_FRACTION: u64 = 4;

/// The code of a refusal.
const CODE: &str = "BAD_CBOR";

/// # Errors
/// `BAD_CBOR`, or a ceiling.
pub fn read(payload: &[u8]) -> Result<Document<'_>, Refusal> {
    let (mut reader, mut builder) = (Reader(Cursor::new(CODE, payload)), Builder::default());
    reader.value(Cow::Borrowed(""), &mut builder)?;
    reader.0.end()?;
    Ok(builder.finish())
}

fn bad(at: usize, text: impl std::fmt::Display) -> Refusal {
    cursor::bad(CODE, at, text)
}

/// The first byte of a value, and the number behind it.
#[derive(Clone, Copy, Debug)]
struct Head {
    at: usize,
    /// The three highest bits.
    major: u8,
    /// The five lowest bits.
    short: u8,
    /// The length or number; `None`: an indefinite length.
    argument: Option<u64>,
}

struct Reader<'a>(Cursor<'a>);

impl<'a> Reader<'a> {
    fn head(&mut self) -> Result<Head, Refusal> {
        let at = self.0.at();
        let first = self.0.take(1)?[0];
        let (major, short) = (first >> 5, first & 31);
        let argument = match short {
            0..=23 => Some(short.into()),
            24..=27 => Some(self.0.number(1 << (short - 24))?),
            31 if matches!(major, 2..=5 | 7) => None,
            _ => return Err(bad(at, format!("0x{first:02x} begins no value: expected CBOR (RFC 8949)"))),
        };
        Ok(Head { at, major, short, argument })
    }

    /// True if the end of a container of indefinite length comes next; passes it.
    fn ends(&mut self) -> bool {
        self.0.passes(0xff)
    }

    /// True if a container has one more item.
    fn has_next(&mut self, length: Option<u64>, done: u64) -> bool {
        length.map_or_else(|| !self.ends(), |length| done < length)
    }

    fn value(&mut self, key: Cow<'a, str>, builder: &mut Builder<'a>) -> Result<(), Refusal> {
        let (mut head, mut tag, mut tags) = (self.head()?, None, 0);
        while head.major == 6 {
            tag = head.argument;
            tags += 1;
            if tags > DEPTH_MAX {
                return Err(bad(head.at, format!("more than {DEPTH_MAX} tags before one value")));
            }
            head = self.head()?;
        }
        match head.major {
            4 if tag == Some(DECIMAL_FRACTION) => {
                let leaf = self.decimal_fraction(head)?;
                builder.leaf(key, leaf)
            }
            4 => {
                builder.begin(key, Container::Array)?;
                let mut done = 0;
                while self.has_next(head.argument, done) {
                    self.value(Cow::Borrowed(""), builder)?;
                    done += 1;
                }
                builder.end();
                Ok(())
            }
            5 => {
                builder.begin(key, Container::Object)?;
                let mut done = 0;
                while self.has_next(head.argument, done) {
                    let key = self.key()?;
                    self.value(key, builder)?;
                    done += 1;
                }
                builder.end();
                Ok(())
            }
            _ => {
                let leaf = self.leaf(head)?;
                builder.leaf(key, leaf)
            }
        }
    }

    /// A key as text. Whole numbers are keys too, in the short forms that devices send.
    fn key(&mut self) -> Result<Cow<'a, str>, Refusal> {
        let head = self.head()?;
        match head.major {
            0 | 1 | 3 => match self.leaf(head)? {
                Leaf::Text(text) => Ok(text),
                number => Ok(number.as_text().into_owned().into()),
            },
            _ => Err(bad(head.at, "a key that is neither a text nor a whole number")),
        }
    }

    /// A value that is no container.
    fn leaf(&mut self, head: Head) -> Result<Leaf<'a>, Refusal> {
        let number = head.argument.unwrap_or_default();
        Ok(match (head.major, head.short) {
            (0, _) => i64::try_from(number).map_or(Leaf::Unsigned(number), Leaf::Integer),
            (1, _) => match i64::try_from(number) {
                Ok(number) => Leaf::Integer(-1 - number),
                Err(_) => Leaf::Float(-1.0 - number as f64),
            },
            (2, _) => match head.argument {
                Some(length) => Leaf::Text(hex(self.0.take(length)?).into()),
                None => Leaf::Text(hex(&self.pieces(head)?.concat()).into()),
            },
            (3, _) => match head.argument {
                Some(length) => {
                    let bytes = self.0.take(length)?;
                    Leaf::Text(Cow::Borrowed(text(bytes, head.at)?))
                }
                None => {
                    let pieces = self.pieces(head)?;
                    let pieces: Result<Vec<&str>, _> =
                        pieces.iter().map(|piece| text(piece, head.at)).collect();
                    Leaf::Text(pieces?.concat().into())
                }
            },
            (7, 20 | 21) => Leaf::Boolean(head.short == 21),
            (7, 22 | 23) => Leaf::Null,
            (7, 25) => Leaf::Float(half(number as u16)),
            (7, 26) => Leaf::Float(f32::from_bits(number as u32).into()),
            (7, 27) => Leaf::Float(f64::from_bits(number)),
            (7, 31) => return Err(bad(head.at, "an end without a beginning: expected a value")),
            _ => return Err(bad(head.at, "a simple value without a meaning: expected a value")),
        })
    }

    /// The pieces of a string of indefinite length.
    fn pieces(&mut self, of: Head) -> Result<Vec<&'a [u8]>, Refusal> {
        let mut pieces = Vec::new();
        while !self.ends() {
            let head = self.head()?;
            let Some(length) = head.argument.filter(|_| head.major == of.major) else {
                return Err(bad(head.at, "no piece of the string around it: expected one of the same type"));
            };
            pieces.push(self.0.take(length)?);
        }
        Ok(pieces)
    }

    fn decimal_fraction(&mut self, array: Head) -> Result<Leaf<'a>, Refusal> {
        let expected =
            || bad(array.at, "no decimal fraction that a 64-bit float holds: expected [exponent, mantissa]");
        if array.argument != Some(2) {
            return Err(expected());
        }
        let mut whole = || {
            let head = self.head()?;
            let number = i128::from(head.argument.ok_or_else(expected)?);
            match head.major {
                0 => Ok(number),
                1 => Ok(-1 - number),
                _ => Err(expected()),
            }
        };
        let (exponent, mantissa) = (whole()?, whole()?);
        let number = format!("{mantissa}e{exponent}").parse().ok().filter(|number: &f64| number.is_finite());
        number.map(Leaf::Float).ok_or_else(expected)
    }
}

fn text(bytes: &[u8], at: usize) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| bad(at, "a text that is not UTF-8: expected text"))
}
