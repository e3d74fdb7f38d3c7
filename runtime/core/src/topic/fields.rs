//! The names that a topic gives to a message.

use crate::topic::name::TopicName;

/// The names of a message, as its template reads them of its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFields {
    pub tenant: TopicName,
    pub device: TopicName,
    pub message_type: TopicName,
    /// The index of the template in its `TopicTemplates`.
    pub template: u8,
}
