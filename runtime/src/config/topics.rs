//! The topic templates of a configuration: `[[topics]]`, or `mqtt.topic` alone.

use crate::config::error::ConfigError;
use crate::config::sections::{Config, MqttSection, TopicSection};
use crate::core::topic::{EnvelopeKind, TopicRules, TopicTemplate, TopicTemplates, TopicTemplatesError};
use crate::limits::REBIRTH_INTERVAL_MAX_S;

/// Reads the templates.
///
/// # Errors
/// The first invalid key, its value, and what is allowed.
pub fn read(config: &Config) -> Result<TopicTemplates, ConfigError> {
    let topic = &config.mqtt.topic;
    if config.topics.is_empty() {
        let template = TopicTemplate::parse(topic)
            .map_err(|fault| ConfigError::value("mqtt.topic", topic, fault.to_string()))?;
        return Ok(template.into());
    }
    if *topic != MqttSection::default().topic {
        let expected = "no value beside [[topics]]; make it one of them";
        return Err(ConfigError::value("mqtt.topic", topic, expected));
    }
    let templates: Result<Vec<_>, _> =
        config.topics.iter().enumerate().map(|(index, section)| template(index, section)).collect();
    let templates = templates?;
    for (index, (section, template)) in config.topics.iter().zip(&templates).enumerate() {
        rebirths(config, &key(index, "rebirth_interval_s"), section.rebirth_interval_s, template)?;
    }
    TopicTemplates::new(templates).map_err(|error| match &error {
        TopicTemplatesError::Overlap { index, .. } => {
            let template = &config.topics[*index].template;
            ConfigError::value(&key(*index, "template"), template, error.to_string())
        }
        TopicTemplatesError::TooMany => ConfigError::value("topics", config.topics.len(), error.to_string()),
    })
}

fn key(index: usize, name: &str) -> String {
    format!("topics[{index}].{name}")
}

fn template(index: usize, section: &TopicSection) -> Result<TopicTemplate, ConfigError> {
    let envelope = section.envelope.check(&key(index, "envelope"))?;
    if section.qos > 1 {
        return Err(ConfigError::value(&key(index, "qos"), section.qos, "0 or 1"));
    }
    let rules = TopicRules {
        template: &section.template,
        tenant: &section.tenant,
        device: &section.device,
        message_type: &section.message_type,
        site: &section.site,
        tenants: &section.tenants,
        envelope,
        qos: section.qos,
    };
    TopicTemplate::new(&rules)
        .map_err(|error| ConfigError::value(&key(index, error.key), error.value, error.fault.to_string()))
}

/// Checks that births can be requested where they are to be.
fn rebirths(
    config: &Config,
    key: &str,
    interval_s: u32,
    template: &TopicTemplate,
) -> Result<(), ConfigError> {
    let refuse = |expected: String| Err(ConfigError::value(key, interval_s, expected));
    if interval_s == 0 {
        return Ok(());
    }
    if interval_s > REBIRTH_INTERVAL_MAX_S {
        return refuse(format!("0 to {REBIRTH_INTERVAL_MAX_S}"));
    }
    if template.sparkplug_level().is_none() {
        let expected = "0, because the template has no level spBv1.0 with three levels behind it for group, type and edge \
                        node, as in \"spBv1.0/{group}/{kind}/{edge}/#\"";
        return refuse(expected.into());
    }
    if config.mqtt.url.is_empty() {
        return refuse("0 without mqtt.url: the request goes to the broker".into());
    }
    if !config.mqtt.share.is_empty() {
        let expected = "0 with mqtt.share: each gateway has a part of a node's messages only, so the sequence always has \
                        gaps";
        return refuse(expected.into());
    }
    Ok(())
}

/// Remarks on templates whose messages are believed without a credential in them, or can be lost.
pub(super) fn notes(config: &Config, notes: &mut Vec<String>) {
    for (index, section) in config.topics.iter().enumerate() {
        let envelope = section.envelope.get();
        if !envelope.has_credentials() && !config.mqtt.url.is_empty() {
            notes.push(format!(
                "{} = {:?}: who may publish to {:?} is for the broker to decide; its messages bring no token",
                key(index, "envelope"),
                section.envelope.as_str(),
                section.template
            ));
        }
        if section.qos == 0 && envelope != EnvelopeKind::ThingsStack {
            notes.push(format!(
                "{} = 0: a message on {:?} can be lost between broker and gateway",
                key(index, "qos"),
                section.template
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::ConfigError;
    use crate::config::sections::Config;

    /// The key that is complained about, and the whole text; empty where all is well.
    fn fault(text: &str) -> (String, String) {
        match read(&toml::from_str::<Config>(text).unwrap()) {
            Ok(_) => Default::default(),
            Err(error @ ConfigError::Value { .. }) => {
                let text = error.to_string();
                let ConfigError::Value { key, .. } = error else { unreachable!() };
                (key, text)
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn one_setting_is_one_template_as_ever() {
        let config: Config = toml::from_str("[mqtt]\ntopic = \"a/{tenant}/{device}/{type}/#\"").unwrap();
        let topics = read(&config).unwrap();
        let template = topics.iter().next().unwrap();
        assert_eq!((template.filter().as_str(), template.qos()), ("a/+/+/+/#", 1));
        assert_eq!(template.envelope(), EnvelopeKind::Pulse);
        assert_eq!(topics.iter().count(), 1);
    }

    #[test]
    fn templates_are_read_with_all_their_keys() {
        let config: Config = toml::from_str(
            "[[topics]]\ntemplate = \"tenant/{tenant}/device/{device}/{type}\"\n\
             [[topics]]\ntemplate = \"v3/{application}@{org}/devices/{device}/up\"\n\
             tenant = \"{application}\"\ntenants = { meters = \"acme\" }\ntype = \"uplink\"\n\
             envelope = \"things_stack\"\nqos = 0\nsite = \"lab\"\n",
        )
        .unwrap();
        let topics = read(&config).unwrap();
        let filters: Vec<_> = topics.iter().map(|one| (one.filter(), one.qos())).collect();
        assert_eq!(filters, [("tenant/+/device/+/+".into(), 1), ("v3/+/devices/+/up".into(), 0)]);
        let topic = "v3/meters@ttn/devices/d/up";
        let fields = topics.matches(topic).unwrap();
        assert_eq!(
            (fields.tenant.of(topic), fields.device.of(topic), fields.message_type.of(topic)),
            ("acme", "d", "uplink")
        );
        assert_eq!(topics.template(&fields).envelope(), EnvelopeKind::ThingsStack);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        const FIRST: &str = "[[topics]]\ntemplate = \"a/{tenant}/{device}/{type}\"\n";
        for (text, key, words) in [
            ("[[topics]]\ntemplate = \"\"", "topics[0].template", "1 to 65,535 bytes"),
            ("[[topics]]\ntemplate = \"a/{device}\"", "topics[0].template", "fixed name in `tenant`"),
            ("[[topics]]\ntemplate = \"a/{tenant}/{device}/{type}\"\nqos = 2", "topics[0].qos", "0 or 1"),
            (
                "[[topics]]\ntemplate = \"a/{tenant}/{device}/{type}\"\nenvelope = \"ttn\"",
                "topics[0].envelope",
                "one of pulse, things_stack, chirpstack, none",
            ),
            (
                "[[topics]]\ntemplate = \"+/x/{device}\"\ntenant = \"t\"\ntype = \"y\"",
                "topics[1].template",
                "the topic \"a/x/x\" matches \"a/{tenant}/{device}\"",
            ),
            (
                "[[topics]]\ntemplate = \"b/{device}\"\ntenant = \"{org}\"\ntype = \"y\"",
                "topics[1].tenant",
                "one of the captures of the template: {device}",
            ),
            (
                "[[topics]]\ntemplate = \"b/{device}\"\ntenant = \"t\"\ntype = \"y\"\ntenants = { a = \"b\" }",
                "topics[1].tenants",
                "not one capture",
            ),
        ] {
            let before = match key.starts_with("topics[1]") {
                false => "",
                true if words.contains("matches") => {
                    "[[topics]]\ntemplate = \"a/{tenant}/{device}\"\ntype = \"z\"\n"
                }
                true => FIRST,
            };
            let (found, message) = fault(&format!("{before}{text}"));
            assert!(found == key && message.contains(words), "{text}: {message}");
        }
        let (key, _) = fault(&format!("[mqtt]\ntopic = \"x/{{tenant}}/{{device}}/{{type}}\"\n{FIRST}"));
        assert_eq!(key, "mqtt.topic");
        let many: String = (0..65)
            .map(|n| format!("[[topics]]\ntemplate = \"a{n}/{{tenant}}/{{device}}/{{type}}\"\n"))
            .collect();
        assert_eq!(fault(&many).0, "topics");
    }

    #[test]
    fn births_are_requested_of_edge_nodes_at_a_broker_only() {
        const NODES: &str = "[[topics]]\ntemplate = \"spBv1.0/{group}/{kind}/{edge}/#\"\ntenant = \"plant\"\n\
                             device = \"{edge}\"\ntype = \"sparkplug\"\n";
        for good in [
            format!("{NODES}rebirth_interval_s = 60\n"),
            format!("{}rebirth_interval_s = 86400\n", NODES.replace("spBv1.0", "a/+/spBv1.0")),
            format!("[mqtt]\nshare = \"g\"\n{NODES}"),
        ] {
            assert_eq!(fault(&good), Default::default(), "{good}");
        }
        for (text, words) in [
            (format!("{NODES}rebirth_interval_s = 86401\n"), "0 to 86400"),
            (format!("{}rebirth_interval_s = 60\n", NODES.replace("spBv1.0", "spAv1.0")), "no level spBv1.0"),
            (format!("{}rebirth_interval_s = 60\n", NODES.replace("{kind}/", "")), "no level spBv1.0"),
            (format!("[mqtt]\nshare = \"g\"\n{NODES}rebirth_interval_s = 60\n"), "0 with mqtt.share"),
            (format!("[mqtt]\nurl = \"\"\n{NODES}rebirth_interval_s = 60\n"), "0 without mqtt.url"),
        ] {
            let (key, message) = fault(&text);
            assert!(key == "topics[0].rebirth_interval_s" && message.contains(words), "{text}: {message}");
        }
    }
}
