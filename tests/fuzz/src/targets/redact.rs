//! Credentials of a payload, in texts about it: nothing of them is left, the text is at most a kibibyte, and
//! the cost is linear in what is read.

use serde_json::Value;

use tidegate_core::detail::{Detail, is_unsafe_to_show};
use tidegate_core::limits::REFUSAL_DETAIL_BYTES_MAX;
use tidegate_core::redact::{redact_detail, redact_payload};

use crate::choices::Choices;

/// Bytes that identify a secret by its beginning.
const BEGINNING_BYTES: usize = 6;

/// Steps of the maskers for each byte of payload and text, and beside that.
#[cfg(fuzzing)]
const STEPS_A_BYTE_MAX: usize = 16;

/// The credentials in a JSON value that are texts.
fn secrets(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(text) if is_secret(key) => found.push(text.clone()),
                    other => secrets(other, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| secrets(value, found)),
        _ => {}
    }
}

fn is_secret(key: &str) -> bool {
    key.trim().eq_ignore_ascii_case("provision_token")
}

/// Too short ones are masked behind their key only. The marks of masking, and what is written for characters
/// that steer a terminal, come into a text by themselves.
fn is_looked_for(secret: &str) -> bool {
    let is_word = matches!(secret, "null" | "true" | "false");
    let is_mark = secret.contains(['*', '…']) || secret.contains("\\u") || secret.contains(is_unsafe_to_show);
    secret.len() >= 4 && !is_word && !is_mark
}

/// A text that quotes a secret or its payload.
fn quotation(form: u8, secret: &str, payload: &str) -> String {
    match form % 6 {
        0 => secret.to_owned(),
        1 => format!("{secret:?}"),
        2 => Value::from(secret).to_string(),
        3 => payload.to_owned(),
        4 => format!("{payload:?}"),
        _ => format!("{:?}", format!("{payload:?}")),
    }
}

/// Runs the maskers, and holds their cost to a bound where steps are counted.
fn bounded<T>(_bytes: usize, work: impl FnOnce() -> T) -> T {
    #[cfg(fuzzing)]
    tidegate_core::redact::steps::TAKEN.with(|taken| taken.set(0));
    let result = work();
    #[cfg(fuzzing)]
    {
        let taken = tidegate_core::redact::steps::TAKEN.with(std::cell::Cell::get);
        assert!(taken <= STEPS_A_BYTE_MAX * (_bytes + 1), "{taken} steps for {_bytes} bytes");
    }
    result
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (form, repeat) = (choices.u8(), usize::from(choices.u8()));
    let (prefix, suffix) = (choices.part(), choices.part());
    let payload = choices.rest;
    let (prefix, suffix) = (String::from_utf8_lossy(prefix), String::from_utf8_lossy(suffix));
    let shown = String::from_utf8_lossy(payload);

    let masked = bounded(shown.len(), || redact_payload(&shown).into_owned());
    let parsed = serde_json::from_slice::<Value>(payload).ok();
    let mut found = Vec::new();
    if let Some(value) = &parsed {
        secrets(value, &mut found);
        check_payload(value, &masked);
    }
    let text = quotation(form, found.first().map_or("none", |secret| secret), &shown);
    let text = format!("{}{text}{suffix}", prefix.repeat(repeat));
    let _ = bounded(payload.len() + text.len(), || redact_detail(payload, text.clone()));
    let detail = bounded(payload.len() + text.len(), || Detail::redacted(&text, payload));
    assert!(detail.len() <= REFUSAL_DETAIL_BYTES_MAX, "{} bytes", detail.len());
    assert!(!detail.contains(is_unsafe_to_show), "{detail:?}");
    for secret in found.iter().filter(|secret| is_looked_for(secret)) {
        let beginning = &secret[..secret.ceil_char_boundary(BEGINNING_BYTES)];
        assert!(!detail.contains(beginning), "{secret:?} of {shown:?} in {detail:?} for {text:?}");
    }
}

/// Checks that no credential of a payload is left in the text that people see.
fn check_payload(value: &Value, masked: &str) {
    let mut left = Vec::new();
    let has_others = others(value);
    match serde_json::from_str::<Value>(masked) {
        Ok(masked) => secrets(&masked, &mut left),
        // What stands behind such a value goes with it.
        Err(error) => assert!(has_others, "{value} became {masked:?}: {error}"),
    }
    assert!(left.iter().all(|secret| secret == "***"), "{value} became {masked:?}");
}

/// True if a credential is a list or an object.
fn others(value: &Value) -> bool {
    match value {
        Value::Object(members) => members
            .iter()
            .any(|(key, value)| is_secret(key) && (value.is_object() || value.is_array()) || others(value)),
        Value::Array(values) => values.iter().any(others),
        _ => false,
    }
}
