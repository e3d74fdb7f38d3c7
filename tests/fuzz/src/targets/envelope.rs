//! A payload as admission reads it: the values of an envelope are those that `serde_json` finds. And a topic as its
//! template reads it.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate_admission::envelope::{
    Envelope, EnvelopeError, EnvelopeValue, Uplink, UplinkError, read_chirpstack, read_things_stack,
};
use tidegate_core::topic::{EnvelopeKind, TopicRules, TopicTemplate, TopicTemplates};
use tidegate_json::TapeWriter;

use crate::choices::Choices;
use crate::memory::peak_bytes_of;

/// Bytes of memory beside those of values with escapes, which are copied.
const OVERHEAD_BYTES: usize = 4096;

fn check_value(value: &EnvelopeValue<'_>, theirs: Option<&Value>, shown: &str) {
    match (value, theirs) {
        (EnvelopeValue::Missing, None | Some(Value::Null)) => {}
        (EnvelopeValue::Missing, Some(Value::String(text))) => assert!(text.is_empty(), "{shown:?}"),
        (EnvelopeValue::Missing, Some(Value::Number(number))) => {
            // serde_json takes -0 for a float.
            assert_eq!(number.as_f64(), Some(0.0), "{shown:?}");
        }
        (EnvelopeValue::Text(ours), Some(Value::String(text))) => assert_eq!(ours, text, "{shown:?}"),
        (EnvelopeValue::Text(ours), Some(Value::Number(number))) => {
            assert_eq!(**ours, number.as_i64().expect("an integer").to_string(), "{shown:?}");
        }
        (ours, theirs) => panic!("{shown:?}: {ours:?} {theirs:?}"),
    }
}

fn check_payload(payload: &[u8]) {
    let shown = String::from_utf8_lossy(payload);
    let mut tape = TapeWriter::default();
    let (read, peak) = peak_bytes_of(|| Envelope::read(payload, &mut tape));
    assert!(peak <= OVERHEAD_BYTES + 4 * payload.len(), "{peak} bytes of memory for {}", payload.len());
    let theirs = serde_json::from_slice::<Value>(payload);
    match (read, theirs) {
        (Ok(ours), Ok(theirs)) => {
            check_value(&ours.site_id, theirs.get("site_id"), &shown);
            check_value(&ours.tenant_id, theirs.get("tenant_id"), &shown);
            check_value(&ours.provision_token, theirs.get("provision_token"), &shown);
        }
        // Only there a number beyond a float is no error.
        (Ok(_), Err(error)) => assert!(error.to_string().contains("out of range"), "{shown:?}: {error}"),
        (Err(EnvelopeError::Json(error)), Ok(_)) => panic!("{shown:?}: {error}"),
        (Err(EnvelopeError::NotAnObject(_)), Ok(theirs)) => assert!(!theirs.is_object(), "{shown:?}"),
        (Err(EnvelopeError::Type(key, _)), Ok(theirs)) => {
            let value = &theirs[key];
            assert!(!value.is_string() && !value.is_null() && !value.is_i64(), "{shown:?}");
        }
        (Err(error), Err(_)) => assert!(error.to_string().len() < 1024, "{shown:?}"),
    }
}

/// An uplink message of a network server, whose counter is that of `serde_json` at `f_cnt`, and its object that at
/// `object`.
fn check_uplink(
    payload: &[u8],
    read: fn(&[u8]) -> Result<Uplink<'_>, UplinkError>,
    (f_cnt, object): (&str, &str),
) {
    let shown = String::from_utf8_lossy(payload);
    let (read, peak) = peak_bytes_of(|| read(payload));
    // Each text has an entry, and texts with escapes are copied.
    assert!(peak <= 2 * OVERHEAD_BYTES + 8 * payload.len(), "{peak} bytes of memory for {}", payload.len());
    match read {
        Ok(uplink) => {
            let Ok(theirs) = serde_json::from_slice::<Value>(payload) else {
                // Only there a number beyond a float is an error.
                return;
            };
            let count = theirs.pointer(f_cnt).and_then(Value::as_u64).unwrap_or_default();
            assert_eq!(uplink.f_cnt, count, "{shown:?}");
            let ours = uplink.object.map(|place| serde_json::from_slice::<Value>(&payload[place]).unwrap());
            let theirs = theirs.pointer(object).filter(|value| !value.is_null());
            assert_eq!(ours.as_ref(), theirs, "{shown:?}");
        }
        Err(error) => assert!(error.to_string().len() < 1024, "{shown:?}"),
    }
}

/// A topic of templates: its names stand where the template says, and nowhere reach over a level.
fn check_topic(templates: &str, topic: &str) {
    let mut parsed = Vec::new();
    for text in templates.split('\n') {
        let rules = TopicRules {
            template: text,
            tenant: if text.contains("{tenant}") { "{tenant}" } else { "t" },
            device: if text.contains("{device}") { "{device}" } else { "d" },
            message_type: if text.contains("{type}") { "{type}" } else { "m" },
            site: "",
            tenants: &BTreeMap::new(),
            envelope: EnvelopeKind::None,
            qos: 1,
        };
        parsed.extend(TopicTemplate::new(&rules));
    }
    let alone = TopicTemplate::parse(templates).ok();
    for template in alone.iter().chain(&parsed) {
        let Ok(fields) = template.read(topic) else { continue };
        for name in [&fields.tenant, &fields.device, &fields.message_type] {
            let name = name.of(topic);
            assert!(name.len() <= 255 && !name.contains('/'), "{topic:?}: {name:?}");
            assert!(!name.contains(char::is_control), "{topic:?}: {name:?}");
        }
        assert_eq!(template.matches(topic), Some(fields));
        assert!(template.other_captures(topic).all(|(_, value)| topic.contains(value)));
    }
    let matching: Vec<_> =
        parsed.iter().enumerate().filter(|(_, template)| template.read_delivered(topic).is_ok()).collect();
    let count = matching.len();
    let first = matching.first().map(|(index, _)| *index as u8);
    if let Ok(templates) = TopicTemplates::new(parsed.clone()) {
        assert!(count <= 1, "{topic:?} matches {count} templates");
        let chosen = templates.read_delivered(topic).ok().map(|fields| fields.template);
        assert_eq!(chosen, first, "{topic:?}");
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.u8() % 4 {
        0 => return check_payload(choices.rest),
        2 => {
            let places = ("/uplink_message/f_cnt", "/uplink_message/decoded_payload");
            return check_uplink(choices.rest, read_things_stack, places);
        }
        3 => return check_uplink(choices.rest, read_chirpstack, ("/fCnt", "/object")),
        _ => {}
    }
    let (template, topic) = (choices.part(), choices.rest);
    if let (Ok(template), Ok(topic)) = (std::str::from_utf8(template), std::str::from_utf8(topic)) {
        check_topic(template, topic);
    }
}
