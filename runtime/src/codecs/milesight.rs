//! The decoders of Milesight: `NAME-codec.json` has one payload for `NAME-decoder.js`, and some of its values.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::codecs::example::{self, Codec, Example, Expectation, Layout};

const SUFFIX: &str = "-codec.json";

/// The port on which all of these devices send.
const PORT: u8 = 85;

/// The name of the script whose example a file has.
pub fn script_name(file_name: &str) -> Option<String> {
    Some(format!("{}-decoder.js", file_name.strip_suffix(SUFFIX)?))
}

/// The codec whose example a file has. None: it has no payload.
///
/// # Errors
/// It is not as the layout says.
pub fn read(file: &Path, script: &str, text: &str) -> anyhow::Result<Option<Codec>> {
    let all: Value = serde_json::from_str(text).context("not JSON")?;
    let Some(payload) = all.get("bytes") else { return Ok(None) };
    let values = all.get("object").and_then(Value::as_array).into_iter().flatten().filter_map(expected);
    let example = Example {
        name: String::new(),
        bytes: example::bytes(Some(payload))?,
        port: PORT,
        received_ns: example::RECEIVED_NS,
        variables: Vec::new(),
        expect: Expectation::Values(values.collect()),
    };
    let script = file.with_file_name(script);
    Ok(Some(Codec { name: String::new(), script, layout: Layout::Milesight, examples: vec![example] }))
}

/// The path of a value, and the texts that it may be: itself, and the name that it has.
fn expected(item: &Value) -> Option<(String, Vec<String>)> {
    let path = item.get("id")?.as_str()?.to_owned();
    let value = item.get("value")?.as_str().filter(|value| !value.is_empty())?.to_owned();
    let names = item.get("values").and_then(Value::as_array).into_iter().flatten();
    let number: Option<f64> = value.parse().ok();
    let names = names.filter(|named| number.is_some() && named["value"].as_f64() == number);
    let names = names.filter_map(|named| Some(named["name"].as_str()?.to_owned()));
    Some((path, std::iter::once(value.clone()).chain(names).collect()))
}
