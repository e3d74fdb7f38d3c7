//! A payload as admission reads it: the values of an envelope are those that `serde_json` finds.

use serde_json::Value;

use tidegate_admission::envelope::{Envelope, EnvelopeError, EnvelopeValue};
use tidegate_core::topic::TopicTemplate;
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

/// A topic of a template: its parts stand where the template says, and nowhere reach over a level.
fn check_topic(template: &str, topic: &str) {
    let Ok(template) = TopicTemplate::parse(template) else { return };
    let Ok(fields) = template.read(topic) else { return };
    for part in [fields.tenant, fields.device, fields.message_type] {
        let name = &topic[part];
        assert!(name.len() <= 255 && !name.contains('/'), "{topic:?}: {name:?}");
        assert!(!name.contains(char::is_control), "{topic:?}: {name:?}");
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    if choices.u8().is_multiple_of(2) {
        return check_payload(choices.rest);
    }
    let (template, topic) = (choices.part(), choices.rest);
    if let (Ok(template), Ok(topic)) = (std::str::from_utf8(template), std::str::from_utf8(topic)) {
        check_topic(template, topic);
    }
}
