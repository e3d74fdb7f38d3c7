use super::*;
use crate::topic::{EnvelopeKind, TopicName};
use std::collections::BTreeMap;

fn places(topic: &str) -> Option<(String, String, String)> {
    let template = TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap();
    let places = template.matches(topic)?;
    let part = |name: &TopicName| name.of(topic).to_owned();
    Some((part(&places.tenant), part(&places.device), part(&places.message_type)))
}

fn named(tenant: &str, device: &str, message_type: &str) -> Option<(String, String, String)> {
    Some((tenant.into(), device.into(), message_type.into()))
}

#[test]
fn the_default_template_reads_topics_as_the_python_service_did() {
    assert_eq!(places("tenant/acme/device/dev-1/telemetry"), named("acme", "dev-1", "telemetry"));
    assert_eq!(places("tenant/acme/device/dev-1/telemetry/more/levels"), named("acme", "dev-1", "telemetry"));
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
        for topic in [format!("tenant/a{character}b/device/d/t"), format!("tenant/a/device/d/t/{character}")]
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
    assert_eq!(template_of_filter("tenant/+/device/+/+").unwrap(), "tenant/{tenant}/device/{device}/{type}");
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
        Err(TopicTemplateError::Twice("tenant".into()))
    );
    assert!(matches!(TopicTemplate::parse("x{tenant}/{device}/{type}"), Err(TopicTemplateError::Level(_))));
    assert_eq!(TopicTemplate::parse("{tenant}/#/{device}/{type}"), Err(TopicTemplateError::Hash));
    assert_eq!(TopicTemplate::parse(""), Err(TopicTemplateError::Length));
}

static NO_TENANTS: BTreeMap<String, String> = BTreeMap::new();

/// Rules with the names of the captures, changed by `change`.
fn template_with<'a>(
    template: &'a str,
    change: impl FnOnce(&mut TopicRules<'a>),
) -> Result<TopicTemplate, TopicRulesError> {
    let mut rules = TopicRules {
        template,
        tenant: "{tenant}",
        device: "{device}",
        message_type: "{type}",
        site: "",
        tenants: &NO_TENANTS,
        envelope: EnvelopeKind::None,
        qos: 1,
    };
    change(&mut rules);
    TopicTemplate::new(&rules)
}

/// The key that is complained about, and the words.
fn fault<'a>(template: &'a str, change: impl FnOnce(&mut TopicRules<'a>)) -> (&'static str, String) {
    let error = template_with(template, change).unwrap_err();
    (error.key, error.fault.to_string())
}

/// Tenant, device and type of a topic.
fn names(template: &TopicTemplate, topic: &str) -> Option<(String, String, String)> {
    let fields = template.matches(topic)?;
    assert_eq!(template.read(topic), Ok(fields.clone()));
    let part = |name: &TopicName| name.of(topic).to_owned();
    Some((part(&fields.tenant), part(&fields.device), part(&fields.message_type)))
}

#[test]
fn names_are_captured_fixed_and_joined() {
    let uplinks = template_with("v3/{application}@{org}/devices/{device}/up", |rules| {
        rules.tenant = "acme";
        rules.message_type = "{application}";
    })
    .unwrap();
    assert_eq!(uplinks.filter(), "v3/+/devices/+/up");
    assert_eq!(names(&uplinks, "v3/meters@ttn/devices/m-1/up"), named("acme", "m-1", "meters"));
    assert_eq!(names(&uplinks, "v3/meters/devices/m-1/up"), None, "no @");
    assert_eq!(names(&uplinks, "v3/meters@ttn/devices/m-1/up/x"), None, "no subscription delivers it");
    assert_eq!(names(&uplinks, "v3/meters@ttn/devices/m-1/join"), None);
    let others: Vec<_> = uplinks.other_captures("v3/meters@ttn/devices/m-1/up").collect();
    assert_eq!(others, [("org", "ttn")]);

    let sparkplug = template_with("spBv1.0/{group}/{kind}/{edge}/#", |rules| {
        rules.tenant = "plant";
        rules.device = "{group}/{edge}";
        rules.message_type = "sparkplug";
    })
    .unwrap();
    assert_eq!(sparkplug.filter(), "spBv1.0/+/+/+/#");
    for topic in ["spBv1.0/G/NBIRTH/E", "spBv1.0/G/DDATA/E/D"] {
        assert_eq!(names(&sparkplug, topic), named("plant", "G/E", "sparkplug"), "{topic}");
    }
    assert_eq!(names(&sparkplug, "spBv1.0/STATE/host"), None);
    let one = template_with("boiler/temperature", |rules| {
        (rules.tenant, rules.device, rules.message_type) = ("plant", "boiler", "temperature");
    })
    .unwrap();
    assert_eq!(names(&one, "boiler/temperature"), named("plant", "boiler", "temperature"));
    assert_eq!(names(&one, "boiler/pressure"), None);
}

#[test]
fn a_level_ends_its_captures_where_the_text_behind_them_begins() {
    let template = template_with("{a}-{device}.json/x{type}", |rules| rules.tenant = "t").unwrap();
    assert_eq!(names(&template, "k-d-1.json.json/xy"), named("t", "d-1.json", "y"));
    assert_eq!(names(&template, "-.json/x"), named("t", "", ""));
    for other in ["k.json/xy", "k-d/xy", "k-d.json/y", "k-d.jso/xy"] {
        assert_eq!(names(&template, other), None, "{other}");
    }
    let umlauts = template_with("ä{tenant}ö{device}ü/{type}", |_| ()).unwrap();
    assert_eq!(names(&umlauts, "äëöéü/ß"), named("ë", "é", "ß"));
}

#[test]
fn a_table_gives_tenants_for_values_and_others_are_refused() {
    let tenants: BTreeMap<String, String> = [("u-1".into(), "acme".into())].into();
    let rules = TopicRules {
        template: "application/{application}/device/{device}/event/up",
        tenant: "{application}",
        device: "{device}",
        message_type: "uplink",
        site: "",
        tenants: &tenants,
        envelope: EnvelopeKind::ChirpStack,
        qos: 0,
    };
    let template = TopicTemplate::new(&rules).unwrap();
    assert_eq!(names(&template, "application/u-1/device/d/event/up"), named("acme", "d", "uplink"));
    let other = "application/u-2/device/d/event/up";
    assert_eq!(template.matches(other), None);
    assert_eq!(
        template.read(other).unwrap_err().to_string(),
        "the operator's topics list no tenant for \"u-2\""
    );
    let fixed = TopicRules { tenant: "acme", ..rules };
    assert_eq!(TopicTemplate::new(&fixed).unwrap_err().key, "tenants");
}

#[test]
fn a_site_is_read_where_the_template_has_one() {
    let site =
        |template: &TopicTemplate, topic: &str| template.site(topic).map(|name| name.of(topic).to_owned());
    let captured = template_with("{site}/{tenant}/{device}/{type}", |_| ()).unwrap();
    assert_eq!(site(&captured, "hall/a/d/t"), Some("hall".into()));
    assert_eq!(captured.other_captures("hall/a/d/t").count(), 0);
    let fixed = template_with("{tenant}/{device}/{type}", |rules| rules.site = "lab").unwrap();
    assert_eq!(site(&fixed, "a/d/t"), Some("lab".into()));
    let none = template_with("{tenant}/{device}/{type}", |_| ()).unwrap();
    assert!(site(&none, "a/d/t").is_none() && !none.has_more_names());
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_key() {
    let keep = |_: &mut TopicRules<'_>| ();
    for (template, words) in [
        ("", "1 to 65,535"),
        ("$share/g/{tenant}/{device}/{type}", "mqtt.share"),
        ("{tenant}/#/{device}/{type}", "only at the end"),
        ("{tenant}/{device}/{type}#", "only at the end"),
        ("{tenant}/x+/{device}/{type}", "+ stands beside other text"),
        ("{tenant}/{Device}/{type}", "lower-case"),
        ("{tenant}/{}/{device}/{type}", "lower-case"),
        ("{tenant}/{device/{type}", "lower-case"),
        ("{tenant}/device}/{type}", "lower-case"),
        ("{tenant}/{device}{type}", "text between two captures"),
        ("{tenant}/{tenant}/{device}/{type}", "{tenant} only once"),
        ("{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", "at most 8 captures"),
        ("{device}/{type}", "{tenant} as a part of the template, or a fixed name in `tenant`"),
        ("{tenant}/{type}", "{device} as a part of the template, or a fixed name in `device`"),
        ("{tenant}/{device}", "{type} as a part of the template, or a fixed name in `type`"),
    ] {
        let (key, found) = fault(template, keep);
        assert!(key == "template" && found.contains(words), "{template}: {key}: {found}");
    }
    let template = "{org}/{tenant}/{device}/{type}";
    assert_eq!(fault(template, |rules| rules.tenant = "{o}").0, "tenant");
    assert_eq!(fault(template, |rules| rules.tenant = "{org}/{type}").0, "tenant", "only a device is joined");
    let (key, words) = fault(template, |rules| rules.device = "{org}-{device}");
    assert!(
        key == "device" && words.contains("{org}, {tenant}") && words.contains("{group}/{edge}"),
        "{words}"
    );
    let long = "n".repeat(256);
    for name in ["", "a/b", "+", "#", "a\n", &long] {
        let error = template_with(template, |rules| rules.message_type = name).unwrap_err();
        assert_eq!(error.key, "type", "{name:?}");
    }
    assert_eq!(fault(template, |rules| rules.site = "{hall}").0, "site");
}
