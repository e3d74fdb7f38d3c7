//! The device profiles of ChirpStack: `test_decode_NAME.json` (JSON5) has the examples of `NAME.js` beside it.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::codecs::example::{Codec, Example, ExpectedValues, Layout};

const PREFIX: &str = "test_decode_";

/// The name of the script whose examples a file has.
pub fn script_name(file_name: &str) -> Option<String> {
    Some(format!("{}.js", file_name.strip_prefix(PREFIX)?.strip_suffix(".json")?))
}

/// The codec whose examples a file has.
///
/// # Errors
/// It is not as the layout says.
pub fn read(file: &Path, script: &str, text: &str) -> anyhow::Result<Codec> {
    let all: Value = json5::from_str(text).context("not JSON5")?;
    let all = all.as_array().context("expected an array of examples")?.iter().enumerate();
    let examples = all
        .map(|(index, example)| read_example(example).with_context(|| format!("example {index}")))
        .collect::<anyhow::Result<_>>()?;
    let script = file.with_file_name(script);
    Ok(Codec { name: String::new(), script, layout: Layout::ChirpStack, examples })
}

fn read_example(example: &Value) -> anyhow::Result<Example> {
    let input = example.get("input").context("input is missing")?;
    let expected = example.get("expected").context("expected is missing")?;
    let name = example.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let values = ExpectedValues { data: expected.get("data").cloned(), normalized: None };
    Example::new(name, input, expected, values)
}
