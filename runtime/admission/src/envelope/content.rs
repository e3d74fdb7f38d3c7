//! The content of a message for its decoder, by the template of its topic.

use std::sync::Arc;

use tidegate_core::envelope_content::EnvelopeContent;
use tidegate_core::topic::{EnvelopeKind, TopicTemplate};

use crate::envelope::uplink::UplinkError;
use crate::envelope::{chirpstack, things_stack};

/// The content of a message that `template` has matched. `None`: its payload, and nothing else.
///
/// # Errors
/// The payload is not in the envelope that the template names.
pub fn content(
    template: &TopicTemplate,
    topic: &str,
    payload: &[u8],
) -> Result<Option<Arc<EnvelopeContent>>, UplinkError> {
    let mut content = match template.envelope() {
        EnvelopeKind::ThingsStack => things_stack::read(payload)?.content(),
        EnvelopeKind::ChirpStack => chirpstack::read(payload)?.content(),
        EnvelopeKind::Pulse | EnvelopeKind::None if !template.has_more_names() => return Ok(None),
        EnvelopeKind::Pulse | EnvelopeKind::None => EnvelopeContent::default(),
    };
    for (name, value) in template.other_captures(topic) {
        content.attributes.push(format!("topic.{name}"), value);
    }
    Ok(Some(Arc::new(content)))
}
