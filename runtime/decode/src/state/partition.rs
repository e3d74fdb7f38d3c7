//! Partitions of a route's state: a message sees the values of its own, named by its topic.

use std::fmt;

/// The form of a partition's name. Names the device, so that a partition's messages are
/// those of one device, and follow one another on one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTemplate {
    parts: Vec<PartitionPart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PartitionPart {
    Literal(String),
    Device,
    Type,
    /// A level of the topic, from 0.
    Level(usize),
}

/// A fault of a template, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionError(String);

impl fmt::Display for PartitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for PartitionTemplate {
    fn default() -> Self {
        Self { parts: vec![PartitionPart::Device] }
    }
}

impl PartitionTemplate {
    /// Reads a template: `{device}`, which must be in it, `{type}`, `{6}` for the sixth level of the
    /// topic, and text.
    ///
    /// # Errors
    /// It is none, with what would be right.
    pub fn parse(text: &str) -> Result<Self, PartitionError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, behind) = rest.split_at(rest.find(['{', '}']).unwrap_or(rest.len()));
            if !literal.is_empty() {
                parts.push(PartitionPart::Literal(literal.to_owned()));
            }
            let Some(named) = behind.strip_prefix('{') else {
                if behind.is_empty() {
                    break;
                }
                return Err(PartitionError("a } without {".into()));
            };
            let (name, behind) =
                named.split_once('}').ok_or_else(|| PartitionError("a { without }".into()))?;
            parts.push(match (name, name.parse::<usize>()) {
                ("device", _) => PartitionPart::Device,
                ("type", _) => PartitionPart::Type,
                (_, Ok(level @ 1..=128)) => PartitionPart::Level(level - 1),
                _ => {
                    return Err(PartitionError(format!(
                        "{{{name}}} is unknown: expected {{device}}, {{type}}, or a topic level {{1}} to {{128}}"
                    )));
                }
            });
            rest = behind;
        }
        if !parts.contains(&PartitionPart::Device) {
            let why = "{device} is missing: only the messages of one device keep their order";
            return Err(PartitionError(why.into()));
        }
        Ok(Self { parts })
    }

    /// The partition of a message. A level that the topic does not have is empty.
    pub fn partition(&self, device: &str, message_type: &str, topic: &str) -> String {
        let part = |part: &PartitionPart| match part {
            PartitionPart::Literal(text) => text.clone(),
            PartitionPart::Device => device.to_owned(),
            PartitionPart::Type => message_type.to_owned(),
            PartitionPart::Level(level) => topic.split('/').nth(*level).unwrap_or_default().to_owned(),
        };
        self.parts.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_a_device_or_a_part_of_one() {
        let topic = "tenant/acme/device/gw-1/meter/7/phase";
        let of = |template| PartitionTemplate::parse(template).unwrap().partition("gw-1", "meter", topic);
        assert_eq!(PartitionTemplate::default().partition("gw-1", "meter", topic), "gw-1");
        assert_eq!(PartitionTemplate::parse("{device}").unwrap(), PartitionTemplate::default());
        assert_eq!(of("{device}/{6}"), "gw-1/7");
        assert_eq!(of("m:{type}:{device}"), "m:meter:gw-1");
        assert_eq!(of("{device}/{9}"), "gw-1/");
    }

    #[test]
    fn what_could_span_devices_or_is_no_template_is_refused() {
        for (template, why) in [
            ("", "{device} is missing"),
            ("{type}", "{device} is missing"),
            ("all", "{device} is missing"),
            ("{device}/{tenant}", "{tenant}"),
            ("{device}/{0}", "{0}"),
            ("{device", "{ without"),
            ("device}", "} without"),
        ] {
            let fault = PartitionTemplate::parse(template).unwrap_err().to_string();
            assert!(fault.contains(why), "{template}: {fault}");
        }
    }
}
