//! A place in a binary payload, which is read from its beginning to its end.

use std::fmt::Display;

use tidegate_guest::Refusal;

/// A payload, and the place of the next byte.
pub struct Cursor<'a> {
    /// The code of a refusal.
    code: &'static str,
    payload: &'a [u8],
    at: usize,
}

/// The refusal of a payload for its byte `at`.
pub fn bad(code: &str, at: usize, text: impl Display) -> Refusal {
    Refusal::new(code, format!("byte {at}: {text}"))
}

impl<'a> Cursor<'a> {
    pub fn new(code: &'static str, payload: &'a [u8]) -> Self {
        Self { code, payload, at: 0 }
    }

    /// The place of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    /// # Errors
    /// The payload has fewer bytes left.
    pub fn take(&mut self, length: u64) -> Result<&'a [u8], Refusal> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        match end.and_then(|end| self.payload.get(self.at..end)) {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(bytes)
            }
            None => {
                let text = format!("the payload ends after {} bytes, inside of a value", self.payload.len());
                Err(bad(self.code, self.at, text))
            }
        }
    }

    /// A number of so many bytes, at most 8, the highest first.
    ///
    /// # Errors
    /// The payload has fewer bytes left.
    pub fn number(&mut self, bytes: u64) -> Result<u64, Refusal> {
        Ok(self.take(bytes)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// True if this byte comes next; passes it.
    pub fn passes(&mut self, byte: u8) -> bool {
        let passes = self.payload.get(self.at) == Some(&byte);
        self.at += usize::from(passes);
        passes
    }

    /// # Errors
    /// The payload goes on.
    pub fn end(&self) -> Result<(), Refusal> {
        match self.payload.len() - self.at {
            0 => Ok(()),
            left => Err(bad(self.code, self.at, format!("{left} bytes follow the value: expected the end"))),
        }
    }
}
