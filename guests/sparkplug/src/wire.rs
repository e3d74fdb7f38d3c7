//! The wire format of protocol buffers (proto2), read in place. It knows the four wire types that Sparkplug uses; a
//! group (types 3 and 4) is refused.

use tidegate_guest::Refusal;

/// The fields of one message, in their order.
#[derive(Clone, Copy, Debug)]
pub struct Wire<'a> {
    /// The whole payload, so that a fault names its place in it.
    payload: &'a [u8],
    at: usize,
    end: usize,
}

/// The value of one field, by its wire type.
#[derive(Clone, Copy, Debug)]
pub enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(Wire<'a>),
    Fixed32(u32),
}

impl<'a> Wire<'a> {
    pub fn new(payload: &'a [u8]) -> Self {
        Self { payload, at: 0, end: payload.len() }
    }

    /// The offset of the next byte in the payload.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn bytes(&self) -> &'a [u8] {
        &self.payload[self.at..self.end]
    }

    /// The next field: its number, and its value.
    ///
    /// # Errors
    /// `BAD_PAYLOAD`: the bytes are no protocol buffer.
    #[inline]
    pub fn field(&mut self) -> Result<Option<(u64, Raw<'a>)>, Refusal> {
        if self.at == self.end {
            return Ok(None);
        }
        let start = self.at;
        let key = self.varint()?;
        let field = key >> 3;
        if field == 0 {
            return Err(fault(start, "the field number 0: expected 1 or more"));
        }
        let raw = match key & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(u64::from_le_bytes(self.take()?)),
            2 => {
                let length = self.varint()?;
                let left = self.end - self.at;
                if length > left as u64 {
                    let text =
                        format!("field {field} has {length} bytes, and {left} are left: expected all of it");
                    return Err(fault(start, &text));
                }
                let inner = Wire { payload: self.payload, at: self.at, end: self.at + length as usize };
                self.at = inner.end;
                Raw::Bytes(inner)
            }
            5 => Raw::Fixed32(u32::from_le_bytes(self.take()?)),
            other => {
                let text = format!("field {field} has the wire type {other}: expected 0, 1, 2 or 5");
                return Err(fault(start, &text));
            }
        };
        Ok(Some((field, raw)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Refusal> {
        let start = self.at;
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let Some(&byte) = self.payload[..self.end].get(self.at) else {
                return Err(fault(start, "a number is cut off: expected its last byte"));
            };
            self.at += 1;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(fault(start, "a number has more than 10 bytes: expected at most 10"))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        match self.payload[self.at..self.end].first_chunk::<N>() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(fault(self.at, &format!("a number is cut off: expected {N} bytes"))),
        }
    }
}

impl<'a> Raw<'a> {
    /// # Errors
    /// Same as all below: the field has another wire type than the format says.
    pub fn varint(self, name: &str, at: usize) -> Result<u64, Refusal> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(mismatch(name, at, "a varint")),
        }
    }

    pub fn fixed64(self, name: &str, at: usize) -> Result<u64, Refusal> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err(mismatch(name, at, "8 bytes")),
        }
    }

    pub fn fixed32(self, name: &str, at: usize) -> Result<u32, Refusal> {
        match self {
            Self::Fixed32(value) => Ok(value),
            _ => Err(mismatch(name, at, "4 bytes")),
        }
    }

    pub fn message(self, name: &str, at: usize) -> Result<Wire<'a>, Refusal> {
        match self {
            Self::Bytes(wire) => Ok(wire),
            _ => Err(mismatch(name, at, "bytes with a length")),
        }
    }

    pub fn text(self, name: &str, at: usize) -> Result<&'a str, Refusal> {
        let bytes = self.message(name, at)?.bytes();
        std::str::from_utf8(bytes).map_err(|_| fault(at, &format!("{name} is not UTF-8: expected text")))
    }
}

#[cold]
fn mismatch(name: &str, at: usize, expected: &str) -> Refusal {
    fault(at, &format!("{name} has another wire type than Sparkplug B says: expected {expected}"))
}

/// The refusal of a payload that is no protocol buffer of Sparkplug B.
#[cold]
pub fn fault(at: usize, text: &str) -> Refusal {
    Refusal::new(
        "BAD_PAYLOAD",
        format!("at byte {at}: {text} (the payload must be a Payload of sparkplug_b.proto)"),
    )
}
