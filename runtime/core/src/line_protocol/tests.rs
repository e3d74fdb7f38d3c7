//! The case files, line by line and body by body, and a second parser's opinion.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;
use serde_json::Value;

use crate::limits::{CHECKED_BYTES_A_MESSAGE_MAX, LINES_A_MESSAGE_MAX};
use crate::line_protocol::fault::{Dialect, LineFault, LineFaultKind};
use crate::line_protocol::{LineChecker, LineContext};
use crate::reason::Reason;

const LINES: &str = include_str!("../../../../tests/cases/lineproto-public.jsonl");

const BODIES: &str = include_str!("../../../../tests/cases/lineproto-bodies.jsonl");

fn stamp(dialect: Dialect) -> LineContext<'static> {
    LineContext { identity_tags: b",device_id=d", received_ns: 42, dialect, rules: None }
}

fn check(text: &[u8], dialect: Dialect) -> Result<(u32, Vec<u8>), LineFault> {
    let mut out = b"before".to_vec();
    let count = LineChecker::default().check(text, stamp(dialect), &mut out);
    match count {
        Ok(count) => Ok((count, out[6..].to_vec())),
        Err(fault) => {
            assert_eq!(out, b"before", "a refused message leaves nothing behind");
            Err(fault)
        }
    }
}

#[test]
fn every_line_of_the_case_file_gets_the_recommended_verdict() {
    let mut seen: HashMap<String, u32> = HashMap::new();
    for case in LINES.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let (id, wanted) = (&case["id"], case["recommended"].as_str().unwrap());
        let line = BASE64.decode(case["line_base64"].as_str().unwrap()).unwrap();
        let (v3, older) = (check(&line, Dialect::V3), check(&line, Dialect::V1V2));
        let why = format!(
            "{id} {:?}: {} v3 {v3:?}",
            String::from_utf8_lossy(&line[..line.len().min(80)]),
            case["why"]
        );
        match wanted {
            "send" | "trim_then_send" => {
                assert_eq!(v3.as_ref().unwrap_or_else(|_| panic!("{why}")).0, 1, "{why}");
                assert_eq!(older.unwrap_or_else(|fault| panic!("{why} older: {fault}")).0, 1, "{why}");
            }
            "send_to_v3_only" => {
                assert_eq!(v3.as_ref().unwrap_or_else(|_| panic!("{why}")).0, 1, "{why}");
                assert!(older.is_err(), "{why}");
            }
            "skip" => assert_eq!((v3.unwrap().0, older.unwrap().0), (0, 0)),
            "reject_line" => assert!(v3.is_err() && older.is_err(), "{why}"),
            other => panic!("{id}: the verdict {other:?} is new"),
        }
        *seen.entry(wanted.to_owned()).or_default() += 1;
    }
    assert!(seen["send"] > 100 && seen["reject_line"] > 100, "{seen:?}");
}

/// Each body, and what is right for it: the lines that it holds, or none when one of them could
/// swallow a neighbour.
#[test]
fn a_body_is_taken_only_when_every_database_reads_our_lines_in_it() {
    // Comments, blank lines and trailing spaces are dropped before anything is sent, so a quote or
    // a backslash in a comment harms nobody.
    let taken = HashMap::from([
        ("backslash_eol_in_comment", 3),
        ("quote_in_comment", 3),
        ("quote_in_tag_value", 3),
        ("crlf", 3),
        ("no_trailing_newline", 2),
        ("trailing_newlines", 2),
        ("space_only_line", 2),
        ("tab_line", 3),
        ("dup_identity", 2),
        // Types are the database's to judge: it refuses that line alone.
        ("type_conflict_in_body", 3),
    ]);
    let mut bodies = 0;
    for case in BODIES.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let id = case["id"].as_str().unwrap();
        let body = BASE64.decode(case["body_base64"].as_str().unwrap()).unwrap();
        let verdict = check(&body, Dialect::V3);
        match taken.get(id) {
            Some(&lines) => {
                let (count, out) = verdict.unwrap_or_else(|fault| panic!("{id}: {fault}"));
                assert_eq!(count, lines, "{id}");
                let parsed: Vec<_> =
                    influxdb_line_protocol::parse_lines(std::str::from_utf8(&out).unwrap()).collect();
                assert_eq!(parsed.len(), lines as usize, "{id}");
                assert!(parsed.iter().all(Result::is_ok), "{id}");
            }
            None => assert!(verdict.is_err(), "{id} should be refused: {verdict:?}"),
        }
        bodies += 1;
    }
    assert_eq!(bodies, 21);
}

#[test]
fn identity_goes_behind_the_measurement_and_a_missing_time_is_the_messages() {
    let (count, out) = check(b"m,t=a f=1 7\r\n\n# note\n  cpu v=2i  ", Dialect::V3).unwrap();
    assert_eq!(count, 2);
    assert_eq!(out, b"m,device_id=d,t=a f=1 7\ncpu,device_id=d v=2i 42\n");
}

#[test]
fn a_line_that_brings_its_own_identity_is_refused_however_it_is_written() {
    for line in
        ["m,device_id=x f=1", "m,site_id=x f=1", "m device_id=1", r"m site_id=1i", "m,a=b,device_id=x f=1"]
    {
        let fault = check(line.as_bytes(), Dialect::V3).unwrap_err();
        assert_eq!(fault.kind.reason(), Reason::IdentityInLine, "{line}: {fault}");
    }
}

#[test]
fn a_fault_names_its_line_and_its_byte() {
    let fault = check(b"a f=1\n\nb f=oops\nc f=1", Dialect::V3).unwrap_err();
    assert_eq!((fault.kind, fault.line, fault.byte), (LineFaultKind::BadValue, 3, 5));
    assert!(fault.to_string().contains("b f=oops"), "{fault}");
}

#[test]
fn the_rest_can_be_kept() {
    let (mut out, mut faults) = (Vec::new(), Vec::new());
    let text = b"a f=1\nb f=oops\nc f=2";
    let count =
        LineChecker::default().check_keeping_rest(text, stamp(Dialect::V3), &mut out, &mut faults).unwrap();
    assert_eq!((count, faults.len(), faults[0].line), (2, 1, 2));
    assert_eq!(out, b"a,device_id=d f=1 42\nc,device_id=d f=2 42\n");
}

#[test]
fn duplicates_are_found_among_few_and_among_many_keys() {
    let line = |keys: usize, twice: &str| {
        let fields: Vec<String> = (0..keys).map(|n| format!("field{n}=1")).collect();
        format!("m {},{twice}=2", fields.join(","))
    };
    for keys in [2, 23, 24, 25, 900] {
        let fault = check(line(keys, "field1").as_bytes(), Dialect::V3).unwrap_err();
        assert_eq!(fault.kind, LineFaultKind::DuplicateKey, "{keys}");
        check(line(keys, "other").as_bytes(), Dialect::V3).unwrap();
    }
    assert_eq!(check(br"m a\\b=1,a\b=2", Dialect::V3).unwrap_err().kind, LineFaultKind::DuplicateKey);
}

#[test]
fn keys_that_are_chosen_to_look_alike_cost_no_more_than_others() {
    // The same first eight bytes, the same last eight, the same length: 40,000 of them.
    let fields: Vec<String> = (0..40_000).map(|n| format!("aaaaaaaa{n:05}bbbbbbbb=1")).collect();
    let line = format!("m {}", fields.join(","));
    let began = std::time::Instant::now();
    assert_eq!(check(line.as_bytes(), Dialect::V3).unwrap().0, 1);
    let alike = began.elapsed();
    let fields: Vec<String> = (0..40_000).map(|n| format!("{n:05}aaaaaaaabbbbbbb{}=1", n % 10)).collect();
    let line = format!("m {}", fields.join(","));
    let began = std::time::Instant::now();
    check(line.as_bytes(), Dialect::V3).unwrap();
    // Comparing each with each would be a thousand times as much.
    assert!(alike < began.elapsed() * 50 + std::time::Duration::from_millis(200), "{alike:?}");
}

#[test]
fn what_stands_in_an_open_string_never_becomes_a_line() {
    let (mut out, mut faults) = (Vec::new(), Vec::new());
    let text = b"a f=1\nm f=\"x\ntelemetry v=999 1\n\",g=oops\nb f=2";
    let count =
        LineChecker::default().check_keeping_rest(text, stamp(Dialect::V3), &mut out, &mut faults).unwrap();
    assert_eq!((count, faults.len()), (2, 1));
    assert_eq!(out, b"a,device_id=d f=1 42\nb,device_id=d f=2 42\n");
}

#[test]
fn what_only_older_databases_refuse_is_refused_for_them_alone() {
    let long = format!("m,t={},u={} f=1", "x".repeat(40_000), "y".repeat(40_000));
    for line in ["m,_field=a f=1", "m,_measurement=a f=1", &long] {
        assert!(check(line.as_bytes(), Dialect::V3).is_ok());
        assert!(check(line.as_bytes(), Dialect::V1V2).is_err());
    }
    assert!(check(b"m _field=1", Dialect::V1V2).is_ok());
}

#[test]
fn a_message_of_too_many_lines_is_refused() {
    let text = "m f=1\n".repeat(LINES_A_MESSAGE_MAX as usize);
    assert_eq!(check(text.as_bytes(), Dialect::V3).unwrap().0, LINES_A_MESSAGE_MAX);
    assert_eq!(
        check((text + "m f=1").as_bytes(), Dialect::V3).unwrap_err().kind,
        LineFaultKind::TooManyLines
    );
}

#[test]
fn what_the_gateway_adds_makes_no_message_larger_than_the_limit() {
    // 6 kB become 60 MB with the longest site, and the check ends long before that.
    let site = ",site_id=".to_owned() + &"s".repeat(60_000);
    let stamp =
        LineContext { identity_tags: site.as_bytes(), received_ns: 1, dialect: Dialect::V3, rules: None };
    let text = "m f=1\n".repeat(LINES_A_MESSAGE_MAX as usize);
    for keep_rest in [false, true] {
        let mut out = Vec::new();
        let fault = match keep_rest {
            false => LineChecker::default().check(text.as_bytes(), stamp, &mut out),
            true => {
                LineChecker::default().check_keeping_rest(text.as_bytes(), stamp, &mut out, &mut Vec::new())
            }
        };
        let fault = fault.unwrap_err();
        assert_eq!((fault.kind, fault.kind.reason()), (LineFaultKind::TooManyBytes, Reason::GuestOutput));
        assert!(fault.to_string().contains("1,310,720 bytes") && out.is_empty());
        assert!(out.capacity() < 4 * CHECKED_BYTES_A_MESSAGE_MAX, "{} bytes", out.capacity());
    }
    assert_eq!(CHECKED_BYTES_A_MESSAGE_MAX, 1_310_720);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Whatever is accepted, another parser reads as exactly as many lines, each of them whole.
    #[test]
    fn a_second_parser_reads_what_is_accepted_as_the_same_lines(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("m"), Just("a"), Just("time"), Just(","), Just("="), Just(" "), Just("\\"), Just("\""),
                Just("\n"), Just("\r"), Just("\t"), Just("1"), Just("1i"), Just("-"), Just("1e5"), Just("."),
                Just("t"), Just("#"), Just(",k=v"), Just(" f=1"), Just(" g=\"s\""), Just("é"), Just("m,t=a f=1 1\n"),
            ],
            0..24,
        ),
    ) {
        let text = pieces.concat();
        if let Ok((count, out)) = check(text.as_bytes(), Dialect::V3) {
            let out = std::str::from_utf8(&out).unwrap();
            let parsed: Vec<_> = influxdb_line_protocol::parse_lines(out).collect();
            prop_assert_eq!(parsed.len(), count as usize, "{:?} became {:?}", text, out);
            for line in parsed {
                prop_assert!(line.is_ok(), "{:?} became {:?}: {:?}", text, out, line);
            }
        }
    }
}

#[test]
fn lines_of_one_series_without_a_time_get_times_of_their_own() {
    let times = |text: &str| -> Vec<i64> {
        let (_, lines) = check(text.as_bytes(), Dialect::V3).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        lines.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    };
    assert_eq!(times("m v=1\nm v=2\nm v=3"), [42, 43, 44]);
    // Other series keep the time of the message; so does a line that has one.
    assert_eq!(times("m v=1\nn v=2\nm,t=a v=3\nm v=4\nm v=5 7\nn v=6\nm v=7"), [42, 42, 42, 43, 7, 43, 44]);
    // The order of tags, and what is between tags and fields, make no other series.
    assert_eq!(times("m,a=1,b=2 v=1\nm,b=2,a=1  v=2\nm,a=2,b=1 v=3"), [42, 43, 42]);
    // A comma that is escaped is part of a value.
    assert_eq!(times("m,a=x\\,b\\=2 v=1\nm,a=x,b=2 v=1\nm,a=x\\,b\\=2 v=1"), [42, 42, 43]);
    let many = "m v=1\n".repeat(1000);
    assert_eq!(times(&many), (42..1042).collect::<Vec<_>>());
}

#[test]
fn a_message_begins_at_its_own_time_whatever_came_before_it() {
    let mut checker = LineChecker::default();
    let mut out = Vec::new();
    checker.check(b"m v=1\nm v=2", stamp(Dialect::V3), &mut out).unwrap();
    checker.check(b"m v=1\nm v=", stamp(Dialect::V3), &mut out).unwrap_err();
    checker.check(b"m v=3", stamp(Dialect::V3), &mut out).unwrap();
    let lines = String::from_utf8(out).unwrap();
    assert_eq!(lines, "m,device_id=d v=1 42\nm,device_id=d v=2 43\nm,device_id=d v=3 42\n");
}

#[test]
fn the_gap_between_two_messages_holds_the_lines_of_one() {
    assert!(crate::limits::RECEIVE_STAMP_GAP_NS >= i64::from(LINES_A_MESSAGE_MAX));
}

#[test]
fn blank_is_blank_with_either_end_of_line() {
    for text in
        ["a f=1i 5\r\n\r\nb f=1i 5\r\n", "a f=1i 5\n\nb f=1i 5\n", "\r\na f=1i 5\r\n \r\nb f=1i 5\r\n"]
    {
        let (count, lines) = check(text.as_bytes(), Dialect::V1V2).unwrap();
        assert_eq!(count, 2, "{text:?}");
        assert_eq!(lines, b"a,device_id=d f=1i 5\nb,device_id=d f=1i 5\n");
    }
    assert!(check(b"\r", Dialect::V3).is_err(), "a carriage return alone ends no line");
}

#[test]
fn no_name_ends_in_a_backslash_and_one_may_stand_anywhere_else() {
    for dialect in [Dialect::V3, Dialect::V1V2] {
        for line in [r"m\\ f=1", r"m,k\\=v f=1", r"m,k=v\\ f=1", r"m,k=v\\,l=w f=1", r"m f\=1"] {
            let fault = check(line.as_bytes(), dialect).unwrap_err();
            let kinds = [LineFaultKind::EndsInBackslash, LineFaultKind::FieldWithoutValue];
            assert!(kinds.contains(&fault.kind), "{line}: {fault}");
        }
        for line in [r"m f\\\\=1i", r"m f\\=1,b=2"] {
            // InfluxDB 3 says that it refuses such a line; InfluxDB 1 says nothing.
            let verdict = check(line.as_bytes(), dialect).map(|_| ()).map_err(|fault| fault.kind);
            let expected = match dialect {
                Dialect::V3 => Ok(()),
                Dialect::V1V2 => Err(LineFaultKind::EndsInBackslash),
            };
            assert_eq!(verdict, expected, "{line}");
        }
        for line in [r"m,k=C:\x f=1", r"m f\\x=1", r"m \f=1", r"m\x,k\y=v f=1", r#"m f="x\\""#] {
            assert!(check(line.as_bytes(), dialect).is_ok(), "{line}");
        }
    }
}

#[test]
fn times_are_taken_to_the_edge_of_each_database() {
    let takes = |time: &str, dialect| check(format!("m f=1 {time}").as_bytes(), dialect).is_ok();
    for (time, older, v3) in [
        ("-9223372036854775000", true, true),
        ("-9223372036854775806", true, true),
        ("9223372036854775806", true, true),
        ("-9223372036854775807", false, true),
        ("9223372036854775807", false, true),
        ("-9223372036854775808", false, false),
        ("9223372036854775808", false, false),
    ] {
        assert_eq!((takes(time, Dialect::V1V2), takes(time, Dialect::V3)), (older, v3), "{time}");
    }
}

#[test]
fn a_refusal_names_the_way_out() {
    for value in ["nan", "NaN", "-inf", "Infinity"] {
        let fault = check(format!("m f={value}").as_bytes(), Dialect::V3).unwrap_err().to_string();
        assert!(fault.contains("leave the field out"), "{fault}");
    }
    let fault = check(b"m time=1", Dialect::V3).unwrap_err().to_string();
    assert!(fault.contains("rename it"), "{fault}");
}
