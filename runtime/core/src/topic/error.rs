//! The faults of topic templates, and the reasons for which a topic names nobody.

use crate::detail::Quoted;
use crate::limits::{TOPIC_CAPTURES_MAX, TOPIC_NAME_BYTES_MAX, TOPIC_TEMPLATES_MAX};

/// The fault of a template or a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicTemplateError {
    #[error(
        "a template with {{{0}}} as one whole level, such as tenant/{{tenant}}/device/{{device}}/{{type}}"
    )]
    Missing(&'static str),
    #[error("{{{0}}} only once")]
    Twice(String),
    #[error("levels that are a literal, {{tenant}}, {{device}}, {{type}} or +; {0:?} is not")]
    Level(String),
    #[error("# only at the end, as a separate level")]
    Hash,
    #[error("1 to 65,535 bytes without NUL")]
    Length,
    #[error(
        "a filter that a template can express: exactly three + levels (tenant, device, type, in this order), \
         such as tenant/+/device/+/+"
    )]
    Filter,
    #[error("no $share/ at the beginning: mqtt.share names the group of a shared subscription")]
    Share,
    #[error(
        "levels that are a literal, + or text with captures such as {{device}}; in {0:?}, + stands beside other text"
    )]
    Plus(String),
    #[error(
        "captures of 1 to 32 lower-case letters, digits and _, each in braces, such as {{device}}; {0:?} has another"
    )]
    Capture(String),
    #[error("text between two captures of a level, as in {{application}}@{{org}}; in {0:?} there is none")]
    Adjacent(String),
    #[error("at most {TOPIC_CAPTURES_MAX} captures")]
    TooManyCaptures,
    #[error("{{{name}}} as a part of the template, or a fixed name in `{key}`")]
    NotCaptured { name: &'static str, key: &'static str },
    #[error("a fixed name, or one of the captures of the template: {captures}{}", if *.joins { ", also several as {group}/{edge}" } else { "" })]
    NameSource { captures: String, joins: bool },
    #[error("a name of 1 to {TOPIC_NAME_BYTES_MAX} bytes without /, +, #, braces and control characters")]
    FixedName,
    #[error(
        "no table, because `tenant` is not one capture alone: the table gives a tenant for each of its values"
    )]
    TenantsWithoutCapture,
}

/// Two templates that match one topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicTemplatesError {
    #[error("templates of which each topic matches one; the topic {topic:?} matches {first:?} too")]
    Overlap {
        /// The index of the second template.
        index: usize,
        /// The text of the first one.
        first: String,
        topic: String,
    },
    #[error("at most {TOPIC_TEMPLATES_MAX} templates")]
    TooMany,
}

/// The reason why a topic names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("the topic is not of the form {0}")]
    Form(String),
    #[error("the topic is of none of the forms {0}")]
    NoForm(String),
    #[error("the topic names a {name} of {bytes} bytes: at most {max} are taken", max = TOPIC_NAME_BYTES_MAX)]
    NameTooLong { name: &'static str, bytes: usize },
    #[error("the topic has the control character {character:?} in its level {level}", level = Quoted(.level))]
    ControlCharacter { character: char, level: String },
    #[error("the operator's topics list no tenant for {}", Quoted(.0))]
    UnlistedTenant(String),
}
