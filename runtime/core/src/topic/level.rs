//! One level of a topic template: a literal, a capture, or text with captures in it.

use crate::topic::error::TopicTemplateError;

/// Bytes of the name of a capture: it is a word that people read.
const CAPTURE_BYTES_MAX: usize = 32;

/// A level of a template. A capture is given by its index in the template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TopicLevel {
    Literal(Box<str>),
    Capture(u8),
    /// Text with captures in it.
    Mixed(MixedLevel),
    /// `+`: any value, ignored.
    Any,
}

/// The text before the first capture, and each capture with the text behind it. Only that of the last may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MixedLevel {
    before: Box<str>,
    captures: Box<[(u8, Box<str>)]>,
}

/// The part of a topic that a capture stands for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn of(self, topic: &str) -> &str {
        &topic[self.start as usize..self.end as usize]
    }
}

impl TopicLevel {
    /// Reads a level; `capture` gives the index of a new capture by its name.
    ///
    /// # Errors
    /// It is none, or `capture` refuses a name.
    pub fn parse(
        text: &str,
        mut capture: impl FnMut(&str) -> Result<u8, TopicTemplateError>,
    ) -> Result<Self, TopicTemplateError> {
        if text == "+" {
            return Ok(Self::Any);
        }
        if text.contains('#') {
            return Err(TopicTemplateError::Hash);
        }
        if text.contains('+') {
            return Err(TopicTemplateError::Plus(text.into()));
        }
        let bad = || TopicTemplateError::Capture(text.into());
        let literal = |part: &str| match part.contains('}') {
            true => Err(bad()),
            false => Ok(Box::<str>::from(part)),
        };
        let Some((before, mut rest)) = text.split_once('{') else {
            return Ok(Self::Literal(literal(text)?));
        };
        let before = literal(before)?;
        let mut captures = Vec::new();
        loop {
            let (name, behind) = rest.split_once('}').ok_or_else(bad)?;
            let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if name.is_empty() || name.len() > CAPTURE_BYTES_MAX || !name.bytes().all(is_word) {
                return Err(bad());
            }
            let index = capture(name)?;
            let Some((between, next)) = behind.split_once('{') else {
                captures.push((index, literal(behind)?));
                break;
            };
            if between.is_empty() {
                return Err(TopicTemplateError::Adjacent(text.into()));
            }
            captures.push((index, literal(between)?));
            rest = next;
        }
        Ok(match &captures[..] {
            [(index, behind)] if before.is_empty() && behind.is_empty() => Self::Capture(*index),
            _ => Self::Mixed(MixedLevel { before, captures: captures.into() }),
        })
    }

    /// The text of a literal level.
    pub fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(literal) => Some(literal),
            _ => None,
        }
    }
}

impl MixedLevel {
    /// Finds the captures in a level of a topic, which begins at `start`. Each but the last ends where the text
    /// behind it comes for the first time. False: the level is of another form.
    pub fn find(&self, level: &[u8], start: usize, spans: &mut [Span]) -> bool {
        let Some(mut rest) = level.strip_prefix(self.before.as_bytes()) else { return false };
        let mut at = start + self.before.len();
        let (last, others) = self.captures.split_last().expect("it has a capture");
        for (index, behind) in others {
            let Some(length) = memchr::memmem::find(rest, behind.as_bytes()) else { return false };
            spans[usize::from(*index)] = Span { start: at as u32, end: (at + length) as u32 };
            rest = &rest[length + behind.len()..];
            at += length + behind.len();
        }
        let (index, behind) = last;
        let Some(own) = rest.strip_suffix(behind.as_bytes()) else { return false };
        spans[usize::from(*index)] = Span { start: at as u32, end: (at + own.len()) as u32 };
        true
    }
}
