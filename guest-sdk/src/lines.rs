//! The line builder. It writes valid line protocol, or nothing.

use std::collections::BTreeSet;

use tidegate_json::{Number, TapeValue};

use crate::float;
use crate::refusal::Refusal;

/// The longest name and the longest string value in bytes, as InfluxDB 3 allows.
const TEXT_BYTES_MAX: usize = 65_536;

/// The lines of a batch of messages.
#[derive(Debug, Default)]
pub struct Lines {
    pub(crate) bytes: Vec<u8>,
    /// The keys of the line that is being written: a signature, and where the key stands.
    keys: Vec<(u64, u32, u32)>,
    /// A bit for each of them, by its signature.
    seen: u64,
    /// The keys once more, in order, of a line that has more than `PAIRWISE_MAX`. Ordered and not hashed:
    /// no names can be chosen that make it slow.
    table: BTreeSet<Box<[u8]>>,
    allows_backslash_ends: bool,
}

/// The most keys that are compared pairwise, which is quicker than any table; with more, the
/// author of a payload could make a line quadratic.
const PAIRWISE_MAX: usize = 24;

impl Lines {
    /// Lets names of fields end in a backslash from here on, written as two. InfluxDB 3 refuses such a line, and
    /// the gateway does for older databases. For decoders that must write what an earlier service wrote.
    pub fn allow_backslash_ends(&mut self) {
        self.allows_backslash_ends = true;
    }

    /// Starts a line.
    #[inline]
    pub fn line(&mut self, measurement: &str) -> Line<'_> {
        let start = self.bytes.len();
        self.keys.clear();
        self.seen = 0;
        self.table.clear();
        let mut line = Line { lines: self, start, stage: Stage::Tags, fault: None };
        if measurement.is_empty() {
            line.fail("the measurement is empty");
        } else if measurement.starts_with('#') {
            line.fail("a measurement that begins with # would be a comment");
        }
        line.name(measurement, b"measurement", false);
        if measurement.ends_with('\\') {
            line.fail("a measurement may not end in a backslash");
        }
        line
    }

    /// Adds a finished line. The gateway checks it.
    pub fn raw(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.bytes.push(b'\n');
    }

    /// Bytes written so far, for `truncate`.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Drops all bytes after `len`.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Tags,
    Fields,
}

/// The fault of a line.
#[derive(Debug)]
struct Fault {
    duplicate: bool,
    text: String,
}

/// A line that is being written: tags first, then fields. It counts only after `end` or `at`, which also
/// return its first fault.
#[derive(Debug)]
#[must_use = "a line counts only with .end() or .at(time)"]
pub struct Line<'a> {
    lines: &'a mut Lines,
    start: usize,
    stage: Stage,
    fault: Option<Fault>,
}

/// The class of a byte in a name: 1 needs a backslash before it, 2 is not allowed.
static NAME_CLASS: [u8; 256] = {
    let mut class = [0; 256];
    class[b',' as usize] = 1;
    class[b' ' as usize] = 1;
    class[b'=' as usize] = 1;
    class[b'\\' as usize] = 1;
    let mut control = 0;
    while control < 0x20 {
        class[control] = 2;
        control += 1;
    }
    class
};

/// True if no byte of a name needs a backslash or is forbidden. Eight bytes at once: names are short, and a
/// look-up for each byte costs more in the sandbox than all else of a field.
#[inline]
fn is_plain(name: &[u8]) -> bool {
    // A byte is marked where it is below 0x20 or one of four. Marks of bytes with a high bit are taken away:
    // their low bits mean nothing. A borrow can only mark a byte above one that is marked already.
    let marks = |word: u64| {
        let zero = |byte: u8| (word ^ (u64::from(byte) * ONES)).wrapping_sub(ONES);
        let special = zero(b',') | zero(b' ') | zero(b'=') | zero(b'\\') | word.wrapping_sub(0x20 * ONES);
        special & !word & (0x80 * ONES)
    };
    let Some(last) = name.last_chunk::<8>() else { return marks(short_word(name)) == 0 };
    let words = name.as_chunks::<8>().0.iter().fold(0, |all, word| all | marks(u64::from_le_bytes(*word)));
    words | marks(u64::from_le_bytes(*last)) == 0
}

/// All bytes of a text of less than eight, some of them twice: without a loop over them.
#[inline(always)]
fn short_word(text: &[u8]) -> u64 {
    match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        _ => match text {
            [first, .., last] => {
                let middle = text[text.len() / 2];
                u64::from_le_bytes([*first, middle, *last, b'a', b'a', b'a', b'a', b'a'])
            }
            [only] => u64::from_le_bytes([*only, b'a', b'a', b'a', b'a', b'a', b'a', b'a']),
            [] => ONES * u64::from(b'a'),
        },
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// The first eight bytes and the length: equal keys have equal ones.
#[inline]
fn signature(key: &[u8]) -> u64 {
    let word = match key.first_chunk::<8>() {
        Some(head) => u64::from_le_bytes(*head),
        None => short_word(key),
    };
    word ^ (key.len() as u64).rotate_left(56)
}

/// Appends a text that is probably short. In the sandbox a copy of unknown length is a call of the
/// host, which costs more than the loop for anything of a line.
#[inline]
fn put(out: &mut Vec<u8>, text: &[u8]) {
    let length = text.len();
    if length > 32 {
        out.extend_from_slice(text);
        return;
    }
    out.reserve(32);
    let end = out.len();
    // SAFETY: there is room for 32 bytes behind `end`. Words are read inside `text` and written
    // inside that room; the last of each size reaches back over bytes that were written already,
    // so that every byte of `text` is written and none behind it is read.
    unsafe {
        let from = text.as_ptr();
        let to = out.as_mut_ptr().add(end);
        if length >= 8 {
            let last = length - 8;
            let mut at = 0;
            while at < last {
                to.add(at).cast::<u64>().write_unaligned(from.add(at).cast::<u64>().read_unaligned());
                at += 8;
            }
            to.add(last).cast::<u64>().write_unaligned(from.add(last).cast::<u64>().read_unaligned());
        } else if length >= 4 {
            let last = length - 4;
            to.cast::<u32>().write_unaligned(from.cast::<u32>().read_unaligned());
            to.add(last).cast::<u32>().write_unaligned(from.add(last).cast::<u32>().read_unaligned());
        } else {
            for at in 0..length {
                to.add(at).write(from.add(at).read());
            }
        }
        out.set_len(end + length);
    }
}

impl<'a> Line<'a> {
    #[cold]
    fn fail(&mut self, text: impl Into<String>) {
        self.fault.get_or_insert(Fault { duplicate: false, text: text.into() });
    }

    /// Writes a name with its escapes.
    #[inline]
    fn name(&mut self, name: &str, what: &[u8], equals: bool) {
        let bytes = name.as_bytes();
        if is_plain(bytes) && bytes.len() <= TEXT_BYTES_MAX {
            put(&mut self.lines.bytes, bytes);
            return;
        }
        self.odd_name(name, what, equals);
    }

    #[cold]
    fn odd_name(&mut self, name: &str, what: &[u8], equals: bool) {
        let what = String::from_utf8_lossy(what);
        if name.len() > TEXT_BYTES_MAX {
            return self.fail(format!("a {what} of {} bytes; at most {TEXT_BYTES_MAX}", name.len()));
        }
        for &byte in name.as_bytes() {
            match NAME_CLASS[usize::from(byte)] {
                2 => return self.fail(format!("the {what} {name:?} has a control character")),
                1 if equals || byte != b'=' => self.lines.bytes.extend_from_slice(&[b'\\', byte]),
                _ => self.lines.bytes.push(byte),
            }
        }
    }

    /// Writes a key behind its separator, and its `=`.
    #[inline]
    fn key(&mut self, key: &str, separator: u8, what: &'static str) {
        if key.is_empty() {
            return self.fail(format!("an empty {what} key"));
        }
        if matches!(key, "time" | "device_id" | "site_id") {
            let way_out = match key {
                "time" => "rename it, leave it out, or use it as the time of the line",
                _ => "the gateway adds it; rename it or leave it out",
            };
            return self.fail(format!("a {what} named {key}: {way_out}"));
        }
        self.lines.bytes.push(separator);
        let start = self.lines.bytes.len();
        self.name(key, what.as_bytes(), true);
        let signature = signature(&self.lines.bytes[start..]);
        // One bit a key: only when it is set already can the key have stood before.
        let bit = 1 << (signature.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58);
        let is_known = if self.lines.keys.len() >= PAIRWISE_MAX {
            self.is_in_table(start)
        } else {
            self.lines.seen & bit != 0 && self.is_known(signature, start)
        };
        if is_known {
            self.fault
                .get_or_insert(Fault { duplicate: true, text: format!("the key {key:?} stands twice") });
        }
        self.lines.seen |= bit;
        self.lines.keys.push((signature, start as u32, self.lines.bytes.len() as u32));
        self.lines.bytes.push(b'=');
    }

    /// True if the key that was just written, at `start`, stands in this line already.
    fn is_known(&self, signature: u64, start: usize) -> bool {
        let written = &self.lines.bytes[start..];
        self.lines.keys.iter().any(|&(other, from, to)| {
            other == signature && self.lines.bytes[from as usize..to as usize] == *written
        })
    }

    /// Same as `is_known`, and adds the key to the table.
    #[cold]
    fn is_in_table(&mut self, start: usize) -> bool {
        let Lines { bytes, keys, table, .. } = &mut *self.lines;
        if table.is_empty() {
            table.extend(keys.iter().map(|&(_, from, to)| bytes[from as usize..to as usize].into()));
        }
        !table.insert(bytes[start..].into())
    }

    #[inline]
    fn field_key(&mut self, key: &str) {
        let separator = if self.stage == Stage::Tags { b' ' } else { b',' };
        self.stage = Stage::Fields;
        self.key(key, separator, "field");
        if key.ends_with('\\') && !self.lines.allows_backslash_ends {
            self.fail(format!("the field {key:?} ends in a backslash, which would escape what follows"));
        }
    }

    /// Adds a tag. An empty value is left out, because InfluxDB has no empty tags.
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        if self.stage != Stage::Tags {
            self.fail(format!("the tag {key:?} stands behind a field: tags come first"));
        } else if !value.is_empty() {
            self.key(key, b',', "tag");
            if key.ends_with('\\') || value.ends_with('\\') {
                self.fail(format!("the tag {key:?} ends in a backslash, which would escape what follows"));
            }
            self.name(value, b"tag value", true);
        }
        self
    }

    /// Adds a float, which must be finite. The text is that of Python's `repr`.
    #[inline]
    pub fn float(mut self, key: &str, value: f64) -> Self {
        self.field_key(key);
        if value.is_finite() {
            float::write(value, &mut self.lines.bytes);
        } else {
            self.fail(format!("the field {key:?} is {value}, which no database takes"));
        }
        self
    }

    /// Adds an integer.
    #[inline]
    pub fn integer(mut self, key: &str, value: i64) -> Self {
        self.field_key(key);
        put(&mut self.lines.bytes, itoa::Buffer::new().format(value).as_bytes());
        self.lines.bytes.push(b'i');
        self
    }

    /// Adds an unsigned integer. InfluxDB 1 does not accept it.
    pub fn unsigned(mut self, key: &str, value: u64) -> Self {
        self.field_key(key);
        put(&mut self.lines.bytes, itoa::Buffer::new().format(value).as_bytes());
        self.lines.bytes.push(b'u');
        self
    }

    /// Adds a boolean.
    #[inline]
    pub fn boolean(mut self, key: &str, value: bool) -> Self {
        self.field_key(key);
        put(&mut self.lines.bytes, if value { b"true" } else { b"false" });
        self
    }

    /// Adds a text.
    pub fn string(mut self, key: &str, value: &str) -> Self {
        self.field_key(key);
        if value.len() > TEXT_BYTES_MAX {
            self.fail(format!("the field {key:?} has {} bytes; at most {TEXT_BYTES_MAX}", value.len()));
            return self;
        }
        if value.contains('\0') {
            self.fail(format!("the field {key:?} has a NUL character"));
            return self;
        }
        self.lines.bytes.push(b'"');
        for &byte in value.as_bytes() {
            if matches!(byte, b'"' | b'\\') {
                self.lines.bytes.push(b'\\');
            }
            self.lines.bytes.push(byte);
        }
        self.lines.bytes.push(b'"');
        self
    }

    /// Adds a number from a JSON text. An integer stays an integer, and must fit 64 bits. A number with a
    /// fraction or an exponent is a float.
    #[inline]
    pub fn number(mut self, key: &str, number: &Number<'_>) -> Self {
        self.field_key(key);
        let text = number.text().as_bytes();
        if number.is_verbatim() {
            put(&mut self.lines.bytes, text);
            if number.is_integer() {
                self.lines.bytes.push(b'i');
            }
            return self;
        }
        if number.is_integer() {
            match number.as_i64() {
                Ok(value) => {
                    put(&mut self.lines.bytes, itoa::Buffer::new().format(value).as_bytes());
                    self.lines.bytes.push(b'i');
                }
                Err(_) => {
                    self.fail(format!("the field {key:?} is {}, outside 64-bit integers", number.text()))
                }
            }
            return self;
        }
        match number.as_f64() {
            Some(value) => float::write(value, &mut self.lines.bytes),
            None => self.fail(format!("the field {key:?} is {}, outside 64-bit floats", number.text())),
        }
        self
    }

    /// Adds a number or a boolean of a tape, as `number` and `boolean` do. `None`, and the line is of no further
    /// use: it is something else.
    #[inline]
    pub fn tape_value(mut self, key: &str, value: &TapeValue<'_>) -> Option<Self> {
        if let Some((text, is_integer)) = value.verbatim_number() {
            self.field_key(key);
            put(&mut self.lines.bytes, text.as_bytes());
            if is_integer {
                self.lines.bytes.push(b'i');
            }
            return Some(self);
        }
        match (value.bool(), value.number()) {
            (Some(value), _) => Some(self.boolean(key, value)),
            (None, Some(number)) => Some(self.number(key, &number)),
            (None, None) => None,
        }
    }

    /// True if a key was used twice. The line is then refused.
    pub fn has_duplicate(&self) -> bool {
        self.fault.as_ref().is_some_and(|fault| fault.duplicate)
    }

    /// Ends the line without a time. The gateway adds the time of receipt.
    ///
    /// # Errors
    /// `BAD_LINE` with the fault. Nothing of the line is written.
    #[inline]
    pub fn end(self) -> Result<(), Refusal> {
        self.finish(None)
    }

    /// Ends the line with a time, in nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// Same as `end`.
    #[inline]
    pub fn at(self, time_ns: i64) -> Result<(), Refusal> {
        self.finish(Some(time_ns))
    }

    #[inline]
    fn finish(mut self, time_ns: Option<i64>) -> Result<(), Refusal> {
        if self.stage == Stage::Tags {
            self.fail("a line without a field");
        }
        if let Some(fault) = &self.fault {
            return Err(Refusal::new("BAD_LINE", fault.text.clone()));
        }
        if let Some(time_ns) = time_ns {
            self.lines.bytes.push(b' ');
            put(&mut self.lines.bytes, itoa::Buffer::new().format(time_ns).as_bytes());
        }
        self.lines.bytes.push(b'\n');
        // What is written counts now.
        self.start = self.lines.bytes.len();
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.lines.bytes.truncate(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &Lines) -> &str {
        std::str::from_utf8(&lines.bytes).unwrap()
    }

    #[test]
    fn names_are_escaped_and_values_have_their_types() {
        let mut lines = Lines::default();
        lines
            .line("m,a b=c")
            .tag("t k", "v,=\\x")
            .float("f", 1.0)
            .integer("i", -3)
            .unsigned("u", 4)
            .boolean("b", true)
            .string("s", "a\"b\\c\nd")
            .at(7)
            .unwrap();
        assert_eq!(
            text(&lines),
            "m\\,a\\ b=c,t\\ k=v\\,\\=\\\\x f=1.0,i=-3i,u=4u,b=true,s=\"a\\\"b\\\\c\nd\" 7\n"
        );
    }

    #[test]
    fn no_name_ends_in_a_backslash() {
        let mut lines = Lines::default();
        let fault = lines.line("m").float("temp\\", 1.5).float("b", 2.0).end().unwrap_err();
        assert!(fault.to_string().contains("ends in a backslash"), "{fault}");
        assert!(lines.line("m\\").float("b", 2.0).end().is_err());
        assert!(lines.line("m").tag("k", "v\\").float("b", 2.0).end().is_err());
        lines.line("m").tag("k", "C:\\x").float("a\\b", 2.0).end().unwrap();
        assert_eq!(text(&lines), "m,k=C:\\\\x a\\\\b=2.0\n");
    }

    #[test]
    fn short_texts_are_copied_whole_whatever_their_length() {
        let text: Vec<u8> = (0..80).collect();
        for length in 0..text.len() {
            let mut out = b"before".to_vec();
            put(&mut out, &text[..length]);
            assert_eq!(out[6..], text[..length]);
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_found_however_many_there_are() {
        let mut lines = Lines::default();
        for fields in [2, PAIRWISE_MAX - 1, PAIRWISE_MAX, PAIRWISE_MAX + 1, 1_000] {
            for twice in [None, Some(0), Some(fields / 2), Some(fields - 1)] {
                let mut line = lines.line("m");
                for n in 0..fields {
                    line = line.integer(&format!("a common beginning {n}"), 1);
                }
                assert!(!line.has_duplicate());
                if let Some(n) = twice {
                    line = line.integer(&format!("a common beginning {n}"), 2);
                }
                assert_eq!(line.has_duplicate(), twice.is_some(), "{fields} fields, {twice:?}");
                assert_eq!(line.end().is_err(), twice.is_some());
            }
        }
    }

    #[test]
    fn a_line_that_would_be_invalid_leaves_nothing_behind() {
        let mut lines = Lines::default();
        lines.line("good").integer("n", 1).end().unwrap();
        let before = text(&lines).to_owned();
        let faults = [
            lines.line("").integer("n", 1).end(),
            lines.line("m").end(),
            lines.line("m").tag("t", "v").end(),
            lines.line("m").float("f", f64::NAN).end(),
            lines.line("m").integer("time", 1).end(),
            lines.line("m").tag("device_id", "x").integer("n", 1).end(),
            lines.line("m").integer("n", 1).float("n", 2.0).end(),
            lines.line("m").tag("n", "x").integer("n", 1).end(),
            lines.line("m").integer("a\nb", 1).end(),
            lines.line("m").integer("", 1).end(),
            lines.line("m").integer("n", 1).tag("t", "v").end(),
            lines.line("m").tag("t", "ends\\").integer("n", 1).end(),
            lines.line("#m").integer("n", 1).end(),
        ];
        assert!(faults.iter().all(|fault| fault.as_ref().is_err_and(|refusal| refusal.code == "BAD_LINE")));
        drop(lines.line("never").integer("ended", 1));
        assert_eq!(text(&lines), before);
    }
}
