//! A reader over the body of one packet.

use crate::mqtt::error::PacketError;

/// Reads the body of one packet from front to back, without copying.
pub(super) struct PacketReader<'a> {
    pub rest: &'a [u8],
    pub packet: &'static str,
}

impl<'a> PacketReader<'a> {
    pub fn u8(&mut self) -> Result<u8, PacketError> {
        Ok(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16, PacketError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub fn u32(&mut self) -> Result<u32, PacketError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], PacketError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(PacketError::WrongLength(self.packet))?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], PacketError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub fn text(&mut self, name: &'static str) -> Result<&'a str, PacketError> {
        text(self.bytes()?).ok_or(PacketError::NotText(name))
    }

    pub fn packet_id(&mut self) -> Result<u16, PacketError> {
        match self.u16()? {
            0 => Err(PacketError::PacketIdZero),
            id => Ok(id),
        }
    }

    pub fn variable(&mut self) -> Result<usize, PacketError> {
        let (value, length) = variable(self.rest)?.ok_or(PacketError::WrongLength(self.packet))?;
        self.take(length)?;
        Ok(value)
    }

    pub fn end(self) -> Result<(), PacketError> {
        if self.rest.is_empty() { Ok(()) } else { Err(PacketError::WrongLength(self.packet)) }
    }
}

/// Text as the protocol has it: UTF-8 without U+0000 [MQTT-1.5.3-1, MQTT-1.5.3-2].
pub fn text(bytes: &[u8]) -> Option<&str> {
    if memchr::memchr(0, bytes).is_some() {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// Reads a variable byte integer (MQTT 5 section 1.5.5) and its length; None if it is not there whole.
///
/// # Errors
/// It has more than four bytes.
pub fn variable(bytes: &[u8]) -> Result<Option<(usize, usize)>, PacketError> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((value, place + 1)));
        }
    }
    if bytes.len() >= 4 { Err(PacketError::LengthOfLength) } else { Ok(None) }
}
