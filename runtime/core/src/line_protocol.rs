//! The line check: a strict parse of each line of a guest, alone, before it stands beside others.
//!
//! One bad line can swallow its neighbours inside a database (an open quote, a backslash at the end
//! of a line), and one with a tag key twice can make an InfluxDB 3 unusable. So InfluxDB 1, 2 and 3 read
//! the output of this check as exactly the lines that we count. The host splices the identity
//! tags in behind the measurement and appends the message's time if the guest gave none, a
//! nanosecond more for each further line of a series; the guest's own bytes are forwarded otherwise as
//! they are.
//!
//! Format: InfluxDB line protocol. Deliberately absent: values are checked, never rewritten.

pub mod fault;
pub mod names;
pub mod keys;
pub mod values;
pub mod shape;
pub mod series_times;
pub mod identity;
pub mod rules;
pub mod split;
pub mod line_time;
#[cfg(test)]
mod tests;

use crate::limits::{CHECKED_BYTES_A_MESSAGE_MAX, LINE_BYTES_MAX, LINES_A_MESSAGE_MAX, SERIES_BYTES_MAX};
use crate::line_protocol::fault::Parsed;
use crate::line_protocol::keys::LineKeys;
use crate::line_protocol::names::name_length;
use crate::line_protocol::series_times::SeriesTimes;
use crate::line_protocol::shape::{LinePlaces, LineShapes};

pub use crate::line_protocol::fault::Dialect;
pub use crate::line_protocol::fault::LineFault;
pub use crate::line_protocol::fault::LineFaultKind;
pub use crate::line_protocol::identity::IdentityTagError;
pub use crate::line_protocol::identity::escape_tag_value;
pub use crate::line_protocol::identity::identity_tags;
pub use crate::line_protocol::line_time::line_time;
pub use crate::line_protocol::rules::LineRules;
pub use crate::line_protocol::rules::NameSet;
pub use crate::line_protocol::rules::TenantTag;
pub use crate::line_protocol::split::split_checked;

/// The parts that every line of a message gets.
#[derive(Clone, Copy, Debug)]
pub struct LineContext<'a> {
    /// `,device_id=…[,site_id=…]`, escaped.
    pub identity_tags: &'a [u8],
    /// Nanoseconds since the epoch, for lines without a time. Up to `LINES_A_MESSAGE_MAX` of them
    /// belong to this message.
    pub received_ns: i64,
    pub dialect: Dialect,
    /// `None`: the tenant has none.
    pub rules: Option<&'a LineRules>,
}

/// Checks lines; keeps its buffers between messages.
#[derive(Debug, Default)]
pub struct LineChecker {
    keys: LineKeys,
    shapes: LineShapes,
    times: SeriesTimes,
}

impl LineChecker {
    /// Checks the lines of one message and appends them to `out`, complete, each ended by a
    /// newline. Gives their number.
    ///
    /// # Errors
    /// The first fault; `out` is then as it was before.
    #[inline]
    pub fn check(
        &mut self,
        text: &[u8],
        stamp: LineContext<'_>,
        out: &mut Vec<u8>,
    ) -> Result<u32, LineFault> {
        let before = out.len();
        self.run(text, stamp, out, &mut None).inspect_err(|_| out.truncate(before))
    }

    /// The same as `check`, but leaves out bad lines, records their faults, and keeps the rest.
    ///
    /// # Errors
    /// A fault of the whole message: it is not UTF-8, or has too many lines.
    #[inline]
    pub fn check_keeping_rest(
        &mut self,
        text: &[u8],
        stamp: LineContext<'_>,
        out: &mut Vec<u8>,
        faults: &mut Vec<LineFault>,
    ) -> Result<u32, LineFault> {
        let before = out.len();
        self.run(text, stamp, out, &mut Some(faults)).inspect_err(|_| out.truncate(before))
    }

    fn run(
        &mut self,
        text: &[u8],
        stamp: LineContext<'_>,
        out: &mut Vec<u8>,
        faults: &mut Option<&mut Vec<LineFault>>,
    ) -> Result<u32, LineFault> {
        if let Err(error) = std::str::from_utf8(text) {
            let line = text[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
            let start = memchr::memrchr(b'\n', &text[..error.valid_up_to()]).map_or(0, |newline| newline + 1);
            let found = (LineFaultKind::NotUtf8, error.valid_up_to());
            return Err(fault(text, start, line as u32 + 1, found, stamp));
        }
        self.times.clear();
        let (mut at, mut number, mut count, begin) = (0, 0, 0, out.len());
        while at < text.len() {
            number += 1;
            let start = at + text[at..].iter().take_while(|&&byte| byte == b' ' || byte == b'\t').count();
            match text.get(start) {
                None => break,
                Some(b'\n') => {
                    at = start + 1;
                    continue;
                }
                // A blank line of a text with CRLF.
                Some(b'\r') if text.get(start + 1) == Some(&b'\n') => {
                    at = start + 2;
                    continue;
                }
                Some(b'#') => {
                    at = next_line(text, start);
                    continue;
                }
                Some(_) => {}
            }
            let before = out.len();
            match self.line(text, start, stamp, out) {
                Ok(end) => {
                    at = end;
                    count += 1;
                    if count > LINES_A_MESSAGE_MAX {
                        let found = (LineFaultKind::TooManyLines, start);
                        return Err(fault(text, start, number, found, stamp));
                    }
                    if out.len() - begin > CHECKED_BYTES_A_MESSAGE_MAX {
                        let found = (LineFaultKind::TooManyBytes, start);
                        return Err(fault(text, start, number, found, stamp));
                    }
                }
                Err(found) => {
                    let fault = fault(text, start, number, found, stamp);
                    match faults {
                        None => return Err(fault),
                        Some(faults) => {
                            faults.push(fault);
                            out.truncate(before);
                            // Where a database would see the line end: what stands in an open
                            // string must not become a line.
                            at = start + split::line_end(&text[start..]) + 1;
                        }
                    }
                }
            }
        }
        Ok(count)
    }

    /// Checks and appends the line at `start`; gives the start of the next one.
    fn line(
        &mut self,
        text: &[u8],
        start: usize,
        stamp: LineContext<'_>,
        out: &mut Vec<u8>,
    ) -> Parsed<usize> {
        let under = (stamp.dialect, stamp.rules);
        let places = match self.shapes.places(text, start, under) {
            Some(places) => places,
            None => {
                let places = self.parse(text, start, stamp)?;
                self.shapes.record(text, start, places, self.keys.places(), under);
                places
            }
        };
        let LinePlaces { measurement_end, tags_end, fields_start, fields_end } = places;
        let mut spliced = stamp.identity_tags.len();
        if let Some(rules) = stamp.rules {
            spliced += rules.spliced_bytes();
            name_length(start, measurement_end + rules.table_prefix.len())?;
        }
        let series = fields_start - start + spliced;
        if stamp.dialect == Dialect::V1V2 && series > SERIES_BYTES_MAX {
            return Err((LineFaultKind::SeriesTooLong, start));
        }
        let (time, line_end) = values::timestamp(text, fields_end, stamp.dialect)?;
        if line_end - start > LINE_BYTES_MAX {
            return Err((LineFaultKind::LineTooLong, start + LINE_BYTES_MAX));
        }
        if let (Some(rules), Some(time)) = (stamp.rules, &time)
            && !rules.has_time(&text[time.clone()], stamp.received_ns)
        {
            return Err((LineFaultKind::OutsideWindow, time.start));
        }
        out.reserve(line_end - start + spliced + TIME_BYTES_MAX + 2);
        if let Some(rules) = stamp.rules {
            out.extend_from_slice(&rules.table_prefix);
        }
        out.extend_from_slice(&text[start..measurement_end]);
        if let Some(tag) = stamp.rules.and_then(|rules| rules.tenant_tag.as_ref()) {
            out.extend_from_slice(&tag.spliced);
        }
        out.extend_from_slice(stamp.identity_tags);
        if let Some(time) = &time
            && time.start == fields_end + 1
        {
            out.extend_from_slice(&text[measurement_end..time.end]);
            out.push(b'\n');
            return Ok(line_end + 1);
        }
        out.extend_from_slice(&text[measurement_end..fields_end]);
        out.push(b' ');
        match time {
            Some(time) => out.extend_from_slice(&text[time]),
            None => {
                let offset_ns = self.times.offset_ns(text, start..tags_end);
                let time_ns = stamp.received_ns.saturating_add(offset_ns);
                out.extend_from_slice(itoa::Buffer::new().format(time_ns).as_bytes());
            }
        }
        out.push(b'\n');
        // The next line begins behind the newline.
        Ok(line_end + 1)
    }

    /// Parses the names and values of the line at `start`; `keys` then has its keys.
    fn parse(&mut self, text: &[u8], start: usize, stamp: LineContext<'_>) -> Parsed<LinePlaces> {
        self.keys.clear();
        let measurement_end = names::measurement(text, start)?;
        let mut fields_allowed = None;
        self.keys.reserve(None);
        if let Some(rules) = stamp.rules {
            fields_allowed = rules.table(text, start, measurement_end)?;
            name_length(start, measurement_end + rules.table_prefix.len())?;
            self.keys.reserve(rules.tenant_tag.as_ref());
        }
        let (tags_end, fields_start) = self.tags(text, measurement_end, stamp.dialect)?;
        let fields_end = self.fields(text, fields_start, fields_allowed, stamp.dialect)?;
        Ok(LinePlaces { measurement_end, tags_end, fields_start, fields_end })
    }

    /// Checks the tags; gives their end and the start of the first field.
    fn tags(&mut self, text: &[u8], mut at: usize, dialect: Dialect) -> Parsed<(usize, usize)> {
        while text.get(at) == Some(&b',') {
            let key = names::tag_key(text, at + 1)?;
            if dialect == Dialect::V1V2 && matches!(&text[key.clone()], b"_measurement" | b"_field") {
                return Err((LineFaultKind::ReservedTag, key.start));
            }
            self.keys.add(text, key.clone())?;
            at = names::tag_value(text, key.end + 1, dialect)?;
        }
        let first = at + text[at..].iter().take_while(|&&byte| byte == b' ').count();
        match text.get(first) {
            None | Some(b'\n') => Err((LineFaultKind::NoFields, first)),
            Some(b'\t') => Err((LineFaultKind::TabInName, first)),
            Some(_) => Ok((at, first)),
        }
    }

    /// Checks the fields; gives the end of the last one, where the timestamp may follow.
    fn fields(
        &mut self,
        text: &[u8],
        mut at: usize,
        allowed: Option<&NameSet>,
        dialect: Dialect,
    ) -> Parsed<usize> {
        loop {
            let key = names::field_key(text, at, dialect)?;
            self.keys.add(text, key.clone())?;
            if allowed.is_some_and(|allowed| !allowed.permits_key(&text[key.clone()])) {
                return Err((LineFaultKind::FieldNotAllowed, at));
            }
            at = values::field(text, key.end + 1)?;
            match text.get(at) {
                Some(b',') => at += 1,
                None | Some(b' ' | b'\n' | b'\r') => return Ok(at),
                Some(b'\0') => return Err((LineFaultKind::Nul, at)),
                Some(_) => return Err((LineFaultKind::AfterValue, at)),
            }
        }
    }
}

/// The most bytes of a time in nanoseconds.
const TIME_BYTES_MAX: usize = 20;

fn next_line(text: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', &text[from..]).map_or(text.len(), |newline| from + newline + 1)
}

/// The bytes of a line that a fault shows.
const EXCERPT_BYTES: usize = 96;

fn fault(
    text: &[u8],
    start: usize,
    line: u32,
    (kind, at): (LineFaultKind, usize),
    stamp: LineContext<'_>,
) -> LineFault {
    let end = next_line(text, start).min(start + EXCERPT_BYTES).max(start);
    let excerpt = String::from_utf8_lossy(&text[start..end]).trim_end_matches('\n').to_owned();
    let detail = match kind {
        LineFaultKind::BadValue if values::is_not_finite(&text[at..]) => {
            " (nan and inf are no values of a database: leave the field out)".to_owned()
        }
        _ => stamp.rules.map(|rules| rules.explain(kind, text, at, stamp.received_ns)).unwrap_or_default(),
    };
    LineFault { kind, line, detail, byte: (at.saturating_sub(start) + 1) as u32, excerpt }
}
