//! The claims of a message about its sender, beside tenant and device in its topic.

use crate::envelope::{Envelope, EnvelopeValue};

/// The claims that are checked against the registry's row.
#[derive(Debug, Default)]
pub(super) struct Claims<'a> {
    /// The credentials in the payload; `None`: the source vouches for the sender.
    pub envelope: Option<Envelope<'a>>,
    /// The site in the topic.
    pub topic_site: Option<String>,
}

impl Claims<'_> {
    /// The site, by the topic before the payload.
    pub fn site(&self) -> Option<&str> {
        let in_payload = || match self.envelope.as_ref().map(|envelope| &envelope.site_id) {
            Some(EnvelopeValue::Text(site)) => Some(&**site),
            Some(EnvelopeValue::Missing) | None => None,
        };
        self.topic_site.as_deref().or_else(in_payload)
    }
}
