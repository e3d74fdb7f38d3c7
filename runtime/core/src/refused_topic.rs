//! The topic at the broker that tells a device's owner the reason of a refusal:
//! `tenant/{tenant}/device/{device}/refused`.
//!
//! Our own messages there must not come back to us. Either our subscription cannot match the topic, or
//! it is a message type of its own in the topic template; a message on it is then dropped before any
//! check.

use crate::topic::{TopicTemplate, TopicTemplates};

/// The fault of such a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedTopicError {
    #[error("{{tenant}} and {{device}} as whole levels, once each, and nothing else in braces")]
    Names,
    #[error("a topic without + and #")]
    Wildcard,
    #[error("1 to 65,535 bytes without NUL, and no $ at the beginning")]
    Length,
    #[error(
        "a topic that our own subscription {filter:?} does not match, or a separate message type of mqtt.topic, such \
         as {example:?}; else the answers come back as messages"
    )]
    ComesBack { filter: String, example: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum RefusedTopicLevel {
    Literal(String),
    Tenant,
    Device,
}

/// A topic with places for tenant and device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedTopic {
    levels: Vec<RefusedTopicLevel>,
    /// Its message type, if it matches the topic template.
    own_type: Option<String>,
}

impl RefusedTopic {
    /// Reads a topic, and makes sure that nothing published there can be taken for a message of a
    /// device by whoever subscribes as `templates` say.
    ///
    /// # Errors
    /// The topic has another form, or its messages would come back to us.
    pub fn parse(text: &str, templates: &TopicTemplates) -> Result<Self, RefusedTopicError> {
        if text.is_empty() || text.len() > 32_767 || text.contains('\0') || text.starts_with('$') {
            return Err(RefusedTopicError::Length);
        }
        if text.contains(['+', '#']) {
            return Err(RefusedTopicError::Wildcard);
        }
        let mut levels = Vec::new();
        for level in text.split('/') {
            levels.push(match level {
                "{tenant}" => RefusedTopicLevel::Tenant,
                "{device}" => RefusedTopicLevel::Device,
                literal if literal.contains(['{', '}']) => return Err(RefusedTopicError::Names),
                literal => RefusedTopicLevel::Literal(literal.into()),
            });
        }
        for name in [RefusedTopicLevel::Tenant, RefusedTopicLevel::Device] {
            if levels.iter().filter(|level| **level == name).count() != 1 {
                return Err(RefusedTopicError::Names);
            }
        }
        let mut topic = Self { levels, own_type: None };
        for template in templates.iter() {
            if !topic.could_match(&template.filter()) {
                continue;
            }
            let Some(own_type) = topic.own_type_in(template, text) else {
                let example = template.as_str().replace("{type}", "refused").replace("/#", "");
                return Err(RefusedTopicError::ComesBack { filter: template.filter(), example });
            };
            topic.own_type = Some(own_type);
        }
        Ok(topic)
    }

    /// The type of our messages in a template. Tenant and device must stand where the template has them, and so this
    /// and only this type is for refusals, of every device.
    fn own_type_in(&self, template: &TopicTemplate, text: &str) -> Option<String> {
        let sample = self.topic("{tenant}", "{device}");
        let names = template.matches(&sample)?;
        let in_place = names.tenant.of(&sample) == "{tenant}" && names.device.of(&sample) == "{device}";
        let own = names.message_type.of(&sample);
        (in_place && template.as_str().replace("{type}", own) == text).then(|| own.to_owned())
    }

    /// The topic of one device; None where the names cannot stand in a topic.
    pub fn of(&self, tenant: &str, device: &str) -> Option<String> {
        let is_level = |name: &str| !name.contains(['/', '+', '#', '\0']) && name.len() <= 16_000;
        (is_level(tenant) && is_level(device)).then(|| self.topic(tenant, device))
    }

    fn topic(&self, tenant: &str, device: &str) -> String {
        let levels: Vec<&str> = self
            .levels
            .iter()
            .map(|level| match level {
                RefusedTopicLevel::Literal(literal) => literal.as_str(),
                RefusedTopicLevel::Tenant => tenant,
                RefusedTopicLevel::Device => device,
            })
            .collect();
        levels.join("/")
    }

    /// The message type of refusals alone, if our subscription matches them.
    pub fn own_type(&self) -> Option<&str> {
        self.own_type.as_deref()
    }

    /// True for a topic that we publish refusals on.
    pub fn is_answer(&self, topic: &str) -> bool {
        let mut levels = topic.split('/');
        self.levels.iter().all(|level| match (level, levels.next()) {
            (RefusedTopicLevel::Literal(literal), Some(text)) => literal == text,
            (RefusedTopicLevel::Tenant | RefusedTopicLevel::Device, Some(_)) => true,
            (_, None) => false,
        }) && levels.next().is_none()
    }

    /// True if a filter (MQTT 3.1.1 section 4.7) matches the topic of any device.
    fn could_match(&self, filter: &str) -> bool {
        let mut levels = self.levels.iter();
        for wanted in filter.split('/') {
            match (wanted, levels.next()) {
                ("#", _) => return true,
                ("+", Some(_)) | (_, Some(RefusedTopicLevel::Tenant | RefusedTopicLevel::Device)) => {}
                (literal, Some(RefusedTopicLevel::Literal(text))) if literal == text => {}
                (_, Some(RefusedTopicLevel::Literal(_)) | None) => return false,
            }
        }
        levels.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{EnvelopeKind, TopicRules, TopicTemplate};
    use std::collections::BTreeMap;

    fn parse(text: &str, template: &str) -> Result<RefusedTopic, RefusedTopicError> {
        RefusedTopic::parse(text, &TopicTemplate::parse(template).unwrap().into())
    }

    #[test]
    fn answers_come_back_by_none_of_several_templates() {
        let fixed = TopicRules {
            template: "v3/{device}/up",
            tenant: "acme",
            device: "{device}",
            message_type: "uplink",
            site: "",
            tenants: &BTreeMap::new(),
            envelope: EnvelopeKind::ThingsStack,
            qos: 1,
        };
        let both = [TopicTemplate::parse(TEMPLATE).unwrap(), TopicTemplate::new(&fixed).unwrap()];
        let both = TopicTemplates::new(both.into()).unwrap();
        let own = RefusedTopic::parse("tenant/{tenant}/device/{device}/refused", &both).unwrap();
        assert_eq!(own.own_type(), Some("refused"));
        assert!(RefusedTopic::parse("v3/{tenant}/{device}/refused", &both).unwrap().own_type().is_none());
        let fault = RefusedTopic::parse("{tenant}/{device}/up", &both).unwrap_err();
        assert!(matches!(fault, RefusedTopicError::ComesBack { filter, .. } if filter == "v3/+/up"));
    }

    const TEMPLATE: &str = "tenant/{tenant}/device/{device}/{type}";

    #[test]
    fn a_topic_of_its_own_or_a_type_of_its_own_is_good() {
        let beside = parse("refused/{tenant}/{device}", TEMPLATE).unwrap();
        assert_eq!((beside.own_type(), beside.of("acme", "d")), (None, Some("refused/acme/d".into())));
        let own = parse("tenant/{tenant}/device/{device}/refused", TEMPLATE).unwrap();
        assert_eq!(own.own_type(), Some("refused"));
        assert!(own.is_answer("tenant/acme/device/d/refused"));
        for other in
            ["tenant/acme/device/d/telemetry", "tenant/acme/device/d", "tenant/acme/device/d/refused/x"]
        {
            assert!(!own.is_answer(other), "{other}");
        }
        assert_eq!(own.of("acme", "d/e"), None);
        assert!(parse("tenant/{tenant}/device/{device}/{type}/#", "a/{tenant}/{device}/{type}").is_err());
        assert!(
            parse("tenant/{tenant}/device/{device}/down/refused", TEMPLATE).unwrap().own_type().is_none()
        );
    }

    #[test]
    fn answers_that_would_come_back_as_messages_are_refused() {
        for (text, template) in [
            ("{tenant}/x/{device}", "{tenant}/{device}/{type}"),
            ("{device}/{tenant}/refused", "{tenant}/{device}/{type}"),
            ("tenant/{tenant}/device/{device}/down/refused", "tenant/{tenant}/device/{device}/{type}/#"),
        ] {
            let fault = parse(text, template);
            assert!(
                matches!(fault, Err(RefusedTopicError::ComesBack { .. })),
                "{text} in {template}: {fault:?}"
            );
        }
    }

    #[test]
    fn what_is_no_such_topic_is_refused() {
        for text in
            ["refused/{tenant}", "refused/{device}", "{tenant}/{tenant}/{device}", "{tenant}/{device}/{type}"]
        {
            assert_eq!(parse(text, TEMPLATE), Err(RefusedTopicError::Names), "{text}");
        }
        assert_eq!(parse("{tenant}/{device}/#", TEMPLATE), Err(RefusedTopicError::Wildcard));
        assert_eq!(parse("", TEMPLATE), Err(RefusedTopicError::Length));
        assert_eq!(parse("$SYS/{tenant}/{device}", TEMPLATE), Err(RefusedTopicError::Length));
    }
}
