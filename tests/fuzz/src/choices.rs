//! Choices that the first bytes of an input make for its target.

/// Takes choices off the front of an input; when it is used up each choice is 0.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a> {
    pub rest: &'a [u8],
}

impl<'a> Choices<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// The next bytes, as many as asked for or left.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// A part of the input with its length before it, in one byte.
    pub fn part(&mut self) -> &'a [u8] {
        let length = usize::from(self.u8());
        self.bytes(length)
    }
}
