//! The place of a value in a payload, of whichever format.

use std::borrow::Cow;

use tidegate_guest::Refusal;
use tidegate_objects::Leaf;

use crate::byte_source::ByteSource;
use crate::bytes::Bytes;
use crate::document::{Document, NodeId, Pointer};
use crate::format::Format;
use crate::observer::ValuePlace;

/// The place of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Bytes(ByteSource),
    Pointer(Pointer),
    Column(String),
}

/// The message, or one of its records.
#[derive(Debug)]
pub enum Part<'p, 'a> {
    Bytes(Bytes<'a>),
    Document { document: &'p Document<'a>, at: NodeId },
    Row { header: &'p [Cow<'a, str>], row: &'p [Cow<'a, str>] },
}

/// A value that was looked for.
#[derive(Debug)]
pub enum Found<'a> {
    Leaf(Leaf<'a>),
    /// An object or array of a document.
    Container(NodeId),
    Missing,
}

/// The first word of a text, or what stands in single quotes, and what follows.
///
/// # Errors
/// A quote that does not end.
pub fn first_word(text: &str) -> Result<(&str, &str), String> {
    let text = text.trim();
    if let Some(quoted) = text.strip_prefix('\'') {
        let (word, rest) = quoted.split_once('\'').ok_or("a quote that does not end: expected 'NAME'")?;
        return Ok((word, rest.trim()));
    }
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    Ok((word, rest.trim()))
}

impl Source {
    /// # Errors
    /// The fault, and what would be right.
    pub fn parse(text: &str, format: Format) -> Result<Self, String> {
        match format {
            Format::Bytes => ByteSource::parse(text).map(Self::Bytes),
            Format::Json | Format::Cbor | Format::Msgpack => Pointer::parse(text).map(Self::Pointer),
            Format::Csv if text.is_empty() => Err("no name of a column: expected one of the header".into()),
            Format::Csv => Ok(Self::Column(text.to_owned())),
        }
    }

    pub fn bytes(&self) -> Option<&ByteSource> {
        match self {
            Self::Bytes(source) => Some(source),
            Self::Pointer(_) | Self::Column(_) => None,
        }
    }

    /// The value in a part of a payload.
    ///
    /// # Errors
    /// The payload is too short, or the bytes are no such value.
    #[inline]
    pub fn find<'a>(
        &self,
        part: &mut Part<'_, 'a>,
        key: &str,
    ) -> Result<(Found<'a>, Option<ValuePlace>), Refusal> {
        match (self, part) {
            (Self::Bytes(source), Part::Bytes(bytes)) => {
                let (leaf, range) = source.read(bytes, key)?;
                Ok((Found::Leaf(leaf), Some(ValuePlace::Bytes(range))))
            }
            (source, part) => Ok(source.find_named(part)),
        }
    }

    fn find_named<'a>(&self, part: &Part<'_, 'a>) -> (Found<'a>, Option<ValuePlace>) {
        match (self, part) {
            (Self::Pointer(pointer), Part::Document { document, at }) => {
                let place = Some(ValuePlace::Named(pointer.text.clone()));
                match document.find(*at, pointer) {
                    None => (Found::Missing, None),
                    Some(at) => match document.leaf(at) {
                        Some(leaf) => (Found::Leaf(leaf.clone()), place),
                        None => (Found::Container(at), place),
                    },
                }
            }
            (Self::Column(name), Part::Row { header, row }) => {
                let column = header.iter().position(|column| column == name);
                match column.and_then(|column| row.get(column)) {
                    None => (Found::Missing, None),
                    Some(text) => (Found::Leaf(cell(text)), Some(ValuePlace::Named(name.clone()))),
                }
            }
            _ => (Found::Missing, None),
        }
    }
}

/// The value of a cell. An empty one has none.
pub fn cell<'a>(text: &Cow<'a, str>) -> Leaf<'a> {
    match text {
        text if text.trim().is_empty() => Leaf::Null,
        Cow::Borrowed(text) => Leaf::Text(Cow::Borrowed(text.trim())),
        Cow::Owned(text) => Leaf::Text(Cow::Owned(text.trim().to_owned())),
    }
}
