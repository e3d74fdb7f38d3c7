//! Measurements, tag keys, tag values and field keys: where each ends, escapes minded.

use std::ops::Range;

use crate::limits::NAME_BYTES_MAX;
use crate::line_protocol::fault::{Dialect, LineFaultKind, Parsed};

/// Checks the length of a name.
pub(crate) fn name_length(start: usize, end: usize) -> Parsed<()> {
    if end - start > NAME_BYTES_MAX { Err((LineFaultKind::NameTooLong, start)) } else { Ok(()) }
}

const COMMA: u8 = 1;

const SPACE: u8 = 2;

const EQUALS: u8 = 4;

const BACKSLASH: u8 = 8;

/// Newline, tab or NUL: forbidden in a name.
const NEVER: u8 = 16;

/// The meaning of each byte in a name.
static CLASS: [u8; 256] = {
    let mut class = [0; 256];
    class[b',' as usize] = COMMA;
    class[b' ' as usize] = SPACE;
    class[b'=' as usize] = EQUALS;
    class[b'\\' as usize] = BACKSLASH;
    class[b'\n' as usize] = NEVER;
    class[b'\t' as usize] = NEVER;
    class[0] = NEVER;
    class
};

/// The end of a name.
struct ScannedName {
    end: usize,
    /// It ends in a backslash that escapes nothing.
    backslash: bool,
    /// An unescaped `=` stands in it (where that does not end it).
    equals: bool,
}

/// Scans a name from `start` to an unescaped byte of the classes `ends`. A backslash escapes a byte of
/// `escapable` and another backslash.
#[inline]
fn scan(text: &[u8], start: usize, ends: u8, escapable: u8) -> Parsed<ScannedName> {
    let (mut at, mut backslash, mut equals) = (start, false, false);
    while let Some(&byte) = text.get(at) {
        let class = CLASS[usize::from(byte)];
        if class == 0 {
            backslash = false;
            at += 1;
            continue;
        }
        if class & ends != 0 {
            break;
        }
        match class {
            BACKSLASH => {
                let next = text.get(at + 1).map_or(NEVER, |&next| CLASS[usize::from(next)]);
                if next == NEVER && matches!(text.get(at + 1), None | Some(b'\n')) {
                    return Err((LineFaultKind::EndsInBackslash, at));
                }
                if next == BACKSLASH {
                    backslash = true;
                    at += 2;
                } else if next & escapable != 0 {
                    backslash = false;
                    at += 2;
                } else {
                    backslash = next & ends != 0;
                    at += 1;
                }
            }
            NEVER => match byte {
                b'\n' => break,
                0 => return Err((LineFaultKind::Nul, at)),
                _ => return Err((LineFaultKind::TabInName, at)),
            },
            _ => {
                equals |= class == EQUALS;
                backslash = false;
                at += 1;
            }
        }
    }
    name_length(start, at)?;
    Ok(ScannedName { end: at, backslash, equals })
}

/// The end of the measurement: a comma, a space, or the end of the line.
pub fn measurement(text: &[u8], start: usize) -> Parsed<usize> {
    let name = scan(text, start, COMMA | SPACE, COMMA | SPACE)?;
    if name.end == start {
        return Err((LineFaultKind::NoMeasurement, start));
    }
    if name.backslash {
        return Err((LineFaultKind::EndsInBackslash, name.end - 1));
    }
    Ok(name.end)
}

/// A tag key, which ends at its `=`.
pub fn tag_key(text: &[u8], start: usize) -> Parsed<Range<usize>> {
    let name = scan(text, start, COMMA | SPACE | EQUALS, COMMA | SPACE | EQUALS)?;
    if text.get(name.end) != Some(&b'=') {
        return Err((LineFaultKind::TagWithoutValue, name.end));
    }
    if name.end == start {
        return Err((LineFaultKind::EmptyTagKey, start));
    }
    if name.backslash {
        return Err((LineFaultKind::EndsInBackslash, name.end - 1));
    }
    Ok(start..name.end)
}

/// The end of the tag value at `start`: a comma, a space, or the end of the line.
pub fn tag_value(text: &[u8], start: usize, dialect: Dialect) -> Parsed<usize> {
    let name = scan(text, start, COMMA | SPACE, COMMA | SPACE | EQUALS)?;
    if name.end == start {
        return Err((LineFaultKind::EmptyTagValue, start));
    }
    if name.backslash {
        return Err((LineFaultKind::EndsInBackslash, name.end - 1));
    }
    if name.equals && dialect == Dialect::V1V2 {
        return Err((LineFaultKind::EqualsInTagValue, start));
    }
    Ok(name.end)
}

/// A field key, which ends at its `=`. It ends in no backslash. InfluxDB 1 takes the `=` behind an escaped one
/// (`a\\=1`) for a part of the name, without a word; InfluxDB 3 refuses the line and says so.
pub fn field_key(text: &[u8], start: usize, dialect: Dialect) -> Parsed<Range<usize>> {
    let name = scan(text, start, COMMA | SPACE | EQUALS, COMMA | SPACE | EQUALS)?;
    if text.get(name.end) != Some(&b'=') {
        return Err((LineFaultKind::FieldWithoutValue, name.end));
    }
    if name.end == start {
        return Err((LineFaultKind::EmptyFieldKey, start));
    }
    if name.backslash && dialect == Dialect::V1V2 {
        return Err((LineFaultKind::EndsInBackslash, name.end - 1));
    }
    Ok(start..name.end)
}
