//! The bytes that values are read from.

use std::ops::Range;

/// The bytes of a message or of one of its records, and the end of the value that was read last.
#[derive(Clone, Debug)]
pub struct Bytes<'a> {
    pub payload: &'a [u8],
    /// The place of the record in the payload.
    pub start: usize,
    pub end: usize,
    pub cursor: usize,
    /// The farthest end of a value.
    pub farthest: usize,
}

impl<'a> Bytes<'a> {
    pub fn new(payload: &'a [u8], Range { start, end }: Range<usize>) -> Self {
        Self { payload, start, end, cursor: start, farthest: start }
    }
}

/// The whole number that bytes are, without a sign.
#[inline]
pub fn whole_number(bytes: &[u8], is_little: bool) -> u64 {
    // The usual lengths without a loop.
    match (bytes, is_little) {
        ([byte], _) => u64::from(*byte),
        ([a, b], false) => u64::from(u16::from_be_bytes([*a, *b])),
        ([a, b], true) => u64::from(u16::from_le_bytes([*a, *b])),
        ([a, b, c, d], false) => u64::from(u32::from_be_bytes([*a, *b, *c, *d])),
        ([a, b, c, d], true) => u64::from(u32::from_le_bytes([*a, *b, *c, *d])),
        (bytes, false) => bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        (bytes, true) => bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
    }
}
