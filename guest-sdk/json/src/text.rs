//! The strings of a JSON text.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind};

/// A string of the text, already checked.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// A string that was checked before.
    #[inline(always)]
    pub(crate) fn checked(raw: &'a str, escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// The text between the quotes, escapes as they are.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// True if there are escapes, so that `raw` is not the string itself.
    pub fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// The string, if it can be borrowed from the text because there are no escapes.
    pub fn plain(&self) -> Option<&'a str> {
        (!self.escaped).then_some(self.raw)
    }

    /// The string; allocates only if there are escapes.
    pub fn decode(&self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }

    /// True if the string, escapes undone, is `other`.
    #[inline]
    pub fn is(&self, other: &str) -> bool {
        if self.escaped { unescape(self.raw) == other } else { self.raw == other }
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x80 * ONES;

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let chunk = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*chunk))
}

/// Marks the bytes of a word that are a quote, a backslash, a control character or not ASCII. The
/// lowest mark is right; marks above it may be false, because a borrow runs upwards.
#[inline(always)]
fn specials(word: u64) -> u64 {
    let control = word.wrapping_sub(0x20 * ONES);
    let quote = (word ^ (b'"' as u64 * ONES)).wrapping_sub(ONES);
    let backslash = (word ^ (b'\\' as u64 * ONES)).wrapping_sub(ONES);
    (control | quote | backslash | word) & HIGHS
}

/// Reads a string from behind its opening quote; gives it and the offset behind its closing one.
#[inline(always)]
pub(crate) fn scan(bytes: &[u8], start: usize) -> Result<(Text<'_>, usize), Error> {
    let mut at = start;
    while let Some(word) = word(bytes, at) {
        let marks = specials(word);
        if marks != 0 {
            at += marks.trailing_zeros() as usize / 8;
            if bytes[at] == b'"' {
                // SAFETY: all bytes from `start` to `at` were found to be ASCII.
                let raw = unsafe { std::str::from_utf8_unchecked(&bytes[start..at]) };
                let escaped = false;
                return Ok((Text { raw, escaped }, at + 1));
            }
            return scan_special(bytes, start, at);
        }
        at += 8;
    }
    scan_special(bytes, start, at)
}

/// Same as [`scan`], for all strings; everything before `at` is plain ASCII.
#[cold]
#[inline(never)]
fn scan_special(bytes: &[u8], start: usize, mut at: usize) -> Result<(Text<'_>, usize), Error> {
    let mut escaped = false;
    let mut ascii = true;
    loop {
        // Runs of other letters (a name in Greek, say) go by the word too.
        while let Some(word) = word(bytes, at) {
            let others = word & HIGHS;
            let low = word & !HIGHS;
            let control = low.wrapping_sub(0x20 * ONES);
            let quote = (low ^ (b'"' as u64 * ONES)).wrapping_sub(ONES);
            let backslash = (low ^ (b'\\' as u64 * ONES)).wrapping_sub(ONES);
            // A byte with its high bit set may be marked falsely: it is looked at below.
            let marks = (control | quote | backslash) & HIGHS;
            if marks != 0 {
                let bytes_before = marks.trailing_zeros() / 8;
                ascii &= others & ((1u64 << (8 * bytes_before)) - 1) == 0;
                at += bytes_before as usize;
                break;
            }
            ascii &= others == 0;
            at += 8;
        }
        match bytes.get(at) {
            Some(b'"') => break,
            Some(b'\\') => {
                escaped = true;
                at = skip_escape(bytes, at)?;
            }
            Some(&byte @ 0..0x20) => {
                let kind = ErrorKind::ControlCharacter(byte);
                return Err(Error { at, kind });
            }
            Some(&byte) => {
                ascii &= byte < 0x80;
                at += 1;
            }
            None => return Err(Error::expected("'\"'", bytes, at)),
        }
    }
    let raw = &bytes[start..at];
    let raw = if ascii {
        // SAFETY: no byte from `start` to `at` has its high bit set.
        unsafe { std::str::from_utf8_unchecked(raw) }
    } else {
        std::str::from_utf8(raw)
            .map_err(|error| Error { at: start + error.valid_up_to(), kind: ErrorKind::NotUtf8 })?
    };
    Ok((Text { raw, escaped }, at + 1))
}

/// Checks the escape whose backslash is at `at`; gives the offset behind it.
fn skip_escape(bytes: &[u8], at: usize) -> Result<usize, Error> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match hex4(bytes, at + 2)? {
            0xd800..0xdc00 => {
                let lone = Error { at, kind: ErrorKind::LoneSurrogate };
                if bytes.get(at + 6) != Some(&b'\\') || bytes.get(at + 7) != Some(&b'u') {
                    return Err(lone);
                }
                match hex4(bytes, at + 8)? {
                    0xdc00..0xe000 => Ok(at + 12),
                    _ => Err(lone),
                }
            }
            0xdc00..0xe000 => Err(Error { at, kind: ErrorKind::LoneSurrogate }),
            _ => Ok(at + 6),
        },
        _ => Err(Error::expected("one of \"\\/bfnrtu", bytes, at + 1)),
    }
}

fn hex4(bytes: &[u8], at: usize) -> Result<u32, Error> {
    let mut value = 0;
    for at in at..at + 4 {
        let digit = bytes.get(at).and_then(|&byte| (byte as char).to_digit(16));
        let digit = digit.ok_or_else(|| Error::expected("a hexadecimal digit", bytes, at))?;
        value = value << 4 | digit;
    }
    Ok(value)
}

/// Undoes the escapes of a string that [`scan`] has checked.
#[cold]
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        out.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut code = checked_hex(&rest[..4]);
                rest = &rest[4..];
                if (0xd800..0xdc00).contains(&code) {
                    let low = checked_hex(&rest[2..6]);
                    rest = &rest[6..];
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                char::from_u32(code).expect("checked by scan: a scalar value")
            }
            itself => itself as char,
        });
    }
    out.push_str(rest);
    out
}

fn checked_hex(digits: &str) -> u32 {
    u32::from_str_radix(digits, 16).expect("checked by scan: four hexadecimal digits")
}
