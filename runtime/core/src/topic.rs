//! Topics: the templates that name tenant, device and message type of a message.

mod name;
mod fields;
mod envelope_kind;
mod error;
mod level;
mod name_source;
mod template;
mod level_table;
mod templates;

pub use crate::topic::envelope_kind::EnvelopeKind;
pub use crate::topic::error::{TopicError, TopicTemplateError, TopicTemplatesError};
pub use crate::topic::fields::TopicFields;
pub use crate::topic::name::{TopicName, is_topic_name};
pub use crate::topic::template::{
    SPARKPLUG_NAMESPACE, TopicRules, TopicRulesError, TopicTemplate, template_of_filter,
};
pub use crate::topic::templates::TopicTemplates;
