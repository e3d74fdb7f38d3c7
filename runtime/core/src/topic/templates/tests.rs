use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::topic::{EnvelopeKind, TopicRules};

/// A template whose names are fixed.
fn template(text: &str) -> TopicTemplate {
    let rules = TopicRules {
        template: text,
        tenant: "t",
        device: "d",
        message_type: "m",
        site: "",
        tenants: &BTreeMap::new(),
        envelope: EnvelopeKind::None,
        qos: 1,
    };
    TopicTemplate::new(&rules).unwrap()
}

fn templates(texts: &[&str]) -> Result<TopicTemplates, TopicTemplatesError> {
    TopicTemplates::new(texts.iter().map(|text| template(text)).collect())
}

/// The index of the template of a topic.
fn chosen(templates: &TopicTemplates, topic: &str) -> Option<u8> {
    templates.matches(topic).map(|fields| fields.template)
}

#[test]
fn each_topic_finds_its_template_and_others_find_none() {
    let templates = templates(&[
        "tenant/{tenant}/device/{device}/{type}",
        "v3/{a}@{b}/devices/{device}/up",
        "a/+/c",
        "+/b/d",
        "spBv1.0/{group}/{kind}/{edge}/#",
        "$own/x",
    ])
    .unwrap();
    for (topic, index) in [
        ("tenant/acme/device/d/telemetry", Some(0)),
        ("tenant/acme/device/d/telemetry/more", None),
        ("v3/app@ttn/devices/d/up", Some(1)),
        ("v3/app/devices/d/up", None),
        // The literal of the first level leads to another template, the text behind it to this one.
        ("a/b/d", Some(3)),
        ("a/b/c", Some(2)),
        ("a/b/e", None),
        ("spBv1.0/g/NDATA/e", Some(4)),
        ("spBv1.0/g/DDATA/e/d", Some(4)),
        ("spBv1.0/g/DDATA/e/d/x/y", Some(4)),
        ("spBv1.0/g/DDATA", None),
        ("$own/x", Some(5)),
        // A wildcard does not match it.
        ("$sys/b/d", None),
        ("", None),
        ("/", None),
    ] {
        assert_eq!(chosen(&templates, topic), index, "{topic}");
        assert_eq!(templates.read(topic).ok().map(|fields| fields.template), index, "{topic}");
        assert_eq!(templates.read_delivered(topic).is_ok(), index.is_some(), "{topic}");
    }
    let error = templates.read("other").unwrap_err().to_string();
    assert!(error.contains("none of the forms tenant/{tenant}/device/{device}/{type}, v3/"), "{error}");
    let error = templates.read("v3/app/devices/d/up").unwrap_err().to_string();
    assert_eq!(error, "the topic is not of the form v3/{a}@{b}/devices/{device}/up");
}

#[test]
fn two_templates_of_one_topic_are_refused_with_the_topic() {
    for (first, second, common) in [
        ("a/{x}", "{y}/b", "a/b"),
        ("a/b", "a/b", "a/b"),
        ("a/{x}/#", "a/{x}", "a/x"),
        ("a/#", "a/b/{c}/d", "a/b/x/d"),
        ("a/#", "a/b/#", "a/b"),
        ("{x}@{y}/b", "a/{z}", "a/b"),
    ] {
        let error = templates(&[first, second]).unwrap_err();
        let expected = TopicTemplatesError::Overlap { index: 1, first: first.into(), topic: common.into() };
        assert_eq!(error, expected, "{first} {second}");
        assert!(templates(&[second, first]).is_err());
    }
    for (first, second) in [("a/{x}", "b/{x}"), ("a/{x}", "a/{x}/{y}"), ("$a/b", "{x}/b"), ("a/b/#", "a")] {
        assert!(templates(&[first, second]).is_ok(), "{first} {second}");
    }
    let many: Vec<String> = (0..=TOPIC_TEMPLATES_MAX).map(|number| format!("t{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(templates(&many).unwrap_err(), TopicTemplatesError::TooMany);
    let most = templates(&many[1..]).unwrap();
    assert_eq!(chosen(&most, &format!("t{TOPIC_TEMPLATES_MAX}")), Some(TOPIC_TEMPLATES_MAX as u8 - 1));
}

/// The matching of the standard (MQTT 3.1.1 section 4.7), level by level.
fn filter_matches(filter: &str, topic: &str) -> bool {
    let (mut levels, mut parts) = (filter.split('/'), topic.split('/'));
    if topic.starts_with('$') && filter.starts_with('+') {
        return false;
    }
    loop {
        match (levels.next(), parts.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(part)) if level == part => {}
            _ => return false,
        }
    }
}

/// Every topic of one to four levels of these texts.
fn all_topics() -> Vec<String> {
    const LEVELS: [&str; 4] = ["a", "b", "x", "$s"];
    let mut all: Vec<String> = Vec::new();
    let mut longest: Vec<String> = LEVELS.iter().map(|level| (*level).to_owned()).collect();
    for _ in 0..4 {
        all.extend(longest.iter().cloned());
        longest = longest
            .iter()
            .flat_map(|topic| LEVELS.iter().map(move |level| format!("{topic}/{level}")))
            .collect();
    }
    all
}

fn any_template() -> impl Strategy<Value = String> {
    let level = prop_oneof![Just("a"), Just("b"), Just("$s"), Just("+"), Just("+")];
    (prop::collection::vec(level, 1..4), any::<bool>())
        .prop_map(|(levels, open)| levels.join("/") + if open { "/#" } else { "" })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_table_chooses_as_the_filters_of_a_broker_do(texts in prop::collection::vec(any_template(), 1..6)) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let topics = all_topics();
        let of = |topic: &str| -> Vec<usize> {
            (0..texts.len()).filter(|index| filter_matches(texts[*index], topic)).collect()
        };
        match templates(&texts) {
            Ok(templates) => {
                for topic in &topics {
                    let matching = of(topic);
                    prop_assert!(matching.len() <= 1, "{texts:?} {topic}");
                    let index = matching.first().map(|index| *index as u8);
                    prop_assert_eq!(chosen(&templates, topic), index, "{:?} {}", &texts, topic);
                    prop_assert_eq!(templates.read_delivered(topic).is_ok(), index.is_some());
                }
            }
            Err(TopicTemplatesError::Overlap { index, topic, first }) => {
                prop_assert!(filter_matches(texts[index], &topic) && filter_matches(&first, &topic));
                prop_assert!(texts[..index].contains(&first.as_str()));
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
