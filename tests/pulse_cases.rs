//! Every case of the Python service's verdicts, through `tidegate explain --jsonl`: the real
//! admission, the real component, the real line check.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::gateway::GatewayDir;

const CASES: &str = include_str!("cases/pulse-public.jsonl");

/// The settings of a case that the configuration can hold.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Settings {
    payload_bytes_max: i64,
    require_token: bool,
}

/// Python's `int()`, as the service reads its settings table: blanks and underscores are fine.
fn python_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let well_formed = !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
    well_formed.then(|| text.replace('_', "").parse().ok()).flatten()
}

fn settings(case: &Value) -> Settings {
    let of = |key: &str| case["settings"][key].as_str();
    Settings {
        payload_bytes_max: of("MAX_PAYLOAD_BYTES")
            .map_or(8192, |text| python_int(text).unwrap_or(8192))
            .max(0),
        require_token: of("REQUIRE_TOKEN").is_none_or(|text| text == "1"),
    }
}

fn judge(scene: &GatewayDir, settings: &Settings, cases: &[&Value]) -> Vec<Value> {
    scene.configure(&format!(
        "[output]\nkind = \"influxdb3\"\n[registry]\nrequire_token = {}\n[admission]\npayload_bytes_max = {}\n",
        settings.require_token, settings.payload_bytes_max
    ));
    let input: String = cases
        .iter()
        .map(|case| {
            let mut question = json!({
                "id": case["id"], "topic": case["topic"], "received_at": case["received_at"],
                "registry_row": case["device"],
            });
            for key in ["payload", "payload_base64"] {
                if !case[key].is_null() {
                    question[key] = case[key].clone();
                }
            }
            format!("{question}\n")
        })
        .collect();
    let (status, output, errors) = scene.verb(&["explain", "--jsonl"], &input);
    assert!(status.code().is_some_and(|code| code < 2), "{status}: {errors}");
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Its exact time lies 192 ns before the first that 64 bits hold, where the recording's float did
/// not see it: no database takes the line that is expected, and the policy refuses such a time.
const BEYOND_64_BITS: &str = "timestamps-0389";

#[test]
fn every_case_gives_the_verdict_and_the_very_bytes_that_are_expected() {
    let cases: Vec<Value> = CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut groups: BTreeMap<Settings, Vec<&Value>> = BTreeMap::new();
    for case in &cases {
        // `needs` marks what no single message can show: the rate limit, which explain leaves out.
        if case["needs"].is_null() {
            groups.entry(settings(case)).or_default().push(case);
        }
    }
    let scene = GatewayDir::new();
    let mut wrong = Vec::new();
    let mut judged = 0;
    for (settings, cases) in &groups {
        let verdicts = judge(&scene, settings, cases);
        assert_eq!(verdicts.len(), cases.len(), "one verdict for each case");
        for (case, verdict) in cases.iter().zip(&verdicts) {
            judged += 1;
            assert_eq!(case["id"], verdict["id"], "verdicts come in order");
            if case["id"] == BEYOND_64_BITS {
                assert_eq!(verdict["reason"], "GUEST_REFUSED", "{verdict}");
                continue;
            }
            let expected = &case["expect"];
            let differs = |key: &str| !expected[key].is_null() && expected[key] != verdict[key];
            if ["outcome", "reason", "database", "lines"].into_iter().any(differs) {
                wrong.push(format!("{}\n  expected {expected}\n  got      {verdict}", case["id"]));
            }
            for line in verdict["lines"].as_array().unwrap() {
                assert!(!line.as_str().unwrap().contains('\n'), "{}: two lines in one", case["id"]);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {judged} cases differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(judged > 600, "only {judged} cases were judged");
}
