//! A case made of a message of the tap: its payload, and what came out of it.

use serde_json::{Map, Value};

use crate::core::reason::{Reason, RefusalStage};
use crate::explain::bless::expectation_of;

/// The reason for which a message gives no case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoCase {
    /// It waits for something, or comes again.
    Unsettled,
    /// It was refused before a decoder could see it: a case brings a device of its own.
    Admission,
    /// The tap keeps only the beginning of its payload.
    Cut,
}

impl NoCase {
    /// The end of a sentence that begins with a number of messages.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Unsettled => "had no outcome yet",
            Self::Admission => "were refused before a decoder saw them",
            Self::Cut => "are longer than the gateway keeps for viewers",
        }
    }
}

/// A case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TappedCase {
    /// Its line in a file of cases, without the line end.
    pub line: String,
    /// False if it is not known what came out: of no decoder, or only a part of the lines.
    pub has_expectation: bool,
}

impl TappedCase {
    /// Makes a case of an answer of `/api/v1/tap/{id}`.
    ///
    /// # Errors
    /// The message gives none.
    pub fn of(tapped: &Value) -> Result<Self, NoCase> {
        let text = |key: &str| tapped[key].as_str();
        if text("outcome") == Some("unsettled") {
            return Err(NoCase::Unsettled);
        }
        let reason = text("reason").map(Reason::from_code);
        if reason.flatten().is_some_and(|reason| reason.stage() == RefusalStage::Admission) {
            return Err(NoCase::Admission);
        }
        if tapped["truncated"] == true {
            return Err(NoCase::Cut);
        }
        let (topic, received_at) =
            (text("topic").unwrap_or_default(), text("received_at").unwrap_or_default());
        let mut case = Map::new();
        case.insert("name".into(), format!("{topic} at {received_at}").into());
        case.insert("topic".into(), topic.into());
        for key in ["payload", "payload_base64"] {
            if let Some(payload) = text(key) {
                case.insert(key.into(), payload.into());
            }
        }
        case.insert("received_at".into(), received_at.into());
        if let Some(site) = text("site").filter(|site| !site.is_empty()) {
            case.insert("site".into(), site.into());
        }
        let lines: Vec<String> = tapped["lines"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|line| line.as_str().map(str::to_owned))
            .collect();
        let is_known = match reason {
            None => tapped["line_count"].as_u64() == Some(lines.len() as u64),
            // Where there was no decoder, one is about to be written.
            Some(reason) => reason.is_some_and(|reason| reason != Reason::NoGuest),
        };
        if is_known {
            case.insert("expect".into(), expectation_of(reason.flatten(), text("detail"), &lines));
        }
        Ok(Self { line: Value::Object(case).to_string(), has_expectation: is_known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tapped() -> Value {
        json!({
            "topic": "t/acme/d", "received_at": "2026-12-01T11:50:01.123456789Z", "outcome": "lines", "reason": null,
            "detail": null, "lines": ["m v=1 1"], "line_count": 1, "payload": "{\"v\":1}", "payload_base64": null,
            "truncated": false, "site": "lab",
        })
    }

    fn with(changes: Value) -> Result<TappedCase, NoCase> {
        let mut tapped = tapped();
        tapped.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        TappedCase::of(&tapped)
    }

    #[test]
    fn a_message_with_all_of_its_lines_becomes_a_case_that_expects_them() {
        let case = with(json!({})).unwrap();
        assert_eq!(
            case.line,
            r#"{"name":"t/acme/d at 2026-12-01T11:50:01.123456789Z","topic":"t/acme/d","payload":"{\"v\":1}","received_at":"2026-12-01T11:50:01.123456789Z","site":"lab","expect":{"lines":["m v=1 1"]}}"#
        );
        let bytes = with(json!({"payload": null, "payload_base64": "AQ==", "site": null})).unwrap();
        assert!(bytes.line.contains(r#""payload_base64":"AQ==","received_at""#), "{}", bytes.line);
        assert!(!bytes.line.contains("site"), "{}", bytes.line);
        assert!(
            !with(json!({"line_count": 2})).unwrap().has_expectation,
            "a part of the lines is no expectation"
        );
    }

    #[test]
    fn a_refusal_by_a_decoder_is_expected_and_one_before_it_is_no_case() {
        let refused = |reason: &str, detail: &str| {
            with(
                json!({"outcome": "quarantined", "reason": reason, "detail": detail, "lines": [], "line_count": 0}),
            )
        };
        assert!(
            refused("GUEST_REFUSED", "BAD_SEQ: seq")
                .unwrap()
                .line
                .ends_with(r#""expect":{"refusal":"BAD_SEQ"}}"#)
        );
        assert!(refused("GUEST_TRAP", "x").unwrap().line.ends_with(r#""expect":{"refusal":"GUEST_TRAP"}}"#));
        assert!(!refused("NO_GUEST", "no decoder").unwrap().has_expectation);
        assert_eq!(refused("TOKEN_INVALID", "x"), Err(NoCase::Admission));
        assert_eq!(with(json!({"outcome": "unsettled"})), Err(NoCase::Unsettled));
        assert_eq!(with(json!({"truncated": true})), Err(NoCase::Cut));
    }
}
