//! The topic template: the levels of a topic that name tenant, device and message type.
//!
//! `tenant/{tenant}/device/{device}/{type}` is subscribed to as `tenant/+/device/+/+`. Levels are
//! taken as they are: an empty level is an empty value. Levels behind the template's last one are
//! ignored, as the Python service did.

use std::ops::Range;

use crate::detail::Quoted;
use crate::limits::TOPIC_NAME_BYTES_MAX;

/// The three values of a topic, as byte ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFields {
    pub tenant: Range<usize>,
    pub device: Range<usize>,
    pub message_type: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TopicLevel {
    Literal(String),
    Tenant,
    Device,
    Type,
    /// `+`: any value, ignored.
    Any,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    text: String,
    levels: Vec<TopicLevel>,
    /// True if it ends in `/#`.
    open: bool,
}

/// The fault of a template or a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicTemplateError {
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

/// The reason why a topic names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("the topic is not of the form {0}")]
    Form(String),
    #[error("the topic names a {name} of {bytes} bytes: at most {max} are taken", max = TOPIC_NAME_BYTES_MAX)]
    NameTooLong { name: &'static str, bytes: usize },
    #[error("the topic has the control character {character:?} in its level {level}", level = Quoted(.level))]
    ControlCharacter { character: char, level: String },
}

impl TopicTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// It does not name tenant, device and type once each, or is no MQTT topic.
    pub fn parse(text: &str) -> Result<Self, TopicTemplateError> {
        if text.is_empty() || text.len() > 65_535 || text.contains('\0') {
            return Err(TopicTemplateError::Length);
        }
        let (body, open) = match text.strip_suffix("/#") {
            Some(body) => (body, true),
            None => (text, false),
        };
        let mut levels = Vec::new();
        for level in body.split('/') {
            levels.push(match level {
                "{tenant}" => TopicLevel::Tenant,
                "{device}" => TopicLevel::Device,
                "{type}" => TopicLevel::Type,
                "+" => TopicLevel::Any,
                "#" => return Err(TopicTemplateError::Hash),
                literal if literal.contains('#') => return Err(TopicTemplateError::Hash),
                literal if literal.contains(['{', '}', '+']) => {
                    return Err(TopicTemplateError::Level(literal.into()));
                }
                literal => TopicLevel::Literal(literal.into()),
            });
        }
        for (name, wanted) in
            [("tenant", TopicLevel::Tenant), ("device", TopicLevel::Device), ("type", TopicLevel::Type)]
        {
            match levels.iter().filter(|level| **level == wanted).count() {
                0 => return Err(TopicTemplateError::Missing(name)),
                1 => {}
                _ => return Err(TopicTemplateError::Twice(name)),
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
                TopicLevel::Literal(literal) => literal.as_str(),
                _ => "+",
            })
            .collect();
        levels.join("/") + if self.open { "/#" } else { "" }
    }

    /// The tenant, device and type of a topic. `None` if `read` refuses it.
    pub fn matches(&self, topic: &str) -> Option<TopicFields> {
        self.find(topic).map(|(places, _)| places).filter(|places| is_good(places, topic))
    }

    /// The tenant, device and type of a topic.
    ///
    /// # Errors
    /// The topic is not of this form, a name is longer than `TOPIC_NAME_BYTES_MAX`, or there is a control
    /// character in the topic.
    pub fn read(&self, topic: &str) -> Result<TopicFields, TopicError> {
        self.read_where(topic, |_| true)
    }

    /// The same as `read`, for a topic that the filter matches too: a subscription does not deliver further levels.
    ///
    /// # Errors
    /// The errors of `read`; a topic that the filter does not match is not of this form.
    pub fn read_delivered(&self, topic: &str) -> Result<TopicFields, TopicError> {
        let first_is_named = matches!(self.levels.first(), Some(TopicLevel::Literal(_)));
        self.read_where(topic, |end| {
            (self.open || end == topic.len()) && (first_is_named || !topic.starts_with('$'))
        })
    }

    /// Reads a topic; `takes` gets the end of the template's last level in it.
    #[inline]
    fn read_where(&self, topic: &str, takes: impl FnOnce(usize) -> bool) -> Result<TopicFields, TopicError> {
        let form = || TopicError::Form(self.text.clone());
        let (places, end) = self.find(topic).ok_or_else(form)?;
        if is_good(&places, topic) {
            return if takes(end) { Ok(places) } else { Err(form()) };
        }
        let control = |level: &str| level.chars().find(|c| c.is_control());
        if let Some((level, character)) = topic.split('/').find_map(|level| Some((level, control(level)?))) {
            return Err(TopicError::ControlCharacter { character, level: level.into() });
        }
        let names = [("tenant", places.tenant), ("device", places.device), ("type", places.message_type)];
        let longest = names.into_iter().find(|(_, name)| name.len() > TOPIC_NAME_BYTES_MAX);
        let (name, range) = longest.expect("nothing else is asked of a topic");
        Err(TopicError::NameTooLong { name, bytes: range.len() })
    }

    /// The levels of a topic that the template names, whatever stands in them, and the end of the last.
    fn find(&self, topic: &str) -> Option<(TopicFields, usize)> {
        let mut places = TopicFields { tenant: 0..0, device: 0..0, message_type: 0..0 };
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
                TopicLevel::Literal(literal) if literal.as_bytes() != &bytes[start..end] => return None,
                TopicLevel::Literal(_) | TopicLevel::Any => {}
                TopicLevel::Tenant => places.tenant = start..end,
                TopicLevel::Device => places.device = start..end,
                TopicLevel::Type => places.message_type = start..end,
            }
            start = end;
        }
        Some((places, start))
    }
}

/// True if no name is too long and no control character stands in the topic.
fn is_good(places: &TopicFields, topic: &str) -> bool {
    let names = [&places.tenant, &places.device, &places.message_type];
    names.iter().all(|name| name.len() <= TOPIC_NAME_BYTES_MAX) && !has_control(topic)
}

/// True if a text has a control character (U+0000 to U+001F, U+007F to U+009F).
fn has_control(text: &str) -> bool {
    // Without a branch for each byte; U+0080 to U+00BF begin with 0xC2.
    let suspect =
        text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == 0x7f) | (byte == 0xc2));
    suspect && text.contains(char::is_control)
}

/// True if a text can be the name of a tenant or a device in a topic.
pub fn is_topic_name(name: &str) -> bool {
    name.len() <= TOPIC_NAME_BYTES_MAX && !has_control(name)
}

/// The template that a filter of the Python service stands for: its first three `+` are tenant,
/// device and type.
///
/// # Errors
/// The filter has fewer or more, or a `#` elsewhere than at the end.
pub fn template_of_filter(filter: &str) -> Result<String, TopicTemplateError> {
    let mut names = ["{tenant}", "{device}", "{type}"].into_iter();
    let mut levels = Vec::new();
    for level in filter.split('/') {
        levels.push(if level == "+" { names.next().ok_or(TopicTemplateError::Filter)? } else { level });
    }
    if names.next().is_some() {
        return Err(TopicTemplateError::Filter);
    }
    let template = levels.join("/");
    TopicTemplate::parse(&template)?;
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TOPIC_NAME_BYTES_MAX;
    use std::ops::Range;

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
    fn a_name_that_is_too_long_is_named_with_its_length() {
        let template = TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap();
        let (good, long) = ("n".repeat(TOPIC_NAME_BYTES_MAX), "ä".repeat(128));
        assert!(template.read(&format!("tenant/{good}/device/{good}/{good}/{}", "n".repeat(5_000))).is_ok());
        for (topic, name) in [
            (format!("tenant/{long}/device/d/t"), "tenant"),
            (format!("tenant/t/device/{long}/t"), "device"),
            (format!("tenant/t/device/d/{long}"), "type"),
        ] {
            assert_eq!(template.read(&topic), Err(TopicError::NameTooLong { name, bytes: 256 }));
            assert_eq!(template.matches(&topic), None);
        }
        assert_eq!(
            template.read(&format!("tenant/{long}/device/d/t")).unwrap_err().to_string(),
            "the topic names a tenant of 256 bytes: at most 255 are taken"
        );
    }

    #[test]
    fn a_control_character_anywhere_in_a_topic_is_refused() {
        let template = TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap();
        for character in ['\u{1}', '\n', '\u{1b}', '\u{7f}', '\u{80}', '\u{9f}'] {
            for topic in
                [format!("tenant/a{character}b/device/d/t"), format!("tenant/a/device/d/t/{character}")]
            {
                assert!(
                    matches!(template.read(&topic), Err(TopicError::ControlCharacter { character: c, .. }) if c == character),
                    "{topic:?}"
                );
                assert_eq!(template.matches(&topic), None);
            }
        }
        // Other characters of two bytes that begin alike are none.
        assert!(template.read("tenant/\u{a0}°/device/d/t").is_ok());
        assert_eq!(
            template.read("tenant/a\u{7}/device/d/t").unwrap_err().to_string(),
            r#"the topic has the control character '\u{7}' in its level "a\u{7}""#
        );
    }

    #[test]
    fn what_the_filter_does_not_match_is_read_but_not_delivered() {
        let delivered = |template: &str, topic: &str| {
            let template = TopicTemplate::parse(template).unwrap();
            assert!(template.read(topic).is_ok(), "{topic}");
            let read = template.read_delivered(topic);
            assert!(read.is_ok() || matches!(read, Err(TopicError::Form(_))), "{read:?}");
            read.is_ok()
        };
        assert!(delivered("t/{tenant}/{device}/{type}", "t/a/b/c"));
        assert!(!delivered("t/{tenant}/{device}/{type}", "t/a/b/c/d"));
        assert!(!delivered("t/{tenant}/{device}/{type}", "t/a/b/c/"));
        assert!(delivered("t/{tenant}/{device}/{type}/#", "t/a/b/c/d/e"));
        assert!(delivered("{tenant}/{device}/{type}", "a/b/c"));
        assert!(!delivered("{tenant}/{device}/{type}", "$a/b/c"));
        assert!(delivered("$t/{tenant}/{device}/{type}", "$t/a/b/c"));
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
        assert_eq!(template_of_filter("tenant/+/#"), Err(TopicTemplateError::Filter));
        assert_eq!(template_of_filter("#"), Err(TopicTemplateError::Filter));
        assert_eq!(template_of_filter("+/+/+/+"), Err(TopicTemplateError::Filter));
    }

    #[test]
    fn a_template_must_name_each_value_once() {
        assert_eq!(TopicTemplate::parse("a/{tenant}/{device}"), Err(TopicTemplateError::Missing("type")));
        assert_eq!(
            TopicTemplate::parse("{tenant}/{tenant}/{device}/{type}"),
            Err(TopicTemplateError::Twice("tenant"))
        );
        assert!(matches!(
            TopicTemplate::parse("x{tenant}/{device}/{type}"),
            Err(TopicTemplateError::Level(_))
        ));
        assert_eq!(TopicTemplate::parse("{tenant}/#/{device}/{type}"), Err(TopicTemplateError::Hash));
        assert_eq!(TopicTemplate::parse(""), Err(TopicTemplateError::Length));
    }
}
