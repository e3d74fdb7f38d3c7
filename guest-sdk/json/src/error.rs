//! The error of a reader.

use std::fmt;

use crate::limits::DEPTH_MAX;

/// The fault of a text that is not the JSON that was asked for, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// The offset in the text, in bytes from 0.
    pub at: usize,
    pub kind: ErrorKind,
}

/// The fault of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something else had to stand here; `found` is `None` at the end of the text.
    Expected { what: &'static str, found: Option<u8> },
    /// NaN or Infinity, in any spelling, which JSON does not have.
    NotFinite { what: &'static str, found: u8 },
    /// A character below U+0020 stands in a string as it is.
    ControlCharacter(u8),
    /// A string is not UTF-8.
    NotUtf8,
    /// `\u` names half of a surrogate pair.
    LoneSurrogate,
    /// More containers stand in one another than [`DEPTH_MAX`](crate::DEPTH_MAX).
    TooDeep,
    /// The text begins with U+FEFF.
    ByteOrderMark,
    /// The caller asked for a value, a key or an element where none can be.
    Misplaced,
}

impl Error {
    pub(crate) fn expected(what: &'static str, bytes: &[u8], at: usize) -> Self {
        let word = bytes.get(at..at + 3).unwrap_or_default();
        if word.eq_ignore_ascii_case(b"nan") || word.eq_ignore_ascii_case(b"inf") {
            return Self { at, kind: ErrorKind::NotFinite { what, found: word[0] } };
        }
        let found = bytes.get(at).copied();
        Self { at, kind: ErrorKind::Expected { what, found } }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.kind {
            ErrorKind::Expected { what, found } => {
                write!(f, "expected {what} at byte {at}, found ")?;
                match found {
                    None => f.write_str("the end of the text"),
                    Some(byte @ 0x20..=0x7e) => write!(f, "'{}'", byte as char),
                    Some(byte) => write!(f, "byte 0x{byte:02x}"),
                }
            }
            ErrorKind::NotFinite { what, found } => write!(
                f,
                "expected {what} at byte {at}, found '{}': JSON has no NaN and no Infinity, null stands for them",
                found as char
            ),
            ErrorKind::ControlCharacter(byte) => write!(
                f,
                "control character 0x{byte:02x} in a string at byte {at}, expected its escape \\u{byte:04x}"
            ),
            ErrorKind::NotUtf8 => write!(f, "a string is not UTF-8 at byte {at}"),
            ErrorKind::LoneSurrogate => {
                write!(f, "half of a surrogate pair at byte {at}, expected both halves")
            }
            ErrorKind::TooDeep => write!(f, "nested deeper than {} at byte {at}", DEPTH_MAX),
            ErrorKind::ByteOrderMark => f.write_str("the text begins with a byte order mark"),
            ErrorKind::Misplaced => write!(f, "nothing of this kind can be read at byte {at}"),
        }
    }
}

impl std::error::Error for Error {}
