//! The device repository of The Things Stack: `NAME-codec.yaml` names the script, and brings the examples.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::codecs::example::{Codec, Example, ExpectedValues, Layout};

/// The key that tells such a file from other YAML.
pub const MARK: &str = "uplinkDecoder";

/// The codec that a file describes. None: it describes none for uplinks.
///
/// # Errors
/// It is not as the layout says.
pub fn read(file: &Path, text: &str) -> anyhow::Result<Option<Codec>> {
    let all: Value = serde_saphyr::from_str(text).context("not YAML")?;
    let Some(decoder) = all.get(MARK).filter(|decoder| decoder.is_object()) else { return Ok(None) };
    let script =
        decoder.get("fileName").and_then(Value::as_str).context("uplinkDecoder.fileName is missing")?;
    let examples = decoder.get("examples").and_then(Value::as_array);
    let examples = examples.into_iter().flatten().enumerate();
    let examples = examples
        .map(|(index, example)| {
            read_example(example).with_context(|| format!("uplinkDecoder.examples[{index}]"))
        })
        .collect::<anyhow::Result<_>>()?;
    let script = file.with_file_name(script);
    Ok(Some(Codec { name: String::new(), script, layout: Layout::ThingsStack, examples }))
}

fn read_example(example: &Value) -> anyhow::Result<Example> {
    let input = example.get("input").context("input is missing")?;
    let output = example.get("output").context("output is missing")?;
    // What the later step makes stands under either name, here or beside the output.
    let normalized = [(output, "normalizedOutput"), (example, "normalizedOutput")];
    let normalized = normalized.into_iter().find_map(|(place, name)| place.get(name));
    let normalized = normalized.map(|normalized| normalized.get("data").unwrap_or(normalized).clone());
    let name = example.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    Example::new(name, input, output, ExpectedValues { data: output.get("data").cloned(), normalized })
}
