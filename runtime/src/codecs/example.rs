//! Codecs and their examples, whatever layout they come in.

use std::path::PathBuf;

use serde_json::Value;

use crate::explain::hex;

/// A script with its examples.
#[derive(Debug)]
pub struct Codec {
    /// The script's path, from the folder that was named.
    pub name: String,
    pub script: PathBuf,
    pub layout: Layout,
    pub examples: Vec<Example>,
}

/// The layouts that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    ThingsStack,
    ChirpStack,
    Actility,
    Milesight,
}

impl Layout {
    pub fn name(self) -> &'static str {
        match self {
            Self::ThingsStack => "things_stack",
            Self::ChirpStack => "chirpstack",
            Self::Actility => "actility",
            Self::Milesight => "milesight",
        }
    }
}

/// A payload with the answer that the codec should give.
#[derive(Debug)]
pub struct Example {
    pub name: String,
    pub bytes: Vec<u8>,
    pub port: u8,
    pub received_ns: i64,
    pub variables: Vec<(String, String)>,
    pub expect: Expectation,
}

/// The answer that is expected.
#[derive(Debug)]
pub enum Expectation {
    /// The answer as TS013 has it. What is `None` is not compared.
    Answer {
        data: Option<Value>,
        normalized: Option<Value>,
        errors: Option<Vec<String>>,
        warnings: Option<Vec<String>>,
    },
    /// Some values of the data, by their paths, each with the texts that it may be.
    Values(Vec<(String, Vec<String>)>),
}

/// The values of an answer that is expected. What is `None` is not compared.
#[derive(Debug)]
pub struct ExpectedValues {
    pub data: Option<Value>,
    pub normalized: Option<Value>,
}

/// The time of receipt of examples that name none: 2024-01-01T00:00:00Z.
pub const RECEIVED_NS: i64 = 1_704_067_200_000_000_000;

impl Example {
    /// An example whose input has the names of TS013, and whose answer the errors and warnings.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn new(name: String, input: &Value, answer: &Value, values: ExpectedValues) -> anyhow::Result<Self> {
        Ok(Self {
            name,
            bytes: bytes(input.get("bytes"))?,
            port: port(input),
            received_ns: received_ns(input),
            variables: variables(input),
            expect: Expectation::Answer {
                data: values.data,
                normalized: values.normalized,
                errors: texts(answer.get("errors")),
                warnings: texts(answer.get("warnings")),
            },
        })
    }
}

/// The texts of `errors` or `warnings`. None: the example does not say.
fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value? {
        Value::Array(all) => Some(all.iter().map(shown).collect()),
        Value::Null => Some(Vec::new()),
        other => Some(vec![shown(other)]),
    }
}

/// Bytes that are an array of numbers, or a text in hex.
///
/// # Errors
/// They are something else.
pub fn bytes(value: Option<&Value>) -> anyhow::Result<Vec<u8>> {
    let wrong = || anyhow::anyhow!("bytes: expected numbers from 0 to 255, or hex digits in pairs");
    match value {
        Some(Value::Array(all)) => {
            // Some write -1 for 255, as JavaScript would take it.
            let byte = |value: &Value| Some((value.as_f64()? as i64).rem_euclid(256) as u8);
            all.iter().map(byte).collect::<Option<_>>().ok_or_else(wrong)
        }
        Some(Value::String(text)) => hex::bytes(text, char::is_whitespace).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// The port of an input, by either name that examples use.
fn port(input: &Value) -> u8 {
    let port = input.get("fPort").or_else(|| input.get("fport")).or_else(|| input.get("f_port"));
    port.and_then(Value::as_f64).map_or(1, |port| port as u8)
}

/// The time of receipt of an input, by either name that examples use.
fn received_ns(input: &Value) -> i64 {
    let time = input.get("recvTime").or_else(|| input.get("time")).and_then(Value::as_str);
    time.and_then(|text| crate::explain::cases::received_ns(text).ok()).unwrap_or(RECEIVED_NS)
}

/// The variables of an input, as texts.
fn variables(input: &Value) -> Vec<(String, String)> {
    let all = input.get("variables").and_then(Value::as_object);
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    all.into_iter().flatten().map(|(name, value)| (name.clone(), shown(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_read_in_each_of_their_forms() {
        assert_eq!(bytes(Some(&json!([1, 255, -1, 2.0]))).unwrap(), [1, 255, 255, 2]);
        assert_eq!(bytes(Some(&json!("01 fF"))).unwrap(), [1, 255]);
        for wrong in [json!("0"), json!("0x"), json!(["a"]), json!(5), json!("é0")] {
            assert!(bytes(Some(&wrong)).is_err(), "{wrong}");
        }
        assert!(bytes(None).is_err());
    }

    #[test]
    fn port_time_and_variables_have_several_names_or_none() {
        let input =
            json!({"fport": 85, "time": "2020-08-02T20:00:00.000+05:00", "variables": {"a": 1, "b": "x"}});
        assert_eq!((port(&input), received_ns(&input)), (85, 1_596_380_400_000_000_000));
        assert_eq!(variables(&input), [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x".to_owned())]);
        assert_eq!((port(&json!({})), received_ns(&json!({"recvTime": "soon"}))), (1, RECEIVED_NS));
    }
}
