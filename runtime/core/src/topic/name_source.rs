//! The source of a name of a message: the topic, or the template's configuration.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::limits::TOPIC_NAME_BYTES_MAX;
use crate::topic::error::TopicTemplateError;
use crate::topic::level::Span;
use crate::topic::name::{TopicName, is_topic_name};

/// The source of a name. A capture is given by its index in the template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NameSource {
    Capture(u8),
    /// Captures with a slash between them, which none of them can have.
    Joined(Box<[u8]>),
    Fixed(Arc<str>),
    /// A name for each value of a capture.
    Listed {
        capture: u8,
        names: HashMap<Box<str>, Arc<str>>,
    },
}

impl NameSource {
    /// Reads `{capture}`, a fixed name, or, where `joins`, `{capture}/{capture}`.
    ///
    /// # Errors
    /// It is neither, with what would be right.
    pub fn parse(text: &str, captures: &[String], joins: bool) -> Result<Self, TopicTemplateError> {
        if !text.contains(['{', '}']) {
            return Ok(Self::Fixed(fixed(text)?));
        }
        let fault = || {
            let captures = captures.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
            TopicTemplateError::NameSource { captures, joins }
        };
        let index = |part: &str| {
            let name = part.strip_prefix('{')?.strip_suffix('}')?;
            captures.iter().position(|capture| capture == name).map(|index| index as u8)
        };
        let parts: Option<Vec<u8>> = text.split('/').map(index).collect();
        match parts.as_deref() {
            Some([one]) => Ok(Self::Capture(*one)),
            Some(several) if joins => Ok(Self::Joined(several.into())),
            _ => Err(fault()),
        }
    }

    /// A name for each value of the capture, by a table.
    ///
    /// # Errors
    /// It is no capture, or a name of the table is none.
    pub fn listed(self, table: &BTreeMap<String, String>) -> Result<Self, TopicTemplateError> {
        let Self::Capture(capture) = self else { return Err(TopicTemplateError::TenantsWithoutCapture) };
        let names = table.iter().map(|(value, name)| Ok((value.as_str().into(), fixed(name)?)));
        Ok(Self::Listed { capture, names: names.collect::<Result<_, _>>()? })
    }

    /// The capture whose value is the name.
    pub fn capture(&self) -> Option<u8> {
        match self {
            Self::Capture(index) => Some(*index),
            _ => None,
        }
    }

    /// The name of a message. `None`: the table does not list it.
    #[inline]
    pub fn name(&self, topic: &str, spans: &[Span]) -> Option<TopicName> {
        let span = |index: u8| spans[usize::from(index)];
        match self {
            Self::Capture(index) => {
                let Span { start, end } = span(*index);
                Some(TopicName::InTopic { start, end })
            }
            Self::Fixed(name) => Some(TopicName::Fixed(name.clone())),
            Self::Listed { capture, names } => {
                names.get(span(*capture).of(topic)).map(|name| TopicName::Fixed(name.clone()))
            }
            Self::Joined(captures) => {
                let parts: Vec<&str> = captures.iter().map(|index| span(*index).of(topic)).collect();
                Some(TopicName::Fixed(parts.join("/").into()))
            }
        }
    }

    /// The value of the capture that the table does not list.
    pub fn unlisted<'a>(&self, topic: &'a str, spans: &[Span]) -> &'a str {
        match self {
            Self::Listed { capture, .. } => spans[usize::from(*capture)].of(topic),
            Self::Capture(_) | Self::Joined(_) | Self::Fixed(_) => "",
        }
    }
}

fn fixed(name: &str) -> Result<Arc<str>, TopicTemplateError> {
    let is_name = (1..=TOPIC_NAME_BYTES_MAX).contains(&name.len())
        && !name.contains(['/', '+', '#', '{', '}'])
        && is_topic_name(name);
    if is_name { Ok(name.into()) } else { Err(TopicTemplateError::FixedName) }
}
