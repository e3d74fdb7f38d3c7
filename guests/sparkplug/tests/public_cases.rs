//! Values of payloads that real protobuf made from Tahu's definition, in the sessions of the specification.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sparkplug::Sparkplug;
use sparkplug::session::{Status, Verdict};
use sparkplug::value::Value as Found;
use tidegate_guest::testing::Context;
use tidegate_guest::{Decoder, Refusal, Route};

const CASES: &str = include_str!("../../../tests/cases/sparkplug-public.jsonl");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn value(found: &Found<'_>) -> Value {
    match found {
        Found::Null => Value::Null,
        Found::Integer(number) => json!(number),
        Found::Unsigned(number) => json!(number),
        Found::Float(number) if number.is_nan() => json!("NaN"),
        Found::Float(number) if number.is_infinite() => {
            json!(if *number > 0.0 { "Infinity" } else { "-Infinity" })
        }
        Found::Float(number) => json!(number),
        Found::Boolean(value) => json!(value),
        Found::Text(text) => json!(text),
        Found::Bytes(bytes) => {
            json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()})
        }
        Found::Array(elements) => elements.iter().map(value).collect(),
        Found::DataSet(set) => json!({
            "columns": set.columns,
            "types": set.types.iter().map(|datatype| datatype.name()).collect::<Vec<_>>(),
            "rows": set.rows.iter().map(|row| row.iter().map(value).collect::<Value>()).collect::<Value>(),
        }),
        Found::Template(template) => json!({
            "template_ref": template.template_ref,
            "version": template.version,
            "is_definition": template.is_definition,
            "metrics": template.members.iter().map(|member| json!({
                "name": member.name, "datatype": member.datatype.name(), "value": value(&member.value),
            })).collect::<Value>(),
            "parameters": template.parameters.iter().map(|(name, datatype, found)| json!({
                "name": name, "type": datatype.name(), "value": value(found),
            })).collect::<Value>(),
        }),
    }
}

/// The verdict in the form of the cases.
fn told(verdict: &Verdict<'_>) -> Value {
    let status = match verdict.status {
        Status::Ok => "ok",
        Status::Ignored => "ignored",
        Status::NodeDead => "node_dead",
        Status::DeviceDead => "device_dead",
    };
    json!({
        "status": status,
        "rebirth_needed": verdict.rebirth.is_some(),
        "metrics": verdict.metrics.iter().map(|metric| json!({
            "name": metric.name,
            "datatype": metric.datatype.name(),
            "value": value(&metric.value),
            "timestamp_ms": metric.timestamp,
            "is_null": matches!(metric.value, Found::Null),
            "is_historical": metric.is_historical,
            "is_transient": metric.is_transient,
        })).collect::<Value>(),
        "dropped": verdict.dropped.iter().map(|dropped| json!({
            "index": dropped.index, "reason": dropped.reason,
        })).collect::<Value>(),
    })
}

fn refused(refusal: &Refusal) -> Value {
    let status = match &*refusal.code {
        "NO_BIRTH" => "no_birth",
        "BAD_TOPIC" => "bad_topic",
        "BAD_PAYLOAD" => "bad_payload",
        "BAD_SEQ" => "bad_seq",
        "BAD_BIRTH" => "bad_birth",
        other => panic!("{other}: {refusal}"),
    };
    // A refused message cannot be told from one that needs no rebirth: its code says it.
    json!({
        "status": status,
        "rebirth_needed": (["NO_BIRTH", "BAD_SEQ"].contains(&&*refusal.code)),
        "metrics": [],
        "dropped": [],
    })
}

/// The part of an expected message that is compared.
fn expected(message: &Value) -> Value {
    let mut message = message.clone();
    message.as_object_mut().unwrap().remove("reason");
    for metric in message["metrics"].as_array_mut().unwrap() {
        metric.as_object_mut().unwrap().retain(|key, _| !["alias", "properties"].contains(&key.as_str()));
    }
    message
}

/// The partition that the gateway gives a topic: group and edge node.
fn partition(topic: &str) -> String {
    let levels: Vec<_> = topic.split('/').collect();
    format!("{:?} {:?}", levels.get(1), levels.get(3))
}

/// A decoder that lives over all messages, or a new one for each.
fn run(case: &Value, is_new_each_time: bool) -> usize {
    let mut partitions: BTreeMap<String, Context> = BTreeMap::new();
    let (mut reader, mut writer) = (decoder(), decoder());
    let sent = case["input"]["messages"].as_array().unwrap();
    for (message, wanted) in sent.iter().zip(case["expect"]["messages"].as_array().unwrap()) {
        if is_new_each_time {
            (reader, writer) = (decoder(), decoder());
        }
        let topic = message["topic"].as_str().unwrap();
        let payload = bytes(message["payload_hex"].as_str().unwrap());
        let context = partitions.entry(partition(topic)).or_default();
        topic.clone_into(&mut context.topic);
        // Lines of the same message, from the same state.
        let copy = context.clone();
        let mut found = Value::Null;
        let result = context.decode_one(&payload, &mut |message, _| {
            reader.interpret(message, &mut |verdict| {
                found = told(&verdict);
                Ok(())
            })
        });
        if let Err(refusal) = &result {
            found = refused(refusal);
        }
        assert_eq!(found, expected(wanted), "{case}");
        let lines = copy.decode_one(&payload, &mut |message, lines| writer.decode(message, lines));
        assert_eq!(lines.is_ok(), result.is_ok(), "{lines:?}: {case}");
        assert_eq!(copy.state.borrow().clone(), context.state.borrow().clone());
    }
    sent.len()
}

fn decoder() -> Sparkplug {
    Sparkplug::configure(&Route::default()).unwrap()
}

#[test]
fn every_case_that_is_not_ambiguous_gives_its_values_and_its_session() {
    let (mut cases, mut messages) = (0, 0);
    for case in CASES.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        if case["ambiguous"] == true {
            continue;
        }
        messages += run(&case, false);
        run(&case, true);
        cases += 1;
    }
    assert!(cases >= 140 && messages >= 200, "{cases} cases, {messages} messages");
}
