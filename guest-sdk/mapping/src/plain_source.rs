//! A whole number at a fixed offset, as bytes.

use crate::bytes::{Bytes, whole_number};

/// A whole number of at most 48 bits at a fixed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainSource {
    pub offset: usize,
    pub bytes: usize,
    pub is_little: bool,
    pub is_signed: bool,
    /// The lowest bit, and the number of bits.
    pub low: u32,
    pub width: u32,
    /// One bit is a boolean.
    pub is_boolean: bool,
}

impl PlainSource {
    /// The number. `None`: the payload is too short.
    #[inline]
    pub fn read(&self, bytes: &mut Bytes<'_>) -> Option<i64> {
        let start = bytes.start + self.offset;
        let end = start + self.bytes;
        let slice = bytes.payload.get(start..end).filter(|_| end <= bytes.end)?;
        bytes.cursor = end;
        bytes.farthest = bytes.farthest.max(end);
        let value = (whole_number(slice, self.is_little) >> self.low) << (64 - self.width);
        Some(match self.is_signed {
            true => (value as i64) >> (64 - self.width),
            false => (value >> (64 - self.width)) as i64,
        })
    }
}
