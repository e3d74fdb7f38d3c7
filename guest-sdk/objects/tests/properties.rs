//! Any object, under any rules: lines or a refusal, within the ceilings.

use proptest::prelude::*;
use tidegate_guest::{Lines, Refusal, Route};
use tidegate_objects::{Container, DEPTH_MAX, Leaf, ObjectRules, Objects, Walk};

#[derive(Clone, Debug)]
enum Value {
    Leaf(Leaf<'static>),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Leaf::Null),
        any::<bool>().prop_map(Leaf::Boolean),
        any::<f64>().prop_map(Leaf::Float),
        any::<i64>().prop_map(Leaf::Integer),
        any::<u64>().prop_map(Leaf::Unsigned),
        "[a-z0-9.\"\\\\ ]{0,6}".prop_map(|text| Leaf::Text(text.into())),
    ];
    leaf.prop_map(Value::Leaf).prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec(("[abt_]{0,3}|time|site_id", inner), 0..6).prop_map(Value::Object),
        ]
    })
}

fn push(walk: &mut Walk<'_, 'static>, value: &Value) -> Result<(), Refusal> {
    match value {
        Value::Leaf(leaf) => walk.leaf(leaf.clone()),
        Value::Array(elements) => {
            walk.begin(Container::Array)?;
            elements.iter().try_for_each(|element| push(walk, element))?;
            walk.end();
            Ok(())
        }
        Value::Object(members) => {
            walk.begin(Container::Object)?;
            for (key, value) in members {
                walk.key(key);
                push(walk, value)?;
            }
            walk.end();
            Ok(())
        }
    }
}

fn written(options: &[(&str, &str)], value: &Value) -> Result<String, Refusal> {
    let route = Route { message_type: "m".into(), ..tidegate_guest::testing::route(options) };
    let rules = ObjectRules::read(&route).map_err(|why| Refusal::new("CONFIGURE", why))?;
    tidegate_guest::testing::Context::default().decode_one(b"", &mut |_, lines: &mut Lines| {
        let mut objects = Objects::default();
        let mut walk = objects.walk(&rules);
        push(&mut walk, value)?;
        walk.finish(lines)
    })
}

/// The number of fields of all lines. No value of the strategy has a comma, a space or `=` outside of a string.
fn leaves(value: &Value) -> usize {
    match value {
        Value::Leaf(Leaf::Null) => 0,
        Value::Leaf(Leaf::Float(value)) => usize::from(value.is_finite()),
        Value::Leaf(_) => 1,
        Value::Array(elements) => elements.iter().map(leaves).sum(),
        Value::Object(members) => members.iter().map(|(_, value)| leaves(value)).sum(),
    }
}

proptest! {
    #[test]
    fn every_value_is_a_field_once_or_the_object_is_refused(value in values(), explode in any::<bool>()) {
        let value = Value::Object(vec![("o".into(), value)]);
        let explode = if explode { "o,o_a,o_b" } else { "" };
        match written(&[("integers", "float"), ("explode", explode)], &value) {
            Ok(lines) => {
                let mut strings = false;
                let outside: String = lines
                    .replace("\\\\", "").replace("\\\"", "")
                    .chars()
                    .filter(|c| { if *c == '"' { strings = !strings; } !strings })
                    .collect();
                prop_assert_eq!(outside.matches('=').count(), leaves(&value));
                prop_assert!(!explode.is_empty() || lines.lines().count() <= 1);
            }
            Err(refusal) => prop_assert!(refusal.code == "BAD_LINE", "{}", refusal),
        }
    }

    #[test]
    fn any_rules_make_lines_or_a_refusal(
        value in values(),
        tags in "(o|o_a|o_b|o_time)?(,o_t)?",
        types in prop_oneof![Just("integer"), Just("float"), Just("boolean"), Just("string")],
        strings in prop_oneof![Just("keep"), Just("parse")],
    ) {
        let types = format!("{{\"o_a\":\"{types}\",\"o_0\":\"{types}\"}}");
        let options = [
            ("tags", tags.as_str()), ("types", &types), ("strings", strings), ("explode", "o_t,o"),
            ("time_field", "o_b"), ("time_format", "unix_ms"),
        ];
        let value = Value::Object(vec![("o".into(), value)]);
        if let Err(refusal) = written(&options, &value) {
            prop_assert!(["BAD_LINE", "BAD_TYPE", "BAD_TIME", "BAD_NUMBER"].contains(&&*refusal.code), "{}", refusal);
        }
    }
}

#[test]
fn depth_and_lines_have_ceilings() {
    let nested = (0..DEPTH_MAX + 1).fold(Value::Leaf(Leaf::Integer(1)), |inner, _| Value::Array(vec![inner]));
    assert_eq!(written(&[], &Value::Object(vec![("a".into(), nested)])).unwrap_err().code, "TOO_DEEP");
    let long = Value::Array(vec![Value::Leaf(Leaf::Integer(1)); 1_001]);
    let refusal = written(&[("explode", "a")], &Value::Object(vec![("a".into(), long)])).unwrap_err();
    assert!(refusal.to_string().starts_with("TOO_MANY_LINES: a has more than 1000"), "{refusal}");
}

#[test]
fn a_name_that_the_gateway_needs_gets_an_underscore() {
    let object = Value::Object(vec![
        ("time".into(), Value::Leaf(Leaf::Float(1.0))),
        ("site_id".into(), Value::Object(vec![("x".into(), Value::Leaf(Leaf::Float(2.0)))])),
        ("b".into(), Value::Object(vec![("site_id".into(), Value::Leaf(Leaf::Float(3.0)))])),
    ]);
    assert_eq!(written(&[], &object).unwrap(), "m time_=1.0,b_site_id=3.0\n");
}
