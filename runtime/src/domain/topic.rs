//! The topic template: which level of a topic names the tenant, the device, the message type.
//!
//! `tenant/{tenant}/device/{device}/{type}` is subscribed to as `tenant/+/device/+/+`. Levels are
//! taken as they are: an empty level is an empty value, and what stands behind the template's last
//! level is ignored, as the Python service did.

use std::ops::Range;

/// Where in a topic the three values stand, as byte ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlaces {
    pub tenant: Range<usize>,
    pub device: Range<usize>,
    pub message_type: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Literal(String),
    Tenant,
    Device,
    Type,
    /// `+`: any value, not looked at.
    Any,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    text: String,
    levels: Vec<Level>,
    /// Whether it ends in `/#`.
    open: bool,
}

/// What is wrong with a template or a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicFault {
    #[error(
        "a template with {{{0}}} as one whole level, such as tenant/{{tenant}}/device/{{device}}/{{type}}"
    )]
    Missing(&'static str),
    #[error("{{{0}}} only once")]
    Twice(&'static str),
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
}

impl TopicTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// It does not name tenant, device and type once each, or is no MQTT topic.
    pub fn parse(text: &str) -> Result<Self, TopicFault> {
        if text.is_empty() || text.len() > 65_535 || text.contains('\0') {
            return Err(TopicFault::Length);
        }
        let (body, open) = match text.strip_suffix("/#") {
            Some(body) => (body, true),
            None => (text, false),
        };
        let mut levels = Vec::new();
        for level in body.split('/') {
            levels.push(match level {
                "{tenant}" => Level::Tenant,
                "{device}" => Level::Device,
                "{type}" => Level::Type,
                "+" => Level::Any,
                "#" => return Err(TopicFault::Hash),
                literal if literal.contains('#') => return Err(TopicFault::Hash),
                literal if literal.contains(['{', '}', '+']) => {
                    return Err(TopicFault::Level(literal.into()));
                }
                literal => Level::Literal(literal.into()),
            });
        }
        for (name, wanted) in [("tenant", Level::Tenant), ("device", Level::Device), ("type", Level::Type)] {
            match levels.iter().filter(|level| **level == wanted).count() {
                0 => return Err(TopicFault::Missing(name)),
                1 => {}
                _ => return Err(TopicFault::Twice(name)),
            }
        }
        Ok(Self { text: text.into(), levels, open })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The MQTT topic filter to subscribe to (MQTT 3.1.1 section 4.7).
    pub fn filter(&self) -> String {
        let levels: Vec<&str> = self
            .levels
            .iter()
            .map(|level| match level {
                Level::Literal(literal) => literal.as_str(),
                _ => "+",
            })
            .collect();
        levels.join("/") + if self.open { "/#" } else { "" }
    }

    /// Where a topic names its tenant, device and type. None when it is not of this form.
    pub fn matches(&self, topic: &str) -> Option<TopicPlaces> {
        let mut places = TopicPlaces { tenant: 0..0, device: 0..0, message_type: 0..0 };
        let bytes = topic.as_bytes();
        let mut start = 0;
        for (index, level) in self.levels.iter().enumerate() {
            if index > 0 {
                // The slash before this level.
                if start >= bytes.len() {
                    return None;
                }
                start += 1;
            }
            let end = memchr::memchr(b'/', &bytes[start..]).map_or(bytes.len(), |length| start + length);
            match level {
                Level::Literal(literal) if literal.as_bytes() != &bytes[start..end] => return None,
                Level::Literal(_) | Level::Any => {}
                Level::Tenant => places.tenant = start..end,
                Level::Device => places.device = start..end,
                Level::Type => places.message_type = start..end,
            }
            start = end;
        }
        Some(places)
    }
}

/// The template that a filter of the Python service stands for: its first three `+` are tenant,
/// device and type.
///
/// # Errors
/// The filter has fewer or more, or a `#` elsewhere than at the end.
pub fn template_of_filter(filter: &str) -> Result<String, TopicFault> {
    let mut names = ["{tenant}", "{device}", "{type}"].into_iter();
    let mut levels = Vec::new();
    for level in filter.split('/') {
        levels.push(if level == "+" { names.next().ok_or(TopicFault::Filter)? } else { level });
    }
    if names.next().is_some() {
        return Err(TopicFault::Filter);
    }
    let template = levels.join("/");
    TopicTemplate::parse(&template)?;
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(topic: &str) -> Option<(String, String, String)> {
        let template = TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap();
        let places = template.matches(topic)?;
        let part = |range: Range<usize>| topic[range].to_owned();
        Some((part(places.tenant), part(places.device), part(places.message_type)))
    }

    fn named(tenant: &str, device: &str, message_type: &str) -> Option<(String, String, String)> {
        Some((tenant.into(), device.into(), message_type.into()))
    }

    #[test]
    fn the_default_template_reads_topics_as_the_python_service_did() {
        assert_eq!(places("tenant/acme/device/dev-1/telemetry"), named("acme", "dev-1", "telemetry"));
        assert_eq!(
            places("tenant/acme/device/dev-1/telemetry/more/levels"),
            named("acme", "dev-1", "telemetry")
        );
        assert_eq!(places("tenant//device//"), named("", "", ""));
        assert_eq!(places("tenant/acme/device/dev-1"), None);
        assert_eq!(places("tenant/acme/devices/dev-1/telemetry"), None);
        assert_eq!(places(""), None);
        assert_eq!(places("tenant/ä/device/ö/ü"), named("ä", "ö", "ü"));
    }

    #[test]
    fn a_template_gives_its_filter_and_a_filter_its_template() {
        let template = TopicTemplate::parse("site/x/{device}/+/{tenant}/{type}/#").unwrap();
        assert_eq!(template.filter(), "site/x/+/+/+/+/#");
        assert_eq!(
            template_of_filter("tenant/+/device/+/+").unwrap(),
            "tenant/{tenant}/device/{device}/{type}"
        );
        assert_eq!(
            template_of_filter("tenant/+/device/+/+/#").unwrap(),
            "tenant/{tenant}/device/{device}/{type}/#"
        );
        assert_eq!(template_of_filter("tenant/+/#"), Err(TopicFault::Filter));
        assert_eq!(template_of_filter("#"), Err(TopicFault::Filter));
        assert_eq!(template_of_filter("+/+/+/+"), Err(TopicFault::Filter));
    }

    #[test]
    fn a_template_must_name_each_value_once() {
        assert_eq!(TopicTemplate::parse("a/{tenant}/{device}"), Err(TopicFault::Missing("type")));
        assert_eq!(
            TopicTemplate::parse("{tenant}/{tenant}/{device}/{type}"),
            Err(TopicFault::Twice("tenant"))
        );
        assert!(matches!(TopicTemplate::parse("x{tenant}/{device}/{type}"), Err(TopicFault::Level(_))));
        assert_eq!(TopicTemplate::parse("{tenant}/#/{device}/{type}"), Err(TopicFault::Hash));
        assert_eq!(TopicTemplate::parse(""), Err(TopicFault::Length));
    }
}
