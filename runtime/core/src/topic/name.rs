//! A name that a topic gives to a message: of its tenant, its device or its type.

use std::ops::Range;
use std::sync::Arc;

use crate::limits::TOPIC_NAME_BYTES_MAX;

/// A name: a part of the topic, or a text of the template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicName {
    /// The part of the topic between two bytes.
    InTopic {
        start: u32,
        end: u32,
    },
    Fixed(Arc<str>),
}

impl TopicName {
    /// The name; `topic` is the one that it was read of.
    #[inline]
    pub fn of<'a>(&'a self, topic: &'a str) -> &'a str {
        match self {
            Self::InTopic { start, end } => &topic[*start as usize..*end as usize],
            Self::Fixed(name) => name,
        }
    }

    /// The bytes of the name.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::InTopic { start, end } => (end - start) as usize,
            Self::Fixed(name) => name.len(),
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Range<usize>> for TopicName {
    /// A part of a topic, which has at most 65,535 bytes.
    #[inline]
    fn from(part: Range<usize>) -> Self {
        Self::InTopic { start: part.start as u32, end: part.end as u32 }
    }
}

/// True if a text has a control character (U+0000 to U+001F, U+007F to U+009F).
pub(super) fn has_control(text: &str) -> bool {
    // Without a branch for each byte; U+0080 to U+00BF begin with 0xC2.
    let suspect =
        text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == 0x7f) | (byte == 0xc2));
    suspect && text.contains(char::is_control)
}

/// True if a text can be the name of a tenant or a device in a topic.
pub fn is_topic_name(name: &str) -> bool {
    name.len() <= TOPIC_NAME_BYTES_MAX && !has_control(name)
}
