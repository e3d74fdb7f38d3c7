//! Texts and numbers as bytes, little endian.

pub fn put_text(out: &mut Vec<u8>, text: &str) {
    // Topics are no longer on the wire (MQTT 3.1.1 section 1.5.3); the rest is much shorter.
    let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Reads numbers and texts off the front of bytes.
pub struct ByteReader<'a>(pub &'a [u8]);

impl<'a> ByteReader<'a> {
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A number of at most `most`: a larger one is damage, whatever its checksum.
    pub fn u64_to(&mut self, most: u64) -> Option<u64> {
        self.u64().filter(|number| *number <= most)
    }

    pub fn text(&mut self) -> Option<String> {
        let len = self.u16()?;
        Some(std::str::from_utf8(self.take(usize::from(len))?).ok()?.to_owned())
    }
}
