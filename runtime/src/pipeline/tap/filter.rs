//! The filter of a viewer.

use crate::core::topic::TopicTemplates;
use crate::pipeline::tap::event::{TapEvent, TapOutcome};
use crate::pipeline::tap::topic_filter::TopicFilter;

/// A filter for messages; a part that is `None` excludes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapFilter {
    pub tenant: Option<String>,
    pub device: Option<String>,
    pub message_type: Option<String>,
    pub topic: Option<TopicFilter>,
    pub outcome: Option<TapOutcome>,
}

/// A filter that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TapFilterError {
    #[error("unknown filter {0:?}: expected one of tenant, device, type, topic, outcome")]
    Key(String),
    #[error("topic = {0:?}: expected an MQTT topic filter: + for one level, # at the end for the rest")]
    Topic(String),
    #[error("outcome = {0:?}: expected lines, empty, quarantined or unsettled")]
    Outcome(String),
}

impl TapFilter {
    /// Sets one part, by the name that users know it by; an empty value excludes nothing.
    ///
    /// # Errors
    /// There is no such part, or it cannot have this value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), TapFilterError> {
        let text = Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "tenant" => self.tenant = text,
            "device" => self.device = text,
            "type" => self.message_type = text,
            "topic" if text.is_none() => self.topic = None,
            "topic" => match TopicFilter::parse(value) {
                Some(filter) => self.topic = Some(filter),
                None => return Err(TapFilterError::Topic(value.to_owned())),
            },
            "outcome" if text.is_none() => self.outcome = None,
            "outcome" => match TapOutcome::ALL.into_iter().find(|outcome| outcome.name() == value) {
                Some(outcome) => self.outcome = Some(outcome),
                None => return Err(TapFilterError::Outcome(value.to_owned())),
            },
            other => return Err(TapFilterError::Key(other.to_owned())),
        }
        Ok(())
    }

    /// True if messages need a probe to be shown: a refused one brings all with it.
    pub fn needs_probes(&self) -> bool {
        self.outcome != Some(TapOutcome::Quarantined)
    }

    /// True if only some outcomes are shown: then more messages must be probed than shown.
    pub fn selects_outcomes(&self) -> bool {
        self.outcome.is_some()
    }

    /// True if a message of this topic may be shown, whatever its outcome.
    pub fn takes_topic(&self, topic: &str, topics: &TopicTemplates) -> bool {
        if self.topic.as_ref().is_some_and(|filter| !filter.takes(topic)) {
            return false;
        }
        let parts = [&self.tenant, &self.device, &self.message_type];
        if parts.iter().all(|part| part.is_none()) {
            return true;
        }
        topics.matches(topic).is_some_and(|fields| {
            self.takes_names(fields.tenant.of(topic), fields.device.of(topic), fields.message_type.of(topic))
        })
    }

    /// True for an event that it shows.
    pub fn takes(&self, event: &TapEvent) -> bool {
        self.takes_names(event.tenant(), event.device(), event.message_type())
            && self.topic.as_ref().is_none_or(|filter| filter.takes(&event.topic))
            && self.outcome.is_none_or(|outcome| outcome == event.outcome)
    }

    fn takes_names(&self, tenant: &str, device: &str, message_type: &str) -> bool {
        let is = |part: &Option<String>, name: &str| part.as_deref().is_none_or(|part| part == name);
        is(&self.tenant, tenant) && is(&self.device, device) && is(&self.message_type, message_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::topic::TopicTemplate;

    #[test]
    fn a_filter_takes_the_names_themselves_and_not_their_parts() {
        let template = TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap();
        let topics = TopicTemplates::new(vec![template]).unwrap();
        let mut filter = TapFilter::default();
        assert!(filter.takes_topic("no/such/topic", &topics));
        filter.set("tenant", "acme").unwrap();
        assert!(filter.takes_topic("tenant/acme/device/d/t", &topics));
        for other in ["tenant/acme2/device/d/t", "tenant/x/device/acme/t", "acme"] {
            assert!(!filter.takes_topic(other, &topics), "{other}");
        }
        filter.set("topic", "tenant/+/device/d/#").unwrap();
        assert!(filter.takes_topic("tenant/acme/device/d/t", &topics));
        assert!(!filter.takes_topic("tenant/acme/device/e/t", &topics));
        filter.set("tenant", "").unwrap();
        assert!(filter.takes_topic("tenant/x/device/d/t", &topics));
        filter.set("topic", "").unwrap();
        assert_eq!(filter, TapFilter::default());
        assert_eq!(filter.set("topic", "a/#/b"), Err(TapFilterError::Topic("a/#/b".into())));
        assert_eq!(filter.set("outcome", "good"), Err(TapFilterError::Outcome("good".into())));
        assert_eq!(filter.set("site", "x"), Err(TapFilterError::Key("site".into())));
    }
}
