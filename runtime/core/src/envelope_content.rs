//! The content of a message's envelope, and the other facts that its source gives about it.

use std::borrow::Cow;
use std::ops::Range;

/// The content of an envelope, beside the message as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvelopeContent {
    /// The payloads of a network server's message; `None`: the payload of the message is for the decoder.
    pub uplink: Option<UplinkPayloads>,
    pub attributes: Attributes,
}

/// The payloads of a network server's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkPayloads {
    /// The device's own bytes; empty: it sent none.
    pub bytes: Box<[u8]>,
    /// The place of the object that the server's codec made of them, in the payload of the message.
    pub object: Option<Range<usize>>,
}

/// Texts by their names, for `context.attribute`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(Cow<'static, str>, Box<str>)>);

impl EnvelopeContent {
    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        let Self { uplink, attributes } = self;
        size_of::<Self>() + uplink.as_ref().map_or(0, |uplink| uplink.bytes.len()) + attributes.memory_bytes()
    }
}

impl Attributes {
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Box<str>>) {
        self.0.push((name.into(), value.into()));
    }

    /// The value of a name. There are few, so that they are looked through.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    fn memory_bytes(&self) -> usize {
        let entry = size_of::<(Cow<'static, str>, Box<str>)>();
        self.iter().map(|(name, value)| entry + name.len() + value.len()).sum()
    }
}
