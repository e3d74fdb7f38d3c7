//! ISO 8601 as Python's `dateutil.parser.isoparse` reads it, with exact nanoseconds.
//!
//! Dates: `YYYY`, `YYYY-MM`, `YYYYMMDD`, `YYYY-MM-DD`, `YYYY-Www[-D]`, `YYYY-DDD` and their forms
//! without dashes; any one character; `hh[:mm[:ss]]` with or without colons, a fraction of the
//! second after `.` or `,` (nine digits are kept); `Z`, `+hh`, `+hhmm`, `+hh:mm`. 24:00 is the next
//! midnight. Without a zone it is UTC.

/// The reason for which a text is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFault {
    /// The form is unknown.
    Form,
    /// A time, but outside 64-bit nanoseconds (1677 to 2262).
    Range,
}

/// Reads a time and returns nanoseconds since the Unix epoch. A time without a zone is UTC.
///
/// # Errors
/// The text is not a time, or the time is outside 64 bits.
pub fn parse_iso8601(text: &[u8]) -> Result<i64, TimeFault> {
    parse_iso8601_at(text, 0)
}

/// Same as `parse_iso8601`, but a time without a zone is `offset_s` seconds east of UTC.
///
/// # Errors
/// Same as `parse_iso8601`.
pub fn parse_iso8601_at(text: &[u8], offset_s: i64) -> Result<i64, TimeFault> {
    if let Some(ns) = usual(text) {
        return Ok(ns);
    }
    let (date, rest) = date(text).ok_or(TimeFault::Form)?;
    let time = match rest {
        [] => Time::default(),
        [_, time @ ..] if text.is_ascii() => parse_time(time).ok_or(TimeFault::Form)?,
        _ => return Err(TimeFault::Form),
    };
    let day = match date {
        Date::Calendar { year, month, day } => days_of(year, month, day).ok_or(TimeFault::Form)?,
        Date::Day(day) => day,
    };
    let mut seconds = day * 86_400 + time.seconds;
    if time.seconds == 86_400 && day >= days_of(9_999, 12, 31).unwrap_or(0) {
        return Err(TimeFault::Form);
    }
    seconds -= time.offset_s.unwrap_or(offset_s);
    seconds.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(time.ns)).ok_or(TimeFault::Range)
}

/// The form that nearly every device sends, quickly: `YYYY-MM-DDThh:mm:ss[.f…](Z|+00:00)`.
fn usual(text: &[u8]) -> Option<i64> {
    let head = text.first_chunk::<19>()?;
    let digit = |at: usize| {
        let digit = head[at].wrapping_sub(b'0');
        (digit < 10).then_some(i64::from(digit))
    };
    let two = |at: usize| Some(digit(at)? * 10 + digit(at + 1)?);
    if [head[4], head[7], head[13], head[16]] != *b"--::" || !head[10].is_ascii() {
        return None;
    }
    let (year, month, day) = (two(0)? * 100 + two(2)?, two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = &text[19..];
    let mut ns = 0;
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits > 9 {
            return None;
        }
        for &digit in &fraction[..digits] {
            ns = ns * 10 + i64::from(digit - b'0');
        }
        ns *= 10_i64.pow(9 - digits as u32);
        rest = &fraction[digits..];
    }
    if rest != b"Z" && rest != b"+00:00" {
        return None;
    }
    // Years that fit 64-bit nanoseconds whatever their day.
    if !(1_678..=2_261).contains(&year) {
        return None;
    }
    let seconds = days_of(year, month, day)? * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(seconds * 1_000_000_000 + ns)
}

enum Date {
    Calendar {
        year: i64,
        month: i64,
        day: i64,
    },
    /// Days since the epoch.
    Day(i64),
}

/// Python's `int()` of a few bytes: blanks around, a sign and single underscores are fine.
fn python_int(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let mut value = 0;
    let mut last_was_digit = false;
    for &byte in digits {
        match byte {
            b'0'..=b'9' => {
                value = value * 10 + i64::from(byte - b'0');
                last_was_digit = true;
            }
            b'_' if last_was_digit => last_was_digit = false,
            _ => return None,
        }
    }
    last_was_digit.then_some(if negative { -value } else { value })
}

fn date(text: &[u8]) -> Option<(Date, &[u8])> {
    common_date(text).or_else(|| uncommon_date(text))
}

fn common_date(text: &[u8]) -> Option<(Date, &[u8])> {
    let year = python_int(text.get(..4)?)?;
    let mut rest = &text[4..];
    if rest.is_empty() {
        return Some((Date::Calendar { year, month: 1, day: 1 }, rest));
    }
    let dashed = rest[0] == b'-';
    if dashed {
        rest = &rest[1..];
    }
    let month = python_int(rest.get(..2)?)?;
    rest = &rest[2..];
    if rest.is_empty() {
        return dashed.then_some((Date::Calendar { year, month, day: 1 }, rest));
    }
    if dashed {
        rest = rest.strip_prefix(b"-")?;
    }
    let day = python_int(rest.get(..2)?)?;
    Some((Date::Calendar { year, month, day }, &rest[2..]))
}

fn uncommon_date(text: &[u8]) -> Option<(Date, &[u8])> {
    let year = python_int(text.get(..4)?)?;
    let dashed = text.get(4) == Some(&b'-');
    let mut rest = &text[4 + usize::from(dashed)..];
    if let [b'W', week @ ..] = rest {
        let number = python_int(week.get(..2).unwrap_or(week))?;
        rest = week.get(2..).unwrap_or_default();
        let mut day = 1;
        if !rest.is_empty() {
            if (rest[0] == b'-') != dashed {
                return None;
            }
            rest = &rest[usize::from(dashed)..];
            day = python_int(rest.get(..1)?)?;
            rest = &rest[1..];
        }
        if !(1..54).contains(&number) || !(1..8).contains(&day) {
            return None;
        }
        let fourth = days_of(year, 1, 4)?;
        // Monday of the week that holds January 4th; the epoch was a Thursday.
        let monday = fourth - (fourth + 3).rem_euclid(7);
        return Some((Date::Day(monday + (number - 1) * 7 + day - 1), rest));
    }
    let ordinal = python_int(rest.get(..3)?)?;
    if ordinal < 1 || ordinal > 365 + i64::from(is_leap(year)) {
        return None;
    }
    Some((Date::Day(days_of(year, 1, 1)? + ordinal - 1), &rest[3..]))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days from the epoch to a day of the Gregorian calendar (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms").
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let length = match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=9_999).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let shifted = year - i64::from(month <= 2);
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[derive(Default)]
struct Time {
    /// Seconds of the day; 86,400 at 24:00.
    seconds: i64,
    ns: i64,
    /// East of UTC; None: the text names no zone.
    offset_s: Option<i64>,
}

fn parse_time(text: &[u8]) -> Option<Time> {
    if text.len() < 2 {
        return None;
    }
    let mut parts = [0; 3];
    let mut time = Time::default();
    let mut rest = text;
    let mut colons = false;
    let mut part = 0;
    while let (Some(&first), 0..5) = (rest.first(), part) {
        if matches!(first, b'-' | b'+' | b'Z' | b'z') {
            time.offset_s = Some(zone(rest)?);
            rest = &[];
            break;
        }
        if part == 1 && first == b':' {
            colons = true;
            rest = &rest[1..];
        } else if part == 2 && colons {
            rest = rest.strip_prefix(b":")?;
        }
        if let Some(place) = parts.get_mut(part) {
            *place = python_int(rest.get(..2).unwrap_or(rest))?;
            rest = rest.get(2..).unwrap_or_default();
        } else if part == 3
            && let [b'.' | b',', fraction @ ..] = rest
        {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits > 0 {
                let kept = &fraction[..digits.min(9)];
                let value = kept.iter().fold(0, |value, &digit| value * 10 + i64::from(digit - b'0'));
                time.ns = value * 10_i64.pow(9 - kept.len() as u32);
                rest = &fraction[digits..];
            }
        }
        part += 1;
    }
    if !rest.is_empty() {
        return None;
    }
    let [hour, minute, second] = parts;
    let midnight = hour == 24 && minute == 0 && second == 0 && time.ns == 0;
    let of_a_day = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
    if !of_a_day && !midnight {
        return None;
    }
    time.seconds = hour * 3_600 + minute * 60 + second;
    Some(time)
}

/// Reads `Z`, `+hh`, `+hhmm` or `+hh:mm`: seconds east of UTC.
pub fn parse_zone(text: &str) -> Option<i64> {
    if text.is_ascii() { zone(text.as_bytes()) } else { None }
}

fn zone(text: &[u8]) -> Option<i64> {
    if text == b"Z" || text == b"z" {
        return Some(0);
    }
    if !matches!(text.len(), 3 | 5 | 6) {
        return None;
    }
    let sign = match text[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let hours = python_int(&text[1..3])?;
    let minutes = match text.len() {
        3 => 0,
        _ => python_int(&text[if text[3] == b':' { 4 } else { 3 }..])?,
    };
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
        return None;
    }
    Some(sign * (hours * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_devices_send_are_read_exactly() {
        let base = 1_795_424_398_000_000_000;
        for (text, expected) in [
            ("2026-11-23T08:59:58Z", base),
            ("2026-11-23T08:59:58.250000+00:00", base + 250_000_000),
            ("2026-11-23T08:59:58.123456789Z", base + 123_456_789),
            ("2026-11-23T08:59:58.1234567891Z", base + 123_456_789),
            ("2026-11-23 09:59:58+01", base),
            ("2026-11-23x09:59:58,5+0100", base + 500_000_000),
            ("20261123T085958Z", base),
            ("2026-11-23T08:59:58", base),
            ("2026-327T08:59:58", base),
            ("2026-W48-1T08:59:58", base),
            ("1970", 0),
            ("1970-01", 0),
            ("1969-12-31T24:00", 0),
            ("1969-12-31T23:59:59Z", -1_000_000_000),
        ] {
            assert_eq!(parse_iso8601(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_zone_of_the_caller_is_for_times_that_name_none() {
        let base = 1_795_424_398_000_000_000;
        let offset = parse_zone("+02:00").unwrap();
        assert_eq!(parse_iso8601_at(b"2026-11-23T10:59:58", offset), Ok(base));
        assert_eq!(parse_iso8601_at(b"2026-11-23T08:59:58Z", offset), Ok(base));
        assert_eq!(parse_iso8601_at(b"2026-11-23T07:59:58-01", offset), Ok(base));
        assert_eq!(parse_iso8601_at(b"1970-01-01", offset), Ok(-7_200_000_000_000));
        for bad in ["", "CET", "+2", "Europe/Berlin", "+25:00", "\u{e9}\u{e9}"] {
            assert_eq!(parse_zone(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "202",
            "202611",
            "2026-13-01",
            "2026-02-29",
            "2026-11-23T",
            "2026-11-23T8",
            "2026-11-23T08:59:60Z",
            "2026-11-23T24:00:01",
            "2026-11-23T08:59:58+24:00",
            " 2026-11-23",
            "2026-11-23T08:5958",
            "2026-11-23T08:59:58.Z",
            "Mon, 23 Nov 2026",
            "1795424398",
            "2026-11-23é08:59",
        ] {
            assert_eq!(parse_iso8601(text.as_bytes()), Err(TimeFault::Form), "{text}");
        }
        assert_eq!(parse_iso8601(b"9999-01-01"), Err(TimeFault::Range));
        assert_eq!(parse_iso8601(b"1600-01-01T00:00:00Z"), Err(TimeFault::Range));
    }
}
