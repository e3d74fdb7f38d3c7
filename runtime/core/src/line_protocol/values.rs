//! Field values and the timestamp: strict grammar, exact ranges.

use std::ops::Range;

use crate::limits::STRING_BYTES_MAX;
use crate::line_protocol::fault::{Dialect, LineFaultKind, Parsed};

/// Checks the field value that starts at `start`; gives where it ends.
pub fn field(text: &[u8], start: usize) -> Parsed<usize> {
    match text.get(start) {
        Some(b'"') => string(text, start),
        Some(b'0'..=b'9' | b'-') => number(text, start),
        Some(b't' | b'T' | b'f' | b'F') => boolean(text, start),
        None | Some(b',' | b' ' | b'\n') => Err((LineFaultKind::FieldWithoutValue, start)),
        Some(0) => Err((LineFaultKind::Nul, start)),
        Some(_) => Err((LineFaultKind::BadValue, start)),
    }
}

/// True if a value begins as `nan` or `inf` do, with or without a sign.
pub fn is_not_finite(value: &[u8]) -> bool {
    let word = value.strip_prefix(b"-").or_else(|| value.strip_prefix(b"+")).unwrap_or(value);
    word.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"nan") || word.eq_ignore_ascii_case(b"inf"))
}

fn digits(text: &[u8], from: usize) -> usize {
    from + text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn number(text: &[u8], start: usize) -> Parsed<usize> {
    let negative = text[start] == b'-';
    let integer = start + usize::from(negative);
    let mut end = digits(text, integer);
    if end == integer {
        return Err((LineFaultKind::BadValue, start));
    }
    match text.get(end) {
        Some(b'i') => {
            // Up to 18 digits fit whatever they are.
            if end - integer > 18 && parse::<i64>(&text[start..end]).is_none() {
                return Err((LineFaultKind::IntegerRange, start));
            }
            return Ok(end + 1);
        }
        Some(b'u') if negative => return Err((LineFaultKind::AfterValue, end)),
        Some(b'u') => {
            if end - integer > 19 && parse::<u64>(&text[start..end]).is_none() {
                return Err((LineFaultKind::UnsignedRange, start));
            }
            return Ok(end + 1);
        }
        _ => {}
    }
    let whole_digits = end - integer;
    if text.get(end) == Some(&b'.') {
        let fraction = end + 1;
        end = digits(text, fraction);
        if end == fraction {
            return Err((LineFaultKind::AfterValue, fraction - 1));
        }
    }
    let mut exponent = false;
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = end + 1;
        let first = sign + usize::from(matches!(text.get(sign), Some(b'+' | b'-')));
        let last = digits(text, first);
        if last == first {
            return Err((LineFaultKind::AfterValue, end));
        }
        exponent = true;
        end = last;
    }
    // Without an exponent only 309 digits can overflow.
    if (exponent || whole_digits > 300) && !parse::<f64>(&text[start..end]).is_some_and(f64::is_finite) {
        return Err((LineFaultKind::FloatRange, start));
    }
    Ok(end)
}

fn parse<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn boolean(text: &[u8], start: usize) -> Parsed<usize> {
    let end = start + text[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    match &text[start..end] {
        b"t" | b"T" | b"true" | b"True" | b"TRUE" | b"f" | b"F" | b"false" | b"False" | b"FALSE" => Ok(end),
        _ => Err((LineFaultKind::BadValue, start)),
    }
}

/// A string: `\"` and `\\` are escapes, every other backslash stands for itself, and a newline is
/// part of it.
fn string(text: &[u8], start: usize) -> Parsed<usize> {
    let mut at = start + 1;
    let mut escapes = 0;
    loop {
        let Some(offset) = memchr::memchr3(b'"', b'\\', 0, &text[at..]) else {
            return Err((LineFaultKind::OpenString, start));
        };
        at += offset;
        match text[at] {
            b'"' => break,
            b'\\' if matches!(text.get(at + 1), Some(b'"' | b'\\')) => {
                escapes += 1;
                at += 2;
            }
            b'\\' => at += 1,
            _ => return Err((LineFaultKind::Nul, at)),
        }
    }
    if at - start - 1 - escapes > STRING_BYTES_MAX {
        return Err((LineFaultKind::StringTooLong, start));
    }
    Ok(at + 1)
}

/// Scans the rest of a line behind its fields: an optional timestamp, spaces, a carriage return. Gives the
/// timestamp and the end of the line.
pub fn timestamp(text: &[u8], start: usize, dialect: Dialect) -> Parsed<(Option<Range<usize>>, usize)> {
    let first = start + text[start..].iter().take_while(|&&byte| byte == b' ').count();
    let mut time = None;
    let mut end = first;
    if first > start && matches!(text.get(first), Some(b'0'..=b'9' | b'-')) {
        let sign = usize::from(text[first] == b'-');
        end = digits(text, first + sign);
        if end == first + sign {
            return Err((LineFaultKind::BadTimestamp, first));
        }
        let edge = match dialect {
            Dialect::V3 => i64::MAX,
            Dialect::V1V2 => i64::MAX - 1,
        };
        let in_range =
            end - first <= 18 || parse::<i64>(&text[first..end]).is_some_and(|ns| ns >= -edge && ns <= edge);
        if !in_range {
            return Err((LineFaultKind::TimestampRange, first));
        }
        time = Some(first..end);
    }
    end += text[end..].iter().take_while(|&&byte| byte == b' ' || byte == b'\r').count();
    match text.get(end) {
        None | Some(b'\n') => Ok((time, end)),
        Some(0) => Err((LineFaultKind::Nul, end)),
        Some(_) => Err((LineFaultKind::BadTimestamp, end)),
    }
}
