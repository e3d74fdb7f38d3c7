//! The line of a case with what came out as expected, for `tidegate test --bless`.

use anyhow::Context;
use serde_json::{Value, json};
use tidegate_json::Reader;

use crate::core::reason::Reason;
use crate::explain::verdict::ExplainVerdict;

/// The line with this verdict as its `expect`. Every other part of it stays as it is written.
///
/// # Errors
/// The line is no JSON object.
pub fn blessed(line: &str, verdict: &ExplainVerdict) -> anyhow::Result<String> {
    let expect = expectation(verdict).to_string();
    let mut reader = Reader::new(line.as_bytes());
    reader.object().context("a case is a JSON object")?;
    let (mut place, mut last_end) = (None, None);
    while let Some(key) = reader.next_key()? {
        reader.peek()?;
        let start = reader.position();
        reader.skip_value()?;
        last_end = Some(reader.position());
        if key.is("expect") {
            place = Some(start..reader.position());
        }
    }
    reader.end()?;
    Ok(match (place, last_end) {
        (Some(place), _) => format!("{}{expect}{}", &line[..place.start], &line[place.end..]),
        (None, Some(end)) => format!("{}, \"expect\": {expect}{}", &line[..end], &line[end..]),
        (None, None) => anyhow::bail!("a case has a name, a topic and a payload"),
    })
}

/// The expectation of a case for which this verdict is right.
pub fn expectation(verdict: &ExplainVerdict) -> Value {
    expectation_of(verdict.reason, verdict.detail.as_deref(), &verdict.lines)
}

/// The expectation of a case that ends so: with lines, or refused with a reason and its detail.
pub fn expectation_of(reason: Option<Reason>, detail: Option<&str>, lines: &[String]) -> Value {
    match (reason, detail) {
        // The detail begins with the decoder's own code.
        (Some(Reason::GuestRefused), Some(detail)) => {
            json!({"refusal": detail.split([':', ' ']).next().unwrap_or_default()})
        }
        (Some(reason), _) => json!({"refusal": reason.code()}),
        (None, _) => json!({"lines": lines}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::verdict::ExplainOutcome;

    fn verdict(reason: Option<Reason>, detail: Option<&str>, lines: &[&str]) -> ExplainVerdict {
        ExplainVerdict {
            outcome: if reason.is_some() { ExplainOutcome::Quarantined } else { ExplainOutcome::Lines },
            reason,
            detail: detail.map(str::to_owned),
            admitted: true,
            tenant: None,
            device: None,
            database: None,
            guest: None,
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            ignored: Vec::new(),
            decoder_payload: None,
            cpu: std::time::Duration::ZERO,
        }
    }

    #[test]
    fn only_the_expectation_of_a_line_is_written_anew() {
        let lines = verdict(None, None, &["m f=1 1", "m s=\"x\" 2"]);
        assert_eq!(
            blessed(r#"{"name":"a",  "expect" : {"lines": []} , "topic":"é"}"#, &lines).unwrap(),
            r#"{"name":"a",  "expect" : {"lines":["m f=1 1","m s=\"x\" 2"]} , "topic":"é"}"#
        );
        let refused = verdict(Some(Reason::GuestRefused), Some("BAD_SEQ: seq is \"x\""), &[]);
        assert_eq!(
            blessed(r#"{"name": "a"}"#, &refused).unwrap(),
            r#"{"name": "a", "expect": {"refusal":"BAD_SEQ"}}"#
        );
        let trapped = verdict(Some(Reason::GuestTrap), Some("unreachable"), &[]);
        assert_eq!(expectation(&trapped), json!({"refusal": "GUEST_TRAP"}));
        for bad in ["", "[]", "{}", "{} {}"] {
            assert!(blessed(bad, &lines).is_err(), "{bad}");
        }
    }
}
