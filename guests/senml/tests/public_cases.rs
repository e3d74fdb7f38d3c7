//! The resolved records that RFC 8428 asks for, and arbitrary bytes.

use minicbor::Encoder;
use proptest::prelude::*;
use senml::Senml;
use senml::record::Value as Sent;
use serde_json::{Value, json};
use tidegate_guest::testing::{self, Context};
use tidegate_guest::{Decoder, Refusal, Route};

const CASES: &str = include_str!("../../../tests/cases/senml-public.jsonl");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The resolved records in the form of the cases, without `t`.
fn records(payload: &[u8]) -> Result<Vec<Value>, Refusal> {
    let decoder = Senml::configure(&Route::default()).unwrap();
    let mut records = Vec::new();
    Context::default().decode_one(payload, &mut |message, _| {
        decoder.records(message, &mut |name, record| {
            let time_ns = record.time_ns.unwrap_or(testing::RECEIVED_NS);
            let mut resolved = json!({"n": name, "time_ns": time_ns.to_string()});
            match &record.value {
                None => {}
                Some(Sent::Number(value)) => resolved["v"] = json!(value),
                Some(Sent::Text(text)) => resolved["vs"] = json!(text),
                Some(Sent::Boolean(value)) => resolved["vb"] = json!(value),
                Some(Sent::Data(data)) => resolved["vd_hex"] = json!(hex(data)),
            }
            if let Some(unit) = &record.unit {
                resolved["u"] = json!(unit);
            }
            if let Some(sum) = record.sum {
                resolved["s"] = json!(sum);
            }
            if let Some(time) = record.update_time {
                resolved["ut"] = json!(time);
            }
            records.push(resolved);
            Ok(())
        })
    })?;
    Ok(records)
}

#[test]
fn every_case_that_is_not_ambiguous_is_resolved_or_refused_as_the_rfc_says() {
    let (mut valid, mut refused) = (0, 0);
    for case in CASES.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        if case["ambiguous"] == true {
            continue;
        }
        assert_eq!(case["input"]["now_s"].as_i64().unwrap() * 1_000_000_000, testing::RECEIVED_NS);
        let payload = bytes(case["input"]["payload_hex"].as_str().unwrap());
        let found = records(&payload);
        let lines = testing::decode::<Senml>(&Route::default(), &payload);
        match case["expect"]["records"].as_array() {
            Some(expected) => {
                let mut expected = expected.clone();
                for record in &mut expected {
                    record.as_object_mut().unwrap().remove("t");
                }
                let found = found.unwrap_or_else(|refusal| panic!("{refusal}: {case}"));
                assert_eq!(found, expected, "{case}");
                assert_eq!(lines.unwrap().lines().count(), expected.len(), "{case}");
                valid += 1;
            }
            None => {
                let refusal = found.expect_err(&case.to_string());
                assert_eq!(lines.unwrap_err(), refusal);
                assert!(
                    is_of_kind(&refusal.code, case["expect"]["error"].as_str().unwrap()),
                    "{refusal}: {case}"
                );
                refused += 1;
            }
        }
    }
    assert!(valid >= 130 && refused >= 100, "{valid} valid, {refused} refused");
}

/// True if a code stands for the error of a case.
fn is_of_kind(code: &str, error: &str) -> bool {
    match error {
        "must-understand" => code == "MUST_UNDERSTAND",
        "version" | "version-change" => code == "BAD_VERSION",
        "name-char" | "no-name" => code == "BAD_NAME",
        "no-value" => ["NO_VALUE", "BAD_NAME"].contains(&code),
        "two-values" => code == "TWO_VALUES",
        "type" => code == "BAD_TYPE",
        "base64" => code == "BAD_BASE64",
        "range" => code == "BAD_NUMBER",
        "not-array" => ["NOT_A_PACK", "BAD_JSON"].contains(&code),
        "record-not-map" | "shape" => code == "NOT_A_RECORD",
        "empty-pack" => code == "EMPTY_PACK",
        "json" => code == "BAD_JSON",
        "utf8" | "truncated" | "malformed" | "trailing" => ["BAD_JSON", "BAD_CBOR"].contains(&code),
        other => panic!("an unknown error: {other}"),
    }
}

/// One record of a test's own, and its two forms.
#[derive(Clone, Debug)]
struct Sample {
    name: String,
    value: f64,
    time: Option<i32>,
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let sample = ("[A-Za-z0-9][A-Za-z0-9:./_-]{0,12}", any::<f64>(), prop::option::of(any::<i32>()));
    let sample = sample.prop_filter_map("a finite value", |(name, value, time)| {
        value.is_finite().then_some(Sample { name, value, time })
    });
    prop::collection::vec(sample, 1..20)
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_lines_or_a_refusal(
        start in prop::sample::select(vec![&b""[..], b"[", b"\x81", b"\x9f\xbf", b"\x81\xa3\x00\x61a\x02", b"[{\"n\":\"a\","]),
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = testing::decode::<Senml>(&Route::default(), &[start, &payload].concat());
    }

    /// A pack that is broken at one byte is lines or a refusal.
    #[test]
    fn a_broken_pack_is_lines_or_a_refusal(samples in samples(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut payload = cbor(&samples);
        let at = at.index(payload.len());
        payload[at] = byte;
        let _ = testing::decode::<Senml>(&Route::default(), &payload);
        payload.truncate(at);
        prop_assert!(testing::decode::<Senml>(&Route::default(), &payload).is_err());
    }

    #[test]
    fn what_is_encoded_comes_back_from_both_forms(samples in samples()) {
        let from_cbor = records(&cbor(&samples)).unwrap();
        let pack: Vec<_> = samples
            .iter()
            .map(|sample| match sample.time {
                Some(time) => json!({"n": sample.name, "v": sample.value, "t": time}),
                None => json!({"n": sample.name, "v": sample.value}),
            })
            .collect();
        prop_assert_eq!(&from_cbor, &records(json!(pack).to_string().as_bytes()).unwrap());
        for (record, sample) in from_cbor.iter().zip(&samples) {
            prop_assert_eq!(record["n"].as_str().unwrap(), &sample.name);
            prop_assert_eq!(record["v"].as_f64().unwrap().to_bits(), (sample.value + 0.0).to_bits());
        }
    }
}

fn cbor(samples: &[Sample]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    encoder.array(samples.len() as u64).unwrap();
    for sample in samples {
        encoder.map(2 + u64::from(sample.time.is_some())).unwrap();
        encoder.i64(0).unwrap().str(&sample.name).unwrap().i64(2).unwrap().f64(sample.value).unwrap();
        if let Some(time) = sample.time {
            encoder.i64(6).unwrap().i64(time.into()).unwrap();
        }
    }
    encoder.into_writer()
}
