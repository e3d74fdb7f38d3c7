//! A topic template: the levels of a topic, and the names that it gives to a message.
//!
//! `tenant/{tenant}/device/{device}/{type}` is subscribed to as `tenant/+/device/+/+`. Levels are
//! taken as they are: an empty level is an empty value. A template of `mqtt.topic` ignores levels behind its last one,
//! as the Python service did; a template of `[[topics]]` does so only if it ends in `/#`.

use std::collections::BTreeMap;

use crate::limits::{TOPIC_CAPTURES_MAX, TOPIC_NAME_BYTES_MAX};
use crate::topic::envelope_kind::EnvelopeKind;
use crate::topic::error::{TopicError, TopicTemplateError};
use crate::topic::fields::TopicFields;
use crate::topic::level::{Span, TopicLevel};
use crate::topic::name::{TopicName, has_control};
use crate::topic::name_source::NameSource;

/// The level that begins the topics of Sparkplug B.
pub const SPARKPLUG_NAMESPACE: &str = "spBv1.0";

/// The values of the captures of one topic.
type Spans = [Span; TOPIC_CAPTURES_MAX];

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    text: String,
    levels: Vec<TopicLevel>,
    /// True if it ends in `/#`.
    open: bool,
    /// True if further levels are ignored in a topic that no subscription delivers.
    ignores_more: bool,
    captures: Vec<String>,
    tenant: NameSource,
    device: NameSource,
    message_type: NameSource,
    site: Option<NameSource>,
    /// Captures that name neither tenant, device, type nor site.
    others: Vec<u8>,
    envelope: EnvelopeKind,
    qos: u8,
    /// Its index in `TopicTemplates`.
    pub(super) index: u8,
}

/// The configuration of a template.
#[derive(Clone, Copy, Debug)]
pub struct TopicRules<'a> {
    pub template: &'a str,
    /// A capture or a fixed name, as the next two.
    pub tenant: &'a str,
    pub device: &'a str,
    pub message_type: &'a str,
    /// The same; empty: the capture `{site}`, if there is one.
    pub site: &'a str,
    /// The tenant for each value of the capture `tenant`; empty: the value itself.
    pub tenants: &'a BTreeMap<String, String>,
    pub envelope: EnvelopeKind,
    /// The QoS of its subscription.
    pub qos: u8,
}

/// A fault, and the key of the configuration that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRulesError {
    pub key: &'static str,
    pub value: String,
    pub fault: TopicTemplateError,
}

impl TopicTemplate {
    /// Reads a template of `mqtt.topic`.
    ///
    /// # Errors
    /// It does not name tenant, device and type once each, or is no MQTT topic.
    pub fn parse(text: &str) -> Result<Self, TopicTemplateError> {
        const NAMES: [&str; 3] = ["tenant", "device", "type"];
        check_length(text)?;
        let body = text.strip_suffix("/#").unwrap_or(text);
        let name_of = |level: &str| NAMES.iter().position(|name| level == format!("{{{name}}}"));
        for level in body.split('/').filter(|level| name_of(level).is_none() && *level != "+") {
            if level.contains('#') {
                return Err(TopicTemplateError::Hash);
            }
            if level.contains(['{', '}', '+']) {
                return Err(TopicTemplateError::Level(level.into()));
            }
        }
        for (index, name) in NAMES.iter().enumerate() {
            match body.split('/').filter(|level| name_of(level) == Some(index)).count() {
                0 => return Err(TopicTemplateError::Missing(name)),
                1 => {}
                _ => return Err(TopicTemplateError::Twice((*name).into())),
            }
        }
        let rules = TopicRules {
            template: text,
            tenant: "{tenant}",
            device: "{device}",
            message_type: "{type}",
            site: "",
            tenants: &BTreeMap::new(),
            envelope: EnvelopeKind::Pulse,
            qos: 1,
        };
        let template = Self::of(&rules).map_err(|error| error.fault)?;
        Ok(Self { ignores_more: true, ..template })
    }

    /// Reads a template of `[[topics]]`.
    ///
    /// # Errors
    /// A value that cannot be meant, with its key.
    pub fn new(rules: &TopicRules<'_>) -> Result<Self, TopicRulesError> {
        if rules.template.starts_with("$share/") {
            let (key, value) = ("template", rules.template.into());
            return Err(TopicRulesError { key, value, fault: TopicTemplateError::Share });
        }
        Self::of(rules)
    }

    fn of(rules: &TopicRules<'_>) -> Result<Self, TopicRulesError> {
        let text = rules.template;
        let (levels, open, captures) =
            levels(text).map_err(|fault| TopicRulesError { key: "template", value: text.into(), fault })?;
        let source = |key: &'static str, name: &'static str, value: &str, joins| {
            let error = |key, value: &str, fault| TopicRulesError { key, value: value.into(), fault };
            // The default, of a template without that capture.
            if value == format!("{{{name}}}") && !captures.iter().any(|capture| capture == name) {
                return Err(error("template", text, TopicTemplateError::NotCaptured { name, key }));
            }
            NameSource::parse(value, &captures, joins).map_err(|fault| error(key, value, fault))
        };
        let mut tenant = source("tenant", "tenant", rules.tenant, false)?;
        if !rules.tenants.is_empty() {
            tenant = tenant.listed(rules.tenants).map_err(|fault| TopicRulesError {
                key: "tenants",
                value: rules.tenants.values().cloned().collect::<Vec<_>>().join(", "),
                fault,
            })?;
        }
        let device = source("device", "device", rules.device, true)?;
        let message_type = source("type", "type", rules.message_type, false)?;
        let site = match rules.site {
            "" if captures.iter().any(|capture| capture == "site") => {
                Some(source("site", "site", "{site}", false)?)
            }
            "" => None,
            site => Some(source("site", "site", site, false)?),
        };
        let named = [Some(&tenant), Some(&device), Some(&message_type), site.as_ref()];
        let named: Vec<u8> = named.into_iter().flatten().filter_map(NameSource::capture).collect();
        let others = (0..captures.len() as u8).filter(|index| !named.contains(index)).collect();
        Ok(Self {
            text: text.into(),
            levels,
            open,
            ignores_more: false,
            captures,
            tenant,
            device,
            message_type,
            site,
            others,
            envelope: rules.envelope,
            qos: rules.qos,
            index: 0,
        })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The MQTT topic filter to subscribe to (MQTT 3.1.1 section 4.7).
    pub fn filter(&self) -> String {
        let levels: Vec<&str> = self.levels.iter().map(|level| level.literal().unwrap_or("+")).collect();
        levels.join("/") + if self.open { "/#" } else { "" }
    }

    /// The place of the level `spBv1.0`, with levels for group, type and edge node behind it. None: its topics are none
    /// of edge nodes of Sparkplug.
    pub fn sparkplug_level(&self) -> Option<usize> {
        let behind = self.levels.len().saturating_sub(3);
        self.levels[..behind].iter().position(|level| level.literal() == Some(SPARKPLUG_NAMESPACE))
    }

    /// The QoS of the subscription.
    pub fn qos(&self) -> u8 {
        self.qos
    }

    /// The form of its payloads.
    #[inline]
    pub fn envelope(&self) -> EnvelopeKind {
        self.envelope
    }

    /// The levels of its filter; `None` stands for `+`.
    pub(super) fn filter_levels(&self) -> impl Iterator<Item = Option<&str>> {
        self.levels.iter().map(TopicLevel::literal)
    }

    /// True if its filter ends in `/#`.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// True if the site of a message, or another value beside its names, stands in its topic.
    #[inline]
    pub fn has_more_names(&self) -> bool {
        self.site.is_some() || !self.others.is_empty()
    }

    /// The site that a topic names, if the template has one.
    pub fn site(&self, topic: &str) -> Option<TopicName> {
        let site = self.site.as_ref()?;
        let (spans, _) = self.find(topic)?;
        site.name(topic, &spans)
    }

    /// The captures beside tenant, device, type and site: names and values.
    pub fn other_captures<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let spans = self.find(topic).map(|(spans, _)| spans).filter(|_| !self.others.is_empty());
        spans.into_iter().flat_map(move |spans| {
            self.others.iter().map(move |index| {
                let index = usize::from(*index);
                (self.captures[index].as_str(), spans[index].of(topic))
            })
        })
    }

    /// The names that a topic gives. `None` if `read` refuses it.
    pub fn matches(&self, topic: &str) -> Option<TopicFields> {
        let (spans, end) = self.find(topic)?;
        if !self.ignores_more && !self.is_delivered(topic, end) {
            return None;
        }
        self.fields(topic, &spans).filter(|fields| is_good(fields, topic))
    }

    /// The names that a topic gives.
    ///
    /// # Errors
    /// The topic is not of this form, its tenant is not listed, a name is longer than `TOPIC_NAME_BYTES_MAX`, or
    /// there is a control character in the topic.
    pub fn read(&self, topic: &str) -> Result<TopicFields, TopicError> {
        self.read_where(topic, |end| self.ignores_more || self.is_delivered(topic, end))
    }

    /// The same as `read`, for a topic that the filter matches too: a subscription does not deliver further levels.
    ///
    /// # Errors
    /// The errors of `read`; a topic that the filter does not match is not of this form.
    pub fn read_delivered(&self, topic: &str) -> Result<TopicFields, TopicError> {
        self.read_where(topic, |end| self.is_delivered(topic, end))
    }

    /// True if a subscription delivers a topic in which the template's last level ends at `end`.
    #[inline]
    fn is_delivered(&self, topic: &str, end: usize) -> bool {
        let first_is_named = self.levels.first().is_some_and(|level| level.literal().is_some());
        (self.open || end == topic.len()) && (first_is_named || !topic.starts_with('$'))
    }

    /// Reads a topic; `takes` gets the end of the template's last level in it.
    #[inline]
    fn read_where(&self, topic: &str, takes: impl FnOnce(usize) -> bool) -> Result<TopicFields, TopicError> {
        let form = || TopicError::Form(self.text.clone());
        let (spans, end) = self.find(topic).ok_or_else(form)?;
        let fields = match self.fields(topic, &spans) {
            Some(fields) if is_good(&fields, topic) => {
                return if takes(end) { Ok(fields) } else { Err(form()) };
            }
            fields => fields,
        };
        let control = |level: &str| level.chars().find(|c| c.is_control());
        if let Some((level, character)) = topic.split('/').find_map(|level| Some((level, control(level)?))) {
            return Err(TopicError::ControlCharacter { character, level: level.into() });
        }
        let Some(fields) = fields else {
            return Err(TopicError::UnlistedTenant(self.tenant.unlisted(topic, &spans).to_owned()));
        };
        let names = [("tenant", fields.tenant), ("device", fields.device), ("type", fields.message_type)];
        let longest = names.into_iter().find(|(_, name)| name.len() > TOPIC_NAME_BYTES_MAX);
        let (name, text) = longest.expect("nothing else is asked of a topic");
        Err(TopicError::NameTooLong { name, bytes: text.len() })
    }

    /// The names of a topic. `None`: its tenant is not listed.
    #[inline]
    fn fields(&self, topic: &str, spans: &Spans) -> Option<TopicFields> {
        Some(TopicFields {
            tenant: self.tenant.name(topic, spans)?,
            device: self.device.name(topic, spans)?,
            message_type: self.message_type.name(topic, spans)?,
            template: self.index,
        })
    }

    /// The captures of a topic, whatever stands in them, and the end of the template's last level.
    #[inline]
    fn find(&self, topic: &str) -> Option<(Spans, usize)> {
        let mut spans = Spans::default();
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
                TopicLevel::Capture(slot) => {
                    spans[usize::from(*slot)] = Span { start: start as u32, end: end as u32 };
                }
                TopicLevel::Mixed(mixed) => {
                    if !mixed.find(&bytes[start..end], start, &mut spans) {
                        return None;
                    }
                }
            }
            start = end;
        }
        Some((spans, start))
    }
}

fn check_length(text: &str) -> Result<(), TopicTemplateError> {
    match text.is_empty() || text.len() > 65_535 || text.contains('\0') {
        true => Err(TopicTemplateError::Length),
        false => Ok(()),
    }
}

/// The levels of a template, true if it ends in `/#`, and the names of its captures.
fn levels(text: &str) -> Result<(Vec<TopicLevel>, bool, Vec<String>), TopicTemplateError> {
    check_length(text)?;
    let (body, open) = match text.strip_suffix("/#") {
        Some(body) => (body, true),
        None => (text, false),
    };
    let mut captures: Vec<String> = Vec::new();
    let mut capture = |name: &str| {
        if captures.iter().any(|capture| capture == name) {
            return Err(TopicTemplateError::Twice(name.into()));
        }
        if captures.len() == TOPIC_CAPTURES_MAX {
            return Err(TopicTemplateError::TooManyCaptures);
        }
        captures.push(name.to_owned());
        Ok(captures.len() as u8 - 1)
    };
    let levels: Result<Vec<_>, _> =
        body.split('/').map(|level| TopicLevel::parse(level, &mut capture)).collect();
    Ok((levels?, open, captures))
}

/// True if no name is too long and no control character stands in the topic.
fn is_good(fields: &TopicFields, topic: &str) -> bool {
    let names = [&fields.tenant, &fields.device, &fields.message_type];
    names.iter().all(|name| name.len() <= TOPIC_NAME_BYTES_MAX) && !has_control(topic)
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
mod tests;
