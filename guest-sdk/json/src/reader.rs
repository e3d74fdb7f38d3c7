//! The pull reader.

use crate::error::{Error, ErrorKind};
use crate::limits::DEPTH_MAX;
use crate::number::{self, Number};
use crate::recorder::{NoRecorder, Recorder};
use crate::text::{self, Text};

/// The kind of the next value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

impl Kind {
    /// The kind with its article, for error texts: "an object".
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Bool => "a boolean",
            Self::Null => "null",
        }
    }
}

/// Reads one JSON text from front to back. See the crate's example.
///
/// Read a value with the method of its kind ([`peek`](Self::peek) tells it). [`object`](Self::object)
/// and [`array`](Self::array) enter a container, which is then walked with
/// [`next_key`](Self::next_key) or [`next_element`](Self::next_element) until that gives none;
/// values that were not read are skipped on the way. [`end`](Self::end) closes: without it,
/// the text behind the value is not checked.
///
/// After an error the reader is of no further use.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value stands here that was not read yet.
    Value,
    /// Directly behind the opening of a container.
    First,
    /// Behind a value.
    Rest,
}

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0, state: State::Value }
    }

    /// The offset of the next byte to read; before a value it may point at blanks.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The kind of the value that comes next.
    ///
    /// # Errors
    /// If no value begins here.
    #[inline]
    pub fn peek(&mut self) -> Result<Kind, Error> {
        match self.value_byte()? {
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.no_value()),
        }
    }

    /// Enters an object; continue with [`next_key`](Self::next_key).
    ///
    /// # Errors
    /// If there is no object here, or it is nested too deep.
    #[inline]
    pub fn object(&mut self) -> Result<(), Error> {
        self.open(b'{', "an object")
    }

    /// Enters an array; continue with [`next_element`](Self::next_element).
    ///
    /// # Errors
    /// If there is no array here, or it is nested too deep.
    #[inline]
    pub fn array(&mut self) -> Result<(), Error> {
        self.open(b'[', "an array")
    }

    /// The key of the object's next member, whose value is then read, or else skipped; `None` at
    /// the object's end, which is then passed.
    ///
    /// # Errors
    /// If the text is no JSON, or we stand in no object.
    #[inline]
    pub fn next_key(&mut self) -> Result<Option<Text<'a>>, Error> {
        self.finish_value()?;
        if self.depth == 0 {
            return Err(self.misplaced());
        }
        match (self.token(), self.state) {
            (Some(b'}'), _) => {
                self.close();
                return Ok(None);
            }
            (Some(b','), State::Rest) => {
                self.at += 1;
                if self.token() != Some(b'"') {
                    return Err(self.expected("a key in quotes"));
                }
            }
            (Some(b'"'), State::First) => {}
            (_, State::First) => return Err(self.expected("a key in quotes or '}'")),
            _ => return Err(self.expected("',' or '}'")),
        }
        self.key().map(Some)
    }

    /// True if the array has another element, which is then read, or else skipped; `false` at the
    /// array's end, which is then passed.
    ///
    /// # Errors
    /// If the text is no JSON, or we stand in no array.
    #[inline]
    pub fn next_element(&mut self) -> Result<bool, Error> {
        self.finish_value()?;
        if self.depth == 0 {
            return Err(self.misplaced());
        }
        match (self.token(), self.state) {
            (Some(b']'), _) => {
                self.close();
                return Ok(false);
            }
            (_, State::First) => {}
            (Some(b','), _) => self.at += 1,
            _ => return Err(self.expected("',' or ']'")),
        }
        self.state = State::Value;
        Ok(true)
    }

    /// # Errors
    /// If there is no string here.
    #[inline]
    pub fn string(&mut self) -> Result<Text<'a>, Error> {
        if self.value_byte()? != Some(b'"') {
            return Err(self.expected("a string"));
        }
        let (text, at) = text::scan(self.bytes, self.at + 1)?;
        self.at = at;
        self.state = State::Rest;
        Ok(text)
    }

    /// # Errors
    /// If there is no number here.
    #[inline]
    pub fn number(&mut self) -> Result<Number<'a>, Error> {
        if !matches!(self.value_byte()?, Some(b'-' | b'0'..=b'9')) {
            return Err(self.expected("a number"));
        }
        let (number, at) = number::scan(self.bytes, self.at)?;
        self.at = at;
        self.state = State::Rest;
        Ok(number)
    }

    /// # Errors
    /// If there is neither `true` nor `false` here.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, Error> {
        let value = match self.value_byte()? {
            Some(b't') => true,
            Some(b'f') => false,
            _ => return Err(self.expected("true or false")),
        };
        self.literal(if value { "true" } else { "false" })?;
        self.state = State::Rest;
        Ok(value)
    }

    /// # Errors
    /// If there is no `null` here.
    #[inline]
    pub fn null(&mut self) -> Result<(), Error> {
        self.value_byte()?;
        self.literal("null")?;
        self.state = State::Rest;
        Ok(())
    }

    /// Skips the value, of any kind, and gives its text. It is checked as strictly as a value that is read.
    ///
    /// # Errors
    /// If there is no value here, or it is no JSON.
    #[inline]
    pub fn skip_value(&mut self) -> Result<&'a str, Error> {
        self.value_byte()?;
        let start = self.at;
        self.skip()?;
        self.state = State::Rest;
        // SAFETY: what `skip` passes over is ASCII outside of strings and UTF-8 inside.
        Ok(unsafe { std::str::from_utf8_unchecked(&self.bytes[start..self.at]) })
    }

    /// Closes the text: skips its value if that was not read, and checks that nothing follows.
    ///
    /// # Errors
    /// If something follows, or a container that was entered is still open.
    #[inline]
    pub fn end(&mut self) -> Result<(), Error> {
        self.finish_value()?;
        if self.depth != 0 {
            return Err(self.misplaced());
        }
        match self.token() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end of the text")),
        }
    }

    /// The next byte that is no blank; the position is then at it.
    #[inline(always)]
    fn token(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    #[inline(always)]
    fn value_byte(&mut self) -> Result<Option<u8>, Error> {
        if self.state != State::Value {
            return Err(self.misplaced());
        }
        Ok(self.token())
    }

    #[inline(always)]
    fn finish_value(&mut self) -> Result<(), Error> {
        if self.state == State::Value {
            self.skip()?;
            self.state = State::Rest;
        }
        Ok(())
    }

    #[inline(always)]
    fn open(&mut self, bracket: u8, what: &'static str) -> Result<(), Error> {
        if self.value_byte()? != Some(bracket) {
            return Err(self.expected(what));
        }
        self.descend()?;
        self.state = State::First;
        Ok(())
    }

    #[inline(always)]
    fn descend(&mut self) -> Result<(), Error> {
        if self.depth == DEPTH_MAX {
            let kind = ErrorKind::TooDeep;
            return Err(Error { at: self.at, kind });
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    #[inline(always)]
    fn close(&mut self) {
        self.depth -= 1;
        self.at += 1;
        self.state = State::Rest;
    }

    /// Reads a key and its colon, from the opening quote.
    #[inline(always)]
    fn key(&mut self) -> Result<Text<'a>, Error> {
        let (key, at) = text::scan(self.bytes, self.at + 1)?;
        self.at = at;
        if self.token() != Some(b':') {
            return Err(self.expected("':'"));
        }
        self.at += 1;
        self.state = State::Value;
        Ok(key)
    }

    #[inline]
    fn literal(&mut self, word: &'static str) -> Result<(), Error> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.no_literal(word));
        }
        self.at += word.len();
        Ok(())
    }

    fn skip(&mut self) -> Result<(), Error> {
        self.walk(&mut NoRecorder)
    }

    /// Walks over the value, of any kind, and gives all that is in it to `recorder`.
    #[inline(always)]
    pub(crate) fn walk(&mut self, recorder: &mut impl Recorder) -> Result<(), Error> {
        let outside = self.depth;
        // One bit a container, the innermost lowest: 1 an object, 0 an array.
        let mut objects = 0u128;
        let mut key = None;
        'value: loop {
            let token = self.token();
            let start = self.at;
            match token {
                Some(b'"') => {
                    let (text, end) = text::scan(self.bytes, start + 1)?;
                    self.at = end;
                    recorder.string(start + 1, text, key.take());
                }
                Some(b'-' | b'0'..=b'9') => {
                    let (number, end) = number::scan(self.bytes, start)?;
                    self.at = end;
                    recorder.number(start, number, key.take());
                }
                Some(b't') => {
                    self.literal("true")?;
                    recorder.literal(start, Some(true), key.take());
                }
                Some(b'f') => {
                    self.literal("false")?;
                    recorder.literal(start, Some(false), key.take());
                }
                Some(b'n') => {
                    self.literal("null")?;
                    recorder.literal(start, None, key.take());
                }
                Some(b'{') => {
                    self.descend()?;
                    objects = objects << 1 | 1;
                    recorder.open(start, true, key.take());
                    match self.token() {
                        Some(b'"') => {
                            key = Some((self.at + 1, self.key()?));
                            continue 'value;
                        }
                        Some(b'}') => {
                            self.close();
                            objects >>= 1;
                            recorder.close();
                        }
                        _ => return Err(self.expected("a key in quotes or '}'")),
                    }
                }
                Some(b'[') => {
                    self.descend()?;
                    objects <<= 1;
                    recorder.open(start, false, key.take());
                    if self.token() != Some(b']') {
                        continue 'value;
                    }
                    self.close();
                    objects >>= 1;
                    recorder.close();
                }
                _ => return Err(self.no_value()),
            }
            while self.depth > outside {
                let in_object = objects & 1 == 1;
                match self.token() {
                    Some(b',') => {
                        self.at += 1;
                        if in_object {
                            if self.token() != Some(b'"') {
                                return Err(self.expected("a key in quotes"));
                            }
                            key = Some((self.at + 1, self.key()?));
                        }
                        continue 'value;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ if in_object => return Err(self.expected("',' or '}'")),
                    _ => return Err(self.expected("',' or ']'")),
                }
                self.close();
                objects >>= 1;
                recorder.close();
            }
            return Ok(());
        }
    }

    /// Walks over the whole text, as `end` does, and gives all that is in it to `recorder`.
    pub(crate) fn record(&mut self, recorder: &mut impl Recorder) -> Result<(), Error> {
        self.value_byte()?;
        self.walk(recorder)?;
        self.state = State::Rest;
        self.end()
    }

    #[cold]
    fn expected(&self, what: &'static str) -> Error {
        if self.at == 0 && self.bytes.starts_with("\u{feff}".as_bytes()) {
            let kind = ErrorKind::ByteOrderMark;
            return Error { at: 0, kind };
        }
        Error::expected(what, self.bytes, self.at)
    }

    #[cold]
    fn no_value(&self) -> Error {
        self.expected("a value")
    }

    #[cold]
    fn no_literal(&self, word: &'static str) -> Error {
        let rest = &self.bytes[self.at..];
        if rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"nan")) {
            return Error::expected("a value", self.bytes, self.at);
        }
        let same = rest.iter().zip(word.as_bytes()).take_while(|(a, b)| a == b);
        Error::expected(word, self.bytes, self.at + same.count())
    }

    #[cold]
    fn misplaced(&self) -> Error {
        let kind = ErrorKind::Misplaced;
        Error { at: self.at, kind }
    }
}
