//! Partitions of a route's state: a message sees the values of its own, named by its topic.

use std::fmt;

use crate::limits::{PARTITION_BYTES_MAX, PARTITION_PARTS_MAX};
use tidegate_core::limits::TOPIC_NAME_BYTES_MAX;

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
        if parts.len() > PARTITION_PARTS_MAX {
            let found = parts.len();
            return Err(PartitionError(format!("{found} parts; at most {PARTITION_PARTS_MAX} are allowed")));
        }
        if !parts.contains(&PartitionPart::Device) {
            let why = "{device} is missing: only the messages of one device keep their order";
            return Err(PartitionError(why.into()));
        }
        let template = Self { parts };
        let text = template.bytes("", "", "");
        if text >= PARTITION_BYTES_MAX {
            return Err(PartitionError(format!(
                "{text} bytes of text; a partition's name has at most {PARTITION_BYTES_MAX}"
            )));
        }
        Ok(template)
    }

    /// True if no message's partition can be too long: the names of devices and types are bounded.
    pub fn always_fits(&self) -> bool {
        let most = |part: &PartitionPart| match part {
            PartitionPart::Literal(text) => text.len(),
            PartitionPart::Device | PartitionPart::Type => TOPIC_NAME_BYTES_MAX,
            PartitionPart::Level(_) => PARTITION_BYTES_MAX + 1,
        };
        self.parts.iter().map(most).sum::<usize>() <= PARTITION_BYTES_MAX
    }

    /// The length of a message's partition in bytes.
    pub fn bytes(&self, device: &str, message_type: &str, topic: &str) -> usize {
        self.parts.iter().map(|part| part.text(device, message_type, topic).len()).sum()
    }

    /// The partition of a message. A level that the topic does not have is empty.
    pub fn partition(&self, device: &str, message_type: &str, topic: &str) -> String {
        self.parts.iter().map(|part| part.text(device, message_type, topic)).collect()
    }
}

impl PartitionPart {
    fn text<'a>(&'a self, device: &'a str, message_type: &'a str, topic: &'a str) -> &'a str {
        match self {
            Self::Literal(text) => text,
            Self::Device => device,
            Self::Type => message_type,
            Self::Level(level) => topic.split('/').nth(*level).unwrap_or_default(),
        }
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
    fn a_template_is_bounded_and_so_is_what_it_makes() {
        let refused = |template: &str| PartitionTemplate::parse(template).unwrap_err().to_string();
        assert!(refused(&"{device}".repeat(17)).contains("17 parts; at most 16"));
        assert!(refused(&format!("{{device}}{}", "x".repeat(1_024))).contains("1024 bytes of text"));
        let template = PartitionTemplate::parse(&"{device}{2}".repeat(8)).unwrap();
        let topic = format!("tenant/{}", "x".repeat(60_000));
        assert!(!template.always_fits());
        assert_eq!(template.bytes("d", "t", &topic), 8 * 60_001);
        assert!(PartitionTemplate::default().always_fits());
        assert!(PartitionTemplate::parse("{device}/{type}/meter").unwrap().always_fits());
        assert!(!PartitionTemplate::parse("{device}{type}{device}{type}{device}").unwrap().always_fits());
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
