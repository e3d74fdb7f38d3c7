//! The tape: the values of a JSON text as one list, made by one reading of it. Who has the text and its
//! tape finds every key and value without reading the text again.
//!
//! An entry has 64 bits. They stand in the order of the text, a container before its content.
//!
//! | bits | content |
//! |---|---|
//! | 0 to 15 | the offset of the value; of a string, that behind its quote |
//! | 16 to 31 | the bytes of the value, of a string without its quotes; of a container, the entries inside it |
//! | 32 to 39 | the bytes of its key without the quotes; 0 outside of objects |
//! | 40 to 47 | the bytes from the end of the key to the offset |
//! | 48 to 50 | the kind: 0 object, 1 array, 2 string, 3 string with escapes, 4 number, 5 true, 6 false, 7 null |
//! | 51 | 1: its key has escapes |
//! | 52 | 1: the number is an integer |
//! | 53 | 1: the text of the number can stand for its value in line protocol |
//!
//! The other bits are 0. A text that does not fit has no tape: one of more than 65,535 bytes, with more than
//! [`TAPE_ENTRIES_MAX`](crate::TAPE_ENTRIES_MAX) values, or with a key, or blanks behind it, of more than 255 bytes.

use crate::error::Error;
use crate::limits::{TAPE_ENTRIES_MAX, TAPE_TEXT_BYTES_MAX};
use crate::number::{self, Number};
use crate::reader::{Kind, Reader};
use crate::recorder::{Recorder, WalkedKey};
use crate::text::Text;

const OBJECT: u64 = 0;
const ARRAY: u64 = 1;
const STRING: u64 = 2;
const ESCAPED_STRING: u64 = 3;
const NUMBER: u64 = 4;
const TRUE: u64 = 5;
const FALSE: u64 = 6;
const NULL: u64 = 7;

const KIND_AT: u32 = 48;
const ESCAPED_KEY: u64 = 1 << 51;
const INTEGER: u64 = 1 << 52;
const VERBATIM: u64 = 1 << 53;

/// Makes the tapes of texts, one after the other, in the same memory.
#[derive(Debug)]
pub struct TapeWriter {
    entries: Box<[u64; TAPE_ENTRIES_MAX]>,
    len: usize,
    /// The place of the innermost open container. Until it is closed, its entry has the place of the one
    /// around it in the bits of its length.
    open: usize,
    is_off: bool,
}

impl Default for TapeWriter {
    fn default() -> Self {
        Self { entries: Box::new([0; TAPE_ENTRIES_MAX]), len: 0, open: 0, is_off: false }
    }
}

impl TapeWriter {
    /// Reads a text as strictly as [`Reader`] does, and makes its tape. False: it is JSON and has no tape, or it
    /// is too long and was not read at all.
    ///
    /// # Errors
    /// The text is no JSON.
    pub fn write(&mut self, text: &[u8]) -> Result<bool, Error> {
        self.clear();
        if text.len() > TAPE_TEXT_BYTES_MAX {
            return Ok(false);
        }
        let read = Reader::new(text).record(self);
        if self.is_off || read.is_err() {
            self.clear();
        }
        read.map(|()| self.len > 0)
    }

    /// Forgets the last text.
    pub fn clear(&mut self) {
        (self.len, self.open, self.is_off) = (0, 0, false);
    }

    /// The entries of the last text; none if it has no tape.
    pub fn entries(&self) -> &[u64] {
        &self.entries[..self.len]
    }

    /// The tape of the last text, which `text` must be.
    ///
    /// # Safety
    /// `text` is what `write` has read last.
    pub unsafe fn tape<'a>(&'a self, text: &'a [u8]) -> Option<Tape<'a>> {
        // SAFETY: promised by the caller.
        unsafe { Tape::new(text, self.entries()) }
    }

    #[inline(always)]
    fn add(&mut self, start: usize, bytes: usize, bits: u64, key: WalkedKey<'_>) {
        let mut entry = start as u64 | (bytes as u64) << 16 | bits;
        if let Some((key_at, key)) = key {
            let key_bytes = key.raw().len();
            let gap = start - key_at - key_bytes;
            self.is_off |= key_bytes | gap > 0xff;
            entry |= (key_bytes as u64) << 32 | (gap as u64) << 40;
            entry |= if key.is_escaped() { ESCAPED_KEY } else { 0 };
        }
        match self.entries.get_mut(self.len) {
            Some(place) => *place = entry,
            None => return self.is_off = true,
        }
        self.len += 1;
    }
}

impl Recorder for TapeWriter {
    #[inline(always)]
    fn string(&mut self, start: usize, text: Text<'_>, key: WalkedKey<'_>) {
        let kind = if text.is_escaped() { ESCAPED_STRING } else { STRING };
        self.add(start, text.raw().len(), kind << KIND_AT, key);
    }

    #[inline(always)]
    fn number(&mut self, start: usize, number: Number<'_>, key: WalkedKey<'_>) {
        let mut bits = NUMBER << KIND_AT;
        bits |= if number.is_integer() { INTEGER } else { 0 };
        bits |= if number.is_verbatim() { VERBATIM } else { 0 };
        self.add(start, number.text().len(), bits, key);
    }

    #[inline(always)]
    fn literal(&mut self, start: usize, value: Option<bool>, key: WalkedKey<'_>) {
        let (kind, bytes) = match value {
            Some(true) => (TRUE, 4),
            Some(false) => (FALSE, 5),
            None => (NULL, 4),
        };
        self.add(start, bytes, kind << KIND_AT, key);
    }

    #[inline(always)]
    fn open(&mut self, start: usize, is_object: bool, key: WalkedKey<'_>) {
        let (around, place) = (self.open, self.len);
        let kind = if is_object { OBJECT } else { ARRAY };
        self.add(start, around, kind << KIND_AT, key);
        self.open = place;
    }

    #[inline(always)]
    fn close(&mut self) {
        if self.is_off {
            return;
        }
        let inside = (self.len - self.open - 1) as u64;
        let entry = &mut self.entries[self.open];
        self.open = (*entry >> 16 & 0xffff) as usize;
        *entry = *entry & !(0xffff << 16) | inside << 16;
    }
}

/// A text and its tape.
#[derive(Debug, Clone, Copy)]
pub struct Tape<'a> {
    text: &'a [u8],
    entries: &'a [u64],
}

impl<'a> Tape<'a> {
    /// A text with the entries of its tape. `None`: there are none.
    ///
    /// # Safety
    /// The entries were written by a [`TapeWriter`] that read this text.
    #[inline]
    pub unsafe fn new(text: &'a [u8], entries: &'a [u64]) -> Option<Self> {
        (!entries.is_empty()).then_some(Self { text, entries })
    }

    pub fn text(self) -> &'a [u8] {
        self.text
    }

    /// The value that is the whole text.
    #[inline]
    pub fn value(self) -> TapeValue<'a> {
        TapeValue { tape: self, place: 0, entry: self.entries[0] }
    }

    #[inline(always)]
    fn str(&self, start: usize, bytes: usize) -> &'a str {
        let text = &self.text[start..start + bytes];
        // SAFETY: keys, strings and numbers were found to be UTF-8 when the tape was written.
        unsafe { std::str::from_utf8_unchecked(text) }
    }
}

/// A value of a tape.
#[derive(Debug, Clone, Copy)]
pub struct TapeValue<'a> {
    tape: Tape<'a>,
    place: usize,
    entry: u64,
}

impl<'a> TapeValue<'a> {
    #[inline(always)]
    fn kind_bits(&self) -> u64 {
        self.entry >> KIND_AT & 7
    }

    #[inline(always)]
    fn text(&self) -> &'a str {
        self.tape.str((self.entry & 0xffff) as usize, (self.entry >> 16 & 0xffff) as usize)
    }

    #[inline]
    pub fn kind(&self) -> Kind {
        match self.kind_bits() {
            OBJECT => Kind::Object,
            ARRAY => Kind::Array,
            STRING | ESCAPED_STRING => Kind::String,
            NUMBER => Kind::Number,
            TRUE | FALSE => Kind::Bool,
            _ => Kind::Null,
        }
    }

    /// The string, if it is one.
    #[inline]
    pub fn string(&self) -> Option<Text<'a>> {
        let kind = self.kind_bits();
        matches!(kind, STRING | ESCAPED_STRING).then(|| Text::checked(self.text(), kind == ESCAPED_STRING))
    }

    /// The boolean, if it is one.
    #[inline]
    pub fn bool(&self) -> Option<bool> {
        let kind = self.kind_bits();
        matches!(kind, TRUE | FALSE).then_some(kind == TRUE)
    }

    /// The number, if it is one. Its digits are read again.
    #[inline]
    pub fn number(&self) -> Option<Number<'a>> {
        if self.kind_bits() != NUMBER {
            return None;
        }
        number::scan(self.text().as_bytes(), 0).ok().map(|(number, _)| number)
    }

    /// The text of a number that can stand for its value in line protocol ([`Number::is_verbatim`]), and true
    /// if it is an integer. No digit is read.
    #[inline]
    pub fn verbatim_number(&self) -> Option<(&'a str, bool)> {
        (self.entry & VERBATIM != 0).then(|| (self.text(), self.entry & INTEGER != 0))
    }

    /// The members, if it is an object, in the order of the text.
    #[inline]
    pub fn members(&self) -> Option<TapeMembers<'a>> {
        (self.kind_bits() == OBJECT).then(|| TapeMembers(self.inside()))
    }

    /// The elements, if it is an array.
    #[inline]
    pub fn elements(&self) -> Option<TapeElements<'a>> {
        (self.kind_bits() == ARRAY).then(|| TapeElements(self.inside()))
    }

    #[inline(always)]
    fn inside(&self) -> Inside<'a> {
        let next = self.place + 1;
        Inside { tape: self.tape, next, end: next + (self.entry >> 16 & 0xffff) as usize }
    }
}

/// The values of a container, without those inside of them.
#[derive(Debug, Clone)]
struct Inside<'a> {
    tape: Tape<'a>,
    next: usize,
    end: usize,
}

impl<'a> Inside<'a> {
    #[inline(always)]
    fn next(&mut self) -> Option<TapeValue<'a>> {
        if self.next >= self.end {
            return None;
        }
        let (place, entry) = (self.next, self.tape.entries[self.next]);
        let value = TapeValue { tape: self.tape, place, entry };
        self.next += 1;
        if value.kind_bits() <= ARRAY {
            self.next += (entry >> 16 & 0xffff) as usize;
        }
        Some(value)
    }
}

/// The members of an object.
#[derive(Debug, Clone)]
pub struct TapeMembers<'a>(Inside<'a>);

impl<'a> Iterator for TapeMembers<'a> {
    type Item = (Text<'a>, TapeValue<'a>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let value = self.0.next()?;
        let (bytes, gap) = ((value.entry >> 32 & 0xff) as usize, (value.entry >> 40 & 0xff) as usize);
        let start = (value.entry & 0xffff) as usize - gap - bytes;
        Some((Text::checked(value.tape.str(start, bytes), value.entry & ESCAPED_KEY != 0), value))
    }
}

/// The elements of an array.
#[derive(Debug, Clone)]
pub struct TapeElements<'a>(Inside<'a>);

impl<'a> Iterator for TapeElements<'a> {
    type Item = TapeValue<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}
