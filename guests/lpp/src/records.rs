//! The records of a payload: channel, type byte, numbers; one behind the other, with nothing between.

use tidegate_guest::Refusal;

use crate::kinds::{Component, Kind};

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub channel: u8,
    pub kind: &'static Kind,
    /// The place of the type in the order of all types.
    pub place: usize,
    /// The bytes of the numbers, as many as the type has.
    bytes: &'a [u8],
}

/// Reads the records of a payload in their order.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    pub fn new(payload: &'a [u8]) -> Self {
        Self { payload, at: 0 }
    }

    fn read(&mut self) -> Result<Record<'a>, Refusal> {
        let start = self.at;
        let channel = self.payload[start];
        let Some(&number) = self.payload.get(start + 1) else {
            let detail = format!(
                "one byte (0x{channel:02x}) is left at byte {start}: expected records of a channel byte, a type byte and \
                 the type's value"
            );
            return Err(Refusal::new("TRAILING_BYTES", detail));
        };
        let Some((place, kind)) = Kind::of(number) else { return Err(unknown(number, channel, start + 1)) };
        let value = start + 2;
        let Some(bytes) = self.payload.get(value..value + kind.bytes()) else {
            let detail = format!(
                "the {} of channel {channel} (type {number}, at byte {start}) has {} bytes of its value: expected {}",
                kind.name,
                self.payload.len() - value,
                kind.bytes()
            );
            return Err(Refusal::new("TRUNCATED", detail));
        };
        self.at = value + kind.bytes();
        Ok(Record { channel, kind, place, bytes })
    }
}

#[cold]
fn unknown(number: u8, channel: u8, at: usize) -> Refusal {
    let detail = match number {
        240 => format!(
            "type 240 (polyline) of channel {channel} at byte {at}: its length differs between devices and is not \
             supported; expected gps (136)"
        ),
        _ => format!(
            "type {number} of channel {channel} at byte {at} is unknown, and with it where the next record begins: \
             expected a type of Cayenne LPP, such as 103 (temperature)"
        ),
    };
    Refusal::new("UNKNOWN_TYPE", detail)
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.payload.len() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.at = self.payload.len();
        }
        Some(record)
    }
}

impl Record<'_> {
    /// The numbers as they were sent, each with its component.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static Component, i64)> {
        let mut rest = self.bytes;
        self.kind.components.iter().map(move |component| {
            let (bytes, behind) = rest.split_at(component.bytes);
            rest = behind;
            let number = bytes.iter().fold(0_i64, |number, &byte| number << 8 | i64::from(byte));
            let bits = 8 * bytes.len() as u32;
            let negative = component.signed && number >> (bits - 1) == 1;
            (component, if negative { number - (1 << bits) } else { number })
        })
    }
}
