//! The values that public implementations of Cayenne LPP find, and arbitrary bytes.

use lpp::Lpp;
use lpp::kinds::KINDS;
use lpp::records::Records;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_guest::{Refusal, Route, testing};

const CASES: &str = include_str!("../../../tests/cases/lpp-public.jsonl");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The records in the form of the cases.
fn records(payload: &[u8]) -> Result<Value, Refusal> {
    let records = Records::new(payload).map(|record| {
        let record = record?;
        let scaled = |divisor: u16, number: i64| json!(number as f64 / f64::from(divisor));
        let numbers: Vec<_> = record.numbers().collect();
        let values = match &numbers[..] {
            [(component, number)] => scaled(component.divisor, *number),
            several => several
                .iter()
                .map(|(component, number)| {
                    (component.suffix[1..].to_owned(), scaled(component.divisor, *number))
                })
                .collect(),
        };
        Ok(json!({
            "channel": record.channel,
            "type": record.kind.number,
            "name": record.kind.name,
            "values": values,
            "raw": numbers.iter().map(|(_, number)| *number).collect::<Vec<_>>(),
        }))
    });
    records.collect::<Result<Vec<_>, Refusal>>().map(Value::from)
}

/// Numbers as floats, so that 0 is 0.0.
fn as_floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(list) => list.iter().map(as_floats).collect(),
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), as_floats(value))).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_public_case_gives_its_values_or_is_refused() {
    let (mut valid, mut refused) = (0, 0);
    for case in CASES.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let payload = bytes(case["input"]["payload_hex"].as_str().unwrap());
        let lines = testing::decode::<Lpp>(&Route::default(), &payload);
        match case["expect"].get("records") {
            Some(expected) => {
                assert_eq!(as_floats(&records(&payload).unwrap()), as_floats(expected), "{case}");
                assert_eq!(lines.unwrap().is_empty(), payload.is_empty());
                valid += 1;
            }
            None => {
                let code = lines.expect_err(&case.to_string()).code;
                assert!(["TRUNCATED", "TRAILING_BYTES", "UNKNOWN_TYPE"].contains(&&*code), "{code}: {case}");
                refused += 1;
            }
        }
    }
    assert!(valid >= 90 && refused >= 50, "{valid} valid, {refused} refused");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_lines_or_a_refusal(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(refusal) = testing::decode::<Lpp>(&Route::default(), &payload) {
            prop_assert!(refusal.code != "BAD_LINE", "{}", refusal);
        }
    }

    /// Records that are made by hand come back as they were.
    #[test]
    fn records_come_back_as_they_were_written(
        records in prop::collection::vec((any::<u8>(), 0..KINDS.len(), prop::array::uniform3(any::<i32>())), 0..40),
    ) {
        let mut payload = Vec::new();
        let mut written = Vec::new();
        for (channel, place, numbers) in records {
            let kind = &KINDS[place];
            payload.extend([channel, kind.number]);
            let mut kept = Vec::new();
            for (component, number) in kind.components.iter().zip(numbers) {
                let bytes = &number.to_be_bytes()[4 - component.bytes..];
                payload.extend(bytes);
                let unused = 32 - 8 * component.bytes as u32;
                let shifted = (number as u32) << unused;
                kept.push(if component.signed {
                    i64::from(shifted as i32 >> unused)
                } else {
                    i64::from(shifted >> unused)
                });
            }
            written.push((channel, kind.number, kept));
        }
        let read: Vec<_> = Records::new(&payload)
            .map(|record| record.unwrap())
            .map(|record| {
                (record.channel, record.kind.number, record.numbers().map(|(_, number)| number).collect())
            })
            .collect();
        prop_assert_eq!(read, written);
    }
}
