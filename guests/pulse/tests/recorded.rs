//! The recorded verdicts of the Python service: the bytes of every line that a guest's answer
//! leads to.

use base64::Engine as _;
use pulse::Pulse;
use serde_json::Value;
use tidegate_guest::testing::{self, Context};
use tidegate_guest::{Refusal, Route};

const CASES: &str = include_str!("../../../tests/cases/pulse-public.jsonl");

/// The time of an RFC 3339 text.
fn received_ns(text: &str) -> i64 {
    tidegate_guest::time::parse_iso8601(text.as_bytes()).unwrap()
}

fn escape(value: &str) -> String {
    value
        .chars()
        .flat_map(|c| matches!(c, '\\' | ',' | '=' | ' ').then_some('\\').into_iter().chain([c]))
        .collect()
}

fn answer(case: &Value) -> Result<String, Refusal> {
    let parts: Vec<&str> = case["topic"].as_str().unwrap().split('/').collect();
    let route = Route { tenant: parts[1].into(), message_type: parts[4].into(), options: Vec::new() };
    let payload = match case["payload"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => base64::engine::general_purpose::STANDARD
            .decode(case["payload_base64"].as_str().unwrap())
            .unwrap(),
    };
    let received = received_ns(case["received_at"].as_str().unwrap());
    let line = testing::decode_with::<Pulse>(&route, &payload, received, &Context::default())?;
    // What the gateway adds: device and site behind the measurement.
    let (measurement, rest) = line.trim_end().split_once(' ').unwrap();
    let site = case["device"]["site_id"].as_str().unwrap();
    let site = if site.is_empty() { String::new() } else { format!(",site_id={}", escape(site)) };
    Ok(format!("{measurement},device_id={}{site} {rest}", escape(parts[3])))
}

/// Its exact time lies 192 ns before the first that 64 bits hold, where the recording's float did
/// not see it: no database takes the line that is expected, and the policy refuses such a time.
const BEYOND_64_BITS: &str = "timestamps-0389";

#[test]
fn every_recorded_line_is_written_to_the_byte() {
    let mut compared = 0;
    for case in CASES.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        if case["expect"]["outcome"] != "lines" {
            continue;
        }
        if case["id"] == BEYOND_64_BITS {
            assert_eq!(answer(&case).unwrap_err().code, "BAD_TS");
            continue;
        }
        let line = answer(&case).unwrap_or_else(|refusal| panic!("{case}\n{refusal}"));
        assert_eq!(Value::from(vec![line]), case["expect"]["lines"], "{case}");
        compared += 1;
    }
    assert!(compared > 300, "only {compared}");
}

#[test]
fn what_is_quarantined_for_its_content_is_refused_by_the_guest() {
    let mut refused = 0;
    for case in CASES.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        // A reason of the gateway's own, or an identity that no line can carry, is not the guest's.
        let by_guest = case["expect"]["outcome"] == "quarantined"
            && case["expect"]["reason"].is_null()
            && ["seq", "int_edges", "float_edges", "escapes_field_key"]
                .iter()
                .any(|name| case["category"] == *name);
        if by_guest {
            let refusal = answer(&case).expect_err(&case.to_string());
            assert!(["BAD_SEQ", "BAD_LINE", "BAD_TS", "BAD_METRICS"].contains(&&*refusal.code), "{refusal}");
            refused += 1;
        }
    }
    assert!(refused > 20, "only {refused}");
}

#[test]
fn fixtures() {
    let route = Route { message_type: "telemetry".into(), ..Route::default() };
    testing::fixtures::<Pulse>(&route, concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
}
