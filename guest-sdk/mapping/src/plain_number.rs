//! The short way for most values of bytes: a whole number at a fixed offset, without a condition. Half the cost of a message
//! is saved by it. Whatever is unusual, such as a payload that is too short, goes the long way and is told there.

use tidegate_objects::FieldType;

use crate::bytes::Bytes;
use crate::plain_source::PlainSource;
use crate::scale::Scale;

/// Whole numbers up to here are floats without loss.
const EXACT_MAX: u64 = 1 << 53;

/// A whole number at a fixed offset.
#[derive(Clone, Debug)]
pub struct PlainNumber {
    source: PlainSource,
    scale: Scale,
    no_values: Vec<i64>,
    is_integer: bool,
}

/// The value that a line gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PlainValue {
    Float(f64),
    Integer(i64),
    Boolean(bool),
    /// It means none.
    Nothing,
}

impl PlainNumber {
    /// `None`: it is another value.
    pub fn new(
        source: PlainSource,
        scale: Scale,
        no_values: Vec<i64>,
        pinned: Option<FieldType>,
    ) -> Option<Self> {
        let is_integer = match (pinned, source.is_boolean) {
            (None, true) => false,
            (None | Some(FieldType::Float), false) => false,
            (Some(FieldType::Integer), false) => true,
            _ => return None,
        };
        Some(Self { source, scale, no_values, is_integer })
    }

    /// The value. `None`: it is not there, or is unusual.
    #[inline]
    pub fn read(&self, bytes: &mut Bytes<'_>) -> Option<PlainValue> {
        let raw = self.source.read(bytes)?;
        if self.no_values.contains(&raw) {
            return Some(PlainValue::Nothing);
        }
        if self.source.is_boolean {
            return Some(PlainValue::Boolean(raw != 0));
        }
        let (scaled, divisor) = self.scale.whole(raw)?;
        if self.is_integer {
            return Some(PlainValue::Integer(scaled));
        }
        if scaled.unsigned_abs() > EXACT_MAX {
            return None;
        }
        Some(PlainValue::Float(if divisor == 1 { scaled as f64 } else { scaled as f64 / divisor as f64 }))
    }
}
